//! `virtio-used-length`: copies as many bytes as the device says it wrote.

use super::disk::{Disk, LARGEST, whole_sectors};
use super::spec;
use crate::call::{Call, Driver, Serve, UNKNOWN};
use crate::variant::Variant;
use cofferdam_seam::service::DriverError;
use cofferdam_seam::{Deadline, DmaRegion, DriverHost};
use core::marker::PhantomData;

pub(crate) struct UsedLength<H: DriverHost, V> {
    disk: Disk<H>,
    /// Where an answer is put together before it goes to the caller.
    staging: [u8; LARGEST],
    variant: PhantomData<V>,
}

impl<H: DriverHost, V: Variant> UsedLength<H, V> {
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
        let arrived = (used.len as usize).saturating_sub(1);
        if self.disk.ring.status(0) != spec::OK || arrived < into.len() {
            return Err(DriverError::Io);
        }
        if !V::PLANTED && arrived > into.len() {
            return Err(DriverError::Protocol("more bytes than there was room for"));
        }
        let staged = &mut self.staging[..arrived];
        self.disk.region.read_at(0, staged);
        let len = into.len();
        into.copy_from_slice(&staged[..len]);
        Ok(len)
    }
}

impl<H: DriverHost, V: Variant> Driver<H> for UsedLength<H, V> {
    fn probe(host: H) -> Result<Self, DriverError> {
        Ok(Self {
            disk: Disk::probe(host)?,
            staging: [0; LARGEST],
            variant: PhantomData,
        })
    }
}

impl<H: DriverHost, V: Variant> Serve for UsedLength<H, V> {
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
