//! Split locks by the driver's CPU, and who looks at what they cost.

use crate::{all_is_well, domain, guest, zygote};
use cofferdam_placement::storm::is_end_of;
use cofferdam_placement::trial::{ClockKind, DriverId, Fault, PlacementId, TrialReport, TrialSpec};

fn storm(placement: PlacementId, aligned: bool) -> TrialSpec {
    let fault = Fault::B8 {
        aligned,
        per_second: 1_000_000,
        ms: 20,
        nth: 2,
    };
    TrialSpec {
        clock: ClockKind::Wall,
        horizon_ns: 30_000_000_000,
        requests: 3,
        ..TrialSpec::new(placement, DriverId::Edu, fault)
    }
}

/// Whether somebody ended the driver for its split locks, as some hosts do.
fn ended(report: &TrialReport) -> bool {
    let holder = report.domains.iter().find(|domain| domain.holds_driver);
    holder.is_some_and(|domain| domain.deaths.iter().any(|death| is_end_of(death)))
}

#[test]
fn split_locks_are_shown_to_lock_the_bus_and_a_bystander_looks() {
    let mut placements = vec![PlacementId::UserProcess];
    placements.extend(guest::kvm().then_some(PlacementId::DriverVm));
    let mut zygote = zygote();
    for placement in placements {
        let control = zygote.run(&storm(placement, true)).expect("trial");
        let split = zygote.run(&storm(placement, false)).expect("trial");

        assert_eq!(control.activated, 0, "{placement:?}: {control:#?}");
        assert!(split.activated > 0, "{placement:?}: {split:#?}");
        let proven = split.split_lock.is_some_and(|price| price.proves);
        assert!(proven || ended(&split), "{placement:?}: {split:#?}");
        assert_eq!(control.split_lock, None);
        for report in [control, split] {
            assert!(all_is_well(&report), "{placement:?}: {report:#?}");
            let noticed = report.io[1].memory.expect("the bystander looks");
            assert!(noticed.quiet.samples > 0, "{placement:?}: {noticed:?}");
            assert!(noticed.during.samples > 0, "{placement:?}: {noticed:?}");
            assert!(noticed.slowed_tenths().is_some(), "{noticed:?}");
            assert_eq!(report.io[0].memory, None);
            let tenant = domain(&report, "tenant2");
            assert!(tenant.deaths.is_empty(), "{report:#?}");
            let died = report
                .domains
                .iter()
                .any(|domain| !domain.deaths.is_empty());
            assert_eq!(
                died,
                ended(&report),
                "nothing else ends anybody: {report:#?}"
            );
        }
    }
}

#[test]
fn storm_under_leap_is_refused_with_a_remedy() {
    let leap = TrialSpec {
        clock: ClockKind::Leap,
        ..storm(PlacementId::UserProcess, false)
    };

    let refused = zygote().run(&leap).expect_err("leap shows nothing of it");

    assert!(refused.to_string().contains("--clock wall"), "{refused}");
}
