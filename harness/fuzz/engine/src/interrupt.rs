//! Ctrl-C and SIGTERM end a campaign; a second one ends the program at once.

use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

static ASKED: AtomicBool = AtomicBool::new(false);

extern "C" fn remember(_: libc::c_int) {
    ASKED.store(true, Ordering::Relaxed);
}

/// Watches for the signals. Where the system refuses a handler, they end the program as ever.
#[expect(unsafe_code, reason = "signals have no other interface")]
pub fn watch() {
    // SAFETY: all zeros is a valid `sigaction`, and the handler only stores to an atomic.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = remember as *const () as usize;
        action.sa_flags = libc::SA_RESTART | libc::SA_RESETHAND;
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            libc::sigaction(signal, &raw const action, ptr::null_mut());
        }
    }
}

/// Whether somebody asked for the end.
pub fn asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}
