//! The program for the inside of the guest: built on demand, static, with a target directory of its
//! own, so that neither the lock nor the flags of the build around it matter.

use crate::process::{self, ProcessError};
use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use thiserror::Error;

const PACKAGE: &str = "cofferdam-guest-agent";
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// A build of everything the agent uses, on a slow machine.
const BUILD: Duration = Duration::from_secs(1200);

/// Why there is no agent.
#[derive(Debug, Error)]
pub enum AgentError {
    /// The build failed.
    #[error("the guest's agent could not be built: {0}")]
    Build(#[from] ProcessError),
    /// The sources are gone.
    #[error(
        "the sources of the guest's agent are not at {}; build {PACKAGE} yourself, static, and name it by COFFERDAM_AGENT",
        .0.display()
    )]
    NoSources(PathBuf),
}

/// The agent: what `COFFERDAM_AGENT` names, or what is built from the workspace this crate was
/// built in.
pub(crate) fn find() -> Result<PathBuf, AgentError> {
    if let Some(path) = env::var_os("COFFERDAM_AGENT").filter(|path| !path.is_empty()) {
        return Ok(path.into());
    }
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    if !workspace.join("Cargo.toml").exists() {
        return Err(AgentError::NoSources(workspace));
    }
    // A relative directory counts from the workspace: joining keeps an absolute one as it is.
    let around = env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    let target = workspace.join(around).join("guest-agent");
    process::run(&mut build(&workspace, &target), BUILD)?;
    Ok(target.join(TARGET).join("release").join(PACKAGE))
}

fn build(workspace: &Path, target: &Path) -> Command {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(["build", "--quiet", "--release", "--locked"])
        .args(["--package", PACKAGE])
        // Naming the target keeps the flags below from build scripts and procedural macros, which
        // cannot be static.
        .args(["--target", TARGET])
        .arg("--target-dir")
        .arg(target)
        .current_dir(workspace)
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "none")
        .stdin(Stdio::null());
    // The build around this one must not change what comes out.
    for variable in [
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_BUILD_TARGET",
        "CARGO_TARGET_DIR",
        "CARGO_MAKEFLAGS",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "LD_LIBRARY_PATH",
    ] {
        command.env_remove(variable);
    }
    command
}
