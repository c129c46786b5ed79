//! A split virtqueue, and the block requests in it.
//!
//! The driver owns a slot (three descriptors, a header, a status byte) until its head is published;
//! the device then owns it until it names the head in the used ring. What the used ring says comes
//! out of here as the device wrote it.

use super::spec::{self, DESCRIPTOR, ELEMENT};
use cofferdam_seam::{Direction, DmaRegion, DriverHost, HostError, Iova, Mapping};

/// Requests in flight at most, three descriptors each.
pub const SLOTS: u16 = 4;
/// Descriptors in the queue.
pub const SIZE: u16 = 16;
/// Descriptors of a slot: header, data, status.
pub const CHAIN: u16 = 3;

/// Bytes of a slot's header and status byte.
const REQUEST: usize = 32;

/// Where the parts of the queue are in its region, and how many descriptors it has.
#[derive(Clone, Copy)]
pub struct Layout {
    pub requests: usize,
    pub descriptors: usize,
    pub available: usize,
    pub used: usize,
    pub bytes: usize,
    pub size: u16,
}

impl Layout {
    /// The parts of a queue of that size one after the other. No bigger region than `bytes` is
    /// made for it.
    pub fn packed(size: u16, bytes: usize) -> Self {
        let entries = usize::from(size);
        let descriptors = REQUEST * usize::from(SLOTS);
        let available = descriptors + DESCRIPTOR * entries;
        let used = (available + 4 + 2 * entries).next_multiple_of(4);
        Self {
            requests: 0,
            descriptors,
            available,
            used,
            bytes,
            size,
        }
    }

    /// Bytes a region needs to hold it.
    pub fn needed(&self) -> usize {
        self.used + 4 + ELEMENT * usize::from(self.size)
    }
}

/// Where the data of a request lie.
#[derive(Clone, Copy)]
pub struct Data {
    pub at: Iova,
    pub len: u32,
    /// The device writes them.
    pub incoming: bool,
}

/// An element of the used ring.
#[derive(Clone, Copy, Debug)]
pub struct Used {
    pub id: u32,
    pub len: u32,
}

pub struct Ring<D> {
    layout: Layout,
    region: D,
    mapping: Mapping,
    /// Where the next head is published, and the next used element is looked for.
    available: u16,
    seen: u16,
}

impl<D: DmaRegion> Ring<D> {
    /// A queue of [`SIZE`] descriptors.
    pub fn new<H: DriverHost<Dma = D>>(host: &mut H) -> Result<Self, HostError> {
        Self::with(host, Layout::packed(SIZE, 0x1000))
    }

    pub fn with<H: DriverHost<Dma = D>>(host: &mut H, layout: Layout) -> Result<Self, HostError> {
        let region = host.alloc_dma(layout.bytes)?;
        let mapping = host.map(&region, 0..layout.bytes, Direction::Both)?;
        Ok(Self {
            layout,
            region,
            mapping,
            available: 0,
            seen: 0,
        })
    }

    /// Addresses of descriptor table, available ring and used ring.
    pub fn areas(&self) -> [Iova; 3] {
        [
            self.layout.descriptors,
            self.layout.available,
            self.layout.used,
        ]
        .map(|at| self.mapping.iova.offset(at as u64))
    }

    /// Builds the chain of a request in `slot` and makes it available.
    pub fn submit(&mut self, slot: u16, kind: u32, sector: u64, data: Data) {
        let request = self.layout.requests + REQUEST * usize::from(slot);
        let at = self.mapping.iova.offset(request as u64);
        let head = CHAIN * slot;
        let data_flags = if data.incoming { spec::WRITE } else { 0 } | spec::NEXT;
        self.region.write_at(request, &kind.to_le_bytes());
        self.region.write_at(request + 8, &sector.to_le_bytes());
        self.region.write_at(request + 16, &[u8::MAX]);
        self.describe(head, at, 16, spec::NEXT, head + 1);
        self.describe(head + 1, data.at, data.len, data_flags, head + 2);
        self.describe(head + 2, at.offset(16), 1, spec::WRITE, 0);
        self.publish(head);
    }

    pub fn describe(&self, index: u16, at: Iova, len: u32, flags: u16, next: u16) {
        let place = self.layout.descriptors + DESCRIPTOR * usize::from(index);
        self.region.write_at(place, &at.0.to_le_bytes());
        self.region.write_at(place + 8, &len.to_le_bytes());
        self.region.write_at(place + 12, &flags.to_le_bytes());
        self.region.write_at(place + 14, &next.to_le_bytes());
    }

    /// What a descriptor says its next one is, as memory has it now.
    pub fn next_of(&self, index: u16) -> u16 {
        let mut next = [0; 2];
        let place = self.layout.descriptors + DESCRIPTOR * usize::from(index) + 14;
        self.region.read_at(place, &mut next);
        u16::from_le_bytes(next)
    }

    /// What the flags of a descriptor say, as memory has them now.
    pub fn flags_of(&self, index: u16) -> u16 {
        let mut flags = [0; 2];
        let place = self.layout.descriptors + DESCRIPTOR * usize::from(index) + 12;
        self.region.read_at(place, &mut flags);
        u16::from_le_bytes(flags)
    }

    /// Makes the chain at `head` available: slot before index.
    pub fn publish(&mut self, head: u16) {
        let place = self.layout.available + 4 + 2 * usize::from(self.available % self.layout.size);
        self.region.write_at(place, &head.to_le_bytes());
        self.available = self.available.wrapping_add(1);
        self.region
            .write_at(self.layout.available + 2, &self.available.to_le_bytes());
    }

    /// The next element of the used ring, if its index covers one; still to be
    /// [taken](Self::advance).
    pub fn peek(&self) -> Option<Used> {
        let mut index = [0; 2];
        self.region.read_at(self.layout.used + 2, &mut index);
        if u16::from_le_bytes(index) == self.seen {
            return None;
        }
        let place = self.layout.used + 4 + ELEMENT * usize::from(self.seen % self.layout.size);
        let [mut id, mut len] = [[0; 4]; 2];
        self.region.read_at(place, &mut id);
        self.region.read_at(place + 4, &mut len);
        Some(Used {
            id: u32::from_le_bytes(id),
            len: u32::from_le_bytes(len),
        })
    }

    pub fn advance(&mut self) {
        self.seen = self.seen.wrapping_add(1);
    }

    /// Takes the next element.
    pub fn take(&mut self) -> Option<Used> {
        let used = self.peek()?;
        self.advance();
        Some(used)
    }

    /// The status byte of a request.
    pub fn status(&self, slot: u16) -> u8 {
        let mut status = [0];
        let place = self.layout.requests + REQUEST * usize::from(slot) + 16;
        self.region.read_at(place, &mut status);
        status[0]
    }
}
