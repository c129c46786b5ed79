//! Steps of a driver that computes, or polls memory, without calling its host.
//!
//! Instrumented code reports every comparison. Every [`STEPS`] of them the device takes a turn, so
//! time passes and a loop that waits for memory to change ends. A turn cannot leave the driver: the
//! compiler took it for granted that a comparison does not unwind. What it can do with a loop that does
//! not end is to panic, which ends the process with that message.

use crate::or_abort;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// Comparisons between two turns.
pub const STEPS: u32 = 64;

/// What happens every [`STEPS`] comparisons.
pub trait Turn {
    /// Lets the device run, and time pass. A panic ends the process.
    fn turn(&self);
}

thread_local! {
    static COUNT: Cell<u32> = const { Cell::new(0) };
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
        COUNT.set(0);
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

/// A comparison.
#[inline]
pub(crate) fn step() {
    let count = COUNT.get() + 1;
    COUNT.set(count % STEPS);
    if count == STEPS {
        take_turn();
    }
}

#[cold]
fn take_turn() {
    // Taken out meanwhile: a turn takes no turns.
    let Some(turn) = TURN.take() else { return };
    let _back = Stepping {
        outer: Some(turn.clone()),
    };
    or_abort(|| turn.turn());
}
