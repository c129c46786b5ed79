//! Constants that instrumented code compares values with: what a mutator may try.

use std::sync::atomic::{AtomicU64, Ordering};

/// Constants that are kept; of two that fall into one slot the later.
const SLOTS: usize = 512;

static SEEN: [AtomicU64; SLOTS] = [const { AtomicU64::new(0) }; SLOTS];

/// A constant was compared with. Small ones are found without help.
#[inline]
pub(crate) fn compared(constant: u64) {
    if constant > 16 {
        let hash = constant.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 55;
        SEEN[hash as usize % SLOTS].store(constant, Ordering::Relaxed);
    }
}

/// The constants seen so far, in the order of their slots.
pub fn seen() -> Vec<u64> {
    let all = SEEN.iter().map(|slot| slot.load(Ordering::Relaxed));
    all.filter(|constant| *constant != 0).collect()
}
