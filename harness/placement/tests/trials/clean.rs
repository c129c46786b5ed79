//! Without a fault nothing happens, anywhere.

use crate::{all_is_well, processes, run};
use cofferdam_machine::config::{FabricKind, IommuMode};
use cofferdam_placement::trial::{ClockKind, DriverId, End, Fault, TrialSpec};

#[test]
fn clean_trials_end_well_in_every_placement_mode_and_fabric() {
    for placement in processes() {
        for driver in DriverId::ALL {
            for iommu in IommuMode::ALL {
                for fabric in FabricKind::ALL {
                    let clean = TrialSpec::new(placement.placement, driver, Fault::None);
                    let spec = TrialSpec {
                        iommu,
                        fabric,
                        ..clean
                    };

                    let report = run(&spec);

                    assert!(all_is_well(&report), "{spec:?}: {report:#?}");
                    assert_eq!(report.end, End::Finished, "{spec:?}");
                    assert_eq!(
                        (report.activated, report.stray_landed, report.stray_blocked),
                        (0, 0, 0)
                    );
                    assert!(report.corruption.is_empty() && report.detection.is_none());
                    assert!(
                        report
                            .io
                            .iter()
                            .all(|io| io.errors == 0 && io.completed == io.wanted)
                    );
                    assert!(report.counts.doorbells > 0 && report.counts.dma_requests > 0);
                }
            }
        }
    }
}

#[test]
fn clean_trials_end_well_under_the_wall_clock() {
    for placement in processes() {
        for driver in DriverId::ALL {
            let clean = TrialSpec::new(placement.placement, driver, Fault::None);
            let spec = TrialSpec {
                clock: ClockKind::Wall,
                horizon_ns: 20_000_000_000,
                ..clean
            };

            let report = run(&spec);

            assert!(all_is_well(&report), "{spec:?}: {report:#?}");
            assert_eq!(report.end, End::Finished, "{spec:?}");
        }
    }
}
