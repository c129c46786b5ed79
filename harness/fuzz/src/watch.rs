//! Whether a loop looks at the memory of the device: for a moment that memory is made inaccessible, and
//! the first access is noted, by the handler of [faults](crate::fault).

#![expect(unsafe_code, reason = "memory changes its protection")]

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

static FIRST: AtomicUsize = AtomicUsize::new(0);
static LEN: AtomicUsize = AtomicUsize::new(0);
static TOUCHED: AtomicBool = AtomicBool::new(false);

/// A watch is on.
static ON: AtomicBool = AtomicBool::new(false);

/// Watches `memory`, whole pages of this process, from now on. One watch at a time in a process.
pub(crate) fn begin(memory: &Range<usize>) -> io::Result<()> {
    TOUCHED.store(false, Ordering::SeqCst);
    FIRST.store(memory.start, Ordering::SeqCst);
    LEN.store(memory.len(), Ordering::SeqCst);
    ON.store(true, Ordering::SeqCst);
    // SAFETY: the range is the caller's.
    let closed = unsafe { libc::mprotect(memory.start as *mut _, memory.len(), libc::PROT_NONE) };
    if closed == 0 {
        Ok(())
    } else {
        ON.store(false, Ordering::SeqCst);
        Err(io::Error::last_os_error())
    }
}

/// Ends the watch, if there is one. Whether the memory was touched.
pub(crate) fn end() -> bool {
    if !ON.swap(false, Ordering::SeqCst) {
        return false;
    }
    open();
    TOUCHED.load(Ordering::SeqCst)
}

/// Makes the memory accessible again.
fn open() {
    let (first, len) = (FIRST.load(Ordering::SeqCst), LEN.load(Ordering::SeqCst));
    // SAFETY: the range was accessible before the watch.
    unsafe { libc::mprotect(first as *mut _, len, libc::PROT_READ | libc::PROT_WRITE) };
}

/// A fault at that address: whether it is what the watch was for, and may be tried again.
pub(crate) fn touched(address: usize) -> bool {
    let inside = address.wrapping_sub(FIRST.load(Ordering::SeqCst)) < LEN.load(Ordering::SeqCst);
    let watched = inside && ON.load(Ordering::SeqCst) && !TOUCHED.swap(true, Ordering::SeqCst);
    if watched {
        open();
    }
    watched
}
