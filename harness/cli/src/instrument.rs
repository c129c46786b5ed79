//! `cofferdam instrument`: cargo, with this program as its rustc wrapper.

use clap::Args;
use cofferdam_instrument::wrapper;
use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

/// The harness failed.
const FAILED: u8 = 3;

#[derive(Args)]
#[command(after_help = "Exit codes: cargo's own; 3 if cargo could not be run.")]
pub struct Instrument {
    /// A crate to instrument, by its name in code; may be given again.
    #[arg(long = "crate", value_name = "NAME", default_value = wrapper::CRATES)]
    crates: Vec<String>,
    /// Where cargo builds.
    #[arg(
        long,
        value_name = "DIR",
        help = "Where cargo builds, in a directory for each list of crates [default: target/instrumented]"
    )]
    target_dir: Option<PathBuf>,
    /// What cargo is to do.
    #[arg(last = true, value_name = "CARGO ARGUMENTS", default_values = ["build", "--release", "--package", "cofferdam"])]
    cargo: Vec<OsString>,
}

/// Runs cargo and ends as it ends.
pub fn instrument(arguments: &Instrument) -> ExitCode {
    let target = arguments.target_dir.clone().unwrap_or_else(|| {
        let usual = env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
        PathBuf::from(usual).join("instrumented")
    });
    let ran = env::current_exe()
        .and_then(|wrapper| {
            let target = std::path::absolute(target)?;
            let (mut cargo, own) = wrapper::cargo(&wrapper, &target, &arguments.crates);
            eprintln!("cofferdam: building in {}", own.display());
            cargo.args(&arguments.cargo).status()
        })
        .map(|status| status.code().and_then(|code| u8::try_from(code).ok()));
    match ran {
        Ok(code) => ExitCode::from(code.unwrap_or(FAILED)),
        Err(error) => {
            eprintln!("cofferdam: cannot run cargo: {error}; is it installed and in PATH?");
            ExitCode::from(FAILED)
        }
    }
}
