//! `ax_sync`: the spin locks that `dma_api` guards its pools of buffers with. The crate leaves the
//! locking itself to the operating system.
//!
//! There are no interrupts to disable here: a driver's handlers run when its adapter calls them.

use ax_crate_interface::impl_interface;
use ax_sync::interface::{AcquireResult, ContextState, LockMetadata, SpinOps};
use std::panic::Location;
use std::sync::atomic::{AtomicBool, Ordering};

/// Nothing was changed, so nothing is restored.
const UNCHANGED: ContextState = ContextState::new(0, 0);

struct Locks;

#[impl_interface]
impl SpinOps for Locks {
    fn acquire(
        locked: &AtomicBool,
        _metadata: &LockMetadata,
        _lock_addr: usize,
        _context: u8,
        _subclass: u32,
        caller: &'static Location<'static>,
    ) -> ContextState {
        // A driver and its pools belong to one thread, so whoever waits would wait for itself.
        assert!(
            !locked.swap(true, Ordering::Acquire),
            "a spin lock is taken again by its holder, at {caller}"
        );
        UNCHANGED
    }

    fn try_acquire(
        locked: &AtomicBool,
        _metadata: &LockMetadata,
        _lock_addr: usize,
        _context: u8,
        _subclass: u32,
        _caller: &'static Location<'static>,
    ) -> AcquireResult {
        AcquireResult::new(!locked.swap(true, Ordering::Acquire), UNCHANGED)
    }

    fn release(locked: &AtomicBool, _lock_addr: usize, _context: u8, _state: ContextState) {
        locked.store(false, Ordering::Release);
    }

    fn force_release(locked: &AtomicBool, _lock_addr: usize, _context: u8) {
        locked.store(false, Ordering::Release);
    }

    fn is_locked(locked: &AtomicBool) -> bool {
        locked.load(Ordering::Relaxed)
    }
}
