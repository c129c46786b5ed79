//! Our driver of NVM Express 1.4 controllers over PCI.
//!
//! It drives namespace 1 of one controller through one pair of I/O queues, by interrupt (MSI-X, MSI
//! or INTx, whichever the host gives). [`Block`](cofferdam_seam::service::Block) serves one request
//! at a time; [`Nvme::submit_read`], [`Nvme::submit_write`], [`Nvme::poll`] and [`Nvme::complete`]
//! keep several in flight. Data are copied through a bounce buffer of each command's own, which is
//! mapped only while the command runs, and only as far as it goes. Writes carry FUA, so a completed
//! one is durable.
//!
//! Left out: namespaces other than 1, formats other than 512 bytes without metadata, SGLs, fused
//! commands, controller memory buffers, asynchronous events, deleting the queues before a shutdown
//! (the reset behind it does), and Abort: a command that is late ends with its driver.
//!
//! It trusts its host and nothing the device says. Each wait has a deadline: `CAP.TO` for the
//! controller to become ready or to come to rest, a second for all of the set-up, the caller's for a
//! request. A completion counts only if it names a command in flight, by a command identifier that
//! is not used again for 4096 rounds; whatever else is in the queue breaks the protocol. After a
//! timeout or a broken protocol the instance answers no more: drop it, which resets the controller
//! and takes the bus away from it, and probe again, which resets it once more and starts over. What
//! the device may still own stays mapped until then. What cannot be checked is whether a command
//! that was completed as done was done.

#![no_std]
#![forbid(unsafe_code)]

mod blk;
mod bounce;
mod controller;
mod queue;
mod spec;

pub use blk::Nvme;
pub use queue::Tag;
