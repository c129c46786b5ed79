//! Constants that instrumented code compares values with: what a mutator may try.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Constants that are kept; of two that fall into one slot the later.
const SLOTS: usize = 512;

static SEEN: [AtomicU64; SLOTS] = [const { AtomicU64::new(0) }; SLOTS];

static NOTED: AtomicBool = AtomicBool::new(true);

/// Whether constants are noted from now on.
pub fn note(on: bool) {
    NOTED.store(on, Ordering::Relaxed);
}

/// Forgets the constants seen so far: another program's driver is run from now on.
pub fn forget() {
    for slot in &SEEN {
        slot.store(0, Ordering::Relaxed);
    }
}

/// Whether constants are noted.
#[inline]
pub(crate) fn are_noted() -> bool {
    NOTED.load(Ordering::Relaxed)
}

/// A constant was compared with. Small ones are found without help.
#[inline]
pub(crate) fn compared(constant: u64) {
    if constant > 16 && are_noted() {
        let hash = constant.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 55;
        SEEN[hash as usize % SLOTS].store(constant, Ordering::Relaxed);
    }
}

/// The constants seen so far, in the order of their slots.
pub fn seen() -> Vec<u64> {
    let all = SEEN.iter().map(|slot| slot.load(Ordering::Relaxed));
    all.filter(|constant| *constant != 0).collect()
}
