//! The driver's heap: given back as a whole after every execution.
//!
//! A driver that is abandoned on its stack never frees anything. So what is allocated while driver
//! code runs comes from an arena, and the arena starts over with the next execution. A runner
//! installs it:
//!
//! ```
//! #[global_allocator]
//! static HEAP: cofferdam_fuzz::arena::Heap = cofferdam_fuzz::arena::Heap;
//! # fn main() {}
//! ```
//!
//! Without it, as in unit tests, what abandoned drivers held is lost for good. Freed blocks are not
//! reused within an execution: whoever still uses one sees its old bytes, the same every time. Under
//! AddressSanitizer that is a finding, as is whatever a driver does between `blocks`.

#![expect(unsafe_code, reason = "it is an allocator")]

mod blocks;

use crate::oracle::Oracle;
use crate::{sanitized, world};
use cofferdam_instrument::asan;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr;

/// Bytes a driver may allocate in an execution; what goes beyond comes from the system.
const WHOLE: usize = 32 << 20;

/// Bytes of the largest block under AddressSanitizer.
const MOST: usize = 1 << 30;

thread_local! {
    /// Driver code runs.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
    static FIRST: Cell<usize> = const { Cell::new(0) };
    static USED: Cell<usize> = const { Cell::new(0) };
    /// What the driver asked for in this execution and nobody has.
    static REFUSED: Cell<Option<usize>> = const { Cell::new(None) };
    /// Standard error, while it is closed: the standard library tells there of what an execution may do
    /// many thousand times in a campaign.
    static ERRORS: Cell<Option<libc::c_int>> = const { Cell::new(None) };
}

/// The allocator. Outside driver code it is the system's.
#[derive(Debug, Default)]
pub struct Heap;

/// The state before, which comes back when this is dropped.
#[must_use = "the allocator changes back when this is dropped"]
pub(crate) struct Switched {
    before: bool,
}

/// Driver code runs from now on.
pub(crate) fn inside() -> Switched {
    Switched {
        before: INSIDE.replace(true),
    }
}

/// Harness code runs from now on.
#[inline]
pub(crate) fn outside() -> Switched {
    Switched {
        before: INSIDE.replace(false),
    }
}

/// Whether driver code runs.
pub(crate) fn is_inside() -> bool {
    INSIDE.get()
}

impl Drop for Switched {
    #[inline]
    fn drop(&mut self) {
        INSIDE.set(self.before);
    }
}

/// Forgets every block of the arena, and that driver code ran.
///
/// # Safety
///
/// Nobody uses a block any more.
pub(crate) unsafe fn reset() {
    speak();
    INSIDE.set(false);
    let used = USED.replace(0);
    if asan::ON {
        blocks::forget(&(FIRST.get()..FIRST.get() + used));
    }
}

/// What an address is to a block of the arena, in words, if it is in the arena.
pub(crate) fn around(address: usize) -> Option<String> {
    is_ours(address as *mut u8).then(|| blocks::around(address))?
}

/// Bytes that the driver asked for in this execution and did not get.
pub(crate) fn refused() -> Option<usize> {
    REFUSED.get()
}

#[cold]
fn refuse(bytes: usize) {
    if REFUSED.get().is_none() {
        REFUSED.set(Some(bytes));
        hush();
    }
}

/// Closes standard error until the execution ends.
#[cold]
pub(crate) fn hush() {
    if ERRORS.get().is_some() {
        return;
    }
    // SAFETY: files of this process.
    let errors = unsafe {
        let errors = libc::dup(libc::STDERR_FILENO);
        let nothing = libc::open(c"/dev/null".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        libc::dup2(nothing, libc::STDERR_FILENO);
        libc::close(nothing);
        errors
    };
    ERRORS.set(Some(errors));
}

/// Opens standard error again, if it was closed.
pub(crate) fn speak() {
    REFUSED.set(None);
    if let Some(errors) = ERRORS.take() {
        // SAFETY: the file was kept for that.
        unsafe {
            libc::dup2(errors, libc::STDERR_FILENO);
            libc::close(errors);
        }
    }
}

/// Whether a driver asks for more than AddressSanitizer, which marks every byte, can be asked for.
fn is_too_much(len: usize) -> bool {
    asan::ON && INSIDE.get() && len > MOST
}

fn first() -> Option<usize> {
    if FIRST.get() == 0 {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: fresh addresses; a thread has its arena until the process ends.
        let mapped = unsafe { libc::mmap(ptr::null_mut(), WHOLE, protection, flags, -1, 0) };
        if mapped == libc::MAP_FAILED {
            return None;
        }
        FIRST.set(mapped as usize);
        asan::poison(&(FIRST.get()..FIRST.get() + WHOLE));
    }
    Some(FIRST.get())
}

fn is_ours(block: *mut u8) -> bool {
    (block as usize).wrapping_sub(FIRST.get()) < WHOLE && FIRST.get() != 0
}

fn allocate(layout: Layout) -> Option<*mut u8> {
    let first = first()?;
    let (lead, align, trail) = if asan::ON {
        (blocks::LEAD, blocks::ALIGN, blocks::trail(layout.size()))
    } else {
        (0, 1, 0)
    };
    let start = (first + USED.get() + lead).checked_next_multiple_of(layout.align().max(align))?;
    let end = start.checked_add(layout.size())?.checked_sub(first)?;
    if end + trail > WHOLE {
        return None;
    }
    USED.set(end + trail);
    if asan::ON {
        blocks::begin(start, layout.size());
    }
    Some(start as *mut u8)
}

// SAFETY: blocks of the arena do not overlap until `reset`, whose caller vouches for that; all others
// are the system's, and go back there.
unsafe impl GlobalAlloc for Heap {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if INSIDE.get()
            && let Some(block) = allocate(layout)
        {
            return block;
        }
        if is_too_much(layout.size()) {
            refuse(layout.size());
            return ptr::null_mut();
        }
        // SAFETY: the caller's promise.
        let block = unsafe { System.alloc(layout) };
        if block.is_null() && INSIDE.get() {
            refuse(layout.size());
        }
        block
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if is_ours(block) {
            if INSIDE.get() {
                freed(block as usize, layout.size());
                if asan::ON && !blocks::end(block as usize) {
                    sanitized::freed_twice(block as usize);
                }
            }
            return;
        }
        // SAFETY: not the arena's, so the system's.
        unsafe { System.dealloc(block, layout) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if INSIDE.get()
            && let Some(block) = allocate(layout)
        {
            // SAFETY: the block is that long. Older executions' bytes are in it.
            unsafe { block.write_bytes(0, layout.size()) };
            return block;
        }
        if is_too_much(layout.size()) {
            refuse(layout.size());
            return ptr::null_mut();
        }
        // SAFETY: the caller's promise.
        let block = unsafe { System.alloc_zeroed(layout) };
        if block.is_null() && INSIDE.get() {
            refuse(layout.size());
        }
        block
    }
}

/// The driver frees a block: no device may reach it any more.
fn freed(block: usize, len: usize) {
    world::try_with(|world| {
        world
            .state
            .lost(&(block..block + len), Oracle::FreedWhileMapped);
    });
}
