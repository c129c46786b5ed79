//! What a buggy driver's CPU does, on request.

use alloc::vec::Vec;
use core::arch::asm;
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

/// Two cache lines, and nothing else on them.
#[repr(align(64))]
struct Lines([u8; 128]);

/// So many locked increments, within a line or across two: those lock the bus.
pub fn lock(aligned: bool, count: u64) {
    let mut lines = Lines([0; 128]);
    let at = if aligned { 0 } else { 62 };
    let word = (&raw mut lines.0).cast::<u8>().wrapping_add(at);
    for _ in 0..count {
        // SAFETY: the four bytes lie in `lines`, which nobody else uses; x86 increments them wherever
        // they are.
        unsafe { asm!("lock inc dword ptr [{}]", in(reg) word, options(nostack)) };
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
