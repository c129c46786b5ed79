//! The lies of one device, and how far the device has come towards them.

use crate::{Aim, Lie, Tally, Trigger};
use cofferdam_seam::{Bus, Completion, DmaFault, Iova, Purpose, RequesterId, Time, Violation};
use core::time::Duration;
use std::sync::Arc;

/// A stale write that waits for its time.
struct Stale {
    due: Time,
    at: Iova,
    len: usize,
    seed: u64,
}

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
    /// At most one for each lie.
    stale: Vec<Stale>,
    /// Until when reads are all ones.
    dark_until: Time,
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
            stale: Vec::new(),
            dark_until: Time::ZERO,
        }
    }

    pub fn armed(&self) -> bool {
        self.tally.armed()
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

    /// Sends the stale writes that are due, and asks to be stepped for the others.
    pub fn send_stale(&mut self, by: RequesterId, bus: &mut dyn Bus) {
        let now = bus.now();
        for stale in self.stale.extract_if(.., |stale| stale.due <= now) {
            let bytes = bytes_of(stale.seed, stale.len);
            lie_by_dma(&self.tally, by, stale.at, &bytes, bus);
        }
        if let Some(due) = self.stale.iter().map(|stale| stale.due).min() {
            bus.wake_at(by, due);
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
        self.stale.clear();
        self.dark_until = Time::ZERO;
    }

    /// Counts a payload write that the device just did and follows it up.
    fn after_payload(&mut self, by: RequesterId, at: Iova, len: usize, bus: &mut dyn Bus) {
        self.payloads = self.payloads.saturating_add(1);
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
                    self.stale.push(Stale {
                        due,
                        at,
                        len,
                        seed: *bytes_seed,
                    });
                    bus.wake_at(by, due);
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
        for lie in &self.lies {
            if let Lie::WriteBack { nth, bytes_seed } = lie
                && *nth == self.payloads_read
            {
                lie_by_dma(&self.tally, by, at, &bytes_of(*bytes_seed, len), bus);
            }
        }
    }

    /// Counts a completion entry the device is about to write, and returns what it is to write
    /// instead, if anything.
    fn forged(&mut self, entry: &[u8]) -> Option<Vec<u8>> {
        self.completions = self.completions.saturating_add(1);
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
                let field = bytes.iter_mut().skip(*offset).take(*len);
                for (byte, new) in field.zip(value.to_le_bytes()) {
                    *byte = new;
                }
            }
        }
        // What says the same is no lie.
        forged.filter(|bytes| bytes != entry)
    }
}

/// Sends a DMA write of its own. It happened unless the function's own bus-master enable bit
/// stopped it; what the fabric made of it is for the fabric to tell.
fn lie_by_dma(tally: &Tally, by: RequesterId, at: Iova, bytes: &[u8], bus: &mut dyn Bus) {
    let result = bus.dma_write(by, at, bytes, Purpose::Payload);
    if result != Err(DmaFault::MasterDisabled) {
        tally.act(bus.now());
    }
}

/// Bytes that depend on the seed and on nothing else (SplitMix64).
fn bytes_of(seed: u64, len: usize) -> Vec<u8> {
    let words = (1..).map(|step: u64| {
        let mut word = seed.wrapping_add(step.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    });
    words.flat_map(u64::to_le_bytes).take(len).collect()
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
        if why == Purpose::Payload {
            self.script.after_read(by, at, into.len(), self.bus);
            self.script.violate(Trigger::Dma, by, self.bus);
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
            Purpose::Completion => self.script.forged(from),
            Purpose::Payload => self.script.overrun(from),
            _ => None,
        };
        let result = self
            .bus
            .dma_write(by, at, forged.as_deref().unwrap_or(from), why);
        if forged.is_some() && result != Err(DmaFault::MasterDisabled) {
            self.script.tally.act(self.bus.now());
        }
        if why == Purpose::Payload {
            self.script.after_payload(by, at, from.len(), self.bus);
            self.script.violate(Trigger::Dma, by, self.bus);
        }
        result
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
