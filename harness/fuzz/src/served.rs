//! A device model as a program makes it, for a device that is served to somebody else's driver.
//!
//! The world of an execution knows the driver: its calls, its polls, what it maps. Who serves a device
//! sees the device's side alone. So replies, answers of configuration space, edits of DMA, lost and
//! forged interrupts, stalls and removal mean what they mean there; calls of the workload, vectors and what
//! waits for a call, a poll, a mapping or an unmapping never happens, which [`Served::idle`] tells
//! beforehand. A poke's mapping is the nth range of memory that the model itself used, for of others
//! the device has not heard.

use crate::answers::{self, Answering};
use crate::program::{
    Action, CARRIED, Carried, EVENTS, Event, Mode, Program, Register, Trigger, cut,
};
use crate::script::{Change, Deed, Script};
use cofferdam_seam::{
    Access, Budget, Bus, BusPort, Completion, Device, DmaFault, Iova, PciIdentity, Pending,
    Progress, Purpose, RequesterId, Reset, Time, Vector, VectorSet, Width,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Ranges of memory that are remembered, for pokes.
const RANGES: usize = 1024;

/// A device and the program that makes it lie. The program starts over with each cold reset, as a server
/// gives its device between two clients.
pub struct Served {
    inner: Box<dyn Device>,
    program: Program,
    doings: Doings,
    /// The answers of hostile mode, until the thread that serves takes them up.
    answers: Option<Vec<u8>>,
}

/// What the program does, apart from the device it does it to.
struct Doings {
    script: Script,
    counts: [u32; EVENTS.len()],
    carried: [u32; CARRIED.len()],
    messages: u32,
    /// Of the model's DMA, in the order of their first use.
    ranges: Vec<(Iova, usize)>,
    injected: VectorSet,
    pokes: Vec<(Iova, Vec<u8>)>,
    stalled_until: Time,
    removed: bool,
    acted: Arc<AtomicU32>,
}

impl Doings {
    /// Of a program that has not begun, with the answers of its hostile mode.
    fn of(program: &Program, acted: Arc<AtomicU32>) -> (Self, Vec<u8>) {
        let mut script = Script::default();
        let mut answers = Vec::new();
        script.load(program, &mut answers);
        let doings = Self {
            script,
            counts: [0; EVENTS.len()],
            carried: [0; CARRIED.len()],
            messages: 0,
            ranges: Vec::new(),
            injected: VectorSet::EMPTY,
            pokes: Vec::new(),
            stalled_until: Time::ZERO,
            removed: false,
            acted,
        };
        (doings, answers)
    }
}

impl Served {
    /// The device that the program makes of `model`. The count is of its deeds that took place.
    pub fn new(model: Box<dyn Device>, program: &Program) -> (Self, Arc<AtomicU32>) {
        let acted = Arc::<AtomicU32>::default();
        let (doings, answers) = Doings::of(program, Arc::clone(&acted));
        let inner: Box<dyn Device> = match program.mode {
            Mode::Model => model,
            Mode::Hostile => Box::new(Answering::like(model)),
        };
        let served = Self {
            inner,
            program: program.clone(),
            doings,
            answers: Some(answers),
        };
        (served, acted)
    }

    /// How many actions of a program cannot happen, because a served device does not see what they wait
    /// for; calls of the workload are the client's and not counted.
    pub fn idle(program: &Program) -> usize {
        let unseen = |when: &Trigger| {
            let seen = [Event::Read, Event::Write, Event::DmaRead, Event::DmaWrite];
            !seen.contains(&when.event)
        };
        let idle = |action: &&Action| match action {
            Action::Poke { when, .. }
            | Action::Interrupt { when, .. }
            | Action::Stall { when, .. }
            | Action::Remove { when } => unseen(when),
            Action::Vectors { .. } => true,
            _ => false,
        };
        program.actions.iter().filter(idle).count()
    }

    /// Calls the model with the program in between, and does what is due then.
    fn lend<R>(
        &mut self,
        port: &mut BusPort<'_>,
        call: impl FnOnce(&mut dyn Device, &mut BusPort<'_>) -> R,
    ) -> R {
        let (bus, requester, pending) = port.parts();
        self.doings.poke(requester, bus);
        let mut asked = Pending::default();
        let mut between = Between {
            bus,
            doings: &mut self.doings,
        };
        let mut port = BusPort::new(&mut between, requester, &mut asked);
        let result = call(&mut *self.inner, &mut port);
        self.doings.settle(asked, pending);
        result
    }
}

impl Doings {
    fn act(&self) {
        self.acted.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an event and does what the program has for it.
    fn event(&mut self, event: Event, now: Time) {
        let count = &mut self.counts[event as usize];
        *count = count.saturating_add(1);
        let when = Trigger { event, nth: *count };
        let mut place = 0;
        while let Some(deed) = self.script.next_deed(&mut place, when) {
            match deed {
                Deed::Poke {
                    mapping,
                    offset,
                    bytes,
                } => {
                    let Some(&(at, len)) = self.ranges.get(usize::from(mapping)) else {
                        continue;
                    };
                    let offset = usize::try_from(offset).unwrap_or(usize::MAX);
                    let Some(room) = len.checked_sub(offset).filter(|room| *room > 0) else {
                        continue;
                    };
                    let bytes = self.script.bytes(bytes);
                    let bytes = bytes[..bytes.len().min(room)].to_vec();
                    self.pokes.push((at.offset(offset as u64), bytes));
                }
                Deed::Interrupt(vector) => {
                    self.injected.insert(VectorSet::of(Vector(vector)));
                    self.act();
                }
                Deed::Stall(micros) => {
                    let until = now + Duration::from_micros(micros.into());
                    self.stalled_until = self.stalled_until.max(until);
                    self.act();
                }
                Deed::Remove => {
                    self.removed = true;
                    self.act();
                }
            }
        }
    }

    fn used(&mut self, at: Iova, len: usize) {
        let end = at.0.saturating_add(len as u64);
        let last = |range: &(Iova, usize)| range.0.0.saturating_add(range.1 as u64);
        // A ring grows entry by entry: what follows a range belongs to it.
        let mut ranges = self.ranges.iter_mut();
        if let Some(known) = ranges.find(|range| range.0 <= at && at.0 <= last(range)) {
            let more = end.saturating_sub(last(known));
            known.1 = known.1.saturating_add(usize::try_from(more).unwrap_or(0));
        } else if self.ranges.len() < RANGES {
            self.ranges.push((at, len));
        }
    }

    /// Makes the pokes whose time has come.
    fn poke(&mut self, by: RequesterId, bus: &mut dyn Bus) {
        for (at, bytes) in std::mem::take(&mut self.pokes) {
            if !self.removed && bus.dma_write(by, at, &bytes, Purpose::Payload).is_ok() {
                self.act();
            }
        }
    }

    /// Interrupts: the model's that are not lost, and forged ones.
    fn settle(&mut self, asked: Pending, to: &mut Pending) {
        let mut raised = VectorSet::EMPTY;
        for vector in asked.raised.iter() {
            self.messages = self.messages.saturating_add(1);
            if self.script.loses(self.messages) {
                self.act();
            } else {
                raised.insert(VectorSet::of(vector));
            }
        }
        raised.insert(std::mem::replace(&mut self.injected, VectorSet::EMPTY));
        if !self.removed {
            to.raised.insert(raised);
            to.intx = asked.intx.or(to.intx);
            to.meddling = asked.meddling.or(to.meddling);
        }
    }
}

impl Device for Served {
    fn describe(&self) -> &PciIdentity {
        self.inner.describe()
    }

    fn answer_config(&mut self, at: u16, width: Width, space: &[u8], now: Time) -> Option<u32> {
        let honest = self.inner.answer_config(at, width, space, now);
        if self.doings.removed {
            return u32::try_from(width.all_ones()).ok();
        }
        let Some(value) = self.doings.script.config(at) else {
            return honest;
        };
        self.doings.act();
        u32::try_from(cut(value, width) & 0xffff_ffff).ok()
    }

    fn read(&mut self, at: Access, bus: &mut BusPort<'_>) -> Completion {
        if let Some(answers) = self.answers.take() {
            // The device's thread is known now.
            answers::load(answers);
        }
        let now = bus.now();
        self.doings.event(Event::Read, now);
        if self.doings.removed {
            return Completion::Data(at.width().all_ones());
        }
        let register = Register::new(at.bar(), at.offset());
        if let Some(value) = self.doings.script.reply(register) {
            self.doings.act();
            self.lend(bus, |_, _| ());
            return Completion::Data(cut(value, at.width()));
        }
        self.lend(bus, |device, port| device.read(at, port))
    }

    fn write(&mut self, at: Access, value: u64, bus: &mut BusPort<'_>) {
        let now = bus.now();
        self.doings.event(Event::Write, now);
        if !self.doings.removed {
            self.lend(bus, |device, port| device.write(at, value, port));
        }
    }

    fn step(&mut self, budget: Budget, bus: &mut BusPort<'_>) -> Progress {
        if self.doings.removed {
            return Progress::Idle;
        }
        let now = bus.now();
        if now < self.doings.stalled_until {
            bus.wake_at(self.doings.stalled_until);
            return Progress::Idle;
        }
        self.lend(bus, |device, port| device.step(budget, port))
    }

    fn reset(&mut self, kind: Reset) {
        self.inner.reset(kind);
        if kind == Reset::Cold {
            let acted = Arc::clone(&self.doings.acted);
            let (doings, answers) = Doings::of(&self.program, acted);
            self.doings = doings;
            self.answers = Some(answers);
        }
    }
}

/// The bus, as the model sees it through the program.
struct Between<'a> {
    bus: &'a mut dyn Bus,
    doings: &'a mut Doings,
}

impl Between<'_> {
    fn begin(&mut self, event: Event, by: RequesterId) {
        let now = self.bus.now();
        self.doings.event(event, now);
        self.doings.poke(by, self.bus);
    }
}

impl Bus for Between<'_> {
    fn dma_read(
        &mut self,
        by: RequesterId,
        at: Iova,
        into: &mut [u8],
        why: Purpose,
    ) -> Result<(), DmaFault> {
        self.begin(Event::DmaRead, by);
        self.bus.dma_read(by, at, into, why)?;
        self.doings.used(at, into.len());
        Ok(())
    }

    fn dma_write(
        &mut self,
        by: RequesterId,
        at: Iova,
        from: &[u8],
        why: Purpose,
    ) -> Result<(), DmaFault> {
        self.begin(Event::DmaWrite, by);
        let carried = Carried::from(why);
        let count = &mut self.doings.carried[carried as usize];
        *count = count.saturating_add(1);
        let nth = *count;
        let (mut bytes, mut dropped, mut again) = (None::<Vec<u8>>, false, Vec::new());
        for change in self.doings.script.edits_of(carried, nth) {
            match change {
                Change::Overwrite(offset, with) => {
                    let bytes = bytes.get_or_insert_with(|| from.to_vec());
                    let start = usize::try_from(*offset).unwrap_or(usize::MAX);
                    let with = self.doings.script.bytes(with.clone());
                    for (byte, new) in bytes.iter_mut().skip(start).zip(with) {
                        *byte = *new;
                    }
                }
                Change::Drop => dropped = true,
                Change::Repeat(slot) => again.push(u64::from(*slot)),
            }
        }
        if bytes.is_some() || dropped || !again.is_empty() {
            self.doings.act();
        }
        let from = bytes.as_deref().unwrap_or(from);
        if !dropped {
            self.bus.dma_write(by, at, from, why)?;
            self.doings.used(at, from.len());
        }
        for slot in again {
            // The client's memory may end before: a lie that does not land is none.
            let _ = self.bus.dma_write(by, at.offset(slot), from, why);
        }
        Ok(())
    }

    fn intx(&mut self, by: RequesterId, level: bool) {
        self.bus.intx(by, level);
    }

    fn now(&self) -> Time {
        self.bus.now()
    }

    fn wake_at(&mut self, by: RequesterId, at: Time) {
        self.bus.wake_at(by, at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::{Edit, text};
    use cofferdam_seam::Bar;
    use vdevice_edu::{Edu, EduTiming};
    use vdevice_pci::testbed::TestBus;

    fn served(actions: Vec<Action>) -> (Served, Arc<AtomicU32>) {
        let program = Program {
            mode: Mode::Model,
            actions,
        };
        Served::new(Box::new(Edu::new(EduTiming::default())), &program)
    }

    fn read(device: &mut Served, offset: u32) -> (Completion, Pending) {
        let bar = Bar::new(0).expect("BAR 0");
        let at = Access::new(bar, offset, Width::Four, 1 << 20).expect("in the BAR");
        let mut memory = TestBus::new();
        let mut pending = Pending::default();
        let requester = RequesterId::new(0, 1, 0);
        let mut port = BusPort::new(&mut memory, requester, &mut pending);
        let completion = device.read(at, &mut port);
        (completion, pending)
    }

    fn reply(nth: u32) -> Action {
        let register = Register { bar: 0, offset: 0 };
        Action::Reply {
            register,
            nth,
            value: 0xdead,
        }
    }

    #[test]
    fn scripted_read_is_answered_once_and_again_for_the_next_client() {
        let (mut device, acted) = served(vec![reply(2)]);

        let answers: Vec<_> = (0..3).map(|_| read(&mut device, 0).0).collect();
        device.reset(Reset::Cold);
        let again: Vec<_> = (0..2).map(|_| read(&mut device, 0).0).collect();

        assert_ne!(answers[0], Completion::Data(0xdead));
        assert_eq!(answers[1], Completion::Data(0xdead));
        assert_eq!(answers[2], answers[0]);
        assert_eq!(again[1], answers[1]);
        assert_eq!(acted.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn removed_device_answers_all_ones_and_forged_interrupt_is_raised() {
        let when = |nth| Trigger {
            event: Event::Read,
            nth,
        };
        let (mut device, acted) = served(vec![
            Action::Interrupt {
                when: when(1),
                vector: 3,
            },
            Action::Remove { when: when(2) },
        ]);

        let (_, pending) = read(&mut device, 0);
        let (gone, silent) = read(&mut device, 0);

        assert!(pending.raised.contains(Vector(3)));
        assert_eq!(gone, Completion::Data(0xffff_ffff));
        assert!(silent.raised.is_empty());
        assert_eq!(acted.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn edit_and_poke_change_what_lands() {
        let (mut device, acted) = served(vec![
            Action::Edit {
                carried: Carried::Payload,
                nth: 1,
                edit: Edit::Overwrite {
                    offset: 1,
                    bytes: vec![0xaa],
                },
            },
            Action::Poke {
                when: Trigger {
                    event: Event::DmaWrite,
                    nth: 2,
                },
                mapping: 0,
                offset: 0,
                bytes: vec![0xbb],
            },
        ]);
        let mut memory = TestBus::new();
        let by = RequesterId::new(0, 1, 0);
        let mut between = Between {
            bus: &mut memory,
            doings: &mut device.doings,
        };

        for at in [0x10, 0x80] {
            let wrote = between.dma_write(by, Iova(at), &[1, 2, 3], Purpose::Payload);
            wrote.expect("inside memory");
        }

        assert_eq!(memory.memory[0x10..0x13], [0xbb, 0xaa, 3]);
        assert_eq!(memory.memory[0x80..0x83], [1, 2, 3]);
        assert_eq!(acted.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn what_a_served_device_does_not_see_is_counted_as_idle() {
        let text = "cofferdam program 1\ntarget nvme\nmode model\ncall read 0 1\nvectors 1\n\
                    remove poll #3\nremove read #3\n";

        let parsed = text::parse_device(text).expect("a program");

        assert_eq!(parsed.program.actions.len(), 3);
        assert_eq!(Served::idle(&parsed.program), 2);
    }
}
