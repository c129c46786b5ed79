//! `virtio-identify-length`: tells its caller a length that the device made up.

use super::disk::Disk;
use super::spec::{self, ID_BYTES};
use crate::call::{Call, Driver, Serve, UNKNOWN};
use crate::variant::Variant;
use cofferdam_seam::service::DriverError;
use cofferdam_seam::{Deadline, DmaRegion, DriverHost};
use core::marker::PhantomData;

pub(crate) struct IdentifyLength<H: DriverHost, V> {
    disk: Disk<H>,
    variant: PhantomData<V>,
}

impl<H: DriverHost, V: Variant> IdentifyLength<H, V> {
    fn identify(&mut self, into: &mut [u8], until: Deadline) -> Result<usize, DriverError> {
        let into = into
            .get_mut(..ID_BYTES)
            .ok_or(DriverError::BadRequest("an identifier has 20 bytes"))?;
        self.disk.send(spec::GET_ID, 0, ID_BYTES)?;
        let used = self.disk.answer(until)?;
        self.disk.settle();
        let arrived = (used.len as usize).saturating_sub(1);
        if self.disk.ring.status(0) != spec::OK {
            return Err(DriverError::Io);
        }
        if !V::PLANTED && arrived != ID_BYTES {
            return Err(DriverError::Protocol("an identifier of another length"));
        }
        self.disk.region.read_at(0, into);
        Ok(arrived)
    }
}

impl<H: DriverHost, V: Variant> Driver<H> for IdentifyLength<H, V> {
    fn probe(host: H) -> Result<Self, DriverError> {
        Ok(Self {
            disk: Disk::probe(host)?,
            variant: PhantomData,
        })
    }
}

impl<H: DriverHost, V: Variant> Serve for IdentifyLength<H, V> {
    fn call(
        &mut self,
        call: Call<'_>,
        into: &mut [u8],
        until: Deadline,
    ) -> Result<usize, DriverError> {
        match call {
            Call::Identify => self.identify(into, until),
            Call::Read(sector) => self.disk.read(sector, into, until),
            Call::Write(sector, from) => self.disk.write(sector, from, until),
            _ => Err(UNKNOWN),
        }
    }
}
