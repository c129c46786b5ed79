//! Trials that share a boot: each says what it would say alone, and what cannot be put back ends the
//! boot.

use crate::{all_is_well, zygote};
use cofferdam_machine::config::IommuMode;
use cofferdam_placement::placement::ALL;
use cofferdam_placement::trial::{
    By, DriverId, Fault, PlacementId, Target, TrialReport, TrialSpec,
};

/// Trials of one cell, which differ in seed and moment.
fn boot(
    placement: PlacementId,
    driver: DriverId,
    iommu: IommuMode,
    fault: impl Fn(u32) -> Fault,
) -> Vec<TrialSpec> {
    (0..6)
        .map(|number| TrialSpec {
            iommu,
            seed: 100 + u64::from(number),
            warm: true,
            ..TrialSpec::new(placement, driver, fault(2 + number % 3))
        })
        .collect()
}

fn wild(target: Target) -> impl Fn(u32) -> Fault {
    move |nth| Fault::D1 {
        by: By::Device,
        target,
        len: 64,
        nth,
    }
}

/// What follows from the fault, whatever came before.
fn outcome(report: &TrialReport) -> impl PartialEq + std::fmt::Debug {
    (
        report.activated,
        report.corruption.clone(),
        report.stray_landed,
        report.stray_blocked,
        report.forged_interrupts,
        report.end,
        report.spoilt.clone(),
        report.counts.crossings,
        report.counts.maps,
        report
            .io
            .clone()
            .into_iter()
            .map(|io| (io.completed, io.finished))
            .collect::<Vec<_>>(),
    )
}

#[test]
fn every_trial_of_a_boot_says_what_it_says_alone() {
    let mut zygote = zygote();
    for placement in ALL {
        for driver in [DriverId::Edu, DriverId::VirtioBlk, DriverId::Nvme] {
            for iommu in [IommuMode::Off, IommuMode::Strict] {
                let specs = boot(placement.placement, driver, iommu, wild(Target::Tenant2));

                let reports = zygote.run_boot(&specs).expect("a boot");

                assert_eq!(reports.len(), specs.len(), "{:?}", reports.last());
                for (spec, report) in specs.iter().zip(&reports) {
                    let alone = zygote.run(spec).expect("a trial");
                    assert_eq!(outcome(report), outcome(&alone), "{spec:?}");
                    assert!(all_is_well(report));
                    assert_eq!(report.activated, 1);
                    assert_eq!(report.corruption.is_empty(), iommu == IommuMode::Strict);
                }
            }
        }
    }
}

#[test]
fn clean_trials_share_a_boot_with_every_driver() {
    let mut zygote = zygote();
    for driver in DriverId::ALL {
        let specs = boot(PlacementId::UserProcess, driver, IommuMode::Lazy, |_| {
            Fault::None
        });
        let reports = zygote.run_boot(&specs).expect("a boot");

        assert_eq!(reports.len(), specs.len(), "{:?}", reports.last());
        assert!(reports.iter().all(all_is_well));
    }
}

#[test]
fn fifth_trial_of_a_boot_replays_with_those_before_it() {
    let specs = boot(
        PlacementId::Microkernel,
        DriverId::VirtioBlk,
        IommuMode::Off,
        wild(Target::Kernel),
    );
    let replayed = |reports: Vec<TrialReport>| -> Vec<TrialReport> {
        reports.into_iter().map(TrialReport::replayed).collect()
    };
    let first = replayed(zygote().run_boot(&specs).expect("a boot"));

    let again = replayed(zygote().run_boot(&specs).expect("a boot"));
    let (part, _) = zygote().run_boot_traced(&specs[..5]).expect("a boot");

    assert_eq!(first, again);
    assert_eq!(first[..5], replayed(part));
    assert_ne!(first[4].ended_at_ns, first[3].ended_at_ns);
}

#[test]
fn forged_interrupts_and_reads_end_no_boot() {
    let mut zygote = zygote();
    let read = |nth| Fault::D5 {
        write: false,
        offset: 0,
        nth,
    };
    for specs in [
        boot(
            PlacementId::RootPartition,
            DriverId::Edu,
            IommuMode::Strict,
            |nth| Fault::I4 { nth },
        ),
        boot(PlacementId::Hosted, DriverId::Edu, IommuMode::Strict, read),
    ] {
        let reports = zygote.run_boot(&specs).expect("a boot");

        assert_eq!(reports.len(), specs.len(), "{:?}", reports.last());
        assert!(reports.iter().all(|report| report.activated == 1));
    }
}

#[test]
fn write_that_lands_in_memory_in_use_ends_the_boot() {
    let driver = DriverId::Nvme;
    let landing = boot(PlacementId::UserProcess, driver, IommuMode::Off, |nth| {
        Fault::D8 { nth }
    });
    let refused = boot(PlacementId::UserProcess, driver, IommuMode::Strict, |nth| {
        Fault::D8 { nth }
    });

    let ended = zygote().run_boot(&landing).expect("a boot");
    let whole = zygote().run_boot(&refused).expect("a boot");

    assert_eq!((ended.len(), whole.len()), (1, refused.len()));
    let why = ended[0].spoilt.as_deref().unwrap_or_default();
    assert!(why.contains("a stray write landed in memory"), "{why}");
}

#[test]
fn trials_that_cannot_share_a_boot_are_refused() {
    let crash = boot(
        PlacementId::InKernel,
        DriverId::Edu,
        IommuMode::Strict,
        |nth| Fault::X1 { nth },
    );
    let clean = boot(
        PlacementId::InKernel,
        DriverId::Edu,
        IommuMode::Strict,
        |_| Fault::None,
    );
    let cold: Vec<TrialSpec> = clean
        .iter()
        .map(|spec| TrialSpec {
            warm: false,
            ..spec.clone()
        })
        .collect();
    let mixed = [clean[0].clone(), crash[1].clone()];

    for specs in [&crash[..], &cold, &mixed, &[]] {
        let refused = zygote().run_boot(specs);
        assert!(refused.is_err(), "{refused:?}");
    }
}

#[test]
fn fault_of_a_warm_trial_strikes_after_the_requests_before_it() {
    for fault in [Fault::X1 { nth: 1 }, Fault::B1 { nth: 1 }] {
        let spec = TrialSpec::new(PlacementId::UserProcess, DriverId::Edu, fault);
        let warm = TrialSpec { warm: true, ..spec };

        let report = zygote().run(&warm).expect("a trial");

        assert_eq!(report.activated, 1, "{fault:?}");
        assert!(report.spoilt.is_none(), "nothing could follow it anyway");
        let first = report.io.iter().map(|io| io.wanted).collect::<Vec<_>>();
        assert_eq!(first, [12, 12]);
    }
}
