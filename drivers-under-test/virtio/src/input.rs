//! The input driver: the crate's `VirtIOInput`.

use crate::hal::SeamHal;
use crate::instance::{Class, Instance, from_probe};
use crate::transport::SeamTransport;
use cofferdam_seam::service::DriverError;
use cofferdam_seam::{Deadline, RawDma};
use virtio_drivers::device::input::{InputEvent, VirtIOInput};
use virtio_drivers::transport::DeviceType;

/// Room for the crate's 32 events of 8 bytes.
const CLASS: Class = Class {
    kind: DeviceType::Input,
    other: "PCI ID is not 1af4:1052",
    arena: 32 * 16,
    buffers: 32,
    waits: &[],
};

type Crate<H> = VirtIOInput<SeamHal, SeamTransport<H>>;

/// The driver of one virtio input device.
pub struct VirtioInput<H: RawDma + 'static> {
    input: Instance<H, Crate<H>>,
}

impl<H: RawDma + 'static> VirtioInput<H> {
    /// Takes the device into service.
    ///
    /// # Errors
    ///
    /// As [`VirtioBlk::probe`](crate::VirtioBlk::probe).
    pub fn probe(host: H) -> Result<Self, DriverError> {
        let start = |transport| Crate::new(transport).map_err(from_probe);
        Ok(Self {
            input: Instance::probe(host, CLASS, start)?,
        })
    }

    /// Waits for the next event: type, code and value; nothing if none came before the deadline.
    ///
    /// # Errors
    ///
    /// What breaks the protocol.
    pub fn event(&mut self, until: Deadline) -> Result<Option<InputEvent>, DriverError> {
        self.input
            .await_some(until, |input| Ok(input.pop_pending_event()))
    }

    /// The device's name.
    ///
    /// # Errors
    ///
    /// [`Io`](DriverError::Io) if the device says something that cannot be.
    pub fn name(&mut self, until: Deadline) -> Result<String, DriverError> {
        self.input.ask(until, VirtIOInput::name)
    }

    /// The codes of an event type, one bit each; nothing if there are none.
    ///
    /// # Errors
    ///
    /// As [`name`](Self::name).
    pub fn codes(&mut self, kind: u8, until: Deadline) -> Result<Box<[u8]>, DriverError> {
        self.input.ask(until, |input| input.ev_bits(kind))
    }

    /// Bus type, vendor, product and version.
    ///
    /// # Errors
    ///
    /// As [`name`](Self::name).
    pub fn ids(&mut self, until: Deadline) -> Result<[u16; 4], DriverError> {
        let ids = self.input.ask(until, VirtIOInput::ids)?;
        Ok([ids.bustype, ids.vendor, ids.product, ids.version])
    }
}
