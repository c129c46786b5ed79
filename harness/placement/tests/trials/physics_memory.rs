//! What the machine must show of whose memory a device reaches: data by copy or where the tenant has
//! them, buffers packed or one a page.

use crate::{all_is_well, run, zygote};
use cofferdam_machine::config::IommuMode;
use cofferdam_machine::frames::Owner;
use cofferdam_placement::placement::ALL;
use cofferdam_placement::trial::{
    By, DataPath, DriverId, Fault, Packing, PlacementId, TrialReport, TrialSpec,
};

const DRIVERS: [DriverId; 3] = [DriverId::Edu, DriverId::VirtioBlk, DriverId::Nvme];

fn zero_copy(placement: PlacementId, driver: DriverId, fault: Fault) -> TrialSpec {
    TrialSpec {
        data: DataPath::ZeroCopy,
        ..TrialSpec::new(placement, driver, fault)
    }
}

/// Whose memory the stray DMAs reached.
fn reached(report: &TrialReport) -> Vec<Owner> {
    let landed = report.stray.iter().filter(|stray| stray.landed);
    landed.filter_map(|stray| stray.owner).collect()
}

#[test]
fn lent_pages_are_moved_by_the_device_and_copied_by_nobody() {
    let mut zygote = zygote();
    for placement in ALL.iter().filter(|placement| placement.lends_pages()) {
        for driver in DRIVERS {
            for iommu in IommuMode::ALL {
                let spec = TrialSpec {
                    iommu,
                    ..zero_copy(placement.placement, driver, Fault::None)
                };
                let copying = TrialSpec {
                    data: DataPath::Copy,
                    ..spec.clone()
                };

                let report = zygote.run(&spec).expect("trial");

                let copied = zygote.run(&copying).expect("trial").counts.copied_bytes;
                let what = format!("{spec:?}: {report:#?}");
                assert!(all_is_well(&report), "{what}");
                assert!(report.corruption.is_empty(), "{what}");
                assert_eq!(report.stray_landed + report.stray_blocked, 0, "{what}");
                assert!(report.io.iter().all(|io| io.errors == 0), "{what}");
                assert!(report.counts.copied_bytes < copied, "{what}");
                // A factorial is no data of a page.
                let left = report.counts.copied_bytes > 0;
                assert_eq!(left, !driver.is_block(), "{what}");
                assert!(report.counts.maps > 0, "{what}");
            }
        }
    }
}

#[test]
fn nothing_is_lent_where_somebody_stands_between() {
    for placement in ALL.iter().filter(|placement| !placement.lends_pages()) {
        let spec = zero_copy(placement.placement, DriverId::VirtioBlk, Fault::None);

        let refused = zygote().run(&spec).expect_err("no page to lend");

        assert!(refused.to_string().contains(placement.id), "{refused}");
    }
}

#[test]
fn request_whose_page_the_device_was_not_given_is_not_answered_as_done() {
    // That driver's buffers are coherent memory, which no page of a tenant can be.
    let spec = zero_copy(PlacementId::UserProcess, DriverId::NvmeCrate, Fault::None);

    let report = run(&spec);

    assert!(
        report
            .io
            .iter()
            .all(|io| io.errors > 0 && io.corrupted == 0)
    );
    assert!(report.io.iter().all(|io| !io.finished && io.completed == 0));
}

#[test]
fn late_write_through_a_stale_entry_hits_whoever_has_the_data() {
    let fault = Fault::D6 {
        by: By::Device,
        delay_us: 200,
        nth: 3,
    };
    for driver in DRIVERS {
        for (data, iommu, lands) in [
            (DataPath::Copy, IommuMode::Lazy, true),
            (DataPath::ZeroCopy, IommuMode::Lazy, true),
            (DataPath::ZeroCopy, IommuMode::Off, true),
            (DataPath::ZeroCopy, IommuMode::Strict, false),
        ] {
            let spec = TrialSpec {
                data,
                iommu,
                ..TrialSpec::new(PlacementId::UserProcess, driver, fault)
            };

            let report = run(&spec);

            let what = format!("{spec:?}: {report:#?}");
            assert_eq!(report.activated, 1, "{what}");
            assert_eq!(report.stray_landed > 0, lands, "{what}");
            let tenants = [Owner::Tenant1, Owner::Tenant2];
            let hit = reached(&report).iter().any(|owner| tenants.contains(owner));
            assert_eq!(hit, lands && data == DataPath::ZeroCopy, "{what}");
        }
    }
}

#[test]
fn device_that_writes_on_reaches_the_rest_of_the_lent_page_unless_it_is_bounced() {
    let fault = Fault::D5 {
        write: true,
        offset: 0,
        nth: 3,
    };
    for driver in DRIVERS {
        for iommu in [IommuMode::Strict, IommuMode::Bounce] {
            let spec = TrialSpec {
                iommu,
                ..zero_copy(PlacementId::UserProcess, driver, fault)
            };

            let report = run(&spec);

            let what = format!("{spec:?}: {report:#?}");
            assert_eq!(report.stray_landed, 1, "{what}");
            let tenants = [Owner::Tenant1, Owner::Tenant2];
            let hit = reached(&report).iter().any(|owner| tenants.contains(owner));
            assert_eq!(hit, iommu == IommuMode::Strict, "{what}");
            assert!(all_is_well(&report), "{what}");
        }
    }
}

#[test]
fn buffer_on_a_page_of_its_own_has_no_neighbour_to_be_read() {
    let fault = Fault::D5 {
        write: false,
        offset: 0,
        nth: 6,
    };
    for packing in Packing::ALL {
        for iommu in [IommuMode::Off, IommuMode::Strict, IommuMode::Bounce] {
            let spec = TrialSpec {
                packing,
                iommu,
                ..TrialSpec::new(PlacementId::UserProcess, DriverId::VirtioBlk, fault)
            };

            let report = run(&spec);

            let what = format!("{spec:?}: {report:#?}");
            assert_eq!(report.stray_landed, 1, "{what}");
            assert!(all_is_well(&report), "{what}");
            let learns = packing == Packing::Packed && iommu != IommuMode::Bounce;
            assert_eq!(report.counts.leaked_bytes > 0, learns, "{what}");
        }
    }
}
