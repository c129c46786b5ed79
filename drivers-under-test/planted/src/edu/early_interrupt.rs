//! `edu-early-interrupt`: its handler takes for granted that a request is pending.
//!
//! An interrupt may come the moment it is enabled, before the first request was made.

use super::{Edu, FACTORIAL, FACTORIAL_DONE};
use crate::call::{Call, Driver, Serve, UNKNOWN};
use crate::variant::Variant;
use cofferdam_seam::service::DriverError;
use cofferdam_seam::{Deadline, DriverHost, Mmio};
use core::marker::PhantomData;
use core::time::Duration;

/// How long the probe listens for interrupts of an earlier life.
const SETTLE: Duration = Duration::from_micros(50);

struct Pending {
    result: Option<u32>,
}

pub(crate) struct EarlyInterrupt<H: DriverHost, V> {
    edu: Edu<H>,
    pending: Option<Pending>,
    variant: PhantomData<V>,
}

impl<H: DriverHost, V: Variant> EarlyInterrupt<H, V> {
    fn handle_interrupt(&mut self, reasons: u32) {
        if reasons & FACTORIAL_DONE == 0 {
            return;
        }
        let result = self.edu.regs.read32(FACTORIAL);
        let pending = if V::PLANTED {
            self.pending.as_mut().unwrap()
        } else {
            match self.pending.as_mut() {
                Some(pending) => pending,
                None => return,
            }
        };
        pending.result = Some(result);
    }

    fn factorial(&mut self, n: u32, until: Deadline) -> Result<u32, DriverError> {
        self.pending = Some(Pending { result: None });
        self.edu.start_factorial(n);
        while let Some(reasons) = self.edu.interrupt(until)? {
            self.handle_interrupt(reasons);
            if let Some(result) = self.pending.as_ref().and_then(|pending| pending.result) {
                self.pending = None;
                return Ok(result);
            }
        }
        Err(DriverError::TimedOut("the factorial"))
    }
}

impl<H: DriverHost, V: Variant> Driver<H> for EarlyInterrupt<H, V> {
    fn probe(host: H) -> Result<Self, DriverError> {
        let mut driver = Self {
            edu: Edu::open(host)?,
            pending: None,
            variant: PhantomData,
        };
        driver.edu.start()?;
        let until = Deadline::after(driver.edu.host.now(), SETTLE);
        while let Some(reasons) = driver.edu.interrupt(until)? {
            driver.handle_interrupt(reasons);
        }
        Ok(driver)
    }
}

impl<H: DriverHost, V: Variant> Serve for EarlyInterrupt<H, V> {
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

impl<H: DriverHost, V> Drop for EarlyInterrupt<H, V> {
    fn drop(&mut self) {
        self.edu.stop();
    }
}
