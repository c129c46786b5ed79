//! `cofferdam instrument`: cargo, with this program as its rustc wrapper.

use crate::fuzz;
use clap::Args;
use cofferdam_instrument::wrapper;
use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// The harness failed.
const FAILED: u8 = 3;

#[derive(Args)]
#[command(after_help = "Exit codes: cargo's own; 3 if cargo could not be run.")]
pub struct Instrument {
    /// A crate to instrument, by its name in code; may be given again.
    #[arg(long = "crate", value_name = "NAME", default_value = wrapper::CRATES)]
    crates: Vec<String>,
    /// Instruments the fuzzer's drivers and adapters instead, as programs of libFuzzer need it.
    #[arg(long, conflicts_with = "crates")]
    libfuzzer: bool,
    /// Where cargo builds.
    #[arg(
        long,
        value_name = "DIR",
        help = "Where cargo builds, in a directory for each list of crates [default: target/instrumented, with --libfuzzer target/libfuzzer]"
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
        PathBuf::from(usual).join(if arguments.libfuzzer {
            "libfuzzer"
        } else {
            "instrumented"
        })
    });
    let ran = env::current_exe()
        .and_then(|wrapper| {
            let target = std::path::absolute(target)?;
            let (mut cargo, own) = if arguments.libfuzzer {
                (for_libfuzzer(&wrapper, &target), target)
            } else {
                wrapper::cargo(&wrapper, &target, &arguments.crates)
            };
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

/// Cargo, with drivers and adapters instrumented as `cofferdam fuzz` does it, for libFuzzer.
fn for_libfuzzer(wrapper: &Path, target: &Path) -> Command {
    let crates = fuzz::CRATES.map(str::to_owned);
    let mut cargo = wrapper::cargo_in(wrapper, target, &crates);
    let manner = [wrapper::CHECKED, wrapper::LIBFUZZER].join(",");
    cargo
        .env(wrapper::MANNER, manner)
        .env("COFFERDAM_TOOLCHAIN", fuzz::toolchain());
    cargo
}
