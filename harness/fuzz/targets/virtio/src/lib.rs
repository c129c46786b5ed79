//! What a workload of virtio-drivers does, wherever the driver runs: in this process, or in a guest.
//!
//! [`transport`] is one of the crate's transports over any host's registers, [`blk`] the calls of a disk.
//! A program means the same in both places because both run this.

#![no_std]

extern crate alloc;

pub mod blk;
pub mod transport;
