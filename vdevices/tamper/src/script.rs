//! The lies of one device, and how far the device has come towards them.

use crate::{Aim, Lie, Tally};
use cofferdam_seam::{Bus, DmaFault, Iova, Purpose, RequesterId, Time};
use std::sync::Arc;
use std::time::Duration;

/// A stale write that waits for its time.
struct Stale {
    due: Time,
    at: Iova,
    len: usize,
    seed: u64,
    /// Whether it waits for bus mastering instead of being lost without it.
    patient: bool,
}

/// How often a write that waits for bus mastering looks for it.
const LOOK: Duration = Duration::from_micros(20);

/// Longest read of a lie.
const READ_LIMIT: usize = 4096;

/// How a register read is to end.
pub(crate) enum Answer {
    /// The model answers.
    Honest,
    /// No completion.
    Never,
    /// All ones.
    AllOnes,
}

/// The lies, and the counts since arming that trigger them.
pub(crate) struct Script {
    lies: Vec<Lie>,
    tally: Arc<Tally>,
    reads: u32,
    payloads: u32,
    payloads_read: u32,
    completions: u32,
    /// Where the last DMA of payload went.
    last_payload: Option<(Iova, usize)>,
    /// A function-level reset came, and no access since.
    was_reset: bool,
    /// The write after a reset was announced: it comes once.
    announced: bool,
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
            last_payload: None,
            was_reset: false,
            announced: false,
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
                    return Answer::Never;
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
        let due: Vec<_> = self
            .stale
            .extract_if(.., |stale| stale.due <= now)
            .collect();
        for stale in due {
            let bytes = bytes_of(stale.seed, stale.len);
            let sent = lie_by_dma(&self.tally, by, stale.at, &bytes, bus);
            if !sent && stale.patient {
                let due = now + LOOK;
                self.stale.push(Stale { due, ..stale });
            }
        }
        if let Some(due) = self.stale.iter().map(|stale| stale.due).min() {
            bus.wake_at(by, due);
        }
    }

    /// A function-level reset, which a device that lies survives.
    pub fn survive(&mut self) {
        self.was_reset = true;
    }

    /// An access or a step: the first after a reset announces the write that follows it.
    #[inline]
    pub fn attend(&mut self, by: RequesterId, bus: &mut dyn Bus) {
        if self.was_reset {
            self.was_reset = false;
            self.announce(by, bus);
        }
    }

    fn announce(&mut self, by: RequesterId, bus: &mut dyn Bus) {
        let Some((at, len)) = self.last_payload.filter(|_| !self.announced) else {
            return;
        };
        for lie in &self.lies {
            if let Lie::WriteAfterReset { after, bytes_seed } = *lie {
                self.announced = true;
                let due = bus.now() + after;
                self.stale.push(Stale {
                    due,
                    at,
                    len,
                    seed: bytes_seed,
                    patient: true,
                });
                bus.wake_at(by, due);
            }
        }
    }

    /// Forgets what is pending. What has been counted stays counted.
    pub fn cancel(&mut self) {
        self.stale.clear();
        self.was_reset = false;
        self.dark_until = Time::ZERO;
    }

    /// Counts a payload write that the device just did and follows it up.
    fn after_payload(&mut self, by: RequesterId, at: Iova, len: usize, bus: &mut dyn Bus) {
        self.payloads = self.payloads.saturating_add(1);
        self.last_payload = Some((at, len));
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

    fn now(&self) -> Time {
        self.bus.now()
    }

    fn wake_at(&mut self, by: RequesterId, at: Time) {
        self.bus.wake_at(by, at);
    }
}
