//! A host and a small edu in one, whose answers a test can bend. It shares no code with the device
//! model, so the two cannot be wrong together.

use cofferdam_seam::{
    Bar, Deadline, Direction, DmaRegion, DriverHost, HostError, InterruptKind, Interrupts, Mapping,
    Mmio, Time, Vector, VectorSet, Wake, Width,
};
use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

/// What the device does wrong, if anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Nothing.
    None,
    /// Every register reads all ones.
    AllOnes,
    /// This register reads this value.
    Register(u32, u32),
    /// Interrupt reasons are set, but no interrupt comes.
    LosesInterrupts,
    /// Work is accepted and never done.
    NeverDone,
    /// Interrupts without a reason, for ever.
    Storm,
    /// Interrupts with the right reason for a DMA that was not done.
    EarlyDma,
    /// One register read in four is random; the number is the generator's state.
    Noise(u64),
}

/// A live mapping.
struct Live {
    bytes: Rc<RefCell<Vec<u8>>>,
    range: Range<usize>,
    way: Direction,
}

/// The device's registers, the interrupt line and the clock.
pub struct Wires {
    /// Device time: 100 ns an access, 1 us a wait or relax.
    pub now: Time,
    /// How the device lies from now on.
    pub lie: Lie,
    /// Answers that were bent.
    pub lied: u32,
    /// Bytes in BAR 0.
    pub bar: u64,
    /// The first word of configuration space.
    pub pci_id: u32,
    /// Bus mastering.
    pub master: bool,
    /// Set once the machine has stopped.
    pub stopped: bool,
    /// Polls for which the factorial engine says it is busy.
    pub busy: u32,
    live: Vec<(u64, Live)>,
    next: u64,
    raised: bool,
    liveness: u32,
    status: u32,
    reasons: u32,
    result: u32,
    dma: [u64; 4],
    buffer: [u8; 4096],
}

impl Wires {
    /// Mappings the driver has not given back.
    pub fn live(&self) -> usize {
        self.live.len()
    }

    fn bend(&mut self, answer: u32) -> u32 {
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
        let word = u32::try_from(*state & 0xffff_ffff).expect("masked");
        (*state >> 62 == 0).then(|| self.bend(word))
    }

    fn read(&mut self, offset: u32) -> u32 {
        self.now = self.now + Duration::from_nanos(100);
        match self.lie {
            Lie::AllOnes => return self.bend(u32::MAX),
            Lie::Register(at, value) if at == offset => return self.bend(value),
            _ => {}
        }
        if self.stopped {
            return u32::MAX;
        }
        if let Some(word) = self.noise() {
            return word;
        }
        match offset {
            0x00 => 0x0100_00ed,
            0x04 => !self.liveness,
            0x08 => self.result,
            0x20 if self.busy > 0 => {
                self.busy -= 1;
                self.status | 1
            }
            0x20 => self.status,
            0x24 => self.reasons,
            0x98 => u32::try_from(self.dma[3]).expect("a command has 32 bits"),
            _ => 0,
        }
    }

    fn write(&mut self, offset: u32, value: u64) {
        self.now = self.now + Duration::from_nanos(100);
        let low = u32::try_from(value & 0xffff_ffff).expect("masked");
        match offset {
            0x04 => self.liveness = low,
            0x08 if self.lie == Lie::NeverDone => {
                self.lied += 1;
                self.status |= 1;
            }
            0x08 => {
                self.result = (1..=low.min(64)).fold(1, u32::wrapping_mul);
                self.finish(0x001, self.status & 0x80 != 0);
            }
            0x20 => self.status = low & 0x80,
            0x64 => self.reasons &= !low,
            0x80 | 0x88 | 0x90 => self.dma[(offset as usize - 0x80) / 8] = value,
            0x98 => self.dma(value),
            _ => {}
        }
    }

    fn dma(&mut self, command: u64) {
        self.dma[3] = command;
        match self.lie {
            Lie::NeverDone => self.lied += 1,
            Lie::EarlyDma => {
                self.lied += 1;
                self.finish(0x100, true);
            }
            _ => {
                self.copy(command & 2 != 0);
                self.dma[3] &= !1;
                self.finish(0x100, command & 4 != 0);
            }
        }
    }

    fn copy(&mut self, to_ram: bool) {
        let [source, destination, count, _] = self.dma;
        let ram = if to_ram { destination } else { source };
        assert_eq!(if to_ram { source } else { destination }, 0x4_0000);
        let Some((_, live)) = self.live.iter().find(|(iova, _)| *iova == ram) else {
            return;
        };
        let len = usize::try_from(count).expect("a count fits");
        assert!(
            len <= live.range.len(),
            "the driver asks for more than it mapped"
        );
        let range = live.range.start..live.range.start + len;
        if to_ram {
            assert!(live.way.device_writes());
            live.bytes.borrow_mut()[range].copy_from_slice(&self.buffer[..len]);
        } else {
            assert!(live.way.device_reads());
            self.buffer[..len].copy_from_slice(&live.bytes.borrow()[range]);
        }
    }

    fn finish(&mut self, reason: u32, interrupt: bool) {
        self.reasons |= reason;
        if self.lie == Lie::LosesInterrupts {
            self.lied += 1;
        } else {
            self.raised |= interrupt;
        }
    }
}

/// The host; clones share the device.
#[derive(Clone)]
pub struct Host(pub Rc<RefCell<Wires>>);

impl Host {
    /// An honest device.
    pub fn new() -> Self {
        Self(Rc::new(RefCell::new(Wires {
            now: Time::ZERO,
            lie: Lie::None,
            lied: 0,
            bar: 1 << 20,
            pci_id: 0x11e8_1234,
            master: false,
            stopped: false,
            busy: 0,
            live: Vec::new(),
            next: 0x1_0000,
            raised: false,
            liveness: 0,
            status: 0,
            reasons: 0,
            result: 0,
            dma: [0; 4],
            buffer: [0; 4096],
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
        assert_eq!(width, Width::Four);
        self.0.borrow_mut().read(offset).into()
    }

    fn write(&self, offset: u32, width: Width, value: u64) {
        assert!(width == Width::Four || (width == Width::Eight && offset >= 0x80));
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
        assert!(
            wires.live.is_empty() || !wires.master,
            "freed while the device can reach it"
        );
        wires
            .live
            .retain(|(_, live)| !Rc::ptr_eq(&live.bytes, &self.bytes));
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
        assert_eq!((offset, width), (0, Width::Four));
        Ok(self.0.borrow().pci_id)
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
        assert_eq!(wanted, 1);
        Ok(Interrupts {
            kind: InterruptKind::Intx,
            count: 1,
        })
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
        let iova = wires.next;
        wires.next += 0x1_0000;
        let len = bytes.len();
        let live = Live {
            bytes: region.bytes.clone(),
            range: bytes,
            way,
        };
        wires.live.push((iova, live));
        Ok(Mapping {
            iova: cofferdam_seam::Iova(iova),
            len,
            id: iova,
        })
    }

    fn unmap(&mut self, mapping: Mapping) {
        self.0
            .borrow_mut()
            .live
            .retain(|(iova, _)| *iova != mapping.id);
    }

    fn wait_any(&mut self, vectors: &[Vector], until: Deadline) -> Result<Wake, HostError> {
        self.alive()?;
        assert_eq!(vectors, [Vector(0)]);
        let mut wires = self.0.borrow_mut();
        wires.now = wires.now + Duration::from_micros(1);
        if wires.lie == Lie::Storm {
            wires.lied += 1;
            wires.raised = true;
            wires.reasons = 0;
        }
        if std::mem::take(&mut wires.raised) {
            Ok(Wake::Interrupt(VectorSet::of(Vector(0))))
        } else {
            wires.now = wires.now.max(until.0);
            Ok(Wake::TimedOut)
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
