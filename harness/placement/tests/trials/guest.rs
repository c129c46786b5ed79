//! The driver in a KVM guest. Without KVM the tests say so and pass.

use crate::{all_is_well, domain, zygote};
use cofferdam_machine::config::IommuMode;
use cofferdam_machine::frames::Owner;
use cofferdam_microvm::{DEVICE, Kvm};
use cofferdam_placement::trial::{
    By, ClockKind, DomainEnd, DriverId, End, Fault, PlacementId, Target, TrialReport, TrialSpec,
};
use cofferdam_placement::zygote::Zygote;

/// The drivers that run in a guest.
pub const IN_GUEST: [DriverId; 3] = [DriverId::Edu, DriverId::VirtioBlk, DriverId::Nvme];

/// Whether there is KVM here; a line that says why not.
pub fn kvm() -> bool {
    Kvm::open()
        .inspect_err(|why| println!("SKIPPED: {why}"))
        .is_ok()
}

fn spec(driver: DriverId, fault: Fault) -> TrialSpec {
    TrialSpec::new(PlacementId::DriverVm, driver, fault)
}

/// A trial of that specification.
pub fn trial(zygote: &mut Zygote, spec: &TrialSpec) -> TrialReport {
    zygote.run(spec).expect("trial")
}

/// The only death of the domain whose driver is in a guest.
fn death(report: &TrialReport) -> &str {
    match &domain(report, "driver").deaths[..] {
        [death] => death,
        deaths => panic!("one death, not {deaths:?}"),
    }
}

#[test]
fn drivers_serve_from_a_guest_and_exits_are_counted() {
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
            let counts = &report.counts;
            // Each register access is one, and each request ends in one.
            let least = counts.mmio_reads + counts.mmio_writes + 24;
            assert!(counts.exits > least, "{clean:?}: {counts:?}");
        }
    }
    let process = TrialSpec::new(PlacementId::UserProcess, DriverId::Edu, Fault::None);
    assert_eq!(trial(&mut zygote, &process).counts.exits, 0);
}

#[test]
fn wild_dma_lands_from_a_guest_too_unless_the_iommu_translates() {
    if !kvm() {
        return;
    }
    let mut zygote = zygote();
    for driver in IN_GUEST {
        for by in [By::Device, By::Driver] {
            for iommu in [IommuMode::Off, IommuMode::Strict] {
                let fault = Fault::D1 {
                    by,
                    target: Target::Tenant2,
                    len: 96,
                    nth: 3,
                };
                let wild = TrialSpec {
                    iommu,
                    ..spec(driver, fault)
                };

                let report = trial(&mut zygote, &wild);

                assert!(report.activated > 0, "{wild:?}");
                let landed = report
                    .corruption
                    .iter()
                    .any(|victim| victim.owner == Owner::Tenant2);
                assert_eq!(landed, iommu == IommuMode::Off, "{wild:?}: {report:#?}");
                assert_eq!(report.stray_landed > 0, landed, "{wild:?}");
            }
        }
    }
}

#[test]
fn wild_store_reaches_the_drivers_frames_and_ends_the_guest_anywhere_else() {
    if !kvm() {
        return;
    }
    let mut zygote = zygote();
    for driver in IN_GUEST {
        for target in Target::ALL {
            let Some(owner) = target.owner() else {
                continue;
            };
            let fault = Fault::M1 {
                target,
                len: 64,
                nth: 3,
            };

            let report = trial(&mut zygote, &spec(driver, fault));

            assert!(report.activated > 0, "{driver:?} {target:?}");
            let victims: Vec<Owner> = report
                .corruption
                .iter()
                .map(|victim| victim.owner)
                .collect();
            if owner == Owner::Driver {
                assert_eq!(victims, [Owner::Driver], "{driver:?}: {report:#?}");
                continue;
            }
            assert_eq!(victims, [], "{driver:?} {target:?}");
            let death = death(&report);
            assert!(
                death.contains("in the guest: wild store: the machine's address"),
                "{death}"
            );
            assert!(all_is_well(&report), "{driver:?} {target:?}: {report:#?}");
        }
    }
}

#[test]
fn what_the_guest_dies_of_is_its_domains_last_word_and_it_is_started_again() {
    if !kvm() {
        return;
    }
    let mut zygote = zygote();
    for driver in IN_GUEST {
        let spin = Fault::X2 {
            raw: true,
            ms: 0,
            nth: 5,
        };
        for (fault, word) in [(Fault::X1 { nth: 5 }, "planned death"), (spin, "spun")] {
            let report = trial(&mut zygote, &spec(driver, fault));

            assert!(death(&report).contains(word), "{driver:?}: {report:#?}");
            assert!(report.recovered_after_ns.is_some(), "{driver:?} {fault:?}");
            assert!(all_is_well(&report), "{driver:?} {fault:?}: {report:#?}");
            assert_eq!(domain(&report, "hypervisor").end, DomainEnd::Alive);
        }
    }
}

#[test]
fn walk_in_a_circle_of_capabilities_is_ended_as_spun() {
    if !kvm() {
        return;
    }
    for length in [1, 3] {
        let circle = Fault::C3 { length };

        let report = trial(&mut zygote(), &spec(DriverId::VirtioBlk, circle));

        let deaths = &domain(&report, "driver").deaths;
        assert!(!deaths.is_empty(), "{length}: {report:#?}");
        assert!(
            deaths.iter().all(|how| how.starts_with("spun")),
            "{deaths:?}"
        );
        assert_eq!(report.end, End::Horizon, "{length}: {report:#?}");
        assert_eq!(domain(&report, "hypervisor").end, DomainEnd::Alive);
    }
}

/// With the driver in a guest, one whose device failed is started over in it.
pub fn failed_driver_is_started_over(placement: PlacementId, holder: &str) {
    if !kvm() {
        return;
    }
    let mut zygote = zygote();
    for driver in IN_GUEST {
        let fault = Fault::C5 {
            ignored: false,
            ms: 100,
            nth: 4,
        };

        let report = trial(&mut zygote, &TrialSpec::new(placement, driver, fault));

        assert!(report.resets > 0, "{driver:?}: {report:#?}");
        assert_eq!(domain(&report, holder).restarts, 0, "{driver:?}");
        assert!(all_is_well(&report), "{driver:?}: {report:#?}");
    }
}

#[test]
fn failed_driver_is_started_over_in_the_same_guest() {
    failed_driver_is_started_over(PlacementId::DriverVm, "driver");
}

#[test]
fn leap_trials_in_a_guest_replay_with_their_exits() {
    if !kvm() {
        return;
    }
    let (mut one, mut other) = (zygote(), zygote());
    let wild = Fault::M1 {
        target: Target::Tenant1,
        len: 64,
        nth: 3,
    };
    for driver in IN_GUEST {
        for fault in [
            Fault::None,
            wild,
            Fault::X1 { nth: 5 },
            Fault::B1 { nth: 20 },
        ] {
            let spec = spec(driver, fault);

            let first = trial(&mut one, &spec).replayed();
            let second = trial(&mut other, &spec).replayed();

            assert_eq!(first, second, "{spec:?}");
        }
    }
}

#[test]
fn guest_serves_by_the_wall_clock() {
    if !kvm() {
        return;
    }
    let mut zygote = zygote();
    for fault in [Fault::None, Fault::X1 { nth: 5 }] {
        let spec = TrialSpec {
            clock: ClockKind::Wall,
            horizon_ns: 30_000_000_000,
            ..spec(DriverId::Nvme, fault)
        };

        let report = trial(&mut zygote, &spec);

        assert!(
            report
                .io
                .iter()
                .all(|io| io.finished && io.lost == 0 && io.corrupted == 0),
            "{report:#?}"
        );
    }
}

/// Deaths of the driver's guest, each in a trial of its own; the variable asks for more.
fn deaths() -> u32 {
    let asked = std::env::var("COFFERDAM_GUEST_DEATHS").ok();
    asked.and_then(|count| count.parse().ok()).unwrap_or(100)
}

#[test]
fn driver_vm_loses_no_acknowledged_write_over_many_deaths() {
    if !kvm() {
        return;
    }
    let mut zygote = zygote();
    let disks = [DriverId::Nvme, DriverId::VirtioBlk];
    let mut recovery = Vec::new();
    for (trial, driver) in (0..deaths()).zip(disks.into_iter().cycle()) {
        let fault = Fault::X1 {
            nth: 1 + trial % 20,
        };
        let spec = TrialSpec {
            seed: trial.into(),
            horizon_ns: 30_000_000_000,
            ..spec(driver, fault)
        };

        let report = zygote.run(&spec).expect("trial");

        assert!(death(&report).contains("planned death"), "{spec:?}");
        recovery.push(report.recovered_after_ns.expect("it serves again"));
        for io in &report.io {
            assert!(
                io.finished && io.lost == 0 && io.corrupted == 0,
                "{spec:?}: {io:#?}"
            );
        }
    }
    recovery.sort_unstable();
    let median = recovery[recovery.len() / 2];
    println!("{} deaths, median recovery {median} ns", recovery.len());
}

#[test]
fn driver_that_is_not_in_the_payload_is_refused_with_a_remedy() {
    let refused = zygote().run(&spec(DriverId::NvmeCrate, Fault::None));

    let text = refused.expect_err("not in the payload").to_string();
    assert!(
        text.contains("nvme-crate") && text.contains("choose another"),
        "{text}"
    );
}

#[test]
fn without_kvm_the_trial_says_why_and_the_others_run() {
    // Not this process's environment: other tests have threads that read it.
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_cofferdam-test-zygote"));
    let mut zygote = Zygote::launch_with(program, &[(DEVICE, "/dev/no-such-kvm")]).expect("zygote");

    let refused = zygote.run(&spec(DriverId::Edu, Fault::None));

    let text = refused.expect_err("there is no such device").to_string();
    assert!(
        text.contains("/dev/no-such-kvm") && text.contains("load kvm_intel"),
        "{text}"
    );
    let process = TrialSpec::new(PlacementId::UserProcess, DriverId::Edu, Fault::None);
    assert!(all_is_well(&trial(&mut zygote, &process)));
}
