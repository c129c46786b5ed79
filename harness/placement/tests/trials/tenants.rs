//! Tenants in KVM guests of their own. Without KVM the tests say so and pass.

use crate::guest::{kvm, trial};
use crate::{all_is_well, domain, zygote};
use cofferdam_machine::config::IommuMode;
use cofferdam_machine::frames::Owner;
use cofferdam_placement::crossing::{Rounds, Waiting};
use cofferdam_placement::trial::{
    By, ClockKind, DomainEnd, DriverId, End, Fault, Lock, PlacementId, Target, TrialReport,
    TrialSpec,
};

/// Placements with tenants in guests, and the same ones with tenants as processes.
const PAIRS: [(PlacementId, PlacementId); 2] = [
    (PlacementId::HypervisorKvm, PlacementId::Hypervisor),
    (PlacementId::RootPartitionKvm, PlacementId::RootPartition),
];

fn wild(by: By, target: Target) -> Fault {
    Fault::D1 {
        by,
        target,
        len: 96,
        nth: 3,
    }
}

#[test]
fn tenants_complete_their_requests_from_guests_and_exits_are_counted() {
    if !kvm() {
        return;
    }
    let mut zygote = zygote();
    for (placement, _) in PAIRS {
        for driver in DriverId::ALL {
            let clean = TrialSpec::new(placement, driver, Fault::None);

            let report = trial(&mut zygote, &clean);

            assert!(all_is_well(&report), "{clean:?}: {report:#?}");
            let done: Vec<u32> = report.io.iter().map(|io| io.completed).collect();
            assert_eq!(done, [12, 12], "{clean:?}");
            // A doorbell, a wait for the answer, the counters and the pause: each request leaves so often.
            assert!(report.counts.exits >= 24 * 4, "{:?}", report.counts);
        }
    }
}

#[test]
fn tenant_in_a_guest_does_what_it_does_as_a_process_and_only_its_exits_differ() {
    if !kvm() {
        return;
    }
    let mut zygote = zygote();
    let faults = [
        Fault::None,
        wild(By::Device, Target::Tenant2),
        Fault::M1 {
            target: Target::Tenant1,
            len: 64,
            nth: 3,
        },
        Fault::B1 { nth: 20 },
        Fault::X1 { nth: 5 },
        Fault::R2 { nth: 2 },
    ];
    for (placement, as_processes) in PAIRS {
        for driver in [DriverId::Edu, DriverId::Nvme] {
            for fault in faults {
                if matches!(fault, Fault::R2 { .. }) && driver == DriverId::Edu {
                    continue;
                }
                let spec = TrialSpec::new(placement, driver, fault);
                let process = TrialSpec {
                    placement: as_processes,
                    ..spec.clone()
                };

                let mut guests = trial(&mut zygote, &spec).replayed();
                let processes = trial(&mut zygote, &process).replayed();

                assert!(guests.counts.exits > 0, "{spec:?}");
                guests.counts.exits = 0;
                assert_eq!(guests, processes, "{spec:?}");
            }
        }
    }
}

#[test]
fn leap_trials_with_tenants_in_guests_replay_with_their_exits() {
    if !kvm() {
        return;
    }
    let (mut one, mut other) = (zygote(), zygote());
    for (placement, _) in PAIRS {
        for fault in [Fault::None, Fault::X1 { nth: 5 }, Fault::B1 { nth: 20 }] {
            let spec = TrialSpec::new(placement, DriverId::Nvme, fault);

            let first = trial(&mut one, &spec).replayed();
            let second = trial(&mut other, &spec).replayed();

            assert_eq!(first, second, "{spec:?}");
        }
    }
}

#[test]
fn wild_dma_into_the_hypervisor_lands_unless_the_iommu_translates() {
    if !kvm() {
        return;
    }
    let mut zygote = zygote();
    for (placement, _) in PAIRS {
        for iommu in [IommuMode::Off, IommuMode::Strict] {
            let fault = wild(By::Device, Target::Hypervisor);
            let spec = TrialSpec {
                iommu,
                ..TrialSpec::new(placement, DriverId::Nvme, fault)
            };

            let report = trial(&mut zygote, &spec);

            assert!(report.activated > 0, "{spec:?}");
            let victims: Vec<Owner> = report.corruption.iter().map(|each| each.owner).collect();
            if iommu == IommuMode::Off {
                assert_eq!(victims, [Owner::Hypervisor], "{spec:?}");
                assert!(report.stray_landed > 0, "{spec:?}");
            } else {
                assert_eq!(victims, [], "{spec:?}");
                assert!(report.stray_blocked > 0, "{spec:?}");
            }
        }
    }
}

/// How its domains ended, by name.
fn end(report: &TrialReport, name: &str) -> DomainEnd {
    domain(report, name).end
}

#[test]
fn hypervisor_that_is_lost_takes_its_guests_along_and_a_root_does_not() {
    if !kvm() {
        return;
    }
    let mut zygote = zygote();
    let crash = |placement| TrialSpec::new(placement, DriverId::Nvme, Fault::X1 { nth: 5 });

    let lost = trial(&mut zygote, &crash(PlacementId::HypervisorKvm));
    let restarted = trial(&mut zygote, &crash(PlacementId::RootPartitionKvm));

    assert_eq!(lost.end, End::SystemLost, "{lost:#?}");
    assert_eq!(end(&lost, "hypervisor"), DomainEnd::Dead);
    for tenant in ["tenant1", "tenant2"] {
        assert_eq!(end(&lost, tenant), DomainEnd::Halted, "{lost:#?}");
        assert_eq!(end(&restarted, tenant), DomainEnd::Alive);
    }
    assert!(lost.io.iter().all(|io| !io.finished));
    assert_eq!(domain(&restarted, "root").restarts, 1, "{restarted:#?}");
    assert!(all_is_well(&restarted), "{restarted:#?}");
}

#[test]
fn tenants_in_guests_give_a_page_back_and_look_after_their_own_device() {
    if !kvm() {
        return;
    }
    let mut zygote = zygote();
    let balloon = TrialSpec {
        data: cofferdam_placement::trial::DataPath::ZeroCopy,
        ..TrialSpec::new(
            PlacementId::HypervisorKvm,
            DriverId::Nvme,
            Fault::D14 {
                delay_us: 2_000,
                nth: 3,
            },
        )
    };
    let held = Fault::B5 {
        lock: Lock::Bus,
        ms: 50,
        nth: 20,
    };
    let locked = TrialSpec {
        fabric: cofferdam_machine::config::FabricKind::Pci,
        ..TrialSpec::new(PlacementId::HypervisorKvm, DriverId::Nvme, held)
    };
    for spec in [balloon, locked] {
        let process = TrialSpec {
            placement: PlacementId::Hypervisor,
            ..spec.clone()
        };

        let mut guests = trial(&mut zygote, &spec).replayed();
        let processes = trial(&mut zygote, &process).replayed();

        assert!(guests.activated > 0, "{guests:#?}");
        guests.counts.exits = 0;
        assert_eq!(guests, processes, "{spec:?}");
    }
}

#[test]
fn tenants_in_guests_are_served_by_the_wall_clock() {
    if !kvm() {
        return;
    }
    let mut zygote = zygote();
    for (placement, _) in PAIRS {
        let by_wall = TrialSpec {
            clock: ClockKind::Wall,
            horizon_ns: 30_000_000_000,
            ..TrialSpec::new(placement, DriverId::Nvme, Fault::None)
        };

        let report = trial(&mut zygote, &by_wall);

        assert!(all_is_well(&report), "{report:#?}");
    }
}

#[test]
fn what_a_tenant_in_a_guest_cannot_measure_is_refused_with_a_remedy() {
    let rounds = Rounds {
        waiting: Waiting::Sleep,
        count: 1,
    };
    let mut zygote = zygote();

    let crossing = zygote.crossing(PlacementId::HypervisorKvm, rounds);
    let storm = zygote.run(&TrialSpec {
        clock: ClockKind::Wall,
        ..TrialSpec::new(
            PlacementId::HypervisorKvm,
            DriverId::Nvme,
            Fault::B8 {
                aligned: false,
                per_second: 1000,
                ms: 10,
                nth: 3,
            },
        )
    });

    let text = crossing.expect_err("not in a guest").to_string();
    assert!(text.contains("with processes"), "{text}");
    let text = storm.expect_err("not in a guest").to_string();
    assert!(text.contains("choose another placement"), "{text}");
}
