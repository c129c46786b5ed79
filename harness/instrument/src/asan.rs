//! AddressSanitizer in instrumented crates: what it sees is told to whoever runs the driver.
//!
//! The compiler's checks call their runtime when they fail, which ends the process after its report. In a
//! program that is linked with [`CALLS`] wrapped they call here first: a handler may note the access and
//! leave the driver, so a campaign goes on in the same process. If it returns, the runtime reports.
//!
//! All of it takes the feature `asan` and [the wrapper](crate::wrapper): without them [`ON`] is false,
//! nothing is checked, and the functions do nothing.

pub use crate::wrapper::CALLS;
use std::ops::Range;

/// Whether this program is built with AddressSanitizer.
pub const ON: bool = cfg!(feature = "asan");

/// An access that the driver must not make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// The first byte of it that is not the driver's.
    pub address: usize,
    /// Bytes of the access.
    pub len: usize,
    /// Whether it writes.
    pub write: bool,
}

/// Has `handler` answer accesses from now on. Where it returns the process ends.
pub fn answer(handler: fn(Access)) {
    runtime::answer(handler);
}

/// Has `stack` tell on which stack, if not the thread's own, instrumented code runs: from its guard to
/// its base, or empty.
pub fn run_on(stack: fn() -> Range<usize>) {
    runtime::run_on(stack);
}

/// Nobody may access these bytes from now on.
pub fn poison(bytes: &Range<usize>) {
    runtime::poison(bytes);
}

/// These bytes may be accessed again.
pub fn unpoison(bytes: &Range<usize>) {
    runtime::unpoison(bytes);
}

/// What the runtime has begun to report, if it has: the process is about to end.
pub fn reported() -> Option<&'static str> {
    runtime::reported()
}

#[cfg(not(feature = "asan"))]
mod runtime {
    use super::{Access, Range};

    pub(super) fn answer(_: fn(Access)) {}
    pub(super) fn run_on(_: fn() -> Range<usize>) {}
    pub(super) fn poison(_: &Range<usize>) {}
    pub(super) fn unpoison(_: &Range<usize>) {}
    pub(super) fn reported() -> Option<&'static str> {
        None
    }
}

#[cfg(feature = "asan")]
mod runtime {
    use super::{Access, Range};
    use std::ffi::{CStr, c_char, c_void};
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicBool, Ordering};

    // The runtime's interface: compiler-rt, include/sanitizer/asan_interface.h.
    unsafe extern "C" {
        fn __asan_poison_memory_region(first: *const c_void, len: usize);
        fn __asan_unpoison_memory_region(first: *const c_void, len: usize);
        fn __asan_region_is_poisoned(first: *const c_void, len: usize) -> *const c_void;
        fn __asan_get_report_description() -> *const c_char;
    }

    static REPORTS: AtomicBool = AtomicBool::new(false);
    static HANDLER: OnceLock<fn(Access)> = OnceLock::new();
    static STACK: OnceLock<fn() -> Range<usize>> = OnceLock::new();

    /// What the runtime does differently here. Signals are the fuzzer's. An abandoned stack keeps its
    /// memory, which is no leak, and has no fake frames. What the harness copies is its own business: of
    /// copies those of instrumented code are checked, below. A failed allocation is the driver's to
    /// handle.
    const OPTIONS: &CStr = c"handle_segv=0:handle_sigbus=0:handle_sigill=0:handle_sigfpe=0:handle_abort=0:\
        use_sigaltstack=0:abort_on_error=1:detect_leaks=0:detect_stack_use_after_return=0:replace_intrin=0:\
        allocator_may_return_null=1:quarantine_size_mb=16:malloc_context_size=1";

    pub(super) fn answer(handler: fn(Access)) {
        HANDLER.get_or_init(|| handler);
    }

    pub(super) fn run_on(stack: fn() -> Range<usize>) {
        STACK.get_or_init(|| stack);
    }

    pub(super) fn poison(bytes: &Range<usize>) {
        // SAFETY: only the runtime's map of memory changes.
        unsafe { __asan_poison_memory_region(bytes.start as *const _, bytes.len()) };
    }

    pub(super) fn unpoison(bytes: &Range<usize>) {
        // SAFETY: as above.
        unsafe { __asan_unpoison_memory_region(bytes.start as *const _, bytes.len()) };
    }

    pub(super) fn reported() -> Option<&'static str> {
        if !REPORTS.load(Ordering::Relaxed) {
            return None;
        }
        // SAFETY: it reads what the runtime has written.
        let told = unsafe { __asan_get_report_description() };
        if told.is_null() {
            return Some("an error");
        }
        // SAFETY: the runtime's own words, which are for good.
        let told = unsafe { CStr::from_ptr(told) };
        Some(told.to_str().unwrap_or("an error"))
    }

    /// The runtime begins a report.
    #[unsafe(no_mangle)]
    extern "C" fn __asan_on_error() {
        REPORTS.store(true, Ordering::Relaxed);
    }

    /// The runtime asks before `main`.
    #[unsafe(no_mangle)]
    extern "C" fn __asan_default_options() -> *const c_char {
        OPTIONS.as_ptr()
    }

    fn bad(address: usize, len: usize, write: bool) {
        if let Some(handler) = HANDLER.get() {
            handler(Access {
                address,
                len,
                write,
            });
        }
    }

    /// Of a range some bytes may not be the driver's: tells of the first.
    fn check(first: usize, len: usize, write: bool) {
        // SAFETY: it reads the runtime's map of memory.
        let wrong = unsafe { __asan_region_is_poisoned(first as *const _, len) };
        if len > 0 && !wrong.is_null() {
            bad(wrong as usize, len, write);
        }
    }

    macro_rules! reports {
        ($($call:ident, $own:ident: $len:literal, $write:literal;)+) => {$(
            unsafe extern "C" {
                fn $call(address: usize) -> !;
            }
            #[unsafe(no_mangle)]
            extern "C" fn $own(address: usize) -> ! {
                bad(address, $len, $write);
                // SAFETY: the runtime's own, with the arguments of the call to it.
                unsafe { $call(address) }
            }
        )+};
    }

    reports! {
        __real___asan_report_load1, __wrap___asan_report_load1: 1, false;
        __real___asan_report_load2, __wrap___asan_report_load2: 2, false;
        __real___asan_report_load4, __wrap___asan_report_load4: 4, false;
        __real___asan_report_load8, __wrap___asan_report_load8: 8, false;
        __real___asan_report_load16, __wrap___asan_report_load16: 16, false;
        __real___asan_report_store1, __wrap___asan_report_store1: 1, true;
        __real___asan_report_store2, __wrap___asan_report_store2: 2, true;
        __real___asan_report_store4, __wrap___asan_report_store4: 4, true;
        __real___asan_report_store8, __wrap___asan_report_store8: 8, true;
        __real___asan_report_store16, __wrap___asan_report_store16: 16, true;
    }

    macro_rules! sized_reports {
        ($($call:ident, $own:ident: $write:literal;)+) => {$(
            unsafe extern "C" {
                fn $call(address: usize, len: usize) -> !;
            }
            #[unsafe(no_mangle)]
            extern "C" fn $own(address: usize, len: usize) -> ! {
                bad(address, len, $write);
                // SAFETY: as above.
                unsafe { $call(address, len) }
            }
        )+};
    }

    sized_reports! {
        __real___asan_report_load_n, __wrap___asan_report_load_n: false;
        __real___asan_report_store_n, __wrap___asan_report_store_n: true;
    }

    unsafe extern "C" {
        fn __real___asan_memcpy(to: *mut c_void, from: *const c_void, len: usize) -> *mut c_void;
        fn __real___asan_memmove(to: *mut c_void, from: *const c_void, len: usize) -> *mut c_void;
        fn __real___asan_memset(to: *mut c_void, byte: i32, len: usize) -> *mut c_void;
        fn __real___asan_handle_no_return();
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn __wrap___asan_memcpy(
        to: *mut c_void,
        from: *const c_void,
        len: usize,
    ) -> *mut c_void {
        check(from as usize, len, false);
        check(to as usize, len, true);
        // SAFETY: the caller's own copy.
        unsafe { __real___asan_memcpy(to, from, len) }
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn __wrap___asan_memmove(
        to: *mut c_void,
        from: *const c_void,
        len: usize,
    ) -> *mut c_void {
        check(from as usize, len, false);
        check(to as usize, len, true);
        // SAFETY: the caller's own copy.
        unsafe { __real___asan_memmove(to, from, len) }
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn __wrap___asan_memset(
        to: *mut c_void,
        byte: i32,
        len: usize,
    ) -> *mut c_void {
        check(to as usize, len, true);
        // SAFETY: the caller's own.
        unsafe { __real___asan_memset(to, byte, len) }
    }

    /// Frames are about to go without an end of their own, by a panic. The runtime knows the thread's own
    /// stack only.
    #[unsafe(no_mangle)]
    extern "C" fn __wrap___asan_handle_no_return() {
        let stack = STACK.get().map_or(0..0, |stack| stack());
        let here = (&raw const stack) as usize;
        if stack.contains(&here) {
            unpoison(&(here & !7..stack.end));
        } else {
            // SAFETY: the runtime's own.
            unsafe { __real___asan_handle_no_return() };
        }
    }
}
