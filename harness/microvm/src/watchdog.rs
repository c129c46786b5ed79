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

/// A timer of the thread that made it.
pub struct Watchdog {
    timer: Timer,
    until: Option<Instant>,
}

extern "C" fn nothing(_: i32) {}

impl Watchdog {
    /// A timer that is not armed.
    pub fn new() -> Result<Self, Errno> {
        // Without SA_RESTART, or the kernel would go on with KVM_RUN.
        let action = SigAction::new(
            SigHandler::Handler(nothing),
            SaFlags::empty(),
            SigSet::empty(),
        );
        // SAFETY: the handler does nothing.
        unsafe { sigaction(SIGNAL, &action) }?;
        let event = SigEvent::new(SigevNotify::SigevThreadId {
            signal: SIGNAL,
            thread_id: gettid().as_raw(),
            si_value: 0,
        });
        Ok(Self {
            timer: Timer::new(ClockId::CLOCK_MONOTONIC, event)?,
            until: None,
        })
    }

    /// From now on there is that long.
    pub fn arm(&mut self, patience: Duration) -> Result<(), Errno> {
        self.until = Some(Instant::now() + patience);
        // It may strike just before KVM_RUN, which then sees nothing of it: so it strikes again.
        let again = TimeSpec::from(patience / 4);
        let expiration = Expiration::IntervalDelayed(patience.into(), again);
        self.timer.set(expiration, TimerSetTimeFlags::empty())
    }

    /// Whether the time is up.
    pub fn passed(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }

    /// No signal comes any more.
    pub fn disarm(&mut self) -> Result<(), Errno> {
        self.until = None;
        let never = Expiration::OneShot(Duration::ZERO.into());
        self.timer.set(never, TimerSetTimeFlags::empty())
    }
}
