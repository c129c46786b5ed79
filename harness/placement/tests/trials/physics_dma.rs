//! What the machine must show of DMA that goes astray in other ways than by a wrong address.

use crate::{all_is_well, processes, run, zygote};
use cofferdam_machine::config::IommuMode;
use cofferdam_machine::frames::Owner;
use cofferdam_placement::placement::Restart;
use cofferdam_placement::trial::{
    By, DriverId, Fault, PlacementId, Target, TrialReport, TrialSpec,
};

const DRIVERS: [DriverId; 2] = [DriverId::Edu, DriverId::VirtioBlk];

fn spec(driver: DriverId, iommu: IommuMode, fault: Fault) -> TrialSpec {
    TrialSpec {
        iommu,
        ..TrialSpec::new(PlacementId::UserProcess, driver, fault)
    }
}

/// Every driver in every mode; `look` gets what was seen of an activated trial.
fn everywhere(fault: Fault, look: impl Fn(&TrialReport, IommuMode, &str)) {
    everywhere_with(|spec| spec, fault, look);
}

/// The same on a platform that `lay` makes.
fn everywhere_with(
    lay: impl Fn(TrialSpec) -> TrialSpec,
    fault: Fault,
    look: impl Fn(&TrialReport, IommuMode, &str),
) {
    let mut zygote = zygote();
    for driver in DRIVERS {
        for iommu in IommuMode::ALL {
            let spec = lay(spec(driver, iommu, fault));
            let report = zygote.run(&spec).expect("trial");
            let what = format!("{spec:?}: {report:#?}");
            assert!(report.activated > 0, "{what}");
            look(&report, iommu, &what);
        }
    }
}

/// Whose pattern changed.
fn victims(report: &TrialReport) -> Vec<Owner> {
    report.corruption.iter().map(|found| found.owner).collect()
}

#[test]
fn bounce_keeps_what_lies_beside_a_buffer_out_of_reach() {
    let mut zygote = zygote();
    for placement in processes() {
        for driver in DRIVERS {
            for fault in [
                Fault::D1 {
                    by: By::Device,
                    target: Target::Neighbour,
                    len: 8,
                    nth: 3,
                },
                Fault::D4 {
                    by: By::Device,
                    extra: 63,
                    nth: 3,
                },
                Fault::D5 {
                    write: true,
                    offset: 0,
                    nth: 3,
                },
                Fault::D5 {
                    write: false,
                    offset: 0,
                    nth: 3,
                },
            ] {
                let strict = TrialSpec::new(placement.placement, driver, fault);
                let bounce = TrialSpec {
                    iommu: IommuMode::Bounce,
                    ..strict
                };

                let report = zygote.run(&bounce).expect("trial");

                assert!(report.activated > 0, "{bounce:?}");
                assert!(report.stray_landed > 0, "{bounce:?}: {report:#?}");
                assert!(all_is_well(&report), "{bounce:?}: {report:#?}");
                assert_eq!(report.counts.leaked_bytes, 0, "{bounce:?}");
                assert!(report.corruption.is_empty() && report.counts.bounced_bytes > 0);
            }
        }
    }
}

#[test]
fn clean_trials_copy_only_where_pages_are_bounced() {
    for driver in DRIVERS {
        for iommu in IommuMode::ALL {
            let report = run(&spec(driver, iommu, Fault::None));
            assert!(all_is_well(&report), "{driver:?} {iommu:?}: {report:#?}");
            let copied = report.counts.bounced_bytes > 0;
            assert_eq!(copied, iommu == IommuMode::Bounce);
        }
    }
}

#[test]
fn read_beside_a_buffer_learns_what_was_left_there_unless_it_is_bounced() {
    for iommu in IommuMode::ALL {
        let fault = Fault::D5 {
            write: false,
            offset: 0,
            nth: 6,
        };
        // The adapter of virtio packs its buffers side by side.
        let report = run(&spec(DriverId::VirtioBlk, iommu, fault));
        assert_eq!(report.activated, 1);
        assert_eq!(report.stray_landed, 1);
        let learns = report.counts.leaked_bytes > 0;
        assert_eq!(learns, iommu != IommuMode::Bounce, "{iommu:?}: {report:#?}");
    }
}

#[test]
fn flipped_bit_lands_where_the_iommu_maps_something() {
    for (bit, victim) in [(3, None), (19, Some(Owner::Hypervisor)), (40, None)] {
        everywhere(Fault::D2 { bit, nth: 2 }, |report, iommu, what| {
            let lands = bit == 3 || (victim.is_some() && !iommu.translates());
            assert_eq!(report.stray_landed > 0, lands, "{what}");
            let hit = victim.filter(|_| lands);
            assert_eq!(victims(report), Vec::from_iter(hit), "{what}");
        });
    }
}

#[test]
fn truncated_address_hits_a_tenant_where_nothing_translates() {
    everywhere(Fault::D3 { nth: 2 }, |report, iommu, what| {
        let lands = !iommu.translates();
        assert_eq!(report.stray_landed > 0, lands, "{what}");
        let hit = lands.then_some(Owner::Tenant1);
        assert_eq!(victims(report), Vec::from_iter(hit), "{what}");
        if !lands {
            assert_eq!(report.detection.as_ref().expect("noticed").by, "iommu");
        }
    });
}

#[test]
fn address_given_out_again_in_flight_reaches_its_new_buffer_unnoticed_by_the_iommu() {
    for driver in DRIVERS {
        for iommu in [IommuMode::Lazy, IommuMode::Strict, IommuMode::Bounce] {
            let report = run(&spec(driver, iommu, Fault::D7 { nth: 2 }));
            assert!(report.activated > 0, "{driver:?} {iommu:?}: {report:#?}");
            assert_eq!(report.stray_blocked + report.stray_landed, 0);
            assert!(report.corruption.is_empty());
            let wrong: u32 = report.io.iter().map(|io| io.corrupted).sum();
            assert!(wrong > 0, "{driver:?} {iommu:?}: {report:#?}");
            assert!(report.io.iter().all(|io| io.finished && io.lost == 0));
        }
    }
}

#[test]
fn translated_request_lands_everywhere_on_a_platform_that_trusts_it() {
    for trusted in [true, false] {
        let fault = Fault::D10 {
            trusted,
            target: Target::Tenant1,
            nth: 2,
        };
        everywhere(fault, |report, iommu, what| {
            // Without an IOMMU nobody looks.
            let lands = trusted || iommu == IommuMode::Off;
            let hit = lands.then_some(Owner::Tenant1);
            assert_eq!(victims(report), Vec::from_iter(hit), "{what}");
            if !lands {
                assert_eq!(report.detection.as_ref().expect("noticed").by, "iommu");
            }
        });
    }
}

#[test]
fn reserved_region_is_hit_in_every_mode() {
    everywhere(Fault::D11 { nth: 2 }, |report, _, what| {
        assert_eq!(victims(report), [Owner::Hypervisor], "{what}");
        assert_eq!(report.stray_blocked, 0, "{what}");
    });
}

#[test]
fn borrowed_requester_id_reaches_a_tenants_page_unless_ports_look_who_sends() {
    for acs in [false, true] {
        let lay = |spec| TrialSpec { acs, ..spec };
        everywhere_with(lay, Fault::D13 { nth: 2 }, |report, _, what| {
            let hit = (!acs).then_some(Owner::Tenant2);
            assert_eq!(victims(report), Vec::from_iter(hit), "{what}");
            assert_eq!(report.stray_blocked > 0, acs, "{what}");
        });
    }
}

#[test]
fn dma_after_a_reset_lands_only_where_nothing_translates() {
    let mut zygote = zygote();
    for placement in processes() {
        for driver in DRIVERS {
            for iommu in IommuMode::ALL {
                for (death, quarantine) in
                    [(true, false), (true, true), (false, false), (false, true)]
                {
                    if death && placement.restart == Restart::Never {
                        continue;
                    }
                    let fault = Fault::D12 {
                        death,
                        delay_us: 100,
                        quarantine,
                        nth: 8,
                    };
                    let clean = TrialSpec::new(placement.placement, driver, fault);
                    let spec = TrialSpec { iommu, ..clean };

                    let report = zygote.run(&spec).expect("trial");

                    let what = format!("{spec:?}: {report:#?}");
                    assert_eq!(report.activated, 1, "{what}");
                    assert_eq!(report.resets, 1, "{what}");
                    let lands = !iommu.translates();
                    if quarantine || !lands {
                        // Nobody uses the pages of the last driver: a stray, and harmless.
                        assert_eq!(report.stray_landed > 0, lands, "{what}");
                        assert_eq!(report.stray_blocked > 0, !lands, "{what}");
                        assert!(all_is_well(&report), "{what}");
                    }
                    assert!(report.recovered_after_ns.is_some(), "{what}");
                }
            }
        }
    }
}
