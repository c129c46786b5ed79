//! What ends a guest that does not leave by itself: a signal, in whose wake `KVM_RUN` returns.

use nix::errno::Errno;
use nix::sys::signal::sigaction;
use nix::sys::signal::{SaFlags, SigAction, SigEvent, SigHandler, SigSet, SigevNotify, Signal};
use nix::sys::time::TimeSpec;
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;
use nix::unistd::gettid;
use std::time::{Duration, Instant};

/// Nobody else here uses it.
const SIGNAL: Signal = Signal::SIGALRM;

/// A timer of the thread that made it. It ticks as long as this lives: to arm one for each call would
/// cost more than the call.
pub struct Watchdog {
    timer: Timer,
    patience: Duration,
    until: Option<Instant>,
}

extern "C" fn nothing(_: i32) {}

impl Watchdog {
    /// Ticks several times within that patience, so a guest outlives it by a part of it only.
    pub fn new(patience: Duration) -> Result<Self, Errno> {
        // KVM_RUN returns all the same; other system calls of this thread go on.
        let action = SigAction::new(
            SigHandler::Handler(nothing),
            SaFlags::SA_RESTART,
            SigSet::empty(),
        );
        // SAFETY: the handler does nothing.
        unsafe { sigaction(SIGNAL, &action) }?;
        let event = SigEvent::new(SigevNotify::SigevThreadId {
            signal: SIGNAL,
            thread_id: gettid().as_raw(),
            si_value: 0,
        });
        let mut this = Self {
            timer: Timer::new(ClockId::CLOCK_MONOTONIC, event)?,
            patience,
            until: None,
        };
        this.set_patience(patience)?;
        Ok(this)
    }

    /// What a call has from now on.
    pub fn set_patience(&mut self, patience: Duration) -> Result<(), Errno> {
        self.patience = patience;
        // A tick may come just before KVM_RUN, which then sees nothing of it.
        let tick = TimeSpec::from(patience / 4);
        let ticks = Expiration::Interval(tick);
        self.timer.set(ticks, TimerSetTimeFlags::empty())
    }

    /// A call begins.
    pub fn begin(&mut self) {
        self.until = Some(Instant::now() + self.patience);
    }

    /// Whether the call's time is up.
    pub fn passed(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }
}
