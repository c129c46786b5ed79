//! What the machine must show: the rows of the experiment that these faults, modes and fabrics
//! cover.

use crate::{all_is_well, domain, processes, run, zygote};
use cofferdam_machine::config::{FabricKind, IommuMode, TimeoutEnds};
use cofferdam_machine::frames::Owner;
use cofferdam_placement::placement::Restart;
use cofferdam_placement::trial::{
    By, ClockKind, DomainEnd, DriverId, End, Fault, Oops, PlacementId, Target, TrialReport,
    TrialSpec,
};

use std::time::Duration;

const DRIVERS: [DriverId; 2] = [DriverId::Edu, DriverId::VirtioBlk];
/// Length of a wild access.
const LEN: u32 = 96;

fn wild_dma(by: By, target: Target) -> Fault {
    Fault::D1 {
        by,
        target,
        len: LEN,
        nth: 3,
    }
}

fn corrupted(report: &TrialReport, owner: Owner) -> u64 {
    report
        .corruption
        .iter()
        .find(|victim| victim.owner == owner)
        .map_or(0, |victim| victim.bytes)
}

#[test]
fn wild_dma_without_translation_always_lands() {
    let mut zygote = zygote();
    for placement in processes() {
        for driver in DRIVERS {
            for iommu in [IommuMode::Off, IommuMode::Passthrough] {
                for by in [By::Device, By::Driver] {
                    for target in Target::ALL {
                        let Some(owner) = target.owner() else {
                            continue;
                        };
                        let clean =
                            TrialSpec::new(placement.placement, driver, wild_dma(by, target));
                        let spec = TrialSpec { iommu, ..clean };

                        let report = zygote.run(&spec).expect("trial");

                        assert!(report.activated > 0, "{spec:?}");
                        assert!(report.stray_landed > 0, "{spec:?}: {report:#?}");
                        // A random byte equals the pattern's now and then.
                        assert!(
                            corrupted(&report, owner) > u64::from(LEN) / 2,
                            "{spec:?}: {report:#?}"
                        );
                        assert_eq!(report.corruption.len(), 1, "{spec:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn wild_dma_under_a_strict_iommu_never_lands_in_what_is_not_mapped() {
    let mut zygote = zygote();
    for placement in processes() {
        for driver in DRIVERS {
            for by in [By::Device, By::Driver] {
                for target in Target::ALL {
                    if target == Target::Neighbour {
                        continue;
                    }
                    let spec = TrialSpec::new(placement.placement, driver, wild_dma(by, target));

                    let report = zygote.run(&spec).expect("trial");

                    assert!(report.activated > 0 && report.stray_blocked > 0, "{spec:?}");
                    assert_eq!(report.stray_landed, 0, "{spec:?}: {report:#?}");
                    assert!(report.corruption.is_empty(), "{spec:?}");
                    assert_eq!(report.detection.expect("noticed").by, "iommu", "{spec:?}");
                }
            }
        }
    }
}

#[test]
fn wild_dma_beside_a_mapped_buffer_lands_under_a_strict_iommu() {
    for placement in processes() {
        for driver in DRIVERS {
            let spec = TrialSpec::new(
                placement.placement,
                driver,
                wild_dma(By::Device, Target::Neighbour),
            );

            let report = run(&spec);

            assert!(report.stray_landed > 0, "{spec:?}: {report:#?}");
            assert_eq!(report.stray[0].owner, Some(Owner::Driver), "{spec:?}");
        }
    }
}

fn late_write(delay_us: u32, iommu: IommuMode, driver: DriverId) -> TrialReport {
    let fault = Fault::D6 {
        by: By::Device,
        delay_us,
        nth: 2,
    };
    let clean = TrialSpec::new(PlacementId::UserProcess, driver, fault);
    let report = run(&TrialSpec { iommu, ..clean });
    assert!(
        report.activated > 0,
        "{iommu:?} {driver:?} {delay_us}: {report:#?}"
    );
    report
}

#[test]
fn use_after_unmap_without_translation_always_lands() {
    for driver in DRIVERS {
        for iommu in [IommuMode::Off, IommuMode::Passthrough] {
            for delay_us in [100, 20_000] {
                assert!(late_write(delay_us, iommu, driver).stray_landed > 0);
            }
        }
    }
}

#[test]
fn use_after_unmap_under_lazy_lands_for_ten_milliseconds() {
    for driver in DRIVERS {
        let early = late_write(100, IommuMode::Lazy, driver);
        assert!(early.stray_landed > 0, "{early:#?}");
        assert!(early.stale_window_ns.expect("landed") < 10_000_000);

        let late = late_write(20_000, IommuMode::Lazy, driver);
        assert_eq!(late.stray_landed, 0, "{late:#?}");
    }
}

#[test]
fn use_after_unmap_under_strict_never_lands() {
    for driver in DRIVERS {
        for delay_us in [100, 20_000] {
            let report = late_write(delay_us, IommuMode::Strict, driver);
            assert_eq!(report.stray_landed, 0, "{report:#?}");
        }
    }
}

#[test]
fn buffer_unmapped_too_early_is_never_primed_so_lazy_and_strict_refuse_it() {
    for driver in DRIVERS {
        for (iommu, lands) in [
            (IommuMode::Off, true),
            (IommuMode::Passthrough, true),
            (IommuMode::Lazy, false),
            (IommuMode::Strict, false),
        ] {
            let fault = Fault::D6 {
                by: By::Driver,
                delay_us: 0,
                nth: 2,
            };
            let clean = TrialSpec::new(PlacementId::UserProcess, driver, fault);

            let report = run(&TrialSpec { iommu, ..clean });

            assert!(report.activated > 0, "{iommu:?}: {report:#?}");
            assert_eq!(
                report.stray_landed > 0,
                lands,
                "{iommu:?} {driver:?}: {report:#?}"
            );
        }
    }
}

#[test]
fn overrun_lands_as_far_as_the_mapped_page_reaches() {
    for driver in DRIVERS {
        for by in [By::Device, By::Driver] {
            for extra in [1, 63, 4096] {
                // One byte on is the request's own status byte where slots are packed and addresses
                // physical: mapped too, so the ledger cannot object.
                if driver == DriverId::VirtioBlk && extra == 1 {
                    continue;
                }
                let fault = Fault::D4 { by, extra, nth: 2 };
                let strict = TrialSpec::new(PlacementId::UserProcess, driver, fault);
                let off = TrialSpec {
                    iommu: IommuMode::Off,
                    ..strict.clone()
                };

                let (strict, off) = (run(&strict), run(&off));

                // A request that reaches past its page is cut there, not undone.
                for report in [&strict, &off] {
                    assert!(
                        report.activated > 0,
                        "{driver:?} {by:?} {extra}: {report:#?}"
                    );
                }
                assert!(off.stray_landed > 0, "{driver:?} {by:?} {extra}: {off:#?}");
                if extra < 4096 {
                    assert!(
                        strict.stray_landed > 0,
                        "{driver:?} {by:?} {extra}: {strict:#?}"
                    );
                } else if (driver, by) == (DriverId::Edu, By::Device) {
                    // virtio-blk has more mapped on the pages that follow.
                    assert_eq!(strict.detection.expect("noticed").by, "iommu");
                }
            }
        }
    }
}

#[test]
fn write_to_what_is_mapped_for_reading_lands_only_without_translation() {
    for driver in DRIVERS {
        for iommu in IommuMode::ALL {
            let clean = TrialSpec::new(PlacementId::UserProcess, driver, Fault::D8 { nth: 2 });

            let report = run(&TrialSpec { iommu, ..clean });

            assert_eq!(report.activated, 1, "{driver:?} {iommu:?}");
            assert_eq!(
                report.stray_landed > 0,
                !iommu.translates(),
                "{driver:?} {iommu:?}: {report:#?}"
            );
        }
    }
}

#[test]
fn interrupts_of_others_are_forged_in_every_mode_unless_they_are_remapped() {
    for driver in DRIVERS {
        for iommu in IommuMode::ALL {
            for intremap in [false, true] {
                let clean = TrialSpec::new(PlacementId::UserProcess, driver, Fault::I4 { nth: 2 });

                let report = run(&TrialSpec {
                    iommu,
                    intremap,
                    ..clean
                });

                assert_eq!(report.activated, 1, "{driver:?} {iommu:?}");
                let delivered = (report.forged_interrupts, report.refused_interrupts);
                let expected = if intremap { (0, 1) } else { (1, 0) };
                assert_eq!(delivered, expected, "{driver:?} {iommu:?}");
                assert!(all_is_well(&report), "{driver:?} {iommu:?}: {report:#?}");
            }
        }
    }
}

fn lost_read(
    placement: PlacementId,
    driver: DriverId,
    fabric: FabricKind,
    ends: TimeoutEnds,
) -> TrialReport {
    let clean = TrialSpec::new(placement, driver, Fault::B1 { nth: 6 });
    let report = run(&TrialSpec {
        fabric,
        timeout_ends: ends,
        ..clean
    });
    assert_eq!(report.activated, 1, "{placement:?} {driver:?}: {report:#?}");
    report
}

const TIMEOUT_NS: u64 = 50_000_000;

#[test]
fn read_that_never_completes_freezes_its_cpu_for_the_timeout_on_pcie() {
    for placement in processes() {
        for driver in DRIVERS {
            let report = lost_read(
                placement.placement,
                driver,
                FabricKind::Pcie,
                TimeoutEnds::AllOnes,
            );

            let server = &placement.domains[placement.server()];
            for other in &report.domains {
                let stood_still = other.cpu == server.cpu;
                assert_eq!(
                    other.frozen_ns == TIMEOUT_NS,
                    stood_still,
                    "{}: {other:#?}",
                    placement.id
                );
                if other.tenant.is_some() {
                    assert_eq!(
                        other.longest_gap_ns >= TIMEOUT_NS,
                        stood_still,
                        "{other:#?}"
                    );
                }
            }
            assert_eq!(report.detection.as_ref().expect("noticed").by, "fabric");
        }
    }
}

#[test]
fn read_that_never_completes_freezes_its_cpu_to_the_horizon_without_a_timeout() {
    for placement in processes() {
        for driver in DRIVERS {
            let report = lost_read(
                placement.placement,
                driver,
                FabricKind::PcieNotimeout,
                TimeoutEnds::AllOnes,
            );

            assert_eq!(report.end, End::Horizon);
            let first = domain(&report, "tenant1");
            assert_eq!(first.end, DomainEnd::Frozen, "{}", placement.id);
            assert!(first.longest_gap_ns > 900_000_000);
            let second = domain(&report, "tenant2");
            assert_eq!(second.end, DomainEnd::Alive, "{}", placement.id);
            assert!(second.longest_gap_ns < 10_000_000, "{}", placement.id);
        }
    }
}

#[test]
fn completion_timeout_that_ends_in_a_machine_check_stops_the_system_everywhere() {
    for placement in processes() {
        let ends = TimeoutEnds::MachineCheck;
        let report = lost_read(
            placement.placement,
            DriverId::VirtioBlk,
            FabricKind::Pcie,
            ends,
        );

        assert!(report.machine_check);
        assert_eq!(report.end, End::SystemLost, "{}", placement.id);
    }
}

#[test]
fn crash_of_the_driver_is_as_wide_as_the_layer_it_runs_in() {
    for driver in DRIVERS {
        for placement in processes() {
            let report = run(&TrialSpec::new(
                placement.placement,
                driver,
                Fault::X1 { nth: 5 },
            ));

            let server = &report.domains[placement.server()];
            let died = server
                .deaths
                .first()
                .is_some_and(|death| death.contains("planned crash"));
            assert_eq!(
                died,
                !matches!(placement.restart, Restart::InPlace(_)),
                "{server:#?}"
            );
            match placement.restart {
                Restart::InPlace(delay) => {
                    assert!(all_is_well(&report), "{}: {report:#?}", placement.id);
                    assert!(server.deaths.is_empty() && server.restarts == 0);
                    let recovered = report.recovered_after_ns.expect("recovered");
                    assert!(u128::from(recovered) >= delay.as_nanos());
                    assert!(
                        report
                            .detection
                            .expect("noticed")
                            .what
                            .contains("contained")
                    );
                }
                Restart::Never => {
                    assert_eq!(report.end, End::SystemLost, "{}", placement.id);
                    assert!(report.recovered_after_ns.is_none());
                }
                Restart::After(delay) => {
                    assert!(all_is_well(&report), "{}: {report:#?}", placement.id);
                    assert_eq!(server.restarts, 1);
                    let recovered = report.recovered_after_ns.expect("recovered");
                    // The device's reset is waited for too.
                    let least = delay + Duration::from_millis(100);
                    assert!(u128::from(recovered) >= least.as_nanos());
                    assert_eq!(report.detection.expect("noticed").by, "supervisor");
                }
            }
        }
    }
}

#[test]
fn kernel_that_only_kills_the_task_survives_without_the_driver() {
    for placement in [
        PlacementId::InKernel,
        PlacementId::Hypervisor,
        PlacementId::Hosted,
    ] {
        let clean = TrialSpec::new(placement, DriverId::VirtioBlk, Fault::X1 { nth: 5 });

        let report = run(&TrialSpec {
            oops: Oops::KillTask,
            ..clean
        });

        assert!(
            report
                .domains
                .iter()
                .all(|domain| domain.end == DomainEnd::Alive)
        );
        assert!(
            report.io.iter().all(|io| !io.finished && io.errors > 0),
            "{report:#?}"
        );
    }
}

#[test]
fn driver_that_spins_politely_for_long_is_restarted_where_that_is_possible() {
    for placement in processes() {
        let fault = Fault::X2 {
            raw: false,
            ms: 300,
            nth: 5,
        };
        let report = run(&TrialSpec::new(placement.placement, DriverId::Edu, fault));

        let killed = report.domains[placement.server()].restarts;
        assert_eq!(
            killed,
            u32::from(matches!(placement.restart, Restart::After(_))),
            "{}",
            placement.id
        );
        assert_eq!(report.detection.as_ref().expect("noticed").by, "supervisor");
        assert!(all_is_well(&report), "{}: {report:#?}", placement.id);
    }
}

#[test]
fn driver_that_spins_without_a_call_is_ended_as_spun() {
    for placement in processes() {
        let fault = Fault::X2 {
            raw: true,
            ms: 0,
            nth: 5,
        };
        let report = run(&TrialSpec::new(placement.placement, DriverId::Edu, fault));

        assert!(
            report.domains[placement.server()].deaths[0].starts_with("spun"),
            "{report:#?}"
        );
        assert_eq!(
            all_is_well(&report),
            matches!(placement.restart, Restart::After(_)),
            "{report:#?}"
        );
    }
}

#[test]
fn wild_store_lands_exactly_in_what_the_domain_of_the_driver_maps() {
    let mut zygote = zygote();
    for placement in processes() {
        for driver in DRIVERS {
            for target in Target::ALL {
                let Some(owner) = target.owner() else {
                    continue;
                };
                let fault = Fault::M1 {
                    target,
                    len: LEN,
                    nth: 4,
                };

                let report = zygote
                    .run(&TrialSpec::new(placement.placement, driver, fault))
                    .expect("trial");

                let at = cofferdam_machine::frames::run_of(
                    owner,
                    cofferdam_machine::frames::Use::Pattern,
                )
                .expect("pattern frames")
                .bytes()
                .start;
                let mapped = placement.domains[placement.server()].may_touch(at, 1);
                assert_eq!(report.activated, 1);
                assert_eq!(
                    corrupted(&report, owner) > 0,
                    mapped,
                    "{} {target:?}",
                    placement.id
                );
                let server = &report.domains[placement.server()];
                assert_eq!(
                    server.deaths == ["SIGSEGV"],
                    !mapped,
                    "{} {target:?}: {server:#?}",
                    placement.id
                );
            }
        }
    }
}

#[test]
fn completion_that_names_no_request_is_survived() {
    for placement in processes() {
        for value in [7, 64, u32::MAX] {
            let spec = TrialSpec::new(
                placement.placement,
                DriverId::VirtioBlk,
                Fault::R1 { nth: 4, value },
            );

            let report = run(&spec);

            assert_eq!(report.activated, 1, "{spec:?}");
            assert!(report.detection.is_some(), "{spec:?}: {report:#?}");
            assert!(all_is_well(&report), "{spec:?}: {report:#?}");
        }
    }
}

#[test]
fn reads_of_all_ones_strike_and_are_survived() {
    for placement in processes() {
        for driver in DRIVERS {
            let spec = TrialSpec::new(
                placement.placement,
                driver,
                Fault::B9 {
                    nth: 6,
                    window_us: 100_000,
                },
            );

            let report = run(&spec);

            assert!(report.activated > 0, "{spec:?}");
            assert!(all_is_well(&report), "{spec:?}: {report:#?}");
        }
    }
}

/// Two hundred deaths: each a trial with one, the driver killed before a different request.
fn deaths(clock: ClockKind, count: u32) {
    let mut zygote = zygote();
    let mut died = 0;
    for trial in 0..count {
        let fault = Fault::X1 {
            nth: 1 + trial % 20,
        };
        let clean = TrialSpec::new(PlacementId::UserProcess, DriverId::VirtioBlk, fault);
        let spec = TrialSpec {
            clock,
            seed: trial.into(),
            horizon_ns: 30_000_000_000,
            ..clean
        };

        let report = zygote.run(&spec).expect("trial");

        died += report
            .domains
            .iter()
            .map(|domain| domain.deaths.len())
            .sum::<usize>();
        if clock == ClockKind::Leap {
            assert!(report.recovered_after_ns.is_some(), "{spec:?}: {report:#?}");
        }
        for io in &report.io {
            assert!(
                io.finished && io.lost == 0 && io.corrupted == 0,
                "{spec:?}: {io:#?}"
            );
        }
    }
    // By the wall clock a busy host may keep the driver from its CPU until the watchdog takes it for
    // dead: once more, or before its time.
    match clock {
        ClockKind::Leap => assert_eq!(died, count as usize),
        ClockKind::Wall => assert!(died >= count as usize, "{died} deaths"),
    }
}

#[test]
fn user_process_loses_no_acknowledged_write_over_200_deaths_under_leap() {
    deaths(ClockKind::Leap, 200);
}

#[test]
fn user_process_loses_no_acknowledged_write_over_200_deaths_under_the_wall_clock() {
    deaths(ClockKind::Wall, 200);
}
