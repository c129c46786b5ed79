//! The machine: what the privileged layer of a placement has in its hands.

use crate::aer::ErrorRecord;
use crate::bounce::Bounce;
use crate::config::{Config, IommuMode};
use crate::fabric::{Ending, Kind, PORTS, Passage, Read, Write, requester, slot};
use crate::frames::{FRAME, MEMORY, into_high_bank};
use crate::interrupts::{Controller, MESSAGES};
use crate::iommu::{FaultRecord, NoIova};
use crate::ledger::{LIVE_LIMIT, Live, pages_of};
use crate::memory::{Memory, PhysAddr};
use crate::port::{BarSpace, Port, find_capability};
use crate::recording::{BusEvent, Recording};
use crate::reset::{Finding, ResetProgress};
use crate::root_complex::{DmaEvent, Event, RootComplex};
use crate::service::InterruptCost;
use crate::topology::{Place, Target};
use cofferdam_seam::{
    Access, Bar, Budget, Capability, Completion, Device, Direction, InterruptKind, Interrupts,
    Iova, Mapping, MsixLocation, PciIdentity, Progress, RequesterId, Time, Vector, VectorSet,
    Width,
};
use std::ops::Range;
use std::time::Duration;
use vdevice_pci::{PciFunction, spec};

/// Work a device may do in one step.
const STEP: Budget = Budget(64);

/// A root port forwards any aligned access; the function behind it decodes its own BARs and answers
/// [`Completion::Unsupported`] beyond them. Looking twice would cost a tenth of a register read.
const WHOLE_SPACE: u64 = u64::MAX;

/// Why the machine could not do what the privileged layer asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MachineError {
    /// Nothing is plugged in there.
    #[error("no device at {0}; use the requester ID that plugging it in returned")]
    NoSuchDevice(RequesterId),
    /// The range to map is not memory.
    #[error("{len} bytes at {at} are not all memory, of which there are {MEMORY} bytes from 0")]
    OutsideMemory {
        /// First byte.
        at: PhysAddr,
        /// Bytes.
        len: usize,
    },
    /// A mapping of no bytes.
    #[error("a mapping needs at least one byte")]
    Empty,
    /// The requester holds as many mappings as the machine keeps track of.
    #[error("{0} already holds {LIVE_LIMIT} mappings; unmap some first")]
    TooManyMappings(RequesterId),
    /// The mapping must be bounced, and the pool has no room.
    #[error("no bounce slot is left for {0} bytes; unmap some, or fill whole pages")]
    NoBounceSlot(usize),
    /// Addresses that cannot be chosen: taken, outside the window, not on the page's offset, or
    /// not translated at all.
    #[error(
        "{0:?} cannot be mapped there; choose free pages of the window, in a mode that translates"
    )]
    NotThere(Iova),
    /// No range of I/O virtual addresses is free.
    #[error("no {0} consecutive pages of I/O virtual addresses are free; unmap some first")]
    NoIova(u64),
    /// The requester has no such mapping, or no longer.
    #[error("{by} has no mapping {id}")]
    NoSuchMapping {
        /// Who asked.
        by: RequesterId,
        /// The name asked for.
        id: u64,
    },
    /// The function can neither send messages nor raise a pin.
    #[error("{0} has no interrupts; poll it")]
    NoInterrupts(RequesterId),
}

/// What a machine counted since it was switched on, or made to [forget](Machine::forget). Costs that
/// are true on any host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Register reads.
    pub mmio_reads: u64,
    /// Register writes.
    pub mmio_writes: u64,
    /// Configuration reads and writes.
    pub config_accesses: u64,
    /// DMA mappings made.
    pub maps: u64,
    /// DMA mappings taken back.
    pub unmaps: u64,
    /// IOTLB invalidations.
    pub invalidations: u64,
    /// Messages that raised a vector, and interrupts that a pin caused.
    pub interrupts: u64,
    /// Of these, messages that raised a vector of somebody else.
    pub forged_interrupts: u64,
    /// Messages that named a vector nobody was given.
    pub spurious_interrupts: u64,
    /// Messages that interrupt remapping refused.
    pub refused_interrupts: u64,
    /// Memory requests of devices; messages are none.
    pub dma_requests: u64,
    /// Stray requests that moved at least one byte.
    pub stray_landed: u64,
    /// Stray requests that moved none.
    pub stray_blocked: u64,
    /// Requests that passed only because of a stale IOTLB entry.
    pub stale_landed: u64,
    /// Uses after unmap that moved at least one byte.
    pub after_unmap_landed: u64,
    /// How long after the unmapping the last of these came.
    pub last_after_unmap: Option<Duration>,
    /// Bytes other than zero that stray reads brought to a device.
    pub leaked_bytes: u64,
    /// Bytes copied to and from bounce slots.
    pub bounced_bytes: u64,
    /// Device resets.
    pub resets: u64,
    /// Function-level resets that were not done when software looked for the function.
    pub disobeyed_resets: u64,
    /// Functions that lost their state by the reset of another.
    pub neighbours_reset: u64,
    /// Requests from device to device.
    pub peer_to_peer: u64,
}

/// What the machine counts on the CPU's side.
#[derive(Clone, Copy, Debug, Default)]
struct Accesses {
    reads: u64,
    writes: u64,
    config: u64,
    maps: u64,
    unmaps: u64,
    resets: u64,
}

/// A computer with devices plugged in.
///
/// Accesses name a device by the requester ID that [`Machine::plug`] returned; one that nobody has
/// is answered by nobody: reads are all ones, the rest does nothing. Time stands still but for
/// [`Machine::advance`].
pub struct Machine {
    complex: RootComplex,
    bars: BarSpace,
    devices: usize,
    config: Config,
    accesses: Accesses,
    bounce: Bounce,
    /// Names of mappings are never used twice.
    next_mapping: u64,
}

/// What is to be mapped, and where.
struct Wanted {
    at: PhysAddr,
    len: usize,
    way: Direction,
    /// Its pages hold nothing else, so nothing has to be kept from the device.
    coherent: bool,
    /// The address its owner chose.
    iova: Option<Iova>,
}

impl Machine {
    /// A machine without devices. The memory keeps what it holds.
    pub fn new(config: Config, memory: Memory) -> Self {
        Self {
            complex: RootComplex::new(&config, memory),
            bars: BarSpace::default(),
            devices: 0,
            config,
            accesses: Accesses::default(),
            bounce: Bounce::default(),
            next_mapping: 1,
        }
    }

    /// Plugs a device into a root port of its own, on bus 1, 2, ... Firmware has then assigned its
    /// BARs and enabled memory decoding; bus mastering and interrupts are off.
    ///
    /// # Panics
    ///
    /// If all 64 root ports are taken, or the device's BARs find no room in the address space.
    pub fn plug(&mut self, device: Box<dyn Device>) -> RequesterId {
        self.plug_at(device, Place::RootPort)
    }

    /// The same, at a place of the caller's choice.
    ///
    /// # Panics
    ///
    /// As [`Machine::plug`].
    pub fn plug_at(&mut self, device: Box<dyn Device>, place: Place) -> RequesterId {
        assert!(self.devices < PORTS, "all {PORTS} ports are taken");
        let id = requester(self.devices);
        self.complex.attach(id);
        let function = PciFunction::new(device, id);
        let port = Port::plug(function, &mut self.bars, &mut self.complex);
        self.complex.insert(place, Box::new(port));
        self.devices += 1;
        id
    }

    /// Where firmware would put BAR 0 of a second device, were these two plugged in now.
    pub fn bar_address_after(&self, first: &PciIdentity, second: &PciIdentity) -> Option<Iova> {
        let mut bars = self.bars.clone();
        for bar in first.bars {
            bars.take(bar.size, bar.wide)?;
        }
        let mut given = second.bars.iter().map(|bar| {
            let address = bars.take(bar.size, bar.wide)?;
            Some((bar.bar, Iova(address)))
        });
        given.find_map(|given| match given {
            Some((Bar::ZERO, address)) => Some(address),
            _ => None,
        })
    }

    /// The parameters.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// The memory.
    pub const fn memory(&self) -> &Memory {
        &self.complex.memory
    }

    /// What the device says it is.
    pub fn identity(&self, id: RequesterId) -> Option<&PciIdentity> {
        Some(self.complex.port(slot(id))?.function.identity())
    }

    /// Device time.
    #[inline]
    pub const fn now(&self) -> Time {
        self.complex.clock.now()
    }

    /// When something happens that no access causes: a device asked to be stepped, or the IOMMU's
    /// flush timer runs out.
    #[inline]
    pub fn next_event(&self) -> Option<Time> {
        let next = self.complex.next_event();
        (next != Time::NEVER).then_some(next)
    }

    /// Lets time pass: everything due by `to` happens in the order of its time (at one instant
    /// flushes first, then devices by requester ID), and then it is `to`, or now if that is later.
    ///
    /// A device gets at most 16 steps in a microsecond, so the work is bounded by the time that
    /// passes: advance to a horizon, not to the end of time.
    #[inline]
    pub fn advance(&mut self, to: Time) {
        if to < self.complex.next_event() {
            self.complex.clock.move_to(to);
        } else {
            self.run_until(to);
        }
    }

    fn run_until(&mut self, to: Time) {
        let to = to.max(self.now());
        while let Some(event) = self.complex.next_due(to) {
            match event {
                Event::Flush(slot) => self.complex.iommu.flush(slot),
                Event::Interrupt(slot) => self.complex.serve_interrupts(slot),
                Event::Step(slot) => self.step(slot),
            }
        }
        self.complex.clock.move_to(to);
        self.complex.settle();
    }

    fn step(&mut self, slot: usize) {
        if !self.complex.clock.take_due(slot) {
            return;
        }
        let now = self.now();
        if !self.complex.fabric.quiet {
            // A function without a link is in reset; one without the bus cannot do its work.
            if !self.complex.fabric.is_joined(slot, now) {
                return;
            }
            if let Some(until) = self.complex.fabric.keeps_out(slot, None, now) {
                self.complex.clock.wake_at(slot, until);
                return;
            }
        }
        let progress = self
            .complex
            .lend(slot, |port, bus| port.function.step(STEP, bus));
        if progress == Some(Progress::More) {
            self.complex.clock.wake_at(slot, Time::ZERO);
        }
    }

    /// A non-posted read of a register, begun now.
    #[inline]
    pub fn mmio_read(&mut self, id: RequesterId, bar: Bar, offset: u32, width: Width) -> Read {
        self.accesses.reads += 1;
        let Some(at) = Access::new(bar, offset, width, WHOLE_SPACE) else {
            return Read::Done(width.all_ones());
        };
        if !self.complex.fabric.quiet {
            return self.hindered_read(id, at);
        }
        // Data first: this is the hot path of every run. The completion is taken apart where it is made: to
        // copy it right after it was written in parts stalls the processor for longer than all the rest.
        let answer = self
            .complex
            .lend(slot(id), |port, bus| match port.function.read(at, bus) {
                Completion::Data(value) => Ok(value),
                other => Err(other),
            });
        match answer {
            Some(Ok(value)) => Read::Done(value & width.all_ones()),
            Some(Err(other)) => self.ended(id, Some(other), width),
            None => self.ended(id, None, width),
        }
    }

    fn ended(&mut self, id: RequesterId, answer: Option<Completion>, width: Width) -> Read {
        let now = self.now();
        let answer = answer.unwrap_or(Completion::Unsupported);
        let fabric = &mut self.complex.fabric;
        fabric.ended(id, slot(id), answer, width, now)
    }

    /// A read while something is not as it should be.
    #[cold]
    fn hindered_read(&mut self, id: RequesterId, at: Access) -> Read {
        let (slot, width, now) = (slot(id), at.width(), self.now());
        match self.complex.fabric.passage(slot, Kind::NonPosted, now) {
            Passage::Nobody => return Read::Done(width.all_ones()),
            Passage::Waits(until) => {
                return Read::Waiting {
                    until: (until != Time::NEVER).then_some(until),
                    then: Ending::Again,
                };
            }
            Passage::Open => {}
        }
        // Where two functions drive the bus at once, a zero wins over a one.
        let mut value = width.all_ones();
        for target in self.claimants(slot, at) {
            let answer = self.complex.lend(target.slot, |port, bus| {
                let at = Access::new(target.bar, target.offset, width, WHOLE_SPACE)?;
                Some(port.function.read(at, bus))
            });
            match self.ended(requester(target.slot), answer.flatten(), width) {
                Read::Done(data) => value &= data,
                waiting @ Read::Waiting { .. } => return waiting,
            }
        }
        Read::Done(value)
    }

    /// The functions that take an access for theirs.
    fn claimants(&self, slot: usize, at: Access) -> Vec<Target> {
        let topology = &self.complex.fabric.topology;
        let Some(address) = topology.address(slot, at.bar(), at.offset()) else {
            return Vec::new();
        };
        // A link carries what is routed there, a bus carries everything to everybody.
        topology
            .slots()
            .filter(|&other| topology.share_bus(slot, other))
            .filter_map(|other| topology.claim(other, address))
            .collect()
    }

    /// A posted write to a register.
    #[inline]
    pub fn mmio_write(
        &mut self,
        id: RequesterId,
        bar: Bar,
        offset: u32,
        width: Width,
        value: u64,
    ) -> Write {
        self.accesses.writes += 1;
        let Some(at) = Access::new(bar, offset, width, WHOLE_SPACE) else {
            return Write::Done;
        };
        let value = value & width.all_ones();
        if !self.complex.fabric.quiet {
            return self.hindered_write(id, at, value);
        }
        self.complex
            .lend(slot(id), |port, bus| port.function.write(at, value, bus));
        Write::Done
    }

    /// A write while something is not as it should be.
    #[cold]
    fn hindered_write(&mut self, id: RequesterId, at: Access, value: u64) -> Write {
        let (slot, now) = (slot(id), self.now());
        match self.complex.fabric.passage(slot, Kind::Posted, now) {
            Passage::Nobody => return Write::Done,
            Passage::Waits(until) => {
                return Write::Waiting {
                    until: (until != Time::NEVER).then_some(until),
                };
            }
            Passage::Open => {}
        }
        for target in self.claimants(slot, at) {
            self.complex.lend(target.slot, |port, bus| {
                let at = Access::new(target.bar, target.offset, at.width(), WHOLE_SPACE);
                if let Some(at) = at {
                    port.function.write(at, value, bus);
                }
            });
        }
        Write::Done
    }

    /// Whether a configuration request to the device would have to wait now, and until when; it is
    /// made again then. As [`Write::Waiting`].
    pub fn config_waits(&mut self, id: RequesterId) -> Option<Option<Time>> {
        if self.complex.fabric.quiet {
            return None;
        }
        let now = self.now();
        let fabric = &mut self.complex.fabric;
        match fabric.passage(slot(id), Kind::NonPosted, now) {
            Passage::Waits(until) => Some((until != Time::NEVER).then_some(until)),
            Passage::Nobody | Passage::Open => None,
        }
    }

    /// Reads configuration space.
    pub fn config_read(&mut self, id: RequesterId, offset: u16, width: Width) -> u32 {
        self.accesses.config += 1;
        let nobody = u32::MAX >> (32 - 8 * width.bytes().min(4));
        let now = self.now();
        if !self.complex.fabric.is_joined(slot(id), now) {
            return nobody;
        }
        self.complex
            .lend(slot(id), |port, _| {
                port.function.answer_config(offset, width, now)
            })
            .unwrap_or(nobody)
    }

    /// Writes configuration space. A write that starts a function-level reset does what
    /// [`Machine::reset`] does: the privileged layer sees it and restores what the driver may not
    /// set. BARs answer where firmware put them, whatever is written to them.
    pub fn config_write(&mut self, id: RequesterId, offset: u16, width: Width, value: u32) {
        self.accesses.config += 1;
        if !self.complex.fabric.is_joined(slot(id), self.now()) {
            return;
        }
        let starts = self.complex.lend(slot(id), |port, bus| {
            let starts = port.starts_reset(offset, width, value);
            if !starts {
                port.function.config_write(offset, width, value, bus);
            }
            starts
        });
        if starts == Some(true) {
            self.reset(id);
        }
    }

    /// Bytes in a BAR, if the device has it.
    pub fn bar_size(&self, id: RequesterId, bar: Bar) -> Option<u64> {
        self.complex.port(slot(id))?.function.bar_size(bar)
    }

    /// The address of a BAR, as firmware gave it: where other devices reach it too.
    pub fn bar_address(&self, id: RequesterId, bar: Bar) -> Option<Iova> {
        self.complex
            .fabric
            .topology
            .address(slot(id), bar, 0)
            .map(Iova)
    }

    /// Programs up to `wanted` vectors (at least one) of the best kind the function has: MSI-X,
    /// MSI, INTx. Whatever was enabled before is switched off, and what was raised is forgotten.
    pub fn enable_interrupts(
        &mut self,
        id: RequesterId,
        wanted: u16,
    ) -> Result<Interrupts, MachineError> {
        let slot = self.slot_of(id)?;
        self.disable_messages(slot);
        let nobody = MachineError::NoSuchDevice(id);
        let identity = self.identity(id).ok_or(nobody)?;
        let pin = identity.intx;
        let msix = identity.capabilities.iter().find_map(|c| match *c {
            Capability::Msix { vectors, table, .. } => Some((vectors, table)),
            _ => None,
        });
        let msi = identity.capabilities.iter().find_map(|c| match *c {
            Capability::Msi { log2_vectors } => Some(log2_vectors),
            _ => None,
        });
        let (msix, msi) = if self.config.messages {
            (msix, msi)
        } else {
            (None, None)
        };
        let wanted = wanted.clamp(1, 64);
        let given = if let Some((vectors, table)) = msix {
            let count = wanted.min(vectors);
            self.program_msix(slot, table, vectors, count);
            Interrupts {
                kind: InterruptKind::Msix,
                count,
            }
        } else if let Some(log2_vectors) = msi {
            let log2 = u32::from(log2_vectors.min(5)).min(wanted.ilog2());
            self.program_msi(slot, log2);
            Interrupts {
                kind: InterruptKind::Msi,
                count: 1 << log2,
            }
        } else if pin {
            self.complex.interrupts.enable(slot, InterruptKind::Intx, 1);
            self.set_command(slot, 0, spec::command::INTX_DISABLE);
            Interrupts {
                kind: InterruptKind::Intx,
                count: 1,
            }
        } else {
            return Err(MachineError::NoInterrupts(id));
        };
        Ok(given)
    }

    /// Vectors raised since they were last taken, of those in `of`; they are acknowledged by this.
    pub fn take_interrupts(&mut self, id: RequesterId, of: VectorSet) -> VectorSet {
        match self.slot_of(id) {
            Ok(slot) => self.complex.take_interrupts(slot, of),
            Err(_) => VectorSet::EMPTY,
        }
    }

    /// The driver has nothing more to ask of its device and waits for something else: until it is
    /// [roused](Machine::rouse_driver), its handler denies the pin's interrupts.
    pub fn rest_driver(&mut self, id: RequesterId) {
        if let Ok(slot) = self.slot_of(id) {
            self.complex.rest_driver(slot);
        }
    }

    /// The driver takes up work, as it does from the start.
    pub fn rouse_driver(&mut self, id: RequesterId) {
        if let Ok(slot) = self.slot_of(id) {
            self.complex.interrupts.rouse(slot);
        }
    }

    /// What the device's interrupts cost the CPU that takes them.
    pub fn interrupt_cost(&self, id: RequesterId) -> InterruptCost {
        let cost = |slot| self.complex.interrupts.cost(slot);
        self.slot_of(id).map_or_else(|_| Default::default(), cost)
    }

    /// Until when the CPU that takes the device's interrupts is in a handler, if it is in one.
    pub fn interrupted_until(&self, id: RequesterId) -> Option<Time> {
        self.complex.interrupts.busy_until(self.slot_of(id).ok()?)
    }

    /// The message that raises a vector of a function: where to write it, and what. What the
    /// privileged layer programs, and what a forger would write.
    pub fn message(&self, id: RequesterId, vector: Vector) -> (Iova, u32) {
        let data = u32::from(Controller::data(slot(id))) + u32::from(vector.0);
        (Iova(MESSAGES.start), data)
    }

    /// Vectors raised and not yet taken.
    pub fn pending_interrupts(&self, id: RequesterId) -> VectorSet {
        let pending = |slot| self.complex.interrupts.pending(slot);
        self.slot_of(id).map_or(VectorSet::EMPTY, pending)
    }

    /// Lets the device reach `len` bytes from `at`. Its address is `at` itself where nothing
    /// translates, else a fresh one that is no physical address of memory; whatever shares a page
    /// with the bytes is reachable too, but not sanctioned. Where such pages are bounced the device
    /// gets a copy, and what it wrote arrives when the mapping ends.
    pub fn map(
        &mut self,
        id: RequesterId,
        at: PhysAddr,
        len: usize,
        way: Direction,
    ) -> Result<Mapping, MachineError> {
        let wanted = Wanted {
            at,
            len,
            way,
            coherent: false,
            iova: None,
        };
        self.enter(id, &wanted)
    }

    /// The same for bytes whose pages hold nothing else, which driver and device may use at the same
    /// time: a ring that is polled. It is never bounced (`dma_alloc_coherent` of Linux).
    pub fn map_coherent(
        &mut self,
        id: RequesterId,
        at: PhysAddr,
        len: usize,
        way: Direction,
    ) -> Result<Mapping, MachineError> {
        let wanted = Wanted {
            at,
            len,
            way,
            coherent: true,
            iova: None,
        };
        self.enter(id, &wanted)
    }

    /// The same as [`Machine::map`] at an address of the caller's choice, as VFIO and iommufd let a
    /// driver in user space choose.
    pub fn map_at(
        &mut self,
        id: RequesterId,
        iova: Iova,
        at: PhysAddr,
        len: usize,
        way: Direction,
    ) -> Result<Mapping, MachineError> {
        let wanted = Wanted {
            at,
            len,
            way,
            coherent: false,
            iova: Some(iova),
        };
        self.enter(id, &wanted)
    }

    fn enter(&mut self, id: RequesterId, wanted: &Wanted) -> Result<Mapping, MachineError> {
        let &Wanted { at, len, way, .. } = wanted;
        let slot = self.slot_of(id)?;
        if len == 0 {
            return Err(MachineError::Empty);
        }
        let end = at.0.checked_add(len as u64).filter(|&end| end <= MEMORY);
        let bytes = at.0..end.ok_or(MachineError::OutsideMemory { at, len })?;
        if self.complex.ledger.live_count(slot) >= LIVE_LIMIT {
            return Err(MachineError::TooManyMappings(id));
        }
        let name = self.next_mapping;
        let translates = self.config.iommu.translates();
        let start = if translates {
            self.translated(slot, name, bytes, wanted)?
        } else if let Some(iova) = wanted.iova {
            return Err(MachineError::NotThere(iova));
        } else if self.config.high_memory {
            into_high_bank(at.0)
        } else {
            at.0
        };
        self.next_mapping += 1;
        self.accesses.maps += 1;
        let live = Live {
            id: name,
            bytes: start..start + len as u64,
            way,
        };
        self.complex.ledger.map(slot, live, translates);
        Ok(Mapping {
            iova: Iova(start),
            len,
            id: name,
        })
    }

    /// Maps `bytes`, or a slot that they are copied to; the address of the first.
    fn translated(
        &mut self,
        slot: usize,
        name: u64,
        bytes: Range<u64>,
        wanted: &Wanted,
    ) -> Result<u64, MachineError> {
        let bounced = self.config.iommu == IommuMode::Bounce
            && !wanted.coherent
            && Bounce::is_partial(&bytes);
        let within = bytes.start % FRAME;
        let pages = pages_of(&bytes);
        let count = pages.end - pages.start;
        let RootComplex { memory, iommu, .. } = &mut self.complex;
        let frame = if bounced {
            self.bounce
                .lend(memory, name, bytes, wanted.way)
                .ok_or(MachineError::NoBounceSlot(wanted.len))?
        } else {
            pages.start
        };
        let page = match wanted.iova {
            None => iommu
                .map(slot, frame, count, wanted.way)
                .map_err(|NoIova| MachineError::NoIova(count)),
            Some(iova) => {
                let first = iova.0 / FRAME;
                let chosen = first..first.saturating_add(count);
                let placed = if iova.0 % FRAME == within {
                    iommu.map_at(slot, chosen, frame, wanted.way)
                } else {
                    Err(NoIova)
                };
                placed
                    .map(|()| first)
                    .map_err(|NoIova| MachineError::NotThere(iova))
            }
        };
        if page.is_err() {
            self.bounce.drop_slot(name);
        }
        Ok(page? * FRAME + within)
    }

    /// Takes a mapping back. What the device can still do is up to the IOMMU mode.
    pub fn unmap(&mut self, id: RequesterId, mapping_id: u64) -> Result<(), MachineError> {
        let slot = self.slot_of(id)?;
        let now = self.now();
        let bytes = self.complex.ledger.unmap(slot, mapping_id, now);
        let bytes = bytes.ok_or(MachineError::NoSuchMapping {
            by: id,
            id: mapping_id,
        })?;
        self.accesses.unmaps += 1;
        if self.config.iommu.translates() {
            self.complex.iommu.unmap(slot, pages_of(&bytes), now);
            self.complex.settle();
            // Only now, so that the device no longer changes what is copied.
            self.bounce.give_back(&self.complex.memory, mapping_id);
        }
        Ok(())
    }

    /// Takes every mapping of the device back, because its driver is gone. Its frames are about to
    /// be given to others, so even a lazy IOMMU invalidates before this returns.
    pub fn unmap_all(&mut self, id: RequesterId) {
        let Ok(slot) = self.slot_of(id) else {
            return;
        };
        let now = self.now();
        for live in self.complex.ledger.unmap_all(slot, now) {
            self.accesses.unmaps += 1;
            if self.config.iommu.translates() {
                let pages = pages_of(&live.bytes);
                self.complex.iommu.unmap(slot, pages, now);
                self.bounce.drop_slot(live.id);
            }
        }
        self.complex.iommu.flush(slot);
        self.complex.settle();
    }

    /// Begins to reset the device: function-level reset if it has one that can be told, else a reset of
    /// its secondary bus, which takes along whoever is on it. An obedient function is reset when this
    /// returns: BARs are restored, memory decoding is on, bus mastering and interrupts are off. But
    /// software does not know that before [`Machine::reset_progress`] says so.
    ///
    /// Mappings stay, and so do the wake-ups the device asked for: whether it really stopped is
    /// not for the privileged layer to believe.
    pub fn reset(&mut self, id: RequesterId) {
        let slot = slot(id);
        let Some(port) = self.complex.port(slot) else {
            return;
        };
        let has_flr = port.has_flr();
        let now = self.now();
        self.accesses.resets += 1;
        if !has_flr || !self.complex.fabric.is_reachable(slot, now) {
            self.reset_bus(slot);
        } else if self.complex.resets.begin_function(slot, now) {
            self.complex
                .lend(slot, |port, bus| port.reset_function(bus));
            self.complex.interrupts.disable(slot);
            self.complex.fabric.rejoin(slot, now);
        }
    }

    /// How far the reset of the device is. Whoever waits for it asks again at the time it says.
    pub fn reset_progress(&mut self, id: RequesterId) -> ResetProgress {
        let Ok(slot) = self.slot_of(id) else {
            return ResetProgress::Failed;
        };
        let now = self.now();
        match self.complex.resets.look(slot, now) {
            Some(Finding::Ready) => self.complex.fabric.rejoin(slot, now),
            Some(Finding::Untouched | Finding::NotReady) => self.reset_bus(slot),
            Some(Finding::Gone) | None => {}
        }
        self.complex.resets.progress(slot)
    }

    /// When the reset of the device is to be looked at next, if one is under way.
    pub fn reset_until(&self, id: RequesterId) -> Option<Time> {
        self.complex.resets.looks_at(slot(id))
    }

    /// Resets the secondary bus of a function.
    fn reset_bus(&mut self, slot: usize) {
        let now = self.now();
        let complex = &mut self.complex;
        let up = complex.fabric.up_again(slot);
        for other in complex.fabric.reset_with(slot) {
            complex.fabric.reset_bus(other, now);
            complex.lend(other, |port, bus| port.reset_bus(bus));
            complex.interrupts.disable(other);
            complex.resets.neighbours += u64::from(other != slot);
        }
        complex.resets.begin_bus(slot, up, now);
    }

    /// Errors that ports reported up to now, oldest first: those their log had room for, and how many
    /// it had not.
    pub fn port_errors(&self) -> (&[ErrorRecord], u64) {
        self.complex.fabric.errors.by(self.now())
    }

    /// DMA requests since the log was last drained, oldest first, and how many came when it was
    /// full. It holds 4096.
    pub fn dma_events(&self) -> (&[DmaEvent], u64) {
        (&self.complex.log.events, self.complex.log.dropped)
    }

    /// Takes the DMA requests out of the log, which has room again.
    pub fn drain_events(&mut self) -> Vec<DmaEvent> {
        std::mem::take(&mut self.complex.log.events)
    }

    /// From now on keeps what devices do, for [`Machine::take_recorded`].
    pub fn record(&mut self) {
        self.complex.recording.get_or_insert_default();
    }

    /// What devices did since the last look, oldest first, and how much of it there was no room for.
    /// Nothing unless [`Machine::record`] was called.
    pub fn take_recorded(&mut self) -> (Vec<BusEvent>, u64) {
        let taken = self.complex.recording.as_mut().map(std::mem::take);
        let Recording { events, dropped } = taken.unwrap_or_default();
        (events, dropped)
    }

    /// The first 64 stray DMA requests of all, and how many came after them.
    pub fn stray_events(&self) -> (&[DmaEvent], u64) {
        (&self.complex.strays.events, self.complex.strays.dropped)
    }

    /// What the IOMMU refused: the records its log had room for, and how many it had not.
    pub fn iommu_faults(&self) -> (&[FaultRecord], u64) {
        self.complex.iommu.faults()
    }

    /// What was counted so far. Counters never drop anything.
    pub fn counts(&self) -> Counts {
        let Accesses {
            reads,
            writes,
            config,
            maps,
            unmaps,
            resets,
        } = self.accesses;
        let tally = &self.complex.tally;
        Counts {
            mmio_reads: reads,
            mmio_writes: writes,
            config_accesses: config,
            maps,
            unmaps,
            invalidations: self.complex.iommu.invalidations(),
            interrupts: tally.interrupts,
            forged_interrupts: tally.forged,
            spurious_interrupts: tally.spurious,
            refused_interrupts: tally.refused,
            dma_requests: tally.requests,
            stray_landed: tally.stray_landed,
            stray_blocked: tally.stray_blocked,
            stale_landed: tally.stale_landed,
            after_unmap_landed: tally.after_unmap_landed,
            last_after_unmap: tally.last_after_unmap,
            leaked_bytes: tally.leaked,
            bounced_bytes: self.bounce.copied,
            resets,
            disobeyed_resets: self.complex.resets.disobeyed,
            neighbours_reset: self.complex.resets.neighbours,
            peer_to_peer: tally.peer_to_peer,
        }
    }

    /// Empties every log and counts from zero, as if the machine had just been switched on. Nothing
    /// else changes: mappings, devices and time go on.
    pub fn forget(&mut self) {
        self.accesses = Accesses::default();
        self.bounce.copied = 0;
        self.complex.forget();
    }

    /// How many mappings a function holds.
    pub fn mappings(&self, id: RequesterId) -> usize {
        let live = |slot| self.complex.ledger.live_count(slot);
        self.slot_of(id).map_or(0, live)
    }

    fn slot_of(&self, id: RequesterId) -> Result<usize, MachineError> {
        Some(slot(id))
            .filter(|&slot| slot < self.devices)
            .ok_or(MachineError::NoSuchDevice(id))
    }

    /// Changes bits of the command register.
    fn set_command(&mut self, slot: usize, on: u16, off: u16) {
        self.complex.lend(slot, |port, bus| {
            let function = &mut port.function;
            let command = function.config_read(spec::COMMAND, Width::Two);
            let command = (command | u32::from(on)) & !u32::from(off);
            function.config_write(spec::COMMAND, Width::Two, command, bus);
        });
    }

    /// Switches every kind of interrupt off.
    fn disable_messages(&mut self, slot: usize) {
        self.complex.interrupts.disable(slot);
        self.complex.lend(slot, |port, bus| {
            let function = &mut port.function;
            for id in [spec::capability::MSI, spec::capability::MSIX] {
                if let Some(at) = find_capability(function, id) {
                    // Message control is the word after the header in both.
                    function.config_write(at + spec::msi::CONTROL, Width::Two, 0, bus);
                }
            }
        });
        self.set_command(slot, spec::command::INTX_DISABLE, 0);
    }

    /// Writes the MSI-X table, the first `count` entries unmasked.
    fn program_msix(&mut self, slot: usize, table: MsixLocation, vectors: u16, count: u16) {
        // The table is behind a BAR.
        self.set_command(slot, spec::command::MEMORY, 0);
        self.complex
            .interrupts
            .enable(slot, InterruptKind::Msix, count);
        self.complex.lend(slot, |port, bus| {
            let function = &mut port.function;
            let size = function.bar_size(table.bar).unwrap_or(0);
            let Some(at) = find_capability(function, spec::capability::MSIX) else {
                return;
            };
            let control = at + spec::msix::CONTROL;
            let masked = spec::msix::ENABLE | spec::msix::FUNCTION_MASK;
            function.config_write(control, Width::Two, masked.into(), bus);
            for vector in 0..vectors {
                let data = u64::from(Controller::data(slot) + vector % 64);
                let mask = u64::from(vector >= count) * u64::from(spec::msix::MASKED);
                let entry = [MESSAGES.start, 0, data, mask];
                let first = table.offset + u32::from(vector) * spec::msix::ENTRY;
                for (at, value) in (first..).step_by(4).zip(entry) {
                    if let Some(at) = Access::new(table.bar, at, Width::Four, size) {
                        function.write(at, value, bus);
                    }
                }
            }
            let enabled = spec::msix::ENABLE.into();
            function.config_write(control, Width::Two, enabled, bus);
        });
    }

    /// Writes the MSI capability for 2^`log2` vectors.
    fn program_msi(&mut self, slot: usize, log2: u32) {
        self.complex
            .interrupts
            .enable(slot, InterruptKind::Msi, 1 << log2);
        self.complex.lend(slot, |port, bus| {
            let function = &mut port.function;
            let Some(at) = find_capability(function, spec::capability::MSI) else {
                return;
            };
            let control = u32::from(spec::msi::ENABLE) | (log2 << spec::msi::ENABLED_SHIFT);
            let address = u32::try_from(MESSAGES.start).unwrap_or(0);
            for (register, width, value) in [
                (spec::msi::ADDRESS, Width::Four, address),
                (spec::msi::ADDRESS_HIGH, Width::Four, 0),
                (spec::msi::DATA, Width::Two, Controller::data(slot).into()),
                (spec::msi::CONTROL, Width::Two, control),
            ] {
                function.config_write(at + register, width, value, bus);
            }
        });
    }
}

#[cfg(test)]
mod tests;
