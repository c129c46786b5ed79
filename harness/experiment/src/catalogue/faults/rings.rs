//! Completions and descriptors that break their protocol (R).

use super::{Except, Fault, PCIE, STRICT, STRICT_PCIE};
use crate::cell::{Case, Cell};
use crate::predict::{Expect, Prediction, measured};
use cofferdam_placement::trial::{DriverId, Fault as Strike};

/// The entries, in the order of the report.
pub(super) static ENTRIES: [Fault; 1] = [Fault {
    id: "R1",
    line: "a completion that names no request of the driver",
    by: "device (Tamper)",
    parameters: "index 64 (out of range), 7 (in range, not outstanding)",
    trigger: "the nth completion",
    oracle: "the driver",
    iommu: STRICT,
    fabrics: PCIE,
    crossing: STRICT_PCIE,
    except: &[Except {
        driver: Some(DriverId::Edu),
        fabric: None,
        iommu: None,
        case: None,
        unprivileged: false,
        reason: "edu has no completion ring: nothing names a request",
    }],
}];

/// Every case of an entry, in the order of the report.
pub(super) fn cases(id: &str) -> Vec<Case> {
    match id {
        "R1" => [64, 7]
            .map(|value| Case::of(Strike::R1 { nth: 0, value }))
            .to_vec(),
        _ => Vec::new(),
    }
}

/// The name of a case.
pub(super) fn name(case: &Case) -> Option<String> {
    Some(match case.fault {
        Strike::R1 { value, .. } => format!("R1.index-{value}"),
        _ => return None,
    })
}

/// The prediction of a cell.
pub(super) fn predict(cell: &Cell) -> Option<Prediction> {
    Some(match cell.case.fault {
        Strike::R1 { .. } => measured(Expect::Open, "depends on how the driver takes the lie"),
        _ => return None,
    })
}
