//! `virtio-double-fetch`: checks a length in the used ring, and reads it again to use it.
//!
//! The ring is the device's to write at any time, here while its interrupt status is read.

use super::disk::{Disk, LARGEST, whole_sectors};
use super::ring::Used;
use super::spec;
use crate::call::{Call, Driver, Serve, UNKNOWN};
use crate::variant::Variant;
use cofferdam_seam::service::DriverError;
use cofferdam_seam::{Deadline, DmaRegion, DriverHost};
use core::marker::PhantomData;

pub(crate) struct DoubleFetch<H: DriverHost, V> {
    disk: Disk<H>,
    staging: [u8; LARGEST],
    variant: PhantomData<V>,
}

impl<H: DriverHost, V: Variant> DoubleFetch<H, V> {
    /// The next used element, checked but still in the ring.
    fn checked(&mut self, room: usize, until: Deadline) -> Result<Used, DriverError> {
        loop {
            if let Some(used) = self.disk.ring.peek() {
                if used.id != 0 || used.len as usize > room {
                    return Err(DriverError::Protocol("a used element out of range"));
                }
                return Ok(used);
            }
            if !self.disk.virtio.interrupt(until)? {
                return Err(DriverError::TimedOut("a request"));
            }
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
        let checked = self.checked(into.len() + 1, until)?;
        self.disk.virtio.acknowledge();
        let used = if V::PLANTED {
            self.disk.ring.peek().unwrap_or(checked)
        } else {
            checked
        };
        self.disk.ring.advance();
        self.disk.settle();
        let arrived = (used.len as usize).saturating_sub(1);
        if self.disk.ring.status(0) != spec::OK || arrived < into.len() {
            return Err(DriverError::Io);
        }
        let staged = &mut self.staging[..arrived];
        self.disk.region.read_at(0, staged);
        let len = into.len();
        into.copy_from_slice(&staged[..len]);
        Ok(len)
    }
}

impl<H: DriverHost, V: Variant> Driver<H> for DoubleFetch<H, V> {
    fn probe(host: H) -> Result<Self, DriverError> {
        Ok(Self {
            disk: Disk::probe(host)?,
            staging: [0; LARGEST],
            variant: PhantomData,
        })
    }
}

impl<H: DriverHost, V: Variant> Serve for DoubleFetch<H, V> {
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
