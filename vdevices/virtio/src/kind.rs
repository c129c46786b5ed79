//! What a kind of device adds to what all virtio devices have in common.

use crate::chain::Chain;
use crate::queue::Broken;
use cofferdam_seam::{BusPort, PciIdentity, Width};
use core::time::Duration;

/// A kind of device: its configuration, and what it does with the chains of its queues.
///
/// Registers, rings, interrupts and the order of events are the transport's business. A kind trusts
/// the driver no more than that does: what it keeps is bounded, whatever the driver sends.
pub trait Kind: Send {
    /// Its PCI identity.
    const IDENTITY: &'static PciIdentity;
    /// How many virtqueues it has.
    const QUEUES: u16;

    /// Feature bits it offers beside those of the transport.
    fn features(&self) -> u64 {
        0
    }

    /// The byte of the device configuration at that offset; zero behind its end.
    fn config(&self, at: u32) -> u8;

    /// The driver writes the device configuration.
    fn configure(&mut self, at: u32, width: Width, value: u64) {
        let _ = (at, width, value);
    }

    /// Whether the device looks into that queue on its own, whenever it has a use for a chain, and
    /// not only after a doorbell: the queues in which drivers leave empty buffers.
    fn watches(&self, queue: u16) -> bool {
        let _ = queue;
        false
    }

    /// How long the next chain of that queue takes; none while the device has no use for one.
    fn takes(&self, queue: u16) -> Option<Duration>;

    /// Does what a chain asks for, or fills it.
    ///
    /// # Errors
    ///
    /// How the driver broke the protocol; the device stops and asks for a reset.
    fn serve(&mut self, queue: u16, chain: &Chain, bus: &mut BusPort<'_>)
    -> Result<Served, Broken>;

    /// Back to the state after a reset.
    fn reset(&mut self);
}

/// How a chain was served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served {
    /// Bytes written from the start of its writable part (2.7.8.2).
    pub written: u32,
    /// A queue whose chains must all be given back before this one is.
    pub after: Option<u16>,
}

impl Served {
    /// That many bytes were written.
    pub fn written(bytes: u64) -> Self {
        Self {
            written: u32::try_from(bytes).unwrap_or(u32::MAX),
            after: None,
        }
    }
}
