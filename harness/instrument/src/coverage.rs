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

/// Adds counters of instrumented code that is not part of this program. Who counts in them keeps to what
/// [`Counters::take`] demands of instrumented code.
pub fn announce(unit: &'static [AtomicU8]) {
    if unit.is_empty() {
        return;
    }
    if let Ok(mut all) = COUNTERS.lock() {
        // Each compilation unit announces the whole section of its program.
        if !all.iter().any(|known| known.as_ptr() == unit.as_ptr()) {
            all.push(unit);
        }
    }
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
    /// What was counted there the last time that it was anything: mostly it is the same again.
    last: Vec<u8>,
    edges: usize,
}

/// Edges looked at together; most of them were not taken.
const STRIDE: usize = 8;

/// Edges passed over together.
const HOP: usize = 64;

/// The same where nothing near was taken: in a program of many drivers most edges belong to another.
const LEAP: usize = 512;

impl History {
    /// Of nothing.
    pub fn new() -> Self {
        let len = counters().iter().map(|unit| unit.len()).sum();
        Self {
            seen: vec![0; len],
            last: vec![0; len],
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
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has it.
            return unsafe { self.note_by_avx2(counters) };
        }
        self.note_all(counters)
    }

    /// The same, compiled for registers that are twice as wide.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn note_by_avx2(&mut self, counters: &mut Counters) -> bool {
        self.note_all(counters)
    }

    #[inline(always)]
    fn note_all(&mut self, counters: &mut Counters) -> bool {
        let mut new = false;
        let mut first = 0;
        for unit in &mut counters.0 {
            let len = unit.len();
            let seen = &mut self.seen[first..first + len];
            let last = &mut self.last[first..first + len];
            first += len;
            let (leaps, rest) = unit.as_chunks_mut::<LEAP>();
            let (seen, seen_rest) = seen.as_chunks_mut::<LEAP>();
            let (last, last_rest) = last.as_chunks_mut::<LEAP>();
            for ((counts, seen), last) in leaps.iter_mut().zip(seen).zip(last) {
                if any(counts) {
                    new |= note(counts, seen, last, &mut self.edges);
                }
            }
            new |= note(rest, seen_rest, last_rest, &mut self.edges);
        }
        new
    }
}

/// Whether anything was counted.
#[inline(always)]
fn any<const LEN: usize>(counts: &[u8; LEN]) -> bool {
    counts.iter().fold(0, |any, count| any | count) != 0
}

/// Adds counts to what was seen, and clears them. Whether any was new.
#[inline(always)]
fn note(counts: &mut [u8], seen: &mut [u8], last: &mut [u8], edges: &mut usize) -> bool {
    let (hops, rest) = counts.as_chunks_mut::<HOP>();
    let (seen, seen_rest) = seen.as_chunks_mut::<HOP>();
    let (last, _) = last.as_chunks_mut::<HOP>();
    let mut new = false;
    for ((counts, seen), last) in hops.iter_mut().zip(seen).zip(last) {
        if any(counts) {
            let (words, _) = counts.as_chunks_mut::<STRIDE>();
            let (seen, _) = seen.as_chunks_mut::<STRIDE>();
            let (last, _) = last.as_chunks_mut::<STRIDE>();
            for ((counts, seen), last) in words.iter_mut().zip(seen).zip(last) {
                if *counts == [0; STRIDE] {
                    continue;
                }
                if *counts == *last {
                    *counts = [0; STRIDE];
                } else {
                    *last = *counts;
                    new |= note_each(counts, seen, edges);
                }
            }
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
    announce(counters);
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
            last: vec![0; 70],
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
