//! `virtio-free-list-in-ring`: keeps its list of free descriptors in memory the device can write.

use super::disk::{Disk, LARGEST, whole_sectors};
use super::ring::{CHAIN, Data, SLOTS};
use super::spec;
use crate::call::{Call, Driver, Serve, UNKNOWN};
use crate::variant::Variant;
use cofferdam_seam::service::DriverError;
use cofferdam_seam::{Deadline, Direction, DmaRegion, DriverHost, Iova, Mapping};
use core::marker::PhantomData;

/// The end of the list: slots are numbered below it.
const NONE: u16 = SLOTS;

pub(crate) struct FreeListInRing<H: DriverHost, V> {
    disk: Disk<H>,
    /// The buffer of each slot, while the device has it.
    mapped: [Option<Mapping>; SLOTS as usize],
    /// The first free slot, and the last.
    free: u16,
    last: u16,
    /// What follows each free slot.
    next: [u16; SLOTS as usize],
    variant: PhantomData<V>,
}

impl<H: DriverHost, V: Variant> FreeListInRing<H, V> {
    /// The slot that follows a free one: the list goes through the last descriptor of each chain.
    fn following(&self, slot: u16) -> u16 {
        if V::PLANTED {
            self.disk.ring.next_of(CHAIN * slot + 2)
        } else {
            self.next[usize::from(slot)]
        }
    }

    /// Puts a slot at the end of the list.
    fn release(&mut self, slot: u16) {
        if self.free == NONE {
            self.free = slot;
        } else {
            self.link(self.last, slot);
        }
        self.link(slot, NONE);
        self.last = slot;
    }

    /// Makes `next` follow the free slot `slot`, in the table and in our copy.
    fn link(&mut self, slot: u16, next: u16) {
        self.disk
            .ring
            .describe(CHAIN * slot + 2, Iova(0), 0, 0, next);
        self.next[usize::from(slot)] = next;
    }

    fn transfer(
        &mut self,
        kind: u32,
        sector: u64,
        len: usize,
        until: Deadline,
    ) -> Result<(), DriverError> {
        let slot = self.free;
        if slot == NONE {
            return Err(DriverError::Protocol("earlier requests never ended"));
        }
        // Until it is known to be over, a request keeps its slot and its buffer.
        if self.mapped[usize::from(slot)].is_some() {
            return Err(DriverError::Protocol("an earlier request never ended"));
        }
        self.free = self.following(slot);
        let incoming = kind == spec::IN;
        let way = [Direction::ToDevice, Direction::FromDevice][usize::from(incoming)];
        let mapping = self.disk.virtio.host.map(&self.disk.region, 0..len, way)?;
        let data = Data {
            at: mapping.iova,
            len: u32::try_from(len).map_err(|_| DriverError::BadRequest("too long"))?,
            incoming,
        };
        self.mapped[usize::from(slot)] = Some(mapping);
        self.disk.ring.submit(slot, kind, sector, data);
        self.disk.virtio.notify();
        let used = self.disk.virtio.used(&mut self.disk.ring, until)?;
        if used.id != u32::from(CHAIN * slot) {
            return Err(DriverError::Protocol("a used element names no request"));
        }
        if let Some(mapping) = self.mapped[usize::from(slot)].take() {
            self.disk.virtio.host.unmap(mapping);
        }
        let good = self.disk.ring.status(slot) == spec::OK;
        self.release(slot);
        if !good || (incoming && used.len as usize <= len) {
            return Err(DriverError::Io);
        }
        Ok(())
    }
}

impl<H: DriverHost, V: Variant> Driver<H> for FreeListInRing<H, V> {
    fn probe(host: H) -> Result<Self, DriverError> {
        let mut driver = Self {
            disk: Disk::probe(host)?,
            mapped: [const { None }; SLOTS as usize],
            free: 0,
            last: SLOTS - 1,
            next: [NONE; SLOTS as usize],
            variant: PhantomData,
        };
        for slot in 0..SLOTS {
            driver.link(slot, slot + 1);
        }
        Ok(driver)
    }
}

impl<H: DriverHost, V: Variant> Serve for FreeListInRing<H, V> {
    fn call(
        &mut self,
        call: Call<'_>,
        into: &mut [u8],
        until: Deadline,
    ) -> Result<usize, DriverError> {
        match call {
            Call::Read(sector) => {
                whole_sectors(into)?;
                self.disk.region.write_at(0, &[0; LARGEST][..into.len()]);
                self.transfer(spec::IN, sector, into.len(), until)?;
                self.disk.region.read_at(0, into);
                Ok(into.len())
            }
            Call::Write(sector, from) => {
                whole_sectors(from)?;
                self.disk.region.write_at(0, from);
                self.transfer(spec::OUT, sector, from.len(), until)?;
                Ok(0)
            }
            _ => Err(UNKNOWN),
        }
    }
}
