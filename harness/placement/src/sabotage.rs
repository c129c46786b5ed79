//! The layer that makes a correct driver's world buggy: faults the driver's side commits.
//!
//! It wraps the host, so no driver has a line of it. What concerns mappings (D1 to D7) is done where
//! the driver maps; what concerns the driver's own execution (D12, M1, X1, X2) or
//! with its device's registers (C2, C4, I5) where it takes up a request.

mod registers;

use crate::call::Call;
use crate::host::ChoosesAddresses;
use crate::link::Link;
use crate::storm::{Price, Storm, increments};
use crate::trial::{By, DriverId, Fault, Target, TrialSpec};
use cofferdam_machine::frames::{FRAME, MEMORY, Use, run_of};
use cofferdam_seam::{
    Bar, Deadline, Direction, DriverHost, HostError, Interrupts, Iova, Mapping, Mmio, RawDma, Time,
    Vector, VectorSet, Wake, Width,
};
use cofferdam_tenant::Mix;
use std::cell::Cell;
use std::convert::Infallible;
use std::ops::Range;
use std::ptr::NonNull;
use std::rc::Rc;
use std::time::Duration;

/// The physical address a wild access of this trial aims at: in the target owner's pattern frames,
/// a multiple of 64, so that `len` bytes stay inside them; beyond memory for `Unbacked`. `None` for
/// `Neighbour`, which is relative to a mapping.
pub fn aim(target: Target, len: u64, seed: u64) -> Option<u64> {
    let mut mix = Mix::new(seed ^ 0xa1_4e);
    if target == Target::Unbacked {
        return Some(MEMORY + 0x1000_0000 + mix.below(1024) * FRAME);
    }
    let bytes = run_of(target.owner()?, Use::Pattern)?.bytes();
    let room = (bytes.end - bytes.start).saturating_sub(len) / 64;
    Some(bytes.start + mix.below(room) * 64)
}

/// What a double word of the MSI-X table says after its corruption: the address of a tenant's frame,
/// an address beyond memory, the data of a vector that nobody has, a mask.
pub fn corrupt_entry(field: u8, seed: u64) -> u32 {
    match field {
        0 => aim(Target::Tenant1, 64, seed)
            .and_then(|phys| u32::try_from(phys).ok())
            .unwrap_or(0),
        1 => 1,
        2 => 0xffff,
        _ => 1,
    }
}

/// The tenant on another CPU than the driver's, and by the wall clock on another core where one looks
/// at what it notices.
pub const BYSTANDER: u8 = 2;

/// What the driver does about the request it is about to take up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Onward {
    /// It serves it.
    Serve,
    /// It gives its device up, resets it and starts over.
    GiveUp,
    /// Its CPU goes wrong; if it lives, it serves the request.
    Errs(Deed),
}

/// What a driver's own CPU does wrong, wherever that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// It stores there.
    Store {
        /// The machine's physical address.
        phys: u64,
        /// What it stores.
        bytes: Vec<u8>,
    },
    /// It crashes.
    Crash(String),
    /// It spins for ever.
    Spin,
    /// It makes locked increments.
    Storm(Storm),
}

/// Tells what split locks cost their processor, and whether that shows a locked bus.
pub fn paid(link: &Link, price: Option<Price>) {
    let Some(price) = price else {
        return;
    };
    link.page().store_price(price);
    if price.proves {
        link.call(Call::Mark);
    }
}

impl Deed {
    fn crash(nth: u32, fault: &str) -> Self {
        Self::Crash(format!(
            "planned crash of the driver before request {nth} ({fault})"
        ))
    }

    /// Does it in this process. If this domain does not map the frame, a store faults and the domain
    /// dies: that is the wall.
    pub fn commit(&self, link: &Link) {
        match self {
            Self::Store { phys, bytes } => {
                let first = link.window().pointer(*phys);
                for (at, byte) in bytes.iter().enumerate() {
                    // SAFETY: inside the window's reservation: either this domain maps the frame, and
                    // no Rust object lives there, or the store faults as meant.
                    unsafe { first.add(at).write_volatile(*byte) };
                }
            }
            Self::Crash(text) => panic!("{text}"),
            Self::Spin => loop {
                std::hint::spin_loop();
            },
            Self::Storm(storm) => {
                let raged = storm.rage(|aligned, count| {
                    increments(aligned, count);
                    Ok::<_, Infallible>(())
                });
                let Ok(price) = raged;
                paid(link, price);
            }
        }
    }
}

/// What the driver's side does wrong in this trial, shared by the host wrapper and the server.
pub struct Sabotage {
    fault: Fault,
    seed: u64,
    link: Rc<Link>,
    /// How often the driver was started again after a death, of its own or of its domain.
    generation: Cell<u32>,
    /// Only the first incarnation is faulty: a fault strikes once.
    armed: Cell<bool>,
    /// Requests still to come before the trial begins.
    before: Cell<u32>,
    /// The driver has started: mappings and requests are those of the running workload.
    serving: Cell<bool>,
    requests: Cell<u32>,
    mappings: Cell<u32>,
    answers: Cell<u32>,
    rings: Doorbells,
    /// The doorbell of requests as it was rung last.
    doorbell: Cell<Option<(u32, Width, u64)>>,
    /// The start of the first region the device may read: where a virtqueue's descriptors are.
    table: Cell<Option<NonNull<u8>>>,
    /// Descriptors to close to a circle before the next doorbell.
    circle: Cell<u16>,
}

/// What a driver's doorbells for requests are like.
#[derive(Clone, Copy)]
struct Doorbells {
    /// The first of them.
    from: u32,
    /// Bytes from one to the next.
    every: u32,
    /// What one request more adds to the value: 0 where the value only names a queue.
    step: u64,
}

impl Doorbells {
    const fn of(driver: DriverId) -> Self {
        match driver {
            // The values name the command, or the queue (virtio 1.2, 4.1.5.2).
            DriverId::Edu | DriverId::VirtioBlk | DriverId::Own(_) => Self {
                from: 0,
                every: 1,
                step: 0,
            },
            // Submission queue tails, each before its completion queue's head (NVM Express 1.4, 3.1).
            DriverId::Nvme | DriverId::NvmeCrate => Self {
                from: 0x1000,
                every: 8,
                step: 1,
            },
        }
    }

    const fn has(self, offset: u32) -> bool {
        offset >= self.from && (offset - self.from).is_multiple_of(self.every)
    }
}

impl Sabotage {
    /// The sabotage of a trial with so many tenants; none unless the driver's side commits its fault.
    pub fn new(spec: &TrialSpec, link: Rc<Link>, generation: u32, tenants: u32) -> Rc<Self> {
        let warming = spec.warm && generation == 0;
        Rc::new(Self {
            // One of each tenant.
            before: Cell::new(if warming { tenants } else { 0 }),
            fault: spec.fault,
            seed: spec.seed,
            link,
            generation: Cell::new(generation),
            armed: Cell::new(generation == 0),
            serving: Cell::new(false),
            requests: Cell::new(0),
            mappings: Cell::new(0),
            answers: Cell::new(0),
            rings: Doorbells::of(spec.driver),
            doorbell: Cell::new(None),
            table: Cell::new(None),
            circle: Cell::new(0),
        })
    }

    fn strikes(&self, count: &Cell<u32>, nth: u32) -> bool {
        if !self.armed.get() || !self.under_way() {
            return false;
        }
        count.set(count.get() + 1);
        let now = count.get() == nth;
        if now {
            self.armed.set(false);
        }
        now
    }

    /// Like [`Sabotage::strikes`], but for good from then on.
    fn has_come(&self, count: &Cell<u32>, nth: u32) -> bool {
        count.set(count.get() + u32::from(self.under_way()));
        self.armed.get() && self.under_way() && count.get() >= nth
    }

    /// Whether the driver serves requests of the trial.
    fn under_way(&self) -> bool {
        self.serving.get() && self.before.get() == 0
    }

    /// Called when a request was answered.
    pub fn answered(&self) {
        self.before.set(self.before.get().saturating_sub(1));
    }

    /// Called before the driver writes a register.
    fn before_doorbell(&self, offset: u32, width: Width, value: u64) {
        if self.rings.has(offset) {
            self.doorbell.set(Some((offset, width, value)));
        }
        let length = self.circle.replace(0);
        if let Some(table) = self.table.get().filter(|_| length > 0) {
            self.link.call(Call::Mark);
            close(table, length);
        }
    }

    /// Called before the driver takes up a request of that tenant.
    pub fn before_request(&self, tenant: u8) -> Onward {
        match self.fault {
            Fault::B8 {
                aligned,
                per_second,
                ms,
                nth,
            } if tenant == BYSTANDER && self.strikes(&self.requests, nth) => {
                return Onward::Errs(Deed::Storm(Storm {
                    aligned,
                    per_second,
                    lasts: Duration::from_millis(ms.into()),
                }));
            }
            Fault::M1 { target, len, nth } if self.strikes(&self.requests, nth) => {
                self.link.call(Call::Mark);
                if let Some(deed) = self.wild_store(target, len) {
                    return Onward::Errs(deed);
                }
            }
            Fault::C2 {
                by: By::Driver,
                nth,
                ..
            } if self.strikes(&self.requests, nth) => {
                self.link.call(Call::Mark);
                registers::bus_master_off(&self.link);
            }
            Fault::C4 {
                by: By::Driver,
                field,
                nth,
            } if self.strikes(&self.requests, nth) => {
                let value = corrupt_entry(field, self.seed);
                if registers::write_msix_table(&self.link, field, value) {
                    self.link.call(Call::Mark);
                }
            }
            Fault::X1 { nth } if self.strikes(&self.requests, nth) => {
                self.link.call(Call::Mark);
                return Onward::Errs(Deed::crash(nth, "X1"));
            }
            Fault::X5 { nth, .. } if self.strikes(&self.requests, nth) => {
                self.link.call(Call::Mark);
                return Onward::Errs(Deed::crash(nth, "X5"));
            }
            Fault::X3 { nth } if self.strikes(&self.requests, nth) => {
                self.link.call(Call::Mark);
                // Nobody will ring: the request stays taken, and its ring held.
                loop {
                    self.link.wait(VectorSet::EMPTY, 0, Deadline(Time::NEVER));
                }
            }
            Fault::X2 { raw, ms, nth } if self.strikes(&self.requests, nth) => {
                self.link.call(Call::Mark);
                if raw {
                    return Onward::Errs(Deed::Spin);
                }
                let until = self.link.deadline(Duration::from_millis(ms.into()));
                while !until.passed(self.link.now()) {
                    self.link.call(Call::Relax);
                }
            }
            Fault::D12 { death, nth, .. } if self.strikes(&self.requests, nth) => {
                if death {
                    return Onward::Errs(Deed::crash(nth, "D12"));
                }
                return Onward::GiveUp;
            }
            Fault::C5 { nth, .. } | Fault::I5 { nth, .. } if self.strikes(&self.requests, nth) => {
                return Onward::GiveUp;
            }
            _ => {}
        }
        Onward::Serve
    }

    /// Called when the driver died and the domain around it lives.
    pub fn outlived(&self) {
        self.generation.set(self.generation.get().saturating_add(1));
    }

    /// Called at each step of the driver's start: 0 before it touches the device, 1 before it
    /// serves.
    pub fn at_start(&self, now: u8) {
        self.serving.set(now > 0);
        if let Fault::X5 { step, repeats, .. } = self.fault
            && step == now
            && (1..=repeats).contains(&self.generation.get())
        {
            self.link.call(Call::Mark);
            panic!(
                "planned crash of the driver at step {step} of start {} (X5)",
                self.generation.get()
            );
        }
    }

    /// Called before an answer is given: after how many bytes of it the domain is to die.
    pub fn torn_answer(&self) -> Option<usize> {
        match self.fault {
            Fault::X6 { byte, nth } if self.strikes(&self.answers, nth) => {
                self.link.call(Call::Mark);
                Some(byte as usize)
            }
            _ => None,
        }
    }

    /// The driver's CPU stores where it has no business to; what is beyond memory it cannot name.
    fn wild_store(&self, target: Target, len: u32) -> Option<Deed> {
        let phys = aim(target, len.into(), self.seed).filter(|phys| *phys < MEMORY)?;
        let bytes = Mix::new(self.seed).bytes(len as usize);
        Some(Deed::Store { phys, bytes })
    }
}

/// Makes the first descriptors of a virtqueue point in a circle (virtio 1.2, 2.7.5: flags in bytes
/// 12 and 13, next in 14 and 15).
fn close(table: NonNull<u8>, length: u16) {
    const NEXT: u16 = 1;
    for index in 0..length {
        let next = (index + 1) % length;
        let words = [NEXT, next].map(u16::to_le_bytes).concat();
        for (at, byte) in (usize::from(index) * 16 + 12..).zip(words) {
            // SAFETY: the table is a region of DMA memory of at least a page, which this domain
            // maps for as long as it lives; no Rust reference to it exists.
            unsafe { table.add(at).write_volatile(byte) };
        }
    }
}

/// A host whose mappings go wrong once.
pub struct SabotagedHost<H: DriverHost> {
    inner: H,
    sabotage: Rc<Sabotage>,
    /// The mapping that was taken back too early: its own `unmap` has nothing left to do.
    taken_back: Option<u64>,
    /// The registers, for doorbells that nobody meant to ring.
    registers: Option<Rc<H::Mmio>>,
    /// The buffer that got its address meanwhile.
    heir: Option<H::Dma>,
}

impl<H: ChoosesAddresses> SabotagedHost<H> {
    /// Wraps a host.
    pub fn new(inner: H, sabotage: Rc<Sabotage>) -> Self {
        Self {
            inner,
            sabotage,
            taken_back: None,
            registers: None,
            heir: None,
        }
    }

    /// Takes a mapping back and leaves the driver in the belief that it has it.
    fn take_back(&mut self, mapping: Mapping) -> Mapping {
        let Mapping { iova, len, id } = mapping;
        self.inner.unmap(mapping);
        self.taken_back = Some(id);
        Mapping { iova, len, id }
    }

    /// Gives the address of a mapping that was taken back to a buffer of its own.
    fn pass_on(&mut self, mapping: &Mapping) -> Result<(), HostError> {
        let within = usize::try_from(mapping.iova.0 % FRAME).unwrap_or(0);
        let bytes = within..within + mapping.len;
        // More than it needs, so that the mapping is no more than a part.
        let heir = self.inner.alloc_dma(bytes.end + 1)?;
        let way = Direction::FromDevice;
        let _lives_with_its_region = self.inner.map_at(&heir, bytes, way, mapping.iova)?;
        self.heir = Some(heir);
        Ok(())
    }
}

/// Registers whose writes are watched: of a driver at work the last one is its doorbell.
pub struct SabotagedMmio<M> {
    inner: Rc<M>,
    sabotage: Rc<Sabotage>,
}

impl<M: Mmio> Mmio for SabotagedMmio<M> {
    fn read(&self, offset: u32, width: Width) -> u64 {
        self.inner.read(offset, width)
    }

    fn write(&self, offset: u32, width: Width, value: u64) {
        self.sabotage.before_doorbell(offset, width, value);
        self.inner.write(offset, width, value);
    }

    fn len(&self) -> u64 {
        self.inner.len()
    }
}

/// Buffers smaller than this are status bytes and headers; the fault wants the data.
const PAYLOAD: usize = 8;

impl<H: ChoosesAddresses + RawDma> DriverHost for SabotagedHost<H> {
    type Mmio = SabotagedMmio<H::Mmio>;
    type Dma = H::Dma;

    fn map_bar(&mut self, bar: Bar) -> Result<Self::Mmio, HostError> {
        let inner = Rc::new(self.inner.map_bar(bar)?);
        self.registers = Some(Rc::clone(&inner));
        Ok(SabotagedMmio {
            inner,
            sabotage: Rc::clone(&self.sabotage),
        })
    }

    fn config_read(&mut self, offset: u16, width: Width) -> Result<u32, HostError> {
        self.inner.config_read(offset, width)
    }

    fn config_write(&mut self, offset: u16, width: Width, value: u32) -> Result<(), HostError> {
        self.inner.config_write(offset, width, value)
    }

    fn set_bus_master(&mut self, on: bool) -> Result<(), HostError> {
        self.inner.set_bus_master(on)
    }

    fn enable_interrupts(&mut self, wanted: u16) -> Result<Interrupts, HostError> {
        self.inner.enable_interrupts(wanted)
    }

    fn alloc_dma(&mut self, len: usize) -> Result<Self::Dma, HostError> {
        self.inner.alloc_dma(len)
    }

    fn map(
        &mut self,
        region: &Self::Dma,
        bytes: Range<usize>,
        way: Direction,
    ) -> Result<Mapping, HostError> {
        let whole = bytes.start == 0;
        let again = bytes.clone();
        let mapping = self.inner.map(region, bytes, way)?;
        if whole && way.device_reads() && self.sabotage.table.get().is_none() {
            self.sabotage.table.set(Some(self.inner.pointer(region)));
        }
        // Rings are mapped both ways or while the driver starts; a request's data one way.
        if way != Direction::FromDevice || mapping.len < PAYLOAD {
            return Ok(mapping);
        }
        match self.sabotage.fault {
            Fault::D1 {
                by: By::Driver,
                target,
                nth,
                ..
            } if self.sabotage.strikes(&self.sabotage.mappings, nth) => {
                let len = mapping.len as u64;
                // A whole page off: some drivers refuse an address that is not aligned.
                let wild = aim(target, len, self.sabotage.seed)
                    .map_or(mapping.iova.offset(len), |at| Iova(at / FRAME * FRAME));
                Ok(Mapping {
                    iova: wild,
                    ..mapping
                })
            }
            Fault::D4 {
                by: By::Driver,
                extra,
                nth,
            } if self.sabotage.strikes(&self.sabotage.mappings, nth) => Ok(Mapping {
                iova: mapping.iova.offset(extra.into()),
                ..mapping
            }),
            Fault::X4 { pins, nth } if self.sabotage.has_come(&self.sabotage.mappings, nth) => {
                for _ in 0..pins {
                    let pinned = self.inner.map(region, again.clone(), way);
                    if let Err(refused) = pinned {
                        // There are no more: the driver's own mapping goes the same way.
                        self.sabotage.armed.set(false);
                        self.inner.unmap(mapping);
                        return Err(refused);
                    }
                    // Nobody remembers it: what is left of it is the mapping.
                    self.sabotage.link.call(Call::Mark);
                }
                Ok(mapping)
            }
            Fault::R5 {
                by: By::Driver,
                length,
                nth,
            } if self.sabotage.strikes(&self.sabotage.mappings, nth) => {
                self.sabotage.circle.set(length.into());
                Ok(mapping)
            }
            Fault::R6 { depth, nth } if self.sabotage.strikes(&self.sabotage.mappings, nth) => {
                if let (Some(registers), Some((offset, width, value))) =
                    (&self.registers, self.sabotage.doorbell.get())
                {
                    self.sabotage.link.call(Call::Mark);
                    let value = value.wrapping_add(self.sabotage.rings.step * u64::from(depth));
                    registers.write(offset, width, value);
                }
                Ok(mapping)
            }
            Fault::D6 {
                by: By::Driver,
                nth,
                ..
            } if self.sabotage.strikes(&self.sabotage.mappings, nth) => Ok(self.take_back(mapping)),
            Fault::D2 { bit, nth } if self.sabotage.strikes(&self.sabotage.mappings, nth) => {
                let flipped = mapping.iova.0 ^ (1 << (bit & 63));
                Ok(Mapping {
                    iova: Iova(flipped),
                    ..mapping
                })
            }
            Fault::D3 { nth } if self.sabotage.strikes(&self.sabotage.mappings, nth) => {
                let truncated = mapping.iova.0 & u64::from(u32::MAX);
                Ok(Mapping {
                    iova: Iova(truncated),
                    ..mapping
                })
            }
            Fault::D7 { nth } if self.sabotage.strikes(&self.sabotage.mappings, nth) => {
                let mapping = self.take_back(mapping);
                self.pass_on(&mapping)?;
                Ok(mapping)
            }
            _ => Ok(mapping),
        }
    }

    fn dma_alignment(&self) -> usize {
        self.inner.dma_alignment()
    }

    fn unmap(&mut self, mapping: Mapping) {
        if self.taken_back == Some(mapping.id) {
            self.taken_back = None;
            self.heir = None;
        } else {
            self.inner.unmap(mapping);
        }
    }

    fn wait_any(&mut self, vectors: &[Vector], until: Deadline) -> Result<Wake, HostError> {
        self.inner.wait_any(vectors, until)
    }

    fn relax(&mut self) -> Result<(), HostError> {
        self.inner.relax()
    }

    fn now(&self) -> Time {
        self.inner.now()
    }
}

impl<H: RawDma + ChoosesAddresses> RawDma for SabotagedHost<H> {
    fn pointer(&self, region: &Self::Dma) -> NonNull<u8> {
        self.inner.pointer(region)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cofferdam_machine::frames::owner_at;

    #[test]
    fn wild_accesses_aim_at_the_class_they_name() {
        for seed in 0..200 {
            for target in Target::ALL {
                match (aim(target, 4096, seed), target.owner()) {
                    (Some(phys), Some(owner)) => {
                        assert_eq!(owner_at(phys), Some(owner));
                        assert_eq!(owner_at(phys + 4095), Some(owner));
                    }
                    (Some(phys), None) => assert_eq!(owner_at(phys), None),
                    (None, _) => assert_eq!(target, Target::Neighbour),
                }
            }
        }
    }
}
