//! The heap of a payload for fuzzing: blocks are handed out one after the other and never twice, so that
//! whoever uses one that was freed sees its old bytes, the same every time. A reset begins anew, and leaves
//! the bytes where they are.

use cofferdam_microvm_abi::ARENA;
use cofferdam_microvm_runtime::lent;
use core::alloc::{GlobalAlloc, Layout};
use core::arch::global_asm;
use core::cell::Cell;
use core::ptr;

// Tells the VMM that there is one.
global_asm!(
    ".pushsection .system, \"ax\"",
    ".global payload_arena",
    "payload_arena: ret",
    ".popsection",
);

/// The address behind the last block.
struct Arena(Cell<u64>);

// SAFETY: the guest has one CPU, and its interrupt stubs never allocate.
unsafe impl Sync for Arena {}

#[global_allocator]
static ALLOCATOR: Arena = Arena(Cell::new(ARENA.start));

/// Makes the heap usable, which it is.
pub fn start() {}

impl Arena {
    fn take(&self, layout: Layout) -> Option<*mut u8> {
        let start = self
            .0
            .get()
            .checked_next_multiple_of(layout.align() as u64)?;
        let end = start.checked_add(layout.size() as u64)?;
        if end > ARENA.end {
            return None;
        }
        self.0.set(end);
        Some(start as *mut u8)
    }
}

// SAFETY: blocks do not overlap, and fit their layout.
unsafe impl GlobalAlloc for Arena {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.take(layout).unwrap_or(ptr::null_mut())
    }

    // The provided `alloc_zeroed` writes the zeroes: an earlier execution's bytes are there.
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        lent::freed(block, layout.size());
    }
}
