//! Runs programs: one execution is a world, a driver from probe to removal, and the oracles.

use crate::arena;
use crate::coroutine::{self, DriverStack};
use crate::elsewhere;
use crate::fault;
use crate::frames;
use crate::host::FuzzHost;
use crate::oracle::{Oracle, Sighting};
use crate::program::Program;
use crate::sanitized;
use crate::target::{Call, Target};
use crate::trace::Trace;
use crate::watch;
use crate::witness::Witness;
use crate::world::{self, Detail, Sketch};
use cofferdam_instrument::steps::{self, Stepping, Turn};
use cofferdam_instrument::{platform, trap};
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::io;
use std::mem::ManuallyDrop;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::ptr;
use std::rc::Rc;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

/// Runs programs against one target, on the thread that made it.
pub struct Executor {
    target: &'static dyn Target,
    stack: DriverStack,
    turn: Rc<Turns>,
}

/// What came of an execution.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What the oracles noticed.
    pub sightings: Vec<Sighting>,
    /// How often the program's device acted.
    pub acted: u32,
    /// Whether the driver took the device.
    pub started: bool,
    /// Whether the driver had to be abandoned.
    pub abandoned: bool,
    /// What happened, if that was asked for.
    pub trace: Trace,
}

/// A panic of the driver, as the hook saw it.
struct Panicked {
    file: &'static str,
    line: u32,
    frames: Vec<usize>,
    words: String,
}

thread_local! {
    /// Driver code is being run.
    static RUNNING: Cell<bool> = const { Cell::new(false) };
    static PANICKED: RefCell<Option<Panicked>> = const { RefCell::new(None) };
}

/// The program that is being run, for a handler of a fatal signal: null between executions, and valid
/// until its execution ends.
pub fn current() -> *const Program {
    CURRENT.load(Ordering::Relaxed)
}

/// For a handler of a fatal signal, which must not use the driver's heap, and is not counted.
pub fn leave_driver() {
    steps::stop();
    RUNNING.set(false);
    arena::speak();
    std::mem::forget(arena::outside());
}

static CURRENT: AtomicPtr<Program> = AtomicPtr::new(ptr::null_mut());

/// How many programs this process has begun to run, close looks included: it stands still while one runs,
/// whoever looks.
pub fn begun() -> u64 {
    BEGUN.load(Ordering::Relaxed)
}

static BEGUN: AtomicU64 = AtomicU64::new(0);

/// Frames that tell one loop from another while fuzzing; about half of them are the harness's own.
pub(crate) const GLANCE: usize = 12;

/// How a driver's life ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Life {
    Refused,
    Removed,
    Panicked,
}

impl Executor {
    /// An executor for `target`. Panics of drivers go to it from now on; the process's panic hook
    /// gets all others.
    ///
    /// # Errors
    ///
    /// The system has no memory left.
    pub fn new(target: &'static dyn Target) -> io::Result<Self> {
        world::open()?;
        world::with(|world| world.state.forget());
        install_hook();
        fault::install()?;
        sanitized::install();
        Ok(Self {
            target,
            stack: DriverStack::new()?,
            turn: Rc::new(Turns),
        })
    }

    /// Whom it runs.
    pub fn target(&self) -> &'static dyn Target {
        self.target
    }

    /// What the executions so far had in common.
    pub fn sketch(&self) -> Sketch {
        world::with(|world| world.state.sketch().clone())
    }

    /// A driver that was abandoned would have come back: waits longer from now on, if it can.
    pub fn be_patient(&mut self) -> bool {
        world::with(|world| world.state.be_patient())
    }

    /// Gives the list of an outcome back, which saves an allocation in the next execution.
    pub fn recycle(&mut self, outcome: Outcome) {
        world::with(|world| world.recycle(outcome.sightings));
    }

    /// Runs a program.
    ///
    /// # Errors
    ///
    /// The system has no memory left, or the place that the driver runs in failed: no finding.
    pub fn run(&mut self, program: &Program, detail: Detail) -> io::Result<Outcome> {
        let target = self.target;
        world::with(|world| world.begin(target, program, detail));
        let stack = self.stack.addresses();
        BEGUN.store(begun() + 1, Ordering::Relaxed);
        CURRENT.store(ptr::from_ref(program).cast_mut(), Ordering::Relaxed);
        let life = {
            let _stepping = Stepping::new(self.turn.clone());
            RUNNING.set(true);
            let life = self.stack.run(move || live(target, stack));
            RUNNING.set(false);
            CURRENT.store(ptr::null_mut(), Ordering::Relaxed);
            life?
        };
        watch::end();
        let failed = elsewhere::end();
        // SAFETY of the arena's reset: the driver is gone, and what it returned is plain data.
        let ended = world::with(|world| {
            let master = world.is_bus_master();
            match life {
                Some(Life::Removed) => world.state.after_removal(master),
                Some(Life::Refused) => world.state.after_refusal(master),
                Some(Life::Panicked) | None => {}
            }
            world.end()
        });
        if life.is_none() {
            fault::unblock();
        }
        // What panicked is not dropped either.
        if matches!(life, None | Some(Life::Panicked)) {
            forget_driver();
        }
        reset_arena();
        if let Some(error) = failed {
            return Err(error);
        }
        Ok(Outcome {
            sightings: ended.sightings,
            acted: ended.acted,
            started: life != Some(Life::Refused),
            abandoned: life.is_none(),
            trace: ended.trace,
        })
    }
}

#[expect(unsafe_code, reason = "nobody else knows that the driver is gone")]
fn forget_driver() {
    platform::abandon();
    // SAFETY: the windows were the driver's, which was left on its stack, or in its place.
    unsafe { trap::abandon() };
}

#[expect(unsafe_code, reason = "the arena cannot know that nobody uses it")]
fn reset_arena() {
    // SAFETY: the driver returned or was abandoned, and nothing of it is left in harness state.
    unsafe { arena::reset() };
}

/// A driver's life, on its own stack.
fn live(target: &'static dyn Target, stack: std::ops::Range<usize>) -> Life {
    let inside = arena::inside();
    let life = panic::catch_unwind(AssertUnwindSafe(|| lead(target, &stack)));
    let life = life.unwrap_or_else(|payload| {
        drop_payload(payload);
        Life::Panicked
    });
    drop(inside);
    if life == Life::Panicked {
        report_panic();
    }
    life
}

fn drop_payload(payload: Box<dyn Any + Send>) {
    // A payload whose drop panics would end the process.
    let dropped = panic::catch_unwind(AssertUnwindSafe(|| drop(payload)));
    if let Err(again) = dropped {
        std::mem::forget(again);
    }
}

fn lead(target: &'static dyn Target, stack: &std::ops::Range<usize>) -> Life {
    let mut witness = Witness::new();
    let started = target.start(FuzzHost::new(), &mut witness);
    // A driver that panicked is not dropped: its drop might panic too, which would end the process.
    let mut driver = match started {
        Ok(driver) => ManuallyDrop::new(driver),
        Err(refused) => {
            world::with(|world| world.state.leave(|| refused.reason().to_owned()));
            return Life::Refused;
        }
    };
    world::with(|world| world.state.leave(|| "in service".to_owned()));
    while let Some(asked) = world::with(|world| world.state.next_call()) {
        let call = Call::new(target.calls(), asked.call.into(), asked.arguments());
        let Some(call) = call else { continue };
        world::with(|world| world.state.enter(call.name()));
        let result = driver.call(call, &mut witness);
        world::with(|world| {
            let state = &mut world.state;
            state.leave(|| match &result {
                Ok(()) => "done".to_owned(),
                Err(refused) => refused.reason().to_owned(),
            });
            state.lost(stack, Oracle::StackWhileMapped);
        });
    }
    world::with(|world| world.state.enter("remove"));
    drop(ManuallyDrop::into_inner(driver));
    world::with(|world| world.state.leave(|| "removed".to_owned()));
    Life::Removed
}

fn report_panic() {
    let panicked = PANICKED.take();
    world::with(|world| {
        let state = &mut world.state;
        match panicked {
            Some(at) => state.panicked(at.file, at.line, at.frames, at.words),
            // It was resumed, past every hook.
            None => state.panicked("", 0, Vec::new(), "a resumed panic".to_owned()),
        }
    });
}

/// Called right before a driver's stack is left.
pub(crate) fn on_abandon() {
    let touched = watch::end();
    abandoned(touched);
}

/// The driver does not come back, and `touched` the device's memory while it was watched.
pub(crate) fn abandoned(touched: bool) {
    let close = world::try_with(|world| world.state.is_close()).unwrap_or(true);
    let frames = if close {
        frames::capture()
    } else {
        frames::glance(GLANCE)
    };
    world::with(|world| world.abandon(&frames, touched));
    RUNNING.set(false);
}

/// Called before the stack of a driver is left that cannot go on.
pub(crate) fn on_fault(fault: fault::Fault) {
    watch::end();
    world::with(|world| world.state.cannot_go_on(fault));
    RUNNING.set(false);
}

/// The turns that a driver takes between two looks at its host.
struct Turns;

impl Turn for Turns {
    fn turn(&self) {
        // What a handler of a fatal signal does is no step of the driver's.
        if !RUNNING.get() {
            return;
        }
        let exhausted = world::try_with(|world| {
            world.turn();
            if world.is_idle() {
                steps::watch();
            }
            world.is_exhausted()
        });
        if exhausted == Some(true) {
            coroutine::abandon();
        }
    }

    fn round(&self) {
        if RUNNING.get() && world::try_with(world::World::goes_round) == Some(true) {
            coroutine::abandon();
        }
    }
}

/// Puts a hook before the one that is there: a panic of a driver prints nothing.
fn install_hook() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if RUNNING.get() {
                let _outside = arena::outside();
                note(info);
            } else {
                before(info);
            }
        }));
    });
}

fn note(info: &PanicHookInfo<'_>) {
    let close = world::try_with(|world| world.state.is_close()).unwrap_or(false);
    let place = info.location();
    let words = if close {
        info.payload_as_str().unwrap_or("a panic").to_owned()
    } else {
        String::new()
    };
    let file = place.map_or("", |place| place.file());
    let line = place.map_or(0, panic::Location::line);
    let frames = if close { frames::capture() } else { Vec::new() };
    note_panic(file, line, frames, words);
}

/// Remembers a panic of the driver's for when its stack was unwound.
pub(crate) fn note_panic(file: &str, line: u32, frames: Vec<usize>, words: String) {
    let panicked = Panicked {
        file: known_file(file),
        line,
        frames,
        words,
    };
    // Of a panic while unwinding the process aborts; the first tells why.
    PANICKED.with_borrow_mut(|first| match first {
        None => *first = Some(panicked),
        // The standard library tells of it each time.
        Some(_) => arena::hush(),
    });
}

thread_local! {
    static FILES: RefCell<Vec<&'static str>> = const { RefCell::new(Vec::new()) };
}

/// One copy of each file name, for good: there are few.
fn known_file(file: &str) -> &'static str {
    FILES.with_borrow_mut(|files| {
        if let Some(known) = files.iter().find(|known| **known == file) {
            return *known;
        }
        let known: &'static str = Box::leak(file.to_owned().into_boxed_str());
        files.push(known);
        known
    })
}
