//! What the machine must show of whose memory a device reaches: data by copy or where the tenant has
//! them, buffers packed or one a page.

use crate::{all_is_well, domain, processes, run, zygote};
use cofferdam_machine::config::IommuMode;
use cofferdam_machine::frames::Owner;
use cofferdam_placement::trial::{
    By, ClockKind, DataPath, DriverId, Fault, Packing, PlacementId, TrialReport, TrialSpec,
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
    for placement in processes().filter(|placement| placement.lends_pages()) {
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
    for placement in processes().filter(|placement| !placement.lends_pages()) {
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

fn ballooned(placement: PlacementId, driver: DriverId, iommu: IommuMode, us: u32) -> TrialSpec {
    let fault = Fault::D14 {
        delay_us: us,
        nth: 3,
    };
    TrialSpec {
        iommu,
        ..zero_copy(placement, driver, fault)
    }
}

#[test]
fn page_given_back_is_filled_by_a_new_process_and_gone_from_the_old_one() {
    let mut zygote = zygote();
    for placement in processes().filter(|placement| placement.lends_pages()) {
        for driver in DRIVERS {
            let spec = ballooned(placement.placement, driver, IommuMode::Strict, 2_000);

            let report = zygote.run(&spec).expect("trial");

            let what = format!("{spec:?}: {report:#?}");
            let balloon = report.balloon.expect("a page was given back");
            assert_eq!(balloon.from, 1, "{what}");
            assert!(balloon.filled_at_ns > Some(balloon.given_at_ns), "{what}");
            if let (Some(before), Some(after)) = (balloon.resident_before, balloon.resident_after) {
                assert_eq!(before - after, 4096, "{what}");
            }
            let newcomer = domain(&report, "newcomer");
            assert!(newcomer.deaths.is_empty(), "{what}");
            assert!(all_is_well(&report), "{what}");
        }
    }
}

#[test]
fn device_that_remembers_a_page_given_back_hits_its_new_owner_unless_its_address_is_gone() {
    let mut zygote = zygote();
    for placement in processes().filter(|placement| placement.lends_pages()) {
        for driver in DRIVERS {
            for (iommu, us, lands) in [
                (IommuMode::Off, 2_000, true),
                (IommuMode::Off, 20_000, true),
                (IommuMode::Passthrough, 20_000, true),
                (IommuMode::Lazy, 50, true),
                // The batch was due by then.
                (IommuMode::Lazy, 20_000, false),
                (IommuMode::Strict, 0, false),
                (IommuMode::Strict, 2_000, false),
            ] {
                let spec = ballooned(placement.placement, driver, iommu, us);

                let report = zygote.run(&spec).expect("trial");

                let what = format!("{spec:?}: {report:#?}");
                assert_eq!(report.activated, 1, "{what}");
                let filled = report.balloon.and_then(|balloon| balloon.filled_at_ns);
                let due = filled.map(|at| at + u64::from(us) * 1000);
                assert!(due <= report.activated_at_ns, "{what}");
                assert_eq!(report.stray_landed == 1, lands, "{what}");
                assert_eq!(report.stray_blocked == 1, !lands, "{what}");
                let victims: Vec<_> = report.corruption.iter().map(|found| found.owner).collect();
                let hit = lands.then_some(Owner::Newcomer);
                assert_eq!(victims, Vec::from_iter(hit), "{what}");
                assert_eq!(reached(&report), Vec::from_iter(hit), "{what}");
                // Nobody else learns of it: the tenant's own requests go on in other pages.
                assert!(all_is_well(&report), "{what}");
                let noticed = report.detection.as_ref().map(|seen| seen.by.as_str());
                assert_eq!(noticed, (!lands).then_some("iommu"), "{what}");
            }
        }
    }
}

#[test]
fn balloon_works_by_the_wall_clock_too() {
    let spec = TrialSpec {
        clock: ClockKind::Wall,
        horizon_ns: 20_000_000_000,
        ..ballooned(
            PlacementId::UserProcess,
            DriverId::VirtioBlk,
            IommuMode::Off,
            2_000,
        )
    };

    let report = run(&spec);

    assert_eq!(report.activated, 1, "{report:#?}");
    assert!(
        report
            .balloon
            .is_some_and(|balloon| balloon.filled_at_ns.is_some())
    );
    assert!(all_is_well(&report), "{report:#?}");
    assert_eq!(report.corruption[0].owner, Owner::Newcomer, "{report:#?}");
}

#[test]
fn trial_with_a_balloon_replays() {
    let spec = ballooned(
        PlacementId::InKernel,
        DriverId::Nvme,
        IommuMode::Lazy,
        2_000,
    );

    assert_eq!(run(&spec).replayed(), run(&spec).replayed());
}
