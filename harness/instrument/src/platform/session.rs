//! A driver's life on the platform: its host, its registers, its memory.

use super::Platform;
use super::mmio::bar_at;
use crate::steps::{STEPS, Turn};
use crate::trap::{self, Way, Window};
use cofferdam_seam::{Direction, HostError, Iova, Mapping, Mmio, RawDma};
use std::cell::{Cell, RefCell, RefMut};
use std::ptr::NonNull;
use std::rc::Rc;

/// The unit of allocation: no two allocations share what an IOMMU can tell apart.
const PAGE: usize = 4096;

/// Turns a driver may take in a row without a call to the platform or back to its adapter: tens of
/// millions of comparisons, more than any wait for a register that is well, and more than a host takes
/// that ends such a driver itself.
const TURNS: u32 = 1 << 19;

/// A driver's session. Whatever the driver leaves behind goes back when the session is dropped.
pub struct Session<H: RawDma> {
    holdings: RefCell<Holdings<H>>,
    trapped: Way,
    /// Which way allocations are used.
    used: Cell<Direction>,
    turns: Cell<u32>,
    refused: Cell<Option<HostError>>,
}

/// Registers and memory come first: they go back before the host they came from does.
struct Holdings<H: RawDma> {
    windows: Vec<Window>,
    allocations: Vec<Allocation<H::Dma>>,
    host: H,
}

struct Allocation<D> {
    first: NonNull<u8>,
    mapping: Mapping,
    /// Owns the bytes.
    _region: D,
}

impl<H: RawDma> Session<H> {
    /// A session whose driver's register accesses are trapped in that way.
    pub fn new(host: H, trapped: Way) -> Self {
        Self {
            holdings: RefCell::new(Holdings {
                windows: Vec::new(),
                allocations: Vec::new(),
                host,
            }),
            trapped,
            used: Cell::new(Direction::Both),
            turns: Cell::new(0),
            refused: Cell::new(None),
        }
    }

    /// The host, for the adapter. Give it back before the driver is called.
    pub fn host(&self) -> RefMut<'_, H> {
        trap::settle();
        RefMut::map(self.holdings(), |holdings| &mut holdings.host)
    }

    fn holdings(&self) -> RefMut<'_, Holdings<H>> {
        self.turns.set(0);
        self.holdings.borrow_mut()
    }

    /// Runs `allocate`, whose allocations are used that way only.
    pub fn one_way<R>(&self, way: Direction, allocate: impl FnOnce() -> R) -> R {
        let before = self.used.replace(way);
        let result = allocate();
        self.used.set(before);
        result
    }

    /// Why the host refused memory or registers since this was last asked. The driver only knows that
    /// it got none.
    pub fn take_refusal(&self) -> Option<HostError> {
        self.refused.take()
    }

    fn granted<T>(&self, result: Result<T, HostError>) -> Option<T> {
        result.map_err(|error| self.refused.set(Some(error))).ok()
    }
}

impl<H: RawDma> Holdings<H>
where
    H::Mmio: 'static,
{
    fn window(&mut self, address: usize, len: usize, way: Way) -> Result<NonNull<u8>, HostError> {
        let bar = bar_at(address).ok_or(HostError::Refused)?;
        let mmio = self.host.map_bar(bar)?;
        if len as u64 > mmio.len() {
            return Err(HostError::Refused);
        }
        let window = Window::new(Rc::new(mmio), way)
            .map_err(|error| HostError::Infrastructure(error.errno()))?;
        let first = window.pointer();
        self.windows.push(window);
        Ok(first)
    }

    fn allocate(&mut self, len: usize, way: Direction) -> Result<(Iova, NonNull<u8>), HostError> {
        let whole = len.checked_next_multiple_of(PAGE);
        let whole = whole.ok_or(HostError::OutOfMemory(len))?;
        let region = self.host.alloc_dma(whole)?;
        let mapping = self.host.map(&region, 0..whole, way)?;
        let (iova, first) = (mapping.iova, self.host.pointer(&region));
        self.allocations.push(Allocation {
            first,
            mapping,
            _region: region,
        });
        Ok((iova, first))
    }
}

impl<H: RawDma + 'static> Platform for Session<H> {
    fn map_registers(&self, address: usize, len: usize) -> Option<NonNull<u8>> {
        let window = self.holdings().window(address, len, self.trapped);
        self.granted(window)
    }

    fn unmap_registers(&self, first: NonNull<u8>) {
        let windows = &mut self.holdings().windows;
        windows.retain(|window| window.pointer() != first);
    }

    fn allocate(&self, len: usize, way: Option<Direction>) -> Option<(Iova, NonNull<u8>)> {
        let way = way.unwrap_or(self.used.get());
        let allocation = self.holdings().allocate(len, way);
        self.granted(allocation)
    }

    fn free(&self, first: NonNull<u8>) {
        let mut holdings = self.holdings();
        let found = holdings.allocations.iter().position(|a| a.first == first);
        if let Some(index) = found {
            let allocation = holdings.allocations.remove(index);
            holdings.host.unmap(allocation.mapping);
        }
    }
}

impl<H: RawDma> Turn for Session<H> {
    fn turn(&self) {
        // Otherwise it is the adapter that computes, with the host in its hands.
        if let Ok(mut holdings) = self.holdings.try_borrow_mut() {
            let turns = self.turns.get() + 1;
            self.turns.set(turns);
            assert!(
                turns < TURNS,
                "the driver does not come back: {} comparisons in a row",
                u64::from(turns) * u64::from(STEPS)
            );
            // A host that stopped lets no time pass; the driver ends as above.
            let _ = holdings.host.relax();
        }
    }
}
