//! `virtio-fabricated-data`: takes success for data, however little the device wrote, and passes
//! what its caller's buffer held before for the device's.

use super::disk::{Disk, whole_sectors};
use super::spec;
use crate::call::{Call, Driver, Serve, UNKNOWN};
use crate::variant::Variant;
use cofferdam_seam::service::DriverError;
use cofferdam_seam::{Deadline, DmaRegion, DriverHost};
use core::marker::PhantomData;

pub(crate) struct FabricatedData<H: DriverHost, V> {
    disk: Disk<H>,
    variant: PhantomData<V>,
}

impl<H: DriverHost, V: Variant> FabricatedData<H, V> {
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
        // The status byte comes after the data.
        let arrived = (used.len as usize).saturating_sub(1).min(into.len());
        if self.disk.ring.status(0) != spec::OK {
            return Err(DriverError::Io);
        }
        if !V::PLANTED && arrived < into.len() {
            return Err(DriverError::Protocol("success with data missing"));
        }
        self.disk.region.read_at(0, &mut into[..arrived]);
        Ok(into.len())
    }
}

impl<H: DriverHost, V: Variant> Driver<H> for FabricatedData<H, V> {
    fn probe(host: H) -> Result<Self, DriverError> {
        Ok(Self {
            disk: Disk::probe(host)?,
            variant: PhantomData,
        })
    }
}

impl<H: DriverHost, V: Variant> Serve for FabricatedData<H, V> {
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
