//! The socket driver: the crate's `VirtIOSocket` under its `VsockConnectionManager`.

use crate::hal::SeamHal;
use crate::instance::{Class, Instance, from_probe};
use crate::transport::SeamTransport;
use cofferdam_seam::service::DriverError;
use cofferdam_seam::{Deadline, RawDma};
use virtio_drivers::Error;
use virtio_drivers::device::socket::{
    SocketError, VirtIOSocket, VsockAddr, VsockConnectionManager, VsockEvent, VsockEventType,
};
use virtio_drivers::transport::DeviceType;

/// Bytes of one of the crate's eight buffers to receive.
const BUFFER: usize = 512;
/// Bytes sent in one packet; more are cut.
const CHUNK: usize = 1024;
/// Events looked at between two waits.
const EVENTS: usize = 16;

/// All buffers to receive, and one packet to send.
const CLASS: Class = Class {
    kind: DeviceType::Socket,
    other: "PCI ID is not 1af4:1053",
    arena: 8 * BUFFER + 2 * CHUNK,
    buffers: 11,
    waits: &[1],
};

type Crate<H> = VsockConnectionManager<SeamHal, SeamTransport<H>, BUFFER>;

/// The driver of one virtio socket device.
pub struct VirtioSocket<H: RawDma + 'static> {
    socket: Instance<H, Crate<H>>,
}

/// One stream: the host's port, and ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    /// The port of the peer, whose context ID is 2.
    pub peer: u32,
    /// The local port.
    pub local: u32,
}

impl Stream {
    const fn address(self) -> VsockAddr {
        VsockAddr {
            cid: 2,
            port: self.peer,
        }
    }

    fn concerns(self, event: &VsockEvent) -> bool {
        event.source == self.address() && event.destination.port == self.local
    }
}

impl<H: RawDma + 'static> VirtioSocket<H> {
    /// Takes the device into service.
    ///
    /// # Errors
    ///
    /// As [`VirtioBlk::probe`](crate::VirtioBlk::probe).
    pub fn probe(host: H) -> Result<Self, DriverError> {
        let start = |transport| {
            let socket = VirtIOSocket::new(transport).map_err(from_probe)?;
            Ok(Crate::new(socket))
        };
        Ok(Self {
            socket: Instance::probe(host, CLASS, start)?,
        })
    }

    /// The context ID the device gave us.
    pub fn cid(&self) -> u64 {
        self.socket
            .driver()
            .map_or(0, VsockConnectionManager::guest_cid)
    }

    /// Opens a stream; false if the peer refuses it, or does not answer before the deadline.
    ///
    /// # Errors
    ///
    /// What breaks the protocol.
    pub fn connect(&mut self, stream: Stream, until: Deadline) -> Result<bool, DriverError> {
        self.socket.ask(until, |socket| {
            socket.connect(stream.address(), stream.local)
        })?;
        let answer = self.event(stream, until, |event| match event {
            VsockEventType::Connected => Some(true),
            VsockEventType::Disconnected { .. } => Some(false),
            _ => None,
        })?;
        Ok(answer == Some(true))
    }

    /// Sends bytes, and waits for credit where there is none; false if there was none before the
    /// deadline, when a part may have been sent.
    ///
    /// # Errors
    ///
    /// What breaks the protocol.
    pub fn send(
        &mut self,
        stream: Stream,
        bytes: &[u8],
        until: Deadline,
    ) -> Result<bool, DriverError> {
        for chunk in bytes.chunks(CHUNK) {
            let sent = self.socket.await_some(until, |socket| {
                match socket.send(stream.address(), stream.local, chunk) {
                    Ok(()) => Ok(Some(())),
                    Err(Error::SocketDeviceError(SocketError::InsufficientBufferSpaceInPeer)) => {
                        poll_all(socket, |_| None::<()>).map(|_| None)
                    }
                    Err(error) => Err(error),
                }
            })?;
            if sent.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Waits for bytes, and returns how many there are in `into`; none at the deadline. What was
    /// taken is told to the peer.
    ///
    /// # Errors
    ///
    /// What breaks the protocol.
    pub fn receive(
        &mut self,
        stream: Stream,
        into: &mut [u8],
        until: Deadline,
    ) -> Result<usize, DriverError> {
        let received = self.socket.await_some(until, |socket| {
            poll_all(socket, |_| None::<()>)?;
            let length = socket.recv(stream.address(), stream.local, into)?;
            Ok((length > 0).then_some(length))
        })?;
        let Some(length) = received else {
            return Ok(0);
        };
        self.socket.ask(until, |socket| {
            socket.update_credit(stream.address(), stream.local)
        })?;
        Ok(length)
    }

    /// Closes a stream; false if the peer does not confirm it before the deadline.
    ///
    /// # Errors
    ///
    /// What breaks the protocol.
    pub fn close(&mut self, stream: Stream, until: Deadline) -> Result<bool, DriverError> {
        self.socket.ask(until, |socket| {
            socket.shutdown(stream.address(), stream.local)
        })?;
        let answer = self.event(stream, until, |event| {
            matches!(event, VsockEventType::Disconnected { .. }).then_some(())
        })?;
        Ok(answer.is_some())
    }

    /// Waits for an event of a stream.
    fn event<R>(
        &mut self,
        stream: Stream,
        until: Deadline,
        wanted: impl Fn(&VsockEventType) -> Option<R>,
    ) -> Result<Option<R>, DriverError> {
        self.socket.await_some(until, |socket| {
            poll_all(socket, |event| {
                let event = stream.concerns(&event).then_some(event)?;
                wanted(&event.event_type)
            })
        })
    }
}

/// Lets the crate look at the events that are there, until one is wanted.
fn poll_all<H: RawDma + 'static, R>(
    socket: &mut Crate<H>,
    mut wanted: impl FnMut(VsockEvent) -> Option<R>,
) -> Result<Option<R>, Error> {
    for _ in 0..EVENTS {
        if let Some(found) = socket.poll()?.and_then(&mut wanted) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}
