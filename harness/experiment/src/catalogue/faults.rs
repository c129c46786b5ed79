//! Faults: what strikes, who commits it, where it applies and who should notice.

mod ablations;
mod bus;
mod config;
mod dma;
mod driver;
mod interrupts;
mod own;
mod reach;
mod rings;

pub(crate) use ablations::{IN_TENANT, OF_INTERRUPTS, crossed, of_tenants};
pub(crate) use bus::storm;
pub use own::OwnFault;

use crate::catalogue::placement;
use crate::cell::{Case, Cell};
use crate::predict::Prediction;
use cofferdam_machine::config::{FabricKind, IommuMode};
use cofferdam_placement::trial::DriverId;
use serde::Serialize;
use std::sync::LazyLock;

/// An entry of the fault catalogue.
#[derive(Debug, Serialize)]
pub struct Fault {
    /// The name used on the command line and in records.
    pub id: &'static str,
    /// What happens.
    pub line: &'static str,
    /// Which layer commits it.
    pub by: &'static str,
    /// What is varied.
    pub parameters: &'static str,
    /// When it strikes; `n` is drawn from the trial's seed.
    pub trigger: &'static str,
    /// Who is expected to notice.
    pub oracle: &'static str,
    /// The IOMMU modes it is crossed with.
    pub iommu: &'static [IommuMode],
    /// The fabrics it is crossed with.
    pub fabrics: &'static [FabricKind],
    /// Why the other modes and fabrics are not crossed.
    pub crossing: &'static str,
    /// Where it does not exist at all.
    pub except: &'static [Except],
}

impl Fault {
    /// Why trials of it may share a boot, if any of its cases may: their hardware and domains are as
    /// they were before.
    pub fn stateless(&self) -> Option<&'static str> {
        cases(self).iter().find_map(|case| case.fault.stateless())
    }
}

/// A corner of the catalogue where a fault does not exist. A field that is `None` matches all.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Except {
    /// The driver.
    pub driver: Option<DriverId>,
    /// The fabric.
    pub fabric: Option<FabricKind>,
    /// The IOMMU mode.
    pub iommu: Option<IommuMode>,
    /// The case, by name.
    pub case: Option<&'static str>,
    /// Only where a crash of the driver does not reach the privileged layer.
    pub unprivileged: bool,
    /// Only where the driver is in the privileged layer.
    pub privileged: bool,
    /// Why.
    pub reason: &'static str,
}

/// Whether a fault exists for a driver on a fabric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "applies", content = "reason", rename_all = "kebab-case")]
pub enum Applicability {
    /// It is part of the plan.
    Yes,
    /// It exists, but the fabric cannot change what it does.
    NotCrossed(&'static str),
    /// It does not exist there.
    NotApplicable(&'static str),
}

const STRICT: &[IommuMode] = &[IommuMode::Strict];
const PCIE: &[FabricKind] = &[FabricKind::Pcie];
/// Where a request that is not completed ends: by itself, and with a port that is contained.
const TIMEOUTS: &[FabricKind] = &[FabricKind::Pcie, FabricKind::PcieDpc];
/// The same, and a bus without links, where the fault does not exist.
const LINKS: &[FabricKind] = &[FabricKind::Pci, FabricKind::Pcie, FabricKind::PcieDpc];
const STRICT_FABRICS: &str = "no DMA goes astray, so the IOMMU mode cannot matter: crossed with strict \
                              only; without a timeout nothing differs from pcie";
const STRICT_PCIE: &str = "no DMA goes astray and no request stays open, so neither IOMMU mode nor \
                           timeout can matter: crossed with strict on pcie only";
const ALL_MODES_PCIE: &str =
    "no request stays open, so the timeout cannot matter: crossed with pcie only";

/// The clean trial.
static NONE: Fault = Fault {
    id: "none",
    line: "no fault: the clean trial every other is paired with",
    by: "nobody",
    parameters: "none",
    trigger: "never",
    oracle: "nobody: an error, a timeout or a stray DMA fails the run",
    iommu: &IommuMode::ALL,
    fabrics: &FabricKind::ALL,
    crossing: "on other fabrics than pcie only with the modes whose faults need their pair",
    except: &[],
};

/// What the catalogue knows of faults of one kind. One file a kind: nothing else knows a fault by
/// name.
struct Family {
    entries: &'static [Fault],
    cases: fn(&str) -> Vec<Case>,
    name: fn(&Case) -> Option<String>,
    predict: fn(&Cell) -> Option<Prediction>,
}

macro_rules! family {
    ($module:ident) => {
        Family {
            entries: &$module::ENTRIES,
            cases: $module::cases,
            name: $module::name,
            predict: $module::predict,
        }
    };
}

/// The families, in the order of the report.
static FAMILIES: [Family; 7] = [
    family!(dma),
    family!(interrupts),
    family!(config),
    family!(driver),
    family!(bus),
    family!(reach),
    family!(rings),
];

/// Every fault, clean trials first, those of users last.
pub static FAULTS: LazyLock<Vec<&'static Fault>> = LazyLock::new(|| {
    let families = FAMILIES.iter().flat_map(|family| family.entries);
    std::iter::once(&NONE)
        .chain(families)
        .chain(own::entries())
        .collect()
});

/// The entry of that name.
pub fn fault_named(id: &str) -> Option<&'static Fault> {
    FAULTS
        .iter()
        .copied()
        .find(|entry| entry.id.eq_ignore_ascii_case(id))
}

/// The values a fault's parameters take in a plan: every case of it, in the order of the report.
pub fn cases(fault: &Fault) -> Vec<Case> {
    if fault.id == NONE.id {
        let clean = std::iter::once(Case::CLEAN);
        return clean.chain(ablations::cases(fault)).collect();
    }
    FAMILIES
        .iter()
        .flat_map(|family| (family.cases)(fault.id))
        .chain(ablations::cases(fault))
        .chain(own::cases(fault.id))
        .collect()
}

/// The name of a case: the fault's id and the parameters that make it this case,
/// `D1.device.tenant1`, and how its data go, if not as usual.
pub(crate) fn case_name(case: &Case) -> String {
    let ours = FAMILIES.iter().find_map(|family| (family.name)(case));
    let named = ours.or_else(|| own::name(case));
    named.unwrap_or_else(|| case.fault.id().to_owned()) + &ablations::suffix(case)
}

/// What is certain about a cell with a fault.
pub(crate) fn prediction(cell: &Cell) -> Option<Prediction> {
    let mut families = FAMILIES.iter();
    own::uncertain(cell)
        .or_else(|| families.find_map(|family| (family.predict)(cell)))
        .or_else(|| own::predict(cell))
}

/// A fabric on which a fault does not exist.
const fn not_on(fabric: FabricKind, reason: &'static str) -> Except {
    Except {
        driver: None,
        fabric: Some(fabric),
        iommu: None,
        case: None,
        unprivileged: false,
        privileged: false,
        reason,
    }
}

/// A case that does not exist on a fabric.
const fn not_so_on(fabric: FabricKind, case: &'static str, reason: &'static str) -> Except {
    Except {
        case: Some(case),
        ..not_on(fabric, reason)
    }
}

impl Except {
    /// Whether that cell is in the corner.
    pub(crate) fn covers(&self, cell: &Cell) -> bool {
        self.driver.is_none_or(|driver| driver == cell.driver)
            && self.fabric.is_none_or(|fabric| fabric == cell.fabric)
            && self.iommu.is_none_or(|iommu| iommu == cell.iommu)
            && self.case.is_none_or(|case| case == cell.case.name())
            && !(self.unprivileged && placement(cell.placement).panic_ends_layer())
            && (!self.privileged || placement(cell.placement).panic_ends_layer())
    }
}

/// Why the fault of a cell does not exist there, if it does not.
pub fn why_not(cell: &Cell) -> Option<&'static str> {
    let fault = fault_named(cell.case.fault.id())?;
    corner(fault, cell).map(|except| except.reason)
}

/// The corner in which a fault does not exist, if that cell is in one.
pub(crate) fn corner(fault: &'static Fault, cell: &Cell) -> Option<&'static Except> {
    let mut excepts = fault.except.iter().chain(own::except(fault, cell.driver));
    let found = excepts.find(|except| except.covers(cell));
    found.or_else(|| ablations::except(cell))
}

/// Whether a fault exists for a driver on a fabric, for at least one of its cases.
pub fn applicability(fault: &Fault, driver: DriverId, fabric: FabricKind) -> Applicability {
    let mut excepts = fault.except.iter().chain(own::except(fault, driver));
    let excluded = excepts.find(|except| {
        except.case.is_none()
            && except.iommu.is_none()
            && except.driver.is_none_or(|of| of == driver)
            && except.fabric.is_none_or(|of| of == fabric)
    });
    match excluded {
        Some(except) => Applicability::NotApplicable(except.reason),
        None if fault.fabrics.contains(&fabric) => Applicability::Yes,
        None => Applicability::NotCrossed(fault.crossing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completion_index_is_not_applicable_to_edu() {
        let fault = fault_named("r1").expect("R1 is in the catalogue");
        for fabric in FabricKind::ALL {
            let answer = applicability(fault, DriverId::Edu, fabric);
            assert!(matches!(answer, Applicability::NotApplicable(_)));
        }
        let answer = applicability(fault, DriverId::VirtioBlk, FabricKind::Pcie);
        assert_eq!(answer, Applicability::Yes);
    }

    #[test]
    fn every_combination_has_an_answer_and_every_refusal_a_reason() {
        for fault in FAULTS.iter() {
            for driver in DriverId::ALL {
                for fabric in FabricKind::ALL {
                    match applicability(fault, driver, fabric) {
                        Applicability::Yes => {}
                        Applicability::NotCrossed(reason)
                        | Applicability::NotApplicable(reason) => assert!(!reason.is_empty()),
                    }
                }
            }
        }
    }

    #[test]
    fn catalogue_says_which_faults_leave_nothing_behind() {
        for id in ["none", "D1", "D5", "D8", "D9", "D10", "D11", "D13", "I4"] {
            let fault = fault_named(id).expect("it is in the catalogue");
            assert!(fault.stateless().is_some_and(|why| !why.is_empty()), "{id}");
        }
        for id in ["D4", "D6", "D12", "D14", "B1", "C3", "M1", "X1"] {
            let fault = fault_named(id).expect("it is in the catalogue");
            assert_eq!(fault.stateless(), None, "{id}");
        }
    }

    #[test]
    fn every_case_belongs_to_its_fault_and_has_a_name_of_its_own() {
        let mut names = std::collections::BTreeSet::new();
        for fault in FAULTS.iter() {
            assert!(!cases(fault).is_empty(), "{}", fault.id);
            for case in cases(fault) {
                assert_eq!(case.fault.id(), fault.id);
                assert_eq!(case.fault.open(), case.fault, "a case leaves the draw open");
                assert!(names.insert(case.name()), "{} names two cases", case.name());
            }
        }
    }
}
