//! A real device, through Linux VFIO.
//!
//! [`VfioDevice`] is a device that VFIO gave to this process: its registers, its interrupts, and an
//! IOMMU domain with nothing in it but what drivers map. [`VfioHost`] is a driver's way to it.
//! [`Faulty`] makes a correct driver's mappings wrong once, and [`run`] puts a driver to work with
//! or without such a fault and says what the IOMMU made of it. [`platform`] knows what the machine
//! has, what holds a device, and how to take it and give it back.
//!
//! Every mapping gets pages of its own in the device's address space, as the kernel's own DMA
//! mappings do, with an unmapped page behind them; what shares a page with mapped bytes is
//! reachable. Addresses are not reused before the window has been walked once.
//!
//! A device is opened by its own node (`/dev/vfio/devices`), in an address space of iommufd's, where
//! the kernel has both; else by its group, in a container. [`Options::via`] can ask for either.
//!
//! Left out: devices without an IOMMU; several devices in one address space.
//!
//! It trusts the kernel. A register access that the kernel refuses reads as all ones, and the next
//! call of the host tells the driver.

mod addresses;
mod device;
mod door;
mod fault;
mod host;
mod kernel;
mod linux;
mod mapped;
pub mod platform;
mod trial;

pub use device::{Failure, OpenError, Options, VfioDevice};
pub use door::{Cdev, Door, NoCdev, Via};
pub use fault::{Fault, Faulty, Strike, Struck};
pub use host::{VfioDma, VfioHost, VfioMmio};
pub use kernel::{Area, Kernel, Region};
pub use linux::CdevError;
pub use mapped::Mapped;
pub use trial::{Outcome, Report, Wall, Workload, run};

#[cfg(test)]
mod tests;
