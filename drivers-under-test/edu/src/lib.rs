//! Our driver of QEMU's edu device, written to be copied: every habit a driver needs, and nothing
//! else.
//!
//! It drives one factorial or one DMA at a time, by interrupt (MSI or INTx, whichever the host
//! gives), and maps its buffers only while a transfer runs. It needs neither PCI Express nor MSI-X.
//!
//! Left out: the 28-bit DMA mask of QEMU's default configuration (hosts here may hand out any
//! address), and transfers larger than the device's buffer.
//!
//! It trusts its host and nothing the device says. Each wait has a deadline, each value is checked
//! as far as it can be, and after a timeout or a broken protocol the instance answers no more: the
//! device may still own the buffer, so that stays mapped until drop has taken the bus away from
//! the device. What cannot be checked is whether a DMA moved its bytes: edu has no DMA status.

#![no_std]
#![forbid(unsafe_code)]

mod driver;
mod spec;

pub use driver::Edu;
