//! Model of an NVM Express 1.4 controller with one namespace.
//!
//! [`Nvme`] has an admin queue pair, up to [`MAX_QUEUES`] I/O queue pairs, MSI-X and INTx, and a
//! medium in memory of 512-byte blocks. It offers the mandatory admin commands, and of the NVM
//! command set Read, Write, Flush, Compare, Write Zeroes and Dataset Management. A command that
//! completed is durable. The medium survives every reset; a command that was not carried out by
//! then is dropped without a trace.
//!
//! Commands are served one after the other, round robin over the submission queues, an I/O command
//! after the latency the controller was built with. A command is fetched, carried out and completed
//! all at once, and only when its completion queue has room: a full one holds its commands back.
//!
//! Left out: MSI, controller memory buffers, subsystem reset, weighted arbitration, scatter gather
//! lists, metadata and protection, fused commands, namespace management, firmware, format,
//! security, power states, Keep Alive, saved features. Interrupts are not coalesced beyond one
//! message a vector and step, whatever the host recommends. Abort reaches Asynchronous Event
//! Requests only: every other command is either not fetched yet or done.
//!
//! It trusts nobody. Commands and PRP lists are read once, checked, and used from the copy; a
//! command that asks for what cannot be is completed with a status, and a queue that cannot be
//! reached ends in `CSTS.CFS` and silence until the host resets the controller.
//!
//! Files: `spec` is the wire format, `identity` the PCI function, `regs` the registers, `queue` the
//! queues, `prp` where a command's data lies, `admin` and `io` the commands, with `identify`,
//! `features`, `log_pages` and `events` behind the admin ones, `medium` the blocks, `controller` the
//! device that joins them.

#![forbid(unsafe_code)]

mod admin;
mod controller;
#[cfg(test)]
mod controller_tests;
mod decode;
mod events;
mod features;
mod identify;
mod identity;
mod io;
mod log_pages;
mod medium;
mod prp;
mod queue;
mod regs;
pub mod spec;

pub use controller::{Nvme, NvmeConfig};
pub use decode::Decoder;
pub use identity::{MAX_DOORBELL_STRIDE, MAX_QUEUES};
pub use medium::MAX_BLOCKS;
