//! Drivers that run elsewhere, in a guest of their own.
//!
//! Their adapter runs here, on the driver's stack, with a proxy in the driver's place. What the driver asks
//! of its host arrives at the proxy, which asks the [`FuzzHost`](crate::host::FuzzHost); so device,
//! program, ledger and oracles are the same. What the processor would tell this process of a driver that
//! runs in it, the proxy tells here: where the driver stands, what it died of, that it goes round.
//!
//! A proxy is left from within these calls, as a driver is: without its destructors, for good. It holds
//! nothing that is not the execution's.

use crate::coroutine;
use crate::executor;
use crate::fault::Fault;
use crate::frames::{self, Resolve};
use crate::oracle::Oracle;
use crate::world;
use crate::{arena, world::with};
use std::cell::RefCell;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::ops::Range;
use std::panic::resume_unwind;

thread_local! {
    static FAILED: RefCell<Option<io::Error>> = const { RefCell::new(None) };
}

/// What came of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turned {
    /// The device did something, or something was done to it: the driver may see it.
    Moved,
    /// Nothing.
    Still,
    /// Nothing, and the driver had all its turns.
    Spent,
}

/// The payload of an unwinding that stands for a driver's panic.
struct Panicked;

/// The memory that drivers of this thread give to devices: the same in all its executions.
///
/// # Errors
///
/// The system has no memory left.
pub fn memory() -> io::Result<Range<usize>> {
    world::open()?;
    Ok(with(|world| world.state.memory.addresses()))
}

/// The driver of this execution runs elsewhere, at addresses that mean something to `resolve` only.
pub fn begin(resolve: Resolve) {
    with(|world| world.state.goes_elsewhere());
    frames::stand_in(resolve);
}

/// The execution is over. Why it is none, if it is none.
pub(crate) fn end() -> Option<io::Error> {
    frames::stand_down();
    FAILED.take()
}

/// Where the driver stands, which came out of its place: `stack` gives so many addresses at most, the
/// instruction and what is returned to, innermost first.
pub fn stands(stack: impl FnOnce(usize) -> Vec<u64>) {
    let _outside = arena::outside();
    let depth = if is_close() {
        frames::DEPTH
    } else {
        executor::GLANCE
    };
    frames::stands(&stack(depth));
}

/// The instruction at which it stands, where what came out of its place is not the driver's.
pub fn stands_at(instruction: u64) {
    let _outside = arena::outside();
    frames::stands_at(instruction);
}

/// Runs what allocates memory that outlives the execution: the driver's heap, which a proxy uses too, starts
/// over with the next. Nothing in it may leave the execution.
pub fn beyond<R>(run: impl FnOnce() -> R) -> R {
    let _outside = arena::outside();
    run()
}

/// Whether somebody looks at this execution closely.
pub fn is_close() -> bool {
    world::try_with(|world| world.state.is_close()).unwrap_or(false)
}

/// Gives the device a turn while the driver computes, or polls memory, without asking its host.
pub fn turn() -> Turned {
    with(|world| {
        let events = world.state.moves();
        world.turn();
        if world.state.moves() != events {
            Turned::Moved
        } else if world.is_spent() {
            Turned::Spent
        } else {
            Turned::Still
        }
    })
}

/// The driver does not come back; whether it looks at the device's memory is known in a close look only.
///
/// # Panics
///
/// Outside an execution.
pub fn abandon(looks: bool) -> ! {
    let _outside = arena::outside();
    executor::abandoned(looks);
    leave()
}

/// The driver panicked.
pub fn panicked(file: &str, line: u32, words: &str) -> ! {
    let outside = arena::outside();
    let close = is_close();
    executor::note_panic(
        file,
        line,
        if close { frames::capture() } else { Vec::new() },
        if close {
            words.to_owned()
        } else {
            String::new()
        },
    );
    drop(outside);
    resume_unwind(Box::new(Panicked))
}

/// The driver did what it cannot go on after, where it stands.
///
/// # Panics
///
/// Outside an execution.
pub fn faulted(oracle: Oracle, words: impl FnOnce() -> String) -> ! {
    let _outside = arena::outside();
    let mut key = DefaultHasher::new();
    frames::innermost(1).hash(&mut key);
    let close = is_close();
    executor::on_fault(Fault {
        oracle,
        key: key.finish(),
        frames: if close { frames::capture() } else { Vec::new() },
        words: if close { words() } else { String::new() },
    });
    leave()
}

/// The driver's place failed, which is nobody's defect: the execution counts for nothing.
///
/// # Panics
///
/// Outside an execution.
pub fn failed(why: impl std::error::Error) -> ! {
    let _outside = arena::outside();
    FAILED.set(Some(io::Error::other(why.to_string())));
    leave()
}

/// The driver freed memory of its own.
pub fn freed(bytes: &Range<usize>) {
    with(|world| world.state.lost(bytes, Oracle::FreedWhileMapped));
}

/// A call of the workload returned: what lies in that part of the driver's stack is gone, and the driver
/// stands nowhere.
pub fn returned(stack: Range<u64>) {
    frames::stand_down();
    let [start, end] = [stack.start, stack.end].map(|at| usize::try_from(at).unwrap_or(usize::MAX));
    with(|world| world.state.lost(&(start..end), Oracle::StackWhileMapped));
}

/// Whether the device can reach any of those bytes of the driver's own.
pub fn is_lent(bytes: &Range<usize>) -> bool {
    with(|world| world.state.stands_for(bytes).is_some())
}

fn leave() -> ! {
    coroutine::leave();
    unreachable!("a driver runs elsewhere within an execution of `Executor::run` only")
}
