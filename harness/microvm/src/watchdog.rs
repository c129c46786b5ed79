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

/// A timer of the thread that makes the first call. It ticks from then on as long as this lives: to arm
/// one for each call would cost more than the call.
pub struct Watchdog {
    timer: Option<Timer>,
    patience: Option<Duration>,
    until: Option<Instant>,
}

extern "C" fn nothing(_: i32) {}

/// A timer that ticks several times within that patience, so a guest outlives it by a part of it only.
fn ticking(patience: Duration) -> Result<Timer, Errno> {
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
    let mut timer = Timer::new(ClockId::CLOCK_MONOTONIC, event)?;
    // A tick may come just before KVM_RUN, which then sees nothing of it.
    let ticks = Expiration::Interval(TimeSpec::from(patience / 4));
    timer.set(ticks, TimerSetTimeFlags::empty())?;
    Ok(timer)
}

impl Watchdog {
    /// What each call has; without a limit somebody else has to end the guest, and there is no timer.
    pub fn new(patience: Option<Duration>) -> Self {
        Self {
            timer: None,
            patience,
            until: None,
        }
    }

    /// A call begins.
    pub fn begin(&mut self) -> Result<(), Errno> {
        self.until = None;
        if let Some(patience) = self.patience {
            if self.timer.is_none() {
                self.timer = Some(ticking(patience)?);
            }
            self.until = Some(Instant::now() + patience);
        }
        Ok(())
    }

    /// Whether the call's time is up.
    pub fn passed(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }
}
