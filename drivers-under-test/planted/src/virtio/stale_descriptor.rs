//! `virtio-stale-descriptor`: retries a failed request with descriptors whose buffer it took back.

use super::disk::{Disk, whole_sectors};
use super::spec;
use crate::call::{Call, Driver, Serve, UNKNOWN};
use crate::variant::Variant;
use cofferdam_seam::service::DriverError;
use cofferdam_seam::{Deadline, DmaRegion, DriverHost};
use core::marker::PhantomData;

pub(crate) struct StaleDescriptor<H: DriverHost, V> {
    disk: Disk<H>,
    variant: PhantomData<V>,
}

impl<H: DriverHost, V: Variant> StaleDescriptor<H, V> {
    /// One attempt is over: whether it was good. The buffer is ours again.
    fn attempt(&mut self, len: usize, until: Deadline) -> Result<bool, DriverError> {
        let used = self.disk.answer(until)?;
        self.disk.settle();
        Ok(self.disk.ring.status(0) == spec::OK && used.len as usize > len)
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
            if V::PLANTED {
                // The chain is still in the table: its head is all the device needs.
                self.disk.ring.publish(0);
                self.disk.virtio.notify();
            } else {
                self.disk.send(spec::IN, sector, into.len())?;
            }
            if !self.attempt(into.len(), until)? {
                return Err(DriverError::Io);
            }
        }
        self.disk.region.read_at(0, into);
        Ok(into.len())
    }
}

impl<H: DriverHost, V: Variant> Driver<H> for StaleDescriptor<H, V> {
    fn probe(host: H) -> Result<Self, DriverError> {
        Ok(Self {
            disk: Disk::probe(host)?,
            variant: PhantomData,
        })
    }
}

impl<H: DriverHost, V: Variant> Serve for StaleDescriptor<H, V> {
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
