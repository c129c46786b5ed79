//! Device time, and who asked to be stepped when.

use cofferdam_seam::Time;
use std::collections::BTreeSet;
use std::time::Duration;

/// Wake-ups a device may have ahead of it. Beyond that the latest is forgotten, as a timer that
/// the hardware does not have.
const WAKES: usize = 256;

/// Steps a device gets within [`BREATH`]; then its next one waits until that has passed. So a
/// device that keeps asking "at once" cannot stop time.
const STEPS: u32 = 16;

/// See [`STEPS`].
const BREATH: Duration = Duration::from_micros(1);

/// One device's wake-ups.
#[derive(Debug, Default)]
struct Wakes {
    due: BTreeSet<Time>,
    /// Start of the current breath.
    breath: Time,
    /// Steps since then.
    steps: u32,
}

/// The machine's clock. It moves only when told to.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    now: Time,
    wakes: Vec<Wakes>,
}

impl Clock {
    /// Gives the next slot's device an empty set of wake-ups.
    pub(crate) fn attach(&mut self) {
        self.wakes.push(Wakes::default());
    }

    /// Device time.
    #[inline]
    pub(crate) const fn now(&self) -> Time {
        self.now
    }

    /// Moves time on; never back.
    #[inline]
    pub(crate) fn move_to(&mut self, to: Time) {
        self.now = self.now.max(to);
    }

    /// Enters a wake-up of the device in `slot`; one in the past means now, and [`Time::NEVER`]
    /// what it says.
    pub(crate) fn wake_at(&mut self, slot: usize, at: Time) {
        let at = at.max(self.now);
        if at == Time::NEVER {
            return;
        }
        let due = &mut self.wakes[slot].due;
        due.insert(at);
        if due.len() > WAKES {
            due.pop_last();
        }
    }

    /// The next wake-up and its slot; the lowest slot of several.
    pub(crate) fn next_wake(&self) -> Option<(Time, usize)> {
        let first = |(slot, wakes): (usize, &Wakes)| Some((*wakes.due.first()?, slot));
        self.wakes.iter().enumerate().filter_map(first).min()
    }

    /// Takes what is due for the device in `slot`. Whether it is to be stepped now; if not, it was
    /// told to wait.
    pub(crate) fn take_due(&mut self, slot: usize) -> bool {
        let wakes = &mut self.wakes[slot];
        while wakes.due.first().is_some_and(|&at| at <= self.now) {
            wakes.due.pop_first();
        }
        if self.now.since(wakes.breath) >= BREATH {
            wakes.breath = self.now;
            wakes.steps = 0;
        }
        if wakes.steps == STEPS {
            let later = wakes.breath + BREATH;
            self.wake_at(slot, later);
            return false;
        }
        wakes.steps += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock_of_one() -> Clock {
        let mut clock = Clock::default();
        clock.attach();
        clock
    }

    #[test]
    fn time_never_goes_back() {
        let mut clock = clock_of_one();
        clock.move_to(Time(5));
        clock.move_to(Time(3));
        assert_eq!(clock.now(), Time(5));
    }

    #[test]
    fn wake_in_the_past_is_due_now() {
        let mut clock = clock_of_one();
        clock.move_to(Time(5));
        clock.wake_at(0, Time(1));
        assert_eq!(clock.next_wake(), Some((Time(5), 0)));
    }

    #[test]
    fn tie_goes_to_the_lower_slot() {
        let mut clock = clock_of_one();
        clock.attach();
        clock.wake_at(1, Time(7));
        clock.wake_at(0, Time(7));
        assert_eq!(clock.next_wake(), Some((Time(7), 0)));
    }

    #[test]
    fn later_wake_survives_an_earlier_one() {
        let mut clock = clock_of_one();
        clock.wake_at(0, Time(20));
        clock.wake_at(0, Time(10));
        clock.move_to(Time(10));
        assert!(clock.take_due(0));
        assert_eq!(clock.next_wake(), Some((Time(20), 0)));
    }

    #[test]
    fn device_that_always_asks_at_once_is_told_to_wait() {
        let mut clock = clock_of_one();
        clock.move_to(Time(100));
        let mut steps = 0;
        clock.wake_at(0, Time(100));
        while clock.take_due(0) {
            steps += 1;
            clock.wake_at(0, Time::ZERO);
        }
        assert_eq!(steps, STEPS);
        assert!(clock.next_wake().is_some_and(|(at, _)| at > Time(100)));
    }

    #[test]
    fn wake_at_the_end_of_time_never_comes() {
        let mut clock = clock_of_one();
        clock.wake_at(0, Time::NEVER);
        assert_eq!(clock.next_wake(), None);
        clock.move_to(Time::NEVER);
        clock.wake_at(0, Time::ZERO);
        assert_eq!(clock.next_wake(), None);
    }

    #[test]
    fn wakes_beyond_the_limit_lose_the_latest() {
        let mut clock = clock_of_one();
        for at in (0..2 * WAKES as u64).rev() {
            clock.wake_at(0, Time(at));
        }
        let due = &clock.wakes[0].due;
        assert_eq!(due.len(), WAKES);
        assert_eq!(due.last(), Some(&Time(WAKES as u64 - 1)));
    }
}
