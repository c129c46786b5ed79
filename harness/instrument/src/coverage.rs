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

/// What instrumented code ever did: for each edge, in which orders of magnitude it was taken.
#[derive(Clone, Debug, Default)]
pub struct History {
    seen: Vec<u8>,
    edges: usize,
}

/// Edges looked at together; most of them were not taken.
const STRIDE: usize = 8;

/// Edges passed over together: in a program of many drivers most belong to another.
const LEAP: usize = 512;

impl History {
    /// Of nothing.
    pub fn new() -> Self {
        let len = counters().iter().map(|unit| unit.len()).sum();
        Self {
            seen: vec![0; len],
            edges: 0,
        }
    }

    /// All edges there are.
    pub fn len(&self) -> usize {
        self.seen.len()
    }

    /// Whether nothing is instrumented.
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// Edges that were ever taken.
    pub fn edges(&self) -> usize {
        self.edges
    }

    /// Adds what was done since the counters were last cleared, and clears them. Whether any of it was
    /// new.
    pub fn note(&mut self, counters: &mut Counters) -> bool {
        let mut new = false;
        let mut first = 0;
        for unit in &mut counters.0 {
            let len = unit.len();
            let seen = &mut self.seen[first..first + len];
            first += len;
            let (leaps, rest) = unit.as_chunks_mut::<LEAP>();
            let (seen, seen_rest) = seen.as_chunks_mut::<LEAP>();
            for (counts, seen) in leaps.iter_mut().zip(seen) {
                if counts.iter().fold(0, |any, count| any | count) != 0 {
                    new |= note(counts, seen, &mut self.edges);
                }
            }
            new |= note(rest, seen_rest, &mut self.edges);
        }
        new
    }
}

/// Adds counts to what was seen, and clears them. Whether any was new.
fn note(counts: &mut [u8], seen: &mut [u8], edges: &mut usize) -> bool {
    let (words, rest) = counts.as_chunks_mut::<STRIDE>();
    let (seen, seen_rest) = seen.as_chunks_mut::<STRIDE>();
    let mut new = false;
    for (counts, seen) in words.iter_mut().zip(seen) {
        if u64::from_ne_bytes(*counts) != 0 {
            new |= note_each(counts, seen, edges);
        }
    }
    note_each(rest, seen_rest, edges) | new
}

fn note_each(counts: &mut [u8], seen: &mut [u8], edges: &mut usize) -> bool {
    let mut new = false;
    for (count, seen) in counts.iter_mut().zip(seen) {
        if *count == 0 {
            continue;
        }
        let class = CLASSES[usize::from(*count)];
        *count = 0;
        if class & !*seen != 0 {
            *edges += usize::from(*seen == 0);
            *seen |= class;
            new = true;
        }
    }
    new
}

/// See [`class`].
static CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut count = 0_u8;
    loop {
        classes[count as usize] = class(count);
        if count == u8::MAX {
            break;
        }
        count += 1;
    }
    classes
};

/// The order of magnitude of a count, as a bit.
const fn class(count: u8) -> u8 {
    match count {
        0 => 0,
        1 => 1,
        2 => 1 << 1,
        3 => 1 << 2,
        4..8 => 1 << 3,
        8..16 => 1 << 4,
        16..32 => 1 << 5,
        32..128 => 1 << 6,
        128.. => 1 << 7,
    }
}

/// The counters, for the one thread that runs instrumented code.
#[derive(Debug)]
pub struct Counters(Vec<&'static mut [u8]>);

impl Counters {
    /// Takes all counters into hand.
    ///
    /// # Safety
    ///
    /// There is one at a time, and instrumented code runs on its thread only, and not while a method
    /// of it does.
    pub unsafe fn take() -> Self {
        let units = counters().into_iter().map(|unit| {
            let first = unit.as_ptr().cast_mut().cast::<u8>();
            // SAFETY: the section is the program's, and by the caller's promise nobody else touches
            // it while the result is used.
            unsafe { slice::from_raw_parts_mut(first, unit.len()) }
        });
        Self(units.collect())
    }

    /// Each unit's counters.
    pub fn units(&mut self) -> impl Iterator<Item = &mut [u8]> {
        self.0.iter_mut().map(|unit| &mut **unit)
    }

    /// Forgets what was counted.
    pub fn clear(&mut self) {
        for unit in &mut self.0 {
            unit.fill(0);
        }
    }
}

/// LLVM calls this from a constructor of every instrumented compilation unit. In a program of libFuzzer the
/// counters are libFuzzer's.
#[cfg_attr(not(feature = "libfuzzer"), unsafe(no_mangle))]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_new_is_news() {
        let unit = Box::leak(Box::new([0_u8; 70]));
        let mut counters = Counters(vec![unit]);
        let mut history = History {
            seen: vec![0; 70],
            edges: 0,
        };
        let mut note = |at: usize, count: u8| {
            counters.0[0][at] = count;
            (history.note(&mut counters), history.edges())
        };

        let told = [note(3, 1), note(3, 1), note(3, 5), note(69, 1), note(3, 7)];

        assert_eq!(
            told,
            [(true, 1), (false, 1), (true, 1), (true, 2), (false, 2)]
        );
        assert!(counters.0[0].iter().all(|count| *count == 0));
    }
}
