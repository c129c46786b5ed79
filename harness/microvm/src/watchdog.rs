//! What ends a guest that does not leave by itself: a signal, in whose wake `KVM_RUN` returns.

use nix::errno::Errno;
use nix::sys::signal::sigaction;
use nix::sys::signal::{SaFlags, SigAction, SigEvent, SigHandler, SigSet, SigevNotify, Signal};
use nix::sys::time::TimeSpec;
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;
use nix::unistd::gettid;
use std::time::Duration;

/// Nobody else here uses it.
const SIGNAL: Signal = Signal::SIGALRM;

/// A timer of the thread that makes the first call. It ticks from then on as long as this lives: to arm
/// one for each call would cost more than the call.
pub struct Watchdog {
    timer: Option<Timer>,
    patience: Patience,
    until: Option<Duration>,
}

/// How long a guest may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// For ever: somebody else ends a guest that does not leave.
    Endless,
    /// By the host's clock.
    Real(Duration),
    /// By the time of the processor that its thread uses, which a busy host does not take from it.
    Processor(Duration),
}

impl From<Duration> for Patience {
    fn from(time: Duration) -> Self {
        Self::Real(time)
    }
}

impl From<Option<Duration>> for Patience {
    fn from(time: Option<Duration>) -> Self {
        time.map_or(Self::Endless, Self::Real)
    }
}

impl Patience {
    fn clock(self) -> Option<(ClockId, Duration)> {
        match self {
            Self::Endless => None,
            Self::Real(time) => Some((ClockId::CLOCK_MONOTONIC, time)),
            Self::Processor(time) => Some((ClockId::CLOCK_THREAD_CPUTIME_ID, time)),
        }
    }
}

extern "C" fn nothing(_: i32) {}

/// A timer that ticks several times within that patience, so a guest outlives it by a part of it only.
fn ticking(clock: ClockId, patience: Duration) -> Result<Timer, Errno> {
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
    let mut timer = Timer::new(clock, event)?;
    // A tick may come just before KVM_RUN, which then sees nothing of it.
    let ticks = Expiration::Interval(TimeSpec::from(patience / 4));
    timer.set(ticks, TimerSetTimeFlags::empty())?;
    Ok(timer)
}

impl Watchdog {
    /// What each call has; without a limit there is no timer.
    pub fn new(patience: Patience) -> Self {
        Self {
            timer: None,
            patience,
            until: None,
        }
    }

    /// A call begins.
    pub fn begin(&mut self) -> Result<(), Errno> {
        self.until = None;
        if let Some((clock, patience)) = self.patience.clock() {
            if self.timer.is_none() {
                self.timer = Some(ticking(clock, patience)?);
            }
            self.until = Some(Duration::from(clock.now()?) + patience);
        }
        Ok(())
    }

    /// Whether the call's time is up.
    pub fn passed(&self) -> bool {
        let Some(((clock, _), until)) = self.patience.clock().zip(self.until) else {
            return false;
        };
        // A clock that was read before can be read again.
        clock.now().is_ok_and(|now| Duration::from(now) >= until)
    }
}
