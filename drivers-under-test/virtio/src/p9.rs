//! The 9P driver: the crate's `VirtIO9p`, which carries messages and does not look into them.

use crate::hal::SeamHal;
use crate::instance::{Class, Instance, from_probe};
use crate::transport::SeamTransport;
use cofferdam_seam::service::DriverError;
use cofferdam_seam::{Deadline, RawDma};
use virtio_drivers::device::virtio_9p::VirtIO9p;
use virtio_drivers::transport::DeviceType;

/// The longest message.
pub const LONGEST_MESSAGE: usize = 8192;

const CLASS: Class = Class {
    kind: DeviceType::_9P,
    other: "PCI ID is not 1af4:1049",
    arena: 3 * LONGEST_MESSAGE,
    buffers: 3,
    waits: &[0],
};

type Crate<H> = VirtIO9p<SeamHal, SeamTransport<H>>;

/// The driver of one virtio 9P device.
pub struct Virtio9p<H: RawDma + 'static> {
    share: Instance<H, Crate<H>>,
}

impl<H: RawDma + 'static> Virtio9p<H> {
    /// Takes the device into service.
    ///
    /// # Errors
    ///
    /// As [`VirtioBlk::probe`](crate::VirtioBlk::probe).
    pub fn probe(host: H) -> Result<Self, DriverError> {
        let start = |transport| Crate::new(transport).map_err(from_probe);
        Ok(Self {
            share: Instance::probe(host, CLASS, start)?,
        })
    }

    /// What the device calls its share.
    pub fn mount_tag(&self) -> &str {
        self.share.driver().map_or("", VirtIO9p::mount_tag)
    }

    /// Sends a message, and waits for the reply. Returns how many bytes the crate says there are:
    /// what a device claims, which may be more than `reply` holds.
    ///
    /// # Errors
    ///
    /// [`BadRequest`](DriverError::BadRequest) if a message is empty, or either is longer than
    /// [`LONGEST_MESSAGE`], [`TimedOut`](DriverError::TimedOut) at the deadline, and what breaks the
    /// protocol.
    pub fn request(
        &mut self,
        message: &[u8],
        reply: &mut [u8],
        until: Deadline,
    ) -> Result<u32, DriverError> {
        if message.len().max(reply.len()) > LONGEST_MESSAGE {
            return Err(DriverError::BadRequest("a message is longer than 8192"));
        }
        self.share.ask(until, |share| share.request(message, reply))
    }
}
