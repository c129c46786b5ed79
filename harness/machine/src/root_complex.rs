//! The root complex: everything a request from a device meets on its way to memory or to the
//! interrupt controller.

use crate::clock::Clock;
use crate::config::{Config, IommuMode};
use crate::fabric::{Fabric, slot};
use crate::frames::{FRAME, Owner, out_of_high_bank, owner_at};
use crate::interrupts::{Controller, Delivery, MESSAGES};
use crate::iommu::{FaultRecord, Iommu, Path, Refusal};
use crate::ledger::{Ledger, Verdict};
use crate::memory::{Memory, NoMemory, PhysAddr};
use crate::port::Port;
use crate::recording::{BusEvent, KEPT, Recording, tells};
use crate::reset::{Obedience, Resets};
use crate::topology::{Place, Target, Topology, Way, first_access};
use cofferdam_seam::{
    Access, Bus, Completion, DmaFault, Iova, Purpose, RequesterId, Time, VectorSet, Violation,
};
use std::ops::Range;
use std::time::Duration;

/// DMA requests the log holds between two drains.
const LOG: usize = 4096;

/// Stray DMA requests that are kept beside, so that no flood of honest ones pushes them out.
const STRAYS: usize = 64;

/// One DMA request, as it happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DmaEvent {
    /// When.
    pub at: Time,
    /// Who asked.
    pub by: RequesterId,
    /// First address asked for.
    pub iova: Iova,
    /// Bytes asked for.
    pub len: usize,
    /// Whether it was a write.
    pub write: bool,
    /// What the device said it is for.
    pub why: Purpose,
    /// What should have happened.
    pub verdict: Verdict,
    /// Bytes that were moved.
    pub moved: usize,
    /// Why no more were.
    pub fault: Option<DmaFault>,
    /// Whether an IOTLB entry let it pass whose mapping was gone.
    pub stale: bool,
    /// The first byte it reached.
    pub reached: Option<PhysAddr>,
}

impl DmaEvent {
    /// Whether it moved anything.
    pub const fn landed(&self) -> bool {
        self.moved > 0
    }

    /// Whether the ledger did not sanction it.
    pub const fn is_stray(&self) -> bool {
        !self.verdict.is_sanctioned()
    }

    /// Whose memory it reached.
    pub fn owner(&self) -> Option<Owner> {
        self.reached.and_then(|reached| owner_at(reached.0))
    }
}

/// A bounded log: the first entries stay, the rest is counted.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) events: Vec<DmaEvent>,
    pub(crate) dropped: u64,
    limit: usize,
}

impl Log {
    const fn new(limit: usize) -> Self {
        Self {
            events: Vec::new(),
            dropped: 0,
            limit,
        }
    }

    fn push(&mut self, event: DmaEvent) {
        if self.events.len() < self.limit {
            self.events.push(event);
        } else {
            self.dropped += 1;
        }
    }
}

/// What the root complex counted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) requests: u64,
    pub(crate) stray_landed: u64,
    pub(crate) stray_blocked: u64,
    pub(crate) stale_landed: u64,
    pub(crate) after_unmap_landed: u64,
    pub(crate) last_after_unmap: Option<Duration>,
    pub(crate) leaked: u64,
    pub(crate) peer_to_peer: u64,
    pub(crate) interrupts: u64,
    pub(crate) forged: u64,
    pub(crate) spurious: u64,
    pub(crate) refused: u64,
}

/// Memory, IOMMU, ledger, interrupt controller, clock and the other functions: the bus as every
/// function sees it.
pub(crate) struct RootComplex {
    pub(crate) memory: Memory,
    pub(crate) iommu: Iommu,
    pub(crate) ledger: Ledger,
    pub(crate) interrupts: Controller,
    pub(crate) clock: Clock,
    pub(crate) log: Log,
    pub(crate) strays: Log,
    pub(crate) tally: Tally,
    /// If somebody asked for one.
    pub(crate) recording: Option<Recording>,
    pub(crate) fabric: Fabric,
    pub(crate) resets: Resets,
    /// A function that runs is out of its slot: who asks it something meanwhile finds nobody.
    functions: Vec<Option<Box<Port>>>,
    /// The slot of the function that runs: who really sends, whatever a request says of itself.
    speaking: Option<usize>,
    /// The earliest of wakes and flushes; never later than the truth.
    next_event: Time,
    ports: usize,
    rules: Rules,
}

/// What the platform makes of requests.
#[derive(Clone, Copy, Debug)]
struct Rules {
    /// Whether there is an IOMMU to look at them.
    iommu: bool,
    ats: bool,
    source_validation: bool,
    high_memory: bool,
}

/// What a request says of itself.
#[derive(Clone, Copy, Debug)]
struct Claim {
    /// Under whose requester ID it comes.
    requester: RequesterId,
    /// That its address is translated already.
    translated: bool,
}

/// Something that is due without anybody's access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Event {
    /// The flush queue of a slot is to be emptied.
    Flush(usize),
    /// The CPU that takes the interrupts of a slot leaves a handler or polls.
    Interrupt(usize),
    /// The device in a slot is to be stepped.
    Step(usize),
}

impl Claim {
    const fn honest(requester: RequesterId) -> Self {
        Self {
            requester,
            translated: false,
        }
    }
}

/// What the IOMMU said to a request: of the last page it looked at.
#[derive(Default)]
struct Exchange {
    path: Option<Path>,
    refusal: Option<Refusal>,
}

/// The bytes of a request, seen from the device.
enum Payload<'a> {
    Read(&'a mut [u8]),
    Write(&'a [u8]),
}

impl Payload<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Read(bytes) => bytes.len(),
            Self::Write(bytes) => bytes.len(),
        }
    }

    /// Bytes a device would learn something from.
    fn telling(&self, part: Range<usize>) -> u64 {
        match self {
            Self::Read(bytes) => bytes[part].iter().filter(|byte| **byte != 0).count() as u64,
            Self::Write(_) => 0,
        }
    }

    const fn is_write(&self) -> bool {
        matches!(self, Self::Write(_))
    }

    /// What is kept of the bytes: what was read only if all of it arrived.
    fn kept(&self, arrived: bool) -> Vec<u8> {
        let bytes: &[u8] = match self {
            Self::Read(bytes) if arrived => bytes,
            Self::Read(_) => &[],
            Self::Write(bytes) => bytes,
        };
        bytes[..bytes.len().min(KEPT)].to_vec()
    }

    fn exchange(
        &mut self,
        memory: &Memory,
        at: PhysAddr,
        part: Range<usize>,
    ) -> Result<(), NoMemory> {
        match self {
            Self::Read(bytes) => memory.read(at, &mut bytes[part]),
            Self::Write(bytes) => memory.write(at, &bytes[part]),
        }
    }
}

impl RootComplex {
    pub(crate) fn new(config: &Config, memory: Memory) -> Self {
        Self {
            memory,
            iommu: Iommu::new(config),
            ledger: Ledger::default(),
            interrupts: Controller::new(config),
            clock: Clock::default(),
            log: Log::new(LOG),
            strays: Log::new(STRAYS),
            tally: Tally::default(),
            recording: None,
            fabric: Fabric::new(config),
            resets: Resets::new(config),
            functions: Vec::new(),
            speaking: None,
            next_event: Time::NEVER,
            ports: 0,
            rules: Rules {
                iommu: config.iommu != IommuMode::Off,
                ats: config.ats,
                source_validation: config.source_validation,
                high_memory: config.high_memory,
            },
        }
    }

    /// Empties the logs and counts from zero.
    pub(crate) fn forget(&mut self) {
        self.log = Log::new(LOG);
        self.strays = Log::new(STRAYS);
        self.tally = Tally::default();
        self.iommu.forget();
        self.interrupts.forget();
        self.fabric.errors.forget();
        self.resets.forget();
    }

    /// Makes room for the next slot.
    pub(crate) fn attach(&mut self, requester: RequesterId) {
        self.iommu.attach(requester);
        self.ledger.attach();
        self.interrupts.attach();
        self.clock.attach();
        self.resets.attach();
        self.functions.push(None);
        self.ports += 1;
    }

    /// Puts the function that was set up for it into the last slot.
    pub(crate) fn insert(&mut self, place: Place, port: Box<Port>) {
        self.fabric.attach(place, port.windows());
        if let Some(slot) = self.functions.last_mut() {
            *slot = Some(port);
        }
    }

    /// The function in a slot, unless it runs.
    #[inline]
    pub(crate) fn port(&self, slot: usize) -> Option<&Port> {
        self.functions.get(slot)?.as_deref()
    }

    /// Takes the function out of its slot, lets it run, and puts it back. None if nobody is there, or
    /// it runs already.
    #[inline]
    pub(crate) fn lend<R>(
        &mut self,
        slot: usize,
        call: impl FnOnce(&mut Port, &mut Self) -> R,
    ) -> Option<R> {
        let mut port = self.functions.get_mut(slot)?.take()?;
        let before = self.speaking.replace(slot);
        let result = call(&mut port, self);
        self.speaking = before;
        self.functions[slot] = Some(port);
        Some(result)
    }

    /// When the next event is due.
    #[inline]
    pub(crate) const fn next_event(&self) -> Time {
        self.next_event
    }

    /// Takes the next event due by `to` and moves time there. At one instant flushes come first:
    /// what an invalidation takes back at 10 ms is gone for a DMA at 10 ms.
    pub(crate) fn next_due(&mut self, to: Time) -> Option<Event> {
        let flush = self.iommu.next_flush();
        let flush = flush.map(|(at, slot)| (at, Event::Flush(slot)));
        let wake = self.clock.next_wake();
        let wake = wake.map(|(at, slot)| (at, Event::Step(slot)));
        let interrupt = self.interrupts.next();
        let interrupt = interrupt.map(|(at, slot)| (at, Event::Interrupt(slot)));
        let (at, event) = flush.into_iter().chain(interrupt).chain(wake).min()?;
        if at > to {
            return None;
        }
        self.clock.move_to(at);
        Some(event)
    }

    /// Finds the next event anew, after one was taken or a flush timer changed.
    pub(crate) fn settle(&mut self) {
        let flush = self.iommu.next_flush().map(|(at, _)| at);
        let wake = self.clock.next_wake().map(|(at, _)| at);
        let interrupt = self.interrupts.next().map(|(at, _)| at);
        let next = flush.into_iter().chain(interrupt).chain(wake).min();
        self.next_event = next.unwrap_or(Time::NEVER);
    }

    /// Carries out a memory request page by page, up to the first fault. `by` sent it, whatever it
    /// claims.
    fn request(
        &mut self,
        by: RequesterId,
        claim: Claim,
        at: Iova,
        mut payload: Payload<'_>,
        why: Purpose,
    ) -> Result<(), DmaFault> {
        let slot = slot(by);
        if slot >= self.ports {
            return Err(DmaFault::Refused);
        }
        let (len, write) = (payload.len(), payload.is_write());
        if len == 0 {
            return Ok(());
        }
        let now = self.clock.now();
        let sender = self.speaking.unwrap_or(slot);
        let peer = self.peer(sender, at);
        // Nothing is mapped and nothing answers where a request would wrap.
        let verdict = match at.0.checked_add(len as u64) {
            _ if peer.is_some() => Verdict::PeerToPeer,
            Some(end) => self.ledger.judge(slot, &(at.0..end), write, now),
            None => Verdict::Unbacked,
        };
        let mut event = DmaEvent {
            at: now,
            by,
            iova: at,
            len,
            write,
            why,
            verdict,
            moved: 0,
            fault: None,
            stale: false,
            reached: None,
        };
        let done = if !self.fabric.is_joined(sender, now) {
            event.fault = Some(DmaFault::LinkDown);
            Exchange::default()
        } else if let Some(peer) = peer {
            self.exchange_with_peer(claim, peer, &mut payload, &mut event)
        } else {
            self.exchange_with_memory(claim, &mut payload, &mut event)
        };
        self.enter(event);
        if let Some(recording) = &mut self.recording {
            let bytes = if tells(why) {
                payload.kept(event.fault.is_none())
            } else {
                Vec::new()
            };
            recording.push(BusEvent::Dma {
                event,
                bytes,
                path: done.path,
                refusal: done.refusal,
            });
        }
        event.fault.map_or(Ok(()), Err)
    }

    /// Moves what the IOMMU lets through.
    fn exchange_with_memory(
        &mut self,
        claim: Claim,
        payload: &mut Payload<'_>,
        event: &mut DmaEvent,
    ) -> Exchange {
        let DmaEvent {
            by,
            iova: at,
            len,
            write,
            ..
        } = *event;
        let mut done = Exchange::default();
        while event.moved < len {
            let address = at.offset(event.moved as u64).0;
            let within = address % FRAME;
            let room = usize::try_from(FRAME - within).unwrap_or(len);
            let part = event.moved..event.moved + room.min(len - event.moved);
            let page = address / FRAME;
            let (frame, path) = match self.translate(by, claim, page, write) {
                Ok(found) => found,
                Err(why) => {
                    done.refusal = Some(why);
                    event.fault = Some(DmaFault::Refused);
                    break;
                }
            };
            done.path = Some(path);
            // The frame of an untranslated address may lie far beyond memory, never beyond 64 bits.
            let mut phys = PhysAddr(frame * FRAME + within);
            if self.rules.high_memory && path == Path::Identity {
                phys = PhysAddr(out_of_high_bank(phys.0));
            }
            let end = part.end;
            if payload.exchange(&self.memory, phys, part.clone()).is_err() {
                event.fault = Some(DmaFault::Unbacked);
                break;
            }
            if event.is_stray() {
                self.tally.leaked += payload.telling(part);
            }
            event.stale |= path == Path::Stale;
            event.reached.get_or_insert(phys);
            event.moved = end;
        }
        done
    }

    /// The register of another function that an address is, if it is one.
    fn peer(&self, sender: usize, at: Iova) -> Option<Target> {
        if !Topology::may_be_bar(at.0) {
            return None;
        }
        self.fabric.topology.target(sender, at.0)
    }

    /// Moves what goes to the registers of another function. Below the root complex nobody looks at
    /// it; a request that comes up there is judged by the IOMMU, and forwarded only where the root
    /// complex does that.
    fn exchange_with_peer(
        &mut self,
        claim: Claim,
        peer: Target,
        payload: &mut Payload<'_>,
        event: &mut DmaEvent,
    ) -> Exchange {
        let DmaEvent {
            by,
            iova,
            len,
            write,
            ..
        } = *event;
        let sender = self.speaking.unwrap_or(slot(by));
        let mut done = Exchange::default();
        if self.fabric.topology.way(sender, peer.slot) == Way::Upstream {
            match self.translate(by, claim, iova.0 / FRAME, write) {
                Ok((_, path)) => done.path = Some(path),
                Err(why) => {
                    done.refusal = Some(why);
                    event.fault = Some(DmaFault::Refused);
                    return done;
                }
            }
            if !self.fabric.forwards {
                event.fault = Some(DmaFault::Unbacked);
                return done;
            }
        }
        while event.moved < len {
            let at = self.peer(sender, iova.offset(event.moved as u64));
            let next = at.filter(|at| at.slot == peer.slot && at.bar == peer.bar);
            let left = len - event.moved;
            let access = next.and_then(|at| first_access(at.bar, at.offset, left));
            let answer = access.and_then(|access| {
                let part = event.moved..event.moved + access.width().bytes() as usize;
                self.exchange_register(peer.slot, access, payload, part)
            });
            let Some(moved) = answer else {
                event.fault = Some(DmaFault::Unbacked);
                return done;
            };
            event.reached.get_or_insert(PhysAddr(iova.0));
            event.moved += moved;
        }
        done
    }

    /// One access of a device to another's register; the bytes moved, unless nobody answers there or
    /// that function is itself at work.
    fn exchange_register(
        &mut self,
        slot: usize,
        at: Access,
        payload: &mut Payload<'_>,
        part: Range<usize>,
    ) -> Option<usize> {
        let now = self.clock.now();
        if !self.fabric.is_joined(slot, now) {
            return None;
        }
        let width = part.len();
        match payload {
            Payload::Read(bytes) => {
                let answer = self.lend(slot, |port, bus| port.function.read(at, bus))?;
                let Completion::Data(value) = answer else {
                    return None;
                };
                bytes[part].copy_from_slice(&value.to_le_bytes()[..width]);
            }
            Payload::Write(bytes) => {
                let mut word = [0; 8];
                word[..width].copy_from_slice(&bytes[part]);
                let value = u64::from_le_bytes(word);
                self.lend(slot, |port, bus| port.function.write(at, value, bus))?;
            }
        }
        Some(width)
    }

    /// Where a page of a request leads: what the request claims is looked at first, as far as this
    /// platform looks.
    fn translate(
        &mut self,
        by: RequesterId,
        claim: Claim,
        page: u64,
        write: bool,
    ) -> Result<(u64, Path), Refusal> {
        let now = self.clock.now();
        let domain = slot(claim.requester);
        let why = if claim.requester != by && self.rules.source_validation {
            Refusal::Spoofed
        } else if claim.translated && self.rules.iommu && !self.rules.ats {
            Refusal::Translated
        } else if claim.translated {
            return Ok((page, Path::Identity));
        } else if domain >= self.ports {
            // Nobody's requester ID, so no domain.
            Refusal::NotMapped
        } else {
            return self.iommu.translate(domain, page, write, now);
        };
        self.iommu.record(FaultRecord {
            at: now,
            requester: claim.requester,
            page: page.wrapping_mul(FRAME),
            write,
            why,
        });
        Err(why)
    }

    fn enter(&mut self, event: DmaEvent) {
        self.tally.requests += 1;
        self.tally.stale_landed += u64::from(event.stale);
        self.tally.peer_to_peer += u64::from(event.verdict == Verdict::PeerToPeer);
        if event.is_stray() {
            if event.landed() {
                self.tally.stray_landed += 1;
            } else {
                self.tally.stray_blocked += 1;
            }
            if let Verdict::UseAfterUnmap { ago } = event.verdict
                && event.landed()
            {
                self.tally.after_unmap_landed += 1;
                self.tally.last_after_unmap = Some(ago);
            }
            self.strays.push(event);
        }
        self.log.push(event);
    }

    /// A handler may have begun: its end is an event.
    fn expect_interrupt(&mut self) {
        if let Some((at, _)) = self.interrupts.next() {
            self.next_event = self.next_event.min(at.max(self.clock.now()));
        }
    }

    /// The driver of that slot waits for something else than its device.
    pub(crate) fn rest_driver(&mut self, slot: usize) {
        let before = self.interrupts.cost(slot).taken;
        self.interrupts.rest(slot, self.clock.now());
        self.tally.interrupts += self.interrupts.cost(slot).taken - before;
        self.expect_interrupt();
    }

    /// What was raised for a driver that waits, acknowledged by this.
    pub(crate) fn take_interrupts(&mut self, slot: usize, of: VectorSet) -> VectorSet {
        let before = self.interrupts.cost(slot).taken;
        let taken = self.interrupts.take(slot, of, self.clock.now());
        self.tally.interrupts += self.interrupts.cost(slot).taken - before;
        self.expect_interrupt();
        taken
    }

    /// Lets the CPU that takes the interrupts of that slot do what is due.
    pub(crate) fn serve_interrupts(&mut self, slot: usize) {
        let pin = self.interrupts.is_pin(slot);
        let before = self.interrupts.cost(slot).taken;
        self.interrupts.advance(slot, self.clock.now());
        if pin {
            self.tally.interrupts += self.interrupts.cost(slot).taken - before;
        }
    }

    /// Takes a write that is a message; whether it was one.
    fn message(&mut self, by: RequesterId, at: Iova, from: &[u8]) -> bool {
        let Ok(data) = <[u8; 4]>::try_from(from) else {
            return false;
        };
        if !MESSAGES.contains(&at.0) || !at.0.is_multiple_of(4) {
            return false;
        }
        let now = self.clock.now();
        let sender = self.speaking.unwrap_or(slot(by));
        if !self.fabric.quiet && !self.fabric.is_joined(sender, now) {
            return true;
        }
        let data = u32::from_le_bytes(data);
        let became = self.interrupts.message(slot(by), data, now);
        self.expect_interrupt();
        if let Some(recording) = &mut self.recording {
            recording.push(BusEvent::Message {
                at: now,
                by,
                data,
                became,
            });
        }
        match became {
            Delivery::Own => self.tally.interrupts += 1,
            Delivery::Forged => {
                self.tally.interrupts += 1;
                self.tally.forged += 1;
            }
            Delivery::Spurious => self.tally.spurious += 1,
            Delivery::Refused => {
                self.tally.refused += 1;
                self.iommu.record(FaultRecord {
                    at: self.clock.now(),
                    requester: by,
                    page: at.0,
                    write: true,
                    why: Refusal::Interrupt,
                });
            }
        }
        true
    }
}

impl Bus for RootComplex {
    fn dma_read(
        &mut self,
        by: RequesterId,
        at: Iova,
        into: &mut [u8],
        why: Purpose,
    ) -> Result<(), DmaFault> {
        let done = self.request(by, Claim::honest(by), at, Payload::Read(into), why);
        if done.is_err() {
            into.fill(0xff);
        }
        done
    }

    fn dma_write(
        &mut self,
        by: RequesterId,
        at: Iova,
        from: &[u8],
        why: Purpose,
    ) -> Result<(), DmaFault> {
        if self.message(by, at, from) {
            return Ok(());
        }
        self.request(by, Claim::honest(by), at, Payload::Write(from), why)
    }

    fn dma_write_translated(
        &mut self,
        by: RequesterId,
        at: Iova,
        from: &[u8],
    ) -> Result<(), DmaFault> {
        let claim = Claim {
            translated: true,
            ..Claim::honest(by)
        };
        self.request(by, claim, at, Payload::Write(from), Purpose::Payload)
    }

    fn dma_write_as(
        &mut self,
        by: RequesterId,
        claimed: RequesterId,
        at: Iova,
        from: &[u8],
    ) -> Result<(), DmaFault> {
        let claim = Claim::honest(claimed);
        self.request(by, claim, at, Payload::Write(from), Purpose::Payload)
    }

    fn intx(&mut self, by: RequesterId, level: bool) {
        let slot = slot(by);
        if slot < self.ports {
            let before = self.interrupts.cost(slot).taken;
            self.interrupts.pin(slot, level, self.clock.now());
            self.tally.interrupts += self.interrupts.cost(slot).taken - before;
            self.expect_interrupt();
        }
    }

    fn violate(&mut self, by: RequesterId, what: Violation) -> bool {
        let slot = slot(by);
        if slot >= self.ports {
            return false;
        }
        match what {
            Violation::IgnoreReset => self.resets.obey(slot, Obedience::Deaf),
            Violation::SlowReset { time } => self.resets.obey(slot, Obedience::Slow(time)),
            _ => {
                let now = self.clock.now();
                let target = match what {
                    Violation::Lock { target, .. } => target.map(crate::fabric::slot),
                    _ => None,
                };
                return self.fabric.violate(by, slot, target, what, now);
            }
        }
        true
    }

    fn now(&self) -> Time {
        self.clock.now()
    }

    fn wake_at(&mut self, by: RequesterId, at: Time) {
        let slot = slot(by);
        if slot < self.ports {
            self.clock.wake_at(slot, at);
            self.next_event = self.next_event.min(at.max(self.clock.now()));
        }
    }
}
