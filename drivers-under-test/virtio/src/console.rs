//! The console driver: the crate's `VirtIOConsole`.

use crate::hal::SeamHal;
use crate::instance::{Class, Instance, from_probe, from_request};
use crate::transport::SeamTransport;
use cofferdam_seam::service::DriverError;
use cofferdam_seam::{Deadline, RawDma};
use virtio_drivers::PAGE_SIZE;
use virtio_drivers::device::console::VirtIOConsole;
use virtio_drivers::transport::DeviceType;

/// Bytes written at one time; more are cut.
const CHUNK: usize = 1024;

/// The crate's one buffer to receive, and one to send.
const CLASS: Class = Class {
    kind: DeviceType::Console,
    other: "PCI ID is not 1af4:1043",
    arena: PAGE_SIZE + CHUNK,
    buffers: 2,
    waits: &[1],
};

type Crate<H> = VirtIOConsole<SeamHal, SeamTransport<H>>;

/// The driver of one virtio console.
pub struct VirtioConsole<H: RawDma + 'static> {
    console: Instance<H, Crate<H>>,
}

impl<H: RawDma + 'static> VirtioConsole<H> {
    /// Takes the device into service.
    ///
    /// # Errors
    ///
    /// As [`VirtioBlk::probe`](crate::VirtioBlk::probe).
    pub fn probe(host: H) -> Result<Self, DriverError> {
        let start = |transport| Crate::new(transport).map_err(from_probe);
        Ok(Self {
            console: Instance::probe(host, CLASS, start)?,
        })
    }

    /// Columns and rows, if the device tells.
    ///
    /// # Errors
    ///
    /// [`TimedOut`](DriverError::TimedOut) if the configuration does not settle before the deadline.
    pub fn size(&mut self, until: Deadline) -> Result<Option<(u16, u16)>, DriverError> {
        let size = self.console.ask(until, |console| console.size())?;
        Ok(size.map(|size| (size.columns, size.rows)))
    }

    /// Writes bytes, and waits until the device has taken them.
    ///
    /// # Errors
    ///
    /// [`TimedOut`](DriverError::TimedOut) at the deadline, and what breaks the protocol.
    pub fn write(&mut self, bytes: &[u8], until: Deadline) -> Result<(), DriverError> {
        self.console.begin(until)?;
        let written = bytes.chunks(CHUNK).try_for_each(|chunk| {
            self.console
                .call(|console| console.send_bytes(chunk))?
                .map_err(from_request)
        });
        self.console.end(written)
    }

    /// Writes one byte without a queue.
    ///
    /// # Errors
    ///
    /// [`Io`](DriverError::Io) if the device cannot.
    pub fn emergency_write(&mut self, byte: u8, until: Deadline) -> Result<(), DriverError> {
        self.console
            .ask(until, |console| console.emergency_write(byte))
    }

    /// Waits for the next byte; nothing if none came before the deadline.
    ///
    /// # Errors
    ///
    /// What breaks the protocol.
    pub fn read(&mut self, until: Deadline) -> Result<Option<u8>, DriverError> {
        self.console.await_some(until, |console| console.recv(true))
    }
}
