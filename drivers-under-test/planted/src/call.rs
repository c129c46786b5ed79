//! What a driver is asked to do, whatever its class.

use cofferdam_seam::service::DriverError;
use cofferdam_seam::{Deadline, DriverHost};

/// One request to a driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call<'a> {
    /// `n!` modulo 2^32, four bytes little endian (edu).
    Factorial(u32),
    /// These bytes to the device's memory and back (edu); 1 to 4096 of them.
    RoundTrip(&'a [u8]),
    /// Whole sectors from that one on, as many as the answer has room for (disks).
    Read(u64),
    /// Whole sectors from that one on (disks).
    Write(u64, &'a [u8]),
    /// The device's identifier (virtio).
    Identify,
}

/// A driver at work.
pub trait Serve {
    /// Carries out one call and tells how many bytes of `into` are the answer.
    ///
    /// # Errors
    ///
    /// [`BadRequest`](DriverError::BadRequest) if this driver does not know the call or its
    /// parameters are wrong; else what went wrong with host or device.
    fn call(
        &mut self,
        call: Call<'_>,
        into: &mut [u8],
        until: Deadline,
    ) -> Result<usize, DriverError>;
}

/// A driver from its probe on. Dropping it removes it from its device.
pub(crate) trait Driver<H: DriverHost>: Serve + Sized {
    fn probe(host: H) -> Result<Self, DriverError>;
}

/// For calls of another class of device.
pub(crate) const UNKNOWN: DriverError = DriverError::BadRequest("this driver has no such call");
