//! Campaigns by LibAFL, and the command line of a runner.
//!
//! A runner is a program with targets in it, built with the rustc wrapper of `cofferdam`, which
//! instruments drivers and adapters. This crate is all of it but the targets:
//!
//! ```ignore
//! cofferdam_fuzz_engine::main!(&[&MyTarget]);
//! ```
//!
//! LibAFL keeps the corpus, schedules it, and joins processes and machines. What happens in between
//! a hundred thousand times a second is `cofferdam_fuzz::campaign`; a stage of LibAFL calls it, and
//! LibAFL hears of news only. This is the only crate that knows LibAFL.

mod agree;
mod arguments;
mod bench;
mod cover;
mod crash;
mod fuzz;
mod known;
mod replay;
mod status;
mod table;

pub use cofferdam_fuzz as fuzz_crate;

pub use known::Known;

use arguments::{Arguments, Command, Place};
use clap::Parser;
use cofferdam_fuzz::target::Target;
use std::fmt::Display;
use std::process::ExitCode;

/// Findings, or a finding that is still there.
pub const FOUND: u8 = 1;
/// Wrong usage.
pub const USAGE: u8 = 2;
/// The harness failed.
pub const INFRASTRUCTURE: u8 = 3;

/// The program of a runner: its targets, a slice of `&'static dyn Target`; and the known bugs among them,
/// a slice of [`Known`], if there are any; and what puts a target's driver into a VM ([`InVm`]), if anything
/// does.
#[macro_export]
macro_rules! main {
    ($targets:expr) => {
        $crate::main!($targets, &[]);
    };
    ($targets:expr, $known:expr) => {
        $crate::main!($targets, $known, $crate::no_vm);
    };
    ($targets:expr, $known:expr, $vm:expr) => {
        #[global_allocator]
        static HEAP: $crate::fuzz_crate::arena::Heap = $crate::fuzz_crate::arena::Heap;

        fn main() -> ::std::process::ExitCode {
            $crate::run($targets, $known, $vm)
        }
    };
}

/// A target whose driver runs in a VM, on this thread; or why there is none, and the process's exit code.
pub type InVm = fn(&'static dyn Target) -> Result<&'static dyn Target, (String, u8)>;

/// Of a runner whose drivers run in its own process only.
///
/// # Errors
///
/// Always.
pub fn no_vm(target: &'static dyn Target) -> Result<&'static dyn Target, (String, u8)> {
    let name = target.name();
    let why = format!("`{name}` does not run in a VM: this runner has no payload for its drivers");
    Err((why, USAGE))
}

/// Where drivers run.
#[derive(Clone, Copy)]
struct Places {
    vm: InVm,
}

impl Places {
    /// The target in that place.
    fn put(
        self,
        target: &'static dyn Target,
        place: Option<Place>,
    ) -> Result<&'static dyn Target, (String, u8)> {
        match place {
            Some(Place::Vm) => (self.vm)(target),
            None => Ok(target),
        }
    }
}

/// Does what the process's arguments say.
pub fn run(targets: &[&'static dyn Target], bugs: &[Known], vm: InVm) -> ExitCode {
    let places = Places { vm };
    match Arguments::parse().command {
        Command::Targets => {
            for target in targets {
                let driver = target.driver();
                println!("{} ({} {})", target.name(), driver.name, driver.version);
            }
            ExitCode::SUCCESS
        }
        Command::Fuzz(arguments) => with(targets, &arguments.target, |target| {
            // Before its workers would each find out: a thread's guest ends with this.
            match places.put(target, arguments.place) {
                Ok(_) => fuzz::fuzz(target, &arguments),
                Err((why, code)) => fail(why, code),
            }
        }),
        Command::Worker(arguments) => with(targets, &arguments.target, |target| {
            match places.put(target, arguments.place) {
                Ok(target) => fuzz::worker(target, &arguments),
                Err((why, code)) => fail(why, code),
            }
        }),
        Command::Bench(arguments) => with(targets, &arguments.target, |target| {
            bench::bench(target, &arguments)
        }),
        Command::Replay(arguments) => replay::replay(targets, places, &arguments),
        Command::Minimize(arguments) => replay::minimize(targets, places, &arguments),
        Command::Cover(arguments) => with(targets, &arguments.target, |target| {
            cover::cover(target, &arguments)
        }),
        Command::TimeToBug(arguments) => known::time_to_bug(bugs, &arguments),
        Command::Chase(arguments) => with(targets, &arguments.target, |target| {
            known::chase(target, &arguments)
        }),
        Command::Agree(arguments) => with(targets, &arguments.target, |target| {
            agree::agree(target, &arguments)
        }),
        Command::Honest(arguments) => with(targets, &arguments.target, |target| {
            bench::honest(target, &arguments)
        }),
    }
}

fn named(targets: &[&'static dyn Target], name: &str) -> Result<&'static dyn Target, String> {
    let found = targets.iter().find(|target| target.name() == name);
    found.copied().ok_or_else(|| {
        let known: Vec<_> = targets.iter().map(|target| target.name()).collect();
        format!("no target `{name}`; there are {}", known.join(", "))
    })
}

fn with(
    targets: &[&'static dyn Target],
    name: &str,
    run: impl FnOnce(&'static dyn Target) -> ExitCode,
) -> ExitCode {
    match named(targets, name) {
        Ok(target) => run(target),
        Err(why) => fail(why, USAGE),
    }
}

fn fail(why: impl Display, code: u8) -> ExitCode {
    eprintln!("cofferdam: {why}");
    ExitCode::from(code)
}
