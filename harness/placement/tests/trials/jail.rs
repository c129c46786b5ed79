//! The walls hold: what a domain must be refused, it is refused.

use crate::guest::kvm;
use crate::{run, zygote};
use cofferdam_placement::placement::ALL;
use cofferdam_placement::trial::{DriverId, Fault, PlacementId, TrialSpec};
use std::time::{Duration, Instant};

#[test]
fn every_domain_is_refused_every_way_out() {
    let mut zygote = zygote();
    for placement in ALL {
        if placement.needs_kvm() && !kvm() {
            continue;
        }
        let attempts = zygote.probe_jail(placement.placement).expect("probe");

        assert!(attempts.len() >= 20 * (placement.domains.len() + 1));
        for (attempt, outcome) in attempts {
            assert_eq!(outcome, "EPERM", "{}: {attempt}", placement.id);
        }
    }
}

#[test]
fn trial_says_how_its_domains_were_confined() {
    let mut zygote = zygote();
    let spec = TrialSpec::new(PlacementId::UserProcess, DriverId::Edu, Fault::None);

    zygote.run(&spec).expect("trial");

    let confinement = zygote.confinement().expect("a trial ran");
    assert!(confinement.seccomp);
    assert_eq!(
        confinement.dropped_identity,
        nix::unistd::Uid::effective().is_root()
    );
}

/// Processes that descend from `pid`, itself included.
pub fn family(pid: u32) -> Vec<u32> {
    let mut all = vec![pid];
    let mut at = 0;
    while at < all.len() {
        let path = format!("/proc/{0}/task/{0}/children", all[at]);
        let children = std::fs::read_to_string(path).unwrap_or_default();
        all.extend(
            children
                .split_whitespace()
                .filter_map(|child| child.parse::<u32>().ok()),
        );
        at += 1;
    }
    all
}

fn alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        !stat
            .rsplit(") ")
            .next()
            .unwrap_or("")
            .starts_with(['Z', 'X'])
    })
}

/// Waits until `done`, at most ten seconds.
pub fn eventually(done: impl Fn() -> bool) -> bool {
    let until = Instant::now() + Duration::from_secs(10);
    while Instant::now() < until {
        if done() {
            return true;
        }
        std::thread::yield_now();
    }
    false
}

/// A wall-clock trial that would last very long.
fn endless() -> TrialSpec {
    TrialSpec {
        clock: cofferdam_placement::trial::ClockKind::Wall,
        horizon_ns: 60_000_000_000,
        requests: 1_000_000,
        ..TrialSpec::new(PlacementId::UserProcess, DriverId::Edu, Fault::None)
    }
}

#[test]
fn killing_any_process_ends_the_trial_and_leaves_nobody_behind() {
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;
    // The zygote and the six processes of a user-process trial: hardware, kernel, driver, two
    // tenants, supervisor.
    for victim in 0..7 {
        let mut zygote = zygote();
        let root = zygote.pid();
        let killer = std::thread::spawn(move || {
            assert!(eventually(|| family(root).len() == 7), "{:?}", family(root));
            let family = family(root);
            let target = Pid::from_raw(i32::try_from(family[victim]).expect("pid"));
            kill(target, Signal::SIGKILL).expect("kill");
            family
        });

        let ended = zygote.run(&endless());

        let family = killer.join().expect("killer");
        assert!(ended.is_err(), "victim {victim}: {ended:?}");
        drop(zygote);
        assert!(
            eventually(|| !family.iter().any(|pid| alive(*pid))),
            "victim {victim}"
        );
    }
}

#[test]
fn zygote_goes_on_after_a_trial_that_was_broken() {
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;
    let mut zygote = zygote();
    let root = zygote.pid();
    let killer = std::thread::spawn(move || {
        assert!(eventually(|| family(root).len() == 7));
        let last = *family(root).last().expect("family");
        kill(
            Pid::from_raw(i32::try_from(last).expect("pid")),
            Signal::SIGKILL,
        )
        .expect("kill");
    });
    let broken = zygote.run(&endless());
    killer.join().expect("killer");

    let spec = TrialSpec::new(PlacementId::InKernel, DriverId::Edu, Fault::None);
    let next = zygote.run(&spec).expect("trial");

    assert!(
        broken
            .expect_err("killed")
            .to_string()
            .contains("from outside")
    );
    assert_eq!(next.replayed(), run(&spec).replayed());
}
