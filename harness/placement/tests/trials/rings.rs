//! Completions and descriptors that break their protocol, and drivers that die at bad moments.

use crate::{processes, run};
use cofferdam_machine::config::IommuMode;
use cofferdam_placement::trial::{By, DriverId, End, Fault, PlacementId, TrialReport, TrialSpec};

/// Drivers with rings.
const RINGS: [DriverId; 2] = [DriverId::VirtioBlk, DriverId::Nvme];

fn trial(driver: DriverId, fault: Fault) -> TrialReport {
    run(&TrialSpec::new(PlacementId::UserProcess, driver, fault))
}

/// Whether every tenant got through, with nothing it had been told lost.
fn served(report: &TrialReport) -> bool {
    let io = report.io.iter();
    report.end == End::Finished && io.clone().all(|io| io.finished && io.lost == 0)
}

fn deaths(report: &TrialReport) -> usize {
    report
        .domains
        .iter()
        .map(|domain| domain.deaths.len())
        .sum()
}

#[test]
fn completions_that_lie_act_once_and_are_survived() {
    for driver in RINGS {
        for fault in [
            Fault::R1 { nth: 3, value: 7 },
            Fault::R2 { nth: 3 },
            Fault::R3 {
                nth: 3,
                delay_ns: 100,
            },
            Fault::R4 { nth: 3 },
        ] {
            let report = trial(driver, fault);
            assert_eq!(report.activated, 1, "{driver:?} {fault:?}");
            assert!(
                report.io.iter().all(|io| io.finished),
                "{driver:?} {fault:?}: {report:#?}"
            );
        }
    }
}

#[test]
fn our_nvme_driver_takes_no_repeated_completion_for_another() {
    let report = trial(DriverId::Nvme, Fault::R2 { nth: 3 });
    assert!(report.io.iter().all(|io| io.corrupted == 0), "{report:#?}");
    assert!(served(&report));
}

#[test]
fn circle_closed_by_the_device_needs_a_writable_table() {
    let fault = Fault::R5 {
        by: By::Device,
        length: 2,
        nth: 3,
    };
    for iommu in IommuMode::ALL {
        let spec = TrialSpec {
            iommu,
            ..TrialSpec::new(PlacementId::UserProcess, DriverId::VirtioBlk, fault)
        };
        let report = run(&spec);
        assert_eq!(report.activated, 1, "{iommu:?}");
        assert_eq!(report.stray_landed > 0, !iommu.translates(), "{iommu:?}");
    }
}

#[test]
fn circle_closed_by_the_driver_ends_in_a_reset_of_the_device() {
    let fault = Fault::R5 {
        by: By::Driver,
        length: 2,
        nth: 3,
    };
    let report = trial(DriverId::VirtioBlk, fault);
    assert_eq!(report.activated, 1);
    assert!(report.resets > 0 && served(&report), "{report:#?}");
}

#[test]
fn early_doorbell_is_no_harm_where_it_only_names_a_queue() {
    let report = trial(DriverId::VirtioBlk, Fault::R6 { depth: 1, nth: 3 });
    assert_eq!((report.activated, report.resets), (1, 0));
    assert!(served(&report), "{report:#?}");
}

#[test]
fn driver_that_holds_its_ring_for_ever_is_ended_by_the_watchdog() {
    for driver in DriverId::ALL {
        let report = trial(driver, Fault::X3 { nth: 3 });
        let by = report.detection.as_ref().map(|found| found.by.as_str());
        assert_eq!(by, Some("supervisor"), "{driver:?}");
        assert_eq!(deaths(&report), 1);
        assert!(served(&report), "{driver:?}: {report:#?}");
    }
}

#[test]
fn exhausted_mappings_cost_a_reset_and_single_leaks_nothing() {
    for driver in [DriverId::Edu, DriverId::VirtioBlk, DriverId::Nvme] {
        let single = trial(driver, Fault::X4 { pins: 1, nth: 2 });
        assert!(single.activated > 0 && single.resets == 0, "{driver:?}");
        assert!(single.counts.maps > single.counts.unmaps, "{driver:?}");

        let many = trial(driver, Fault::X4 { pins: 512, nth: 2 });
        assert!(many.activated >= 512 && many.resets > 0, "{driver:?}");
        assert!(served(&many), "{driver:?}: {many:#?}");
    }
}

#[test]
fn mappings_that_die_with_their_buffer_do_not_gather() {
    let report = trial(DriverId::NvmeCrate, Fault::X4 { pins: 512, nth: 2 });
    assert!(
        report.activated >= 1024 && report.resets == 0,
        "{report:#?}"
    );
    assert!(served(&report));
}

#[test]
fn driver_that_dies_while_it_starts_is_started_again() {
    for (step, repeats) in [(0, 1), (1, 3)] {
        let fault = Fault::X5 {
            step,
            repeats,
            nth: 3,
        };
        let report = trial(DriverId::VirtioBlk, fault);
        assert_eq!(report.activated, 1 + repeats);
        assert_eq!(deaths(&report), 1 + repeats as usize);
        assert!(served(&report), "{report:#?}");
    }
}

#[test]
fn torn_answer_is_never_taken_for_a_whole_one() {
    for placement in processes() {
        for byte in [0, 1, 100, 511] {
            let fault = Fault::X6 { byte, nth: 4 };
            let report = run(&TrialSpec::new(
                placement.placement,
                DriverId::VirtioBlk,
                fault,
            ));
            assert_eq!(report.activated, 1);
            assert!(
                report.io.iter().all(|io| io.corrupted == 0 && io.lost == 0),
                "{}: {report:#?}",
                placement.id
            );
        }
    }
}
