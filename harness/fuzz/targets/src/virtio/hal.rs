//! The crate's HAL, over the world of the running execution.

use cofferdam_fuzz::host::FuzzHost;
use cofferdam_seam::{Direction, Iova};
use std::ptr::NonNull;
use virtio_drivers::{BufferDirection, Hal, PhysAddr};

/// The HAL.
pub struct FuzzHal;

fn way(direction: BufferDirection) -> Direction {
    match direction {
        BufferDirection::DriverToDevice => Direction::ToDevice,
        BufferDirection::DeviceToDriver => Direction::FromDevice,
        BufferDirection::Both => Direction::Both,
    }
}

// SAFETY: each method keeps its part of the contract, see there.
unsafe impl Hal for FuzzHal {
    // Pages are zeroed, aligned, and nobody else's for the rest of the execution. If there are none
    // the address is 0, which the crate takes for an error.
    fn dma_alloc(pages: usize, direction: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        match FuzzHost::current().allocate_pages(pages, way(direction)) {
            Ok((iova, first)) => (iova.0, first),
            Err(_) => (0, NonNull::dangling()),
        }
    }

    unsafe fn dma_dealloc(paddr: PhysAddr, _vaddr: NonNull<u8>, _pages: usize) -> i32 {
        if FuzzHost::current().free_pages(Iova(paddr)) {
            0
        } else {
            -1
        }
    }

    // Only the crate's own PCI transport asks.
    unsafe fn mmio_phys_to_virt(_paddr: PhysAddr, _size: usize) -> NonNull<u8> {
        NonNull::dangling()
    }

    unsafe fn share(buffer: NonNull<[u8]>, direction: BufferDirection) -> PhysAddr {
        // SAFETY: the caller vouches for the buffer during this call, and nothing keeps the
        // reference.
        let bytes = unsafe { buffer.as_ref() };
        let shared = FuzzHost::current().share(bytes, way(direction));
        // There is no way to say no; nothing is mapped at zero.
        shared.map_or(0, |shared| shared.iova.0)
    }

    unsafe fn unshare(paddr: PhysAddr, mut buffer: NonNull<[u8]>, direction: BufferDirection) {
        let len = buffer.len();
        let back = if way(direction).device_writes() {
            // SAFETY: the caller vouches for the buffer during this call; one that the device was
            // to write was made from a `&mut` by the crate.
            Some(unsafe { buffer.as_mut() })
        } else {
            None
        };
        FuzzHost::current().unshare(Iova(paddr), len, back);
    }
}
