//! A host and a small NVMe controller in one, whose answers a test can bend. It shares no code with
//! the driver or the device model, so they cannot be wrong together.

use cofferdam_seam::{
    Bar, Deadline, Direction, DmaRegion, DriverHost, HostError, InterruptKind, Interrupts, Iova,
    Mapping, Mmio, Time, Vector, VectorSet, Wake, Width,
};
use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

/// Blocks of the disk: 64 KiB.
pub const SECTORS: u64 = 128;

/// What the device does wrong, if anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Nothing.
    None,
    /// The device is gone: every register reads all ones, and nothing is done.
    AllOnes,
    /// CSTS.RDY is never set.
    NeverReady,
    /// CSTS.RDY is never cleared.
    NeverRests,
    /// CSTS.CFS is set in place of CSTS.RDY.
    FatalAtEnable,
    /// A command is not done, and CSTS.CFS is set.
    Fatal,
    /// Commands are taken and never done.
    NeverCompletes,
    /// Commands are done without an interrupt.
    LosesInterrupts,
    /// Commands are never done, and interrupts come for ever.
    Storm,
    /// A shutdown never ends.
    NeverShutsDown,
    /// Completions have the phase tag of the round before.
    OldPhase,
    /// These bits of the command identifier are wrong.
    CidXor(u16),
    /// It is that of the command before.
    PreviousCid,
    /// Each completion comes twice.
    Twice,
    /// This is the submission queue's head.
    SqHead(u16),
    /// This is the submission queue.
    SqId(u16),
    /// This is the status field, without its phase tag.
    Status(u16),
    /// Identify writes that many bytes.
    ShortIdentify(usize),
    /// Identify of the namespace writes nothing.
    NoNamespaceData,
    /// Commands complete, and their data are not moved.
    MovesNothing,
    /// One register read in four, and one completion in four, is random; the number is the
    /// generator's state.
    Noise(u64),
}

/// A live mapping.
struct Live {
    iova: u64,
    bytes: Rc<RefCell<Vec<u8>>>,
    range: Range<usize>,
    way: Direction,
}

/// A queue pair as the device knows it.
#[derive(Clone, Copy, Default)]
struct Pair {
    sq: u64,
    cq: u64,
    entries: u16,
    vector: u16,
    sq_head: u16,
    cq_tail: u16,
    /// What the driver gave back.
    cq_head: u16,
    old: bool,
}

/// The device, its interrupts and the clock.
pub struct Wires {
    /// Device time: 100 ns an access, 1 us a wait or relax.
    pub now: Time,
    /// How the device lies from now on.
    pub lie: Lie,
    /// Answers that were bent.
    pub lied: u32,
    /// Class code and revision.
    pub class: u32,
    /// Bytes in BAR 0.
    pub bar: u64,
    /// CAP.
    pub cap: u64,
    /// What Identify says of the controller.
    pub controller: Vec<u8>,
    /// And of its namespace.
    pub namespace: Vec<u8>,
    /// Bus mastering.
    pub master: bool,
    /// Set once the machine has stopped.
    pub stopped: bool,
    /// The interrupts the host gives.
    pub kind: InterruptKind,
    /// Polls of CSTS until RDY follows EN.
    pub lag: u32,
    /// Mappings that can still be had.
    pub mappings: u32,
    /// The medium.
    pub disk: Vec<u8>,
    /// Commands are kept, and completed in reverse order, until so many are there.
    pub gather: usize,
    /// Opcode and dword 12 of each I/O command.
    pub commands: Vec<(u8, u32)>,
    /// Shutdowns that were asked for.
    pub shutdowns: u32,
    /// Times INTMS was written.
    pub masked: u32,
    /// Waits that ended at their deadline.
    pub late: u32,
    mask: u64,
    previous: u16,
    /// CC.
    pub cc: u32,
    live: Vec<Live>,
    next: u64,
    raised: VectorSet,
    ready: bool,
    fatal: bool,
    waited: u32,
    shut: bool,
    pairs: [Pair; 2],
    gathered: Vec<[u8; 64]>,
}

fn word(value: u64) -> u32 {
    u32::try_from(value & 0xffff_ffff).expect("masked")
}

fn half(value: u32) -> u16 {
    u16::try_from(value & 0xffff).expect("masked")
}

fn dword(command: &[u8; 64], nth: usize) -> u32 {
    u32::from_le_bytes(command[4 * nth..4 * nth + 4].try_into().expect("four"))
}

fn qword(command: &[u8; 64], nth: usize) -> u64 {
    u64::from(dword(command, nth)) | u64::from(dword(command, nth + 1)) << 32
}

impl Wires {
    /// Mappings the driver has not given back.
    pub fn live(&self) -> usize {
        self.live.len()
    }

    /// Bytes the device may reach.
    pub fn reachable(&self) -> usize {
        self.live.iter().map(|live| live.range.len()).sum()
    }

    fn bend<T>(&mut self, answer: T) -> T {
        self.lied += 1;
        answer
    }

    /// One time in four, and only if the device makes noise: a random word.
    fn noise(&mut self) -> Option<u32> {
        let Lie::Noise(state) = &mut self.lie else {
            return None;
        };
        // xorshift64.
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        let random = word(*state);
        (*state >> 62 == 0).then(|| self.bend(random))
    }

    fn read(&mut self, offset: u32) -> u64 {
        self.now = self.now + Duration::from_nanos(100);
        if self.stopped {
            return u64::MAX;
        }
        if self.lie == Lie::AllOnes {
            return self.bend(u64::MAX);
        }
        if let Some(random) = self.noise() {
            return random.into();
        }
        match offset {
            0x00 => self.cap,
            0x14 => self.cc.into(),
            0x1c => self.status().into(),
            _ => panic!("the driver has no business at {offset:#x}"),
        }
    }

    fn status(&mut self) -> u32 {
        let enabled = self.cc & 1 == 1;
        if self.ready != enabled {
            match self.lie {
                Lie::NeverReady if enabled => self.lied += 1,
                Lie::NeverRests if !enabled => self.lied += 1,
                Lie::FatalAtEnable if enabled => self.fatal = self.bend(true),
                _ if self.waited < self.lag => self.waited += 1,
                _ => self.ready = enabled,
            }
        }
        if self.lie == Lie::NeverRests && !enabled {
            self.ready = self.bend(true);
        }
        let shutdown = if self.shut { 2 } else { 0 };
        u32::from(self.ready) | u32::from(self.fatal) << 1 | shutdown << 2
    }

    fn write(&mut self, offset: u32, value: u64) {
        self.now = self.now + Duration::from_nanos(100);
        if self.stopped {
            return;
        }
        let stride = 4 << (self.cap >> 32 & 0xf);
        match offset {
            0x0c | 0x10 => {
                assert_ne!(self.kind, InterruptKind::Msix, "not to be touched");
                if offset == 0x0c {
                    self.masked += 1;
                    self.mask |= value;
                } else {
                    self.mask &= !value;
                }
            }
            0x14 => self.configure(word(value)),
            0x24 => {
                assert_eq!(value & 0xfff, value >> 16 & 0xfff);
                self.pairs[0].entries = half(word(value) & 0xfff) + 1;
            }
            0x28 => self.pairs[0].sq = value,
            0x30 => self.pairs[0].cq = value,
            0x1000.. => {
                let nth = (offset - 0x1000) / stride;
                assert_eq!((offset - 0x1000) % stride, 0);
                self.doorbell(nth as usize / 2, nth % 2 == 1, half(word(value)));
            }
            _ => panic!("the driver has no business at {offset:#x}"),
        }
    }

    fn configure(&mut self, cc: u32) {
        if cc >> 14 & 3 == 1 {
            self.shutdowns += 1;
            if self.lie == Lie::NeverShutsDown {
                self.lied += 1;
            } else {
                self.shut = true;
            }
        }
        if (cc ^ self.cc) & 1 == 1 {
            if self.lie == Lie::None {
                let follows = self.ready == (self.cc & 1 == 1);
                assert!(follows || self.fatal, "EN changes before RDY followed");
            }
            self.waited = 0;
            self.mask = 0;
            self.fatal = false;
            self.shut = false;
            self.gathered.clear();
            for pair in &mut self.pairs {
                (pair.sq_head, pair.cq_tail, pair.cq_head, pair.old) = (0, 0, 0, false);
            }
            self.pairs[1] = Pair::default();
        }
        if cc & 1 == 1 {
            assert_eq!(
                cc & 0x00ff_3ff0,
                0x0046_0000,
                "entry sizes, page size, sets"
            );
        }
        self.cc = cc;
    }

    fn doorbell(&mut self, queue: usize, head: bool, value: u16) {
        assert!(value < self.pairs[queue].entries, "an index of the queue");
        if head {
            self.pairs[queue].cq_head = value;
            return;
        }
        while self.pairs[queue].sq_head != value {
            let Pair { sq, sq_head, .. } = self.pairs[queue];
            let mut command = [0; 64];
            self.dma(sq + 64 * u64::from(sq_head), 64, false, |memory| {
                command.copy_from_slice(memory);
            });
            let pair = &mut self.pairs[queue];
            pair.sq_head = (sq_head + 1) % pair.entries;
            self.gathered.push(command);
            if queue == 0 || self.gathered.len() >= self.gather {
                while let Some(command) = self.gathered.pop() {
                    self.run(queue, &command);
                }
            }
        }
    }

    fn run(&mut self, queue: usize, command: &[u8; 64]) {
        match self.lie {
            Lie::NeverCompletes | Lie::Storm | Lie::AllOnes => {
                self.lied += 1;
                return;
            }
            Lie::Fatal => {
                self.fatal = self.bend(true);
                return;
            }
            Lie::MovesNothing => self.lied += 1,
            _ if queue == 0 => self.administer(command),
            _ => self.transfer(command),
        }
        self.post(queue, half(dword(command, 0) >> 16));
        if self.lie == Lie::Twice {
            self.lied += 1;
            self.post(queue, half(dword(command, 0) >> 16));
        }
    }

    fn administer(&mut self, command: &[u8; 64]) {
        let [ten, eleven] = [10, 11].map(|nth| dword(command, nth));
        match (command[0], ten) {
            (0x06, 0 | 1) => {
                let page = if ten == 1 {
                    self.controller.clone()
                } else {
                    assert_eq!(dword(command, 1), 1, "namespace");
                    self.namespace.clone()
                };
                let len = match self.lie {
                    Lie::ShortIdentify(len) => self.bend(len),
                    Lie::NoNamespaceData if ten == 0 => self.bend(0),
                    _ => 4096,
                };
                self.dma(qword(command, 6), len, true, |memory| {
                    memory.copy_from_slice(&page[..len]);
                });
            }
            (0x09, 7) => assert_eq!(eleven, 0, "one pair"),
            (0x05, _) => {
                assert_eq!(ten & 0xffff, 1);
                assert_eq!(eleven & 0xffff, 3, "interrupts, contiguous");
                self.pairs[1].cq = qword(command, 6);
                self.pairs[1].vector = half(eleven >> 16);
            }
            (0x01, _) => {
                assert_eq!((ten & 0xffff, eleven), (1, 0x0001_0001));
                assert_ne!(self.pairs[1].cq, 0, "completion queue first");
                self.pairs[1].sq = qword(command, 6);
                self.pairs[1].entries = half(ten >> 16) + 1;
            }
            _ => panic!("no admin command of ours: {command:x?}"),
        }
    }

    fn transfer(&mut self, command: &[u8; 64]) {
        let twelve = dword(command, 12);
        self.commands.push((command[0], twelve));
        let (blocks, lba) = ((twelve & 0xffff) as usize + 1, qword(command, 10));
        let (len, at) = (blocks * 512, usize::try_from(lba).expect("small") * 512);
        let limit = self.controller[77];
        assert!(limit == 0 || len <= 4096 << limit, "beyond MDTS");
        let mut pages = vec![qword(command, 6)];
        match len.div_ceil(4096) - 1 {
            0 => assert_eq!(qword(command, 8), 0),
            1 => pages.push(qword(command, 8)),
            rest => self.dma(qword(command, 8), 8 * rest, false, |list| {
                pages.extend(
                    list.chunks(8)
                        .map(|entry| u64::from_le_bytes(entry.try_into().expect("eight"))),
                );
            }),
        }
        for (nth, page) in pages.into_iter().enumerate() {
            let some = 4096 * nth..len.min(4096 * (nth + 1));
            let medium = at + some.start..at + some.end;
            let mut disk = std::mem::take(&mut self.disk);
            match command[0] {
                1 => self.dma(page, some.len(), false, |memory| {
                    disk[medium].copy_from_slice(memory);
                }),
                2 => self.dma(page, some.len(), true, |memory| {
                    memory.copy_from_slice(&disk[medium]);
                }),
                opcode => panic!("no command of ours: {opcode}"),
            }
            self.disk = disk;
        }
    }

    fn post(&mut self, queue: usize, cid: u16) {
        let pair = self.pairs[queue];
        let next = (pair.cq_tail + 1) % pair.entries;
        assert_ne!(next, pair.cq_head, "the completion queue overflows");
        let mut phase = !pair.old;
        let (mut cid, mut sq_head, mut status) = (cid, pair.sq_head, 0);
        let mut sq_id = u16::try_from(queue).expect("0 or 1");
        match self.lie {
            Lie::OldPhase => phase = self.bend(!phase),
            Lie::PreviousCid => cid = self.bend(self.previous),
            Lie::CidXor(bits) => cid = self.bend(cid ^ bits),
            Lie::SqHead(head) => sq_head = self.bend(head),
            Lie::SqId(id) => sq_id = self.bend(id),
            Lie::Status(bits) => status = self.bend(bits),
            _ => {}
        }
        self.previous = cid;
        let mut entry = [0; 16];
        entry[8..10].copy_from_slice(&sq_head.to_le_bytes());
        entry[10..12].copy_from_slice(&sq_id.to_le_bytes());
        entry[12..14].copy_from_slice(&cid.to_le_bytes());
        entry[14..].copy_from_slice(&(status << 1 | u16::from(phase)).to_le_bytes());
        if let Some(random) = self.noise() {
            let at = 8 + (random as usize & 7);
            entry[at] ^= random.to_le_bytes()[3] | 1;
        }
        let at = pair.cq + 16 * u64::from(pair.cq_tail);
        self.dma(at, 16, true, |memory| memory.copy_from_slice(&entry));
        let pair = &mut self.pairs[queue];
        pair.old ^= next == 0;
        pair.cq_tail = next;
        if self.lie == Lie::LosesInterrupts {
            self.lied += 1;
        } else {
            self.raised.insert(VectorSet::of(Vector(pair.vector)));
        }
    }

    /// A DMA request; one that is refused does nothing.
    fn dma(&mut self, at: u64, len: usize, writes: bool, with: impl FnOnce(&mut [u8])) {
        let end = at + len as u64;
        let inside = |live: &&Live| at >= live.iova && end <= live.iova + live.range.len() as u64;
        let Some(live) = self.live.iter().find(inside).filter(|_| self.master) else {
            return;
        };
        assert!(if writes {
            live.way.device_writes()
        } else {
            live.way.device_reads()
        });
        let start = live.range.start + usize::try_from(at - live.iova).expect("inside");
        with(&mut live.bytes.borrow_mut()[start..start + len]);
    }
}

/// The host; clones share the device.
#[derive(Clone)]
pub struct Host(pub Rc<RefCell<Wires>>);

impl Host {
    /// An honest device.
    pub fn new() -> Self {
        let mut controller = vec![0; 4096];
        controller[512..520].copy_from_slice(&[0x66, 0x44, 0, 0, 1, 0, 0, 0]);
        let mut namespace = vec![0; 4096];
        namespace[..8].copy_from_slice(&SECTORS.to_le_bytes());
        namespace[130] = 9;
        Self(Rc::new(RefCell::new(Wires {
            now: Time::ZERO,
            lie: Lie::None,
            lied: 0,
            class: 0x0108_0201,
            bar: 0x4000,
            // NVM command set, TO 1 s, contiguous queues, 64 entries.
            cap: 0x0000_0020_0201_003f,
            controller,
            namespace,
            master: false,
            stopped: false,
            kind: InterruptKind::Msix,
            lag: 2,
            mappings: u32::MAX,
            disk: vec![0; 64 * 1024],
            gather: 1,
            commands: Vec::new(),
            shutdowns: 0,
            masked: 0,
            late: 0,
            mask: 0,
            previous: 0,
            live: Vec::new(),
            next: 0x10_0000,
            raised: VectorSet::EMPTY,
            cc: 0,
            ready: false,
            fatal: false,
            waited: 0,
            shut: false,
            pairs: [Pair::default(); 2],
            gathered: Vec::new(),
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
        assert_eq!(width == Width::Eight, offset == 0);
        self.0.borrow_mut().read(offset) & width.all_ones()
    }

    fn write(&self, offset: u32, width: Width, value: u64) {
        assert_eq!(width == Width::Eight, matches!(offset, 0x28 | 0x30));
        self.0.borrow_mut().write(offset, value);
    }

    fn len(&self) -> u64 {
        self.0.borrow().bar
    }
}

/// A region on the heap.
pub struct Region {
    bytes: Rc<RefCell<Vec<u8>>>,
    wires: Rc<RefCell<Wires>>,
}

impl DmaRegion for Region {
    fn len(&self) -> usize {
        self.bytes.borrow().len()
    }

    fn read_at(&self, at: usize, into: &mut [u8]) {
        into.copy_from_slice(&self.bytes.borrow()[at..at + into.len()]);
    }

    fn write_at(&self, at: usize, from: &[u8]) {
        self.bytes.borrow_mut()[at..at + from.len()].copy_from_slice(from);
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        let mut wires = self.wires.borrow_mut();
        assert!(!wires.master, "freed while the device can reach it");
        wires
            .live
            .retain(|live| !Rc::ptr_eq(&live.bytes, &self.bytes));
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
        assert_eq!((offset, width), (8, Width::Four));
        Ok(self.0.borrow().class)
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
        assert_eq!(wanted, 2);
        let kind = self.0.borrow().kind;
        let count = if kind == InterruptKind::Msix { 2 } else { 1 };
        Ok(Interrupts { kind, count })
    }

    fn alloc_dma(&mut self, len: usize) -> Result<Region, HostError> {
        self.alive()?;
        Ok(Region {
            bytes: Rc::new(RefCell::new(vec![0; len])),
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
        let mut wires = self.0.borrow_mut();
        wires.mappings = wires.mappings.checked_sub(1).ok_or(HostError::Refused)?;
        let (iova, len) = (wires.next + bytes.start as u64 % 4096, bytes.len());
        wires.next += 0x10_0000;
        wires.live.push(Live {
            iova,
            bytes: region.bytes.clone(),
            range: bytes,
            way,
        });
        Ok(Mapping {
            iova: Iova(iova),
            len,
            id: iova,
        })
    }

    fn unmap(&mut self, mapping: Mapping) {
        let mut wires = self.0.borrow_mut();
        wires.live.retain(|live| live.iova != mapping.id);
    }

    fn wait_any(&mut self, vectors: &[Vector], until: Deadline) -> Result<Wake, HostError> {
        self.alive()?;
        let mut wires = self.0.borrow_mut();
        wires.now = wires.now + Duration::from_micros(1);
        let mut wanted = VectorSet::EMPTY;
        for &vector in vectors {
            wanted.insert(VectorSet::of(vector));
        }
        if wires.lie == Lie::Storm {
            wires.lied += 1;
            wires.raised = wanted;
        }
        let unmasked = VectorSet(wanted.0 & !wires.mask);
        let raised = wires.raised.take(unmasked);
        if raised.is_empty() {
            wires.now = wires.now.max(until.0);
            wires.late += 1;
            Ok(Wake::TimedOut)
        } else {
            Ok(Wake::Interrupt(raised))
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
