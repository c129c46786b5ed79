//! The drivers that are fuzzed in a guest. Generic drivers are compiled where they are used, so this crate
//! is instrumented with them; what it calls is not.

#![no_std]

extern crate alloc;

mod virtio;

pub use driver_planted::{Bug, Build, Call, Serve};
pub use virtio::{Disk, Operation, Refusal, mmio_disk, pci_disk};

use alloc::boxed::Box;
use cofferdam_microvm_runtime::host::GuestHost;
use cofferdam_seam::service::{Block, Compute, DriverError};

/// Our driver of edu.
///
/// # Errors
///
/// It does not take the device.
pub fn edu() -> Result<Box<dyn Compute>, DriverError> {
    Ok(Box::new(driver_edu::Edu::probe(GuestHost)?))
}

/// Our driver of NVM Express.
///
/// # Errors
///
/// It does not take the device.
pub fn nvme() -> Result<Box<dyn Block>, DriverError> {
    Ok(Box::new(driver_nvme::Nvme::probe(GuestHost)?))
}

/// A driver with a planted bug, or without it.
///
/// # Errors
///
/// It does not take the device, or there is no such bug.
pub fn planted(bug: u64, fixed: bool) -> Result<Box<dyn Serve>, DriverError> {
    let bug = usize::try_from(bug).ok().and_then(|bug| Bug::ALL.get(bug));
    let bug = bug.ok_or(DriverError::BadRequest("no such bug"))?;
    let build = if fixed { Build::Fixed } else { Build::Planted };
    bug.probe(build, GuestHost)
}
