//! `virtio-length-underflow`: takes the status byte off a length that may be zero.

use super::disk::{Disk, whole_sectors};
use super::spec;
use crate::call::{Call, Driver, Serve, UNKNOWN};
use crate::variant::Variant;
use cofferdam_seam::service::DriverError;
use cofferdam_seam::{Deadline, DmaRegion, DriverHost};
use core::marker::PhantomData;

pub(crate) struct LengthUnderflow<H: DriverHost, V> {
    disk: Disk<H>,
    variant: PhantomData<V>,
}

impl<H: DriverHost, V: Variant> LengthUnderflow<H, V> {
    fn read(
        &mut self,
        sector: u64,
        into: &mut [u8],
        until: Deadline,
    ) -> Result<usize, DriverError> {
        whole_sectors(into)?;
        self.disk.send(spec::IN, sector, into.len())?;
        let used = self.disk.answer(until)?;
        self.disk.settle();
        let arrived = if V::PLANTED {
            used.len - 1
        } else {
            used.len.saturating_sub(1)
        };
        if self.disk.ring.status(0) != spec::OK || (arrived as usize) < into.len() {
            return Err(DriverError::Io);
        }
        self.disk.region.read_at(0, into);
        Ok(into.len())
    }
}

impl<H: DriverHost, V: Variant> Driver<H> for LengthUnderflow<H, V> {
    fn probe(host: H) -> Result<Self, DriverError> {
        Ok(Self {
            disk: Disk::probe(host)?,
            variant: PhantomData,
        })
    }
}

impl<H: DriverHost, V: Variant> Serve for LengthUnderflow<H, V> {
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
