//! `virtio-retry-direction`: maps the buffer of a retried read for the other direction.

use super::disk::{Disk, whole_sectors};
use super::ring::Data;
use super::spec;
use crate::call::{Call, Driver, Serve, UNKNOWN};
use crate::variant::Variant;
use cofferdam_seam::service::DriverError;
use cofferdam_seam::{Deadline, Direction, DmaRegion, DriverHost};
use core::marker::PhantomData;

pub(crate) struct RetryDirection<H: DriverHost, V> {
    disk: Disk<H>,
    variant: PhantomData<V>,
}

impl<H: DriverHost, V: Variant> RetryDirection<H, V> {
    fn attempt(&mut self, len: usize, until: Deadline) -> Result<bool, DriverError> {
        let used = self.disk.answer(until)?;
        self.disk.settle();
        Ok(self.disk.ring.status(0) == spec::OK && used.len as usize > len)
    }

    /// Sends a read once more, by a mapping of its own.
    fn retry(&mut self, sector: u64, len: usize) -> Result<(), DriverError> {
        let way = if V::PLANTED {
            Direction::ToDevice
        } else {
            Direction::FromDevice
        };
        let mapping = self.disk.virtio.host.map(&self.disk.region, 0..len, way)?;
        let data = Data {
            at: mapping.iova,
            len: u32::try_from(len).map_err(|_| DriverError::BadRequest("too long"))?,
            incoming: true,
        };
        self.disk.mapping = Some(mapping);
        self.disk.ring.submit(0, spec::IN, sector, data);
        self.disk.virtio.notify();
        Ok(())
    }

    fn read(
        &mut self,
        sector: u64,
        into: &mut [u8],
        until: Deadline,
    ) -> Result<usize, DriverError> {
        whole_sectors(into)?;
        self.disk.send(spec::IN, sector, into.len())?;
        if !self.attempt(into.len(), until)? {
            self.retry(sector, into.len())?;
            if !self.attempt(into.len(), until)? {
                return Err(DriverError::Io);
            }
        }
        self.disk.region.read_at(0, into);
        Ok(into.len())
    }
}

impl<H: DriverHost, V: Variant> Driver<H> for RetryDirection<H, V> {
    fn probe(host: H) -> Result<Self, DriverError> {
        Ok(Self {
            disk: Disk::probe(host)?,
            variant: PhantomData,
        })
    }
}

impl<H: DriverHost, V: Variant> Serve for RetryDirection<H, V> {
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
