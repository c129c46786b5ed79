//! What `--asan` takes: the compiler's AddressSanitizer runtime.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Ends the name of the runtime's file; what comes before names the compiler's channel.
const RUNTIME: &str = "rt.asan.a";

/// Whether the compiler has the runtime.
///
/// # Errors
///
/// It has none, or cannot be asked: what is missing, and what to do.
pub fn available() -> Result<(), String> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let said = Command::new(&rustc)
        .args(["--print", "target-libdir"])
        .output()
        .map_err(|error| format!("cannot run {}: {error}", Path::new(&rustc).display()))?;
    let place = String::from_utf8_lossy(&said.stdout).trim().to_owned();
    has_runtime(Path::new(&place))
}

fn has_runtime(place: &Path) -> Result<(), String> {
    let entries = fs::read_dir(place).into_iter().flatten();
    let mut names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    if names.any(|name| name.starts_with("librustc") && name.ends_with(RUNTIME)) {
        return Ok(());
    }
    Err(format!(
        "--asan needs the compiler's AddressSanitizer runtime, and there is no librustc*{RUNTIME} in {}; it comes with rustup's toolchains for x86_64-unknown-linux-gnu (rustup toolchain install stable), and not with every distribution's",
        place.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn toolchain_without_the_runtime_is_told_of_with_a_remedy() {
        let place = tempfile::tempdir().expect("a directory");
        let why = has_runtime(place.path()).expect_err("it is empty");
        fs::write(place.path().join("librustc-stable_rt.asan.a"), "").expect("writable");

        assert!(why.contains("rustup toolchain install"), "{why}");
        assert_eq!(has_runtime(place.path()), Ok(()));
    }
}
