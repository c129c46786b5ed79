//! Steps of a driver that computes, or polls memory, without calling its host.
//!
//! Instrumented code reports every comparison. Every [`STEPS`] of them the device takes a turn, so
//! time passes and a loop that waits for memory to change ends. A turn cannot leave the driver: the
//! compiler took it for granted that a comparison does not unwind. What it can do with a loop that does
//! not end is to panic, which ends the process with that message.
//!
//! A turn in which nothing can happen any more can have the next comparisons [watched](watch): a driver that
//! compares the same values over and over goes round in a loop that only the device could end.

use crate::or_abort;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// Comparisons between two turns.
pub const STEPS: u32 = 64;

/// What happens every [`STEPS`] comparisons.
pub trait Turn {
    /// Lets the device run, and time pass. A panic ends the process.
    fn turn(&self);

    /// Comparisons were [watched](watch), and they repeat: nothing that the driver compares changes.
    fn round(&self) {}
}

/// Comparisons that are watched.
const WATCHED: u32 = 24;

/// Comparisons of the longest way round that is noticed: it is seen at least three times.
const ROUND: usize = 8;

/// What was compared lately.
struct Watch {
    seen: usize,
    compared: [(u64, u64); WATCHED as usize],
}

impl Watch {
    /// Whether the same comparisons were made over and over.
    fn goes_round(&self) -> bool {
        let repeats = |way| self.compared[way..] == self.compared[..self.compared.len() - way];
        (1..=ROUND).any(repeats)
    }
}

thread_local! {
    /// Comparisons until the next turn; one while they are watched.
    static LEFT: Cell<u32> = const { Cell::new(STEPS) };
    static WATCH: RefCell<Option<Watch>> = const { RefCell::new(None) };
    static TURN: RefCell<Option<Rc<dyn Turn>>> = const { RefCell::new(None) };
}

/// Gives this thread's steps to `turn` until the result is dropped.
#[must_use = "the turns end when this is dropped"]
pub struct Stepping {
    outer: Option<Rc<dyn Turn>>,
}

impl Stepping {
    /// From now on.
    pub fn new(turn: Rc<dyn Turn>) -> Self {
        // The same driver run takes its turns at the same steps.
        LEFT.set(STEPS);
        WATCH.set(None);
        Self {
            outer: TURN.replace(Some(turn)),
        }
    }
}

impl Drop for Stepping {
    fn drop(&mut self) {
        TURN.set(self.outer.take());
    }
}

/// Takes no more turns on this thread, for a handler of a signal in the middle of a driver: the handler may
/// share code with it that the compiler made once for both.
pub fn stop() {
    TURN.with(|turn| {
        // If it is being changed, nobody goes on with that.
        if let Ok(mut turn) = turn.try_borrow_mut() {
            std::mem::forget(turn.take());
        }
    });
}

/// Has the next comparisons watched, if it is called by a turn.
pub fn watch() {
    LEFT.set(1);
    WATCH.set(Some(Watch {
        seen: 0,
        compared: [(0, 0); WATCHED as usize],
    }));
}

/// Counts a comparison. Whether [`look`] is to be called for it.
#[inline]
pub(crate) fn is_last() -> bool {
    let left = LEFT.get() - 1;
    LEFT.set(left);
    left == 0
}

/// A comparison with which a turn is due, or which is watched.
pub(crate) fn look(one: u64, other: u64) {
    let round = WATCH.with_borrow_mut(|watch| {
        let all = watch.as_mut()?;
        all.compared[all.seen] = (one, other);
        all.seen += 1;
        if all.seen < all.compared.len() {
            LEFT.set(1);
            return Some(false);
        }
        // The turn comes when it would have come.
        LEFT.set(STEPS - WATCHED);
        watch.take().map(|all| all.goes_round())
    });
    match round {
        None => {
            LEFT.set(STEPS);
            take_turn(|turn| turn.turn());
        }
        Some(true) => take_turn(|turn| turn.round()),
        Some(false) => {}
    }
}

fn take_turn(take: impl FnOnce(&dyn Turn)) {
    // Taken out meanwhile: a turn takes no turns.
    let back = Stepping { outer: TURN.take() };
    if let Some(turn) = &back.outer {
        or_abort(|| take(&**turn));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Has everything watched, and counts turns and rounds.
    #[derive(Default)]
    struct Seen(Cell<(u32, u32)>);

    impl Turn for Seen {
        fn turn(&self) {
            let (turns, rounds) = self.0.get();
            self.0.set((turns + 1, rounds));
            watch();
        }

        fn round(&self) {
            let (turns, rounds) = self.0.get();
            self.0.set((turns, rounds + 1));
        }
    }

    /// Turns and rounds of a driver that makes so many turns' comparisons.
    fn seen(turns: u32, compared: impl Fn(u32) -> (u64, u64)) -> (u32, u32) {
        let seen = Rc::new(Seen::default());
        let _stepping = Stepping::new(seen.clone());
        for (one, other) in (0..turns * STEPS).map(compared) {
            if is_last() {
                look(one, other);
            }
        }
        seen.0.get()
    }

    #[test]
    fn loop_that_compares_the_same_goes_round() {
        assert_eq!(seen(4, |_| (7, 7)), (4, 3));
        assert_eq!(seen(4, |at| (u64::from(at % 3), 7)), (4, 3));
    }

    #[test]
    fn loop_that_counts_does_not_go_round() {
        assert_eq!(seen(4, |at| (u64::from(at), 1000)), (4, 0));
        // Among comparisons that are the same.
        assert_eq!(
            seen(4, |at| (u64::from(at / 6 * (at % 6 / 5)), 1000)),
            (4, 0)
        );
    }
}
