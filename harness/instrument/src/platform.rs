//! The operating system that drivers of the `dma_api` and `mmio_api` family expect: nvme-driver,
//! eth-intel, ahci-driver and others.
//!
//! Both crates are static functions without a `self`, and the first implementation of `mmio_api` that
//! a process installs is its only one. So there is one implementation, [`MMIO`] and [`DMA`], which
//! finds the [`Session`] it serves in a thread-local: a driver's adapter [enters](Entered) it around
//! every call into the driver, drops included.
//!
//! `dma_api` does not say which way an allocation will be used, so all of an allocation's pages are
//! mapped for both, for as long as it lives; an adapter that makes a request's buffer itself knows
//! better ([`Session::one_way`]). Streaming buffers are the caller's memory, which no device can reach:
//! they are bounced, and mapped one way.

mod dma;
mod locks;
mod mmio;
mod session;

pub use dma::DMA;
pub use mmio::{MMIO, address_of};
pub use session::Session;

use crate::steps::{Stepping, Turn};
use crate::trap;
use cofferdam_seam::{Direction, Iova};
use std::cell::RefCell;
use std::ptr::NonNull;
use std::rc::Rc;

/// What the two interfaces ask of a session.
trait Platform: Turn {
    /// A pointer to `len` bytes of registers at [`address_of`] a BAR.
    fn map_registers(&self, address: usize, len: usize) -> Option<NonNull<u8>>;
    /// Takes back registers that were mapped.
    fn unmap_registers(&self, first: NonNull<u8>);
    /// Zeroed whole pages, mapped that way, or as the adapter says.
    fn allocate(&self, len: usize, way: Option<Direction>) -> Option<(Iova, NonNull<u8>)>;
    /// Unmaps and frees pages.
    fn free(&self, first: NonNull<u8>);
}

thread_local! {
    /// The session whose call into a driver is on this thread's stack.
    static ENTERED: RefCell<Option<Rc<dyn Platform>>> = const { RefCell::new(None) };
}

/// Enters a session, until it is dropped.
#[must_use = "the session is left when this is dropped"]
pub struct Entered {
    outer: Option<Rc<dyn Platform>>,
    _stepping: Stepping,
}

impl Entered {
    /// From now on.
    pub fn new<H: cofferdam_seam::RawDma + 'static>(session: &Rc<Session<H>>) -> Self {
        let platform: Rc<dyn Platform> = session.clone();
        Self {
            outer: ENTERED.replace(Some(platform)),
            _stepping: Stepping::new(session.clone()),
        }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        trap::settle();
        ENTERED.set(self.outer.take());
    }
}

/// Forgets the entered session of a driver that was left on its stack and whose memory is about to go:
/// it is not dropped.
pub fn abandon() {
    std::mem::forget(ENTERED.take());
}

/// The entered session, or none: nothing is to be had then.
fn entered() -> Option<Rc<dyn Platform>> {
    trap::settle();
    ENTERED.with_borrow(Clone::clone)
}
