//! `virtio-identify-scan`: looks for the last character of an identifier, from behind, in as many bytes as
//! the device says it wrote, if that is no more than a request can have: more than the heap block holds.

#![expect(unsafe_code, reason = "nothing else reads beyond a block")]

use super::disk::{Disk, LARGEST};
use super::spec::{self, ID_BYTES};
use crate::call::{Call, Driver, Serve, UNKNOWN};
use crate::variant::Variant;
use alloc::vec;
use cofferdam_seam::service::DriverError;
use cofferdam_seam::{Deadline, DmaRegion, DriverHost};
use core::marker::PhantomData;

pub(crate) struct IdentifyScan<H: DriverHost, V> {
    disk: Disk<H>,
    variant: PhantomData<V>,
}

impl<H: DriverHost, V: Variant> IdentifyScan<H, V> {
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
        let most = if V::PLANTED { LARGEST } else { ID_BYTES };
        if arrived > most {
            return Err(DriverError::Protocol("more bytes than there was room for"));
        }
        let mut id = vec![0; ID_BYTES];
        self.disk.region.read_at(0, &mut id);
        // SAFETY: as many bytes arrived as were asked for, at most: what the planted check gets wrong.
        let told = |at: &usize| unsafe { id.as_ptr().add(*at).read() } != 0;
        let len = (0..arrived).rev().find(told).map_or(0, |last| last + 1);
        into.copy_from_slice(&id);
        Ok(len.min(ID_BYTES))
    }
}

impl<H: DriverHost, V: Variant> Driver<H> for IdentifyScan<H, V> {
    fn probe(host: H) -> Result<Self, DriverError> {
        Ok(Self {
            disk: Disk::probe(host)?,
            variant: PhantomData,
        })
    }
}

impl<H: DriverHost, V: Variant> Serve for IdentifyScan<H, V> {
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
