//! What instrumented code calls before its loads and stores (LLVM SanitizerCoverage,
//! `trace-loads` and `trace-stores`).
//!
//! A window caught this way is ordinary memory. Before a load the register's value is put there.
//! A store is announced before it happens: it is carried out at the next announcement of any kind,
//! and by [`settle`].

use super::{HULL, Region, SEEN, Way, region_at, touch};
use crate::{constants, or_abort, steps};
use cofferdam_seam::Width;
use std::cell::Cell;
use std::ptr;

/// In [`ANNOUNCED`]: a register is being accessed, and whatever instrumented code runs meanwhile is not the
/// driver. No store has that address.
const BUSY: usize = 1;

thread_local! {
    /// The address of the store that was announced last, or [`BUSY`], or zero: the case of all but a few
    /// hooks, which ask for nothing else.
    static ANNOUNCED: Cell<usize> = const { Cell::new(0) };
    /// Its window, which settles before it goes, and bytes.
    static INTO: Cell<(*const Region, usize)> = const { Cell::new((ptr::null(), 0)) };
}

/// Carries out the announced store.
#[inline]
pub fn settle() {
    let address = ANNOUNCED.get();
    if address > BUSY {
        write(address);
    }
}

/// Forgets what was announced, by a driver that was left in the middle of it.
pub(super) fn abandon() {
    ANNOUNCED.set(0);
}

/// Whether a register is being accessed.
pub fn is_busy() -> bool {
    ANNOUNCED.get() == BUSY
}

/// Runs `access`, and no other meanwhile on this thread.
fn alone(access: impl FnOnce()) {
    ANNOUNCED.set(BUSY);
    or_abort(access);
    ANNOUNCED.set(0);
}

/// The accesses of the registers that one of the driver's is, each with its place in the window: one, but
/// 16 bytes are two of 8.
#[inline]
fn each(region: &Region, address: usize, bytes: usize, access: impl Fn(u32, usize, Width)) {
    let offset = address - region.first;
    // Beyond the end the access itself faults.
    if offset + bytes > region.served {
        return;
    }
    let Ok(offset) = u32::try_from(offset) else {
        return;
    };
    match bytes {
        1 => access(offset, address, Width::One),
        2 => access(offset, address, Width::Two),
        4 => access(offset, address, Width::Four),
        8 => access(offset, address, Width::Eight),
        _ => {
            access(offset, address, Width::Eight);
            access(offset + 8, address + 8, Width::Eight);
        }
    }
}

/// Whether nothing is to be done about an access there: the case of all but a few.
#[inline]
fn is_quiet(address: usize) -> bool {
    let (first, len) = HULL.get();
    ANNOUNCED.get() == 0 && address.wrapping_sub(first) >= len
}

#[inline]
fn load(address: usize, bytes: usize) {
    if !is_quiet(address) {
        look_at_load(address, bytes);
    }
}

// What hooks hand over to does not unwind either, so that they need no frame of their own.
#[cold]
extern "C" fn look_at_load(address: usize, bytes: usize) {
    settle();
    if let Some(region) = region_at(address, Way::Callbacks) {
        if !is_busy() {
            read(region, address, bytes);
        }
        return;
    }
    touch(address);
    if let Some(seen) = SEEN.get()
        && address.wrapping_sub(seen.first) < seen.len
        && !is_busy()
    {
        (seen.note)(address - seen.first);
    }
}

fn read(region: &Region, address: usize, bytes: usize) {
    alone(|| {
        each(region, address, bytes, |offset, at, width| {
            let value = region.target.read(offset, width);
            // SAFETY: inside the window, which is writable memory of this thread.
            unsafe { put(at, width, value) };
        });
    });
}

/// Never inlined: who settles may be instrumented.
#[inline(never)]
fn write(address: usize) {
    let (region, bytes) = INTO.get();
    // SAFETY: regions are pinned, and one that goes settles first, or `abandon` forgets what was announced.
    let region = unsafe { &*region };
    alone(|| {
        each(region, address, bytes, |offset, at, width| {
            // SAFETY: inside the window, which is readable memory of this thread.
            let value = unsafe { get(at, width) };
            region.target.write(offset, width, value);
        });
    });
}

/// Writes a value of that width, in one access: the driver's own follows, and waits for parts.
///
/// # Safety
///
/// Those bytes are writable.
#[inline]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the width says how much is meant"
)]
unsafe fn put(at: usize, width: Width, value: u64) {
    // SAFETY: the caller's promise; nobody says that they are aligned.
    unsafe {
        match width {
            Width::One => (at as *mut u8).write(value as u8),
            Width::Two => (at as *mut u16).write_unaligned(value as u16),
            Width::Four => (at as *mut u32).write_unaligned(value as u32),
            Width::Eight => (at as *mut u64).write_unaligned(value),
        }
    }
}

/// Reads a value of that width.
///
/// # Safety
///
/// Those bytes are readable.
#[inline]
unsafe fn get(at: usize, width: Width) -> u64 {
    // SAFETY: the caller's promise; nobody says that they are aligned.
    unsafe {
        match width {
            Width::One => (at as *const u8).read().into(),
            Width::Two => (at as *const u16).read_unaligned().into(),
            Width::Four => (at as *const u32).read_unaligned().into(),
            Width::Eight => (at as *const u64).read_unaligned(),
        }
    }
}

#[inline]
fn store(address: usize, bytes: usize) {
    if !is_quiet(address) {
        look_at_store(address, bytes);
    }
}

#[cold]
extern "C" fn look_at_store(address: usize, bytes: usize) {
    settle();
    match region_at(address, Way::Callbacks) {
        Some(region) if !is_busy() => {
            ANNOUNCED.set(address);
            INTO.set((ptr::from_ref(region), bytes));
        }
        _ => touch(address),
    }
}

/// A comparison: the driver computes.
#[inline]
fn compare(one: u64, other: u64) {
    if ANNOUNCED.get() != 0 || steps::is_last() {
        look_at_step(one, other);
    }
}

#[cold]
extern "C" fn look_at_step(one: u64, other: u64) {
    if is_busy() {
        return;
    }
    // The step was not counted then.
    if ANNOUNCED.get() != 0 {
        settle();
        if !steps::is_last() {
            return;
        }
    }
    steps::look(one, other);
}

macro_rules! hooks {
    ($($access:ident: $($name:ident = $bytes:literal),+;)+) => {$($(
        #[unsafe(no_mangle)]
        extern "C" fn $name(address: usize) {
            $access(address, $bytes);
        }
    )+)+};
}

hooks! {
    load: __sanitizer_cov_load1 = 1, __sanitizer_cov_load2 = 2, __sanitizer_cov_load4 = 4,
        __sanitizer_cov_load8 = 8, __sanitizer_cov_load16 = 16;
    store: __sanitizer_cov_store1 = 1, __sanitizer_cov_store2 = 2, __sanitizer_cov_store4 = 4,
        __sanitizer_cov_store8 = 8, __sanitizer_cov_store16 = 16;
}

/// Callbacks that libFuzzer has too: in its programs the linker wraps them, and each goes on to libFuzzer's.
macro_rules! shared {
    ($($name:ident, $wrapped:literal, $others:ident($($argument:ident: $kind:ty),+) $own:block)+) => {$(
        #[cfg_attr(not(feature = "libfuzzer"), unsafe(no_mangle))]
        #[cfg_attr(feature = "libfuzzer", unsafe(export_name = $wrapped))]
        extern "C" fn $name($($argument: $kind),+) {
            $own
            #[cfg(feature = "libfuzzer")]
            {
                unsafe extern "C" {
                    fn $others($($argument: $kind),+);
                }
                // SAFETY: with the arguments of the call to it.
                unsafe { $others($($argument),+) };
            }
        }
    )+};
}

shared! {
    __sanitizer_cov_trace_cmp1, "__wrap___sanitizer_cov_trace_cmp1",
    __real___sanitizer_cov_trace_cmp1(a: u8, b: u8) { compare(a.into(), b.into()); }

    __sanitizer_cov_trace_cmp2, "__wrap___sanitizer_cov_trace_cmp2",
    __real___sanitizer_cov_trace_cmp2(a: u16, b: u16) { compare(a.into(), b.into()); }

    __sanitizer_cov_trace_cmp4, "__wrap___sanitizer_cov_trace_cmp4",
    __real___sanitizer_cov_trace_cmp4(a: u32, b: u32) { compare(a.into(), b.into()); }

    __sanitizer_cov_trace_cmp8, "__wrap___sanitizer_cov_trace_cmp8",
    __real___sanitizer_cov_trace_cmp8(a: u64, b: u64) { compare(a, b); }

    __sanitizer_cov_trace_const_cmp1, "__wrap___sanitizer_cov_trace_const_cmp1",
    __real___sanitizer_cov_trace_const_cmp1(constant: u8, b: u8) { compare_with(constant.into(), b.into()); }

    __sanitizer_cov_trace_const_cmp2, "__wrap___sanitizer_cov_trace_const_cmp2",
    __real___sanitizer_cov_trace_const_cmp2(constant: u16, b: u16) { compare_with(constant.into(), b.into()); }

    __sanitizer_cov_trace_const_cmp4, "__wrap___sanitizer_cov_trace_const_cmp4",
    __real___sanitizer_cov_trace_const_cmp4(constant: u32, b: u32) { compare_with(constant.into(), b.into()); }

    __sanitizer_cov_trace_const_cmp8, "__wrap___sanitizer_cov_trace_const_cmp8",
    __real___sanitizer_cov_trace_const_cmp8(constant: u64, b: u64) { compare_with(constant, b); }

    // The value, and the cases: how many, how wide, and each.
    __sanitizer_cov_trace_switch, "__wrap___sanitizer_cov_trace_switch",
    __real___sanitizer_cov_trace_switch(value: u64, cases: *const u64) {
        if constants::are_noted() {
            note_cases(cases);
        }
        compare(value, 0);
    }
}

/// A comparison with a constant.
#[inline]
fn compare_with(constant: u64, other: u64) {
    constants::compared(constant);
    compare(constant, other);
}

#[cold]
#[expect(clippy::cast_possible_truncation, reason = "a table fits into memory")]
fn note_cases(cases: *const u64) {
    // SAFETY: LLVM passes a table that starts with its number of cases.
    let cases = unsafe { std::slice::from_raw_parts(cases.add(2), (*cases) as usize) };
    for case in cases {
        constants::compared(*case);
    }
}
