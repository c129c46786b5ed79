//! The arena's blocks under AddressSanitizer: each has bytes around it that nobody may access, a freed
//! one is closed until the execution ends, and an access beyond can be told by the block it belongs to.
//! What touches headers is never inlined: the allocator may be compiled in a crate that is checked.

use cofferdam_instrument::asan;
use std::cell::Cell;
use std::ops::Range;
use std::ptr;

/// Before each block, where no driver may look.
#[derive(Clone, Copy)]
struct Header {
    /// The block before it; 0 if there is none.
    before: usize,
    len: usize,
    freed: bool,
}

/// Bytes before a block at least.
pub(super) const LEAD: usize = 32;

/// What blocks start at multiples of: the headers, and what AddressSanitizer can tell apart.
pub(super) const ALIGN: usize = 16;

thread_local! {
    /// The last block; 0 if there is none.
    static LAST: Cell<usize> = const { Cell::new(0) };
}

/// Bytes behind a block that nobody has: more where an index goes in larger steps.
pub(super) fn trail(len: usize) -> usize {
    (len / 4).clamp(64, 4096)
}

fn header(block: usize) -> *mut Header {
    const { assert!(size_of::<Header>() <= LEAD && align_of::<Header>() <= ALIGN) };
    (block - LEAD) as *mut Header
}

/// A block begins, behind as many bytes of its own as [`LEAD`].
#[inline(never)]
pub(super) fn begin(block: usize, len: usize) {
    let before = LAST.replace(block);
    let new = Header {
        before,
        len,
        freed: false,
    };
    // SAFETY: these bytes of the arena are no block's.
    unsafe { ptr::write(header(block), new) };
    asan::unpoison(&(block..block + len));
}

/// The block is freed; whether it was not before.
#[inline(never)]
pub(super) fn end(block: usize) -> bool {
    // SAFETY: written by `begin`, and no driver's access reaches it.
    let header = unsafe { &mut *header(block) };
    asan::poison(&(block..block + header.len));
    !std::mem::replace(&mut header.freed, true)
}

/// There are no blocks any more.
#[inline(never)]
pub(super) fn forget(used: &Range<usize>) {
    LAST.set(0);
    asan::poison(used);
}

/// What the address is to the last block that begins before it: the same words each time.
#[inline(never)]
pub(super) fn around(address: usize) -> Option<String> {
    let mut block = LAST.get();
    while block != 0 {
        // SAFETY: as in `end`.
        let header = unsafe { *header(block) };
        if block <= address {
            let at = address - block;
            return Some(match (header.freed, at.checked_sub(header.len)) {
                (_, Some(behind)) => {
                    format!("{behind} bytes behind a block of {} bytes", header.len)
                }
                (true, None) => {
                    format!("byte {at} of a freed block of {} bytes", header.len)
                }
                // An access that begins inside and ends beyond.
                (false, None) => format!("byte {at} of a block of {} bytes", header.len),
            });
        }
        block = header.before;
    }
    None
}
