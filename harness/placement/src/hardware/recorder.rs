//! Writes down what happens, if somebody asked for it. It looks and never touches: a trial comes
//! out the same with a recorder and without.

use super::{Hardware, State, ToZygote};
use crate::call::{Answer, Call};
use crate::placement::RingAt;
use crate::ring::{self, Glance, SLOTS};
use crate::trace::{Dma, Event, LIMIT, Trace, What};
use cofferdam_machine::{BusEvent, Delivery, Path, PhysAddr, Refusal};
use cofferdam_seam::{Time, VectorSet};
use std::io;

/// Bytes of events after which a message is sent: with one more event it fits the channel, which
/// takes twice as many.
const PIECE: usize = 64 * 1024;

/// What is written down, and how far the recorder has looked.
#[derive(Default)]
pub(super) struct Recorder {
    trace: Trace,
    activated: bool,
    iommu_noticed: bool,
    /// Domains whose wait was written down and not yet its end, by bit.
    waiting: u64,
    invalidations: u64,
    /// By tenant, less one: requests made and answered.
    requests: [(u32, u32); 2],
}

impl Recorder {
    fn push(&mut self, at: Time, what: What) {
        if self.trace.events.len() < LIMIT {
            let at_ns = at.nanos();
            self.trace.events.push(Event { at_ns, what });
        } else {
            self.trace.dropped += 1;
        }
    }

    /// A domain goes on. Of what devices did before everything is written down.
    pub fn wakes(&mut self, now: Time, who: usize, raised: VectorSet, bells: u64) {
        if self.waiting >> who & 1 == 1 {
            self.waiting &= !(1 << who);
            let vectors = raised.0;
            self.push(
                now,
                What::Wakes {
                    who,
                    vectors,
                    bells,
                },
            );
        }
    }

    /// How far a tenant's requests have come. Its ring says what its two sides wrote there: no count
    /// is believed further than the ring is long.
    fn requests(&mut self, now: Time, tenant: u8, glance: &Glance) {
        let Some(seen) = self.requests.get_mut(usize::from(tenant).wrapping_sub(1)) else {
            return;
        };
        let (made, answered) = std::mem::replace(seen, (glance.submitted, glance.completed));
        let slot = |nth: u32| &glance.slots[nth as usize % SLOTS];
        for nth in upto(answered, glance.completed.min(made)) {
            let good = slot(nth).1;
            self.push(now, What::Answered { tenant, nth, good });
        }
        for nth in upto(made, glance.submitted) {
            let ask = slot(nth).0.clone();
            self.push(now, What::Asked { tenant, nth, ask });
        }
        for nth in upto(answered.max(made), glance.completed) {
            let good = slot(nth).1;
            self.push(now, What::Answered { tenant, nth, good });
        }
    }

    /// The trace, in the order of time; what happened at one instant stays in the order it was
    /// seen.
    pub fn finish(mut self) -> Trace {
        self.trace.events.sort_by_key(|event| event.at_ns);
        // That a fault struck is known a moment later: it belongs after the access that was it.
        let events = &mut self.trace.events;
        let struck = events.iter().position(|e| e.what == What::Activated);
        if let Some(struck) = struck {
            let at_ns = events[struck].at_ns;
            let is_it = |e: &Event| {
                e.at_ns == at_ns && matches!(&e.what, What::Dma(dma) if dma.stray.is_some())
            };
            if let Some(first) = events[..struck].iter().position(is_it) {
                events[first + 1..=struck].rotate_right(1);
            }
        }
        self.trace
    }
}

impl Hardware {
    pub(super) fn start_recording(&mut self) {
        self.machine.record();
        self.recorder = Some(Recorder::default());
    }

    /// Writes down what happens now, after what devices did before.
    pub(super) fn note(&mut self, what: impl FnOnce() -> What) {
        if self.recorder.is_some() {
            self.note_at(self.now(), what);
        }
    }

    /// The same for what happened at another time.
    pub(super) fn note_at(&mut self, at: Time, what: impl FnOnce() -> What) {
        if self.recorder.is_some() {
            self.note_bus();
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.push(at, what());
        }
    }

    /// Writes down what happened without a call: on the bus, to the IOTLB, in the rings.
    pub(super) fn note_rest(&mut self) {
        if self.recorder.is_none() {
            return;
        }
        self.note_bus();
        let now = self.now();
        let invalidations = self.machine.counts().invalidations;
        if let Some(recorder) = &mut self.recorder {
            let before = std::mem::replace(&mut recorder.invalidations, invalidations);
            let times = invalidations.saturating_sub(before);
            if times > 0 {
                recorder.push(now, What::Invalidated { times });
            }
            if let Some(at) = self.activated_at
                && !std::mem::replace(&mut recorder.activated, true)
            {
                recorder.push(at, What::Activated);
            }
        }
        self.note_requests();
    }

    /// Writes down how far the tenants' requests have come.
    fn note_requests(&mut self) {
        let now = self.now();
        for (tenant, _) in self.placement.tenants() {
            let start = PhysAddr(ring::ring_start(RingAt::Tenant(tenant)));
            let frame = self.machine.memory().pointer(start);
            // SAFETY: the machine's memory maps every frame for as long as the machine lives.
            let glance = unsafe { ring::header(frame) }.glance();
            if let Some(recorder) = &mut self.recorder {
                recorder.requests(now, tenant, &glance);
            }
        }
    }

    fn note_bus(&mut self) {
        let (events, dropped) = self.machine.take_recorded();
        let Some(recorder) = &mut self.recorder else {
            return;
        };
        recorder.trace.dropped += dropped;
        for event in events {
            let (at, what) = in_words(event);
            recorder.push(at, what);
        }
    }

    /// Writes down a call before it is carried out, because of what it sets off.
    pub(super) fn note_ahead(&mut self, index: usize, call: Call) {
        if self.recorder.is_none() || index != self.placement.server() {
            return;
        }
        match call {
            Call::MmioWrite {
                bar,
                offset,
                width,
                value,
            } => self.note(|| What::Write {
                bar,
                offset,
                width: width as u8,
                value: value & width.all_ones(),
            }),
            Call::ConfigWrite {
                offset,
                width,
                value,
            } => self.note(|| What::Config {
                write: true,
                offset,
                width: width as u8,
                value,
            }),
            _ => {}
        }
    }

    /// Writes down a call that was carried out, with its answer.
    pub(super) fn note_call(&mut self, index: usize, call: Call, state: State) {
        if self.recorder.is_none() {
            return;
        }
        let Some(what) = self.told(index, call, state) else {
            return;
        };
        // What the caller did to its rings came before the call.
        self.note_requests();
        let waits = matches!(what, What::Waits { .. });
        self.note(|| what);
        if let Some(recorder) = &mut self.recorder {
            recorder.waiting |= u64::from(waits) << index;
        }
        if matches!(state, State::Frozen { .. })
            && let Some(cpu) = self.units[index].cpu
        {
            let until_ns = self.cpus[cpu].until.map_or(u64::MAX, Time::nanos);
            self.note(|| What::Froze { cpu, until_ns });
        }
    }

    /// What a call and its answer come to, if they are part of the story.
    fn told(&self, index: usize, call: Call, state: State) -> Option<What> {
        let (first, second, ok) = match state {
            State::Ready(Answer { ok, values }) => (Some(values[0]), values[1], ok),
            _ => (None, 0, true),
        };
        if !ok {
            let (by, call) = (index, format!("{call:?}"));
            return Some(What::Refused { by, call });
        }
        Some(match call {
            Call::MmioRead { bar, offset, width } => What::Read {
                bar,
                offset,
                width: width as u8,
                value: first,
            },
            Call::ConfigRead { offset, width } => What::Config {
                write: false,
                offset,
                width: width as u8,
                value: u32::try_from(first?).ok()?,
            },
            Call::EnableInterrupts { .. } => What::Interrupts {
                kind: match first? {
                    0 => "MSI-X",
                    1 => "MSI",
                    _ => "INTx",
                }
                .to_owned(),
                count: u16::try_from(second).ok()?,
            },
            Call::Map { phys, len, way, .. } | Call::MapAt { phys, len, way, .. } => What::Mapped {
                id: second,
                iova: first?,
                phys,
                len,
                way,
                chosen: matches!(call, Call::MapAt { .. }),
            },
            Call::Unmap { id } => What::Unmapped { id },
            Call::Wait {
                vectors,
                bells,
                until,
                ..
            } => What::Waits {
                who: index,
                vectors: vectors.0,
                bells,
                until_ns: until,
            },
            Call::Ring { peers } => What::Rang { by: index, peers },
            Call::Reset => What::Reset { by: index },
            Call::Serving => What::Serves,
            Call::Finished => What::Finished { who: index },
            _ => return None,
        })
    }

    /// Writes down that somebody noticed something. The IOMMU's log is looked at again and again, so
    /// of it the first entry only.
    pub(super) fn note_detection(&mut self, by: &str, what: &str, at: Time) {
        let Some(recorder) = &mut self.recorder else {
            return;
        };
        if by == "iommu" && std::mem::replace(&mut recorder.iommu_noticed, true) {
            return;
        }
        let (by, what) = (by.to_owned(), what.to_owned());
        self.note_at(at, || What::Noticed { by, what });
    }

    /// Sends what was written down, in messages that fit the channel.
    pub(super) fn send_trace(&mut self) -> io::Result<()> {
        let Some(recorder) = self.recorder.take() else {
            return Ok(());
        };
        let Trace { events, dropped } = recorder.finish();
        let mut bytes = 0;
        let mut piece = Vec::new();
        for event in events {
            bytes += serde_json::to_vec(&event)?.len();
            piece.push(event);
            if bytes > PIECE {
                bytes = 0;
                self.zygote
                    .send(&ToZygote::Trace(std::mem::take(&mut piece), 0))?;
            }
        }
        self.zygote.send(&ToZygote::Trace(piece, dropped))
    }
}

/// The last of the numbers between two counts, as many as a ring has room for.
fn upto(from: u32, to: u32) -> std::ops::Range<u32> {
    let slots = u32::try_from(SLOTS).unwrap_or(0);
    from.max(to.saturating_sub(slots))..to.max(from)
}

fn in_words(event: BusEvent) -> (Time, What) {
    match event {
        BusEvent::Message {
            at,
            by,
            data,
            became,
        } => {
            let became = match became {
                Delivery::Own => "raised",
                Delivery::Forged => "raised a vector of another device",
                Delivery::Spurious => "named a vector nobody has",
                Delivery::Refused => "refused: not a vector of its sender",
            };
            let (by, became) = (by.to_string(), became.to_owned());
            (at, What::Message { by, data, became })
        }
        BusEvent::Dma {
            event,
            bytes,
            path,
            refusal,
        } => {
            let refused = refusal.map(|why| match why {
                Refusal::NotMapped => "blocked by the IOMMU (not mapped)",
                Refusal::Forbidden => "blocked by the IOMMU (mapped for the other direction)",
                Refusal::Interrupt => "blocked by the IOMMU (no vector of its sender)",
                Refusal::Translated => "blocked by the IOMMU (claims to be translated, ATS is off)",
                Refusal::Spoofed => "blocked by its port (another's requester ID)",
            });
            let fault = refused
                .map(str::to_owned)
                .or_else(|| event.fault.map(|fault| fault.to_string()));
            let path = path.map(|path| {
                match path {
                    Path::Identity => "untranslated",
                    Path::Mapped => "mapped",
                    Path::Stale => "through a stale IOTLB entry",
                }
                .to_owned()
            });
            let dma = Dma {
                by: event.by.to_string(),
                iova: event.iova.0,
                len: event.len as u64,
                write: event.write,
                why: event.why,
                stray: event.is_stray().then(|| event.verdict.to_string()),
                moved: event.moved as u64,
                fault,
                path,
                reached: event.reached.map(|at| at.0),
                owner: event.owner().map(|owner| owner.to_string()),
                bytes,
            };
            (event.at, What::Dma(dma))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_beyond_the_limit_are_counted_and_not_kept() {
        let mut recorder = Recorder::default();
        for at in 0..LIMIT as u64 + 5 {
            recorder.push(Time(at), What::Serves);
        }

        let trace = recorder.finish();

        assert_eq!((trace.events.len(), trace.dropped), (LIMIT, 5));
        assert_eq!(trace.events[0].at_ns, 0);
    }

    #[test]
    fn count_of_a_ring_is_believed_no_further_than_the_ring_is_long() {
        let mut recorder = Recorder::default();
        let glance = Glance {
            submitted: u32::MAX,
            completed: 1 << 31,
            slots: std::array::from_fn(|_| ("nop".to_owned(), true)),
        };

        for tenant in [0, 1, 2, 3, u8::MAX] {
            recorder.requests(Time::ZERO, tenant, &glance);
        }

        assert!(recorder.finish().events.len() <= 2 * 2 * SLOTS);
    }

    #[test]
    fn fault_strikes_after_the_access_that_it_is() {
        let stray = Dma {
            by: String::new(),
            iova: 0,
            len: 1,
            write: true,
            why: cofferdam_seam::Purpose::Payload,
            stray: Some("unbacked".into()),
            moved: 0,
            fault: None,
            path: None,
            reached: None,
            owner: None,
            bytes: Vec::new(),
        };
        let mut recorder = Recorder::default();
        for what in [
            What::Serves,
            What::Dma(stray.clone()),
            What::Serves,
            What::Activated,
        ] {
            recorder.push(Time(7), what);
        }

        let events = recorder.finish().events;

        let order: Vec<_> = events.into_iter().map(|event| event.what).collect();
        let expected = [
            What::Serves,
            What::Dma(stray),
            What::Activated,
            What::Serves,
        ];
        assert_eq!(order, expected);
    }
}
