//! The socket device (virtio 1.2, 5.10): one peer, the host, that accepts every stream and sends
//! back what it receives.

use crate::chain::Chain;
use crate::controller::Virtio;
use crate::identity::identity;
use crate::kind::{Kind, Served};
use crate::queue::Broken;
use crate::spec::socket::{HOST, Header, RECEIVE, SHUTDOWN_BOTH, STREAM, TRANSMIT, op};
use crate::spec::{INDIRECT_DESC, device};
use cofferdam_seam::{BusPort, PciIdentity, Purpose};
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};
use zerocopy::{FromZeros, IntoBytes};

/// Connections at most; more are refused.
const CONNECTIONS: usize = 16;
/// Bytes of room the peer has for each.
const ROOM: u32 = 4096;
/// Packets to the driver that wait for a buffer at most: beyond, nothing more is taken from it
/// (5.10.6.1.1).
const PACKETS: usize = 64;

/// Bytes of a packet's header.
const HEADER: u64 = size_of::<Header>() as u64;

/// What socket device to build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketConfig {
    /// The driver's context ID; the peer's is 2.
    pub cid: u32,
    /// How long one packet takes, in either direction.
    pub latency: Duration,
}

impl Default for SocketConfig {
    /// CID 3, 20 us a packet.
    fn default() -> Self {
        Self {
            cid: 3,
            latency: Duration::from_micros(20),
        }
    }
}

/// A virtio socket device.
pub type VirtioSocket = Virtio<Peer>;

impl VirtioSocket {
    /// A device without connections.
    pub fn new(config: SocketConfig) -> Self {
        let kind = Peer {
            config,
            connections: BTreeMap::new(),
            packets: VecDeque::new(),
        };
        Self::of(kind, INDIRECT_DESC)
    }
}

/// A stream, from the peer's side.
#[derive(Default)]
struct Connection {
    /// What the peer has received and not sent back.
    echo: VecDeque<u8>,
    /// Bytes it has sent back, and so taken out of its room: modulo 2^32.
    sent: u32,
    /// The driver's room, and what it has taken out of it.
    buf_alloc: u32,
    fwd_cnt: u32,
    /// Which directions the driver shut down.
    shut: u32,
}

impl Connection {
    /// Bytes the driver has room for (5.10.6.3).
    fn credit(&self) -> u32 {
        let under_way = self.sent.wrapping_sub(self.fwd_cnt);
        self.buf_alloc.saturating_sub(under_way)
    }

    /// Whether there is something to send back, and room for it.
    fn can_send(&self) -> bool {
        !self.echo.is_empty() && self.credit() > 0 && self.shut & 1 == 0
    }
}

/// The driver's port, then the peer's.
type Ports = (u32, u32);

/// The peer.
pub struct Peer {
    config: SocketConfig,
    connections: BTreeMap<Ports, Connection>,
    /// Answers without data: to whom, and what.
    packets: VecDeque<(Ports, u16)>,
}

impl Peer {
    fn transmit(&mut self, chain: &Chain, bus: &mut BusPort<'_>) -> Result<Served, Broken> {
        if chain.readable_len() < HEADER {
            return Err(Broken::TooShort);
        }
        let mut header = Header::new_zeroed();
        chain.read(0, header.as_mut_bytes(), Purpose::Descriptor, bus)?;
        let ports = (header.src_port.get(), header.dst_port.get());
        let length = header.length.get();
        if u64::from(length) > chain.readable_len() - HEADER {
            return Err(Broken::TooShort);
        }
        let for_us = header.dst_cid.get() == HOST
            && header.src_cid.get() == self.config.cid.into()
            && header.kind.get() == STREAM;
        let kind = header.op.get();
        let has_room = self.connections.len() < CONNECTIONS;
        let known = self.connections.get_mut(&ports).filter(|_| for_us);
        match (kind, known) {
            (op::REQUEST, None) if for_us && has_room => {
                let connection = Connection {
                    buf_alloc: header.buf_alloc.get(),
                    fwd_cnt: header.fwd_cnt.get(),
                    ..Connection::default()
                };
                self.connections.insert(ports, connection);
                self.packets.push_back((ports, op::RESPONSE));
            }
            (op::RST, Some(_)) => {
                self.connections.remove(&ports);
            }
            (op::RST, None) => {}
            (op::SHUTDOWN, Some(connection)) => {
                connection.shut |= header.flags.get() & SHUTDOWN_BOTH;
                if connection.shut == SHUTDOWN_BOTH {
                    self.refuse(ports);
                }
            }
            (op::RW, Some(connection)) => {
                connection.buf_alloc = header.buf_alloc.get();
                connection.fwd_cnt = header.fwd_cnt.get();
                let room = u64::from(ROOM) - connection.echo.len() as u64;
                if u64::from(length) > room || connection.shut & 2 != 0 {
                    // More than it had credit for, or after it said that no more would come.
                    self.refuse(ports);
                } else {
                    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
                    chain.read(HEADER, &mut bytes, Purpose::Payload, bus)?;
                    connection.echo.extend(bytes);
                }
            }
            (op::CREDIT_UPDATE | op::CREDIT_REQUEST, Some(connection)) => {
                connection.buf_alloc = header.buf_alloc.get();
                connection.fwd_cnt = header.fwd_cnt.get();
                if kind == op::CREDIT_REQUEST {
                    self.packets.push_back((ports, op::CREDIT_UPDATE));
                }
            }
            // Nobody is there, or nobody understands it (5.10.6.4).
            (_, Some(_)) => self.refuse(ports),
            (_, None) => self.packets.push_back((ports, op::RST)),
        }
        Ok(Served::written(0))
    }

    /// Ends a connection.
    fn refuse(&mut self, ports: Ports) {
        self.connections.remove(&ports);
        self.packets.push_back((ports, op::RST));
    }

    /// Whether the driver is to receive something.
    fn has_packet(&self) -> bool {
        !self.packets.is_empty() || self.connections.values().any(Connection::can_send)
    }

    /// Gives the driver the next packet: answers first, then data, as much as there is credit and
    /// buffer for.
    fn receive(&mut self, chain: &Chain, bus: &mut BusPort<'_>) -> Result<Served, Broken> {
        let room = chain
            .writable_len()
            .checked_sub(HEADER)
            .ok_or(Broken::TooShort)?;
        let (ports, op, bytes) = if let Some((ports, op)) = self.packets.pop_front() {
            (ports, op, Vec::new())
        } else if let Some((ports, connection)) = self
            .connections
            .iter_mut()
            .find(|(_, connection)| connection.can_send())
        {
            let most = room.min(connection.credit().into());
            let most = usize::try_from(most).unwrap_or(usize::MAX);
            let length = most.min(connection.echo.len());
            if length == 0 {
                return Err(Broken::TooShort);
            }
            let bytes: Vec<u8> = connection.echo.drain(..length).collect();
            connection.sent = connection
                .sent
                .wrapping_add(u32::try_from(length).unwrap_or(0));
            (*ports, op::RW, bytes)
        } else {
            return Ok(Served::written(0));
        };
        let connection = self.connections.get(&ports);
        let header = Header {
            src_cid: HOST.into(),
            dst_cid: u64::from(self.config.cid).into(),
            src_port: ports.1.into(),
            dst_port: ports.0.into(),
            length: u32::try_from(bytes.len()).unwrap_or(0).into(),
            kind: STREAM.into(),
            op: op.into(),
            flags: 0.into(),
            buf_alloc: ROOM.into(),
            fwd_cnt: connection.map_or(0, |connection| connection.sent).into(),
        };
        chain.write(0, header.as_bytes(), Purpose::Status, bus)?;
        chain.write(HEADER, &bytes, Purpose::Payload, bus)?;
        Ok(Served::written(HEADER + bytes.len() as u64))
    }
}

impl Kind for Peer {
    const IDENTITY: &'static PciIdentity = &identity::<4>(device::SOCKET, [0x07, 0x80, 0x00]);
    const QUEUES: u16 = 3;

    /// The driver's context ID, 64 bits of which the upper half is zero (5.10.4).
    fn config(&self, at: u32) -> u8 {
        let cid = self.config.cid.to_le_bytes();
        cid.get(at as usize).copied().unwrap_or(0)
    }

    /// Packets from the driver wait while there are too many for it.
    fn watches(&self, _queue: u16) -> bool {
        true
    }

    fn takes(&self, queue: u16) -> Option<Duration> {
        let wanted = match queue {
            RECEIVE => self.has_packet(),
            TRANSMIT => self.packets.len() < PACKETS,
            // The device is never migrated.
            _ => false,
        };
        wanted.then_some(self.config.latency)
    }

    fn serve(
        &mut self,
        queue: u16,
        chain: &Chain,
        bus: &mut BusPort<'_>,
    ) -> Result<Served, Broken> {
        match queue {
            RECEIVE => self.receive(chain, bus),
            _ => self.transmit(chain, bus),
        }
    }

    /// All connections are gone.
    fn reset(&mut self) {
        self.connections.clear();
        self.packets.clear();
    }
}
