//! Faults of users: entries of the catalogue that a program brings along.

use super::{Except, FAMILIES, Fault, NONE};
use crate::cell::{Case, Cell};
use crate::predict::{Expect, Prediction, measured};
use cofferdam_placement::own::{Attack, Deed, Interrupting, Known, OwnError, Table};
use cofferdam_placement::trial::{DriverId, Fault as Strike};

/// A fault of a user's.
pub struct OwnFault {
    /// What the catalogue says of it; its id is in kebab-case.
    pub entry: Fault,
    /// The names of its cases, in kebab-case; one at least.
    pub cases: &'static [&'static str],
    /// What it does to the device.
    pub deed: Deed,
    /// What is certain about a cell with it.
    pub predict: fn(&Cell) -> Prediction,
}

static TABLE: Table<OwnFault> = Table::new();

impl Known for OwnFault {
    const NOUN: &'static str = "fault";
    const REMEDY: &'static str = "use the program that has it";
    const IS_DATA: bool = false;

    fn key(&self) -> &str {
        self.entry.id
    }

    fn id(&self) -> &str {
        self.entry.id
    }

    fn table() -> &'static Table<Self> {
        &TABLE
    }
}

impl OwnFault {
    /// Makes it known. Its program must do so before it becomes a zygote or runs anything.
    pub fn register(self) -> Result<(), OwnError> {
        let (id, cases, deed) = (self.entry.id, self.cases, self.deed);
        if cases.is_empty() {
            let (noun, id) = ("case", String::new());
            return Err(OwnError::BadId { noun, id });
        }
        TABLE.add(self, |id| {
            let ours = FAMILIES.iter().flat_map(|family| family.entries);
            let mut ours = ours.chain([&NONE]);
            ours.any(|entry| entry.id.eq_ignore_ascii_case(id))
        })?;
        for case in cases {
            Attack::register(id, case, deed)?;
        }
        Ok(())
    }
}

/// All of them; from now on no other can be added.
pub(super) fn entries() -> impl Iterator<Item = &'static Fault> {
    TABLE.list().into_iter().map(|own| &own.get().entry)
}

/// Every case of an entry, in its order.
pub(super) fn cases(id: &str) -> Vec<Case> {
    let Some(fault) = TABLE.find(id) else {
        return Vec::new();
    };
    let names = fault.get().cases.iter();
    names
        .filter_map(|case| Attack::table().find(&format!("{id}.{case}")))
        .map(|case| Case::of(Strike::Own { case, nth: 0 }))
        .collect()
}

/// The name of a case.
pub(super) fn name(case: &Case) -> Option<String> {
    match case.fault {
        Strike::Own { case, .. } => Some(case.name().to_owned()),
        _ => None,
    }
}

/// The prediction of a cell.
pub(super) fn predict(cell: &Cell) -> Option<Prediction> {
    let Strike::Own { case, .. } = cell.case.fault else {
        return None;
    };
    TABLE
        .find(case.fault())
        .map(|fault| (fault.get().predict)(cell))
}

/// Faults of ours that aim by what a device's rings look like.
const BY_RINGS: [&str; 5] = ["R1", "R2", "R4", "R5", "R6"];

/// Faults of ours that need a device's own interrupts.
const BY_INTERRUPTS: [&str; 4] = ["I1", "I2", "I3", "I5"];
/// The fault of ours that needs a table of messages.
const BY_TABLE: &str = "C4";

const fn because(reason: &'static str) -> Except {
    Except {
        driver: None,
        fabric: None,
        iommu: None,
        case: None,
        unprivileged: false,
        privileged: false,
        reason,
    }
}

static RINGS_UNKNOWN: Except =
    because("it aims by the layout of rings, which is not known of a driver of one's own");
static NO_INTERRUPTS: Except = because("the device cannot interrupt");
static NO_TABLE: Except = because("the device has no MSI-X table");

/// Where one of our faults does not exist for a user's driver.
pub(super) fn except(fault: &Fault, driver: DriverId) -> Option<&'static Except> {
    let DriverId::Own(own) = driver else {
        return None;
    };
    let interrupts = || own.get().interrupts();
    if BY_RINGS.contains(&fault.id) {
        Some(&RINGS_UNKNOWN)
    } else if BY_INTERRUPTS.contains(&fault.id) && interrupts() == Interrupting::Never {
        Some(&NO_INTERRUPTS)
    } else if fault.id == BY_TABLE && interrupts() != Interrupting::Tabled {
        Some(&NO_TABLE)
    } else {
        None
    }
}

/// What is less certain with a user's driver than with ours, which all use their interrupts.
pub(super) fn uncertain(cell: &Cell) -> Option<Prediction> {
    let own = matches!(cell.driver, DriverId::Own(_));
    let open = own && matches!(cell.case.fault, Strike::I1 { .. } | Strike::C4 { .. });
    open.then_some(measured(
        Expect::Open,
        "depends on whether the driver uses the device's interrupts",
    ))
}
