//! `edu-leak-on-timeout`: gives up a buffer, its mapping included, when a copy does not end.

use super::{Edu, check_round_trip};
use crate::call::{Call, Driver, Serve, UNKNOWN};
use crate::variant::Variant;
use alloc::vec::Vec;
use cofferdam_seam::service::DriverError;
use cofferdam_seam::{Deadline, Direction, DmaRegion, DriverHost};
use core::marker::PhantomData;

pub(crate) struct LeakOnTimeout<H: DriverHost, V> {
    /// What the device may still reach; dropped after drop took the bus away.
    quarantine: Vec<H::Dma>,
    edu: Edu<H>,
    variant: PhantomData<V>,
}

impl<H: DriverHost, V: Variant> LeakOnTimeout<H, V> {
    /// Copies by a buffer of its own, made anew each time.
    fn copy(
        &mut self,
        bytes: &mut [u8],
        way: Direction,
        until: Deadline,
    ) -> Result<(), DriverError> {
        let region = self.edu.host.alloc_dma(bytes.len())?;
        region.write_at(0, bytes);
        let mapping = self.edu.host.map(&region, 0..bytes.len(), way)?;
        self.edu.start_copy(mapping.iova, mapping.len, way);
        if let Err(error) = self.edu.copied(until) {
            if V::PLANTED {
                // The device may still write there, so nobody else may have it.
                core::mem::forget(region);
            } else {
                self.quarantine.push(region);
            }
            return Err(error);
        }
        self.edu.host.unmap(mapping);
        region.read_at(0, bytes);
        Ok(())
    }
}

impl<H: DriverHost, V: Variant> Driver<H> for LeakOnTimeout<H, V> {
    fn probe(host: H) -> Result<Self, DriverError> {
        let mut edu = Edu::open(host)?;
        edu.start()?;
        Ok(Self {
            quarantine: Vec::new(),
            edu,
            variant: PhantomData,
        })
    }
}

impl<H: DriverHost, V: Variant> Serve for LeakOnTimeout<H, V> {
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
        if self.edu.copying() {
            return Err(DriverError::Protocol("an earlier copy never ended"));
        }
        let into = &mut into[..out.len()];
        into.copy_from_slice(out);
        self.copy(into, Direction::ToDevice, until)?;
        into.fill(0);
        self.copy(into, Direction::FromDevice, until)?;
        Ok(out.len())
    }
}

impl<H: DriverHost, V> Drop for LeakOnTimeout<H, V> {
    fn drop(&mut self) {
        self.edu.stop();
    }
}
