//! What the machine must show of interrupts and of a function's own configuration.

use crate::{all_is_well, domain, processes, run, zygote};
use cofferdam_machine::config::{InterruptHandler, IommuMode};
use cofferdam_machine::frames::Owner;
use cofferdam_machine::{CHECKED, UNHANDLED};
use cofferdam_placement::placement::Restart;
use cofferdam_placement::trial::{
    By, DomainEnd, DriverId, Fault, PlacementId, TrialReport, TrialSpec,
};

const MS: u64 = 1_000_000;

fn struck(placement: PlacementId, driver: DriverId, fault: Fault) -> TrialReport {
    let report = run(&TrialSpec::new(placement, driver, fault));
    assert!(
        report.activated > 0,
        "{placement:?} {driver:?} {fault:?}: {report:#?}"
    );
    report
}

fn storm(per_second: u32, ms: u32) -> Fault {
    Fault::I1 {
        per_second,
        ms,
        nth: 3,
    }
}

#[test]
fn honest_interrupts_cost_their_cpu_a_microsecond_each_and_no_freeze() {
    for driver in DriverId::ALL {
        let report = run(&TrialSpec::new(PlacementId::InKernel, driver, Fault::None));

        let first = domain(&report, "tenant1");
        assert!(report.served.taken > 0);
        assert_eq!(first.interrupt_ns, report.served.taken * 1000);
        assert_eq!(report.served.taken, report.counts.interrupts);
        assert_eq!(domain(&report, "tenant2").interrupt_ns, 0);
        assert!(report.domains.iter().all(|domain| domain.frozen_ns == 0));
    }
}

#[test]
fn storm_saturates_the_cpu_of_the_driver_and_no_other() {
    for placement in processes() {
        for driver in DriverId::ALL {
            for per_second in [1_000_000, 2_000_000] {
                let report = struck(placement.placement, driver, storm(per_second, 20));

                let first = domain(&report, "tenant1");
                assert!(
                    first.interrupt_ns >= 19 * MS,
                    "{}: {report:#?}",
                    placement.id
                );
                assert!(
                    first.longest_gap_ns >= 19 * MS,
                    "{}: {report:#?}",
                    placement.id
                );
                let second = domain(&report, "tenant2");
                assert_eq!(second.interrupt_ns, 0);
                assert!(
                    second.longest_gap_ns < 3 * MS,
                    "{}: {second:#?}",
                    placement.id
                );
                assert!(report.domains.iter().all(|domain| domain.frozen_ns == 0));
                assert!(all_is_well(&report), "{}: {report:#?}", placement.id);
            }
        }
    }
}

#[test]
fn storm_faster_than_the_cpu_coalesces() {
    let fast = struck(PlacementId::InKernel, DriverId::Edu, storm(10_000_000, 5));
    let slow = struck(PlacementId::InKernel, DriverId::Edu, storm(10_000, 20));

    assert!(fast.served.coalesced > 8 * fast.served.taken);
    assert_eq!(slow.served.coalesced, 0, "{slow:#?}");
}

#[test]
fn kernel_cuts_a_storm_off_after_100_000_interrupts_and_vfio_never_does() {
    for placement in processes() {
        let report = struck(
            placement.placement,
            DriverId::VirtioBlk,
            storm(1_000_000, 150),
        );

        let taken = report.served.taken;
        let cut_off = report.served.cut_off_at_ns.is_some();
        match (placement.interrupts, placement.restart) {
            // The watchdog of a driver that can be restarted may strike before.
            (InterruptHandler::Driver, Restart::After(_)) => {}
            (InterruptHandler::Driver, Restart::Never | Restart::InPlace(_)) => {
                assert!(cut_off, "{}: {report:#?}", placement.id);
                assert!(taken >= UNHANDLED.into() && taken < u64::from(CHECKED) + 200);
            }
            (InterruptHandler::Vfio, _) => assert!(!cut_off, "{}", placement.id),
        }
    }
}

#[test]
fn lost_interrupt_is_made_up_for_by_the_deadline() {
    for placement in processes() {
        for driver in DriverId::ALL {
            let report = struck(placement.placement, driver, Fault::I2 { burst: 1, nth: 3 });

            assert_eq!(report.activated, 1);
            assert!(all_is_well(&report), "{}: {report:#?}", placement.id);
            let late = report.io.iter().any(|io| io.longest_ns >= 20 * MS);
            assert!(late, "{} {driver:?}: {report:#?}", placement.id);
        }
    }
}

#[test]
fn stuck_line_storms_in_the_kernel_and_not_behind_vfio() {
    for placement in processes() {
        for driver in DriverId::ALL {
            let report = struck(placement.placement, driver, Fault::I3 { nth: 2 });

            let held = domain(&report, "tenant1").interrupt_ns;
            match placement.interrupts {
                InterruptHandler::Driver => {
                    assert!(held > 90 * MS, "{}: {report:#?}", placement.id)
                }
                InterruptHandler::Vfio => assert!(held < 20 * MS, "{}: {report:#?}", placement.id),
            }
            assert_eq!(domain(&report, "tenant2").interrupt_ns, 0);
        }
    }
}

#[test]
fn interrupt_after_the_reset_is_nobodys_and_later_a_harmless_one_of_the_drivers() {
    for placement in processes() {
        for driver in DriverId::ALL {
            for (delay_us, spurious) in [(0, 1), (120_000, 0)] {
                let report = struck(placement.placement, driver, Fault::I5 { delay_us, nth: 3 });

                assert_eq!(report.activated, 1, "{driver:?} {delay_us}");
                assert_eq!(report.served.spurious, spurious, "{driver:?} {delay_us}");
                assert!(all_is_well(&report), "{}: {report:#?}", placement.id);
            }
        }
    }
}

#[test]
fn device_without_bus_mastering_is_reset_by_its_driver() {
    for driver in DriverId::ALL {
        for (by, ms) in [(By::Device, 10), (By::Device, 0), (By::Driver, 0)] {
            let report = struck(
                PlacementId::UserProcess,
                driver,
                Fault::C2 { by, ms, nth: 3 },
            );

            assert!(
                report.resets > 0 || ms > 0,
                "{driver:?} {by:?}: {report:#?}"
            );
            assert!(all_is_well(&report), "{driver:?} {by:?}: {report:#?}");
        }
    }
}

#[test]
fn circle_of_capabilities_ends_in_every_placement() {
    for placement in processes() {
        for (length, serves) in [(1, false), (3, false), (6, true)] {
            let report = struck(
                placement.placement,
                DriverId::VirtioBlk,
                Fault::C3 { length },
            );

            assert_eq!(
                all_is_well(&report),
                serves,
                "{}: {report:#?}",
                placement.id
            );
            let server = &report.domains[placement.server()];
            assert_eq!(server.end, DomainEnd::Alive, "{server:#?}");
            assert!(server.deaths.is_empty(), "{server:#?}");
        }
    }
}

#[test]
fn corrupt_message_address_is_a_memory_write_that_only_translation_stops() {
    let mut zygote = zygote();
    for driver in [DriverId::VirtioBlk, DriverId::Nvme] {
        for iommu in IommuMode::ALL {
            let fault = Fault::C4 {
                by: By::Device,
                field: 0,
                nth: 2,
            };
            let spec = TrialSpec::new(PlacementId::UserProcess, driver, fault);

            let report = zygote.run(&TrialSpec { iommu, ..spec }).expect("trial");

            let hit = report
                .corruption
                .iter()
                .any(|found| found.owner == Owner::Tenant1);
            assert_eq!(
                hit,
                !iommu.translates(),
                "{driver:?} {iommu:?}: {report:#?}"
            );
        }
    }
}

#[test]
fn interrupts_lost_to_a_corrupt_table_cost_time_and_no_data() {
    for driver in [DriverId::VirtioBlk, DriverId::Nvme] {
        for (by, field) in [
            (By::Device, 1),
            (By::Device, 2),
            (By::Device, 3),
            (By::Driver, 2),
        ] {
            let fault = Fault::C4 { by, field, nth: 2 };
            let report = struck(PlacementId::InKernel, driver, fault);

            let late = report.io.iter().any(|io| io.longest_ns >= 20 * MS);
            assert!(late, "{driver:?} {by:?} {field}: {report:#?}");
            let harmed = report.io.iter().any(|io| io.lost + io.corrupted > 0);
            assert!(!harmed, "{driver:?} {by:?} {field}: {report:#?}");
        }
    }
}
