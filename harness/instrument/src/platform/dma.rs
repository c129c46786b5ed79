//! `dma_api`: memory that devices reach.

use super::entered;
use cofferdam_seam::Direction;
use dma_api::{DmaAllocHandle, DmaConstraints, DmaDirection, DmaError, DmaMapHandle, DmaOp};
use std::alloc::Layout;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

/// What allocations are aligned to, for driver and device.
const PAGE: usize = 4096;

/// What drivers are to be given for `dma_api`. Devices are coherent.
pub static DMA: Memory = Memory;

/// The implementation of `dma_api`.
#[derive(Debug)]
pub struct Memory;

// `dma_api` itself checks every address it gets against the driver's constraints.
impl DmaOp for Memory {
    fn page_size(&self) -> usize {
        PAGE
    }

    unsafe fn alloc_contiguous(&self, _: DmaConstraints, layout: Layout) -> Option<DmaAllocHandle> {
        // Memory of no bytes would never be given back.
        if layout.size() == 0 || layout.align() > PAGE {
            return None;
        }
        let (iova, first) = entered()?.allocate(layout.size(), None)?;
        // SAFETY: the pages are the caller's until it gives them back, and mapped at `iova`.
        Some(unsafe { DmaAllocHandle::new(first, first, iova.0.into(), layout) })
    }

    unsafe fn dealloc_contiguous(&self, handle: DmaAllocHandle) {
        if let Some(session) = entered() {
            session.free(handle.allocation_ptr());
        }
    }

    unsafe fn alloc_coherent(
        &self,
        constraints: DmaConstraints,
        layout: Layout,
    ) -> Option<DmaAllocHandle> {
        // SAFETY: the same contract.
        unsafe { self.alloc_contiguous(constraints, layout) }
    }

    unsafe fn dealloc_coherent(&self, handle: DmaAllocHandle) -> Result<(), DmaError> {
        // SAFETY: the same contract.
        unsafe { self.dealloc_contiguous(handle) };
        Ok(())
    }

    unsafe fn map_streaming(
        &self,
        _: DmaConstraints,
        addr: NonNull<u8>,
        size: NonZeroUsize,
        direction: DmaDirection,
    ) -> Result<DmaMapHandle, DmaError> {
        let way = match direction {
            DmaDirection::ToDevice => Direction::ToDevice,
            DmaDirection::FromDevice => Direction::FromDevice,
            DmaDirection::Bidirectional => Direction::Both,
        };
        let layout = Layout::from_size_align(size.get(), 1)?;
        let session = entered().ok_or(DmaError::NoMemory)?;
        let (iova, bounce) = session
            .allocate(size.get(), Some(way))
            .ok_or(DmaError::NoMemory)?;
        // SAFETY: the caller vouches for its buffer; the bounce buffer lives until it is unmapped.
        Ok(unsafe { DmaMapHandle::new(addr, iova.0.into(), layout, Some(bounce)) })
    }

    unsafe fn unmap_streaming(&self, handle: DmaMapHandle) {
        if let (Some(session), Some(bounce)) = (entered(), handle.bounce_ptr()) {
            session.free(bounce);
        }
    }
}
