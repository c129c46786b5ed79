//! What instrumented code says about itself: its edge counters, before `main`.

use crate::wrapper;
use std::slice;
use std::sync::Mutex;
use std::sync::atomic::AtomicU8;

/// The edge counters of all instrumented crates, in the order in which they were announced.
static COUNTERS: Mutex<Vec<&'static [AtomicU8]>> = Mutex::new(Vec::new());

/// The edge counters of instrumented code, one slice a compilation unit. They wrap around.
pub fn counters() -> Vec<&'static [AtomicU8]> {
    COUNTERS
        .lock()
        .map(|counters| counters.clone())
        .unwrap_or_default()
}

/// Whether that crate was built by [the wrapper](crate::wrapper) in this program.
pub fn is_instrumented(crate_name: &str) -> bool {
    let built = option_env!("COFFERDAM_INSTRUMENT").unwrap_or_default();
    // The variable alone proves nothing: the code must have announced itself too.
    wrapper::lists(built, crate_name) && !counters().is_empty()
}

/// LLVM calls this from a constructor of every instrumented compilation unit.
#[unsafe(no_mangle)]
extern "C" fn __sanitizer_cov_8bit_counters_init(start: *const AtomicU8, stop: *const AtomicU8) {
    let len = (stop as usize).saturating_sub(start as usize);
    if len == 0 {
        return;
    }
    // SAFETY: LLVM passes the bounds of a section of the program, which it increments byte by byte;
    // all in one process, so the address space is the program's for good.
    let counters = unsafe { slice::from_raw_parts(start, len) };
    if let Ok(mut all) = COUNTERS.lock() {
        // Each unit announces the whole section of its program.
        if !all.iter().any(|known| known.as_ptr() == counters.as_ptr()) {
            all.push(counters);
        }
    }
}
