//! Ablations: a few cells that differ from another one in how requests' data get to the device, and in
//! nothing else. Which of the two a cell is, its trials say (`data`, `packing`).

use super::{Except, Fault};
use crate::catalogue::placement;
use crate::cell::{Case, Cell};
use cofferdam_machine::config::{FabricKind, IommuMode};
use cofferdam_placement::guest;
use cofferdam_placement::placement::Placement;
use cofferdam_placement::trial::{By, DataPath, DriverId, Fault as Strike, Packing};

/// The cases that a fault has beside its own.
pub(super) fn cases(fault: &Fault) -> Vec<Case> {
    let beside = |write| {
        Case::of(Strike::D5 {
            write,
            offset: 0,
            nth: 0,
        })
    };
    let late = Case::of(Strike::D6 {
        by: By::Device,
        delay_us: 2_000,
        nth: 0,
    });
    match fault.id {
        "none" => vec![zero_copy(Case::CLEAN), one_a_page(Case::CLEAN)],
        "D5" => vec![
            zero_copy(beside(true)),
            one_a_page(beside(true)),
            one_a_page(beside(false)),
        ],
        "D6" => vec![zero_copy(late)],
        _ => Vec::new(),
    }
}

/// The same case with the tenants' pages lent.
pub(super) const fn zero_copy(case: Case) -> Case {
    Case {
        data: DataPath::ZeroCopy,
        ..case
    }
}

const fn one_a_page(case: Case) -> Case {
    Case {
        packing: Packing::OneAPage,
        ..case
    }
}

/// What the ways of data add to a case's name.
pub(super) fn suffix(case: &Case) -> String {
    let data = Some(case.data.name()).filter(|_| !case.data.is_usual());
    let packing = Some(case.packing.name()).filter(|_| !case.packing.is_usual());
    let names = data.into_iter().chain(packing);
    names.map(|name| format!(".{name}")).collect()
}

/// Whether a cell is part of the plan: ablations only where their pair shows something.
pub(crate) fn crossed(cell: &Cell) -> bool {
    if placement(cell.placement).needs_kvm() && !in_guest(cell) {
        return false;
    }
    match (cell.case.fault, cell.iommu) {
        _ if !cell.case.is_ablation() => true,
        // What lies on the page is mapped; in a slot there is nothing.
        (Strike::D5 { .. }, iommu) => matches!(iommu, IommuMode::Strict | IommuMode::Bounce),
        // Where the page stays reachable for a while.
        (Strike::D6 { .. }, iommu) => iommu == IommuMode::Lazy,
        // The longer delay is for the mode with a window.
        (Strike::D14 { delay_us, .. }, iommu) => {
            iommu == IommuMode::Lazy || delay_us <= SHORT_DELAY_US
        }
        _ => true,
    }
}

/// Whether a cell is one for a driver, or tenants, in guests: drivers that can be there; no ablations;
/// and since a guest meets the same IOMMU and the same fabric as a process, one mode that translates, one that does
/// not, and the usual fabric.
fn in_guest(cell: &Cell) -> bool {
    guest::in_payload(cell.driver).is_some()
        && !cell.case.is_ablation()
        && cell.fabric == FabricKind::Pcie
        && matches!(cell.iommu, IommuMode::Off | IommuMode::Strict)
        && !(cell.driver == DriverId::VirtioBlk && OF_INTERRUPTS.contains(&cell.case.fault.id()))
        && (!placement(cell.placement).has_tenant_in_guest() || in_tenant(cell))
}

/// Whether a cell is one for a tenant in a guest, with its driver or without: one driver, and the faults
/// by which that can differ from a guest of the driver's own. Where the driver is with it, to start again
/// after a death, to share a ring and to have a tenant with a request on another core are not for it.
fn in_tenant(cell: &Cell) -> bool {
    let placement = placement(cell.placement);
    // Without faults in the modes that those with one have.
    let clean = cell.is_clean() && (placement.copies || cell.iommu == IommuMode::Strict);
    let faults = of_tenants(placement);
    cell.driver == IN_TENANT && (clean || faults.contains(&cell.case.fault.id()))
}

/// What is tried where a tenant is in a guest. Where it is one program with its driver, that is in the same
/// guest as in the kernel of a tenant's machine: only what its own code does wrong is tried again.
pub(crate) fn of_tenants(placement: &Placement) -> &'static [&'static str] {
    if placement.copies {
        &OF_TENANTS
    } else {
        &OF_PROGRAMS
    }
}

/// The driver that is tried where a tenant is in a guest.
pub(crate) const IN_TENANT: DriverId = DriverId::Nvme;

const OF_TENANTS: [&str; 15] = [
    "D1", "D4", "M1", "B1", "B7", "B9", "B10", "I1", "I2", "C2", "C5", "R1", "X1", "X2", "X3",
];

const OF_PROGRAMS: [&str; 4] = ["M1", "X1", "X2", "X3"];

/// Faults of interrupts that a driver asked for. In a guest virtio-drivers polls: it asks for none.
pub(crate) const OF_INTERRUPTS: [&str; 5] = ["I1", "I2", "I3", "I5", "C4"];

/// Delays of D14, in microseconds: within the window of a lazy IOMMU, and beyond it.
pub(super) const SHORT_DELAY_US: u32 = 2_000;
pub(super) const LONG_DELAY_US: u32 = 20_000;

/// The corner in which there is no such way, if that cell is in one.
pub(super) fn except(cell: &Cell) -> Option<&'static Except> {
    let of_driver = |corners: &'static [Except]| {
        corners.iter().find(|corner| match corner.driver {
            Some(driver) => driver == cell.driver,
            None => matches!(cell.driver, DriverId::Own(_)),
        })
    };
    let zero_copy = cell.case.data == DataPath::ZeroCopy;
    if zero_copy && !placement(cell.placement).lends_pages() {
        return Some(&CARRIED);
    }
    match (zero_copy, cell.case.packing) {
        (true, _) => of_driver(&NOT_LENT),
        (false, Packing::OneAPage) => of_driver(&NOT_PACKED),
        (false, Packing::Packed) => None,
    }
}

const ANYWHERE: Except = Except {
    driver: None,
    fabric: None,
    iommu: None,
    case: None,
    unprivileged: false,
    privileged: false,
    reason: "",
};

static CARRIED: Except = Except {
    reason: "somebody stands between the tenant and the driver and copies: no page is lent",
    ..ANYWHERE
};

/// Drivers whose buffers no page of a tenant can back; the last is a user's.
static NOT_LENT: [Except; 2] = [
    Except {
        driver: Some(DriverId::NvmeCrate),
        reason: "its buffers are coherent memory that it gets from its host: no page of a tenant can \
                 be one",
        ..ANYWHERE
    },
    Except {
        reason: "what a user's driver maps for a request is not known",
        ..ANYWHERE
    },
];

/// Drivers whose buffers are alone on their pages; the last is a user's.
static NOT_PACKED: [Except; 4] = [
    alone(DriverId::Edu),
    alone(DriverId::Nvme),
    alone(DriverId::NvmeCrate),
    Except {
        reason: "whether a user's driver packs its buffers is not known",
        ..ANYWHERE
    },
];

const fn alone(driver: DriverId) -> Except {
    Except {
        driver: Some(driver),
        reason: "its buffers are one a page as they are: nothing is packed",
        ..ANYWHERE
    }
}
