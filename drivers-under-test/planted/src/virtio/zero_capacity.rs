//! `virtio-zero-capacity`: divides by what the configuration says.

use super::disk::Disk;
use crate::call::{Call, Driver, Serve, UNKNOWN};
use crate::variant::Variant;
use cofferdam_seam::service::DriverError;
use cofferdam_seam::{Deadline, DriverHost};
use core::marker::PhantomData;

/// Regions that the disk is cut into for statistics.
const REGIONS: usize = 8;

pub(crate) struct ZeroCapacity<H: DriverHost, V> {
    disk: Disk<H>,
    /// Sectors of a region.
    region: u64,
    requests: [u64; REGIONS],
    variant: PhantomData<V>,
}

impl<H: DriverHost, V: Variant> ZeroCapacity<H, V> {
    fn count(&mut self, sector: u64) {
        let region = usize::try_from(sector / self.region).unwrap_or(usize::MAX);
        self.requests[region.min(REGIONS - 1)] += 1;
    }
}

impl<H: DriverHost, V: Variant> Driver<H> for ZeroCapacity<H, V> {
    fn probe(host: H) -> Result<Self, DriverError> {
        let disk = Disk::probe(host)?;
        let capacity = disk.virtio.capacity();
        let region = capacity / REGIONS as u64;
        if !V::PLANTED && region == 0 {
            return Err(DriverError::Unsupported("the disk is too small"));
        }
        Ok(Self {
            disk,
            region,
            requests: [0; REGIONS],
            variant: PhantomData,
        })
    }
}

impl<H: DriverHost, V: Variant> Serve for ZeroCapacity<H, V> {
    fn call(
        &mut self,
        call: Call<'_>,
        into: &mut [u8],
        until: Deadline,
    ) -> Result<usize, DriverError> {
        match call {
            Call::Read(sector) => {
                self.count(sector);
                self.disk.read(sector, into, until)
            }
            Call::Write(sector, from) => {
                self.count(sector);
                self.disk.write(sector, from, until)
            }
            _ => Err(UNKNOWN),
        }
    }
}
