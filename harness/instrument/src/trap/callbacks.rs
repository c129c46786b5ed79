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

thread_local! {
    /// The store that was announced last: its address, or zero, and bytes. Apart, because most hooks ask
    /// for the address only.
    static ANNOUNCED: Cell<usize> = const { Cell::new(0) };
    static BYTES: Cell<usize> = const { Cell::new(0) };
    /// A register is being accessed: whatever instrumented code runs meanwhile is not the driver.
    static BUSY: Cell<bool> = const { Cell::new(false) };
}

/// Carries out the announced store.
#[inline]
pub fn settle() {
    let address = ANNOUNCED.get();
    if address != 0 {
        ANNOUNCED.set(0);
        write(address, BYTES.get());
    }
}

/// Forgets what was announced, by a driver that was left in the middle of it.
pub(super) fn abandon() {
    ANNOUNCED.set(0);
    BUSY.set(false);
}

/// Whether a register is being accessed.
pub fn is_busy() -> bool {
    BUSY.get()
}

/// Runs `access` unless one is running on this thread.
fn alone(access: impl FnOnce()) {
    if !BUSY.replace(true) {
        or_abort(access);
        BUSY.set(false);
    }
}

/// The accesses of the registers that one of the driver's is, each with its place in the window: one, but
/// 16 bytes are two of 8.
#[inline]
fn each(region: &Region, address: usize, bytes: usize, access: impl Fn(u32, usize, Width)) {
    let offset = address - region.first;
    let step = bytes.min(8);
    // Beyond the end the access itself faults.
    if offset + bytes > region.served {
        return;
    }
    let Some(width) = Width::from_bytes(step as u64) else {
        return;
    };
    for at in (0..bytes).step_by(step) {
        if let Ok(offset) = u32::try_from(offset + at) {
            access(offset, address + at, width);
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

#[cold]
fn look_at_load(address: usize, bytes: usize) {
    settle();
    if let Some(region) = region_at(address, Way::Callbacks) {
        read(region, address, bytes);
        return;
    }
    touch(address);
    if let Some(seen) = SEEN.get()
        && address.wrapping_sub(seen.first) < seen.len
        && !BUSY.get()
    {
        (seen.note)(address - seen.first);
    }
}

#[cold]
fn read(region: &Region, address: usize, bytes: usize) {
    alone(|| {
        each(region, address, bytes, |offset, at, width| {
            let value = region.target.read(offset, width).to_le_bytes();
            let len = width.bytes() as usize;
            // SAFETY: inside the window, which is writable memory of this thread.
            unsafe { (at as *mut u8).copy_from_nonoverlapping(value.as_ptr(), len) };
        });
    });
}

#[cold]
fn write(address: usize, bytes: usize) {
    // It may be gone since.
    let Some(region) = region_at(address, Way::Callbacks) else {
        return;
    };
    alone(|| {
        each(region, address, bytes, |offset, at, width| {
            let (mut value, len) = ([0; 8], width.bytes() as usize);
            // SAFETY: inside the window, which is readable memory of this thread.
            unsafe { (at as *const u8).copy_to_nonoverlapping(value.as_mut_ptr(), len) };
            let value = u64::from_le_bytes(value);
            region.target.write(offset, width, value);
        });
    });
}

#[inline]
fn store(address: usize, bytes: usize) {
    if !is_quiet(address) {
        look_at_store(address, bytes);
    }
}

#[cold]
fn look_at_store(address: usize, bytes: usize) {
    settle();
    if !BUSY.get() && region_at(address, Way::Callbacks).is_some() {
        ANNOUNCED.set(address);
        BYTES.set(bytes);
    } else {
        touch(address);
    }
}

/// A comparison: the driver computes.
#[inline]
fn compare() {
    settle();
    if !BUSY.get() {
        steps::step();
    }
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
    __real___sanitizer_cov_trace_cmp1(_a: u8, _b: u8) { compare(); }

    __sanitizer_cov_trace_cmp2, "__wrap___sanitizer_cov_trace_cmp2",
    __real___sanitizer_cov_trace_cmp2(_a: u16, _b: u16) { compare(); }

    __sanitizer_cov_trace_cmp4, "__wrap___sanitizer_cov_trace_cmp4",
    __real___sanitizer_cov_trace_cmp4(_a: u32, _b: u32) { compare(); }

    __sanitizer_cov_trace_cmp8, "__wrap___sanitizer_cov_trace_cmp8",
    __real___sanitizer_cov_trace_cmp8(_a: u64, _b: u64) { compare(); }

    __sanitizer_cov_trace_const_cmp1, "__wrap___sanitizer_cov_trace_const_cmp1",
    __real___sanitizer_cov_trace_const_cmp1(constant: u8, _b: u8) { compare_with(constant.into()); }

    __sanitizer_cov_trace_const_cmp2, "__wrap___sanitizer_cov_trace_const_cmp2",
    __real___sanitizer_cov_trace_const_cmp2(constant: u16, _b: u16) { compare_with(constant.into()); }

    __sanitizer_cov_trace_const_cmp4, "__wrap___sanitizer_cov_trace_const_cmp4",
    __real___sanitizer_cov_trace_const_cmp4(constant: u32, _b: u32) { compare_with(constant.into()); }

    __sanitizer_cov_trace_const_cmp8, "__wrap___sanitizer_cov_trace_const_cmp8",
    __real___sanitizer_cov_trace_const_cmp8(constant: u64, _b: u64) { compare_with(constant); }

    // The value, and the cases: how many, how wide, and each.
    __sanitizer_cov_trace_switch, "__wrap___sanitizer_cov_trace_switch",
    __real___sanitizer_cov_trace_switch(_value: u64, cases: *const u64) {
        if constants::are_noted() {
            note_cases(cases);
        }
        compare();
    }
}

/// A comparison with a constant.
#[inline]
fn compare_with(constant: u64) {
    constants::compared(constant);
    compare();
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
