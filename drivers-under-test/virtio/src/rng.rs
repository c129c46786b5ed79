//! The entropy driver: the crate's `VirtIORng`.

use crate::hal::SeamHal;
use crate::instance::{Class, Instance, from_probe};
use crate::transport::SeamTransport;
use cofferdam_seam::service::DriverError;
use cofferdam_seam::{Deadline, RawDma};
use virtio_drivers::device::rng::VirtIORng;
use virtio_drivers::transport::DeviceType;

/// Bytes asked for at one time.
const CHUNK: usize = 4096;

const CLASS: Class = Class {
    kind: DeviceType::EntropySource,
    other: "PCI ID is not 1af4:1044",
    arena: CHUNK,
    buffers: 1,
    waits: &[0],
};

type Crate<H> = VirtIORng<SeamHal, SeamTransport<H>>;

/// The driver of one virtio entropy device.
pub struct VirtioRng<H: RawDma + 'static> {
    rng: Instance<H, Crate<H>>,
}

impl<H: RawDma + 'static> VirtioRng<H> {
    /// Takes the device into service.
    ///
    /// # Errors
    ///
    /// As [`VirtioBlk::probe`](crate::VirtioBlk::probe).
    pub fn probe(host: H) -> Result<Self, DriverError> {
        let start = |transport| Crate::new(transport).map_err(from_probe);
        Ok(Self {
            rng: Instance::probe(host, CLASS, start)?,
        })
    }

    /// Asks for up to 4096 random bytes, and returns how many the crate says there are: what a
    /// device claims, which may be more than `into` holds.
    ///
    /// # Errors
    ///
    /// [`TimedOut`](DriverError::TimedOut) at the deadline, and what breaks the protocol.
    pub fn read(&mut self, into: &mut [u8], until: Deadline) -> Result<usize, DriverError> {
        if into.is_empty() {
            return Err(DriverError::BadRequest("no byte is asked for"));
        }
        let length = into.len().min(CHUNK);
        self.rng
            .ask(until, |rng| rng.request_entropy(&mut into[..length]))
    }
}
