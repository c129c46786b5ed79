//! The computer of one execution: a device, the memory it may reach, a clock, interrupts.
//!
//! It is the machine's smallest sister, built to be made anew a hundred thousand times a second: one
//! function, no fabric, an IOMMU that lets through what the machine's [`Ledger`] sanctions, to the byte,
//! and refuses the rest. There is one world a thread. Drivers reach it by [`FuzzHost`](crate::host::FuzzHost).
//!
//! What the program does to the device happens here, between the model and the driver; the model never
//! knows. Only what an honest model does of its own is judged: its addresses are the driver's.

use crate::arena;
use crate::fault::Fault;
use crate::frames;
use crate::lies::Lies;
use crate::memory::Memory;
use crate::oracle::{Oracle, Place, Sighting};
use crate::program::{CARRIED, Carried, EVENTS, Event, Mode, Program, Register, Trigger, cut};
use crate::script::{Change, Deed, Script};
use crate::target::Target;
use crate::trace::{Step, Trace};
use crate::watch;
use cofferdam_instrument::trap;
use cofferdam_machine::{Ledger, Live, Verdict};
use cofferdam_seam::{
    Access, Bar, Budget, Bus, Completion, Device, Direction, DmaFault, Interrupts, Iova, Progress,
    Purpose, RequesterId, Time, Vector, VectorSet, Width,
};
use std::cell::{Cell, RefCell};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::ops::Range;
use std::time::Duration;
use vdevice_pci::PciFunction;

/// Costs of what a driver does, in the order of magnitude of real hardware.
const READ: u64 = 800;
const WRITE: u64 = 100;
const CONFIG: u64 = 1000;
const RELAX: u64 = 1000;

/// The function's place, which nobody asks for.
const REQUESTER: RequesterId = RequesterId::new(1, 0, 0);

/// Where messages go.
const MESSAGES: Range<u64> = 0xfee0_0000..0xfef0_0000;

/// Wake-ups a device may have ahead of it.
const WAKES: usize = 64;

/// Steps a device gets before time must pass.
const STEPS: u32 = 64;

/// Turns of a loop in which nothing happens and nothing can happen any more, to begin with: then the
/// loop is abandoned.
const IDLE: u32 = 10;

/// Idle turns after which time leaps to the next event.
const LEAP: u32 = 2;

/// The most such turns, for drivers that were found to compute for long.
const IDLE_MOST: u32 = 2560;

/// Turns in one call of the workload: then it is abandoned, whatever happens.
const TURNS: u32 = 4096;

/// Register reads that are remembered.
const RECENT: usize = 8;

/// Configuration space, where registers are remembered by their BAR.
const CONFIGURATION: u8 = u8::MAX - 1;

/// No register's answer.
const NOTHING: (Register, u64) = (
    Register {
        bar: u8::MAX,
        offset: 0,
    },
    0,
);

/// How much patience an execution has that looks at a finding closely.
const PATIENCE: u32 = 64;

/// Reads of registers that say the same, in a close look: a driver may count them instead of the time.
const READS: u32 = 1 << 17;

/// Turns in which the device's memory is watched.
const EXTRA: u32 = 32;

/// Places in memory that are remembered.
const PLACES: usize = 128;

/// In one of so many executions they are noted.
const NOTING: u32 = 16;

/// Sightings of one execution.
const SIGHTINGS: usize = 8;

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

/// A live or past mapping.
pub struct Map {
    /// Its first byte in the world's memory.
    pub start: usize,
    /// Bytes.
    pub len: usize,
    /// Which way it may be used.
    pub way: Direction,
    /// Whether it is live.
    pub live: bool,
    /// The memory it stands for, if it is a copy of memory of the driver's own.
    pub stands_for: Option<usize>,
    /// Which region it is of.
    pub region: Option<u64>,
    /// The driver's stack when it was made, in a close look.
    frames: Vec<usize>,
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
    /// Regions given out.
    pub regions: u64,
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
    /// The longest such wait that came to an end, in this execution.
    longest: u32,
    /// Of the turns in which nothing happened, those that read a register.
    asked: u32,
    /// Turns since the call began.
    turns: u32,
    /// The device's memory is being watched, for so many turns more.
    watched: bool,
    extra: u32,
    /// Of the idle turns, those in which the driver looked at the device through its host.
    looked: u32,
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

/// What the executions of a target had in common: what mutators aim at.
#[derive(Clone, Debug, Default)]
pub struct Sketch {
    /// Registers that were read.
    pub registers: Vec<Register>,
    /// Offsets of configuration space that were read.
    pub configs: Vec<u16>,
    /// Most events of each kind in an execution.
    pub counts: [u32; EVENTS.len()],
    /// Most DMA writes of each kind in an execution.
    pub carried: [u32; CARRIED.len()],
    /// Most mappings in an execution.
    pub maps: u32,
    /// Where in mapped memory the driver looked, or the device wrote: of two that fall into one slot
    /// the later.
    pub places: Places,
}

/// A mapping, in the order in which they were made, and bytes from its start.
pub type Spot = (u16, u32);

/// Places in mapped memory, in a table of fixed size.
#[derive(Clone, Debug)]
pub struct Places([Option<Spot>; PLACES]);

impl Default for Places {
    fn default() -> Self {
        Self([None; PLACES])
    }
}

impl Places {
    fn note(&mut self, spot: Spot) {
        let key = u64::from(spot.0) << 32 | u64::from(spot.1);
        let slot = key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 57;
        self.0[usize::try_from(slot).unwrap_or(0) % PLACES] = Some(spot);
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = Spot> {
        self.0.iter().copied().flatten()
    }
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
        self.function = Some(Box::new(PciFunction::new(device, REQUESTER)));
    }

    /// What an execution leaves behind.
    pub fn end(&mut self) -> Ended {
        self.function = None;
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
        let state = &mut self.state;
        let patience = match state.detail {
            Detail::Fast => 1,
            Detail::Close | Detail::Traced => PATIENCE,
        };
        let mut limit = state.idle_limit.saturating_mul(patience);
        if state.is_close() && state.asked > 0 {
            limit = limit.max(READS);
        }
        let stuck = state.idle > limit
            && state.wakes.is_empty()
            && !state
                .script
                .awaits_polls(state.counts[Event::Poll as usize]);
        let spent = state.turns > TURNS.saturating_mul(patience);
        if !stuck && !spent {
            return false;
        }
        if state.is_close() && state.looked == 0 && !state.watched {
            // Some turns more, to see whether the driver looks at the device's memory meanwhile.
            state.watched = watch::begin(&state.memory.addresses()).is_ok();
            state.extra = EXTRA;
        }
        state.extra = state.extra.saturating_sub(1);
        state.extra == 0
    }

    /// The driver will not come back. `touched` says whether it looked at the device's memory while it
    /// was watched.
    pub fn abandon(&mut self, frames: &[usize], touched: bool) {
        let state = &mut self.state;
        let mut hash = DefaultHasher::new();
        let innermost = frames.get(..frames.len().min(6)).unwrap_or_default();
        innermost.hash(&mut hash);
        // Only a close look knows.
        let waits = touched || state.looked > 0 || state.detail == Detail::Fast;
        let (oracle, does) = if waits {
            (Oracle::UnboundedWait, "looks at the device")
        } else {
            (Oracle::Runaway, "does not look at the device")
        };
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
        });
    }

    #[inline]
    fn spend(&mut self, nanos: u64) {
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

    fn step(&mut self, to: Time) {
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
        Ok(Self {
            now: Time::ZERO,
            memory: Memory::new()?,
            first_iova: 0,
            ledger: Ledger::default(),
            maps: Vec::new(),
            regions: 0,
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
            idle_limit: IDLE,
            idle: 0,
            longest: 0,
            asked: 0,
            turns: 0,
            watched: false,
            extra: 0,
            looked: 0,
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
        self.ledger = Ledger::default();
        self.ledger.attach();
        self.maps.clear();
        self.regions = 0;
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

    fn learn(&mut self) {
        let sketch = &mut self.sketch;
        for (most, count) in sketch.counts.iter_mut().zip(self.counts) {
            *most = (*most).max(count);
        }
        for (most, count) in sketch.carried.iter_mut().zip(self.carried) {
            *most = (*most).max(count);
        }
        sketch.maps = sketch
            .maps
            .max(u32::try_from(self.maps.len()).unwrap_or(u32::MAX));
    }

    /// What the executions so far had in common.
    pub fn sketch(&self) -> &Sketch {
        &self.sketch
    }

    /// Forgets it, for another target.
    pub fn forget(&mut self) {
        self.sketch = Sketch::default();
        self.noting = 0;
        self.idle_limit = IDLE;
    }

    /// A loop that was abandoned would have ended, as the last execution showed: gives all of them more
    /// time from now on, if there is more to give and it would be enough.
    pub fn be_patient(&mut self) -> bool {
        let before = self.idle_limit;
        if self.longest.max(self.idle) <= IDLE_MOST {
            self.idle_limit = (self.idle_limit * 4).min(IDLE_MOST);
        }
        self.idle_limit > before
    }

    /// Device time.
    pub fn now(&self) -> Time {
        self.now
    }

    /// Whether somebody looks closely.
    pub fn is_close(&self) -> bool {
        self.detail != Detail::Fast
    }

    /// Whether the device was pulled out.
    pub fn is_removed(&self) -> bool {
        self.removed
    }

    /// Something happened: whoever polls may be getting on.
    pub fn progress(&mut self) {
        self.longest = self.longest.max(self.idle);
        self.idle = 0;
        self.asked = 0;
        self.looked = 0;
    }

    #[inline]
    fn was_read(&mut self, register: Register, value: u64) {
        self.turns += 1;
        if self.reads.contains(&(register, value)) {
            // A loop that waits for a register.
            self.looked += 1;
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
    fn was_asked(&mut self, offset: u16, value: u32) {
        self.turns += 1;
        let place = Register {
            bar: CONFIGURATION,
            offset: offset.into(),
        };
        let asked = (place, value.into());
        if self.reads.contains(&asked) {
            self.looked += 1;
        } else {
            self.reads[self.next_read % RECENT] = asked;
            self.next_read = self.next_read.wrapping_add(1);
            self.progress();
        }
    }

    /// Bytes of [`Self::memory`] were looked at by the driver, or written by the device.
    #[inline]
    pub fn touched(&mut self, at: usize) {
        if self.noting > 0 {
            return;
        }
        let of = |map: &Map| map.live && (map.start..map.start + map.len).contains(&at);
        if let Some(index) = self.maps.iter().position(of)
            && let Ok(mapping) = u16::try_from(index)
            && let Ok(offset) = u32::try_from(at - self.maps[index].start)
        {
            self.sketch.places.note((mapping, offset));
        }
    }

    /// Counts an event and does what the program has for it.
    #[inline]
    pub fn event(&mut self, event: Event) {
        let count = &mut self.counts[event as usize];
        *count = count.saturating_add(1);
        if self.script.is_timed() {
            let nth = *count;
            self.fire(Trigger { event, nth });
        }
    }

    fn fire(&mut self, now: Trigger) {
        let mut place = 0;
        while let Some(deed) = self.script.deed(place, now) {
            place += 1;
            match deed {
                None => continue,
                Some(Deed::Poke {
                    mapping,
                    offset,
                    bytes,
                }) => self.poke(mapping, offset, bytes),
                Some(Deed::Interrupt(vector)) => {
                    self.raised.insert(VectorSet::of(Vector(vector)));
                    self.trace.add(self.now, || Step::Injected { vector });
                    self.acted += 1;
                }
                Some(Deed::Stall(micros)) => {
                    let time = Duration::from_micros(micros.into());
                    self.stalled_until = self.stalled_until.max(self.now + time);
                    self.trace.add(self.now, || Step::Stalled { micros });
                    self.acted += 1;
                }
                Some(Deed::Remove) => {
                    self.removed = true;
                    self.wakes.clear();
                    self.trace.add(self.now, || Step::Removed);
                    self.acted += 1;
                }
            }
            self.progress();
        }
    }

    fn poke(&mut self, mapping: u16, offset: u32, bytes: Range<usize>) {
        let Some(map) = self.maps.get(usize::from(mapping)) else {
            return;
        };
        let skipped = usize::try_from(offset).unwrap_or(usize::MAX);
        let allowed = map.live && map.way.device_writes() && !self.removed;
        if !allowed || skipped >= map.len {
            return;
        }
        let (start, room) = (map.start + skipped, map.len - skipped);
        self.acted += 1;
        self.lies.poked();
        let bytes = self.script.bytes(bytes);
        let bytes = &bytes[..bytes.len().min(room)];
        self.memory.write(start, bytes);
        self.trace.add(self.now, || Step::Poked {
            mapping,
            offset,
            bytes: bytes.to_vec(),
        });
    }

    /// Reports something.
    pub fn sight(&mut self, oracle: Oracle, label: &'static str, words: impl FnOnce() -> String) {
        let place = if self.is_close() {
            Place::Frames(frames::capture())
        } else {
            Place::Call
        };
        self.sight_at(oracle, place, &label, words);
    }

    fn sight_at(
        &mut self,
        oracle: Oracle,
        place: Place,
        key: &impl Hash,
        words: impl FnOnce() -> String,
    ) {
        let mut hash = DefaultHasher::new();
        (oracle.name(), key, self.during).hash(&mut hash);
        let words = if self.is_close() {
            words()
        } else {
            String::new()
        };
        self.push(Sighting {
            oracle,
            place,
            key: hash.finish(),
            during: self.during,
            words,
        });
    }

    /// Reports a panic.
    pub fn panicked(&mut self, file: &'static str, line: u32, frames: Vec<usize>, words: String) {
        let place = if frames.is_empty() {
            Place::Source { file, line }
        } else {
            Place::Frames(frames)
        };
        self.sight_at(Oracle::Panic, place, &(file, line), || words);
    }

    /// Reports that the driver did what the processor or the system does not go on after.
    pub(crate) fn cannot_go_on(&mut self, fault: Fault) {
        let place = if fault.frames.is_empty() {
            Place::Call
        } else {
            Place::Frames(fault.frames)
        };
        self.sight_at(fault.oracle, place, &fault.key, || fault.words);
    }

    /// Whether a driver that returns `len` bytes, some of which are missing, should have known.
    pub fn may_miss_data(&self, len: usize) -> bool {
        self.lies.leave_blame_for_missing(len)
    }

    fn push(&mut self, sighting: Sighting) {
        self.trace.add(self.now, || Step::Sighted {
            oracle: sighting.oracle,
            words: sighting.words.clone(),
        });
        let known = self.sightings.iter().any(|known| known.key == sighting.key);
        if !known && self.sightings.len() < SIGHTINGS {
            self.sightings.push(sighting);
        }
    }

    /// The address devices use for a place in memory.
    pub fn iova(&self, start: usize) -> Iova {
        Iova(self.first_iova + start as u64)
    }

    /// Lets the device reach memory, and names the mapping.
    pub fn map(
        &mut self,
        bytes: Range<usize>,
        way: Direction,
        stands_for: Option<usize>,
        region: Option<u64>,
    ) -> u64 {
        let id = self.maps.len() as u64;
        let first = self.iova(bytes.start).0;
        let live = Live {
            id,
            bytes: first..first + bytes.len() as u64,
            way,
        };
        self.ledger.map(0, live, false);
        let frames = if self.is_close() {
            frames::capture()
        } else {
            Vec::new()
        };
        let (start, len) = (bytes.start, bytes.len());
        self.maps.push(Map {
            start,
            len,
            way,
            live: true,
            stands_for,
            region,
            frames,
        });
        self.progress();
        self.event(Event::Map);
        self.trace.add(self.now, || Step::Mapped {
            id,
            at: Iova(first),
            len,
            way,
        });
        id
    }

    /// Takes a mapping back; whether the driver held it.
    pub fn unmap(&mut self, id: u64) -> bool {
        let Ok(index) = usize::try_from(id) else {
            return false;
        };
        let Some(map) = self.maps.get_mut(index).filter(|map| map.live) else {
            self.sight(Oracle::BadUnmap, "unmap", || {
                format!("mapping {id} is not live")
            });
            return false;
        };
        map.live = false;
        self.ledger.unmap(0, id, self.now);
        self.progress();
        self.event(Event::Unmap);
        self.trace.add(self.now, || Step::Unmapped { id });
        true
    }

    /// The live mapping that starts at an address.
    pub fn mapping_at(&self, at: Iova) -> Option<u64> {
        let start = usize::try_from(at.0.checked_sub(self.first_iova)?).ok()?;
        let place = self
            .maps
            .iter()
            .rposition(|map| map.live && map.start == start)?;
        Some(place as u64)
    }

    /// The first live mapping that stands for any of those bytes.
    pub fn stands_for(&self, bytes: &Range<usize>) -> Option<usize> {
        let stands = |map: &Map| {
            map.live
                && map
                    .stands_for
                    .is_some_and(|at| at < bytes.end && bytes.start < at + map.len)
        };
        self.maps.iter().position(stands)
    }

    /// Memory of the driver's own is freed, or a stack frame ends: reports live mappings that stand
    /// for any of it.
    pub fn lost(&mut self, bytes: &Range<usize>, oracle: Oracle) {
        let found = self.stands_for(bytes);
        if let Some(index) = found {
            self.sight_map(oracle, index);
        }
    }

    /// Reports a mapping, at the place where the driver made it.
    pub fn sight_map(&mut self, oracle: Oracle, index: usize) {
        let map = &self.maps[index];
        let (len, way, id) = (map.len, map.way, index);
        let place = if self.is_close() {
            Place::Frames(map.frames.clone())
        } else {
            Place::Call
        };
        // The buffer's length may be the workload's, and says nothing about the place.
        self.sight_at(oracle, place, &(way, index < 4), || {
            format!("mapping m{id} ({len} bytes, {way:?}) is live")
        });
    }

    /// The driver was removed: reports what it left.
    pub fn after_removal(&mut self, bus_master: bool) {
        if let Some(index) = self.maps.iter().position(|map| map.live) {
            self.sight_map(Oracle::LeakedMapping, index);
        }
        self.after_refusal(bus_master);
    }

    /// The driver did not take the device: reports what it left.
    pub fn after_refusal(&mut self, bus_master: bool) {
        if bus_master {
            self.sight(Oracle::BusHeld, "bus master", || {
                "the bus-master enable bit is set".to_owned()
            });
        }
    }

    /// The driver waits for vectors: reports those it was not given.
    pub fn awaits(&mut self, wanted: VectorSet) {
        let given = self.interrupts.map_or(0, |given| given.count);
        let mut own = VectorSet::EMPTY;
        for vector in 0..given {
            own.insert(VectorSet::of(Vector(vector)));
        }
        let mut wanted = wanted;
        wanted.take(own);
        if !wanted.is_empty() {
            self.sight(Oracle::InterruptMisuse, "wait", || {
                format!("{wanted:?} of {given} vectors")
            });
        }
    }

    /// How many vectors there are for a driver that wants so many.
    pub fn vectors(&mut self, wanted: u16) -> u16 {
        let given = self
            .script
            .vectors()
            .map_or(wanted, |most| most.min(wanted));
        self.acted += u32::from(given < wanted);
        given
    }

    /// The data with those marks are of a request that is over.
    pub fn over(&mut self, secret: u32) {
        self.over = self.over.max(secret);
    }

    /// The device was given data: reports those of requests that are over, unless it lied about what is.
    fn leaks(&mut self, bytes: &[u8]) {
        let (blocks, _) = bytes.as_chunks::<16>();
        let stale = |block: &[u8; 16]| {
            crate::witness::secret_of(block).is_some_and(|secret| secret <= self.over)
        };
        if !self.lies.any() && blocks.iter().any(stale) {
            self.sight(Oracle::LeakedBytes, "payload", || {
                "data of a request that is over".to_owned()
            });
        }
    }

    /// Gives the driver interrupts of that sort.
    pub fn enable_interrupts(&mut self, given: Interrupts) {
        self.interrupts = Some(given);
    }

    /// Takes those of `wanted` that were raised. The pin counts as raised while it is up.
    pub fn take_interrupts(&mut self, wanted: VectorSet) -> VectorSet {
        if self.pin {
            self.raised.insert(VectorSet::of(Vector(0)));
        }
        let taken = self.raised.take(wanted);
        if !taken.is_empty() {
            self.progress();
            self.trace.add(self.now, || Step::Taken { vectors: taken });
        }
        taken
    }

    fn message(&mut self, vector: u16) {
        self.messages = self.messages.saturating_add(1);
        let lost = self.script.loses(self.messages);
        if lost {
            self.acted += 1;
        } else {
            self.raised.insert(VectorSet::of(Vector(vector)));
        }
        self.trace.add(self.now, || Step::Message { vector, lost });
    }

    fn wake(&mut self, at: Time) {
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

    fn judge(&mut self, at: Iova, len: usize, write: bool, why: Purpose) -> Option<usize> {
        let verdict = match at.0.checked_add(len as u64) {
            Some(end) => self.ledger.judge(0, &(at.0..end), write, self.now),
            None => Verdict::Unbacked,
        };
        match Oracle::of_dma(verdict) {
            None => usize::try_from(at.0.wrapping_sub(self.first_iova)).ok(),
            Some(_) if self.is_excused(at) => None,
            Some(oracle) => {
                let place = if self.is_close() {
                    Place::Frames(frames::capture())
                } else {
                    Place::Call
                };
                self.sight_at(oracle, place, &(why, write), || {
                    let verb = if write { "write" } else { "read" };
                    format!("{verb} of {len} bytes at {at}: {verdict}")
                });
                None
            }
        }
    }

    /// Whether the driver is not to blame for a request that goes to `at`, which it does not sanction:
    /// the model may have gone on with what the driver was told is over, or do more than the driver was
    /// told. Where nothing was ever mapped the device is sent by the driver only.
    fn is_excused(&self, at: Iova) -> bool {
        let place = at.0.checked_sub(self.first_iova);
        let place = place.and_then(|place| usize::try_from(place).ok());
        let covers = |map: &Map, place| (map.start..map.start + map.len).contains(&place);
        self.lies
            .excuse(|| place.is_some_and(|place| self.maps.iter().any(|map| covers(map, place))))
    }

    fn land(&mut self, at: Iova, from: &[u8], why: Purpose) -> Result<(), DmaFault> {
        if from.is_empty() {
            return Ok(());
        }
        let place = self.judge(at, from.len(), true, why);
        self.trace.add(self.now, || Step::DmaWrite {
            at,
            why,
            bytes: from.to_vec(),
            allowed: place.is_some(),
        });
        match place {
            Some(place) => {
                self.memory.write(place, from);
                self.touched(place);
                self.progress();
                Ok(())
            }
            None => Err(DmaFault::Refused),
        }
    }

    /// A DMA write that the program has something for.
    fn edited(&mut self, at: Iova, from: &[u8], why: Purpose, nth: u32) -> Result<(), DmaFault> {
        let mut bytes = std::mem::take(&mut self.scratch);
        bytes.clear();
        bytes.extend_from_slice(from);
        let (mut dropped, mut again, mut acted) = (false, None, 0);
        let mut ahead = matches!(why, Purpose::Publish | Purpose::Payload);
        for change in self.script.edits_of(Carried::from(why), nth) {
            acted += 1;
            match change {
                Change::Overwrite(offset, with) => {
                    let offset = usize::try_from(*offset).unwrap_or(usize::MAX);
                    let said = offset..offset.saturating_add(with.len());
                    ahead |= why == Purpose::Completion && self.lies.names_another(&said);
                    let changed = bytes.iter_mut().skip(offset);
                    for (byte, new) in changed.zip(self.script.bytes(with.clone())) {
                        *byte = *new;
                    }
                }
                Change::Drop => dropped = true,
                Change::Repeat(slot) => {
                    ahead = true;
                    again = Some(*slot);
                }
            }
        }
        self.acted += acted;
        // What changes nothing is no lie.
        if dropped || again.is_some() || bytes != from {
            let said = (!dropped && again.is_none()).then_some(bytes.as_slice());
            self.lies.wrote(why, from, said, ahead, again.is_some());
        }
        let result = if dropped {
            self.trace.add(self.now, || Step::Dropped { at, why });
            Ok(())
        } else {
            self.land(at, &bytes, why)
        };
        if let Some(slot) = again {
            // The program's own request: the driver is not to blame for where it goes.
            let at = at.offset(slot.into());
            let end = at.0.checked_add(bytes.len() as u64);
            let verdict = end.map(|end| self.ledger.judge(0, &(at.0..end), true, self.now));
            if verdict == Some(Verdict::Sanctioned) {
                let _ = self.land(at, &bytes, why);
            }
        }
        self.scratch = bytes;
        result
    }
}

impl Bus for State {
    fn dma_read(
        &mut self,
        _by: RequesterId,
        at: Iova,
        into: &mut [u8],
        why: Purpose,
    ) -> Result<(), DmaFault> {
        if self.removed {
            into.fill(0xff);
            return Err(DmaFault::LinkDown);
        }
        if into.is_empty() {
            return Ok(());
        }
        self.event(Event::DmaRead);
        let place = self.judge(at, into.len(), false, why);
        match place {
            Some(place) => self.memory.read(place, into),
            None => into.fill(0xff),
        }
        if self.over > 0 && why == Purpose::Payload {
            self.leaks(into);
        }
        self.trace.add(self.now, || Step::DmaRead {
            at,
            why,
            bytes: into.to_vec(),
            allowed: place.is_some(),
        });
        match place {
            Some(_) => Ok(()),
            None => Err(DmaFault::Refused),
        }
    }

    fn dma_write(
        &mut self,
        _by: RequesterId,
        at: Iova,
        from: &[u8],
        why: Purpose,
    ) -> Result<(), DmaFault> {
        if self.removed {
            return Err(DmaFault::LinkDown);
        }
        if MESSAGES.contains(&at.0) {
            if let [low, high, ..] = *from {
                self.message(u16::from_le_bytes([low, high]));
            }
            return Ok(());
        }
        self.event(Event::DmaWrite);
        let count = &mut self.carried[Carried::from(why) as usize];
        *count = count.saturating_add(1);
        let nth = *count;
        if self.script.edits() {
            self.edited(at, from, why, nth)
        } else {
            self.land(at, from, why)
        }
    }

    fn intx(&mut self, _by: RequesterId, level: bool) {
        self.pin = level;
    }

    fn now(&self) -> Time {
        self.now
    }

    fn wake_at(&mut self, _by: RequesterId, at: Time) {
        self.wake(at);
    }
}
