//! DMA memory, in frames: first fit over a run of the frame map.
//!
//! It knows physical addresses only. Whoever maps the memory turns them into bytes.

use cofferdam_machine::PhysAddr;
use cofferdam_machine::frames::{FRAME, Owner, Run, Use, run_of};
use std::cell::RefCell;
use std::rc::Rc;

/// Frames to be leased. Clones share them.
#[derive(Clone, Debug)]
pub struct DmaPool(Rc<Frames>);

#[derive(Debug)]
struct Frames {
    first: u64,
    taken: RefCell<Vec<bool>>,
}

impl DmaPool {
    /// The frames of that run, all free.
    pub fn new(run: &Run) -> Self {
        let count = usize::try_from(run.count).expect("a run fits memory");
        Self(Rc::new(Frames {
            first: run.first,
            taken: RefCell::new(vec![false; count]),
        }))
    }

    /// The driver's DMA memory in the frame map.
    pub fn of_driver() -> Self {
        let run = run_of(Owner::Driver, Use::DmaPool);
        Self::new(run.expect("the frame map gives the driver DMA memory"))
    }

    /// One half of the driver's DMA memory, for a driver that has to keep off what its predecessor
    /// used in the other.
    pub fn half_of_driver(upper: bool) -> Self {
        let run = run_of(Owner::Driver, Use::DmaPool);
        let run = *run.expect("the frame map gives the driver DMA memory");
        let count = run.count / 2;
        Self::new(&Run {
            first: run.first + u64::from(upper) * count,
            count,
            ..run
        })
    }

    /// The lowest consecutive frames that hold `len` bytes, and at least one; none if there are no
    /// such frames. What they hold is left as it is.
    pub fn lease(&self, len: usize) -> Option<Lease> {
        let frame = usize::try_from(FRAME).ok()?;
        let count = len.div_ceil(frame).max(1);
        let mut taken = self.0.taken.borrow_mut();
        let start = taken
            .windows(count)
            .position(|window| window.iter().all(|taken| !taken))?;
        taken[start..start + count].fill(true);
        Some(Lease {
            frames: Rc::clone(&self.0),
            start,
            count,
        })
    }

    /// Frames that nobody leases.
    pub fn free(&self) -> usize {
        let taken = self.0.taken.borrow();
        taken.iter().filter(|taken| !**taken).count()
    }
}

/// Frames that are the holder's until it drops this.
#[derive(Debug)]
pub struct Lease {
    frames: Rc<Frames>,
    start: usize,
    count: usize,
}

impl Lease {
    /// The first byte.
    pub fn at(&self) -> PhysAddr {
        PhysAddr((self.frames.first + self.start as u64) * FRAME)
    }

    /// Bytes, a multiple of [`FRAME`].
    pub fn capacity(&self) -> u64 {
        self.count as u64 * FRAME
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut taken = self.frames.taken.borrow_mut();
        taken[self.start..self.start + self.count].fill(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_are_disjoint_and_in_the_run() {
        let pool = DmaPool::of_driver();
        let run = run_of(Owner::Driver, Use::DmaPool).unwrap();
        let one = pool.lease(1).unwrap();
        let two = pool.lease(4097).unwrap();
        assert_eq!(one.at(), PhysAddr(run.bytes().start));
        assert_eq!(two.at().0, one.at().0 + one.capacity());
        assert_eq!(two.capacity(), 2 * FRAME);
    }

    #[test]
    fn dropped_frames_are_leased_again_lowest_first() {
        let pool = DmaPool::of_driver();
        let first = pool.lease(4096).unwrap();
        let _second = pool.lease(4096).unwrap();
        let at = first.at();
        drop(first);
        assert_eq!(pool.lease(10).unwrap().at(), at);
    }

    #[test]
    fn halves_are_disjoint() {
        let [lower, upper] = [false, true].map(DmaPool::half_of_driver);
        assert_eq!(lower.free(), upper.free());
        let whole = lower.lease(lower.free() * 4096).unwrap();
        let first = upper.lease(1).unwrap();
        assert_eq!(first.at().0, whole.at().0 + whole.capacity());
    }

    #[test]
    fn more_than_is_free_in_a_row_is_refused() {
        let pool = DmaPool::of_driver();
        let all = pool.free();
        assert!(pool.lease((all + 1) * 4096).is_none());
        assert!(pool.lease(usize::MAX).is_none());
        let whole = pool.lease(all * 4096).unwrap();
        assert!(pool.lease(1).is_none());
        drop(whole);
        assert_eq!(pool.free(), all);
    }
}
