//! A split virtqueue as the device sees it (virtio 1.2, 2.7).
//!
//! The driver owns a chain from the moment it builds it until the index of the available ring
//! covers it; the device then owns it until the index of the used ring does. The rings lie in
//! memory the driver can change at any time, so each word is read once and checked.

use crate::chain::{Chain, Segment};
use crate::spec::{Descriptor, NO_VECTOR, UsedElement, available, descriptor, used};
use cofferdam_seam::{BusPort, DmaFault, Iova, Purpose, Time};
use zerocopy::{FromZeros, IntoBytes};

/// Descriptors in the largest queue.
pub(crate) const MAX_SIZE: u16 = 64;

/// How a driver broke the protocol. The device stops and asks for a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// A ring is not aligned.
    Misaligned,
    /// More chains are available than the queue has descriptors.
    TooManyAvailable,
    /// A descriptor's index is beyond the queue.
    NoSuchDescriptor,
    /// A chain has more descriptors than the queue.
    Loop,
    /// A descriptor is indirect, which was not negotiated or is not allowed there.
    Indirect,
    /// A table of descriptors is empty, or its length is no multiple of a descriptor's.
    OddTable,
    /// A readable descriptor follows a writable one.
    ReadableAfterWritable,
    /// A chain has no room for a request's header or status.
    TooShort,
    /// A request is longer than the device's kind allows.
    TooLong,
    /// A ring, a header or a status byte cannot be reached.
    Unreachable,
}

impl From<DmaFault> for Broken {
    fn from(_: DmaFault) -> Self {
        Self::Unreachable
    }
}

/// Where descriptors are: the queue's own table, or one that an indirect descriptor refers to.
#[derive(Clone, Copy)]
struct Table {
    at: Iova,
    entries: u32,
}

impl Table {
    /// The table an indirect descriptor refers to.
    fn of(found: &Descriptor) -> Result<Self, Broken> {
        let length = found.length.get();
        if length == 0 || !length.is_multiple_of(descriptor::BYTES) {
            return Err(Broken::OddTable);
        }
        Ok(Self {
            at: Iova(found.address.get()),
            entries: length / descriptor::BYTES,
        })
    }

    fn descriptor(self, index: u16, bus: &mut BusPort<'_>) -> Result<Descriptor, Broken> {
        if u32::from(index) >= self.entries {
            return Err(Broken::NoSuchDescriptor);
        }
        let mut found = Descriptor::new_zeroed();
        let at = self
            .at
            .offset(u64::from(index) * u64::from(descriptor::BYTES));
        bus.dma_read(at, found.as_mut_bytes(), Purpose::Descriptor)?;
        Ok(found)
    }
}

/// The queue's registers, and how far the device has come.
#[derive(Debug)]
pub(crate) struct Queue {
    /// Descriptors: a power of two, at most [`MAX_SIZE`].
    pub size: u16,
    pub enabled: bool,
    /// The vector that announces its used chains.
    pub vector: u16,
    pub descriptors: Iova,
    pub available: Iova,
    pub used: Iova,
    /// The available index up to which the device has taken chains.
    taken: u16,
    /// The available index as last read.
    offered: u16,
    /// The used index as last written.
    returned: u16,
    /// When the chain being served is done; none while idle. Nothing of it has happened before
    /// then: it is taken, its data moved and the device's state changed all at once.
    pub due: Option<Time>,
}

impl Queue {
    /// As after a reset.
    pub fn new() -> Self {
        Self {
            size: MAX_SIZE,
            enabled: false,
            vector: NO_VECTOR,
            descriptors: Iova(0),
            available: Iova(0),
            used: Iova(0),
            taken: 0,
            offered: 0,
            returned: 0,
            due: None,
        }
    }

    /// Checks the alignment of the three areas (2.7).
    pub fn check(&self) -> Result<(), Broken> {
        let areas = [(self.descriptors, 16), (self.available, 2), (self.used, 4)];
        if areas.iter().all(|(at, align)| at.0.is_multiple_of(*align)) {
            Ok(())
        } else {
            Err(Broken::Misaligned)
        }
    }

    /// Whether the driver has made a chain available that was not taken yet.
    pub fn has_available(&mut self, bus: &mut BusPort<'_>) -> Result<bool, Broken> {
        if self.taken == self.offered {
            self.offered = read_u16(self.available.offset(available::INDEX), bus)?;
            if self.offered.wrapping_sub(self.taken) > self.size {
                return Err(Broken::TooManyAvailable);
            }
        }
        Ok(self.taken != self.offered)
    }

    /// Takes the next chain: its head, with its buffers in `chain`. `indirect` says whether
    /// indirect descriptors were negotiated.
    pub fn take(
        &mut self,
        indirect: bool,
        chain: &mut Chain,
        bus: &mut BusPort<'_>,
    ) -> Result<Option<u16>, Broken> {
        if !self.has_available(bus)? {
            return Ok(None);
        }
        let slot = u64::from(self.taken % self.size);
        let head = read_u16(self.available.offset(available::RING + 2 * slot), bus)?;
        self.taken = self.taken.wrapping_add(1);
        self.walk(head, indirect, chain, bus)?;
        Ok(Some(head))
    }

    /// Follows a chain (2.7.5): at most as many descriptors as the queue has, readable ones first.
    /// The last one may refer to a table, in which the chain goes on from its first entry (2.7.5.3).
    fn walk(
        &self,
        head: u16,
        indirect: bool,
        chain: &mut Chain,
        bus: &mut BusPort<'_>,
    ) -> Result<(), Broken> {
        chain.readable.clear();
        chain.writable.clear();
        let mut table = Table {
            at: self.descriptors,
            entries: u32::from(self.size),
        };
        let mut may_refer = indirect;
        let mut index = head;
        let mut left = self.size;
        while left > 0 {
            let found = table.descriptor(index, bus)?;
            let flags = found.flags.get();
            if flags & descriptor::INDIRECT != 0 {
                if !may_refer || flags & descriptor::NEXT != 0 {
                    return Err(Broken::Indirect);
                }
                // The device ignores whether the table's descriptor is writable (2.7.5.3.2).
                may_refer = false;
                table = Table::of(&found)?;
                index = 0;
                // It is no part of the chain, whose length is what the queue's size limits.
                continue;
            }
            left -= 1;
            let segment = Segment {
                at: Iova(found.address.get()),
                length: found.length.get(),
            };
            if flags & descriptor::WRITE != 0 {
                chain.writable.push(segment);
            } else if chain.writable.is_empty() {
                chain.readable.push(segment);
            } else {
                return Err(Broken::ReadableAfterWritable);
            }
            if flags & descriptor::NEXT == 0 {
                return Ok(());
            }
            index = found.next.get();
        }
        Err(Broken::Loop)
    }

    /// Gives a chain back, `written` bytes long, then publishes it: element before index (2.7.13).
    pub fn give_back(
        &mut self,
        head: u16,
        written: u32,
        bus: &mut BusPort<'_>,
    ) -> Result<(), Broken> {
        let element = UsedElement {
            id: u32::from(head).into(),
            length: written.into(),
        };
        let slot = u64::from(self.returned % self.size);
        let at = self.used.offset(used::RING + 8 * slot);
        bus.dma_write(at, element.as_bytes(), Purpose::Completion)?;
        self.returned = self.returned.wrapping_add(1);
        let at = self.used.offset(used::INDEX);
        bus.dma_write(at, &self.returned.to_le_bytes(), Purpose::Publish)?;
        Ok(())
    }

    /// Whether the driver wants to hear of used chains; to be asked after publishing (2.7.7).
    pub fn wants_interrupt(&self, bus: &mut BusPort<'_>) -> Result<bool, Broken> {
        let flags = read_u16(self.available.offset(available::FLAGS), bus)?;
        Ok(flags & available::NO_INTERRUPT == 0)
    }
}

fn read_u16(at: Iova, bus: &mut BusPort<'_>) -> Result<u16, DmaFault> {
    let mut bytes = [0; 2];
    bus.dma_read(at, &mut bytes, Purpose::Descriptor)?;
    Ok(u16::from_le_bytes(bytes))
}
