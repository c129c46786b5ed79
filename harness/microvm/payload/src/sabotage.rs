//! What a buggy driver's CPU does, on request.

use alloc::vec::Vec;
use core::hint::{black_box, spin_loop};

/// Stores a byte, that many times in a row, wherever the address is.
pub fn store(at: u64, byte: u64, count: u64) {
    for offset in 0..count {
        // SAFETY: none; that is the point. The guest's memory and what the VMM gave it are all there is.
        unsafe { (at.wrapping_add(offset) as *mut u8).write_volatile(byte as u8) };
    }
}

/// Stores these bytes, wherever the address is.
pub fn plant(at: u64, bytes: &[u8]) {
    for (offset, byte) in (0..).zip(bytes) {
        store(at.wrapping_add(offset), (*byte).into(), 1);
    }
}

/// Never ends.
pub fn spin() -> ! {
    loop {
        spin_loop();
    }
}

/// Uses a page of stack a level.
#[inline(never)]
pub fn overflow(levels: u64) -> u64 {
    let frame = black_box([levels as u8; 4096]);
    if levels == 0 {
        return frame[0].into();
    }
    overflow(levels - 1) + u64::from(frame[levels as usize % frame.len()])
}

/// Uses up the heap.
pub fn exhaust() -> ! {
    let mut blocks = Vec::new();
    loop {
        blocks.push(black_box(alloc::vec![0_u8; 4096]));
    }
}
