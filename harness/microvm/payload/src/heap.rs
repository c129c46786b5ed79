//! The heap: first fit, for a driver that lives as long as its guest.

use cofferdam_microvm_abi::HEAP;
use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ptr;
use linked_list_allocator::Heap as List;

/// The heap between the two addresses of [`HEAP`].
struct Heap(UnsafeCell<List>);

// SAFETY: the guest has one CPU, and its interrupt stubs never allocate.
unsafe impl Sync for Heap {}

#[global_allocator]
static ALLOCATOR: Heap = Heap(UnsafeCell::new(List::empty()));

/// Makes the heap usable.
pub fn start() {
    // SAFETY: the only CPU, nobody allocated yet; the VMM maps the range for the payload alone.
    unsafe {
        let list = &mut *ALLOCATOR.0.get();
        list.init(HEAP.start as *mut u8, (HEAP.end - HEAP.start) as usize);
    }
}

// SAFETY: the list hands out disjoint blocks of the heap that fit the layout.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the only CPU; no reference to the list outlives a call.
        let list = unsafe { &mut *self.0.get() };
        list.allocate_first_fit(layout)
            .map_or(ptr::null_mut(), ptr::NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let Some(block) = ptr::NonNull::new(block) else {
            return;
        };
        // SAFETY: the caller gives back what `alloc` gave it for that layout.
        unsafe { (*self.0.get()).deallocate(block, layout) }
    }
}
