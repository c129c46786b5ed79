//! A domain's link to the rest of the machine: its port page, its window, its clock.
//!
//! The same calls under both clocks. Under leap each is a request to the hardware, which alone
//! decides who runs next. Under the wall clock waiting, ringing and beating go through event words
//! in shared frames, and only what needs the hardware goes to the hardware.

use crate::call::{Answer, Call};
use crate::hardware::NEXT_BELL;
use crate::placement::Placement;
use crate::port::{PortPage, Spin, Toll};
use crate::ring::{self, EventWords};
use crate::shared::Window;
use crate::trial::ClockKind;
use cofferdam_seam::{Deadline, Time, VectorSet};
use std::cell::Cell;
use std::time::Duration;

/// How often a domain shows that it is alive, in device time.
pub const BEAT: Duration = Duration::from_millis(1);

/// A domain's way to everybody else.
pub struct Link {
    page: &'static PortPage,
    window: Window,
    clock: ClockKind,
    /// Polls before it sleeps. None where the peer it waits for may share its core.
    polls: u32,
    /// Device time zero on the monotonic clock, ns (wall).
    epoch: u64,
    /// Device time of the last answer (leap).
    now: Cell<Time>,
    beat_at: Cell<Deadline>,
    me: usize,
    events: Option<&'static EventWords>,
    placement: &'static Placement,
}

/// The host's monotonic clock, ns.
pub fn monotonic() -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `now` is a valid timespec to write to.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

impl Link {
    /// The link of domain `me`; `epoch` is device time zero on the monotonic clock, `polls` how
    /// often it looks before it sleeps.
    pub fn new(
        page: &'static PortPage,
        window: Window,
        placement: &'static Placement,
        me: usize,
        clock: ClockKind,
        epoch: u64,
        polls: u32,
    ) -> Self {
        let domain = placement.domains.get(me);
        let events = domain.and_then(|domain| ring::events(window, domain.role, me));
        let now = Cell::new(Time::ZERO);
        Self {
            page,
            window,
            clock,
            polls,
            epoch,
            now,
            beat_at: Cell::new(Deadline(Time::ZERO)),
            me,
            events,
            placement,
        }
    }

    /// The domain's window on memory.
    pub fn window(&self) -> Window {
        self.window
    }

    /// Posts a call and waits for the answer.
    pub fn call(&self, call: Call) -> Answer {
        let (answer, now) = self.page.call(call, Spin(self.polls));
        if self.clock == ClockKind::Leap {
            self.now.set(Time(now));
        }
        answer
    }

    /// Device time: that of the last answer under leap, where no time passes between calls.
    pub fn now(&self) -> Time {
        match self.clock {
            ClockKind::Leap => self.now.get(),
            ClockKind::Wall => Time(monotonic().saturating_sub(self.epoch)),
        }
    }

    /// The deadline `after` from now.
    pub fn deadline(&self, after: Duration) -> Deadline {
        Deadline::after(self.now(), after)
    }

    /// Waits for any of these vectors or doorbells and takes them; both empty when `until` came
    /// first.
    pub fn wait(&self, vectors: VectorSet, bells: u64, until: Deadline) -> (VectorSet, u64) {
        let (ClockKind::Wall, Some(events)) = (self.clock, self.events) else {
            return self.wait_called(vectors, bells, until, false);
        };
        let mut slept = 0;
        loop {
            let (rang, raised) = events.take(bells, vectors);
            if rang != 0 || !raised.is_empty() {
                self.page.pay(Toll::Woken, slept);
                return (raised, rang);
            }
            // The clock is read only by those who found nothing.
            if events.poll(bells, vectors, self.polls) {
                continue;
            }
            let now = self.now();
            if until.passed(now) {
                return (VectorSet::EMPTY, 0);
            }
            events.sleep(bells, vectors, until.0.since(now));
            slept = 1;
        }
    }

    /// Waits by a call, `alive` all the while or silent.
    fn wait_called(
        &self,
        vectors: VectorSet,
        bells: u64,
        until: Deadline,
        alive: bool,
    ) -> (VectorSet, u64) {
        let until = until.0.nanos();
        let call = Call::Wait {
            vectors,
            bells,
            until,
            alive,
        };
        let [raised, rang] = self.call(call).values;
        // Of the hardware's own bell nobody in a real system hears.
        let woken = raised | (rang & !NEXT_BELL) != 0;
        self.page.pay(Toll::Woken, u64::from(woken));
        (VectorSet(raised), rang)
    }

    /// Rings the doorbells of the peers whose bits are set.
    pub fn ring(&self, peers: u64) {
        self.page.pay(Toll::Rang, u64::from(peers.count_ones()));
        if self.clock == ClockKind::Leap {
            self.call(Call::Ring { peers });
            return;
        }
        for (index, domain) in self.placement.domains.iter().enumerate() {
            if peers >> index & 1 == 1
                && let Some(words) = ring::events(self.window, domain.role, index)
            {
                words.post(1 << self.me, VectorSet::EMPTY);
            }
        }
    }

    /// Counts bytes of a request or an answer that were copied.
    pub fn copied(&self, bytes: usize) {
        self.page.pay(Toll::Copied, bytes as u64);
    }

    /// Shows that this domain is alive, if it is time to. Returns when it will be again.
    pub fn beat(&self) -> Deadline {
        let now = self.now();
        if self.beat_at.get().passed(now) {
            match self.clock {
                ClockKind::Leap => {
                    self.call(Call::Beat);
                }
                ClockKind::Wall => self.page.store_beat(now.nanos().max(1)),
            }
            self.beat_at.set(Deadline::after(now, BEAT));
        }
        self.beat_at.get()
    }

    /// Waits for doorbells like [`Link::wait`], and beats meanwhile. Under the wall clock it may come back
    /// without any when a heartbeat was due; under leap the hardware knows that this domain could beat.
    pub fn wait_alive(&self, bells: u64, until: Deadline) -> u64 {
        if self.clock == ClockKind::Leap {
            let (_, rang) = self.wait_called(VectorSet::EMPTY, bells, until, true);
            self.beat_at.set(self.deadline(BEAT));
            return rang;
        }
        let (_, rang) = self.wait(VectorSet::EMPTY, bells, until.min(self.beat()));
        self.beat();
        rang
    }

    /// Lets `time` pass, beating.
    pub fn pause(&self, time: Duration) {
        let until = self.deadline(time);
        while !until.passed(self.now()) {
            self.wait_alive(0, until);
        }
    }

    /// Stays alive until the trial ends.
    pub fn rest(&self) -> ! {
        loop {
            self.wait_alive(0, Deadline(Time::NEVER));
        }
    }

    /// The page, for what is stored rather than called.
    pub fn page(&self) -> &'static PortPage {
        self.page
    }

    /// The bit of a domain in sets of peers.
    pub const fn bit(index: usize) -> u64 {
        1 << index
    }
}
