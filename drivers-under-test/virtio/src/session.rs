//! What a driver's life holds: its host, its memory, and the deadline of the call it is in.

use crate::abandon::abandon;
use crate::arena::Arena;
use crate::hal::Memory;
use cofferdam_seam::service::DriverError;
use cofferdam_seam::{Deadline, Direction, HostError, Iova, Mapping, RawDma};
use std::cell::RefCell;
use std::ptr::NonNull;
use std::rc::Rc;
use virtio_drivers::PAGE_SIZE;

/// The session, as the block driver, its transport and the HAL share it.
pub type Shared<H> = Rc<RefCell<Session<H>>>;

/// Memory comes first: it goes back before the host it came from does.
pub struct Session<H: RawDma> {
    rings: Vec<Ring<H::Dma>>,
    arena: Arena<H::Dma>,
    pub host: H,
    /// When the running request or probe ends at the latest.
    pub until: Deadline,
}

/// A part of a virtqueue, mapped for its whole life.
struct Ring<D> {
    mapping: Mapping,
    /// Owns the bytes the crate holds a pointer to.
    _region: D,
}

impl<H: RawDma> Session<H> {
    /// A session whose requests have `small` short buffers and one of `large` bytes.
    pub fn new(
        mut host: H,
        small: usize,
        large: usize,
        until: Deadline,
    ) -> Result<Self, HostError> {
        Ok(Self {
            rings: Vec::new(),
            arena: Arena::new(&mut host, small, large)?,
            host,
            until,
        })
    }

    /// One turn of a poll loop: an error if the deadline has passed.
    pub fn poll(&mut self, what: &'static str) -> Result<(), DriverError> {
        if self.until.passed(self.host.now()) {
            return Err(DriverError::TimedOut(what));
        }
        Ok(self.host.relax()?)
    }

    fn ring(&mut self, pages: usize, way: Direction) -> Result<(Iova, NonNull<u8>), HostError> {
        let len = pages
            .checked_mul(PAGE_SIZE)
            .ok_or(HostError::OutOfMemory(usize::MAX))?;
        let region = self.host.alloc_dma(len)?;
        let mapping = self.host.map(&region, 0..len, way)?;
        let iova = mapping.iova;
        let pointer = self.host.pointer(&region);
        self.rings.push(Ring {
            mapping,
            _region: region,
        });
        Ok((iova, pointer))
    }
}

impl<H: RawDma> Memory for RefCell<Session<H>> {
    fn allocate(&self, pages: usize, way: Direction) -> (Iova, NonNull<u8>) {
        let ring = self.borrow_mut().ring(pages, way);
        ring.unwrap_or_else(|error| abandon(error.into()))
    }

    fn free(&self, iova: Iova) -> bool {
        let mut session = self.borrow_mut();
        let found = session
            .rings
            .iter()
            .position(|ring| ring.mapping.iova == iova);
        let Some(index) = found else {
            return false;
        };
        let ring = session.rings.remove(index);
        session.host.unmap(ring.mapping);
        true
    }

    fn share(&self, bytes: &[u8], way: Direction) -> Iova {
        let mut session = self.borrow_mut();
        let Session { arena, host, .. } = &mut *session;
        let iova = arena.share(host, bytes, way);
        iova.unwrap_or_else(|error| abandon(error.into()))
    }

    fn unshare(&self, iova: Iova, back: Option<&mut [u8]>) {
        let mut session = self.borrow_mut();
        let Session { arena, host, .. } = &mut *session;
        arena.unshare(host, iova, back);
    }
}
