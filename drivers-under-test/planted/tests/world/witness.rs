//! A host that keeps the books of its driver.

use cofferdam_backends::mock::{MockDma, MockHost, MockMmio};
use cofferdam_seam::{
    Bar, Deadline, Direction, DmaRegion, DriverHost, HostError, Interrupts, Mapping, Mmio, Time,
    Vector, Wake, Width,
};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::panic::resume_unwind;
use std::rc::Rc;

/// Steps of a driver that waits for something that does not come. A whole workload takes fewer.
const BUDGET: u32 = 20_000;

/// What a driver is stopped with that used up its steps.
pub enum Stopped {
    /// It looked at the device all the time.
    Waiting,
    /// It looked at memory only.
    Running,
}

#[derive(Default)]
pub struct Books {
    steps: u32,
    /// At memory, since the last step.
    looks: u32,
    bus_master: bool,
    regions: u64,
    /// The region of each live mapping.
    mapped: BTreeMap<u64, u64>,
    pub freed_while_mapped: u32,
    unmapped: BTreeSet<u64>,
    pub double_unmaps: u32,
    /// Vectors the driver was given.
    given: u16,
    pub foreign_waits: u32,
}

impl Books {
    fn step(&mut self) {
        self.steps += 1;
        self.looks = 0;
        if self.steps == BUDGET {
            // Without the hook: it is no panic of the driver's.
            resume_unwind(Box::new(Stopped::Waiting));
        }
    }

    fn look(&mut self) {
        self.looks += 1;
        if self.looks == BUDGET {
            resume_unwind(Box::new(Stopped::Running));
        }
    }
}

pub struct Witness {
    inner: MockHost,
    books: Rc<RefCell<Books>>,
}

impl Witness {
    pub fn new(inner: MockHost, books: Rc<RefCell<Books>>) -> Self {
        Self { inner, books }
    }
}

pub struct WitnessMmio {
    inner: MockMmio,
    books: Rc<RefCell<Books>>,
}

impl Mmio for WitnessMmio {
    fn read(&self, offset: u32, width: Width) -> u64 {
        self.books.borrow_mut().step();
        self.inner.read(offset, width)
    }

    fn write(&self, offset: u32, width: Width, value: u64) {
        self.inner.write(offset, width, value);
    }

    fn len(&self) -> u64 {
        self.inner.len()
    }
}

pub struct WitnessDma {
    inner: MockDma,
    number: u64,
    books: Rc<RefCell<Books>>,
}

impl DmaRegion for WitnessDma {
    fn len(&self) -> usize {
        self.inner.len()
    }

    fn read_at(&self, at: usize, into: &mut [u8]) {
        self.books.borrow_mut().look();
        self.inner.read_at(at, into);
    }

    fn write_at(&self, at: usize, from: &[u8]) {
        self.inner.write_at(at, from);
    }
}

impl Drop for WitnessDma {
    fn drop(&mut self) {
        let mut books = self.books.borrow_mut();
        let mapped = books.mapped.values().any(|region| *region == self.number);
        books.freed_while_mapped += u32::from(mapped && books.bus_master);
        books.mapped.retain(|_, region| *region != self.number);
    }
}

impl DriverHost for Witness {
    type Mmio = WitnessMmio;
    type Dma = WitnessDma;

    fn map_bar(&mut self, bar: Bar) -> Result<WitnessMmio, HostError> {
        Ok(WitnessMmio {
            inner: self.inner.map_bar(bar)?,
            books: Rc::clone(&self.books),
        })
    }

    fn config_read(&mut self, offset: u16, width: Width) -> Result<u32, HostError> {
        self.books.borrow_mut().step();
        self.inner.config_read(offset, width)
    }

    fn config_write(&mut self, offset: u16, width: Width, value: u32) -> Result<(), HostError> {
        self.inner.config_write(offset, width, value)
    }

    fn set_bus_master(&mut self, on: bool) -> Result<(), HostError> {
        self.books.borrow_mut().bus_master = on;
        self.inner.set_bus_master(on)
    }

    fn enable_interrupts(&mut self, wanted: u16) -> Result<Interrupts, HostError> {
        let given = self.inner.enable_interrupts(wanted)?;
        self.books.borrow_mut().given = given.count;
        Ok(given)
    }

    fn alloc_dma(&mut self, len: usize) -> Result<WitnessDma, HostError> {
        let inner = self.inner.alloc_dma(len)?;
        let mut books = self.books.borrow_mut();
        books.regions += 1;
        Ok(WitnessDma {
            inner,
            number: books.regions,
            books: Rc::clone(&self.books),
        })
    }

    fn map(
        &mut self,
        region: &WitnessDma,
        bytes: Range<usize>,
        way: Direction,
    ) -> Result<Mapping, HostError> {
        let mapping = self.inner.map(&region.inner, bytes, way)?;
        let mut books = self.books.borrow_mut();
        books.mapped.insert(mapping.id, region.number);
        Ok(mapping)
    }

    fn unmap(&mut self, mapping: Mapping) {
        let mut books = self.books.borrow_mut();
        books.mapped.remove(&mapping.id);
        if !books.unmapped.insert(mapping.id) {
            books.double_unmaps += 1;
        }
        drop(books);
        self.inner.unmap(mapping);
    }

    fn wait_any(&mut self, vectors: &[Vector], until: Deadline) -> Result<Wake, HostError> {
        let mut books = self.books.borrow_mut();
        books.step();
        if vectors.iter().any(|vector| vector.0 >= books.given) {
            books.foreign_waits += 1;
        }
        drop(books);
        self.inner.wait_any(vectors, until)
    }

    fn relax(&mut self) -> Result<(), HostError> {
        self.books.borrow_mut().step();
        self.inner.relax()
    }

    fn now(&self) -> Time {
        self.inner.now()
    }
}
