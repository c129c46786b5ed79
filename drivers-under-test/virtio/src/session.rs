//! What a driver's life holds: its host, its memory, and the deadline of the call it is in.

use crate::abandon::abandon;
use crate::arena::Arena;
use crate::hal::Memory;
use cofferdam_seam::service::DriverError;
use cofferdam_seam::{Deadline, Direction, DmaRegion, HostError, Iova, Mapping, RawDma};
use std::cell::RefCell;
use std::ptr::NonNull;
use std::rc::Rc;
use virtio_drivers::PAGE_SIZE;

/// The session, as a driver, its transport and the HAL share it.
pub type Shared<H> = Rc<RefCell<Session<H>>>;

/// Memory comes first: it goes back before the host it came from does.
pub struct Session<H: RawDma> {
    rings: Vec<Ring<H::Dma>>,
    arena: Arena<H::Dma>,
    pub host: H,
    /// When the running request or probe ends at the latest.
    pub until: Deadline,
    /// The queues the crate waits for.
    waited: Vec<Waited>,
    /// The one of them whose answer is there, as far as the crate has not taken it yet.
    answered: Option<u16>,
}

/// A queue whose requests the crate waits for by reading the used ring without end.
struct Waited {
    queue: u16,
    /// Where its used ring is.
    used: Iova,
    /// The crate's own index into it: where the answer it waits for will be.
    popped: u16,
}

/// Offsets in a used ring, and its flag (virtio 1.2, 2.7.8).
const USED_FLAGS: usize = 0;
const USED_INDEX: usize = 2;
const NO_NOTIFY: u16 = 1;

/// A part of a virtqueue, mapped for its whole life.
struct Ring<D> {
    mapping: Mapping,
    /// Owns the bytes the crate holds a pointer to.
    region: D,
}

impl<H: RawDma> Session<H> {
    /// A session whose requests share `arena` bytes in as many `buffers` at a time.
    pub fn new(
        mut host: H,
        arena: usize,
        buffers: usize,
        until: Deadline,
    ) -> Result<Self, HostError> {
        Ok(Self {
            rings: Vec::new(),
            arena: Arena::new(&mut host, arena, buffers)?,
            host,
            until,
            waited: Vec::new(),
            answered: None,
        })
    }

    /// A request begins, to be over at the deadline.
    pub fn begin(&mut self, until: Deadline) {
        self.until = until;
        self.answered = None;
    }

    /// From now on the crate waits for the answers in that queue's used ring.
    pub fn watch(&mut self, queue: u16, used: Iova) {
        self.waited.push(Waited {
            queue,
            used,
            popped: 0,
        });
    }

    /// Whether the answer that the crate waits for in that queue is there.
    pub fn answered(&mut self, queue: u16) -> bool {
        let mut waited = self.waited.iter();
        let Some(waited) = waited.find(|waited| waited.queue == queue) else {
            return true;
        };
        let there = self.used_word(waited.used, USED_INDEX) != waited.popped;
        self.answered = there.then_some(queue);
        there
    }

    /// The crate took an answer: the buffers of the request come back.
    fn took(&mut self) {
        let queue = self.answered.take();
        let mut waited = self.waited.iter_mut();
        if let Some(waited) = waited.find(|waited| Some(waited.queue) == queue) {
            waited.popped = waited.popped.wrapping_add(1);
        }
    }

    /// Whether the device does not want to hear the doorbell of a queue the crate waits for: the
    /// crate would then wait without ringing it.
    fn silenced(&self) -> bool {
        let mut waited = self.waited.iter();
        waited.any(|waited| self.used_word(waited.used, USED_FLAGS) & NO_NOTIFY != 0)
    }

    fn used_word(&self, used: Iova, at: usize) -> u16 {
        let mut rings = self.rings.iter();
        let ring = rings.find(|ring| ring.mapping.iova == used);
        let mut word = [0; 2];
        if let Some(ring) = ring {
            ring.region.read_at(at, &mut word);
        }
        u16::from_le_bytes(word)
    }

    /// Waits until the device hears its doorbells.
    fn await_hearing(&mut self) -> Result<(), DriverError> {
        while self.silenced() {
            self.poll("the device to hear its doorbell")?;
        }
        Ok(())
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
        self.rings.push(Ring { mapping, region });
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
        if let Err(error) = session.await_hearing() {
            drop(session);
            abandon(error);
        }
        let Session { arena, host, .. } = &mut *session;
        let iova = arena.share(host, bytes, way);
        drop(session);
        iova.unwrap_or_else(|error| abandon(error.into()))
    }

    fn unshare(&self, iova: Iova, back: Option<&mut [u8]>) {
        let mut session = self.borrow_mut();
        session.took();
        let Session { arena, host, .. } = &mut *session;
        arena.unshare(host, iova, back);
    }
}
