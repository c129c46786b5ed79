//! The rustc wrapper: cargo calls it as `wrapper rustc ARGS...` for every crate, and for the listed
//! ones it adds LLVM's SanitizerCoverage, which works on stable Rust.
//!
//! Without dependencies, so that a build script can be the wrapper too. It trusts who calls it.

#![forbid(unsafe_code)]

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// The environment variable that makes a program the wrapper, and lists crates separated by commas.
/// Programs built by it know the list too.
pub const VARIABLE: &str = "COFFERDAM_INSTRUMENT";

/// The crates that are instrumented if nothing else is asked for: third-party drivers that read and
/// write registers through a pointer. Their generic code is compiled where it is used, so an adapter
/// of a generic driver would have to be listed too; code that the hooks call must not be.
pub const CRATES: &str = "nvme_driver";

/// What is added to the compiler's arguments.
const FLAGS: [&str; 6] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=3",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    // Otherwise a spin loop's comparison is not reported.
    "-Cllvm-args=-sanitizer-coverage-prune-blocks=0",
    "-Ccodegen-units=1",
];

/// What is added where registers are trapped: every load and store costs a call.
const TRAPS: [&str; 2] = [
    "-Cllvm-args=-sanitizer-coverage-trace-loads",
    "-Cllvm-args=-sanitizer-coverage-trace-stores",
];

/// Ends the name of a crate in the list whose loads and stores call nobody: one that reaches registers
/// through its host.
pub const UNTRAPPED: char = '-';

/// Ends the name of a program in the list that is itself nothing to instrument: it is only linked with what
/// the other crates call.
pub const LINKED: char = '!';

/// The environment variable that says how listed crates are built for fuzzing, words separated by
/// commas: [`CHECKED`], [`SANITIZED`], [`LIBFUZZER`].
pub const MANNER: &str = "COFFERDAM_INSTRUMENT_MANNER";

/// With overflow checks, whatever the profile says.
pub const CHECKED: &str = "checked";

/// For libFuzzer, which wants to know where the counters are. What cargo-fuzz adds to every crate is taken
/// from all: the callbacks must not be called from what they call.
pub const LIBFUZZER: &str = "libfuzzer";

/// See [`LIBFUZZER`].
const PLACES: &str = "-Cllvm-args=-sanitizer-coverage-pc-table";

/// Callbacks that a program of libFuzzer has twice, as the linker must wrap them.
pub const SHARED: [&str; 9] = [
    "__sanitizer_cov_trace_cmp1",
    "__sanitizer_cov_trace_cmp2",
    "__sanitizer_cov_trace_cmp4",
    "__sanitizer_cov_trace_cmp8",
    "__sanitizer_cov_trace_const_cmp1",
    "__sanitizer_cov_trace_const_cmp2",
    "__sanitizer_cov_trace_const_cmp4",
    "__sanitizer_cov_trace_const_cmp8",
    "__sanitizer_cov_trace_switch",
];

/// With AddressSanitizer. It makes the compiler accept what is otherwise nightly only.
pub const SANITIZED: &str = "asan";

/// See [`SANITIZED`]. Checks are made in place, however long a function is: failed ones have to call
/// [`CALLS`].
const ASAN: [&str; 3] = [
    "-Zsanitizer=address",
    "-Cunsafe-allow-abi-mismatch=sanitizer",
    "-Cllvm-args=-asan-instrumentation-with-call-threshold=-1",
];

/// Calls of instrumented code to the runtime that are answered here, as the linker must wrap them.
pub const CALLS: [&str; 16] = [
    "__asan_report_load1",
    "__asan_report_load2",
    "__asan_report_load4",
    "__asan_report_load8",
    "__asan_report_load16",
    "__asan_report_load_n",
    "__asan_report_store1",
    "__asan_report_store2",
    "__asan_report_store4",
    "__asan_report_store8",
    "__asan_report_store16",
    "__asan_report_store_n",
    "__asan_memcpy",
    "__asan_memmove",
    "__asan_memset",
    "__asan_handle_no_return",
];

/// Whether cargo calls this program as its wrapper: the variable is set, and the first argument is
/// a compiler.
pub fn is_asked(first: Option<&OsStr>) -> bool {
    let is_rustc = |first: &OsStr| {
        Path::new(first)
            .file_stem()
            .is_some_and(|name| name == "rustc" || name == "clippy-driver")
    };
    env::var_os(VARIABLE).is_some() && first.is_some_and(is_rustc)
}

/// Calls the compiler as cargo wants it, with the flags added for listed crates. `args` are the
/// compiler and its arguments, without this program's name.
pub fn run(mut args: impl Iterator<Item = OsString>) -> ExitCode {
    let Some(rustc) = args.next() else {
        eprintln!("cofferdam: a rustc wrapper is called with the compiler's path; cargo does so");
        return ExitCode::from(2);
    };
    let mut args: Vec<OsString> = args.collect();
    let manner = env::var(MANNER).unwrap_or_default();
    let for_libfuzzer = lists(&manner, LIBFUZZER);
    if for_libfuzzer {
        args.retain(|arg| !is_coverage(arg));
    }
    let list = env::var(VARIABLE).unwrap_or_default();
    let name = crate_name(&args);
    let trapped = name.is_some_and(|name| lists(&list, name));
    let listed = trapped || name.is_some_and(|name| lists(&list, &format!("{name}{UNTRAPPED}")));
    let linked = name.is_some_and(|name| lists(&list, &format!("{name}{LINKED}")));
    let mut command = Command::new(&rustc);
    command.args(&args);
    if listed {
        command.args(FLAGS);
        if trapped {
            command.args(TRAPS);
        }
        if for_libfuzzer {
            command.arg(PLACES);
        }
        if lists(&manner, CHECKED) {
            command.arg("-Coverflow-checks=on");
        }
    }
    if (listed || linked) && lists(&manner, SANITIZED) {
        command.args(ASAN).env("RUSTC_BOOTSTRAP", "1");
        if is_program(&args) {
            let wrap = |call: &&str| format!("-Clink-arg=-Wl,--wrap={call}");
            command.args(CALLS.iter().map(wrap));
        }
    }
    match command.status() {
        // A compiler that was killed has no code.
        Ok(status) => ExitCode::from(
            status
                .code()
                .and_then(|code| u8::try_from(code).ok())
                .unwrap_or(1),
        ),
        Err(error) => {
            eprintln!("cofferdam: cannot run {}: {error}", rustc.display());
            ExitCode::from(3)
        }
    }
}

/// The crate that is compiled.
fn crate_name(args: &[OsString]) -> Option<&str> {
    let at = args.iter().position(|arg| arg == "--crate-name")?;
    args.get(at + 1)?.to_str()
}

/// Whether it is one of the arguments by which cargo-fuzz asks for coverage.
fn is_coverage(arg: &OsStr) -> bool {
    let asks = ["-Cpasses=sancov-module", "-Cllvm-args=-sanitizer-coverage"];
    arg.to_str()
        .is_some_and(|arg| asks.iter().any(|asks| arg.starts_with(asks)))
}

/// Whether it is linked.
fn is_program(args: &[OsString]) -> bool {
    let kinds = args.windows(2).filter(|pair| pair[0] == "--crate-type");
    kinds.map(|pair| &pair[1]).any(|kind| kind == "bin")
}

/// Whether the list names the crate.
pub fn lists(list: &str, crate_name: &str) -> bool {
    list.split(',').any(|listed| listed.trim() == crate_name)
}

/// The cargo command that builds with `wrapper`, this program's path, as its wrapper, and the directory
/// it builds in. Cargo does not see what a wrapper does, so each list of crates has a directory of its
/// own below `target`.
pub fn cargo(wrapper: &Path, target: &Path, crates: &[String]) -> (Command, PathBuf) {
    let own = target.join(crates.join("+"));
    (cargo_in(wrapper, &own, crates), own)
}

/// The same, in `own`, a directory that no other list of crates is built in.
pub fn cargo_in(wrapper: &Path, own: &Path, crates: &[String]) -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .env("RUSTC_WRAPPER", wrapper)
        .env(VARIABLE, crates.join(","))
        .env("CARGO_TARGET_DIR", own);
    cargo
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(of: &[&str]) -> Vec<OsString> {
        of.iter().map(OsString::from).collect()
    }

    #[test]
    fn crate_name_is_found_among_the_arguments() {
        let compile = args(&[
            "--crate-name",
            "nvme_driver",
            "--edition=2024",
            "src/lib.rs",
        ]);
        assert_eq!(crate_name(&compile), Some("nvme_driver"));
        assert_eq!(crate_name(&args(&["-vV"])), None);
        assert_eq!(crate_name(&args(&["--crate-name"])), None);
    }

    #[test]
    fn coverage_that_cargo_fuzz_asks_for_is_told_from_other_arguments() {
        let given = args(&[
            "-Cpasses=sancov-module",
            "-Cllvm-args=-sanitizer-coverage-level=4",
            "-Cllvm-args=-inline-threshold=5",
            "-Cdebug-assertions",
        ]);
        let is: Vec<_> = given.iter().map(|arg| is_coverage(arg)).collect();
        assert_eq!(is, [true, true, false, false]);
    }

    #[test]
    fn whole_names_are_listed_only() {
        assert!(lists("eth_intel, nvme_driver", "nvme_driver"));
        assert!(!lists("nvme_driver_tests", "nvme_driver"));
        assert!(!lists("", "nvme_driver"));
    }
}
