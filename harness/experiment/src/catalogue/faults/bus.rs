//! Reads that do not end well, and buses that lock (B).

use super::{Except, Fault, PCIE, STRICT, STRICT_PCIE};
use crate::cell::{Case, Cell, micros};
use crate::predict::{Expect, Prediction, by_construction, measured, nanos};
use cofferdam_machine::config::{Config, FabricKind, TimeoutEnds};
use cofferdam_placement::trial::Fault as Strike;

/// The entries, in the order of the report.
pub(super) static ENTRIES: [Fault; 2] = [
    Fault {
        id: "B1",
        line: "a non-posted register read that never completes",
        by: "device (Tamper)",
        parameters: "fabric pcie, pcie-notimeout; a timeout ends in all ones or a machine check",
        trigger: "the nth register read",
        oracle: "completion timeout, the driver's deadline, the supervisor's watchdog",
        iommu: STRICT,
        fabrics: &FabricKind::ALL,
        crossing: "no DMA goes astray, so the IOMMU mode cannot matter: crossed with strict only",
        except: &[Except {
            driver: None,
            fabric: Some(FabricKind::PcieNotimeout),
            iommu: None,
            case: Some("B1.machine-check"),
            unprivileged: false,
            privileged: false,
            reason: "without a completion timeout nothing ends in a machine check",
        }],
    },
    Fault {
        id: "B9",
        line: "register reads return all ones",
        by: "device (Tamper)",
        parameters: "window 1 ms, 100 ms",
        trigger: "from the nth register read",
        oracle: "the driver",
        iommu: STRICT,
        fabrics: PCIE,
        crossing: STRICT_PCIE,
        except: &[],
    },
];

/// Every case of an entry, in the order of the report.
pub(super) fn cases(id: &str) -> Vec<Case> {
    match id {
        "B1" => {
            let all_ones = Case::of(Strike::B1 { nth: 0 });
            let machine_check = Case {
                timeout_ends: TimeoutEnds::MachineCheck,
                ..all_ones
            };
            vec![all_ones, machine_check]
        }
        "B9" => [1_000, 100_000]
            .map(|window_us| Case::of(Strike::B9 { nth: 0, window_us }))
            .to_vec(),
        _ => Vec::new(),
    }
}

/// The name of a case.
pub(super) fn name(case: &Case) -> Option<String> {
    Some(match case.fault {
        Strike::B1 { .. } => match case.timeout_ends {
            TimeoutEnds::AllOnes => "B1.all-ones".into(),
            TimeoutEnds::MachineCheck => "B1.machine-check".into(),
        },
        Strike::B9 { window_us, .. } => format!("B9.{}", micros(window_us)),
        _ => return None,
    })
}

/// The prediction of a cell.
pub(super) fn predict(cell: &Cell) -> Option<Prediction> {
    Some(match cell.case.fault {
        Strike::B1 { .. } => match (cell.fabric, cell.case.timeout_ends) {
            (FabricKind::Pcie, TimeoutEnds::MachineCheck) => by_construction(
                Expect::SystemLost,
                "the completion timeout ends in a machine check",
            ),
            (FabricKind::Pcie, TimeoutEnds::AllOnes) => measured(
                Expect::Freezes(Some(nanos(Config::default().completion_timeout))),
                "the read holds its CPU until the completion timeout",
            ),
            (FabricKind::PcieNotimeout, _) => measured(
                Expect::Freezes(None),
                "the read holds its CPU and nothing ends it",
            ),
        },
        Strike::B9 { .. } => measured(Expect::Open, "depends on how the driver takes the lie"),
        _ => return None,
    })
}
