//! A host that refuses what trials need: a clear message, exit code 3, and nothing written.

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Runs a small comparison in a process that is refused these system calls.
fn compare_without(refused: &[i64]) -> (Option<i32>, String, bool) {
    let rules = refused.iter().map(|call| (*call, Vec::new())).collect();
    let arch = std::env::consts::ARCH.try_into().expect("architecture");
    let denied = SeccompAction::Errno(u32::try_from(libc::EPERM).expect("positive"));
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, denied, arch).expect("filter");
    let filter: BpfProgram = filter.try_into().expect("program");
    let parent = tempfile::tempdir().expect("directory");
    let out = parent.path().join("out");
    let mut command = Command::new(env!("CARGO_BIN_EXE_cofferdam"));
    command
        .args(["compare", "--quick", "--fault", "X1", "--out"])
        .arg(&out);
    // SAFETY: between fork and exec the closure only makes system calls.
    unsafe {
        command.pre_exec(move || {
            nix::sys::prctl::set_no_new_privs()?;
            apply_filter(&filter).map_err(std::io::Error::other)
        });
    }
    let ended = command.output().expect("cofferdam runs");
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    (ended.status.code(), said, out.exists())
}

#[test]
fn host_without_memory_files_is_told_so() {
    let (code, said, wrote) = compare_without(&[libc::SYS_memfd_create]);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("memfd_create"), "{said}");
    assert!(!wrote);
}

#[test]
fn host_that_permits_no_seccomp_filter_is_told_so() {
    let (code, said, wrote) = compare_without(&[libc::SYS_seccomp]);
    assert_eq!(code, Some(3), "{said}");
    assert!(
        said.contains("seccomp filter was refused") && said.contains("run where"),
        "{said}"
    );
    assert!(!wrote);
}
