//! The unmodified virtio-drivers crate, through its own transport trait.
//!
//! Registers go to the device through the crate's `Transport`, memory through its `Hal`. What the
//! crate lends the device from stack and heap is copied, so a device that writes late does no damage
//! here, but it is known what it stands for.

pub mod blk;
pub mod console;
pub mod gpu;
pub mod hal;
pub mod input;
pub mod net;
pub mod p9;
pub mod rng;
pub mod socket;
pub mod sound;

use cofferdam_fuzz::target::{Argument, CallSpec, Crate, Driver, Refused, Target};
use std::ops::Range;
use virtio_drivers::transport::Transport;

/// The crate.
const VIRTIO_DRIVERS: Crate = Crate {
    name: "virtio-drivers",
    version: "0.13.0",
};

/// Where an entry of a used ring has its length (virtio 1.2, 2.7.8).
const WRITTEN: Range<usize> = 4..8;

/// A target whose driver runs over any of the crate's transports.
pub trait OverTransport: Target {
    /// Puts the driver into service over that one.
    ///
    /// # Errors
    ///
    /// As [`Target::start`].
    fn start_over<T: Transport + 'static>(&self, transport: T) -> Result<Box<dyn Driver>, Refused>;
}

/// A call of a workload.
const fn call(name: &'static str, arguments: &'static [Argument]) -> CallSpec {
    CallSpec { name, arguments }
}
