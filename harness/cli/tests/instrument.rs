//! Builds with instrumented drivers: `cofferdam instrument` in a target directory of its own, below
//! this build's.

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::io::Write;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// A cold build of the drivers takes a minute; nothing that runs takes seconds.
const LIMIT: Duration = Duration::from_secs(600);

/// Runs a command to its end, or ends it and all it started after the limit.
fn run(command: &mut Command) -> Output {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let group = Pid::from_raw(i32::try_from(child.id()).expect("a process number"));
    let (ended, end) = mpsc::channel();
    thread::spawn(move || ended.send(child.wait_with_output()));
    match end.recv_timeout(LIMIT) {
        Ok(output) => output.expect("its output"),
        Err(_) => {
            let _ = killpg(group, Signal::SIGKILL);
            panic!("{command:?} did not end within {} s", LIMIT.as_secs());
        }
    }
}

/// Builds the programs with instrumented drivers: `polls`, `trace` and `eth_trace`. None where there is
/// no cargo, which is a failure in CI.
fn programs() -> Option<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    if let Err(error) = Command::new(cargo).arg("--version").output() {
        let ci = std::env::var_os("CI").is_some_and(|value| value == "true");
        assert!(!ci, "an instrumented build needs cargo: {error}");
        // Not by `eprintln!`, whose output the test harness keeps from those that pass.
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: an instrumented build needs cargo: {error}"
        );
        return None;
    }
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("instrumented");
    let built = run(Command::new(env!("CARGO_BIN_EXE_cofferdam"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        // Nobody debugs these programs.
        .env("CARGO_PROFILE_DEV_DEBUG", "0")
        .args(["instrument", "--crate", "nvme_driver", "--crate", "polls"])
        // The adapter too: a function of eth-intel that accesses registers is generic.
        .args(["--crate", "eth_intel", "--crate", "driver_eth_intel"])
        .arg("--target-dir")
        .arg(&target)
        // What this build has fetched is all that is needed.
        .args(["--", "build", "--frozen"])
        .args(["-p", "cofferdam-instrument", "--example", "polls"])
        .args(["-p", "driver-nvme-crate", "--example", "trace"])
        .args(["-p", "driver-eth-intel", "--example", "eth_trace"]));
    assert!(
        built.status.success(),
        "{}",
        String::from_utf8_lossy(&built.stderr)
    );
    Some(target.join("nvme_driver+polls+eth_intel+driver_eth_intel/debug/examples"))
}

#[test]
fn faults_and_callbacks_trap_the_same_accesses() {
    let Some(programs) = programs() else { return };
    for trace in ["trace", "eth_trace"] {
        let traces = ["faults", "callbacks"].map(|way| {
            let output = run(Command::new(programs.join(trace)).arg(way));
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{trace} {way}: {errors}");
            String::from_utf8(output.stdout).expect("text")
        });

        let lines = traces[0].lines().count();
        assert!(lines > 1000, "{trace}: {lines} accesses");
        let differ = traces[0]
            .lines()
            .zip(traces[1].lines())
            .position(|(a, b)| a != b);
        assert_eq!(differ, None, "{trace} differs from that access on");
        assert_eq!(traces[1].lines().count(), lines);
    }
}

#[test]
fn poll_loop_takes_steps_and_an_endless_one_ends() {
    let Some(programs) = programs() else { return };

    let honest = run(&mut Command::new(programs.join("polls")));
    let endless = run(Command::new(programs.join("polls")).arg("endless"));

    let said = String::from_utf8_lossy(&honest.stdout);
    let errors = String::from_utf8_lossy(&honest.stderr);
    assert!(honest.status.success(), "{errors}");
    assert!(said.contains("accesses agree"), "{said}");
    assert!(said.contains("memory changed after 3 turns"), "{said}");
    let errors = String::from_utf8_lossy(&endless.stderr);
    assert_eq!(endless.status.signal(), Some(libc::SIGABRT), "{errors}");
    assert!(errors.contains("does not come back"), "{errors}");
}
