//! The lies of one device, and how far the device has come towards them.

use crate::interrupts::{Interrupts, circle};
use crate::{Aim, Lie, Publishing, Tally, Trigger};
use cofferdam_seam::{
    Bus, Completion, DmaFault, Iova, Pending, Purpose, RequesterId, SplitMix64, Time, Violation,
    Width,
};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// A write that waits for its time.
struct Late {
    due: Time,
    at: Iova,
    bytes: Vec<u8>,
    /// Whether it waits for bus mastering instead of being lost without it.
    patient: bool,
}

/// A completion entry, as the device wrote it.
struct Entry {
    at: Iova,
    bytes: Vec<u8>,
}

/// How often a write that waits for bus mastering looks for it.
const LOOK: Duration = Duration::from_micros(20);

/// How often a device looks whether a page was named, if nobody touches it.
const RECALL_LOOK: Duration = Duration::from_micros(500);

/// DMA writes that are remembered.
const REMEMBERED: usize = 64;

/// Longest read of a lie.
const READ_LIMIT: usize = 4096;

/// How a register read is to end.
pub(crate) enum Answer {
    /// The model answers.
    Honest,
    /// That instead of the model's answer.
    Instead(Completion),
    /// All ones.
    AllOnes,
    /// The model answers, so much later.
    Late(Duration),
}

/// The lies, and the counts since arming that trigger them.
pub(crate) struct Script {
    lies: Vec<Lie>,
    tally: Arc<Tally>,
    reads: u32,
    payloads: u32,
    payloads_read: u32,
    completions: u32,
    descriptors: u32,
    /// The last completion entry.
    entry: Entry,
    /// Where the last DMA of payload went.
    last_payload: Option<(Iova, usize)>,
    /// A function-level reset came, and no access since.
    was_reset: bool,
    /// The write after a reset was announced: it comes once.
    announced: bool,
    /// The latest DMA writes of payload, oldest first, where a lie is about an old one.
    written: VecDeque<(Iova, usize)>,
    /// A write to a page that was named was announced: it comes once.
    recalled: bool,
    /// When to look next whether one was.
    look_at: Time,
    /// At most one for each lie.
    late: Vec<Late>,
    /// Until when reads are all ones.
    dark_until: Time,
    interrupts: Interrupts,
}

impl Script {
    pub fn new(lies: Vec<Lie>, tally: Arc<Tally>) -> Self {
        Self {
            lies,
            tally,
            reads: 0,
            payloads: 0,
            payloads_read: 0,
            completions: 0,
            descriptors: 0,
            entry: Entry {
                at: Iova(0),
                bytes: Vec::new(),
            },
            last_payload: None,
            was_reset: false,
            announced: false,
            written: VecDeque::new(),
            recalled: false,
            look_at: Time::ZERO,
            late: Vec::new(),
            dark_until: Time::ZERO,
            interrupts: Interrupts::default(),
        }
    }

    /// Whether the lies have begun: those it has, or others it has been given since.
    #[inline]
    pub fn armed(&mut self) -> bool {
        if !self.tally.armed() {
            return false;
        }
        if self.tally.is_renewed()
            && let Some(lies) = self.tally.take_renewed()
        {
            *self = Self::new(lies, Arc::clone(&self.tally));
        }
        true
    }

    /// Counts a register read and decides how it ends.
    pub fn answer(&mut self, now: Time) -> Answer {
        self.reads = self.reads.saturating_add(1);
        let mut dark = now < self.dark_until;
        for lie in &self.lies {
            match *lie {
                Lie::NeverCompletes { nth } if nth == self.reads => {
                    self.tally.act(now);
                    return Answer::Instead(Completion::Never);
                }
                Lie::Late { nth, delay } if nth == self.reads => {
                    self.tally.act(now);
                    return Answer::Late(delay);
                }
                Lie::Retries { nth, times } if nth == self.reads => {
                    self.tally.act(now);
                    return Answer::Instead(Completion::Retry { times });
                }
                Lie::Fails { nth, poisoned } if nth == self.reads => {
                    self.tally.act(now);
                    return Answer::Instead(if poisoned {
                        Completion::Poisoned
                    } else {
                        Completion::Abort
                    });
                }
                Lie::AllOnes { nth, window } if nth == self.reads => {
                    dark = true;
                    self.dark_until = self.dark_until.max(now + window);
                }
                _ => {}
            }
        }
        if dark {
            self.tally.act(now);
            return Answer::AllOnes;
        }
        Answer::Honest
    }

    /// Sends the late writes that are due, and asks to be stepped for the others.
    pub fn send_late(&mut self, by: RequesterId, bus: &mut dyn Bus) {
        let now = bus.now();
        let due: Vec<_> = self.late.extract_if(.., |late| late.due <= now).collect();
        for late in due {
            let sent = lie_by_dma(&self.tally, by, late.at, &late.bytes, bus);
            if !sent && late.patient {
                let due = now + LOOK;
                self.late.push(Late { due, ..late });
            }
        }
        if let Some(due) = self.late.iter().map(|late| late.due).min() {
            bus.wake_at(by, due);
        }
    }

    /// Does what is due to the device's interrupts, and asks to be stepped for the rest.
    pub fn interrupt(&mut self, by: RequesterId, bus: &mut dyn Bus, pending: &mut Pending) {
        let now = bus.now();
        self.interrupts.step(&self.lies, now, pending, &self.tally);
        self.expect_interrupt(by, bus);
    }

    /// What the model asked of its function in a call becomes what the device asks.
    pub fn pervert(&mut self, now: Time, pending: &mut Pending) {
        self.interrupts
            .pervert(&self.lies, now, pending, &self.tally);
    }

    fn expect_interrupt(&self, by: RequesterId, bus: &mut dyn Bus) {
        if let Some(at) = self.interrupts.next() {
            bus.wake_at(by, at);
        }
    }

    /// The answer to a read of configuration space, if it is a lie.
    pub fn answer_config(&self, at: u16, width: Width, space: &[u8], now: Time) -> Option<u32> {
        let answer = self.lies.iter().find_map(|lie| match *lie {
            Lie::CapabilityCircle { length } => circle(length, at, width, space),
            _ => None,
        })?;
        self.tally.act(now);
        Some(answer)
    }

    /// A function-level reset, which a device that lies survives.
    pub fn survive(&mut self) {
        self.interrupts.reset(false);
        self.was_reset = true;
    }

    /// An access or a step: the first after a reset announces the write that follows it.
    #[inline]
    pub fn attend(&mut self, by: RequesterId, bus: &mut dyn Bus) {
        if self.was_reset {
            self.was_reset = false;
            self.announce(by, bus);
        }
        if !self.recalled {
            self.recall(by, bus);
        }
    }

    /// Looks whether a page was named, and announces the write to it.
    fn recall(&mut self, by: RequesterId, bus: &mut dyn Bus) {
        for lie in &self.lies {
            let Lie::Recall { after, bytes_seed } = *lie else {
                continue;
            };
            let Some((page, named)) = self.tally.recalled() else {
                // Nobody need touch the device before a page is named.
                let now = bus.now();
                if self.look_at <= now {
                    self.look_at = now + RECALL_LOOK;
                    bus.wake_at(by, self.look_at);
                }
                return;
            };
            self.recalled = true;
            let mut newest_first = self.written.iter().rev();
            if let Some(&(at, len)) = newest_first.find(|(at, _)| at.0 / PAGE == page.0 / PAGE) {
                let due = named + after;
                self.late.push(Late {
                    due,
                    at,
                    bytes: bytes_of(bytes_seed, len),
                    patient: false,
                });
                bus.wake_at(by, due);
            }
            return;
        }
        self.recalled = true;
    }

    fn announce(&mut self, by: RequesterId, bus: &mut dyn Bus) {
        let Some((at, len)) = self.last_payload.filter(|_| !self.announced) else {
            return;
        };
        for lie in &self.lies {
            if let Lie::WriteAfterReset { after, bytes_seed } = *lie {
                self.announced = true;
                let due = bus.now() + after;
                self.late.push(Late {
                    due,
                    at,
                    bytes: bytes_of(bytes_seed, len),
                    patient: true,
                });
                bus.wake_at(by, due);
            }
        }
    }

    /// Breaks the rules that are due, after so many of what they wait for.
    pub fn violate(&self, on: Trigger, by: RequesterId, bus: &mut dyn Bus) {
        let count = match on {
            Trigger::Dma => self.payloads.saturating_add(self.payloads_read),
            Trigger::Read => self.reads,
        };
        for lie in &self.lies {
            if let Lie::Violates { on: of, nth, what } = *lie
                && (of, nth) == (on, count)
                && bus.violate(by, what)
                // Disobedience acts when there is something to obey: the bus counts that.
                && !matches!(what, Violation::IgnoreReset | Violation::SlowReset { .. })
            {
                self.tally.act(bus.now());
            }
        }
    }

    /// Forgets what is pending. What has been counted stays counted.
    pub fn cancel(&mut self) {
        self.interrupts.reset(true);
        self.late.clear();
        self.was_reset = false;
        self.dark_until = Time::ZERO;
    }

    /// Counts a payload write that the device just did and follows it up.
    fn after_payload(&mut self, by: RequesterId, at: Iova, len: usize, bus: &mut dyn Bus) {
        self.payloads = self.payloads.saturating_add(1);
        self.interrupts
            .after_payload(&self.lies, self.payloads, bus.now(), &self.tally);
        self.expect_interrupt(by, bus);
        self.last_payload = Some((at, len));
        if !self.recalled {
            if self.written.len() == REMEMBERED {
                self.written.pop_front();
            }
            self.written.push_back((at, len));
        }
        for lie in &self.lies {
            match lie {
                Lie::WildWrite { nth, aim, bytes } if *nth == self.payloads => {
                    let target = match *aim {
                        Aim::Address(address) => address,
                        Aim::BesideLast { gap } => at.offset(len as u64).offset(gap),
                    };
                    lie_by_dma(&self.tally, by, target, bytes, bus);
                }
                Lie::StaleWrite {
                    nth,
                    after,
                    bytes_seed,
                } if *nth == self.payloads => {
                    let due = bus.now() + *after;
                    self.late.push(Late {
                        due,
                        at,
                        bytes: bytes_of(*bytes_seed, len),
                        patient: false,
                    });
                    bus.wake_at(by, due);
                }
                Lie::TranslatedWrite { nth, at, bytes } if *nth == self.payloads => {
                    let result = bus.dma_write_translated(by, *at, bytes);
                    acted(&self.tally, result, bus);
                }
                Lie::BorrowedWrite {
                    nth,
                    claimed,
                    at,
                    bytes,
                } if *nth == self.payloads => {
                    let result = bus.dma_write_as(by, *claimed, *at, bytes);
                    acted(&self.tally, result, bus);
                }
                _ => {}
            }
        }
    }

    /// What follows the payload write the device is about to do, if the lie is that it is longer.
    fn overrun(&self, honest: &[u8]) -> Option<Vec<u8>> {
        self.lies.iter().find_map(|lie| match lie {
            Lie::Overrun { nth, extra } if *nth == self.payloads + 1 => {
                Some([honest, extra].concat())
            }
            _ => None,
        })
    }

    /// Counts a payload read that the device just did and follows it up.
    fn after_read(&mut self, by: RequesterId, at: Iova, len: usize, bus: &mut dyn Bus) {
        self.payloads_read = self.payloads_read.saturating_add(1);
        self.last_payload = Some((at, len));
        for lie in &self.lies {
            match *lie {
                Lie::WriteBack { nth, bytes_seed } if nth == self.payloads_read => {
                    lie_by_dma(&self.tally, by, at, &bytes_of(bytes_seed, len), bus);
                }
                Lie::ReadBeside {
                    nth,
                    gap,
                    len: wanted,
                } if nth == self.payloads_read => {
                    let mut learnt = vec![0; wanted.min(READ_LIMIT)];
                    let beside = at.offset(len as u64).offset(gap);
                    let result = bus.dma_read(by, beside, &mut learnt, Purpose::Payload);
                    acted(&self.tally, result, bus);
                }
                _ => {}
            }
        }
    }

    /// Counts a descriptor that the device just read and follows it up.
    fn after_descriptor(&mut self, by: RequesterId, at: Iova, read: &[u8], bus: &mut dyn Bus) {
        if read.len() != DESCRIPTOR {
            return;
        }
        self.descriptors = self.descriptors.saturating_add(1);
        for lie in &self.lies {
            if let Lie::CircularChain { nth, length } = lie
                && *nth == self.descriptors
            {
                let chain: Vec<u8> = (1..=*length)
                    .flat_map(|next| linked(read, next % (*length).max(1)))
                    .collect();
                let table = Iova(at.0 / PAGE * PAGE);
                lie_by_dma(&self.tally, by, table, &chain, bus);
            }
        }
    }

    /// What publishes the last completion, if that is wrong.
    fn mispublished(&self, honest: &[u8]) -> Option<Vec<u8>> {
        let mut wrong = honest.to_vec();
        for lie in &self.lies {
            match *lie {
                Lie::Published { nth, publishing } if nth == self.completions => match publishing {
                    Publishing::Index => wrong = counted_on(honest),
                    Publishing::Phase { byte, mask } => {
                        if let Some(byte) = wrong.get_mut(byte) {
                            *byte ^= mask;
                        }
                    }
                },
                Lie::CompletionField {
                    nth,
                    offset,
                    len,
                    value,
                } if nth == self.completions => {
                    if let Some(offset) = offset.checked_sub(self.entry.bytes.len()) {
                        overwrite(&mut wrong, offset, len, value);
                    }
                }
                _ => {}
            }
        }
        // What says the same is no lie.
        (wrong != honest).then_some(wrong)
    }

    /// Follows up a completion that the device just published.
    fn after_publish(&mut self, by: RequesterId, at: Iova, honest: &[u8], bus: &mut dyn Bus) {
        for lie in &self.lies {
            match *lie {
                Lie::Repeat {
                    nth,
                    slot,
                    publishing,
                } if nth == self.completions => {
                    let (at, published) = match publishing {
                        Publishing::Index => (at, counted_on(honest)),
                        Publishing::Phase { .. } => (at.offset(slot), honest.to_vec()),
                    };
                    let next = self.entry.at.offset(slot);
                    let entered = bus.dma_write(by, next, &self.entry.bytes, Purpose::Completion);
                    if entered.is_ok()
                        && bus.dma_write(by, at, &published, Purpose::Publish).is_ok()
                    {
                        self.tally.act(bus.now());
                    }
                }
                Lie::DoubleFetch { nth, after } if nth == self.completions => {
                    let due = bus.now() + after;
                    self.late.push(Late {
                        due,
                        at: self.entry.at,
                        bytes: self.entry.bytes.iter().map(|byte| !byte).collect(),
                        patient: false,
                    });
                    bus.wake_at(by, due);
                }
                _ => {}
            }
        }
    }

    /// Counts a completion entry the device is about to write, and returns what it is to write
    /// instead, if anything.
    fn forged(&mut self, at: Iova, entry: &[u8]) -> Option<Vec<u8>> {
        self.completions = self.completions.saturating_add(1);
        self.entry.at = at;
        self.entry.bytes.clear();
        self.entry.bytes.extend_from_slice(entry);
        let mut forged = None;
        for lie in &self.lies {
            if let Lie::CompletionField {
                nth,
                offset,
                len,
                value,
            } = lie
                && *nth == self.completions
            {
                let bytes = forged.get_or_insert_with(|| entry.to_vec());
                overwrite(bytes, *offset, *len, *value);
            }
        }
        // What says the same is no lie.
        forged.filter(|bytes| bytes != entry)
    }
}

/// Writes a little-endian field, as far as it lies within `bytes`.
fn overwrite(bytes: &mut [u8], offset: usize, len: usize, value: u64) {
    let field = bytes.iter_mut().skip(offset).take(len);
    for (byte, new) in field.zip(value.to_le_bytes()) {
        *byte = new;
    }
}

/// Bytes in a descriptor of a split virtqueue.
const DESCRIPTOR: usize = 16;

/// Descriptor tables start on a page, and memory changes hands by the page.
const PAGE: u64 = 4096;

/// A descriptor that goes on with `next` (virtio 1.2, 2.7.5: flags in bytes 12 and 13, next in 14
/// and 15).
fn linked(like: &[u8], next: u16) -> Vec<u8> {
    const NEXT: u16 = 1;
    [&like[..12], &NEXT.to_le_bytes(), &next.to_le_bytes()].concat()
}

/// An index one further than the honest one.
fn counted_on(honest: &[u8]) -> Vec<u8> {
    match <[u8; 2]>::try_from(honest) {
        Ok(index) => u16::from_le_bytes(index)
            .wrapping_add(1)
            .to_le_bytes()
            .to_vec(),
        Err(_) => honest.to_vec(),
    }
}

/// Sends a DMA write of its own; whether it left the function.
fn lie_by_dma(tally: &Tally, by: RequesterId, at: Iova, bytes: &[u8], bus: &mut dyn Bus) -> bool {
    let result = bus.dma_write(by, at, bytes, Purpose::Payload);
    acted(tally, result, bus)
}

/// Counts a request of a lie. It happened unless the function's own bus-master enable bit stopped
/// it; what the fabric made of it is for the fabric to tell.
fn acted(tally: &Tally, result: Result<(), DmaFault>, bus: &dyn Bus) -> bool {
    let left = result != Err(DmaFault::MasterDisabled);
    if left {
        tally.act(bus.now());
    }
    left
}

/// Bytes that depend on the seed and on nothing else.
fn bytes_of(seed: u64, len: usize) -> Vec<u8> {
    SplitMix64::new(seed).bytes(len).collect()
}

/// The bus a lying device's model sees: it passes everything on, and adds the lies.
pub(crate) struct LyingBus<'a> {
    pub bus: &'a mut dyn Bus,
    pub script: &'a mut Script,
}

impl Bus for LyingBus<'_> {
    fn dma_read(
        &mut self,
        by: RequesterId,
        at: Iova,
        into: &mut [u8],
        why: Purpose,
    ) -> Result<(), DmaFault> {
        let result = self.bus.dma_read(by, at, into, why);
        match why {
            Purpose::Payload => {
                self.script.after_read(by, at, into.len(), self.bus);
                self.script.violate(Trigger::Dma, by, self.bus);
            }
            Purpose::Descriptor => self.script.after_descriptor(by, at, into, self.bus),
            _ => {}
        }
        result
    }

    fn dma_write(
        &mut self,
        by: RequesterId,
        at: Iova,
        from: &[u8],
        why: Purpose,
    ) -> Result<(), DmaFault> {
        let forged = match why {
            Purpose::Completion => self.script.forged(at, from),
            Purpose::Payload => self.script.overrun(from),
            Purpose::Publish => self.script.mispublished(from),
            _ => None,
        };
        let result = self
            .bus
            .dma_write(by, at, forged.as_deref().unwrap_or(from), why);
        if forged.is_some() && result != Err(DmaFault::MasterDisabled) {
            self.script.tally.act(self.bus.now());
        }
        match why {
            Purpose::Payload => {
                self.script.after_payload(by, at, from.len(), self.bus);
                self.script.violate(Trigger::Dma, by, self.bus);
            }
            Purpose::Publish => self.script.after_publish(by, at, from, self.bus),
            _ => {}
        }
        result
    }

    fn dma_write_translated(
        &mut self,
        by: RequesterId,
        at: Iova,
        from: &[u8],
    ) -> Result<(), DmaFault> {
        self.bus.dma_write_translated(by, at, from)
    }

    fn dma_write_as(
        &mut self,
        by: RequesterId,
        claimed: RequesterId,
        at: Iova,
        from: &[u8],
    ) -> Result<(), DmaFault> {
        self.bus.dma_write_as(by, claimed, at, from)
    }

    fn violate(&mut self, by: RequesterId, what: Violation) -> bool {
        self.bus.violate(by, what)
    }

    fn now(&self) -> Time {
        self.bus.now()
    }

    fn wake_at(&mut self, by: RequesterId, at: Time) {
        self.bus.wake_at(by, at);
    }
}
