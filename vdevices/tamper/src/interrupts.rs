//! Lies about interrupts, and what a device does to its own PCI function.

use crate::{Lie, Tally};
use cofferdam_seam::{Meddling, Pending, Time, Vector, VectorSet, Width};
use core::time::Duration;

/// A storm under way.
struct Storm {
    next: Time,
    every: Duration,
    until: Time,
}

/// How far the device has come with its lies of this kind.
#[derive(Default)]
pub(crate) struct Interrupts {
    raised: u32,
    /// What the model raised last: what a storm raises. Vector 0 before that.
    last: Option<VectorSet>,
    storm: Option<Storm>,
    stuck: bool,
    /// When the bus-master enable bit comes back.
    master_at: Option<Time>,
    /// The message after a reset, and whether the reset has come.
    late_at: Option<Time>,
    was_reset: bool,
    meddling: Option<Meddling>,
}

impl Interrupts {
    /// The device did its `nth` DMA write of payload.
    pub fn after_payload(&mut self, lies: &[Lie], nth: u32, now: Time, tally: &Tally) {
        for lie in lies {
            match *lie {
                Lie::Storm {
                    nth: at,
                    every,
                    length,
                } if at == nth => {
                    self.storm = Some(Storm {
                        next: now,
                        every: every.max(Duration::from_nanos(1)),
                        until: now + length,
                    });
                }
                Lie::PinStuck { nth: at } if at == nth => self.stuck = true,
                Lie::MasterOff { nth: at, length } if at == nth => {
                    self.meddling = Some(Meddling::BusMaster(false));
                    self.master_at = (!length.is_zero()).then(|| now + length);
                    tally.act(now);
                }
                Lie::MsixTable {
                    nth: at,
                    field,
                    value,
                } if at == nth => {
                    self.meddling = Some(Meddling::MsixTable { field, value });
                    tally.act(now);
                }
                _ => {}
            }
        }
    }

    /// Function and model were reset.
    pub fn reset(&mut self, cold: bool) {
        self.master_at = None;
        if cold {
            *self = Self {
                raised: self.raised,
                ..Self::default()
            };
        } else {
            self.was_reset = true;
        }
    }

    /// What is due by now. A storm raises once a call; the caller asks to be stepped for the next.
    pub fn step(&mut self, lies: &[Lie], now: Time, pending: &mut Pending, tally: &Tally) {
        if std::mem::take(&mut self.was_reset) {
            let after = lies.iter().find_map(|lie| match lie {
                Lie::LateMessage { after, .. } if self.late_at.is_none() => Some(*after),
                _ => None,
            });
            self.late_at = self.late_at.or(after.map(|after| now + after));
        }
        if self.late_at.is_some_and(|at| at <= now) {
            // It is told once.
            self.late_at = Some(Time::NEVER);
            for lie in lies {
                if let Lie::LateMessage { at, data, .. } = *lie {
                    self.meddling = Some(Meddling::Message { at, data });
                    tally.act(now);
                }
            }
        }
        if self.master_at.is_some_and(|at| at <= now) {
            self.master_at = None;
            self.meddling = Some(Meddling::BusMaster(true));
        }
        if let Some(storm) = &mut self.storm {
            if now >= storm.until {
                self.storm = None;
            } else if now >= storm.next {
                storm.next = storm.next + storm.every;
                let vector = VectorSet::of(Vector(0));
                pending.raised.insert(self.last.unwrap_or(vector));
                tally.act(now);
            }
        }
    }

    /// When it has to be stepped next.
    pub fn next(&self) -> Option<Time> {
        let storm = self.storm.as_ref().map(|storm| storm.next);
        let late = self.late_at.filter(|&at| at != Time::NEVER);
        storm.into_iter().chain(late).chain(self.master_at).min()
    }

    /// Turns what the model asked of its function in one call into what the device asks.
    pub fn pervert(&mut self, lies: &[Lie], now: Time, pending: &mut Pending, tally: &Tally) {
        if !pending.raised.is_empty() {
            self.last = Some(pending.raised);
            self.raised = self.raised.saturating_add(1);
            let lost = lies.iter().any(|lie| match *lie {
                Lie::LostInterrupts { nth, burst } => {
                    (nth..nth.saturating_add(burst)).contains(&self.raised)
                }
                _ => false,
            });
            if lost {
                pending.raised = VectorSet::EMPTY;
                tally.act(now);
            }
        }
        if self.stuck && pending.intx != Some(true) {
            if pending.intx.is_some() || tally.acted() == 0 {
                tally.act(now);
            }
            pending.intx = Some(true);
        }
        if let Some(meddling) = self.meddling.take() {
            pending.meddling = Some(meddling);
        }
    }
}

/// The answer to a read of configuration space by a device whose capability list runs in a circle of
/// `length`, if the read shows where it bends.
pub(crate) fn circle(length: u8, at: u16, width: Width, space: &[u8]) -> Option<u32> {
    /// Where the list starts (PCI Local Bus 3.0, 6.7).
    const CAPABILITIES: usize = 0x34;
    let next = |at: usize| space.get(at).map(|&next| usize::from(next & 0xfc));
    let first = next(CAPABILITIES).filter(|&first| first != 0)?;
    let mut last = first;
    for _ in 1..length {
        last = next(last + 1).filter(|&next| next != 0).unwrap_or(last);
    }
    let start = usize::from(at);
    let bend = (last + 1).checked_sub(start)?;
    let bytes = width.bytes() as usize;
    if bend >= bytes.min(4) {
        return None;
    }
    let mut answer = [0; 4];
    answer[..bytes].copy_from_slice(space.get(start..start + bytes)?);
    answer[bend] = u8::try_from(first).ok()?;
    Some(u32::from_le_bytes(answer))
}
