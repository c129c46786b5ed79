//! `virtio-used-id-index`: looks a request up by the identifier the device returned.

use super::disk::{Disk, whole_sectors};
use super::ring::{CHAIN, SLOTS};
use super::spec;
use crate::call::{Call, Driver, Serve, UNKNOWN};
use crate::variant::Variant;
use cofferdam_seam::service::DriverError;
use cofferdam_seam::{Deadline, DmaRegion, DriverHost};
use core::marker::PhantomData;

pub(crate) struct UsedIdIndex<H: DriverHost, V> {
    disk: Disk<H>,
    /// Which slots the device owns.
    in_flight: [bool; SLOTS as usize],
    variant: PhantomData<V>,
}

impl<H: DriverHost, V: Variant> UsedIdIndex<H, V> {
    /// Notes that the device is done with the request of that identifier.
    fn complete(&mut self, id: u32) -> Result<(), DriverError> {
        let slot = (id / u32::from(CHAIN)) as usize;
        if !V::PLANTED && slot >= self.in_flight.len() {
            return Err(DriverError::Protocol("a used element names no slot"));
        }
        if !core::mem::take(&mut self.in_flight[slot]) {
            return Err(DriverError::Protocol("no such request in flight"));
        }
        self.disk.settle();
        Ok(())
    }

    fn transfer(
        &mut self,
        kind: u32,
        sector: u64,
        len: usize,
        until: Deadline,
    ) -> Result<(), DriverError> {
        self.disk.send(kind, sector, len)?;
        self.in_flight[0] = true;
        let used = self.disk.virtio.used(&mut self.disk.ring, until)?;
        self.complete(used.id)?;
        let arrived = kind == spec::OUT || used.len as usize > len;
        if self.disk.ring.status(0) != spec::OK || !arrived {
            return Err(DriverError::Io);
        }
        Ok(())
    }
}

impl<H: DriverHost, V: Variant> Driver<H> for UsedIdIndex<H, V> {
    fn probe(host: H) -> Result<Self, DriverError> {
        Ok(Self {
            disk: Disk::probe(host)?,
            in_flight: [false; SLOTS as usize],
            variant: PhantomData,
        })
    }
}

impl<H: DriverHost, V: Variant> Serve for UsedIdIndex<H, V> {
    fn call(
        &mut self,
        call: Call<'_>,
        into: &mut [u8],
        until: Deadline,
    ) -> Result<usize, DriverError> {
        match call {
            Call::Read(sector) => {
                whole_sectors(into)?;
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
