//! Time and turns: when the device moves, and when a driver that waits is left.

use super::{Detail, RECENT, State, World};
use crate::oracle::{Oracle, Place, Sighting};
use crate::program::{Event, Register};
use crate::watch;
use cofferdam_seam::{Budget, Progress, Time};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

/// What a turn of a loop costs.
const RELAX: u64 = 1000;

/// Wake-ups a device may have ahead of it.
const WAKES: usize = 64;

/// Steps a device gets before time must pass.
const STEPS: u32 = 64;

/// Turns of a loop in which nothing happens and nothing can happen any more, to begin with: then the
/// loop is abandoned.
pub(super) const IDLE: u32 = 10;

/// Idle turns after which time leaps to the next event.
const LEAP: u32 = 2;

/// Idle turns after which it is looked whether a driver goes round.
const ROUND: u32 = 2;

/// Idle turns of a driver that goes round in each of them, in a close look. It differs from those of one that
/// does not by a multiple of 105 turns, which are 64 comparisons each, and so of every way round of up to
/// eight comparisons: both are left at the same place.
const ROUNDS: u32 = 2 * IDLE_MOST - 46 * 105;

/// The most such turns, for drivers that were found to compute for long.
const IDLE_MOST: u32 = 2560;

/// Turns in one call of the workload: then it is abandoned, whatever happens.
const TURNS: u32 = 4096;

/// Configuration space, where registers are remembered by their BAR.
const CONFIGURATION: u8 = u8::MAX - 1;

/// How much patience an execution has that looks at a finding closely.
const PATIENCE: u32 = 64;

/// Reads of registers that say the same, in a close look: a driver may count them instead of the time.
const READS: u32 = 1 << 17;

/// The same for a driver that runs elsewhere, where each costs a thousand times as much.
const FAR_READS: u32 = 1 << 10;

/// And idle turns there. Long before, each lets seconds pass.
const FAR_IDLE: u32 = 1 << 9;

/// So many turns after a register was read a driver still looks at the device.
const LATELY: u32 = 64;

/// Turns in which the device's memory is watched.
const EXTRA: u32 = 32;

impl World {
    /// A turn of a loop in which the driver asks its host for time.
    pub fn relax(&mut self) {
        self.state.looked += 1;
        self.turn();
    }

    /// A turn of a loop.
    pub fn turn(&mut self) {
        self.state.idle += 1;
        self.state.turns += 1;
        // Nothing happens: time leaps to what happens next, if anything does. Else the more turns
        // without anything, the more time passes in each, so that deadlines come soon.
        let now = self.state.now;
        let turn = now + Duration::from_nanos(RELAX);
        let to = match self.next_event() {
            Some(next) if self.state.idle > LEAP => next.max(turn),
            Some(_) => turn,
            None => now + Duration::from_nanos(RELAX << (self.state.idle / 2).min(24)),
        };
        self.advance(to);
        self.state.event(Event::Poll);
    }

    /// Whether the driver has had its turns, and is to be abandoned where that can be done.
    pub fn is_exhausted(&mut self) -> bool {
        if !self.is_spent() {
            return false;
        }
        let state = &mut self.state;
        if state.is_close() && state.looked == 0 && !state.watched && !state.elsewhere {
            // Some turns more, to see whether the driver looks at the device's memory meanwhile.
            state.watched = watch::begin(&state.memory.addresses()).is_ok();
            state.extra = EXTRA;
        }
        state.extra = state.extra.saturating_sub(1);
        state.extra == 0
    }

    /// Whether nothing has happened for some turns, and nothing can happen any more: then it is worth looking
    /// whether the driver goes round.
    pub fn is_idle(&self) -> bool {
        self.state.idle >= ROUND && self.state.asked == 0 && self.is_over()
    }

    /// The driver compares the same values over and over. Whether that is enough to abandon it: a close look
    /// goes on for some time, and so do all executions once a loop was found to end by itself.
    pub fn goes_round(&mut self) -> bool {
        if !self.is_idle() {
            return false;
        }
        let state = &mut self.state;
        state.rounds += 1;
        state.detail == Detail::Fast && state.idle_limit == IDLE
    }

    /// Whether nothing can happen any more by itself.
    fn is_over(&self) -> bool {
        let state = &self.state;
        state.wakes.is_empty()
            && !state
                .script
                .awaits_polls(state.counts[Event::Poll as usize])
    }

    /// Whether the driver has had its turns.
    pub fn is_spent(&self) -> bool {
        let state = &self.state;
        // A close look does the same whatever was learnt before it.
        let (patience, limit) = match state.detail {
            Detail::Fast => (1, state.idle_limit),
            Detail::Close | Detail::Traced if state.elsewhere && state.asked > 0 => (1, FAR_READS),
            Detail::Close | Detail::Traced if state.elsewhere => (1, FAR_IDLE),
            Detail::Close | Detail::Traced if state.asked > 0 => (PATIENCE, READS),
            Detail::Close | Detail::Traced if state.rounds + ROUND >= state.idle => {
                (PATIENCE, ROUNDS)
            }
            Detail::Close | Detail::Traced => (PATIENCE, 2 * IDLE_MOST),
        };
        let stuck = state.idle > limit && self.is_over();
        let spent = state.turns > TURNS.saturating_mul(patience);
        stuck || spent
    }

    /// The driver will not come back. `touched` says whether it looked at the device's memory while it
    /// was watched.
    pub fn abandon(&mut self, frames: &[usize], touched: bool) {
        let state = &mut self.state;
        let mut hash = DefaultHasher::new();
        (frames, state.during).hash(&mut hash);
        let lately = state.last_look > 0 && state.turns - state.last_look <= LATELY;
        // Only a close look knows.
        let waits = touched || state.looked > 0 || lately || state.detail == Detail::Fast;
        let round = lately && state.last_config == state.last_look;
        let in_vain = lately && state.in_vain;
        let evident = waits && (in_vain || round);
        let (oracle, does) = match waits {
            false => (Oracle::Runaway, "does not look at the device"),
            // It answers at once: nobody waits for it.
            true if round => (Oracle::UnboundedWait, "goes round in configuration space"),
            true if in_vain => (
                Oracle::UnboundedWait,
                "reads registers of a device that is gone",
            ),
            true => (Oracle::UnboundedWait, "looks at the device"),
        };
        (oracle.name(), evident).hash(&mut hash);
        let words = if state.is_close() {
            format!("the driver does not come back, and {does}")
        } else {
            String::new()
        };
        state.push(Sighting {
            oracle,
            place: Place::Frames(frames.to_vec()),
            key: hash.finish(),
            during: state.during,
            words,
            evident,
        });
    }

    #[inline]
    pub(super) fn spend(&mut self, nanos: u64) {
        self.advance(Time(self.state.now.0.saturating_add(nanos)));
    }

    /// Lets time pass, and the device do what is due.
    #[inline]
    pub fn advance(&mut self, to: Time) {
        if self.state.wakes.first().is_some_and(|wake| *wake <= to) {
            self.step(to);
        }
        self.state.now = self.state.now.max(to);
    }

    pub(super) fn step(&mut self, to: Time) {
        let Self { function, state } = self;
        let Some(function) = function else {
            return;
        };
        for _ in 0..STEPS {
            let Some(wake) = state.wakes.first().copied() else {
                return;
            };
            let wake = wake.max(state.stalled_until);
            if wake > to {
                state.wakes[0] = wake;
                return;
            }
            state.wakes.remove(0);
            state.now = state.now.max(wake);
            if state.removed {
                continue;
            }
            if function.step(Budget(16), state) == Progress::More {
                state.wake(state.now);
            }
        }
        // It asks "at once" again and again: time must pass first.
        if let Some(first) = state.wakes.first_mut() {
            *first = (*first).max(Time(to.0.saturating_add(1000)));
        }
    }

    /// The next thing that happens by itself.
    pub fn next_event(&self) -> Option<Time> {
        let wake = self.state.wakes.first().copied()?;
        Some(wake.max(self.state.stalled_until))
    }
}

impl State {
    /// A loop that was abandoned would have ended, as the last execution showed: gives all of them more
    /// time from now on, if there is more to give and it would be enough.
    pub fn be_patient(&mut self) -> bool {
        let before = self.idle_limit;
        if self.longest.max(self.idle) <= IDLE_MOST {
            self.idle_limit = (self.idle_limit * 4).min(IDLE_MOST);
        }
        self.idle_limit > before
    }

    /// Something happened: whoever polls may be getting on.
    pub fn progress(&mut self) {
        self.moves = self.moves.wrapping_add(1);
        self.longest = self.longest.max(self.idle);
        self.idle = 0;
        self.rounds = 0;
        self.asked = 0;
        self.looked = 0;
        self.in_vain = false;
    }

    /// A number that changes when anything happens.
    pub(crate) fn moves(&self) -> u64 {
        self.moves
    }

    #[inline]
    pub(super) fn was_read(&mut self, register: Register, value: u64) {
        self.turns += 1;
        self.last_look = self.turns;
        if self.reads.contains(&(register, value)) {
            // A loop that waits for a register.
            self.looked += 1;
            self.in_vain = self.removed;
            self.asked += 1;
            self.idle += 1;
            if self.idle > 16 {
                let nanos = RELAX << (self.idle / 16).min(20);
                self.now = self.now + Duration::from_nanos(nanos);
            }
        } else {
            self.reads[self.next_read % RECENT] = (register, value);
            self.next_read = self.next_read.wrapping_add(1);
            self.progress();
            if !self.sketch.registers.contains(&register) && self.sketch.registers.len() < 256 {
                self.sketch.registers.push(register);
            }
        }
    }

    /// Configuration space was read. A loop that gets what it got before is looking at the device.
    pub(super) fn was_asked(&mut self, offset: u16, value: u32) {
        self.turns += 1;
        self.last_look = self.turns;
        self.last_config = self.turns;
        let place = Register {
            bar: CONFIGURATION,
            offset: offset.into(),
        };
        let asked = (place, value.into());
        if self.reads.contains(&asked) {
            self.looked += 1;
            self.in_vain = self.removed;
        } else {
            self.reads[self.next_read % RECENT] = asked;
            self.next_read = self.next_read.wrapping_add(1);
            self.progress();
        }
    }

    pub(super) fn wake(&mut self, at: Time) {
        if at == Time::NEVER || self.removed {
            return;
        }
        let at = at.max(self.now);
        let place = self.wakes.partition_point(|wake| *wake <= at);
        if place > 0 && self.wakes[place - 1] == at {
            return;
        }
        self.wakes.insert(place, at);
        self.wakes.truncate(WAKES);
    }
}
