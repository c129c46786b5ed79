//! Loads of instrumented code from one range of memory: whether a loop looks at what a device writes.

use std::cell::Cell;
use std::ops::Range;

thread_local! {
    static FIRST: Cell<usize> = const { Cell::new(0) };
    static LEN: Cell<usize> = const { Cell::new(0) };
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

/// Counts this thread's loads from `addresses` from now on; an empty range counts none.
pub fn watch(addresses: Range<usize>) {
    FIRST.set(addresses.start);
    LEN.set(addresses.len());
    COUNT.set(0);
}

/// Loads since the range was set.
pub fn count() -> u64 {
    COUNT.get()
}

/// A load.
#[inline]
pub(crate) fn loaded(address: usize) {
    if address.wrapping_sub(FIRST.get()) < LEN.get() {
        COUNT.set(COUNT.get().saturating_add(1));
    }
}
