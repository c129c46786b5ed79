//! The PCI layer shared by every device model.
//!
//! [`PciFunction`] puts a type 0 configuration space around a [`Device`](cofferdam_seam::Device):
//! BARs that can be sized, the capability list of its identity, MSI, MSI-X with its table and
//! pending bits, INTx with disable and status, bus-master enable, and function-level reset through
//! the PCI Express capability. A model describes itself with data and never repeats this code.
//!
//! Left out: I/O BARs, expansion ROMs, power management, extended capabilities, the error bits of
//! the status registers, and the time a reset takes (a function-level reset is done when the write
//! that starts it returns; the fabric may model the wait).
//!
//! It trusts the model's [`PciIdentity`](cofferdam_seam::PciIdentity), which is constant data of
//! this project, and nothing else: no access by a driver and no behaviour of a device model makes
//! it panic, loop without end or allocate.

#![forbid(unsafe_code)]

mod config_space;
mod function;
#[cfg(test)]
mod function_tests;
mod msi;
mod msix;
pub mod spec;
#[cfg(any(test, feature = "testbed"))]
pub mod testbed;

pub use function::PciFunction;
