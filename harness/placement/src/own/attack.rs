//! Faults of users, as far as a trial runs them: a layer around the honest device.

use super::{Known, Own, OwnError, Table, is_id};
use cofferdam_seam::Device;
use std::sync::Arc;
use vdevice_tamper::Tally;

/// When a fault strikes in one trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strike {
    /// The case, one of its fault's.
    pub case: &'static str,
    /// The trial's seed, for whatever else has to be drawn.
    pub seed: u64,
    /// The access at which it strikes, from 1, counted once the tally is armed.
    pub nth: u32,
}

/// Wraps an honest device in one that misbehaves. It must be honest until the tally is armed, and
/// must tell the tally of each misdeed: a trial whose tally stays at nothing counts as one in which
/// the fault did not strike.
pub type Deed = fn(Box<dyn Device>, Strike, Arc<Tally>) -> Box<dyn Device>;

/// A case of a fault.
pub struct Attack {
    key: String,
    /// The fault's id.
    pub fault: &'static str,
    /// The case's name.
    pub case: &'static str,
    /// What it does.
    pub deed: Deed,
}

static TABLE: Table<Attack> = Table::new();

impl Known for Attack {
    const NOUN: &'static str = "fault";
    const REMEDY: &'static str = "use the program that has it";
    const IS_DATA: bool = false;

    fn key(&self) -> &str {
        &self.key
    }

    fn id(&self) -> &str {
        &self.key
    }

    fn has_id(&self) -> bool {
        is_id(self.fault) && is_id(self.case)
    }

    fn table() -> &'static Table<Self> {
        &TABLE
    }
}

impl Attack {
    /// Makes a case known. Its program must do so before it becomes a zygote or runs anything.
    pub fn register(
        fault: &'static str,
        case: &'static str,
        deed: Deed,
    ) -> Result<Own<Self>, OwnError> {
        let key = format!("{fault}.{case}");
        let attack = Self {
            key,
            fault,
            case,
            deed,
        };
        TABLE.add(attack, |_| false)
    }
}

impl Own<Attack> {
    /// Its name: `my-fault.its-case`.
    pub fn name(self) -> &'static str {
        &self.get().key
    }

    /// The fault's id.
    pub const fn fault(self) -> &'static str {
        self.get().fault
    }
}
