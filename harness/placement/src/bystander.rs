//! What a bystander notices of the memory it shares with everybody: how fast it reads its own.
//!
//! By the host's clock only: under leap nobody else runs while it reads.

use crate::link::monotonic;
use crate::trial::{Reading, SharedMemory};
use std::hint::black_box;

/// Bytes read: more than the caches of one core hold.
const BYTES: usize = 32 << 20;
/// Bytes of a cache line.
const LINE: usize = 64;
/// What is timed at once: so many lots of 64 lines in order, and of 64 lines one after the other.
const IN_ORDER: usize = 32;
const SCATTERED: usize = 4;
/// Lines of a lot.
const LOT: usize = 64;
/// Figures kept of each kind; more would come of a host that stops the clock.
const MOST: usize = 1 << 14;

/// Figures of one kind of moment.
#[derive(Default)]
struct Figures {
    in_order: Vec<u64>,
    scattered: Vec<u64>,
}

impl Figures {
    fn reading(&self) -> Reading {
        Reading {
            in_order_ns: median(&self.in_order),
            scattered_ns: median(&self.scattered),
            samples: u32::try_from(self.in_order.len()).unwrap_or(u32::MAX),
        }
    }
}

fn median(figures: &[u64]) -> u64 {
    let mut sorted = figures.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or(0)
}

/// A bystander that reads.
pub struct Bystander {
    memory: Vec<u64>,
    at: usize,
    quiet: Figures,
    during: Figures,
}

impl Bystander {
    /// One with memory of its own.
    pub fn new() -> Self {
        Self {
            // Written, or every page of it is the same one of zeros.
            memory: vec![1; BYTES / size_of::<u64>()],
            at: 0,
            quiet: Figures::default(),
            during: Figures::default(),
        }
    }

    /// Reads for some ten microseconds, while the storm should be on or before it.
    pub fn read(&mut self, during: bool) {
        let in_order = self.timed(IN_ORDER, |memory, at| {
            let lines = LINE / size_of::<u64>();
            (0..LOT * IN_ORDER).fold(0, |sum, nth| {
                sum + memory[(at + nth * lines) % memory.len()]
            })
        });
        let scattered = self.timed(SCATTERED, |memory, at| {
            // Each address depends on what was read before, so that no two reads overlap.
            (0..LOT * SCATTERED).fold(at as u64, |last, _| {
                let mixed = last.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let line = usize::try_from(mixed >> 33).unwrap_or(0) % memory.len();
                mixed.wrapping_add(memory[line])
            })
        });
        let figures = if during {
            &mut self.during
        } else {
            &mut self.quiet
        };
        if figures.in_order.len() < MOST {
            figures.in_order.push(in_order);
            figures.scattered.push(scattered);
        }
    }

    /// The time a lot took, ns.
    fn timed(&mut self, lots: usize, read: impl FnOnce(&[u64], usize) -> u64) -> u64 {
        let started = monotonic();
        let last = black_box(read(&self.memory, self.at));
        let took = monotonic() - started;
        // Somewhere else the next time.
        let step = LOT * lots * LINE / size_of::<u64>() + usize::from(last == u64::MAX);
        self.at = (self.at + step) % self.memory.len();
        took / u64::try_from(lots).unwrap_or(1)
    }

    /// What it noticed.
    pub fn noticed(&self) -> SharedMemory {
        SharedMemory {
            quiet: self.quiet.reading(),
            during: self.during.reading(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_is_told_apart_by_when_it_was() {
        let mut bystander = Bystander::new();

        for nth in 0..9 {
            bystander.read(nth >= 4);
        }

        let SharedMemory { quiet, during } = bystander.noticed();
        assert_eq!((quiet.samples, during.samples), (4, 5));
        for reading in [quiet, during] {
            // A line that waits for the one before takes longer than one in order.
            assert!(reading.in_order_ns > 0, "{reading:?}");
            assert!(reading.scattered_ns > reading.in_order_ns, "{reading:?}");
        }
    }

    #[test]
    fn nothing_read_is_no_figure() {
        let noticed = Bystander::new().noticed();

        assert_eq!(noticed, SharedMemory::default());
        assert_eq!(noticed.slowed_tenths(), None);
    }
}
