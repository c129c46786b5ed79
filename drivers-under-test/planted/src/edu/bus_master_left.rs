//! `edu-bus-master-left`: leaves the device the bus when it goes.

use super::{BUFFER_LEN, Edu, check_round_trip};
use crate::call::{Call, Driver, Serve, UNKNOWN};
use crate::variant::Variant;
use cofferdam_seam::service::DriverError;
use cofferdam_seam::{Deadline, Direction, DmaRegion, DriverHost};
use core::marker::PhantomData;

pub(crate) struct BusMasterLeft<H: DriverHost, V: Variant> {
    region: H::Dma,
    edu: Edu<H>,
    lost: bool,
    variant: PhantomData<V>,
}

impl<H: DriverHost, V: Variant> BusMasterLeft<H, V> {
    fn copy(&mut self, len: usize, way: Direction, until: Deadline) -> Result<(), DriverError> {
        let mapping = self.edu.host.map(&self.region, 0..len, way)?;
        self.edu.start_copy(mapping.iova, mapping.len, way);
        if let Err(error) = self.edu.copied(until) {
            self.lost = true;
            return Err(error);
        }
        self.edu.host.unmap(mapping);
        Ok(())
    }
}

impl<H: DriverHost, V: Variant> Driver<H> for BusMasterLeft<H, V> {
    fn probe(host: H) -> Result<Self, DriverError> {
        let mut edu = Edu::open(host)?;
        let region = edu.host.alloc_dma(BUFFER_LEN)?;
        edu.start()?;
        Ok(Self {
            region,
            edu,
            lost: false,
            variant: PhantomData,
        })
    }
}

impl<H: DriverHost, V: Variant> Serve for BusMasterLeft<H, V> {
    fn call(
        &mut self,
        call: Call<'_>,
        into: &mut [u8],
        until: Deadline,
    ) -> Result<usize, DriverError> {
        let Call::RoundTrip(out) = call else {
            return Err(UNKNOWN);
        };
        check_round_trip(out, into)?;
        if self.lost {
            return Err(DriverError::Protocol("an earlier copy never ended"));
        }
        self.region.write_at(0, out);
        self.copy(out.len(), Direction::ToDevice, until)?;
        self.copy(out.len(), Direction::FromDevice, until)?;
        self.region.read_at(0, &mut into[..out.len()]);
        Ok(out.len())
    }
}

impl<H: DriverHost, V: Variant> Drop for BusMasterLeft<H, V> {
    fn drop(&mut self) {
        if !V::PLANTED {
            self.edu.stop();
        }
    }
}
