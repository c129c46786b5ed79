//! The stack a driver runs on, and how it is left for good.
//!
//! A driver may never come back: it polls memory that no longer changes. Nobody can unwind it from
//! the middle of its instructions. So it has a stack of its own, and the executor goes on without it.

#![expect(
    unsafe_code,
    reason = "a stack that is left keeps its frames, without their destructors"
)]

use crate::arena;
use cofferdam_instrument::asan;
use corosensei::stack::{DefaultStack, Stack};
use corosensei::{Coroutine, CoroutineResult, Yielder};
use std::cell::Cell;
use std::io;
use std::ops::Range;
use std::ptr;

/// Bytes of the stack; a guard page follows.
const STACK: usize = 256 << 10;

thread_local! {
    static LEAVE: Cell<*const Yielder<(), ()>> = const { Cell::new(ptr::null()) };
    static RUN_ON: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

/// A stack for drivers, used by one after the other.
pub struct DriverStack(Option<DefaultStack>);

impl DriverStack {
    /// Reserves the stack.
    ///
    /// # Errors
    ///
    /// The system has no addresses left.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Some(DefaultStack::new(STACK)?)))
    }

    /// Where it lies.
    pub fn addresses(&self) -> Range<usize> {
        self.0
            .as_ref()
            .map_or(0..0, |stack| stack.limit().get()..stack.base().get())
    }

    /// Runs `body` on the stack. None if it was [abandoned](abandon).
    ///
    /// # Errors
    ///
    /// A new stack was needed and there is none.
    pub fn run<R: 'static>(&mut self, body: impl FnOnce() -> R + 'static) -> io::Result<Option<R>> {
        let stack = match self.0.take() {
            Some(stack) => stack,
            None => DefaultStack::new(STACK)?,
        };
        RUN_ON.set((stack.limit().get(), stack.base().get()));
        let mut driver = Coroutine::with_stack(stack, |leave: &Yielder<(), ()>, ()| {
            LEAVE.set(leave);
            body()
        });
        let result = driver.resume(());
        LEAVE.set(ptr::null());
        let result = match result {
            CoroutineResult::Return(result) => Some(result),
            CoroutineResult::Yield(()) => {
                // SAFETY: it is abandoned in driver code or on its way out of the host, where no
                // borrow of the harness is on its stack; what the driver holds goes with the arena.
                unsafe { driver.force_reset() };
                // Nobody is left who could open the places between variables.
                asan::unpoison(&addresses());
                None
            }
        };
        self.0 = Some(driver.into_stack());
        Ok(result)
    }
}

/// Leaves the driver's stack for good, if one is being run on. Returns otherwise.
pub(crate) fn abandon() {
    if is_running() {
        let _outside = arena::outside();
        crate::executor::on_abandon();
        leave();
    }
}

/// Whether a driver's stack is being run on.
pub(crate) fn is_running() -> bool {
    !LEAVE.get().is_null()
}

/// The stack that is being run on, from its guard to its base.
pub(crate) fn addresses() -> Range<usize> {
    let (limit, base) = RUN_ON.get();
    limit..base
}

/// Leaves the driver's stack, if one is being run on: does not return then.
pub(crate) fn leave() {
    let leave = LEAVE.get();
    if !leave.is_null() {
        // SAFETY: it is set only while the coroutine that owns the yielder runs, on this thread.
        unsafe { (*leave).suspend(()) };
    }
}
