//! `edu-scratch-cookie`: keeps its own state in a register of the device and takes it back unseen.

use super::{Edu, FACTORIAL, FACTORIAL_DONE, LIVENESS};
use crate::call::{Call, Driver, Serve, UNKNOWN};
use crate::variant::Variant;
use cofferdam_seam::service::DriverError;
use cofferdam_seam::{Deadline, DriverHost, Mmio};
use core::marker::PhantomData;

const SLOTS: u32 = 4;

pub(crate) struct ScratchCookie<H: DriverHost, V> {
    edu: Edu<H>,
    results: [Option<u32>; SLOTS as usize],
    next: u32,
    variant: PhantomData<V>,
}

impl<H: DriverHost, V: Variant> ScratchCookie<H, V> {
    /// Files the result under the slot of the request the device finished.
    fn complete(&mut self) -> Result<(), DriverError> {
        // The device hands out the inverse of what was stored.
        let cookie = !self.edu.regs.read32(LIVENESS) as usize;
        let result = self.edu.regs.read32(FACTORIAL);
        if !V::PLANTED && cookie >= self.results.len() {
            return Err(DriverError::Protocol("the cookie is not one of ours"));
        }
        self.results[cookie] = Some(result);
        Ok(())
    }

    fn factorial(&mut self, n: u32, until: Deadline) -> Result<u32, DriverError> {
        let slot = self.next;
        self.next = (slot + 1) % SLOTS;
        self.edu.regs.write32(LIVENESS, slot);
        self.edu.start_factorial(n);
        self.edu.done(FACTORIAL_DONE, until)?;
        self.complete()?;
        self.results[slot as usize]
            .take()
            .ok_or(DriverError::Protocol("another request was completed"))
    }
}

impl<H: DriverHost, V: Variant> Driver<H> for ScratchCookie<H, V> {
    fn probe(host: H) -> Result<Self, DriverError> {
        let mut edu = Edu::open(host)?;
        edu.start()?;
        Ok(Self {
            edu,
            results: [None; SLOTS as usize],
            next: 0,
            variant: PhantomData,
        })
    }
}

impl<H: DriverHost, V: Variant> Serve for ScratchCookie<H, V> {
    fn call(
        &mut self,
        call: Call<'_>,
        into: &mut [u8],
        until: Deadline,
    ) -> Result<usize, DriverError> {
        match (call, into.get_mut(..4)) {
            (Call::Factorial(n), Some(into)) => {
                into.copy_from_slice(&self.factorial(n, until)?.to_le_bytes());
                Ok(4)
            }
            _ => Err(UNKNOWN),
        }
    }
}

impl<H: DriverHost, V> Drop for ScratchCookie<H, V> {
    fn drop(&mut self) {
        self.edu.stop();
    }
}
