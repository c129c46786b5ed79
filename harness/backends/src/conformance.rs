//! What every driver of a class must do, over every backend and in every placement.
//!
//! The suites are for tests: a broken promise panics with what was promised. They need a device
//! without faults. Each leaves the driver in working order.

use cofferdam_seam::service::{Block, Compute, DriverError, SECTOR};
use cofferdam_seam::{Deadline, Time};
use std::fmt::Debug;
use std::time::Duration;

/// How long one request of a healthy device may take.
const PATIENCE: Duration = Duration::from_millis(100);

/// Requests in a row: several times round any queue.
const MANY: u64 = 300;

/// A block driver, on a device of at least 16 sectors. What they hold afterwards is undefined.
///
/// # Panics
///
/// If the driver breaks a promise of [`Block`].
pub fn block(driver: &mut impl Block, now: impl Fn() -> Time) {
    block_within(driver, PATIENCE, now);
}

/// A block driver whose device may take that long for a request.
///
/// # Panics
///
/// If the driver breaks a promise of [`Block`].
pub fn block_within(driver: &mut impl Block, patience: Duration, now: impl Fn() -> Time) {
    let until = || Deadline::after(now(), patience);
    let capacity = driver.capacity();
    assert!(capacity >= 16, "the suite needs 16 sectors, not {capacity}");

    reads_back_what_it_wrote(driver, &until);
    leaves_the_neighbours_alone(driver, &until);
    serves_the_last_sector_and_nothing_beyond(driver, &until);
    refuses_what_is_no_whole_sector(driver, &until);
    serves_more_requests_than_its_queue_holds(driver, &until);
}

fn reads_back_what_it_wrote(driver: &mut impl Block, until: &impl Fn() -> Deadline) {
    for sectors in [1, 2, 8] {
        let written = noise(sectors * SECTOR, 1);
        let mut read = vec![0; written.len()];
        done(driver.write(3, &written, until()));
        done(driver.read(3, &mut read, until()));
        assert!(read == written, "{sectors} sectors read back differ");
    }
}

fn leaves_the_neighbours_alone(driver: &mut impl Block, until: &impl Fn() -> Deadline) {
    let before = noise(3 * SECTOR, 2);
    let middle = noise(SECTOR, 3);
    done(driver.write(4, &before, until()));
    done(driver.write(5, &middle, until()));
    let mut after = vec![0; before.len()];
    done(driver.read(4, &mut after, until()));
    assert!(after[..SECTOR] == before[..SECTOR], "the sector before");
    assert!(after[SECTOR..2 * SECTOR] == middle, "the sector written");
    assert!(
        after[2 * SECTOR..] == before[2 * SECTOR..],
        "the sector after"
    );
}

fn serves_the_last_sector_and_nothing_beyond(
    driver: &mut impl Block,
    until: &impl Fn() -> Deadline,
) {
    let capacity = driver.capacity();
    let last = capacity - 1;
    let written = noise(SECTOR, 4);
    done(driver.write(last, &written, until()));

    let two = noise(2 * SECTOR, 5);
    for sector in [last, capacity, capacity + 1, u64::MAX - 1, u64::MAX] {
        refused(driver.write(sector, &two, until()), sector);
        refused(driver.read(sector, &mut two.clone(), until()), sector);
    }
    for sector in [capacity, u64::MAX / SECTOR as u64, u64::MAX] {
        refused(driver.write(sector, &two[..SECTOR], until()), sector);
    }

    let mut read = vec![0; SECTOR];
    done(driver.read(last, &mut read, until()));
    assert!(read == written, "a refused write changed the last sector");
}

fn refuses_what_is_no_whole_sector(driver: &mut impl Block, until: &impl Fn() -> Deadline) {
    let written = noise(SECTOR, 6);
    done(driver.write(7, &written, until()));
    for len in [0, 1, SECTOR - 1, SECTOR + 1] {
        refused(driver.write(7, &noise(len, 7), until()), len);
        refused(driver.read(7, &mut noise(len, 8), until()), len);
    }
    let mut read = vec![0; SECTOR];
    done(driver.read(7, &mut read, until()));
    assert!(read == written, "a refused write changed the sector");
}

fn serves_more_requests_than_its_queue_holds(
    driver: &mut impl Block,
    until: &impl Fn() -> Deadline,
) {
    for nth in 0..MANY {
        let sector = nth % driver.capacity();
        let written = noise(SECTOR, 9 + nth);
        let mut read = vec![0; SECTOR];
        done(driver.write(sector, &written, until()));
        done(driver.read(sector, &mut read, until()));
        assert!(read == written, "request {nth} at sector {sector} differs");
    }
}

/// A compute driver.
///
/// # Panics
///
/// If the driver breaks a promise of [`Compute`].
pub fn compute(driver: &mut impl Compute, now: impl Fn() -> Time) {
    compute_within(driver, PATIENCE, now);
}

/// A compute driver whose device may take that long for a request: QEMU's edu moves its data after
/// 100 ms, twice in a round trip.
///
/// # Panics
///
/// If the driver breaks a promise of [`Compute`].
pub fn compute_within(driver: &mut impl Compute, patience: Duration, now: impl Fn() -> Time) {
    let until = || Deadline::after(now(), patience);
    computes_factorials(driver, &until);
    brings_every_byte_back(driver, &until);
    refuses_transfers_it_cannot_make(driver, &until);
    brings_every_byte_back(driver, &until);
    computes_factorials(driver, &until);
}

fn computes_factorials(driver: &mut impl Compute, until: &impl Fn() -> Deadline) {
    for (n, factorial) in [
        (0, 1),
        (1, 1),
        (5, 120),
        (12, 479_001_600),
        // 6,227,020,800 modulo 2^32.
        (13, 1_932_053_504),
        // The powers of two in 33! and 34!: 31 and 32.
        (33, 0x8000_0000),
        (34, 0),
    ] {
        let computed = done(driver.factorial(n, until()));
        assert_eq!(computed, factorial, "{n}! modulo 2^32");
    }
}

fn brings_every_byte_back(driver: &mut impl Compute, until: &impl Fn() -> Deadline) {
    let limit = driver.round_trip_limit();
    let lengths = [1, 7, 8, 512, 4095, 4096, limit];
    for len in lengths.into_iter().filter(|&len| len <= limit) {
        let out = noise(len, 10);
        let mut back = vec![0; len];
        done(driver.round_trip(&out, &mut back, until()));
        assert!(back == out, "{len} bytes came back different");
    }
}

fn refuses_transfers_it_cannot_make(driver: &mut impl Compute, until: &impl Fn() -> Deadline) {
    let long = driver.round_trip_limit() + 1;
    let out = noise(long, 11);
    refused(driver.round_trip(&out, &mut vec![0; long], until()), long);
    let unequal = driver.round_trip(&out[..8], &mut [0; 7], until());
    refused(unequal, "8 bytes out, 7 back");
}

#[track_caller]
fn done<T>(result: Result<T, DriverError>) -> T {
    result.unwrap_or_else(|error| panic!("a proper request failed: {error}"))
}

/// That only the request is wrong, and the driver is well.
#[track_caller]
fn refused<T: Debug>(result: Result<T, DriverError>, what: impl Debug) {
    match result {
        Err(error) if error.is_request_only() => {}
        other => panic!("{what:?} was to be refused as a bad request, not {other:?}"),
    }
}

/// Bytes that differ from place to place and from seed to seed.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        // xorshift64*, of which the top byte is good.
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_be_bytes()[0]
    };
    (0..len).map(|_| next()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk in memory, and the promise it breaks.
    struct Disk {
        bytes: Vec<u8>,
        breaks: Option<Promise>,
    }

    #[derive(Clone, Copy, PartialEq)]
    enum Promise {
        RefusesOverrun,
        RefusesPartialSectors,
        KeepsNeighbours,
    }

    impl Disk {
        fn breaking(breaks: Option<Promise>) -> Self {
            Self {
                bytes: vec![0; 16 * SECTOR],
                breaks,
            }
        }

        fn range(&self, sector: u64, len: usize) -> Result<std::ops::Range<usize>, DriverError> {
            let whole = len > 0 && len.is_multiple_of(SECTOR);
            if !whole && self.breaks != Some(Promise::RefusesPartialSectors) {
                return Err(DriverError::BadRequest("no whole sectors"));
            }
            let start = usize::try_from(sector)
                .ok()
                .and_then(|sector| sector.checked_mul(SECTOR));
            let end = start.and_then(|start| start.checked_add(len));
            match (start, end) {
                (Some(start), Some(end)) if end <= self.bytes.len() => Ok(start..end),
                _ if self.breaks == Some(Promise::RefusesOverrun) => Ok(0..len),
                _ => Err(DriverError::BadRequest("out of range")),
            }
        }
    }

    impl Block for Disk {
        fn capacity(&self) -> u64 {
            16
        }

        fn read(&mut self, sector: u64, into: &mut [u8], _: Deadline) -> Result<(), DriverError> {
            let range = self.range(sector, into.len())?;
            into.copy_from_slice(&self.bytes[range]);
            Ok(())
        }

        fn write(&mut self, sector: u64, from: &[u8], _: Deadline) -> Result<(), DriverError> {
            let range = self.range(sector, from.len())?;
            let end = range.end;
            self.bytes[range].copy_from_slice(from);
            if self.breaks == Some(Promise::KeepsNeighbours) && end < self.bytes.len() {
                self.bytes[end] ^= 1;
            }
            Ok(())
        }
    }

    fn now() -> Time {
        Time::ZERO
    }

    #[test]
    fn honest_disk_conforms() {
        block(&mut Disk::breaking(None), now);
    }

    #[test]
    #[should_panic(expected = "was to be refused")]
    fn disk_that_serves_beyond_its_end_does_not_conform() {
        block(&mut Disk::breaking(Some(Promise::RefusesOverrun)), now);
    }

    #[test]
    #[should_panic(expected = "was to be refused")]
    fn disk_that_serves_parts_of_sectors_does_not_conform() {
        block(
            &mut Disk::breaking(Some(Promise::RefusesPartialSectors)),
            now,
        );
    }

    #[test]
    #[should_panic(expected = "the sector after")]
    fn disk_that_touches_the_next_sector_does_not_conform() {
        block(&mut Disk::breaking(Some(Promise::KeepsNeighbours)), now);
    }
}
