//! `edu-interrupt-loop`: handles interrupts until the device has no more reasons for one.

use super::{Edu, FACTORIAL, FACTORIAL_DONE, INTERRUPT_ACKNOWLEDGE, INTERRUPT_STATUS, VECTOR};
use crate::call::{Call, Driver, Serve, UNKNOWN};
use crate::variant::Variant;
use cofferdam_seam::service::DriverError;
use cofferdam_seam::{Deadline, DriverHost, Mmio, Wake};
use core::marker::PhantomData;

/// Rounds of one handler call; whatever is still pending then interrupts again.
const ROUNDS: u32 = 16;

pub(crate) struct InterruptLoop<H: DriverHost, V> {
    edu: Edu<H>,
    variant: PhantomData<V>,
}

impl<H: DriverHost, V: Variant> InterruptLoop<H, V> {
    /// Handles everything that is pending; tells which reasons there were.
    fn handle_interrupt(&mut self) -> u32 {
        let mut seen = 0;
        let mut rounds = 0;
        loop {
            let reasons = self.edu.regs.read32(INTERRUPT_STATUS);
            if reasons == 0 {
                return seen;
            }
            self.edu.regs.write32(INTERRUPT_ACKNOWLEDGE, reasons);
            seen |= reasons;
            rounds += 1;
            if !V::PLANTED && rounds == ROUNDS {
                return seen;
            }
        }
    }

    fn factorial(&mut self, n: u32, until: Deadline) -> Result<u32, DriverError> {
        self.edu.start_factorial(n);
        while let Wake::Interrupt(_) = self.edu.host.wait_any(&[VECTOR], until)? {
            if self.handle_interrupt() & FACTORIAL_DONE != 0 {
                return Ok(self.edu.regs.read32(FACTORIAL));
            }
            if until.passed(self.edu.host.now()) {
                break;
            }
        }
        Err(DriverError::TimedOut("the factorial"))
    }
}

impl<H: DriverHost, V: Variant> Driver<H> for InterruptLoop<H, V> {
    fn probe(host: H) -> Result<Self, DriverError> {
        let mut edu = Edu::open(host)?;
        edu.start()?;
        Ok(Self {
            edu,
            variant: PhantomData,
        })
    }
}

impl<H: DriverHost, V: Variant> Serve for InterruptLoop<H, V> {
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

impl<H: DriverHost, V> Drop for InterruptLoop<H, V> {
    fn drop(&mut self) {
        self.edu.stop();
    }
}
