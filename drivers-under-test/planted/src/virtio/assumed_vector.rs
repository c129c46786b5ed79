//! `virtio-assumed-vector`: waits for the second of two vectors, whatever it was given.

use super::disk::{Disk, whole_sectors};
use super::{QUEUE_VECTOR, spec};
use crate::call::{Call, Driver, Serve, UNKNOWN};
use crate::variant::Variant;
use cofferdam_seam::service::DriverError;
use cofferdam_seam::{Deadline, DmaRegion, DriverHost};
use core::marker::PhantomData;

pub(crate) struct AssumedVector<H: DriverHost, V> {
    disk: Disk<H>,
    variant: PhantomData<V>,
}

impl<H: DriverHost, V: Variant> AssumedVector<H, V> {
    fn transfer(
        &mut self,
        kind: u32,
        sector: u64,
        len: usize,
        until: Deadline,
    ) -> Result<(), DriverError> {
        self.disk.send(kind, sector, len)?;
        let vector = if V::PLANTED {
            QUEUE_VECTOR
        } else {
            self.disk.virtio.vector
        };
        let used = loop {
            if let Some(used) = self.disk.ring.take() {
                break used;
            }
            if until.passed(self.disk.virtio.host.now()) {
                return Err(DriverError::TimedOut("a request"));
            }
            self.disk.virtio.host.wait_any(&[vector], until)?;
            self.disk.virtio.acknowledge();
        };
        if used.id != 0 {
            return Err(DriverError::Protocol("a used element names no request"));
        }
        self.disk.settle();
        let arrived = kind == spec::OUT || used.len as usize > len;
        if self.disk.ring.status(0) != spec::OK || !arrived {
            return Err(DriverError::Io);
        }
        Ok(())
    }
}

impl<H: DriverHost, V: Variant> Driver<H> for AssumedVector<H, V> {
    fn probe(host: H) -> Result<Self, DriverError> {
        Ok(Self {
            disk: Disk::probe(host)?,
            variant: PhantomData,
        })
    }
}

impl<H: DriverHost, V: Variant> Serve for AssumedVector<H, V> {
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
