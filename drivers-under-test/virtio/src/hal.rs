//! The crate's HAL: static functions, which find the session they serve in a thread-local.

use cofferdam_seam::{Direction, Iova};
use std::cell::RefCell;
use std::ptr::NonNull;
use std::rc::Rc;
use virtio_drivers::{BufferDirection, Hal, PhysAddr};

/// What the HAL asks of a session.
pub trait Memory {
    /// Zeroed pages, mapped; their address and their first byte, valid and nobody else's until
    /// they are freed. Abandons the call if there are none.
    fn allocate(&self, pages: usize, way: Direction) -> (Iova, NonNull<u8>);
    /// Frees the pages at `iova`; false if there are none.
    fn free(&self, iova: Iova) -> bool;
    /// Copies bytes to where the device can reach them. Abandons the call if there is no room.
    fn share(&self, bytes: &[u8], way: Direction) -> Iova;
    /// Takes shared bytes back, and copies them to `back`.
    fn unshare(&self, iova: Iova, back: Option<&mut [u8]>);
}

thread_local! {
    /// The session whose call into the crate is on this thread's stack.
    static ENTERED: RefCell<Option<Rc<dyn Memory>>> = const { RefCell::new(None) };
}

/// Enters a session, until it is dropped. Must surround every call into the crate, drops included.
#[must_use = "the session is left when this is dropped"]
pub struct Entered {
    outer: Option<Rc<dyn Memory>>,
}

impl Entered {
    pub fn new(memory: Rc<dyn Memory>) -> Self {
        Self {
            outer: ENTERED.replace(Some(memory)),
        }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        ENTERED.set(self.outer.take());
    }
}

/// The entered session. Every call into the crate is made by this adapter, which enters first.
fn entered() -> Rc<dyn Memory> {
    ENTERED
        .with_borrow(Clone::clone)
        .expect("a call into the crate without an entered session")
}

fn way(direction: BufferDirection) -> Direction {
    match direction {
        BufferDirection::DriverToDevice => Direction::ToDevice,
        BufferDirection::DeviceToDriver => Direction::FromDevice,
        BufferDirection::Both => Direction::Both,
    }
}

/// The HAL.
pub struct SeamHal;

// SAFETY: each method keeps its part of the contract, see there.
unsafe impl Hal for SeamHal {
    // `Memory::allocate` is over `alloc_dma`: zeroed, page aligned, exclusive; and the session
    // keeps the region until `dma_dealloc`.
    fn dma_alloc(pages: usize, direction: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let (iova, pointer) = entered().allocate(pages, way(direction));
        (iova.0, pointer)
    }

    unsafe fn dma_dealloc(paddr: PhysAddr, _vaddr: NonNull<u8>, _pages: usize) -> i32 {
        if entered().free(Iova(paddr)) { 0 } else { -1 }
    }

    // Only the crate's own PCI transport asks, and it is not used here.
    unsafe fn mmio_phys_to_virt(_paddr: PhysAddr, _size: usize) -> NonNull<u8> {
        panic!("registers of the seam have no pointers; use the adapter's transport")
    }

    unsafe fn share(buffer: NonNull<[u8]>, direction: BufferDirection) -> PhysAddr {
        // SAFETY: the caller vouches for the buffer during this call, and nothing keeps the
        // reference.
        let bytes = unsafe { buffer.as_ref() };
        entered().share(bytes, way(direction)).0
    }

    unsafe fn unshare(paddr: PhysAddr, mut buffer: NonNull<[u8]>, direction: BufferDirection) {
        let back = if way(direction).device_writes() {
            // SAFETY: the caller vouches for the buffer during this call; one that the device was
            // to write was made from a `&mut` by the crate.
            Some(unsafe { buffer.as_mut() })
        } else {
            None
        };
        entered().unshare(Iova(paddr), back);
    }
}
