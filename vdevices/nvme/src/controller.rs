//! The device: registers, queues and medium joined behind the seam.

use crate::events::Events;
use crate::features::Features;
use crate::identity::{BAR_BYTES, MAX_DOORBELL_STRIDE, MAX_QUEUES, identity};
use crate::log_pages::Logs;
use crate::medium::{MAX_TRANSFER, Medium};
use crate::prp::Pieces;
use crate::queue::{BadDoorbell, CompletionQueue, SubmissionQueue};
use crate::regs::{Effect, Registers};
use crate::spec::log::Event;
use crate::spec::{self, Command, DOORBELLS, Status, shutdown};
use cofferdam_seam::{
    Access, Bar, Budget, BusPort, Completion, Device, Doorbells, PciIdentity, Progress, Reset,
    Time, Vector, Width,
};
use core::time::Duration;

/// What controller to build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NvmeConfig {
    /// Blocks of 512 bytes on the medium; brought into 1 to [`MAX_BLOCKS`](crate::MAX_BLOCKS).
    pub blocks: u64,
    /// How long one I/O command takes. Commands are served one after the other; admin commands
    /// take no time of their own.
    pub latency: Duration,
    /// Goes into serial number and identifiers, so that two controllers can be told apart.
    pub seed: u64,
    /// I/O queue pairs; brought into 1 to [`MAX_QUEUES`].
    pub queues: u16,
    /// Entries in the largest I/O queue (CAP.MQES, plus one); brought into 2 to 65536.
    pub max_queue_entries: u32,
    /// CAP.DSTRD: doorbells are `4 << doorbell_stride` bytes apart; cut down to
    /// [`MAX_DOORBELL_STRIDE`].
    pub doorbell_stride: u8,
}

impl Default for NvmeConfig {
    /// 1 MiB, 20 us an I/O command, four queue pairs of up to 64 entries.
    fn default() -> Self {
        Self {
            blocks: 2048,
            latency: Duration::from_micros(20),
            seed: 0,
            queues: 4,
            max_queue_entries: 64,
            doorbell_stride: 0,
        }
    }
}

/// The command that is served next.
#[derive(Clone, Copy)]
struct Next {
    /// Its submission queue. The command is not fetched before it is due, and then all at once
    /// fetched, carried out and completed.
    queue: u16,
    due: Time,
}

/// An NVM Express controller with one namespace.
pub struct Nvme {
    identity: &'static PciIdentity,
    latency: Duration,
    pub(crate) seed: u64,
    /// I/O queue pairs.
    pub(crate) queues: u16,
    pub(crate) registers: Registers,
    /// By identifier; number 0 is the admin queue. As many places as there may be queues.
    pub(crate) submissions: Vec<Option<SubmissionQueue>>,
    pub(crate) completions: Vec<Option<CompletionQueue>>,
    pub(crate) features: Features,
    pub(crate) events: Events,
    pub(crate) logs: Logs,
    pub(crate) medium: Medium,
    /// Where the data of the command being served lies.
    pub(crate) pieces: Pieces,
    /// Where the data of a write waits until all of it has arrived: [`MAX_TRANSFER`] bytes.
    pub(crate) arriving: Vec<u8>,
    next: Option<Next>,
    /// The submission queue served last.
    last: u16,
    /// The level of the INTx pin.
    pin: bool,
}

impl Nvme {
    /// A controller after power-on, with a zeroed medium.
    pub fn new(config: NvmeConfig) -> Self {
        let queues = config.queues.clamp(1, MAX_QUEUES);
        let entries = config.max_queue_entries.clamp(2, 1 << 16);
        let places = usize::from(queues) + 1;
        Self {
            identity: identity(queues),
            latency: config.latency,
            seed: config.seed,
            queues,
            registers: Registers::new(
                u16::try_from(entries - 1).unwrap_or(u16::MAX),
                config.doorbell_stride.min(MAX_DOORBELL_STRIDE),
            ),
            submissions: (0..places).map(|_| None).collect(),
            completions: (0..places).map(|_| None).collect(),
            features: Features::new(queues),
            events: Events::default(),
            logs: Logs::new(),
            medium: Medium::new(config.blocks),
            pieces: Pieces::new(),
            arriving: vec![0; MAX_TRANSFER],
            next: None,
            last: 0,
            pin: false,
        }
    }

    /// What every reset forgets beside the registers: queues, features, events; not the medium.
    fn forget(&mut self) {
        self.submissions.fill_with(|| None);
        self.completions.fill_with(|| None);
        self.features = Features::new(self.queues);
        self.events = Events::default();
        self.logs.reset();
        self.next = None;
        self.last = 0;
    }

    /// CC.EN went to 1: the admin queues come into being, or the controller fails (7.6.1).
    fn enable(&mut self) {
        // A shutdown that was announced while the controller was disabled is over.
        self.registers.status.set_shutdown(0);
        if !self.registers.acceptable() {
            self.fail();
            return;
        }
        let sizes = self.registers.attributes;
        self.submissions[0] = Some(SubmissionQueue::new(
            self.registers.admin_submission,
            u32::from(sizes.submission()) + 1,
            0,
        ));
        self.completions[0] = Some(CompletionQueue::new(
            self.registers.admin_completion,
            u32::from(sizes.completion()) + 1,
            Some(0),
        ));
        self.registers.status.set_ready(true);
    }

    /// A fatal error: silence until the host resets the controller (9.5).
    fn fail(&mut self) {
        self.registers.status.set_fatal(true);
        self.next = None;
    }

    /// Nothing is cached, so a shutdown is complete as soon as no command is under way (7.6.2).
    fn shut_down(&mut self) {
        self.registers.status.set_shutdown(shutdown::COMPLETE);
        self.next = None;
    }

    fn write_register(&mut self, offset: u32, value: u32, bus: &mut BusPort<'_>) {
        match self.registers.write(offset, value) {
            Effect::None => {}
            Effect::Enable => {
                self.enable();
                if self.registers.configuration.shutdown() != 0 {
                    self.shut_down();
                }
            }
            Effect::Disable => {
                self.registers.reset_controller();
                self.forget();
                self.settle_pin(bus);
            }
            Effect::Shutdown => self.shut_down(),
            Effect::Mask => self.settle_pin(bus),
        }
    }

    /// A doorbell, `offset` bytes after the first. Those of a controller that does not run are
    /// ignored.
    fn ring(&mut self, offset: u32, value: u32, bus: &mut BusPort<'_>) {
        let stride = 4 << self.registers.capabilities.doorbell_stride();
        if !self.registers.running() || !offset.is_multiple_of(stride) {
            return;
        }
        let number = offset / stride;
        let index = (number / 2) as usize;
        let value = value & 0xffff;
        let rung = if number.is_multiple_of(2) {
            let queue = self.submissions.get_mut(index).and_then(Option::as_mut);
            queue.map(|queue| queue.ring(value))
        } else {
            let queue = self.completions.get_mut(index).and_then(Option::as_mut);
            queue.map(|queue| queue.ring(value))
        };
        let event = match rung {
            Some(Ok(())) => {
                if !number.is_multiple_of(2) {
                    self.settle_pin(bus);
                    // Only the admin queue's own room can hold an event back.
                    if index == 0 {
                        self.tell_events(bus);
                    }
                }
                self.wake(bus);
                return;
            }
            Some(Err(BadDoorbell)) => Event::INVALID_DOORBELL_VALUE,
            None => Event::INVALID_DOORBELL,
        };
        self.logs
            .bad_doorbell(u16::try_from(index).unwrap_or(u16::MAX));
        self.events.report(event);
        self.tell_events(bus);
    }

    /// Starts the clock of the next command, if there is one and none is running.
    fn wake(&mut self, bus: &mut BusPort<'_>) {
        if self.next.is_none() {
            self.schedule(bus);
            if let Some(next) = self.next {
                bus.wake_at(next.due);
            }
        }
    }

    /// Picks the next command, round robin, one command a turn. Only a queue whose completion queue
    /// has room is considered.
    fn schedule(&mut self, bus: &mut BusPort<'_>) {
        self.next = None;
        if !self.registers.running() {
            return;
        }
        let mut queue = self.last;
        for _ in 0..=self.queues {
            queue = if queue == self.queues { 0 } else { queue + 1 };
            if self.is_ready(queue) {
                let latency = if queue == 0 {
                    Duration::ZERO
                } else {
                    self.latency
                };
                let due = bus.now() + latency;
                self.next = Some(Next { queue, due });
                return;
            }
        }
    }

    /// Whether a command of that submission queue can be fetched and its completion posted.
    fn is_ready(&self, queue: u16) -> bool {
        let submission = &self.submissions[usize::from(queue)];
        submission.as_ref().is_some_and(|submission| {
            let completion = &self.completions[usize::from(submission.completion)];
            submission.has_commands() && completion.as_ref().is_some_and(|queue| queue.room() > 0)
        })
    }

    /// Serves one command from fetching it to its completion.
    fn serve(&mut self, queue: u16, bus: &mut BusPort<'_>) {
        self.last = queue;
        // An event may have taken the place its completion needs.
        if !self.is_ready(queue) {
            return;
        }
        let Some(submission) = &mut self.submissions[usize::from(queue)] else {
            return;
        };
        // What cannot be fetched cannot be completed with a status either (9.5).
        let Ok(command) = submission.fetch(bus) else {
            self.fail();
            return;
        };
        let outcome = if queue == 0 {
            self.admin(&command, bus)
        } else {
            self.io(&command, bus).map(|()| Some(0))
        };
        match outcome {
            Ok(None) => {}
            Ok(Some(result)) => self.complete(queue, command.id.get(), Ok(result), bus),
            Err(status) => self.refuse(queue, &command, status, bus),
        }
        if queue == 0 {
            self.tell_events(bus);
        }
    }

    #[cold]
    fn refuse(&mut self, queue: u16, command: &Command, status: Status, bus: &mut BusPort<'_>) {
        self.logs.command_failed(queue, command, status);
        self.complete(queue, command.id.get(), Err(status), bus);
    }

    /// Posts the completion of command `id` and interrupts, by message and by pin; the PCI layer
    /// lets one of them through. A completion that cannot be written is fatal: nobody would learn
    /// of the command's end.
    pub(crate) fn complete(
        &mut self,
        queue: u16,
        id: u16,
        outcome: Result<u32, Status>,
        bus: &mut BusPort<'_>,
    ) {
        let Some(submission) = &self.submissions[usize::from(queue)] else {
            return;
        };
        let Some(completion) = &mut self.completions[usize::from(submission.completion)] else {
            return;
        };
        let (result, status) = match outcome {
            Ok(result) => (result, Status::SUCCESS),
            Err(status) => (0, status),
        };
        let entry = spec::Completion {
            result: result.into(),
            reserved: 0.into(),
            submission_head: submission.head().into(),
            submission: queue.into(),
            id: id.into(),
            status: status.with_phase(false).into(),
        };
        if completion.post(entry, bus).is_err() {
            self.fail();
            return;
        }
        if let Some(vector) = completion.vector {
            bus.raise(Vector(vector));
            if !self.pin {
                self.settle_pin(bus);
            }
        }
    }

    /// Tells of events while there are requests for them and room for completions (5.2).
    fn tell_events(&mut self, bus: &mut BusPort<'_>) {
        while self.registers.running()
            && self.completions[0].as_ref().is_some_and(|cq| cq.room() > 0)
            && let Some((id, event)) = self.events.next()
        {
            self.complete(0, id, Ok(event.dword()), bus);
        }
    }

    /// The pin is held while a queue that interrupts has entries the host has not consumed, unless
    /// its vector is masked (7.5.1).
    pub(crate) fn settle_pin(&mut self, bus: &mut BusPort<'_>) {
        let mask = self.registers.mask;
        let level = self.completions.iter().flatten().any(|queue| {
            let unmasked = |vector: u16| mask >> (vector % 32) & 1 == 0;
            queue.has_news() && queue.vector.is_some_and(unmasked)
        });
        if level != self.pin {
            self.pin = level;
            bus.set_intx(level);
        }
    }
}

impl Device for Nvme {
    fn describe(&self) -> &PciIdentity {
        self.identity
    }

    /// Doorbells read as zero (3.1.25). Narrow reads get their part of a register.
    fn read(&mut self, at: Access, _bus: &mut BusPort<'_>) -> Completion {
        if at.offset() >= DOORBELLS {
            return Completion::Data(0);
        }
        let within = at.offset() % 4;
        let low = self.registers.read(at.offset() - within);
        Completion::Data(match at.width() {
            Width::Eight => {
                let high = self.registers.read(at.offset() + 4);
                u64::from(high) << 32 | u64::from(low)
            }
            width => u64::from(low >> (8 * within)) & width.all_ones(),
        })
    }

    /// Registers take 32 bits, or 64 as two halves; doorbells take 32 bits (3.1).
    fn write(&mut self, at: Access, value: u64, bus: &mut BusPort<'_>) {
        let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
        let low = u32::from_le_bytes([a, b, c, d]);
        match (at.offset(), at.width()) {
            (offset @ DOORBELLS..BAR_BYTES, Width::Four) => self.ring(offset - DOORBELLS, low, bus),
            (offset @ ..DOORBELLS, Width::Four) => self.write_register(offset, low, bus),
            (offset @ ..DOORBELLS, Width::Eight) => {
                self.write_register(offset, low, bus);
                self.write_register(offset + 4, u32::from_le_bytes([e, f, g, h]), bus);
            }
            _ => {}
        }
    }

    /// A unit of work is a command.
    fn step(&mut self, budget: Budget, bus: &mut BusPort<'_>) -> Progress {
        for _ in 0..budget.0 {
            match self.next {
                Some(next) if next.due <= bus.now() => {
                    self.serve(next.queue, bus);
                    self.schedule(bus);
                }
                _ => break,
            }
        }
        match self.next {
            Some(next) if next.due <= bus.now() => Progress::More,
            Some(next) => {
                bus.wake_at(next.due);
                Progress::Idle
            }
            None => Progress::Idle,
        }
    }

    fn reset(&mut self, _kind: Reset) {
        self.registers.reset_all();
        self.forget();
        self.pin = false;
    }

    /// Live are those of queues that exist (3.1.24, 3.1.25).
    fn doorbells(&self) -> Option<Doorbells> {
        let exists = |number: usize| match number % 2 {
            _ if !self.registers.running() => false,
            0 => matches!(self.submissions.get(number / 2), Some(Some(_))),
            _ => matches!(self.completions.get(number / 2), Some(Some(_))),
        };
        Some(Doorbells {
            bar: Bar::ZERO,
            page: DOORBELLS,
            stride: 4 << self.registers.capabilities.doorbell_stride(),
            live: (0..64).fold(0, |live, number| live | u64::from(exists(number)) << number),
        })
    }
}
