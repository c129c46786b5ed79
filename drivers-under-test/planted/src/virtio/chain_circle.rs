//! `virtio-chain-circle`: follows a chain to its end, in a table the device can write.

use super::disk::{Disk, whole_sectors};
use super::ring::{CHAIN, SIZE};
use super::spec;
use crate::call::{Call, Driver, Serve, UNKNOWN};
use crate::variant::Variant;
use cofferdam_seam::service::DriverError;
use cofferdam_seam::{Deadline, DmaRegion, DriverHost};
use core::marker::PhantomData;

pub(crate) struct ChainCircle<H: DriverHost, V> {
    disk: Disk<H>,
    /// Descriptors nobody uses.
    free: u16,
    variant: PhantomData<V>,
}

impl<H: DriverHost, V: Variant> ChainCircle<H, V> {
    /// Descriptors of the chain at `head`, which are free again.
    fn release(&mut self, head: u16) {
        let ring = &self.disk.ring;
        if !V::PLANTED {
            self.free += CHAIN;
            return;
        }
        let mut at = head;
        self.free = self.free.saturating_add(1);
        while ring.flags_of(at) & spec::NEXT != 0 {
            at = ring.next_of(at);
            self.free = self.free.saturating_add(1);
        }
    }

    fn read(
        &mut self,
        sector: u64,
        into: &mut [u8],
        until: Deadline,
    ) -> Result<usize, DriverError> {
        whole_sectors(into)?;
        self.disk.send(spec::IN, sector, into.len())?;
        self.free = self.free.saturating_sub(CHAIN);
        let used = self.disk.answer(until)?;
        self.disk.settle();
        self.release(0);
        let arrived = (used.len as usize).saturating_sub(1);
        if self.disk.ring.status(0) != spec::OK || arrived < into.len() {
            return Err(DriverError::Io);
        }
        self.disk.region.read_at(0, into);
        Ok(into.len())
    }
}

impl<H: DriverHost, V: Variant> Driver<H> for ChainCircle<H, V> {
    fn probe(host: H) -> Result<Self, DriverError> {
        Ok(Self {
            disk: Disk::probe(host)?,
            free: SIZE,
            variant: PhantomData,
        })
    }
}

impl<H: DriverHost, V: Variant> Serve for ChainCircle<H, V> {
    fn call(
        &mut self,
        call: Call<'_>,
        into: &mut [u8],
        until: Deadline,
    ) -> Result<usize, DriverError> {
        match call {
            Call::Read(sector) => self.read(sector, into, until),
            Call::Write(sector, from) => self.disk.write(sector, from, until),
            _ => Err(UNKNOWN),
        }
    }
}
