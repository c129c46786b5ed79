//! The layer that makes a correct driver's mappings wrong once.

use cofferdam_seam::{
    Bar, Deadline, Direction, DriverHost, HostError, Interrupts, Iova, Mapping, RawDma, Time,
    Vector, Wake, Width,
};
use serde::Serialize;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::ops::Range;
use std::ptr::NonNull;
use std::rc::Rc;

/// What a driver's side may do wrong on a real device, by its number in the catalogue of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Fault {
    /// Wild DMA: the device gets an address that was never mapped, the physical one of somebody
    /// else's page where it can be had.
    #[serde(rename = "D1")]
    D1,
    /// Length overrun off the mapped page.
    #[serde(rename = "D4")]
    D4,
    /// Length overrun that stays on the mapped page.
    #[serde(rename = "D4.in-page")]
    D4InPage,
    /// Use after unmap: the device gets the address of an earlier, used mapping.
    #[serde(rename = "D6")]
    D6,
    /// A buffer that the device writes is mapped for reading.
    #[serde(rename = "D8")]
    D8,
    /// The driver dies while the device is at it.
    #[serde(rename = "D12")]
    D12,
}

/// How far a buffer is overrun.
const EXTRA: u64 = 63;

impl Fault {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::D1,
        Self::D4,
        Self::D4InPage,
        Self::D6,
        Self::D8,
        Self::D12,
    ];

    /// Its name on the command line and in reports.
    pub const fn id(self) -> &'static str {
        match self {
            Self::D1 => "D1",
            Self::D4 => "D4",
            Self::D4InPage => "D4.in-page",
            Self::D6 => "D6",
            Self::D8 => "D8",
            Self::D12 => "D12",
        }
    }

    /// What happens, in a line.
    pub const fn line(self) -> &'static str {
        match self {
            Self::D1 => "wild DMA: a write to an address that was never mapped",
            Self::D4 => "length overrun: a write that goes 63 bytes beyond its mapped page",
            Self::D4InPage => "length overrun: a write 63 bytes beyond its buffer, on its page",
            Self::D6 => "use after unmap: a write to an address whose mapping was taken back",
            Self::D8 => "a write to a buffer that is mapped for reading",
            Self::D12 => "a write that is under way when its driver dies",
        }
    }

    /// Bytes of a request that brings it out.
    pub const fn request(self) -> usize {
        match self {
            Self::D4InPage => 1000,
            _ => 4096,
        }
    }
}

/// A fault that strikes once, on the mapping of a buffer that the device is to fill.
pub struct Strike {
    fault: Fault,
    /// A never mapped address.
    wild: Iova,
    armed: Cell<bool>,
    struck: Cell<Option<Struck>>,
    /// The last mapping of a buffer that the device was to fill: its name and address.
    filled: Cell<Option<(u64, Iova)>>,
    /// The address of the last such mapping that was taken back.
    stale: Cell<Option<Iova>>,
    dying: Cell<bool>,
    watch: RefCell<Box<Watch>>,
}

/// Is told the name of the mapping that was really made, and what the device is told instead.
type Watch = dyn FnMut(u64, Struck);

/// A strike that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Struck {
    /// The address the device was given.
    pub at: Iova,
    /// Bytes it was told to write.
    pub len: usize,
    /// The address it should have been given.
    pub mapped: Iova,
}

impl Strike {
    /// A fault that is not armed yet. `wild` is an address nothing is ever mapped at; `watch` is
    /// called when it strikes, with the name of the mapping that is really made.
    pub fn new(fault: Fault, wild: Iova, watch: impl FnMut(u64, Struck) + 'static) -> Rc<Self> {
        Rc::new(Self {
            fault,
            wild,
            armed: Cell::new(false),
            struck: Cell::new(None),
            filled: Cell::new(None),
            stale: Cell::new(None),
            dying: Cell::new(false),
            watch: RefCell::new(Box::new(watch)),
        })
    }

    /// Lets the next fitting mapping be struck.
    pub fn arm(&self) {
        self.armed.set(true);
    }

    /// What happened, if it has.
    pub fn struck(&self) -> Option<Struck> {
        self.struck.get()
    }

    fn takes(&self, way: Direction) -> bool {
        way == Direction::FromDevice
            && self.armed.get()
            && (self.fault != Fault::D6 || self.stale.get().is_some())
    }
}

impl fmt::Debug for Strike {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Strike")
            .field("fault", &self.fault)
            .field("struck", &self.struck)
            .finish_non_exhaustive()
    }
}

/// A host whose mappings go wrong once, or never if there is no strike.
#[derive(Debug)]
pub struct Faulty<H> {
    inner: H,
    strike: Option<Rc<Strike>>,
}

impl<H> Faulty<H> {
    /// Wraps a host.
    pub fn new(inner: H, strike: Option<Rc<Strike>>) -> Self {
        Self { inner, strike }
    }
}

impl<H: DriverHost> DriverHost for Faulty<H> {
    type Mmio = H::Mmio;
    type Dma = H::Dma;

    fn map_bar(&mut self, bar: Bar) -> Result<Self::Mmio, HostError> {
        self.inner.map_bar(bar)
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
        let Some(strike) = &self.strike else {
            return self.inner.map(region, bytes, way);
        };
        let strikes = strike.takes(way);
        let really = match strike.fault {
            Fault::D8 if strikes => Direction::ToDevice,
            _ => way,
        };
        let mapping = self.inner.map(region, bytes, really)?;
        if !strikes {
            if way == Direction::FromDevice {
                strike.filled.set(Some((mapping.id, mapping.iova)));
            }
            return Ok(mapping);
        }
        let at = match strike.fault {
            Fault::D1 => strike.wild,
            Fault::D4 | Fault::D4InPage => mapping.iova.offset(EXTRA),
            Fault::D6 => strike.stale.get().unwrap_or(mapping.iova),
            Fault::D8 | Fault::D12 => mapping.iova,
        };
        strike.armed.set(false);
        strike.dying.set(strike.fault == Fault::D12);
        let struck = Struck {
            at,
            len: mapping.len,
            mapped: mapping.iova,
        };
        strike.struck.set(Some(struck));
        (strike.watch.borrow_mut())(mapping.id, struck);
        Ok(Mapping {
            iova: at,
            ..mapping
        })
    }

    fn dma_alignment(&self) -> usize {
        self.inner.dma_alignment()
    }

    fn unmap(&mut self, mapping: Mapping) {
        if let Some(strike) = &self.strike
            && let Some((id, at)) = strike.filled.get()
            && id == mapping.id
        {
            strike.stale.set(Some(at));
        }
        self.inner.unmap(mapping);
    }

    fn wait_any(&mut self, vectors: &[Vector], until: Deadline) -> Result<Wake, HostError> {
        match &self.strike {
            Some(strike) if strike.dying.get() => Err(HostError::Stopped),
            _ => self.inner.wait_any(vectors, until),
        }
    }

    fn relax(&mut self) -> Result<(), HostError> {
        self.inner.relax()
    }

    fn now(&self) -> Time {
        self.inner.now()
    }
}

impl<H: RawDma> RawDma for Faulty<H> {
    fn pointer(&self, region: &Self::Dma) -> NonNull<u8> {
        self.inner.pointer(region)
    }
}
