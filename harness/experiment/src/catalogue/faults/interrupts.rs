//! Interrupts that storm, vanish or are forged (I).

use super::{ALL_MODES_PCIE, Except, Fault, PCIE};
use crate::cell::{Case, Cell};
use crate::predict::{Expect, Prediction, by_construction};
use cofferdam_machine::config::IommuMode;
use cofferdam_placement::trial::Fault as Strike;

/// The entries, in the order of the report.
pub(super) static ENTRIES: [Fault; 1] = [Fault {
    id: "I4",
    line: "a forged interrupt message, with the vector of another device",
    by: "device (Tamper)",
    parameters: "interrupt remapping off, on",
    trigger: "after the nth payload write",
    oracle: "IOMMU fault log",
    iommu: &IommuMode::ALL,
    fabrics: PCIE,
    crossing: ALL_MODES_PCIE,
    except: &[Except {
        driver: None,
        fabric: None,
        iommu: Some(IommuMode::Off),
        case: Some("I4.remapped"),
        unprivileged: false,
        privileged: false,
        reason: "interrupt remapping is the IOMMU's: without one there is none",
    }],
}];

/// Every case of an entry, in the order of the report.
pub(super) fn cases(id: &str) -> Vec<Case> {
    match id {
        "I4" => {
            let unremapped = Case::of(Strike::I4 { nth: 0 });
            let remapped = Case {
                intremap: true,
                ..unremapped
            };
            vec![unremapped, remapped]
        }
        _ => Vec::new(),
    }
}

/// The name of a case.
pub(super) fn name(case: &Case) -> Option<String> {
    Some(match case.fault {
        Strike::I4 { .. } if case.intremap => "I4.remapped".into(),
        Strike::I4 { .. } => "I4.unremapped".into(),
        _ => return None,
    })
}

/// The prediction of a cell.
pub(super) fn predict(cell: &Cell) -> Option<Prediction> {
    Some(match cell.case.fault {
        Strike::I4 { .. } if cell.case.intremap => by_construction(
            Expect::Forges(false),
            "remapping lets a function raise its own interrupts only",
        ),
        Strike::I4 { .. } => by_construction(
            Expect::Forges(true),
            "without remapping a message names any vector, whatever the IOMMU mode",
        ),
        _ => return None,
    })
}
