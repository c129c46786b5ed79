//! A queue pair: commands in, completions out, and which command is whose.

use crate::spec::{self, COMPLETION_STATUS, Command, Completion, ControllerStatus, Status};
use cofferdam_seam::service::DriverError;
use cofferdam_seam::{
    Deadline, Direction, DmaRegion, DriverHost, HostError, Iova, Mapping, Mmio, Vector, Wake,
};
use core::sync::atomic::{Ordering, fence};
use zerocopy::{IntoBytes, transmute};

/// Commands in flight at once, at most.
pub const SLOTS: usize = 8;

/// A command's slot takes the low bits of its identifier, the slot's generation the others. Slots
/// leave the highest of the low bits alone, so FFFFh, "no command" in error logs, is never used.
const SLOT_BITS: u32 = 4;
const GENERATIONS: u16 = 1 << (16 - SLOT_BITS);
const _: () = assert!(SLOTS < 1 << SLOT_BITS);

/// A command in flight, or completed and not yet taken: its identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag(u16);

impl Tag {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a slot and a generation fit 16 bits, as asserted above"
    )]
    const fn new(slot: usize, generation: u16) -> Self {
        Self(generation << SLOT_BITS | slot as u16)
    }

    /// The command's slot; of a foreign tag it may lie beyond [`SLOTS`].
    pub(crate) const fn slot(self) -> usize {
        (self.0 & ((1 << SLOT_BITS) - 1)) as usize
    }

    const fn generation(self) -> u16 {
        self.0 >> SLOT_BITS
    }
}

/// One command at a time, each under the next generation: an identifier that is late or repeated
/// names nobody.
#[derive(Clone, Copy, Debug)]
struct Slot {
    generation: u16,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Free,
    /// The device owns it.
    InFlight,
    /// Ours again, until it is taken.
    Done(Completion),
}

/// What interrupts for a queue.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    pub vector: Vector,
    /// Whether INTMS and INTMC mask it: not with MSI-X.
    pub maskable: bool,
}

/// A submission queue and its completion queue, both mapped for their whole life.
///
/// The device owns what lies between head and tail of the submission queue; all of the completion
/// queue is its to write.
#[derive(Debug)]
pub struct QueuePair<D> {
    id: u16,
    entries: u16,
    line: Line,
    tail_doorbell: u32,
    head_doorbell: u32,
    commands: D,
    completions: D,
    commands_at: Mapping,
    completions_at: Mapping,
    /// Where the next command goes.
    tail: u16,
    /// Up to where the device said it had read.
    sq_head: u16,
    /// Where the next completion comes.
    head: u16,
    /// The phase tag it will have: true in the first round [5].
    phase: bool,
    slots: [Slot; SLOTS],
}

impl<D: DmaRegion> QueuePair<D> {
    /// A pair of that number with that many entries, at least 2. The device does not know it yet.
    pub fn new<H: DriverHost<Dma = D>>(
        host: &mut H,
        id: u16,
        entries: u16,
        stride: u8,
        line: Line,
    ) -> Result<Self, HostError> {
        let bytes = |shift: u8| usize::from(entries) << shift;
        let commands = host.alloc_dma(bytes(spec::COMMAND_SHIFT))?;
        let completions = host.alloc_dma(bytes(spec::COMPLETION_SHIFT))?;
        let commands_at = host.map(&commands, 0..commands.len(), Direction::ToDevice)?;
        let completions_at = host.map(&completions, 0..completions.len(), Direction::FromDevice)?;
        Ok(Self {
            id,
            entries,
            line,
            tail_doorbell: spec::sq_tail_doorbell(id, stride),
            head_doorbell: spec::cq_head_doorbell(id, stride),
            commands,
            completions,
            commands_at,
            completions_at,
            tail: 0,
            sq_head: 0,
            head: 0,
            phase: true,
            slots: [Slot {
                generation: 0,
                state: State::Free,
            }; SLOTS],
        })
    }

    pub fn entries(&self) -> u16 {
        self.entries
    }

    pub fn vector(&self) -> Vector {
        self.line.vector
    }

    /// Where the device finds the commands.
    pub fn commands_at(&self) -> Iova {
        self.commands_at.iova
    }

    /// Where it puts the completions.
    pub fn completions_at(&self) -> Iova {
        self.completions_at.iova
    }

    /// Commands that fit: a queue is full with one entry left over.
    pub fn depth(&self) -> usize {
        SLOTS.min(usize::from(self.entries) - 1)
    }

    /// The tag of the next command, if there is room for one.
    pub fn vacant(&self) -> Option<Tag> {
        let slots = &self.slots[..self.depth()];
        let free = |slot: &Slot| matches!(slot.state, State::Free);
        let index = slots.iter().position(free)?;
        Some(Tag::new(index, slots[index].generation))
    }

    /// Hands `command` to the device under a [vacant](Self::vacant) tag.
    pub fn submit(
        &mut self,
        regs: &impl Mmio,
        tag: Tag,
        mut command: Command,
    ) -> Result<(), DriverError> {
        // Each command that completed was read before, so a free slot means a free entry.
        let next = self.after(self.tail);
        if next == self.sq_head {
            return Err(DriverError::Protocol(
                "commands complete, but SQHD stands still",
            ));
        }
        command.cid = tag.0.into();
        let at = usize::from(self.tail) << spec::COMMAND_SHIFT;
        self.commands.write_at(at, command.as_bytes());
        self.slots[tag.slot()].state = State::InFlight;
        self.tail = next;
        // The command and its data are in memory before the doorbell says so.
        fence(Ordering::Release);
        regs.write32(self.tail_doorbell, self.tail.into());
        Ok(())
    }

    /// Takes over all completions that have come. At most one per command in flight counts.
    pub fn reap(&mut self, regs: &impl Mmio) -> Result<(), DriverError> {
        let before = self.head;
        while let Some(completion) = self.next_completion()? {
            self.accept(completion)?;
            self.head = self.after(self.head);
            self.phase ^= self.head == 0;
        }
        if self.head != before {
            // Gives the entries back; with INTx this releases the line.
            regs.write32(self.head_doorbell, self.head.into());
        }
        Ok(())
    }

    /// The next entry, if its phase tag is the one to come. The tag is looked at first: it is what
    /// the device writes last.
    fn next_completion(&self) -> Result<Option<Completion>, DriverError> {
        let at = usize::from(self.head) << spec::COMPLETION_SHIFT;
        let mut status = [0; 2];
        self.completions
            .read_at(at + COMPLETION_STATUS, &mut status);
        if Status::from_bits(u16::from_le_bytes(status)).phase() != self.phase {
            return Ok(None);
        }
        fence(Ordering::Acquire);
        let mut bytes = [0; size_of::<Completion>()];
        self.completions.read_at(at, &mut bytes);
        let completion: Completion = transmute!(bytes);
        if completion.status().phase() != self.phase {
            return Err(DriverError::Protocol(
                "a completion was taken back under our eyes",
            ));
        }
        Ok(Some(completion))
    }

    fn accept(&mut self, completion: Completion) -> Result<(), DriverError> {
        if completion.sq_id.get() != self.id {
            return Err(DriverError::Protocol(
                "a completion names another submission queue",
            ));
        }
        let sq_head = completion.sq_head.get();
        let read = self.distance(self.sq_head, sq_head);
        if sq_head >= self.entries || read > self.distance(self.sq_head, self.tail) {
            return Err(DriverError::Protocol("SQHD is beyond what was submitted"));
        }
        let tag = Tag(completion.cid.get());
        match self.slots.get_mut(tag.slot()) {
            Some(slot)
                if slot.generation == tag.generation() && matches!(slot.state, State::InFlight) =>
            {
                slot.state = State::Done(completion);
            }
            _ => {
                return Err(DriverError::Protocol(
                    "a completion names no command in flight",
                ));
            }
        }
        self.sq_head = sq_head;
        Ok(())
    }

    /// A command that is done and not yet taken.
    pub fn done(&self) -> Option<Tag> {
        let done = |slot: &Slot| matches!(slot.state, State::Done(_));
        let index = self.slots.iter().position(done)?;
        Some(Tag::new(index, self.slots[index].generation))
    }

    /// Whether a command of that tag is in flight or done.
    pub fn knows(&self, tag: Tag) -> bool {
        self.slots.get(tag.slot()).is_some_and(|slot| {
            slot.generation == tag.generation() && !matches!(slot.state, State::Free)
        })
    }

    /// The completion of a command, which frees its slot.
    fn take(&mut self, tag: Tag) -> Option<Completion> {
        let slot = self.slots.get_mut(tag.slot())?;
        let State::Done(completion) = slot.state else {
            return None;
        };
        if slot.generation != tag.generation() {
            return None;
        }
        *slot = Slot {
            generation: (slot.generation + 1) % GENERATIONS,
            state: State::Free,
        };
        Some(completion)
    }

    /// Waits until a command is done, and takes its completion. If its interrupt was lost but the
    /// completion is there at the deadline, that will do.
    pub fn wait<H: DriverHost>(
        &mut self,
        host: &mut H,
        regs: &H::Mmio,
        tag: Tag,
        until: Deadline,
        what: &'static str,
    ) -> Result<Completion, DriverError> {
        // Done, perhaps, while another command was waited for.
        if let Some(completion) = self.take(tag) {
            return Ok(completion);
        }
        loop {
            let wake = host.wait_any(&[self.line.vector], until)?;
            self.mask(regs, spec::INTMS);
            self.reap(regs)?;
            self.mask(regs, spec::INTMC);
            if let Some(completion) = self.take(tag) {
                return Ok(completion);
            }
            // Woken or late, and nothing done: perhaps the device gave up.
            status(regs)?;
            // A storm wakes us for ever, so the wait's own verdict is not enough.
            if wake == Wake::TimedOut || until.passed(host.now()) {
                return Err(DriverError::TimedOut(what));
            }
            host.relax()?;
        }
    }

    fn mask(&self, regs: &impl Mmio, register: u32) {
        if self.line.maskable {
            regs.write32(register, 1 << (self.line.vector.0 % 32));
        }
    }

    fn after(&self, index: u16) -> u16 {
        (index + 1) % self.entries
    }

    /// Entries from one index to another, in the queue's direction.
    fn distance(&self, from: u16, to: u16) -> u32 {
        let entries = u32::from(self.entries);
        (u32::from(to) + entries - u32::from(from)) % entries
    }
}

/// The status of a controller that is there and in working order.
pub fn status(regs: &impl Mmio) -> Result<ControllerStatus, DriverError> {
    let status = present(regs)?;
    if status.fatal() {
        return Err(DriverError::Protocol("CSTS.CFS: the controller gave up"));
    }
    Ok(status)
}

/// The status of a controller that is there.
pub fn present(regs: &impl Mmio) -> Result<ControllerStatus, DriverError> {
    match regs.read32(spec::CSTS) {
        u32::MAX => Err(DriverError::Protocol(
            "CSTS reads all ones: the controller is gone",
        )),
        bits => Ok(ControllerStatus::from_bits(bits)),
    }
}
