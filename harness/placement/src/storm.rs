//! A storm of locked increments by the driver's CPU (B8).
//!
//! One that crosses a cache line is a split lock: the processor has no line to hold and locks the bus
//! instead, against every core (SDM 3A, 10.1.2). One within a line holds that line and disturbs nobody:
//! the same loop with such is the control.

use crate::link::monotonic;
use core::arch::asm;
use std::time::Duration;

/// Bytes of a cache line of every x86-64 processor.
const LINE: usize = 64;
/// How often the rate is kept to, while a storm lasts.
const TICK: Duration = Duration::from_millis(1);
/// Increments of a sample that shows what one costs, and how many samples there are.
const SAMPLE: u32 = 500;
const SAMPLES: u32 = 3;
/// How many times as long as one within a line it must take, or no bus was locked. On processors
/// it is several hundred times.
pub const PROOF: u64 = 5;

/// A storm to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Storm {
    /// Within a line: the control.
    pub aligned: bool,
    /// Increments a second, at most.
    pub per_second: u32,
    /// How long it lasts.
    pub lasts: Duration,
}

/// What one locked increment costs the processor that makes it, in picoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Price {
    /// Within a line.
    pub aligned_ps: u64,
    /// Across two.
    pub split_ps: u64,
}

impl Price {
    /// Whether increments across lines cost what only a locked bus does.
    pub const fn proves(&self) -> bool {
        self.split_ps >= self.aligned_ps.saturating_mul(PROOF)
    }
}

impl Storm {
    /// Makes it: `lock` makes so many increments, within a line or across, on the driver's CPU. Tells what
    /// they cost there, unless it is the control.
    pub fn rage<E>(
        &self,
        mut lock: impl FnMut(bool, u32) -> Result<(), E>,
    ) -> Result<Option<Price>, E> {
        let price = if self.aligned {
            None
        } else {
            Some(Price {
                aligned_ps: cheapest(|| lock(true, SAMPLE))?,
                split_ps: cheapest(|| lock(false, SAMPLE))?,
            })
        };
        let tick = nanos(TICK);
        let each = u32::try_from(u64::from(self.per_second) * tick / 1_000_000_000).unwrap_or(1);
        let until = monotonic().saturating_add(nanos(self.lasts));
        let mut next = monotonic();
        while monotonic() < until {
            lock(self.aligned, each.max(1))?;
            next = next.saturating_add(tick);
            while monotonic() < next.min(until) {
                std::hint::spin_loop();
            }
        }
        Ok(price)
    }
}

/// The least that an increment of some samples took: whatever disturbs one makes it longer.
fn cheapest<E>(mut sample: impl FnMut() -> Result<(), E>) -> Result<u64, E> {
    let mut least = u64::MAX;
    for _ in 0..SAMPLES {
        let started = monotonic();
        sample()?;
        least = least.min(monotonic() - started);
    }
    Ok(least.saturating_mul(1000) / u64::from(SAMPLE))
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Two lines, and nothing else on them.
#[repr(align(64))]
struct Lines([u8; 2 * LINE]);

/// So many locked increments in this process, within a line or across two.
pub fn increments(aligned: bool, count: u32) {
    let mut lines = Lines([0; 2 * LINE]);
    let at = if aligned { 0 } else { LINE - 2 };
    let word = (&raw mut lines.0).cast::<u8>().wrapping_add(at);
    for _ in 0..count {
        // SAFETY: the four bytes lie in `lines`, which nobody else uses; x86 increments them wherever
        // they are.
        unsafe { asm!("lock inc dword ptr [{}]", in(reg) word, options(nostack)) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    #[test]
    fn storm_makes_the_increments_it_says_and_the_control_no_other() {
        for aligned in [false, true] {
            let mut made = [0_u32; 2];
            let storm = Storm {
                aligned,
                per_second: 1_000_000,
                lasts: Duration::from_millis(3),
            };

            let raged = storm.rage(|aligned, count| {
                made[usize::from(aligned)] += count;
                Ok::<_, Infallible>(())
            });

            assert_eq!(raged.map(|price| price.is_some()), Ok(!aligned));
            assert!(made[usize::from(aligned)] >= 1000);
            assert_eq!(made[usize::from(!aligned)], if aligned { 0 } else { 1500 });
        }
    }

    #[test]
    fn storm_that_is_ended_ends_at_once() {
        let storm = Storm {
            aligned: false,
            per_second: 1000,
            lasts: Duration::from_secs(3600),
        };

        assert_eq!(storm.rage(|_, _| Err("dead")), Err("dead"));
    }

    #[test]
    fn increment_across_lines_costs_what_a_locked_bus_does() {
        let storm = Storm {
            aligned: false,
            per_second: 1,
            lasts: Duration::ZERO,
        };

        let price = storm.rage(|aligned, count| {
            increments(aligned, count);
            Ok::<_, Infallible>(())
        });

        let price = price.ok().flatten().expect("it is no control");
        assert!(price.proves(), "{price:?}");
    }
}
