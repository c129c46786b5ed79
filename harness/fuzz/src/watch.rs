//! Whether a loop looks at the memory of the device: for a moment that memory is made inaccessible, and
//! the first access is noted.

#![expect(unsafe_code, reason = "faults are caught by a signal handler")]

use std::io;
use std::ops::Range;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

static FIRST: AtomicUsize = AtomicUsize::new(0);
static LEN: AtomicUsize = AtomicUsize::new(0);
static TOUCHED: AtomicBool = AtomicBool::new(false);

/// What SIGSEGV did before, while a watch is on.
static BEFORE: Mutex<Option<libc::sigaction>> = Mutex::new(None);

/// Watches `memory`, whole pages of this process, from now on. One watch at a time in a process.
pub(crate) fn begin(memory: &Range<usize>) -> io::Result<()> {
    TOUCHED.store(false, Ordering::SeqCst);
    FIRST.store(memory.start, Ordering::SeqCst);
    LEN.store(memory.len(), Ordering::SeqCst);
    // SAFETY: the handler has the signature that SA_SIGINFO asks for; the range is ours.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = touched as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        let mut before: libc::sigaction = std::mem::zeroed();
        if libc::sigaction(libc::SIGSEGV, &raw const action, &raw mut before) != 0 {
            return Err(io::Error::last_os_error());
        }
        let mut kept = BEFORE.lock().unwrap_or_else(PoisonError::into_inner);
        *kept = Some(before);
        if libc::mprotect(memory.start as *mut _, memory.len(), libc::PROT_NONE) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Ends the watch, if there is one. Whether the memory was touched.
pub(crate) fn end() -> bool {
    let mut kept = BEFORE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(before) = kept.take() else {
        return false;
    };
    open();
    // SAFETY: what it was before.
    unsafe { libc::sigaction(libc::SIGSEGV, &raw const before, ptr::null_mut()) };
    TOUCHED.load(Ordering::SeqCst)
}

/// Makes the memory accessible again.
fn open() {
    let (first, len) = (FIRST.load(Ordering::SeqCst), LEN.load(Ordering::SeqCst));
    // SAFETY: the range was accessible before the watch.
    unsafe { libc::mprotect(first as *mut _, len, libc::PROT_READ | libc::PROT_WRITE) };
}

extern "C" fn touched(_: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel's own, for the time of the handler.
    let address = unsafe { info.as_ref().map_or(0, |info| info.si_addr() as usize) };
    if address.wrapping_sub(FIRST.load(Ordering::SeqCst)) < LEN.load(Ordering::SeqCst) {
        TOUCHED.store(true, Ordering::SeqCst);
        open();
    } else {
        // A fault of another kind happens again, and then ends the process.
        // SAFETY: the default action.
        unsafe { libc::signal(libc::SIGSEGV, libc::SIG_DFL) };
    }
}
