//! `edu-status-poll`: waits for a status bit for as long as the device cares to set it.

use super::{COMPUTING, Edu, FACTORIAL, STATUS};
use crate::call::{Call, Driver, Serve, UNKNOWN};
use crate::variant::Variant;
use cofferdam_seam::service::DriverError;
use cofferdam_seam::{Deadline, DriverHost, Mmio};
use core::marker::PhantomData;

pub(crate) struct StatusPoll<H: DriverHost, V> {
    edu: Edu<H>,
    variant: PhantomData<V>,
}

impl<H: DriverHost, V: Variant> StatusPoll<H, V> {
    fn factorial(&mut self, n: u32, until: Deadline) -> Result<u32, DriverError> {
        self.edu.regs.write32(STATUS, 0);
        self.edu.regs.write32(FACTORIAL, n);
        while self.edu.regs.read32(STATUS) & COMPUTING != 0 {
            if !V::PLANTED && until.passed(self.edu.host.now()) {
                return Err(DriverError::TimedOut("the factorial"));
            }
            self.edu.host.relax()?;
        }
        Ok(self.edu.regs.read32(FACTORIAL))
    }
}

impl<H: DriverHost, V: Variant> Driver<H> for StatusPoll<H, V> {
    fn probe(host: H) -> Result<Self, DriverError> {
        Ok(Self {
            edu: Edu::open(host)?,
            variant: PhantomData,
        })
    }
}

impl<H: DriverHost, V: Variant> Serve for StatusPoll<H, V> {
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
