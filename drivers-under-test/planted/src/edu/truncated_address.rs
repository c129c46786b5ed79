//! `edu-truncated-address`: keeps the address of its buffer in 32 bits.
//!
//! It never told its host that it needs low addresses; on a platform that hands out higher ones
//! the device is sent elsewhere.

use super::{BUFFER_LEN, Edu, check_round_trip};
use crate::call::{Call, Driver, Serve, UNKNOWN};
use crate::variant::Variant;
use cofferdam_seam::service::DriverError;
use cofferdam_seam::{Deadline, Direction, DmaRegion, DriverHost, Iova};
use core::marker::PhantomData;

pub(crate) struct TruncatedAddress<H: DriverHost, V> {
    region: H::Dma,
    edu: Edu<H>,
    lost: bool,
    variant: PhantomData<V>,
}

impl<H: DriverHost, V: Variant> TruncatedAddress<H, V> {
    fn copy(&mut self, len: usize, way: Direction, until: Deadline) -> Result<(), DriverError> {
        let mapping = self.edu.host.map(&self.region, 0..len, way)?;
        #[expect(clippy::cast_possible_truncation, reason = "the planted defect")]
        let at = if V::PLANTED {
            Iova((mapping.iova.0 as u32).into())
        } else {
            mapping.iova
        };
        self.edu.start_copy(at, mapping.len, way);
        if let Err(error) = self.edu.copied(until) {
            self.lost = true;
            return Err(error);
        }
        self.edu.host.unmap(mapping);
        Ok(())
    }
}

impl<H: DriverHost, V: Variant> Driver<H> for TruncatedAddress<H, V> {
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

impl<H: DriverHost, V: Variant> Serve for TruncatedAddress<H, V> {
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

impl<H: DriverHost, V> Drop for TruncatedAddress<H, V> {
    fn drop(&mut self) {
        self.edu.stop();
    }
}
