//! Model of edu, QEMU's teaching device.
//!
//! [`Edu`] computes factorials and copies bytes between memory and a buffer of its own by DMA; it
//! raises MSI or INTx when it is done. It follows QEMU's specification (docs/specs/edu.rst), with
//! three differences: it is a PCI Express endpoint with function-level reset, its DMA reaches all
//! 64 address bits, and work takes the device time it is told to take instead of 100 ms and a
//! thread.
//!
//! Left out: QEMU's `dma_mask` property, and any report of a DMA that failed: edu has none, so the
//! transfer ends as if it had succeeded and only the bytes tell.
//!
//! It trusts nobody: counts and addresses are checked when a transfer starts to move, and the
//! factorial of any number takes a bounded number of multiplications.

#![forbid(unsafe_code)]

mod controller;
#[cfg(test)]
mod controller_tests;
mod decode;
pub mod spec;

pub use controller::{Edu, EduTiming};
pub use decode::Decoder;
