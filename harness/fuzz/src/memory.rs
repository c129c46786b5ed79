//! The memory that drivers give to devices: one range of this process, reused by every execution.
//!
//! Pages are handed out in order and never twice in an execution, so that an address that was given
//! back stays recognisable. Driver and device both reach it by raw copies; nobody keeps a reference.

#![expect(
    unsafe_code,
    reason = "drivers hold pointers to memory that devices change, which no reference may cover"
)]

use cofferdam_instrument::asan;
use std::io;
use std::ops::Range;
use std::ptr::{self, NonNull};

/// The unit of allocation.
pub const PAGE: usize = 4096;

/// All there is. Reserved at once, and backed by the system where it is touched.
const WHOLE: usize = 64 << 20;

/// Bytes between two pieces that are nobody's, where AddressSanitizer looks.
const GAP: usize = if asan::ON { 64 } else { 0 };

/// The memory, and how much of it this execution has handed out.
pub struct Memory {
    first: NonNull<u8>,
    used: usize,
    /// Up to here bytes may differ from zero.
    dirty: usize,
    /// Somebody asked for more than there is, in this execution.
    exhausted: bool,
}

impl Memory {
    /// Reserves the memory.
    ///
    /// # Errors
    ///
    /// The system has no addresses left.
    pub fn new() -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: fresh addresses, chosen by the system.
        let mapped = unsafe { libc::mmap(ptr::null_mut(), WHOLE, protection, flags, -1, 0) };
        match NonNull::new(mapped.cast()) {
            Some(first) if mapped != libc::MAP_FAILED => {
                let memory = Self {
                    first,
                    used: 0,
                    dirty: 0,
                    exhausted: false,
                };
                asan::poison(&memory.addresses());
                Ok(memory)
            }
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Takes everything back.
    pub fn reset(&mut self) {
        self.dirty = self.dirty.max(self.used);
        self.close(&(0..self.used));
        self.used = 0;
        self.exhausted = false;
    }

    /// Zeroed memory that starts at a multiple of `align`, a power of two up to [`PAGE`]: the offset
    /// of its first byte.
    pub fn allocate(&mut self, len: usize, align: usize) -> Option<usize> {
        let start = self.used.checked_next_multiple_of(align)?;
        let end = start.checked_add(len)?;
        if end > WHOLE - GAP {
            self.exhausted = true;
            return None;
        }
        let stale = end.min(self.dirty).saturating_sub(start);
        if stale > 0 {
            // SAFETY: inside the range, which is ours and lives for good.
            unsafe { self.first.add(start).write_bytes(0, stale) };
        }
        self.used = end + GAP;
        let first = self.addresses().start;
        asan::unpoison(&(first + start..first + end));
        Some(start)
    }

    /// The driver gave memory back: it may not be accessed through a pointer any more.
    pub fn close(&self, bytes: &Range<usize>) {
        let first = self.addresses().start;
        asan::poison(&(first + bytes.start..first + bytes.end));
    }

    /// Whether there was too little in this execution: then some of what a driver gives back it never got.
    pub fn is_exhausted(&self) -> bool {
        self.exhausted
    }

    /// The bytes of this process at an offset below [`Self::len`].
    pub fn pointer(&self, at: usize) -> NonNull<u8> {
        debug_assert!(at <= WHOLE, "an offset of this memory");
        // SAFETY: inside the range or at its end.
        unsafe { self.first.add(at.min(WHOLE)) }
    }

    /// Bytes that were handed out.
    pub fn len(&self) -> usize {
        self.used
    }

    /// Where the memory lies in this process.
    pub fn addresses(&self) -> Range<usize> {
        let first = self.first.as_ptr() as usize;
        first..first + WHOLE
    }

    /// Copies bytes out. What lies beyond the memory handed out reads as zero.
    pub fn read(&self, at: usize, into: &mut [u8]) {
        let inside = self.inside(at, into.len());
        let (here, beyond) = into.split_at_mut(inside);
        if !beyond.is_empty() {
            beyond.fill(0);
        }
        // SAFETY: inside the range, and no reference to its bytes exists.
        unsafe {
            self.pointer(at)
                .as_ptr()
                .copy_to_nonoverlapping(here.as_mut_ptr(), inside);
        }
    }

    /// Copies bytes in. What lies beyond the memory handed out is dropped.
    pub fn write(&mut self, at: usize, from: &[u8]) {
        let inside = self.inside(at, from.len());
        // SAFETY: as in `read`.
        unsafe {
            self.pointer(at)
                .as_ptr()
                .copy_from_nonoverlapping(from.as_ptr(), inside);
        }
    }

    fn inside(&self, at: usize, len: usize) -> usize {
        self.used.saturating_sub(at).min(len)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the range is ours, and whoever got a pointer into it ended with its execution.
        unsafe { libc::munmap(self.first.as_ptr().cast(), WHOLE) };
    }
}
