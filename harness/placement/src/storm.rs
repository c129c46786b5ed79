//! A storm of locked increments by the driver's CPU (B8).
//!
//! One that crosses a cache line is a split lock: the processor has no line to hold and locks the bus
//! instead, against every core (SDM 3A, 10.1.2). One within a line holds that line and disturbs nobody:
//! the same loop with such is the control.

use crate::link::monotonic;
use cofferdam_microvm::Death;
use core::arch::asm;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Bytes of a cache line of every x86-64 processor.
const LINE: usize = 64;
/// How often the rate is kept to, while a storm lasts, and what a sample of split locks takes at least:
/// next to it the way into a guest is little.
const TICK: Duration = Duration::from_millis(1);
/// Increments of a sample: from so many on twice as many, until they take as long as that.
const FEWEST: u32 = 8;
const MOST: u32 = 1024;
/// Samples of each kind.
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Price {
    /// Within a line.
    pub aligned_ps: u64,
    /// Across two.
    pub split_ps: u64,
    /// Whether as many across lines as within took what only a locked bus does.
    pub proves: bool,
}

/// Whether a domain that died of that was ended for a split lock: by the kernel's detection, or by KVM's
/// bus-lock exit.
pub fn is_end_of(death: &str) -> bool {
    death.contains("SIGBUS") || death.contains(&Death::BusLock.to_string())
}

impl Storm {
    /// Makes it: `lock` makes so many increments, within a line or across, on the driver's CPU. Tells what
    /// they cost there, unless it is the control.
    pub fn rage<E>(
        &self,
        mut lock: impl FnMut(bool, u32) -> Result<(), E>,
    ) -> Result<Option<Price>, E> {
        let tick = nanos(TICK);
        let mut each = u64::from(self.per_second) * tick / 1_000_000_000;
        let mut price = None;
        if !self.aligned {
            let measured = measure(&mut lock)?;
            // Some hosts let one take so long that a tick has room for a few.
            each = each.min(tick.saturating_mul(1000) / measured.split_ps.max(1));
            price = Some(measured);
        }
        let each = u32::try_from(each).unwrap_or(u32::MAX).max(1);
        let until = monotonic().saturating_add(nanos(self.lasts));
        let mut next = monotonic();
        while monotonic() < until {
            lock(self.aligned, each)?;
            next = next.saturating_add(tick);
            while monotonic() < next.min(until) {
                std::hint::spin_loop();
            }
        }
        Ok(price)
    }
}

/// What an increment costs: the least of some samples, as whatever disturbs one makes it longer.
fn measure<E>(lock: &mut impl FnMut(bool, u32) -> Result<(), E>) -> Result<Price, E> {
    let mut count = FEWEST;
    let mut took = timed(|| lock(false, count))?;
    while took < nanos(TICK) && count < MOST {
        count *= 2;
        took = timed(|| lock(false, count))?;
    }
    // The last is what one takes without the way there, which a few share in the others.
    let mut least = [u64::MAX; 3];
    for _ in 0..SAMPLES {
        let kinds = [(true, count), (false, count), (true, MOST)];
        for ((aligned, count), least) in kinds.into_iter().zip(&mut least) {
            *least = timed(|| lock(aligned, count))?.min(*least);
        }
    }
    let [as_many, split, within] = least;
    let each = |ns: u64, count: u32| ns.saturating_mul(1000) / u64::from(count);
    Ok(Price {
        aligned_ps: each(within, MOST),
        split_ps: each(split, count),
        proves: split >= as_many.saturating_mul(PROOF),
    })
}

fn timed<E>(sample: impl FnOnce() -> Result<(), E>) -> Result<u64, E> {
    let started = monotonic();
    sample()?;
    Ok(monotonic() - started)
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
            let [split, within] = made;
            if aligned {
                assert!(within >= 1000 && split == 0, "{made:?}");
            } else {
                // Samples of both, and then the storm.
                assert!(within >= SAMPLES * MOST && split > 0, "{made:?}");
            }
        }
    }

    #[test]
    fn storm_ends_in_time_where_each_increment_takes_long() {
        let storm = Storm {
            aligned: false,
            per_second: 1_000_000,
            lasts: Duration::from_millis(5),
        };
        let mut most = 0;

        let price = storm.rage(|aligned, count| {
            most = most.max(if aligned { 0 } else { count });
            // What a host that slows down who makes one lets it take.
            let until = monotonic() + u64::from(!aligned) * u64::from(count) * 100_000;
            while monotonic() < until {}
            Ok::<_, Infallible>(())
        });

        assert!(most <= 2 * 1_000_000 / 100_000, "{most}");
        let price = price.ok().flatten().expect("it is no control");
        assert!(price.proves && price.split_ps >= 100_000_000, "{price:?}");
    }

    #[test]
    fn only_what_ends_split_locks_is_taken_for_their_end() {
        assert!(is_end_of("SIGBUS"));
        assert!(is_end_of(
            "panic: in the guest: the driver locked the bus at x.rs:1"
        ));
        assert!(!is_end_of("killed by the supervisor: no sign of life"));
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
        assert!(price.proves, "{price:?}");
    }
}
