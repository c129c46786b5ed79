//! The network device (virtio 1.2, 5.1): one pair of queues, no offloads, and a peer that sends
//! every frame back with its addresses swapped.

use crate::chain::Chain;
use crate::controller::Virtio;
use crate::identity::identity;
use crate::kind::{Kind, Served};
use crate::queue::Broken;
use crate::spec::net::{
    ETHERNET_ADDRESSES, Header, LINK_UP, LONGEST, MAC, RECEIVE, SHORTEST, STATUS,
};
use crate::spec::{INDIRECT_DESC, device};
use cofferdam_seam::{BusPort, PciIdentity, Purpose};
use core::time::Duration;
use std::collections::VecDeque;
use zerocopy::{FromZeros, IntoBytes};

/// Frames on their way back at most; the peer drops what comes on top.
const BACKLOG: usize = 16;

/// Bytes before a frame.
const HEADER: usize = size_of::<Header>();

/// What network device to build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetConfig {
    /// The device's address.
    pub mac: [u8; 6],
    /// How long a frame is on its way, there and back alike.
    pub latency: Duration,
}

impl Default for NetConfig {
    /// A locally administered address, 20 us a frame.
    fn default() -> Self {
        Self {
            mac: [0x02, 0, 0, 0, 0, 0x01],
            latency: Duration::from_micros(20),
        }
    }
}

/// A virtio network device with an echoing peer.
pub type VirtioNet = Virtio<Wire>;

impl VirtioNet {
    /// A device whose link is up.
    pub fn new(config: NetConfig) -> Self {
        let kind = Wire {
            config,
            frames: VecDeque::new(),
        };
        Self::of(kind, INDIRECT_DESC)
    }
}

/// The wire, and what is on it.
pub struct Wire {
    config: NetConfig,
    /// Frames the driver has still to receive.
    frames: VecDeque<Vec<u8>>,
}

impl Wire {
    /// Takes a frame from the driver. One that is too short or too long, or that asks for offloads
    /// nobody negotiated, is lost, as on a real wire.
    fn transmit(&mut self, chain: &Chain, bus: &mut BusPort<'_>) -> Result<Served, Broken> {
        let length = chain
            .readable_len()
            .checked_sub(HEADER as u64)
            .ok_or(Broken::TooShort)?;
        let mut header = Header::new_zeroed();
        chain.read(0, header.as_mut_bytes(), Purpose::Descriptor, bus)?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if header.flags == 0
            && header.gso_type == 0
            && (SHORTEST..=LONGEST).contains(&length)
            && self.frames.len() < BACKLOG
        {
            let mut frame = vec![0; length];
            chain.read(HEADER as u64, &mut frame, Purpose::Payload, bus)?;
            frame[..ETHERNET_ADDRESSES].rotate_left(ETHERNET_ADDRESSES / 2);
            self.frames.push_back(frame);
        }
        Ok(Served::written(0))
    }

    /// Gives the driver the next frame. A buffer that cannot hold it is against 5.1.6.3.1.
    fn receive(&mut self, chain: &Chain, bus: &mut BusPort<'_>) -> Result<Served, Broken> {
        let Some(frame) = self.frames.pop_front() else {
            return Ok(Served::written(0));
        };
        let length = (HEADER + frame.len()) as u64;
        if chain.writable_len() < length {
            return Err(Broken::TooShort);
        }
        let header = Header {
            num_buffers: 1.into(),
            ..Header::new_zeroed()
        };
        chain.write(0, header.as_bytes(), Purpose::Status, bus)?;
        chain.write(HEADER as u64, &frame, Purpose::Payload, bus)?;
        Ok(Served::written(length))
    }
}

impl Kind for Wire {
    const IDENTITY: &'static PciIdentity = &identity::<3>(device::NET, [0x02, 0x00, 0x00]);
    const QUEUES: u16 = 2;

    fn features(&self) -> u64 {
        MAC | STATUS
    }

    /// Address and status; fields of features that are not offered read as zero (5.1.4).
    fn config(&self, at: u32) -> u8 {
        let [low, high] = LINK_UP.to_le_bytes();
        match at {
            0..6 => self.config.mac[at as usize],
            6 => low,
            7 => high,
            _ => 0,
        }
    }

    fn watches(&self, queue: u16) -> bool {
        queue == RECEIVE
    }

    fn takes(&self, queue: u16) -> Option<Duration> {
        (queue != RECEIVE || !self.frames.is_empty()).then_some(self.config.latency)
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

    /// Frames on the wire are lost.
    fn reset(&mut self) {
        self.frames.clear();
    }
}
