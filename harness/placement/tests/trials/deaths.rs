//! Deaths of domains that hold no driver, or that no boundary can hold: a fault signal of the CPU,
//! sent from here, is what a crash of their own would be.

use crate::jail::{eventually, family};
use crate::{domain, zygote};
use cofferdam_placement::trial::{
    ClockKind, DomainEnd, DriverId, End, Fault, PlacementId, TrialReport, TrialSpec,
};
use cofferdam_placement::zygote::left_behind;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::time::Duration;

/// Runs a wall-clock trial in which the domain at `index` meets a segmentation fault.
fn segfault(placement: PlacementId, index: usize) -> TrialReport {
    let data = placement.placement();
    // The zygote, the hardware, the domains in their order, the supervisor.
    let count = data.domains.len() + 3;
    let spec = TrialSpec {
        clock: ClockKind::Wall,
        horizon_ns: 60_000_000_000,
        requests: 300,
        ..TrialSpec::new(placement, DriverId::VirtioBlk, Fault::None)
    };
    let mut zygote = zygote();
    let root = zygote.pid();
    let killer = std::thread::spawn(move || {
        assert!(eventually(|| family(root).len() == count));
        let victim = family(root)[2 + index];
        // A domain that has not waited often has not begun its part in the trial.
        assert!(eventually(|| waits(victim) >= 10));
        let victim = Pid::from_raw(i32::try_from(victim).expect("pid"));
        kill(victim, Signal::SIGSEGV).expect("kill");
    });

    let report = zygote.run(&spec).expect("trial");

    killer.join().expect("killer");
    report
}

/// How often a process has gone to sleep of its own.
fn waits(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mut lines = status.lines();
    lines
        .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))
        .and_then(|count| count.trim().parse().ok())
        .unwrap_or(0)
}

#[test]
fn vmm_that_dies_takes_its_tenant_along_and_nobody_else() {
    for (vmm, (lost, other)) in [
        ("vmm1", ("tenant1", "tenant2")),
        ("vmm2", ("tenant2", "tenant1")),
    ] {
        let domains = PlacementId::Hosted.placement().domains;
        let index = domains.iter().position(|domain| domain.name == vmm);

        let report = segfault(PlacementId::Hosted, index.expect("a VMM"));

        assert_eq!(report.end, End::Finished, "{report:#?}");
        assert_eq!(domain(&report, vmm).deaths, ["SIGSEGV"]);
        assert_eq!(domain(&report, vmm).end, DomainEnd::Dead);
        assert_eq!(domain(&report, lost).end, DomainEnd::Dead);
        assert_eq!(domain(&report, lost).deaths, ["its VMM died"]);
        for alive in ["kernel", other] {
            assert_eq!(domain(&report, alive).end, DomainEnd::Alive, "{report:#?}");
        }
        for io in &report.io {
            let lost = format!("tenant{}", io.tenant) == lost;
            assert_eq!(io.finished, !lost, "{report:#?}");
            assert_eq!((io.lost, io.corrupted, io.errors), (0, 0, 0), "{report:#?}");
        }
    }
}

#[test]
fn unwinding_boundary_does_not_hold_a_segmentation_fault() {
    let report = segfault(PlacementId::SafeLanguage, 0);

    assert_eq!(report.end, End::SystemLost, "{report:#?}");
    assert_eq!(domain(&report, "kernel").deaths, ["SIGSEGV"]);
}

#[test]
fn driver_server_of_a_microkernel_dies_alone() {
    let report = segfault(PlacementId::Microkernel, 1);

    // A busy host may keep the next one from its CPU until the watchdog takes it for dead, too.
    let driver = domain(&report, "driver");
    assert_eq!(driver.deaths[0], "SIGSEGV");
    assert_eq!(driver.restarts as usize, driver.deaths.len());
    assert!(crate::all_is_well(&report), "{report:#?}");
}

#[test]
fn zygote_is_found_while_it_lives_and_nothing_of_it_afterwards() {
    // Arrange
    let mut zygote = zygote();
    let pid = zygote.pid();
    let clean = TrialSpec::new(PlacementId::InKernel, DriverId::Edu, Fault::None);
    zygote.run(&clean).expect("trial");

    // Act
    let living = left_behind(Duration::ZERO).expect("processes can be listed");
    drop(zygote);
    let left = left_behind(Duration::ZERO).expect("processes can be listed");

    // Assert
    assert!(living.contains(&pid));
    assert!(!left.contains(&pid));
}
