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

/// A timer of the thread that arms it; there is none until then.
#[derive(Default)]
pub struct Watchdog {
    timer: Option<Timer>,
    until: Option<Instant>,
}

extern "C" fn nothing(_: i32) {}

/// A timer that is not armed.
fn timer() -> Result<Timer, Errno> {
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
    Timer::new(ClockId::CLOCK_MONOTONIC, event)
}

impl Watchdog {
    /// From now on there is that long; without a limit somebody else has to end the guest.
    pub fn arm(&mut self, patience: Option<Duration>) -> Result<(), Errno> {
        let Some(patience) = patience else {
            return Ok(());
        };
        let timer = match &mut self.timer {
            Some(timer) => timer,
            none => none.insert(timer()?),
        };
        self.until = Some(Instant::now() + patience);
        // It may strike just before KVM_RUN, which then sees nothing of it: so it strikes again.
        let again = TimeSpec::from(patience / 4);
        let expiration = Expiration::IntervalDelayed(patience.into(), again);
        timer.set(expiration, TimerSetTimeFlags::empty())
    }

    /// Whether the time is up.
    pub fn passed(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }

    /// No signal comes any more.
    pub fn disarm(&mut self) -> Result<(), Errno> {
        let (Some(timer), Some(_)) = (&mut self.timer, self.until.take()) else {
            return Ok(());
        };
        let never = Expiration::OneShot(Duration::ZERO.into());
        timer.set(never, TimerSetTimeFlags::empty())
    }
}
