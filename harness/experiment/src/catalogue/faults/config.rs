//! A function whose own configuration goes wrong (C).

use super::{Except, Fault, PCIE, STRICT, STRICT_PCIE};
use crate::cell::{Case, Cell, by_name};
use crate::predict::{Expect, Prediction, by_construction, measured};
use cofferdam_machine::config::IommuMode;
use cofferdam_machine::frames::Owner;
use cofferdam_placement::trial::{By, DriverId, Fault as Strike};

/// A driver the fault does not reach.
const fn not_for(driver: DriverId, reason: &'static str) -> Except {
    Except {
        driver: Some(driver),
        fabric: None,
        iommu: None,
        case: None,
        unprivileged: false,
        privileged: false,
        reason,
    }
}

const NO_WALK: &str = "the driver reads no capability, so no list can mislead it";

/// The entries, in the order of the report.
pub(super) static ENTRIES: [Fault; 3] = [
    Fault {
        id: "C2",
        line: "the bus-master enable bit goes off",
        by: "device (Tamper) or driver (Sabotage)",
        parameters: "by device for 10 ms or until the next reset, by driver until the next reset",
        trigger: "after the nth payload write (device), before the nth request (driver)",
        oracle: "the driver's deadline",
        iommu: STRICT,
        fabrics: PCIE,
        crossing: STRICT_PCIE,
        except: &[],
    },
    Fault {
        id: "C3",
        line: "the capability list runs in a circle when the driver starts",
        by: "device (Tamper)",
        parameters: "1, 3 or 6 capabilities in the circle",
        trigger: "the driver reads the pointer that closes it",
        oracle: "the driver",
        iommu: STRICT,
        fabrics: PCIE,
        crossing: STRICT_PCIE,
        except: &[
            not_for(DriverId::Edu, NO_WALK),
            not_for(DriverId::Nvme, NO_WALK),
            not_for(DriverId::NvmeCrate, NO_WALK),
        ],
    },
    Fault {
        id: "C4",
        line: "the MSI-X table is corrupted: one double word of every entry",
        by: "device (Tamper) or driver (Sabotage)",
        parameters: "by device: address in a tenant's frame, beyond memory, data, mask; by driver: data",
        trigger: "after the nth payload write (device), before the nth request (driver)",
        oracle: "IOMMU fault log, the driver's deadline",
        iommu: &[IommuMode::Off, IommuMode::Strict],
        fabrics: PCIE,
        crossing: "a message that became a memory write is translated or it is not: off and strict \
                   stand for passthrough and lazy; no request stays open",
        except: &[not_for(
            DriverId::Edu,
            "edu sends MSI: it has no table, its message is in configuration space",
        )],
    },
];

/// Every case of an entry, in the order of the report.
pub(super) fn cases(id: &str) -> Vec<Case> {
    match id {
        "C2" => [(By::Device, 10), (By::Device, 0), (By::Driver, 0)]
            .map(|(by, ms)| Case::of(Strike::C2 { by, ms, nth: 0 }))
            .to_vec(),
        "C3" => [1, 3, 6]
            .map(|length| Case::of(Strike::C3 { length }))
            .to_vec(),
        "C4" => [
            (By::Device, 0),
            (By::Device, 1),
            (By::Device, 2),
            (By::Device, 3),
            (By::Driver, 2),
        ]
        .map(|(by, field)| Case::of(Strike::C4 { by, field, nth: 0 }))
        .to_vec(),
        _ => Vec::new(),
    }
}

/// The name of a case.
pub(super) fn name(case: &Case) -> Option<String> {
    Some(match case.fault {
        Strike::C2 { by, ms: 0, .. } => format!("C2.{}", by_name(by)),
        Strike::C2 { by, ms, .. } => format!("C2.{}.{ms}ms", by_name(by)),
        Strike::C3 { length } => format!("C3.{length}"),
        Strike::C4 { by, field, .. } => {
            let field = ["address", "upper", "data", "mask"]
                .get(usize::from(field))
                .unwrap_or(&"none");
            format!("C4.{}.{field}", by_name(by))
        }
        _ => return None,
    })
}

/// The prediction of a cell.
pub(super) fn predict(cell: &Cell) -> Option<Prediction> {
    Some(match cell.case.fault {
        Strike::C2 { .. } => measured(
            Expect::OthersLive,
            "a device that cannot reach memory serves nothing and harms nobody: the deadline ends it",
        ),
        Strike::C3 { .. } => measured(
            Expect::OthersLive,
            "a driver that walks in circles ends by its own bound, or is killed as spun",
        ),
        Strike::C4 { field: 0, .. } if cell.iommu.translates() => by_construction(
            Expect::Refused(Some(Owner::Tenant1)),
            "a message to a memory address is a memory write, and nothing is mapped there",
        ),
        Strike::C4 { field: 0, .. } => by_construction(
            Expect::Lands(Owner::Tenant1),
            "a message to a memory address is a memory write",
        ),
        Strike::C4 { .. } => measured(
            Expect::OthersLive,
            "the interrupts are lost, and the driver has its deadline",
        ),
        _ => return None,
    })
}
