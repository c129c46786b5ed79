//! Drivers of users, with the device each drives.

use super::{Known, Own, OwnError, Table};
use crate::host::PortHost;
use crate::sabotage::SabotagedHost;
use crate::trial::DriverId;
use cofferdam_seam::service::{Block, Compute, DriverError};
use cofferdam_seam::{Capability, Device};

/// What a driver under test may ask of the world, as a
/// [`DriverHost`](cofferdam_seam::DriverHost): calls to the hardware across the wall of its domain,
/// which the mistakes of a fault may spoil.
pub type Host = SabotagedHost<PortHost>;

/// Sectors that the two tenants use together: a block device needs as many.
pub const SECTORS: u64 = 2 * crate::tenant::SECTORS;

/// Starts a driver of one class. It is called for every incarnation, with a host whose DMA memory is
/// free again.
#[derive(Clone, Copy)]
pub enum Probe {
    /// A driver of a block device.
    Block(fn(Host) -> Result<Box<dyn Block>, DriverError>),
    /// A driver of a device that computes.
    Compute(fn(Host) -> Result<Box<dyn Compute>, DriverError>),
}

/// How a device can interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Interrupting {
    /// It cannot.
    Never,
    /// By MSI or its pin.
    Untabled,
    /// By MSI-X.
    Tabled,
}

/// A driver.
pub struct Driver {
    /// The name on the command line and in records, in kebab-case.
    pub id: &'static str,
    /// What it is.
    pub line: &'static str,
    /// The name of its device.
    pub device: &'static str,
    /// Whose it is.
    pub origin: &'static str,
    /// Makes its device, honest, for a trial of that seed: a block device has [`SECTORS`] at least.
    pub model: fn(u64) -> Box<dyn Device>,
    /// Starts it.
    pub probe: Probe,
}

static TABLE: Table<Driver> = Table::new();

impl Known for Driver {
    const NOUN: &'static str = "driver";
    const REMEDY: &'static str = "use the program that has it";
    const IS_DATA: bool = false;

    fn key(&self) -> &str {
        self.id
    }

    fn id(&self) -> &str {
        self.id
    }

    fn table() -> &'static Table<Self> {
        &TABLE
    }
}

impl Driver {
    /// Makes it known. Its program must do so before it becomes a zygote or runs anything.
    pub fn register(self) -> Result<Own<Self>, OwnError> {
        TABLE.add(self, |id| DriverId::ALL.iter().any(|ours| ours.key() == id))
    }

    /// Whether its device can interrupt, by a table of messages (MSI-X) or at all.
    pub fn interrupts(&self) -> Interrupting {
        let device = (self.model)(0);
        let identity = device.describe();
        let mut found = Interrupting::Never;
        if identity.intx {
            found = Interrupting::Untabled;
        }
        for capability in identity.capabilities {
            found = found.max(match capability {
                Capability::Msix { .. } => Interrupting::Tabled,
                Capability::Msi { .. } => Interrupting::Untabled,
                Capability::PcieEndpoint { .. } | Capability::Vendor(_) => Interrupting::Never,
            });
        }
        found
    }

    /// Whether it drives a block device; else one that computes.
    pub const fn is_block(&self) -> bool {
        matches!(self.probe, Probe::Block(_))
    }
}
