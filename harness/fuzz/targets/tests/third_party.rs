//! Third-party drivers with honest devices: the calls succeed and no oracle speaks.

use cofferdam_fuzz::executor::Executor;
use cofferdam_fuzz::program::text;
use cofferdam_fuzz::target::Target;
use cofferdam_fuzz::world::Detail;
use cofferdam_fuzz_targets::{eth_intel::ETH_INTEL, nvme};

/// Runs the calls of a program, all of which are to succeed.
fn is_well(target: &'static dyn Target, calls: &str) {
    let body = format!(
        "cofferdam program 1\ntarget {}\nmode model\n{calls}",
        target.name()
    );
    let program = text::parse(&body, target.calls())
        .expect("a program")
        .program;
    let mut executor = Executor::new(target).expect("memory");

    let outcome = executor.run(&program, Detail::Traced).expect("memory");

    let trace = outcome.trace.text(&mut *target.decoder());
    assert!(outcome.started && outcome.sightings.is_empty(), "{trace}");
    assert_eq!(
        trace.matches("-> done").count(),
        calls.lines().count(),
        "{trace}"
    );
}

#[test]
fn eth_intel_exchanges_frames() {
    is_well(
        &ETH_INTEL,
        "call is-link-up\ncall send 1514\ncall receive 64\ncall exchange 16 60\ncall exchange 3 14\n",
    );
}

#[test]
fn nvme_driver_reads_and_writes() {
    is_well(
        &nvme::CRATE,
        "call write 3 33\ncall read 3 33\ncall read 63 1\n",
    );
}
