//! A driver's life on the platform: its host, its registers, its memory, and the deadline of the call
//! it is in.

use super::Platform;
use super::mmio::bar_at;
use crate::steps::Turn;
use crate::trap::{self, Way, Window};
use cofferdam_seam::service::DriverError;
use cofferdam_seam::{Deadline, Direction, HostError, Iova, Mapping, Mmio, RawDma};
use std::cell::{Cell, RefCell, RefMut};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::NonNull;
use std::rc::Rc;

/// The unit of allocation: no two allocations share what an IOMMU can tell apart.
const PAGE: usize = 4096;

/// A driver's session. Whatever the driver leaves behind goes back when the session is dropped.
pub struct Session<H: RawDma> {
    holdings: RefCell<Holdings<H>>,
    way: Way,
    until: Cell<Deadline>,
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
    pub fn new(host: H, way: Way, until: Deadline) -> Self {
        Self {
            holdings: RefCell::new(Holdings {
                windows: Vec::new(),
                allocations: Vec::new(),
                host,
            }),
            way,
            until: Cell::new(until),
            refused: Cell::new(None),
        }
    }

    /// The host, for the adapter. Give it back before the driver is called.
    pub fn host(&self) -> RefMut<'_, H> {
        trap::settle();
        RefMut::map(self.holdings.borrow_mut(), |holdings| &mut holdings.host)
    }

    /// Sets when the running call ends at the latest.
    pub fn set_deadline(&self, until: Deadline) {
        self.until.set(until);
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
        let window = Window::new(Rc::new(mmio), way).map_err(|_| HostError::Refused)?;
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
        let window = self.holdings.borrow_mut().window(address, len, self.way);
        self.granted(window)
    }

    fn unmap_registers(&self, first: NonNull<u8>) {
        let windows = &mut self.holdings.borrow_mut().windows;
        windows.retain(|window| window.pointer() != first);
    }

    fn allocate(&self, len: usize, way: Direction) -> Option<(Iova, NonNull<u8>)> {
        let allocation = self.holdings.borrow_mut().allocate(len, way);
        self.granted(allocation)
    }

    fn free(&self, first: NonNull<u8>) {
        let mut holdings = self.holdings.borrow_mut();
        let found = holdings.allocations.iter().position(|a| a.first == first);
        if let Some(index) = found {
            let allocation = holdings.allocations.remove(index);
            holdings.host.unmap(allocation.mapping);
        }
    }
}

impl<H: RawDma> Turn for Session<H> {
    fn turn(&self) {
        // The adapter's own computing, while it holds the host.
        let Ok(mut holdings) = self.holdings.try_borrow_mut() else {
            return;
        };
        let ended = if self.until.get().passed(holdings.host.now()) {
            Err(DriverError::TimedOut("the driver to come back"))
        } else {
            holdings.host.relax().map_err(DriverError::Host)
        };
        drop(holdings);
        if let Err(error) = ended {
            resume_unwind(Box::new(Ended(error)));
        }
    }
}

/// The private payload by which a turn leaves a driver.
struct Ended(DriverError);

/// Runs `call`, which goes into the driver. The result is the error with which [a turn](Turn) ended
/// it, if one did; any other panic is the driver's crash and goes on.
pub fn catch<R>(call: impl FnOnce() -> R) -> Result<R, DriverError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => Ok(result),
        Err(payload) => match payload.downcast::<Ended>() {
            Ok(ended) => Err(ended.0),
            Err(panic) => resume_unwind(panic),
        },
    }
}
