//! Ctrl-C and SIGTERM: finish the running trial, then stop. A second one ends the program at once.

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use std::sync::atomic::{AtomicBool, Ordering};

static ASKED: AtomicBool = AtomicBool::new(false);

extern "C" fn remember(_: i32) {
    ASKED.store(true, Ordering::Relaxed);
}

/// Watches for the signals. Where the system refuses a handler, they end the program as ever.
#[expect(unsafe_code, reason = "a signal handler cannot be installed safely")]
pub fn watch() {
    // Restarting keeps the engine's reads and writes whole; resetting lets a second signal end a
    // trial that hangs.
    let action = SigAction::new(
        SigHandler::Handler(remember),
        SaFlags::SA_RESTART | SaFlags::SA_RESETHAND,
        SigSet::empty(),
    );
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        // SAFETY: the handler only stores to an atomic, which is async-signal-safe, and no other
        // handler is installed that this one could replace.
        let _ = unsafe { sigaction(signal, &action) };
    }
    let ignore = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
    // A limit on file sizes is then an error of the write, as a full disk is.
    // SAFETY: no handler runs.
    let _ = unsafe { sigaction(Signal::SIGXFSZ, &ignore) };
}

/// Whether somebody asked to stop.
pub fn asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}
