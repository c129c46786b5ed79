//! What a driver does for the rest of the world, by class of device. Workloads and conformance
//! suites know drivers only through these traits.

use crate::{Deadline, HostError};
use thiserror::Error;

/// Why a driver could not do its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DriverError {
    /// The host refused or failed.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The device did not do this before the deadline.
    #[error("timed out waiting for {0}")]
    TimedOut(&'static str),
    /// The device is not one this driver drives, or lacks something it needs.
    #[error("unsupported device: {0}")]
    Unsupported(&'static str),
    /// The device broke its protocol; the driver must be started afresh.
    #[error("the device broke its protocol: {0}")]
    Protocol(&'static str),
    /// The device reports that this one request failed; the driver is well.
    #[error("the device reports an I/O error")]
    Io,
    /// The request itself is wrong.
    #[error("bad request: {0}")]
    BadRequest(&'static str),
}

impl DriverError {
    /// Whether the driver can go on serving other requests.
    pub const fn is_request_only(self) -> bool {
        matches!(self, Self::Io | Self::BadRequest(_))
    }
}

/// Bytes in a sector.
pub const SECTOR: usize = 512;

/// Refuses a request of `len` bytes from `sector` on, unless it is whole sectors of a disk of
/// `capacity`: the check every driver of a disk makes first.
pub fn check_sectors(sector: u64, len: usize, capacity: u64) -> Result<(), DriverError> {
    if len == 0 || !len.is_multiple_of(SECTOR) {
        return Err(DriverError::BadRequest(
            "the length is not a positive multiple of 512",
        ));
    }
    let end = sector.checked_add((len / SECTOR) as u64);
    if end.is_none_or(|end| end > capacity) {
        return Err(DriverError::BadRequest("beyond the end of the disk"));
    }
    Ok(())
}

/// A block device. A write that returned `Ok` is durable.
pub trait Block {
    /// Sectors of 512 bytes.
    fn capacity(&self) -> u64;
    /// Reads whole sectors; `into` is a non-empty multiple of [`SECTOR`] long.
    fn read(&mut self, sector: u64, into: &mut [u8], until: Deadline) -> Result<(), DriverError>;
    /// Writes whole sectors.
    fn write(&mut self, sector: u64, from: &[u8], until: Deadline) -> Result<(), DriverError>;
}

/// A network interface. Frames are those of IEEE 802.3 from the destination address to the end of the
/// data, without the check sequence.
pub trait Net {
    /// The station address.
    fn address(&self) -> [u8; 6];
    /// Whether the link is up.
    fn is_link_up(&mut self) -> Result<bool, DriverError>;
    /// Hands a frame to the device. It may still be lost, as frames may.
    fn send(&mut self, frame: &[u8], until: Deadline) -> Result<(), DriverError>;
    /// The next frame that arrived or arrives; its length. Of one that is longer than `into` the rest
    /// is lost.
    fn receive(&mut self, into: &mut [u8], until: Deadline) -> Result<usize, DriverError>;
}

/// A device that computes: edu.
pub trait Compute {
    /// `n!` modulo 2^32.
    fn factorial(&mut self, n: u32, until: Deadline) -> Result<u32, DriverError>;
    /// Sends `out` through the device's memory and back into `back`, by DMA both ways. Both have
    /// the same length.
    fn round_trip(
        &mut self,
        out: &[u8],
        back: &mut [u8],
        until: Deadline,
    ) -> Result<(), DriverError>;
    /// The longest round trip, in bytes.
    fn round_trip_limit(&self) -> usize;
}
