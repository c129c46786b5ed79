//! The driver in the machine of the tenant that has its device. Without KVM the tests say so and pass.

use crate::guest::{IN_GUEST, failed_driver_is_started_over, kvm, trial};
use crate::{all_is_well, domain, zygote};
use cofferdam_machine::config::IommuMode;
use cofferdam_machine::frames::Owner;
use cofferdam_placement::crossing::{Rounds, Waiting};
use cofferdam_placement::trial::{
    ClockKind, DomainEnd, DriverId, Fault, PlacementId, Target, TrialReport, TrialSpec,
};

fn spec(driver: DriverId, fault: Fault) -> TrialSpec {
    TrialSpec::new(PlacementId::Passthrough, driver, fault)
}

/// The machine with the driver died, once and for good, and nobody else noticed.
fn only_its_machine_died(report: &TrialReport, of: &str) {
    let machine = domain(report, "tenant1");
    assert_eq!(machine.end, DomainEnd::Dead, "{report:#?}");
    assert!(
        matches!(&machine.deaths[..], [death] if death.contains(of)),
        "{report:#?}"
    );
    assert_eq!(machine.restarts, 0);
    assert!(machine.holds_driver && machine.tenant == Some(1));
    assert!(!report.io[0].finished);
    for other in ["hypervisor", "tenant2"] {
        assert_eq!(domain(report, other).end, DomainEnd::Alive, "{report:#?}");
    }
    assert!(report.io[1].finished);
}

#[test]
fn tenant_is_served_by_its_own_driver_and_nothing_is_crossed_for_it() {
    if !kvm() {
        return;
    }
    let mut zygote = zygote();
    for driver in IN_GUEST {
        for iommu in IommuMode::ALL {
            let clean = TrialSpec {
                iommu,
                ..spec(driver, Fault::None)
            };

            let report = trial(&mut zygote, &clean);

            assert!(all_is_well(&report), "{clean:?}: {report:#?}");
            assert_eq!((report.io[0].completed, report.io[1].wanted), (12, 0));
            let counts = &report.counts;
            assert_eq!(counts.doorbells, 0, "{clean:?}");
            assert!(counts.exits >= counts.mmio_reads + counts.mmio_writes);
        }
    }
    let rounds = Rounds {
        waiting: Waiting::Sleep,
        count: 1,
    };
    let refused = zygote.crossing(PlacementId::Passthrough, rounds);
    let text = refused.expect_err("there is none").to_string();
    assert!(text.contains("nothing is crossed"), "{text}");
}

#[test]
fn one_program_copies_nothing_to_its_driver_and_dies_with_it() {
    if !kvm() {
        return;
    }
    let mut zygote = zygote();
    for driver in IN_GUEST {
        let in_kernel = spec(driver, Fault::None);
        let in_program = TrialSpec {
            placement: PlacementId::LibraryOs,
            ..in_kernel.clone()
        };

        let kernel = trial(&mut zygote, &in_kernel);
        let program = trial(&mut zygote, &in_program);

        assert!(all_is_well(&program), "{driver:?}: {program:#?}");
        assert!(kernel.counts.copied_bytes > 0);
        assert_eq!(program.counts.copied_bytes, 0);
        assert_eq!(program.counts.exits, kernel.counts.exits);
        let crash = TrialSpec {
            fault: Fault::X1 { nth: 5 },
            ..in_program
        };
        only_its_machine_died(&trial(&mut zygote, &crash), "planned death");
    }
}

#[test]
fn wild_store_reaches_the_tenants_own_frames_and_ends_its_machine_anywhere_else() {
    if !kvm() {
        return;
    }
    let mut zygote = zygote();
    for target in Target::ALL {
        let Some(owner) = target.owner() else {
            continue;
        };
        let fault = Fault::M1 {
            target,
            len: 64,
            nth: 3,
        };

        let report = trial(&mut zygote, &spec(DriverId::Nvme, fault));

        assert!(report.activated > 0, "{target:?}");
        let victims: Vec<Owner> = report.corruption.iter().map(|each| each.owner).collect();
        if matches!(owner, Owner::Driver | Owner::Tenant1) {
            assert_eq!(victims, [owner], "{report:#?}");
            assert!(all_is_well(&report), "{target:?}: {report:#?}");
        } else {
            assert_eq!(victims, [], "{target:?}");
            only_its_machine_died(&report, "wild store: the machine's address");
        }
    }
}

#[test]
fn tenant_dies_with_its_driver_and_nobody_else_does() {
    if !kvm() {
        return;
    }
    let mut zygote = zygote();
    let spin = Fault::X2 {
        raw: true,
        ms: 0,
        nth: 5,
    };
    for driver in IN_GUEST {
        for (fault, word) in [(Fault::X1 { nth: 5 }, "planned death"), (spin, "spun")] {
            let report = trial(&mut zygote, &spec(driver, fault));

            only_its_machine_died(&report, word);
            assert_eq!(report.io[0].completed, 4, "{driver:?} {fault:?}");
        }
    }
}

#[test]
fn failed_driver_is_started_over_in_its_tenants_machine() {
    failed_driver_is_started_over(PlacementId::Passthrough, "tenant1");
}

#[test]
fn leap_trials_in_a_tenants_machine_replay_with_their_exits() {
    if !kvm() {
        return;
    }
    let (mut one, mut other) = (zygote(), zygote());
    for fault in [Fault::None, Fault::X1 { nth: 5 }, Fault::B1 { nth: 20 }] {
        let spec = spec(DriverId::Nvme, fault);

        let first = trial(&mut one, &spec).replayed();
        let second = trial(&mut other, &spec).replayed();

        assert_eq!(first, second, "{spec:?}");
    }
}

#[test]
fn tenant_is_served_by_its_own_driver_by_the_wall_clock() {
    if !kvm() {
        return;
    }
    let by_wall = TrialSpec {
        clock: ClockKind::Wall,
        horizon_ns: 30_000_000_000,
        ..spec(DriverId::Nvme, Fault::None)
    };

    let report = trial(&mut zygote(), &by_wall);

    assert!(all_is_well(&report), "{report:#?}");
    assert_eq!(report.io[0].completed, 12);
}
