//! The network driver: the crate's `VirtIONet`.

use crate::hal::SeamHal;
use crate::instance::{Class, Instance, from_probe, from_request};
use crate::transport::SeamTransport;
use cofferdam_seam::service::DriverError;
use cofferdam_seam::{Deadline, RawDma};
use virtio_drivers::Error;
use virtio_drivers::device::net::{TxBuffer, VirtIONet};
use virtio_drivers::transport::DeviceType;

/// Entries of each queue, and buffers for frames to receive.
const QUEUE: usize = 8;
/// Bytes of such a buffer.
const BUFFER: usize = 2048;

/// The longest frame: addresses, type and 1500 bytes.
pub const LONGEST_FRAME: usize = 1514;

/// All buffers to receive, one to send, and its header.
const CLASS: Class = Class {
    kind: DeviceType::Network,
    other: "PCI ID is not 1af4:1041",
    arena: (QUEUE + 1) * BUFFER,
    buffers: QUEUE + 1,
    waits: &[1],
};

type Crate<H> = VirtIONet<SeamHal, SeamTransport<H>, QUEUE>;

/// The driver of one virtio network device.
pub struct VirtioNet<H: RawDma + 'static> {
    net: Instance<H, Crate<H>>,
}

impl<H: RawDma + 'static> VirtioNet<H> {
    /// Takes the device into service.
    ///
    /// # Errors
    ///
    /// As [`VirtioBlk::probe`](crate::VirtioBlk::probe).
    pub fn probe(host: H) -> Result<Self, DriverError> {
        let start = |transport| Crate::new(transport, BUFFER).map_err(from_probe);
        Ok(Self {
            net: Instance::probe(host, CLASS, start)?,
        })
    }

    /// The device's address.
    pub fn mac(&self) -> [u8; 6] {
        self.net.driver().map_or([0; 6], VirtIONet::mac_address)
    }

    /// Sends a frame, and waits until the device has taken it.
    ///
    /// # Errors
    ///
    /// [`BadRequest`](DriverError::BadRequest) for a frame longer than [`LONGEST_FRAME`],
    /// [`TimedOut`](DriverError::TimedOut) at the deadline, and what breaks the protocol.
    pub fn send(&mut self, frame: &[u8], until: Deadline) -> Result<(), DriverError> {
        if frame.len() > LONGEST_FRAME {
            return Err(DriverError::BadRequest("the frame is longer than 1514"));
        }
        self.net.ask(until, |net| net.send(TxBuffer::from(frame)))
    }

    /// Waits for a frame and hands it to `take`, as the crate gives it; nothing if none came before
    /// the deadline.
    ///
    /// # Errors
    ///
    /// What breaks the protocol.
    pub fn receive<R>(
        &mut self,
        until: Deadline,
        take: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>, DriverError> {
        let frame = self.net.await_some(until, |net| match net.receive() {
            Ok(frame) => Ok(Some(frame)),
            Err(Error::NotReady) => Ok(None),
            Err(error) => Err(error),
        })?;
        let Some(frame) = frame else {
            return Ok(None);
        };
        self.net.begin(until)?;
        let taken = take(frame.packet());
        let recycled = self.net.call(|net| net.recycle_rx_buffer(frame));
        let recycled = recycled.and_then(|result| result.map_err(from_request));
        self.net.end(recycled).map(|()| Some(taken))
    }
}
