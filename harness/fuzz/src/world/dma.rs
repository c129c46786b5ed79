//! The device's requests to memory: who sanctioned them, and what the program makes of them.

use super::{Map, State};
use crate::oracle::Oracle;
use crate::program::{Carried, Event};
use crate::script::Change;
use crate::trace::Step;
use cofferdam_machine::Verdict;
use cofferdam_seam::{Bus, DmaFault, Iova, Purpose, RequesterId, Time};
use std::ops::Range;

/// Where messages go.
const MESSAGES: Range<u64> = 0xfee0_0000..0xfef0_0000;

impl State {
    fn judge(&mut self, at: Iova, len: usize, write: bool, why: Purpose) -> Option<usize> {
        let verdict = match at.0.checked_add(len as u64) {
            Some(end) => self.ledger.judge(0, &(at.0..end), write, self.now),
            None => Verdict::Unbacked,
        };
        match Oracle::of_dma(verdict) {
            None => usize::try_from(at.0.wrapping_sub(self.first_iova)).ok(),
            Some(_) if self.is_excused(at) => None,
            Some(oracle) => {
                let place = self.place(self.stack());
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
