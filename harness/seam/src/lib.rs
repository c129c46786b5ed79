//! The seam: the only place where a driver and a device meet.
//!
//! Both sides are written against the types of this crate and nothing else, so neither knows where
//! the other runs. A device model implements [`Device`] and reaches the world through a
//! [`BusPort`]; a driver is generic over a [`DriverHost`] and offers the service of its class
//! ([`service::Block`], [`service::Compute`]).
//!
//! The crate is `no_std`, has no unsafe code, and trusts nobody: every value that crosses it may
//! have been chosen by an adversary on the other side.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod access;
mod address;
mod bus;
mod decode;
mod device;
mod host;
mod identity;
mod random;
pub mod service;
mod time;

pub use access::{Access, Bar, Width};
pub use address::{Direction, Iova, RequesterId};
pub use bus::{Bus, BusPort, DmaFault, Meddling, Pending, Purpose, Vector, VectorSet, Violation};
pub use decode::{Decode, Undecoded};
pub use device::{Budget, Completion, Device, Doorbells, Progress, Reset};
pub use host::{
    DmaRegion, DriverHost, HostError, InterruptKind, Interrupts, Mapping, Mmio, RawDma, Wake,
};
pub use identity::{BarSpec, Capability, MsixLocation, PciIdentity};
pub use random::SplitMix64;
pub use time::{Deadline, Time};
