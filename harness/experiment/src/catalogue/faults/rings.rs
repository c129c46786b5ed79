//! Completions and descriptors that break their protocol (R).

use super::{ALL_MODES_PCIE, Except, Fault, PCIE, STRICT, STRICT_PCIE};
use crate::cell::{Case, Cell, by_name};
use crate::predict::{Expect, Prediction, measured};
use cofferdam_machine::config::IommuMode;
use cofferdam_placement::trial::{By, DriverId, Fault as Strike};

/// The entries, in the order of the report.
pub(super) static ENTRIES: [Fault; 6] = [
    Fault {
        id: "R1",
        line: "a completion that names no request of the driver",
        by: "device (Tamper)",
        parameters: "index 64 (out of range), 7 (in range, not outstanding)",
        trigger: "the nth completion",
        oracle: "the driver",
        iommu: STRICT,
        fabrics: PCIE,
        crossing: STRICT_PCIE,
        except: NO_RINGS,
    },
    Fault {
        id: "R2",
        line: "a completion that comes twice",
        by: "device (Tamper)",
        parameters: "the same entry once more in the next slot",
        trigger: "the nth completion",
        oracle: "the driver, tenants' verification",
        iommu: STRICT,
        fabrics: PCIE,
        crossing: STRICT_PCIE,
        except: NO_RINGS,
    },
    Fault {
        id: "R3",
        line: "a double fetch: what was completed changes after it was published",
        by: "device (Tamper)",
        parameters: "100 ns later (before a driver looks), 1 ms later",
        trigger: "the nth completion",
        oracle: "the driver",
        iommu: STRICT,
        fabrics: PCIE,
        crossing: STRICT_PCIE,
        except: NO_RINGS,
    },
    Fault {
        id: "R4",
        line: "what publishes a completion is wrong: an index one too far, a phase bit inverted",
        by: "device (Tamper)",
        parameters: "none",
        trigger: "the nth completion",
        oracle: "the driver, tenants' verification",
        iommu: STRICT,
        fabrics: PCIE,
        crossing: STRICT_PCIE,
        except: NO_RINGS,
    },
    Fault {
        id: "R5",
        line: "a chain of descriptors that runs in a circle",
        by: "device (Tamper) or driver (Sabotage)",
        parameters: "two descriptors; closed by the device in the driver's memory, by the driver before a doorbell",
        trigger: "the nth descriptor read (device), the doorbell after the nth mapping (driver)",
        oracle: "IOMMU fault log, the device (which asks for a reset), the driver's deadline",
        iommu: &IommuMode::ALL,
        fabrics: PCIE,
        crossing: ALL_MODES_PCIE,
        except: NO_CHAINS,
    },
    Fault {
        id: "R6",
        line: "a doorbell that is rung before its descriptor is written",
        by: "driver (Sabotage)",
        parameters: "one descriptor early",
        trigger: "before the nth mapping",
        oracle: "the device",
        iommu: STRICT,
        fabrics: PCIE,
        crossing: STRICT_PCIE,
        except: NO_RINGS,
    },
];

/// Where there are no chains of descriptors.
const NO_CHAINS: &[Except] = &[
    NO_RINGS[0],
    Except {
        driver: Some(DriverId::Nvme),
        fabric: None,
        iommu: None,
        case: None,
        unprivileged: false,
        privileged: false,
        reason: "a command names its pages itself: nothing is chained at this size",
    },
];

/// Where there are no rings.
const NO_RINGS: &[Except] = &[Except {
    driver: Some(DriverId::Edu),
    fabric: None,
    iommu: None,
    case: None,
    unprivileged: false,
    privileged: false,
    reason: "edu has no rings: one command at a time, in registers",
}];

/// Every case of an entry, in the order of the report.
pub(super) fn cases(id: &str) -> Vec<Case> {
    match id {
        "R1" => [64, 7]
            .map(|value| Case::of(Strike::R1 { nth: 0, value }))
            .to_vec(),
        "R2" => vec![Case::of(Strike::R2 { nth: 0 })],
        "R3" => [100, 1_000_000]
            .map(|delay_ns| Case::of(Strike::R3 { delay_ns, nth: 0 }))
            .to_vec(),
        "R4" => vec![Case::of(Strike::R4 { nth: 0 })],
        "R5" => [By::Device, By::Driver]
            .map(|by| {
                Case::of(Strike::R5 {
                    by,
                    length: 2,
                    nth: 0,
                })
            })
            .to_vec(),
        "R6" => vec![Case::of(Strike::R6 { depth: 1, nth: 0 })],
        _ => Vec::new(),
    }
}

/// The name of a case.
pub(super) fn name(case: &Case) -> Option<String> {
    Some(match case.fault {
        Strike::R1 { value, .. } => format!("R1.index-{value}"),
        Strike::R3 { delay_ns, .. } => format!("R3.{delay_ns}ns"),
        Strike::R5 { by, length, .. } => format!("R5.{}.{length}", by_name(by)),
        _ => return None,
    })
}

/// The prediction of a cell.
pub(super) fn predict(cell: &Cell) -> Option<Prediction> {
    Some(match cell.case.fault {
        Strike::R1 { .. } | Strike::R2 { .. } | Strike::R3 { .. } | Strike::R4 { .. } => {
            measured(Expect::Open, "depends on how the driver takes the lie")
        }
        Strike::R5 { by: By::Device, .. } if cell.iommu.translates() => measured(
            Expect::Blocked,
            "a driver's descriptors are mapped for reading only",
        ),
        Strike::R5 { .. } => measured(
            Expect::Open,
            "depends on whether driver and device trust the chain in memory",
        ),
        Strike::R6 { .. } => measured(
            Expect::Open,
            "depends on what the device finds where the descriptor should be",
        ),
        _ => return None,
    })
}
