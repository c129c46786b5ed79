//! The only program in the guest: its init, and the checks it runs there.
//!
//! As process 1 it mounts the kernel's file systems, loads modules, runs each check of the job as a
//! process of its own and powers the machine off. So a check that panics, hangs or kills itself
//! costs the others nothing, and whatever it held of a device is released when it ends.
//!
//! It trusts the job, which its own host wrote, and the guest's kernel. It trusts no device.

mod checks;
mod init;
mod kmsg;

use std::process::ExitCode;

/// The argument by which this program is one check and not init.
const CHECK: &str = "check";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.split_first() {
        Some((first, rest)) if first == CHECK => match rest.split_first() {
            Some((name, arguments)) => checks::run(name, arguments),
            None => usage(),
        },
        None if std::process::id() == 1 => init::run(),
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: {CHECK} NAME [ARGUMENT...]   (without arguments: process 1 of a guest)");
    for check in checks::TABLE {
        eprintln!("  {:24} {}", check.name, check.shows);
    }
    ExitCode::from(2)
}
