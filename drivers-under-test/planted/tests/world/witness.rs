//! A host that keeps the books of its driver.

use cofferdam_backends::mock::{MockDma, MockHost, MockMmio};
use cofferdam_seam::{
    Bar, Deadline, Direction, DriverHost, HostError, Interrupts, Mapping, Mmio, Time, Vector, Wake,
    Width,
};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::Range;
use std::panic::resume_unwind;
use std::rc::Rc;

/// Steps of a driver that waits for something that does not come. A whole workload takes fewer.
const BUDGET: u32 = 20_000;

/// What a driver is stopped with that used up its steps.
pub struct Unbounded;

#[derive(Default)]
pub struct Books {
    steps: u32,
    unmapped: BTreeSet<u64>,
    pub double_unmaps: u32,
    /// Vectors the driver was given.
    given: u16,
    pub foreign_waits: u32,
}

impl Books {
    fn step(&mut self) {
        self.steps += 1;
        if self.steps == BUDGET {
            // Without the hook: it is no panic of the driver's.
            resume_unwind(Box::new(Unbounded));
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

impl DriverHost for Witness {
    type Mmio = WitnessMmio;
    type Dma = MockDma;

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
        self.inner.set_bus_master(on)
    }

    fn enable_interrupts(&mut self, wanted: u16) -> Result<Interrupts, HostError> {
        let given = self.inner.enable_interrupts(wanted)?;
        self.books.borrow_mut().given = given.count;
        Ok(given)
    }

    fn alloc_dma(&mut self, len: usize) -> Result<MockDma, HostError> {
        self.inner.alloc_dma(len)
    }

    fn map(
        &mut self,
        region: &MockDma,
        bytes: Range<usize>,
        way: Direction,
    ) -> Result<Mapping, HostError> {
        self.inner.map(region, bytes, way)
    }

    fn unmap(&mut self, mapping: Mapping) {
        let mut books = self.books.borrow_mut();
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
