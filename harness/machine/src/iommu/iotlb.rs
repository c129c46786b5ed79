//! The IOTLB: a bounded number of translations, found by hash. The oldest gives way.
//!
//! Fully associative, so what is evicted depends on the order of first use alone and a trial
//! replays. Every operation on one page takes constant time but for collisions, which are bounded
//! by the number of entries.
//!
//! A hit is on the way of every DMA: it reads a word of the table and one cache line.

use super::Entry;
use cofferdam_seam::RequesterId;
use std::num::NonZeroU32;
use std::ops::Range;

/// A translation that the IOTLB holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cached {
    pub(super) requester: RequesterId,
    pub(super) page: u64,
    pub(super) entry: Entry,
    /// The page table no longer has it.
    pub(super) stale: bool,
}

/// Which line: its index, plus one. An absent one takes no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LineNumber(NonZeroU32);

impl LineNumber {
    /// The last of so many lines, if 32 bits count them.
    fn last_of(lines: usize) -> Option<Self> {
        let lines = u32::try_from(lines).ok()?;
        NonZeroU32::new(lines).map(Self)
    }

    const fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// An entry, and its neighbours in order of age.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Line {
    cached: Cached,
    older: Option<LineNumber>,
    younger: Option<LineNumber>,
}

/// The entries of all domains.
#[derive(Debug)]
pub(super) struct Iotlb {
    capacity: usize,
    /// Lines in use and, listed in `free`, lines that were.
    lines: Vec<Line>,
    free: Vec<LineNumber>,
    oldest: Option<LineNumber>,
    youngest: Option<LineNumber>,
    /// Lines by hash, with linear probing; a power of two, at most a quarter of it in use.
    table: Vec<Option<LineNumber>>,
}

impl Iotlb {
    pub(super) fn new(capacity: usize) -> Self {
        let capacity = capacity.min(u32::MAX as usize);
        Self {
            capacity,
            lines: Vec::new(),
            free: Vec::new(),
            oldest: None,
            youngest: None,
            table: vec![None; (4 * capacity).next_power_of_two()],
        }
    }

    fn len(&self) -> usize {
        self.lines.len() - self.free.len()
    }

    /// Where the search for a page begins: Fibonacci hashing.
    fn home(&self, requester: RequesterId, page: u64) -> usize {
        let mixed = (page ^ (u64::from(requester.0) << 48)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        usize::try_from(mixed >> 32).unwrap_or(0) & (self.table.len() - 1)
    }

    /// The place in the table of a page's line, if it has one.
    fn place(&self, requester: RequesterId, page: u64) -> Option<usize> {
        self.find(requester, page).map(|(place, ..)| place)
    }

    /// The place in the table, the number and the translation of a page's line, if it has one.
    #[inline]
    fn find(&self, requester: RequesterId, page: u64) -> Option<(usize, LineNumber, &Cached)> {
        let mut place = self.home(requester, page);
        // Most of the table is empty, so the search ends, and soon.
        while let Some(line) = self.table[place] {
            let cached = &self.lines[line.index()].cached;
            if cached.page == page && cached.requester == requester {
                return Some((place, line, cached));
            }
            place = (place + 1) & (self.table.len() - 1);
        }
        None
    }

    /// The translation of a page.
    #[inline]
    pub(super) fn get(&self, requester: RequesterId, page: u64) -> Option<&Cached> {
        self.find(requester, page).map(|(_, _, cached)| cached)
    }

    /// Puts a translation in, in place of the page's last one; else the oldest gives way.
    pub(super) fn insert(&mut self, new: Cached) {
        if self.capacity == 0 {
            return;
        }
        if let Some(place) = self.place(new.requester, new.page) {
            self.remove(place);
        } else if self.len() == self.capacity
            && let Some(oldest) = self.oldest
        {
            self.evict(oldest);
        }
        let line = Line {
            cached: new,
            older: self.youngest,
            younger: None,
        };
        let number = match self.free.pop() {
            Some(number) => {
                self.lines[number.index()] = line;
                number
            }
            None => {
                self.lines.push(line);
                LineNumber::last_of(self.lines.len()).expect("the capacity has 32 bits")
            }
        };
        match self.youngest.replace(number) {
            Some(older) => self.lines[older.index()].younger = Some(number),
            None => self.oldest = Some(number),
        }
        let mut place = self.home(new.requester, new.page);
        while self.table[place].is_some() {
            place = (place + 1) & (self.table.len() - 1);
        }
        self.table[place] = Some(number);
    }

    /// Marks the entries of unmapped pages, which stay until they are invalidated.
    pub(super) fn mark_stale(&mut self, requester: RequesterId, pages: Range<u64>) {
        for line in self.lines_of(requester, pages) {
            self.lines[line.index()].cached.stale = true;
        }
    }

    /// Takes the entries of these pages out.
    pub(super) fn invalidate(&mut self, requester: RequesterId, pages: Range<u64>) {
        for line in self.lines_of(requester, pages) {
            self.evict(line);
        }
    }

    /// Takes all entries of a requester out.
    pub(super) fn invalidate_all(&mut self, requester: RequesterId) {
        self.invalidate(requester, 0..u64::MAX);
    }

    /// The lines of those pages: page by page, or entry by entry if those are fewer.
    fn lines_of(&self, requester: RequesterId, pages: Range<u64>) -> Vec<LineNumber> {
        if pages.end - pages.start <= self.len() as u64 {
            return pages
                .filter_map(|page| self.find(requester, page))
                .map(|(_, line, _)| line)
                .collect();
        }
        let mut found = Vec::new();
        let mut next = self.oldest;
        while let Some(line) = next {
            let Line {
                cached, younger, ..
            } = &self.lines[line.index()];
            if cached.requester == requester && pages.contains(&cached.page) {
                found.push(line);
            }
            next = *younger;
        }
        found
    }

    fn evict(&mut self, line: LineNumber) {
        let Cached {
            requester, page, ..
        } = self.lines[line.index()].cached;
        if let Some(place) = self.place(requester, page) {
            self.remove(place);
        }
    }

    /// Empties a place of the table and frees its line.
    fn remove(&mut self, place: usize) {
        let Some(line) = self.table[place].take() else {
            return;
        };
        let Line { older, younger, .. } = self.lines[line.index()];
        match older {
            Some(older) => self.lines[older.index()].younger = younger,
            None => self.oldest = younger,
        }
        match younger {
            Some(younger) => self.lines[younger.index()].older = older,
            None => self.youngest = older,
        }
        self.free.push(line);
        self.close_gap(place);
    }

    /// Moves those that were pushed past an emptied place back, so that searches find them.
    fn close_gap(&mut self, mut gap: usize) {
        let mask = self.table.len() - 1;
        let mut place = (gap + 1) & mask;
        while let Some(line) = self.table[place] {
            let Cached {
                requester, page, ..
            } = self.lines[line.index()].cached;
            let home = self.home(requester, page);
            // Whether the gap lies between where the line belongs and where it is.
            let from_home = place.wrapping_sub(home) & mask;
            let from_gap = place.wrapping_sub(gap) & mask;
            if from_home >= from_gap {
                self.table[gap] = Some(line);
                self.table[place] = None;
                gap = place;
            }
            place = (place + 1) & mask;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DEVICE: RequesterId = RequesterId::new(1, 0, 0);

    fn cached(requester: RequesterId, page: u64) -> Cached {
        Cached {
            requester,
            page,
            entry: Entry {
                frame: page + 7,
                read: true,
                write: true,
            },
            stale: false,
        }
    }

    #[test]
    fn oldest_gives_way_and_use_does_not_make_younger() {
        let mut iotlb = Iotlb::new(3);
        for page in 1..=3 {
            iotlb.insert(cached(DEVICE, page));
        }
        assert!(iotlb.get(DEVICE, 1).is_some());
        iotlb.insert(cached(DEVICE, 4));
        assert!(iotlb.get(DEVICE, 1).is_none());
        for page in 2..=4 {
            assert_eq!(iotlb.get(DEVICE, page).unwrap().entry.frame, page + 7);
        }
    }

    #[test]
    fn no_entries_hold_nothing() {
        let mut iotlb = Iotlb::new(0);
        iotlb.insert(cached(DEVICE, 1));
        assert!(iotlb.get(DEVICE, 1).is_none());
    }

    /// What is done to an IOTLB: insert, invalidate, invalidate a requester.
    fn acts() -> impl Strategy<Value = Vec<(u8, u16, u64)>> {
        prop::collection::vec((0..8_u8, 0..3_u16, 0..24_u64), 0..200)
    }

    proptest! {
        /// Against the plainest thing that could be right: a list, oldest first.
        #[test]
        fn holds_what_a_list_of_the_same_length_holds(acts in acts(), capacity in 0..9_usize) {
            let mut iotlb = Iotlb::new(capacity);
            let mut list: Vec<(RequesterId, u64)> = Vec::new();
            for (act, requester, page) in acts {
                let requester = RequesterId(requester);
                match act {
                    0 => {
                        iotlb.invalidate_all(requester);
                        list.retain(|(by, _)| *by != requester);
                    }
                    1 | 2 => {
                        iotlb.invalidate(requester, page..page + 3);
                        list.retain(|(by, at)| *by != requester || !(page..page + 3).contains(at));
                    }
                    _ => {
                        iotlb.insert(cached(requester, page));
                        list.retain(|known| *known != (requester, page));
                        list.push((requester, page));
                        if list.len() > capacity {
                            list.remove(0);
                        }
                    }
                }
                prop_assert_eq!(iotlb.len(), list.len());
                for requester in 0..3 {
                    for page in 0..24 {
                        let requester = RequesterId(requester);
                        let held = iotlb.get(requester, page).is_some();
                        prop_assert_eq!(held, list.contains(&(requester, page)));
                    }
                }
            }
        }
    }
}
