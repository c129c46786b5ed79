//! `edu-timeout-unmap`: takes the buffer back at the deadline while the device still copies.

use super::{BUFFER_LEN, Edu, FACTORIAL, FACTORIAL_DONE, check_round_trip};
use crate::call::{Call, Driver, Serve, UNKNOWN};
use crate::variant::Variant;
use cofferdam_seam::service::DriverError;
use cofferdam_seam::{Deadline, Direction, DmaRegion, DriverHost, Mmio};
use core::marker::PhantomData;

pub(crate) struct TimeoutUnmap<H: DriverHost, V> {
    region: H::Dma,
    edu: Edu<H>,
    /// A copy may still be under way.
    lost: bool,
    variant: PhantomData<V>,
}

impl<H: DriverHost, V: Variant> TimeoutUnmap<H, V> {
    fn copy(&mut self, len: usize, way: Direction, until: Deadline) -> Result<(), DriverError> {
        let mapping = self.edu.host.map(&self.region, 0..len, way)?;
        self.edu.start_copy(mapping.iova, mapping.len, way);
        let copied = self.edu.copied(until);
        if copied.is_err() && !V::PLANTED {
            // The buffer stays the device's until drop has taken the bus away.
            self.lost = true;
            return copied;
        }
        self.edu.host.unmap(mapping);
        copied
    }

    fn factorial(
        &mut self,
        n: u32,
        into: &mut [u8],
        until: Deadline,
    ) -> Result<usize, DriverError> {
        let into = into.get_mut(..4).ok_or(UNKNOWN)?;
        self.edu.start_factorial(n);
        self.edu.done(FACTORIAL_DONE, until)?;
        into.copy_from_slice(&self.edu.regs.read32(FACTORIAL).to_le_bytes());
        Ok(4)
    }
}

impl<H: DriverHost, V: Variant> Driver<H> for TimeoutUnmap<H, V> {
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

impl<H: DriverHost, V: Variant> Serve for TimeoutUnmap<H, V> {
    fn call(
        &mut self,
        call: Call<'_>,
        into: &mut [u8],
        until: Deadline,
    ) -> Result<usize, DriverError> {
        let out = match call {
            Call::RoundTrip(out) => out,
            Call::Factorial(n) => return self.factorial(n, into, until),
            _ => return Err(UNKNOWN),
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

impl<H: DriverHost, V> Drop for TimeoutUnmap<H, V> {
    fn drop(&mut self) {
        self.edu.stop();
    }
}
