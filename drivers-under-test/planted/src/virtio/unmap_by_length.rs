//! `virtio-unmap-by-length`: takes back as many pages as the device says it filled.
//!
//! Two requests can be in flight; their pages are queued in the order of the requests.

use super::disk::{Disk, LARGEST, whole_sectors};
use super::ring::{CHAIN, Data};
use super::spec;
use crate::call::{Call, Driver, Serve, UNKNOWN};
use crate::variant::Variant;
use alloc::collections::VecDeque;
use cofferdam_seam::service::{DriverError, SECTOR};
use cofferdam_seam::{Deadline, Direction, DmaRegion, DriverHost, Mapping};
use core::marker::PhantomData;

/// Bytes of a page, and of the largest request.
const PAGE: usize = 4096;
/// Requests at a time.
const DEPTH: u16 = 2;

pub(crate) struct UnmapByLength<H: DriverHost, V> {
    disk: Disk<H>,
    /// A page for each request.
    pages: H::Dma,
    /// The pages in flight, oldest first.
    mapped: VecDeque<Mapping>,
    variant: PhantomData<V>,
}

impl<H: DriverHost, V: Variant> UnmapByLength<H, V> {
    fn send(&mut self, slot: u16, sector: u64, len: usize) -> Result<(), DriverError> {
        let start = PAGE * usize::from(slot);
        self.pages.write_at(start, &[0; PAGE][..len]);
        let host = &mut self.disk.virtio.host;
        let mapping = host.map(&self.pages, start..start + len, Direction::FromDevice)?;
        let data = Data {
            at: mapping.iova,
            len: u32::try_from(len).map_err(|_| DriverError::BadRequest("too long"))?,
            incoming: true,
        };
        self.mapped.push_back(mapping);
        self.disk.ring.submit(slot, spec::IN, sector, data);
        Ok(())
    }

    /// Waits for the request in `slot`, which is the oldest, and takes its page back.
    fn finish(&mut self, slot: u16, len: usize, until: Deadline) -> Result<(), DriverError> {
        let used = self.disk.virtio.used(&mut self.disk.ring, until)?;
        if used.id != u32::from(CHAIN * slot) {
            return Err(DriverError::Protocol("requests end out of order"));
        }
        let arrived = (used.len as usize).saturating_sub(1);
        let pages = if V::PLANTED {
            arrived.div_ceil(PAGE)
        } else {
            1
        };
        for mapping in self.mapped.drain(..pages.min(self.mapped.len())) {
            self.disk.virtio.host.unmap(mapping);
        }
        if self.disk.ring.status(slot) != spec::OK || arrived < len {
            return Err(DriverError::Io);
        }
        Ok(())
    }

    fn read(
        &mut self,
        sector: u64,
        into: &mut [u8],
        until: Deadline,
    ) -> Result<usize, DriverError> {
        whole_sectors(into)?;
        if !self.mapped.is_empty() || self.disk.mapping.is_some() {
            return Err(DriverError::Protocol("an earlier request never ended"));
        }
        let half = (into.len() / SECTOR).div_ceil(DEPTH.into()) * SECTOR;
        let mut next = sector;
        for (slot, part) in (0..DEPTH).zip(into.chunks(half)) {
            self.send(slot, next, part.len())?;
            next = next.saturating_add((part.len() / SECTOR) as u64);
        }
        self.disk.virtio.notify();
        for (slot, part) in (0..DEPTH).zip(into.chunks_mut(half)) {
            self.finish(slot, part.len(), until)?;
            self.pages.read_at(PAGE * usize::from(slot), part);
        }
        Ok(into.len())
    }
}

impl<H: DriverHost, V: Variant> Driver<H> for UnmapByLength<H, V> {
    fn probe(host: H) -> Result<Self, DriverError> {
        let mut disk = Disk::probe(host)?;
        let pages = disk.virtio.host.alloc_dma(PAGE * usize::from(DEPTH))?;
        const { assert!(LARGEST <= PAGE) };
        Ok(Self {
            disk,
            pages,
            mapped: VecDeque::new(),
            variant: PhantomData,
        })
    }
}

impl<H: DriverHost, V: Variant> Serve for UnmapByLength<H, V> {
    fn call(
        &mut self,
        call: Call<'_>,
        into: &mut [u8],
        until: Deadline,
    ) -> Result<usize, DriverError> {
        match call {
            Call::Read(sector) => self.read(sector, into, until),
            Call::Write(sector, from) if self.mapped.is_empty() => {
                self.disk.write(sector, from, until)
            }
            _ => Err(UNKNOWN),
        }
    }
}
