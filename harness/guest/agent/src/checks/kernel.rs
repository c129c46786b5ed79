//! Which kernel this is.

use super::NotPassed;
use serde_json::{Value, json};
use std::fs;

/// Passes on any Linux; the detail is what later findings are tied to.
pub fn run(_arguments: &[String]) -> Result<Value, NotPassed> {
    let name = rustix::system::uname();
    let command_line = fs::read_to_string("/proc/cmdline")?;
    Ok(json!({
        "system": name.sysname().to_string_lossy(),
        "release": name.release().to_string_lossy(),
        "version": name.version().to_string_lossy(),
        "command_line": command_line.trim_end(),
    }))
}
