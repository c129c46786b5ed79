//! A host and a small virtio block device in one, whose answers a test can bend. It shares no code
//! with the device model, so the two cannot be wrong together.

use cofferdam_seam::{
    Bar, Deadline, Direction, DmaRegion, DriverHost, HostError, InterruptKind, Interrupts, Iova,
    Mapping, Mmio, RawDma, Time, Vector, VectorSet, Wake, Width,
};
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::Range;
use std::ptr::NonNull;
use std::rc::Rc;
use std::time::Duration;

/// `VERSION_1`, which a modern device must offer.
pub const VERSION_1: u64 = 1 << 32;
/// `EVENT_IDX`: the device says when it wants the doorbell.
pub const EVENT_IDX: u64 = 1 << 29;
/// The disk is read-only.
pub const READ_ONLY: u64 = 1 << 5;

/// Where the capabilities are, and how long each is.
pub const COMMON_CAP: usize = 0x40;
/// The notification capability.
pub const NOTIFY_CAP: usize = 0x50;
/// The ISR status capability.
pub const ISR_CAP: usize = 0x64;
/// The device configuration's capability.
pub const DEVICE_CAP: usize = 0x74;

const COMMON: u32 = 0x0000;
const ISR: u32 = 0x1000;
const DEVICE: u32 = 0x2000;
const NOTIFY: u32 = 0x3000;
const BAR: u64 = 0x4000;

/// What the device does wrong, if anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Nothing.
    None,
    /// Every register reads all ones.
    AllOnes,
    /// The device status is never 0.
    NeverResets,
    /// It offers these features.
    Features(u64),
    /// FEATURES_OK does not stick.
    RefusesFeatures,
    /// The configuration generation counts up with every read.
    NeverSettles,
    /// This is how long the queue is.
    QueueSize(u16),
    /// The queue is enabled from the start.
    QueueEnabled,
    /// There is the doorbell.
    NotifyOff(u16),
    /// No vector can be assigned.
    NoVector,
    /// This is the capacity.
    Capacity(u64),
    /// Requests are taken and never done.
    NeverCompletes,
    /// Requests are done without an interrupt.
    LosesInterrupts,
    /// Interrupts without a reason, for ever.
    Storm,
    /// The used element has this id.
    UsedId(u32),
    /// The used element has this length.
    UsedLen(u32),
    /// The used index is published and nothing else is done.
    PublishesUndone,
    /// The used index moves on by this much.
    UsedIndexBy(u16),
    /// Every request ends with this status.
    Status(u8),
    /// Requests are not done, DEVICE_NEEDS_RESET is set and announced.
    NeedsReset,
    /// The used ring says that no doorbell is wanted.
    NoDoorbell,
    /// One answer in four, in registers and used ring, is random; the number is the generator's
    /// state.
    Noise(u64),
}

/// A live mapping.
struct Live {
    iova: u64,
    start: NonNull<u8>,
    len: usize,
    way: Direction,
}

/// The device, its interrupts and the clock.
pub struct Wires {
    /// Device time: 100 ns an access, 1 us a wait or relax.
    pub now: Time,
    /// How the device lies from now on.
    pub lie: Lie,
    /// Answers that were bent.
    pub lied: u32,
    /// Configuration space.
    pub config: [u8; 256],
    /// Bus mastering.
    pub master: bool,
    /// Set once the machine has stopped.
    pub stopped: bool,
    /// The interrupts the host gives.
    pub kind: InterruptKind,
    /// DMA regions that can still be had.
    pub regions: u32,
    /// DMA mappings that can still be had.
    pub mappings: u32,
    /// The media.
    pub disk: Vec<u8>,
    /// Doorbells that were rung.
    pub doorbells: u32,
    live: Vec<Live>,
    next: u64,
    raised: VectorSet,
    isr: u8,
    status: u8,
    generation: u8,
    feature_select: u64,
    vectors: [u16; 2],
    size: u16,
    enabled: bool,
    rings: [u64; 3],
    seen: u16,
    used: u16,
}

fn low<const N: usize>(value: u64) -> [u8; N] {
    value.to_le_bytes()[..N].try_into().expect("at most eight")
}

impl Wires {
    /// Mappings the driver has not given back.
    pub fn live(&self) -> usize {
        self.live.len()
    }

    /// Pages with a mapping on them.
    pub fn pages(&self) -> usize {
        let pages = self.live.iter().map(|live| live.start.addr().get() / 4096);
        pages.collect::<BTreeSet<_>>().len()
    }

    fn tick(&mut self) {
        self.now = self.now + Duration::from_nanos(100);
    }

    fn lie_once<T>(&mut self, answer: T) -> T {
        self.lied += 1;
        answer
    }

    /// One time in four, and only if the device makes noise: a random word.
    fn noise(&mut self) -> Option<u64> {
        let Lie::Noise(state) = &mut self.lie else {
            return None;
        };
        // xorshift64.
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        let word = *state;
        (word >> 62 == 0).then(|| self.lie_once(word))
    }

    fn read(&mut self, offset: u32, width: Width) -> u64 {
        self.tick();
        if self.stopped {
            return width.all_ones();
        }
        if self.lie == Lie::AllOnes {
            return self.lie_once(width.all_ones());
        }
        if let Some(word) = self.noise() {
            return word & width.all_ones();
        }
        match offset {
            COMMON..ISR => self.common(offset),
            ISR => std::mem::take(&mut self.isr).into(),
            0x2000 | 0x2004 => {
                let sectors = match self.lie {
                    Lie::Capacity(sectors) => self.lie_once(sectors),
                    _ => (self.disk.len() / 512) as u64,
                };
                sectors >> (8 * (offset - DEVICE)) & 0xffff_ffff
            }
            _ => 0,
        }
    }

    fn common(&mut self, offset: u32) -> u64 {
        match (offset, self.lie) {
            (0x04, Lie::Features(features)) => {
                let half = features >> (32 * self.feature_select);
                self.lie_once(half & 0xffff_ffff)
            }
            (0x04, _) => VERSION_1 >> (32 * self.feature_select) & 0xffff_ffff,
            (0x10, Lie::NoVector) => self.lie_once(0xffff),
            (0x10, _) => self.vectors[0].into(),
            (0x14, Lie::NeverResets) => self.lie_once(0x0f),
            (0x14, Lie::RefusesFeatures) => {
                let status = self.status & !8;
                self.lie_once(status.into())
            }
            (0x14, _) => self.status.into(),
            (0x15, Lie::NeverSettles) => {
                self.generation = self.generation.wrapping_add(1);
                let generation = self.generation;
                self.lie_once(generation.into())
            }
            (0x15, _) => self.generation.into(),
            (0x18, Lie::QueueSize(size)) => self.lie_once(size.into()),
            (0x18, _) => self.size.into(),
            (0x1a, _) => self.vectors[1].into(),
            (0x1c, Lie::QueueEnabled) => self.lie_once(1),
            (0x1c, _) => self.enabled.into(),
            (0x1e, Lie::NotifyOff(off)) => self.lie_once(off.into()),
            _ => 0,
        }
    }

    fn write(&mut self, offset: u32, value: u64) {
        self.tick();
        match offset {
            0x00 => self.feature_select = value,
            0x10 => self.vectors[0] = u16::from_le_bytes(low(value)),
            0x14 if value == 0 => {
                self.status = 0;
                self.enabled = false;
                (self.seen, self.used) = (0, 0);
            }
            0x14 => self.status = u8::from_le_bytes(low(value)),
            0x18 => self.size = u16::from_le_bytes(low(value)),
            0x1a => self.vectors[1] = u16::from_le_bytes(low(value)),
            0x1c => {
                self.enabled = true;
                if self.lie == Lie::NoDoorbell {
                    self.lied += 1;
                    self.dma_write(self.rings[2], &1_u16.to_le_bytes());
                }
                if matches!(self.lie, Lie::Features(features) if features & EVENT_IDX != 0) {
                    // avail_event: the doorbell is wanted in 65534 requests.
                    let at = self.rings[2] + 4 + 8 * u64::from(self.size);
                    self.dma_write(at, &0xfffe_u16.to_le_bytes());
                }
            }
            0x20..0x38 => {
                let ring = &mut self.rings[(offset as usize - 0x20) / 8];
                if offset.is_multiple_of(8) {
                    *ring = value;
                } else {
                    *ring |= value << 32;
                }
            }
            NOTIFY => {
                self.doorbells += 1;
                self.serve();
            }
            _ => {}
        }
    }

    /// Does what is new in the available ring.
    fn serve(&mut self) {
        if matches!(self.lie, Lie::NeverCompletes | Lie::Storm) {
            return self.lie_once(());
        }
        if self.lie == Lie::NeedsReset {
            self.lied += 1;
            self.status |= 64;
            return self.raise(0);
        }
        let avail = u16::from_le_bytes(self.dma_read(self.rings[1] + 2));
        while self.seen != avail {
            let slot = u64::from(self.seen % self.size);
            let head = u16::from_le_bytes(self.dma_read(self.rings[1] + 4 + 2 * slot));
            self.seen = self.seen.wrapping_add(1);
            if self.lie == Lie::PublishesUndone {
                self.lied += 1;
            } else {
                self.request(head);
            }
            self.publish();
        }
        if self.lie == Lie::LosesInterrupts {
            self.lied += 1;
        } else {
            self.raise(1);
        }
    }

    fn request(&mut self, head: u16) {
        let mut chain = Vec::new();
        let mut next = Some(head);
        while let Some(index) = next {
            let at = self.rings[0] + 16 * u64::from(index);
            let address = u64::from_le_bytes(self.dma_read(at));
            let len = u32::from_le_bytes(self.dma_read(at + 8)) as usize;
            let flags = u16::from_le_bytes(self.dma_read(at + 12));
            next = (flags & 1 != 0).then(|| u16::from_le_bytes(self.dma_read(at + 14)));
            chain.push((address, len));
        }
        let [(header, 16), (data, len), (status, 1)] = chain[..] else {
            panic!("not a request: {chain:?}");
        };
        let kind = u32::from_le_bytes(self.dma_read(header));
        let sector = u64::from_le_bytes(self.dma_read(header + 8));
        let start = usize::try_from(sector).expect("small") * 512;
        match kind {
            0 => {
                let bytes = self.disk[start..start + len].to_vec();
                self.dma_write(data, &bytes);
            }
            1 => {
                for at in 0..len {
                    let [byte] = self.dma_read(data + at as u64);
                    self.disk[start + at] = byte;
                }
            }
            other => panic!("request type {other}"),
        }
        let done = match self.lie {
            Lie::Status(status) => self.lie_once(status),
            _ => 0,
        };
        self.dma_write(status, &[done]);
        let noise = self.noise();
        let id = match (self.lie, noise) {
            (Lie::UsedId(id), _) => self.lie_once(id),
            (_, Some(word)) => u32::from_le_bytes(low(word)),
            _ => head.into(),
        };
        let written = match self.lie {
            Lie::UsedLen(len) => self.lie_once(len),
            _ => 1,
        };
        let at = self.rings[2] + 4 + 8 * u64::from(self.used % self.size);
        self.dma_write(at, &id.to_le_bytes());
        self.dma_write(at + 4, &written.to_le_bytes());
    }

    fn publish(&mut self) {
        let noise = self.noise();
        let by = match (self.lie, noise) {
            (Lie::UsedIndexBy(by), _) => self.lie_once(by),
            (_, Some(word)) => u16::from_le_bytes(low(word)),
            _ => 1,
        };
        self.used = self.used.wrapping_add(by);
        self.dma_write(self.rings[2] + 2, &self.used.to_le_bytes());
    }

    fn raise(&mut self, vector: usize) {
        if self.kind == InterruptKind::Msix {
            self.raised
                .insert(VectorSet::of(Vector(self.vectors[vector])));
        } else {
            self.isr |= if vector == 0 { 2 } else { 1 };
        }
    }

    /// The memory behind an address, if it is mapped that way.
    fn reach(&self, at: u64, len: usize, write: bool) -> NonNull<u8> {
        assert!(self.master, "DMA without bus mastering");
        let live = self
            .live
            .iter()
            .find(|live| at >= live.iova && at + len as u64 <= live.iova + live.len as u64);
        let live = live.unwrap_or_else(|| panic!("{len} bytes at {at:#x} are not mapped"));
        assert!(if write {
            live.way.device_writes()
        } else {
            live.way.device_reads()
        });
        let offset = usize::try_from(at - live.iova).expect("inside a mapping");
        // SAFETY: inside the mapping, which is inside a live region.
        unsafe { live.start.add(offset) }
    }

    fn dma_read<const N: usize>(&self, at: u64) -> [u8; N] {
        let mut bytes = [0; N];
        let from = self.reach(at, N, false);
        // SAFETY: `reach` found N bytes; one thread, and no reference to them exists.
        unsafe { from.copy_to_nonoverlapping(NonNull::from(&mut bytes).cast(), N) };
        bytes
    }

    fn dma_write(&self, at: u64, bytes: &[u8]) {
        let into = self.reach(at, bytes.len(), true);
        // SAFETY: as in `dma_read`.
        unsafe { into.copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len()) };
    }
}

/// The host; clones share the device.
#[derive(Clone)]
pub struct Host(pub Rc<RefCell<Wires>>);

impl Host {
    /// An honest device of 64 sectors.
    pub fn new() -> Self {
        let mut config = [0; 256];
        config[0..4].copy_from_slice(&0x1042_1af4_u32.to_le_bytes());
        config[6] = 1 << 4;
        config[0x34] = 0x40;
        let caps = [
            (COMMON_CAP, 16, 1, COMMON, 0x38),
            (NOTIFY_CAP, 20, 2, NOTIFY, 4),
            (ISR_CAP, 16, 3, ISR, 1),
            (DEVICE_CAP, 16, 4, DEVICE, 24),
        ];
        for (at, len, kind, offset, length) in caps {
            let next = if kind == 4 { 0 } else { at + usize::from(len) };
            let next = u8::try_from(next).expect("inside the first 256 bytes");
            config[at..at + 4].copy_from_slice(&[9, next, len, kind]);
            config[at + 8..at + 12].copy_from_slice(&u32::to_le_bytes(offset));
            config[at + 12..at + 16].copy_from_slice(&u32::to_le_bytes(length));
        }
        config[NOTIFY_CAP + 16] = 4;
        Self(Rc::new(RefCell::new(Wires {
            now: Time::ZERO,
            lie: Lie::None,
            lied: 0,
            config,
            master: false,
            stopped: false,
            kind: InterruptKind::Msix,
            regions: u32::MAX,
            mappings: u32::MAX,
            disk: vec![0; 64 * 512],
            doorbells: 0,
            live: Vec::new(),
            next: 0x10_0000,
            raised: VectorSet::EMPTY,
            isr: 0,
            status: 0,
            generation: 0,
            feature_select: 0,
            vectors: [0xffff; 2],
            size: 64,
            enabled: false,
            rings: [0; 3],
            seen: 0,
            used: 0,
        })))
    }

    /// A deadline 1 ms from now.
    pub fn soon(&self) -> Deadline {
        Deadline::after(self.0.borrow().now, Duration::from_millis(1))
    }

    fn alive(&self) -> Result<(), HostError> {
        if self.0.borrow().stopped {
            Err(HostError::Stopped)
        } else {
            Ok(())
        }
    }
}

/// BAR 0.
pub struct Registers(Rc<RefCell<Wires>>);

impl Mmio for Registers {
    fn read(&self, offset: u32, width: Width) -> u64 {
        self.0.borrow_mut().read(offset, width)
    }

    fn write(&self, offset: u32, width: Width, value: u64) {
        assert_ne!(width, Width::Eight, "fields of 64 bits go in halves");
        self.0.borrow_mut().write(offset, value);
    }

    fn len(&self) -> u64 {
        BAR
    }
}

/// A region on the heap.
pub struct Region {
    start: NonNull<u8>,
    layout: Layout,
    wires: Rc<RefCell<Wires>>,
}

impl DmaRegion for Region {
    fn len(&self) -> usize {
        self.layout.size()
    }

    fn read_at(&self, at: usize, into: &mut [u8]) {
        assert!(at + into.len() <= self.len());
        // SAFETY: inside the region; one thread, and no reference to its bytes exists.
        unsafe {
            self.start
                .add(at)
                .copy_to_nonoverlapping(NonNull::from(&mut *into).cast(), into.len());
        }
    }

    fn write_at(&self, at: usize, from: &[u8]) {
        assert!(at + from.len() <= self.len());
        // SAFETY: as in `read_at`.
        unsafe {
            self.start
                .add(at)
                .copy_from_nonoverlapping(NonNull::from(from).cast(), from.len());
        }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        let mut wires = self.wires.borrow_mut();
        let range = self.start
            ..self
                .start
                .map_addr(|at| at.saturating_add(self.layout.size()));
        let before = wires.live.len();
        wires.live.retain(|live| !range.contains(&live.start));
        assert!(
            wires.live.len() == before || !wires.master,
            "freed while the device can reach it"
        );
        // SAFETY: allocated with this layout, and nothing maps it any more.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}

impl DriverHost for Host {
    type Mmio = Registers;
    type Dma = Region;

    fn map_bar(&mut self, bar: Bar) -> Result<Registers, HostError> {
        self.alive()?;
        if bar == Bar::ZERO {
            Ok(Registers(self.0.clone()))
        } else {
            Err(HostError::NoSuchBar(bar.index()))
        }
    }

    fn config_read(&mut self, offset: u16, width: Width) -> Result<u32, HostError> {
        self.alive()?;
        assert!(offset.is_multiple_of(width.bytes().try_into().expect("small")));
        let wires = self.0.borrow();
        let bytes = (0..width.bytes() as usize).rev();
        Ok(bytes.fold(0, |word, at| {
            word << 8 | u32::from(wires.config[usize::from(offset) + at])
        }))
    }

    fn config_write(&mut self, _: u16, _: Width, _: u32) -> Result<(), HostError> {
        Err(HostError::Refused)
    }

    fn set_bus_master(&mut self, on: bool) -> Result<(), HostError> {
        self.0.borrow_mut().master = on;
        self.alive()
    }

    fn enable_interrupts(&mut self, wanted: u16) -> Result<Interrupts, HostError> {
        self.alive()?;
        let kind = self.0.borrow().kind;
        let count = if kind == InterruptKind::Msix {
            wanted
        } else {
            1
        };
        Ok(Interrupts { kind, count })
    }

    fn alloc_dma(&mut self, len: usize) -> Result<Region, HostError> {
        self.alive()?;
        let mut wires = self.0.borrow_mut();
        wires.regions = match wires.regions.checked_sub(1) {
            Some(left) => left,
            None => return Err(HostError::OutOfMemory(len)),
        };
        assert_ne!(len, 0);
        let layout = Layout::from_size_align(len, 4096).expect("a small region");
        // SAFETY: the layout has a size.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) }).expect("memory");
        Ok(Region {
            start,
            layout,
            wires: self.0.clone(),
        })
    }

    fn map(
        &mut self,
        region: &Region,
        bytes: Range<usize>,
        way: Direction,
    ) -> Result<Mapping, HostError> {
        self.alive()?;
        assert!(bytes.end <= region.len());
        let mut wires = self.0.borrow_mut();
        wires.mappings = wires.mappings.checked_sub(1).ok_or(HostError::Refused)?;
        let iova = wires.next;
        wires.next += 0x1_0000;
        let len = bytes.len();
        // SAFETY: inside the region.
        let start = unsafe { region.start.add(bytes.start) };
        wires.live.push(Live {
            iova,
            start,
            len,
            way,
        });
        Ok(Mapping {
            iova: Iova(iova),
            len,
            id: iova,
        })
    }

    fn unmap(&mut self, mapping: Mapping) {
        self.0
            .borrow_mut()
            .live
            .retain(|live| live.iova != mapping.id);
    }

    fn wait_any(&mut self, vectors: &[Vector], until: Deadline) -> Result<Wake, HostError> {
        self.alive()?;
        let mut wires = self.0.borrow_mut();
        wires.now = wires.now + Duration::from_micros(1);
        if wires.lie == Lie::Storm {
            wires.raise(1);
        }
        let mut mask = VectorSet::EMPTY;
        for vector in vectors {
            mask.insert(VectorSet::of(*vector));
        }
        let woken = if wires.kind == InterruptKind::Msix {
            wires.raised.take(mask)
        } else if wires.isr != 0 {
            VectorSet::of(Vector(0))
        } else {
            VectorSet::EMPTY
        };
        if woken.is_empty() {
            wires.now = wires.now.max(until.0);
            Ok(Wake::TimedOut)
        } else {
            Ok(Wake::Interrupt(woken))
        }
    }

    fn relax(&mut self) -> Result<(), HostError> {
        self.alive()?;
        let mut wires = self.0.borrow_mut();
        wires.now = wires.now + Duration::from_micros(1);
        Ok(())
    }

    fn now(&self) -> Time {
        self.0.borrow().now
    }
}

impl RawDma for Host {
    fn pointer(&self, region: &Region) -> NonNull<u8> {
        region.start
    }
}
