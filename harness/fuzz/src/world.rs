//! The computer of one execution: a device, the memory it may reach, a clock, interrupts.
//!
//! It is the machine's smallest sister, built to be made anew a hundred thousand times a second: one
//! function, no fabric, an IOMMU that lets through what the machine's [`Ledger`] sanctions, to the byte,
//! and refuses the rest. There is one world a thread. Drivers reach it by [`FuzzHost`](crate::host::FuzzHost).
//!
//! What the program does to the device happens here, between the model and the driver; the model never
//! knows. Only what an honest model does of its own is judged: its addresses are the driver's.

mod deeds;
mod dma;
mod interrupts;
mod mappings;
mod patience;
mod sightings;
mod sketch;

pub use mappings::Map;
use mappings::Region;
pub use sketch::{Places, Sketch, Spot};

use crate::arena;
use crate::lies::Lies;
use crate::memory::Memory;
use crate::oracle::{Oracle, Sighting};
use crate::program::{CARRIED, EVENTS, Event, Mode, Program, Register, cut};
use crate::script::Script;
use crate::target::Target;
use crate::trace::{Step, Trace};
use cofferdam_instrument::trap;
use cofferdam_machine::Ledger;
use cofferdam_seam::{
    Access, Bar, Completion, Device, Interrupts, RequesterId, Time, VectorSet, Width,
};
use std::cell::{Cell, RefCell};
use std::io;
use std::time::Duration;
use vdevice_pci::PciFunction;

/// Costs of what a driver does, in the order of magnitude of real hardware.
const READ: u64 = 800;
const WRITE: u64 = 100;
const CONFIG: u64 = 1000;

/// The function's place, which nobody asks for.
const REQUESTER: RequesterId = RequesterId::new(1, 0, 0);

/// Register reads that are remembered.
const RECENT: usize = 8;

/// No register's answer.
const NOTHING: (Register, u64) = (
    Register {
        bar: u8::MAX,
        offset: 0,
    },
    0,
);

/// In one of so many executions they are noted.
const NOTING: u32 = 16;

/// How closely an execution is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// As fast as it goes.
    Fast,
    /// With the driver's stack at each sighting, and much more patience with loops.
    Close,
    /// And everything that happens is written down.
    Traced,
}

/// The function, and everything else.
pub struct World {
    function: Option<Box<PciFunction>>,
    /// What is not the function.
    pub state: State,
}

/// The world without its function, which is therefore free to be lent.
pub struct State {
    now: Time,
    /// What drivers give to devices.
    pub memory: Memory,
    first_iova: u64,
    ledger: Ledger,
    /// In the order in which they were made.
    pub maps: Vec<Map>,
    /// Regions of DMA memory, in the order in which they were given out.
    regions: Vec<Region>,
    script: Script,
    counts: [u32; EVENTS.len()],
    carried: [u32; CARRIED.len()],
    messages: u32,
    raised: VectorSet,
    pin: bool,
    interrupts: Option<Interrupts>,
    wakes: Vec<Time>,
    stalled_until: Time,
    removed: bool,
    /// Deeds of the program that took place.
    acted: u32,
    /// What the device said that is not true.
    lies: Lies,
    /// Idle turns after which a loop is abandoned.
    idle_limit: u32,
    /// Turns since anything happened.
    idle: u32,
    /// Of those, the ones in which the driver compared the same values over and over.
    rounds: u32,
    /// The longest such wait that came to an end, in this execution.
    longest: u32,
    /// Of the turns in which nothing happened, those that read a register.
    asked: u32,
    /// Turns since the call began.
    turns: u32,
    /// The driver runs elsewhere: its accesses to the device's memory are nobody's here.
    elsewhere: bool,
    /// How often anything happened.
    moves: u64,
    /// The device's memory is being watched, for so many turns more.
    watched: bool,
    extra: u32,
    /// Of the idle turns, those in which the driver looked at the device through its host.
    looked: u32,
    /// Since anything happened the driver read a register of a device that is gone.
    in_vain: bool,
    /// The turn in which it last read a register, or configuration space.
    last_look: u32,
    /// The turn in which it last read configuration space.
    last_config: u32,
    /// What registers said lately. To read it again is no news.
    reads: [(Register, u64); RECENT],
    next_read: usize,
    during: &'static str,
    detail: Detail,
    sightings: Vec<Sighting>,
    /// Requests up to this one are over, by the witness's count.
    over: u32,
    scratch: Vec<u8>,
    trace: Trace,
    /// What the driver read, for mutators.
    sketch: Sketch,
    /// Executions until places are noted again; zero in one that notes them.
    noting: u32,
}

thread_local! {
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
    static TRACED: Cell<bool> = const { Cell::new(false) };
}

/// Whether the running execution is written down.
pub(crate) fn is_traced() -> bool {
    TRACED.get()
}

/// Runs `call` on this thread's world. The driver's allocator rests meanwhile.
///
/// # Panics
///
/// Outside an execution, or if the world is already being used: a mistake of the adapter's.
#[inline]
pub(crate) fn with<R>(call: impl FnOnce(&mut World) -> R) -> R {
    let _outside = arena::outside();
    WORLD.with_borrow_mut(|world| {
        let world = world.as_mut();
        call(world.expect("a host is used within an execution of `Executor::run` only"))
    })
}

/// Runs `call` on this thread's world if there is one and it is free.
pub(crate) fn try_with<R>(call: impl FnOnce(&mut World) -> R) -> Option<R> {
    let _outside = arena::outside();
    WORLD.with(|world| {
        let mut world = world.try_borrow_mut().ok()?;
        world.as_mut().map(call)
    })
}

/// Reports what an adapter noticed.
pub(crate) fn sight(oracle: Oracle, label: &'static str, words: impl FnOnce() -> String) {
    with(|world| world.state.sight(oracle, label, words));
}

/// Makes this thread's world, once.
pub(crate) fn open() -> io::Result<()> {
    let missing = WORLD.with_borrow(Option::is_none);
    if missing {
        let world = World {
            function: None,
            state: State::new()?,
        };
        WORLD.set(Some(world));
    }
    Ok(())
}

/// The driver read that byte of the world's memory through a pointer.
fn note_read(at: usize) {
    try_with(|world| world.state.touched(at));
}

impl World {
    /// Sets everything up for an execution.
    pub fn begin(&mut self, target: &dyn Target, program: &Program, detail: Detail) {
        TRACED.set(detail == Detail::Traced);
        let mut answers = crate::answers::take_buffer();
        self.state.begin(target, program, detail, &mut answers);
        let memory = match self.state.noting {
            0 => self.state.memory.addresses(),
            _ => 0..0,
        };
        trap::note_reads(&memory, note_read);
        crate::answers::load(answers);
        let device: Box<dyn Device> = match program.mode {
            Mode::Model => target.device(),
            Mode::Hostile => match target.hostile() {
                Some(device) => device,
                None => Box::new(crate::answers::Answering::like(target.device())),
            },
        };
        match &mut self.function {
            Some(function) => function.replace(device),
            None => self.function = Some(Box::new(PciFunction::new(device, REQUESTER))),
        }
    }

    /// What an execution leaves behind.
    pub fn end(&mut self) -> Ended {
        let state = &mut self.state;
        state.learn();
        Ended {
            sightings: std::mem::take(&mut state.sightings),
            acted: state.acted,
            trace: std::mem::take(&mut state.trace),
        }
    }

    /// Takes a list of sightings back, to be used again.
    pub fn recycle(&mut self, mut sightings: Vec<Sighting>) {
        sightings.clear();
        self.state.sightings = sightings;
    }

    /// Bytes in a BAR.
    pub fn bar_size(&self, bar: Bar) -> Option<u64> {
        self.function.as_ref()?.bar_size(bar)
    }

    /// The driver reads a register.
    #[inline]
    pub fn read(&mut self, bar: Bar, offset: u32, width: Width) -> u64 {
        self.spend(READ);
        let Self { function, state } = self;
        let register = Register::new(bar, offset);
        state.event(Event::Read);
        let mut value = width.all_ones();
        let mut delay = Duration::ZERO;
        if !state.removed {
            if let Some(scripted) = state.script.reply(register) {
                state.acted += 1;
                state.lies.answered();
                value = scripted;
            } else if let Some(function) = function
                && let Some(size) = function.bar_size(bar)
                && let Some(at) = Access::new(bar, offset, width, size)
            {
                value = match function.read(at, state) {
                    Completion::Data(value) => value,
                    Completion::After { delay: late, value } => {
                        delay = late;
                        value
                    }
                    _ => u64::MAX,
                };
            }
        }
        let value = cut(value, width);
        state.was_read(register, value);
        state.trace.add(state.now, || Step::Read {
            register,
            width,
            value,
        });
        if !delay.is_zero() {
            self.spend(u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX));
        }
        value
    }

    /// The driver writes a register.
    #[inline]
    pub fn write(&mut self, bar: Bar, offset: u32, width: Width, value: u64) {
        self.spend(WRITE);
        let Self { function, state } = self;
        state.progress();
        state.event(Event::Write);
        state.trace.add(state.now, || Step::Write {
            register: Register::new(bar, offset),
            width,
            value,
        });
        if state.removed {
            return;
        }
        if let Some(function) = function
            && let Some(size) = function.bar_size(bar)
            && let Some(at) = Access::new(bar, offset, width, size)
        {
            function.write(at, value, state);
        }
        // What the write starts and costs no time is done before the driver goes on.
        self.spend(0);
    }

    /// The driver reads configuration space.
    pub fn config_read(&mut self, offset: u16, width: Width) -> u32 {
        self.spend(CONFIG);
        let Self { function, state } = self;
        if !state.sketch.configs.contains(&offset) {
            state.sketch.configs.push(offset);
        }
        let scripted = state.script.config(offset);
        let honest = match function {
            Some(function) if !state.removed => {
                function.answer_config(offset, width, state.now).into()
            }
            _ => width.all_ones(),
        };
        let value = match scripted {
            Some(value) if !state.removed => {
                state.acted += 1;
                state.lies.answered();
                value
            }
            _ => honest,
        };
        // At most 32 bits are asked for.
        let value = u32::try_from(cut(value, width) & 0xffff_ffff).unwrap_or(u32::MAX);
        state.was_asked(offset, value);
        state.trace.add(state.now, || Step::ConfigRead {
            offset,
            width,
            value,
        });
        value
    }

    /// The driver, or its host, writes configuration space.
    pub fn config_write(&mut self, offset: u16, width: Width, value: u32) {
        self.spend(CONFIG);
        let Self { function, state } = self;
        state.progress();
        state.trace.add(state.now, || Step::ConfigWrite {
            offset,
            width,
            value,
        });
        if let Some(function) = function
            && !state.removed
        {
            function.config_write(offset, width, value, state);
        }
    }

    /// The function and its bus, for whoever plays the privileged layer.
    pub(crate) fn function(&mut self) -> Option<(&mut PciFunction, &mut State)> {
        let function = self.function.as_mut()?;
        Some((function, &mut self.state))
    }

    /// Whether the device may send memory requests.
    pub fn is_bus_master(&self) -> bool {
        self.function.as_ref().is_some_and(|it| it.bus_master()) && !self.state.removed
    }
}

/// What an execution left behind.
pub struct Ended {
    /// What oracles noticed.
    pub sightings: Vec<Sighting>,
    /// Deeds of the program that took place.
    pub acted: u32,
    /// What happened, if it was written down.
    pub trace: Trace,
}

impl State {
    fn new() -> io::Result<Self> {
        let mut ledger = Ledger::default();
        ledger.attach();
        Ok(Self {
            now: Time::ZERO,
            memory: Memory::new()?,
            first_iova: 0,
            ledger,
            maps: Vec::new(),
            regions: Vec::new(),
            script: Script::default(),
            counts: [0; EVENTS.len()],
            carried: [0; CARRIED.len()],
            messages: 0,
            raised: VectorSet::EMPTY,
            pin: false,
            interrupts: None,
            wakes: Vec::new(),
            stalled_until: Time::ZERO,
            removed: false,
            acted: 0,
            lies: Lies::default(),
            idle_limit: patience::IDLE,
            idle: 0,
            rounds: 0,
            longest: 0,
            asked: 0,
            turns: 0,
            elsewhere: false,
            moves: 0,
            watched: false,
            extra: 0,
            looked: 0,
            in_vain: false,
            last_look: 0,
            last_config: 0,
            reads: [NOTHING; RECENT],
            next_read: 0,
            during: "probe",
            detail: Detail::Fast,
            sightings: Vec::new(),
            over: 0,
            scratch: Vec::new(),
            trace: Trace::default(),
            sketch: Sketch::default(),
            noting: 0,
        })
    }

    fn begin(
        &mut self,
        target: &dyn Target,
        program: &Program,
        detail: Detail,
        answers: &mut Vec<u8>,
    ) {
        self.now = Time::ZERO;
        self.memory.reset();
        self.first_iova = target.first_iova().0;
        self.ledger.clear();
        self.maps.clear();
        self.regions.clear();
        self.script.load(program, answers);
        self.counts = [0; EVENTS.len()];
        self.carried = [0; CARRIED.len()];
        self.messages = 0;
        self.raised = VectorSet::EMPTY;
        self.pin = false;
        self.interrupts = None;
        self.wakes.clear();
        self.stalled_until = Time::ZERO;
        self.removed = false;
        self.acted = 0;
        self.lies = Lies::none(target, program.mode);
        self.elsewhere = false;
        self.detail = detail;
        self.sightings.clear();
        self.over = 0;
        self.longest = 0;
        self.noting = self.noting.checked_sub(1).unwrap_or(NOTING - 1);
        self.trace = Trace::new(detail == Detail::Traced);
        self.enter("probe");
    }

    /// A call of the workload begins.
    pub fn enter(&mut self, during: &'static str) {
        self.during = during;
        self.progress();
        self.turns = 0;
        self.last_look = 0;
        self.last_config = 0;
        self.watched = false;
        self.extra = 0;
        self.lies.enter();
        self.reads = [NOTHING; RECENT];
        self.trace.add(self.now, || Step::Enter { during });
    }

    /// Writes down how a call ended.
    pub fn leave(&mut self, how: impl FnOnce() -> String) {
        self.trace.add(self.now, || Step::Leave { how: how() });
    }

    /// The next call of the workload.
    pub fn next_call(&mut self) -> Option<crate::script::Asked> {
        let next = self.script.next_call();
        if next.is_some() {
            self.event(Event::Call);
        }
        next
    }

    /// Device time.
    pub fn now(&self) -> Time {
        self.now
    }

    /// Whether somebody looks closely.
    pub fn is_close(&self) -> bool {
        self.detail != Detail::Fast
    }

    /// The driver runs elsewhere, in this execution.
    pub(crate) fn goes_elsewhere(&mut self) {
        self.elsewhere = true;
    }

    /// Whether the device was pulled out.
    pub fn is_removed(&self) -> bool {
        self.removed
    }
}
