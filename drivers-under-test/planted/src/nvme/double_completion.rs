//! `nvme-double-completion`: gives the page of a command back each time the command completes.

use super::disk::{Disk, whole_sectors};
use super::spec;
use super::spec::PAGE;
use crate::call::{Call, Driver, Serve, UNKNOWN};
use crate::variant::Variant;
use cofferdam_seam::service::DriverError;
use cofferdam_seam::{Deadline, Direction, DmaRegion, DriverHost, Iova, Mapping};
use core::marker::PhantomData;

/// Commands that have a page of their own.
const SLOTS: u16 = 2;
/// A command's slot takes the low bits of its identifier, a number that counts its uses the others.
const SLOT_BITS: u32 = 4;
const SLOT: u16 = (1 << SLOT_BITS) - 1;

/// A command's page, as it was mapped last.
#[derive(Clone, Copy)]
struct Slot {
    iova: Iova,
    len: usize,
    id: u64,
    cid: u16,
    in_flight: bool,
}

pub(crate) struct DoubleCompletion<H: DriverHost, V> {
    disk: Disk<H>,
    pages: H::Dma,
    slots: [Option<Slot>; SLOTS as usize],
    next: u16,
    /// Commands so far, modulo 2^12.
    uses: u16,
    variant: PhantomData<V>,
}

impl<H: DriverHost, V: Variant> DoubleCompletion<H, V> {
    /// Takes back the page of the command `cid`.
    fn complete(&mut self, cid: u16) -> Result<(), DriverError> {
        let slot = self.slots.get_mut(usize::from(cid & SLOT));
        let slot = slot.and_then(Option::as_mut);
        let slot = slot.ok_or(DriverError::Protocol("a completion of no command of ours"))?;
        let ours = slot.in_flight && slot.cid == cid;
        if !V::PLANTED && !ours {
            return Err(DriverError::Protocol("a command completes twice"));
        }
        slot.in_flight = false;
        let (iova, len, id) = (slot.iova, slot.len, slot.id);
        self.disk.nvme.host.unmap(Mapping { iova, len, id });
        Ok(())
    }

    fn transfer(
        &mut self,
        opcode: u8,
        sector: u64,
        len: usize,
        until: Deadline,
    ) -> Result<usize, DriverError> {
        if self.slots.iter().flatten().any(|slot| slot.in_flight) {
            return Err(DriverError::Protocol("an earlier command never ended"));
        }
        let slot = usize::from(self.next);
        let start = PAGE * slot;
        let way = if opcode == spec::READ {
            Direction::FromDevice
        } else {
            Direction::ToDevice
        };
        let host = &mut self.disk.nvme.host;
        let mapping = host.map(&self.pages, start..start + len, way)?;
        let (iova, len, id) = (mapping.iova, mapping.len, mapping.id);
        self.uses = (self.uses + 1) % (1 << (16 - SLOT_BITS));
        let cid = self.uses << SLOT_BITS | self.next;
        self.slots[slot] = Some(Slot {
            iova,
            len,
            id,
            cid,
            in_flight: true,
        });
        self.disk.nvme.send(cid, opcode, sector, iova, len);
        self.next = (self.next + 1) % SLOTS;
        loop {
            let completion = self.disk.nvme.completion(until)?;
            self.complete(completion.cid)?;
            if completion.cid == cid {
                return match completion.status {
                    0 => Ok(start),
                    _ => Err(DriverError::Io),
                };
            }
        }
    }
}

impl<H: DriverHost, V: Variant> Driver<H> for DoubleCompletion<H, V> {
    fn probe(host: H) -> Result<Self, DriverError> {
        let mut disk = Disk::probe(host)?;
        let pages = disk.nvme.host.alloc_dma(PAGE * usize::from(SLOTS))?;
        Ok(Self {
            disk,
            pages,
            slots: [None; SLOTS as usize],
            next: 0,
            uses: 0,
            variant: PhantomData,
        })
    }
}

impl<H: DriverHost, V: Variant> Serve for DoubleCompletion<H, V> {
    fn call(
        &mut self,
        call: Call<'_>,
        into: &mut [u8],
        until: Deadline,
    ) -> Result<usize, DriverError> {
        let page = PAGE * usize::from(self.next);
        match call {
            Call::Read(sector) => {
                whole_sectors(into)?;
                self.pages.write_at(page, &[0; PAGE][..into.len()]);
                let page = self.transfer(spec::READ, sector, into.len(), until)?;
                self.pages.read_at(page, into);
                Ok(into.len())
            }
            Call::Write(sector, from) => {
                whole_sectors(from)?;
                self.pages.write_at(page, from);
                self.transfer(spec::WRITE, sector, from.len(), until)?;
                Ok(0)
            }
            _ => Err(UNKNOWN),
        }
    }
}
