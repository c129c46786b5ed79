//! Addresses for DMA mappings, in pages.

use std::collections::BTreeMap;
use std::ops::Range;

/// The granule of every IOMMU here.
pub(crate) const PAGE: usize = 4096;

/// In the width of addresses.
const GRANULE: u64 = PAGE as u64;

/// A window of device addresses, handed out in ascending order and again from its start. Behind
/// each lease lies a page that is never mapped, so that what overruns one finds nothing.
#[derive(Debug)]
pub(crate) struct Addresses {
    /// Page numbers, ascending and disjoint.
    windows: Vec<Range<u64>>,
    /// First page to one past the guard page.
    taken: BTreeMap<u64, u64>,
    /// Where the last search ended.
    next: u64,
}

impl Addresses {
    /// The whole pages of `window` that none of `reserved` touches.
    pub(crate) fn new(window: &Range<u64>, reserved: &[Range<u64>]) -> Self {
        let mut reserved: Vec<_> = reserved
            .iter()
            .map(|range| range.start / GRANULE..range.end.div_ceil(GRANULE))
            .collect();
        reserved.sort_by_key(|range| range.start);
        let end = window.end / GRANULE;
        let mut start = window.start.div_ceil(GRANULE);
        let mut windows = Vec::new();
        for range in reserved {
            let gap = start..range.start.min(end);
            if !gap.is_empty() {
                windows.push(gap);
            }
            start = start.max(range.end);
        }
        if start < end {
            windows.push(start..end);
        }
        let next = windows.first().map_or(0, |window| window.start);
        Self {
            windows,
            taken: BTreeMap::new(),
            next,
        }
    }

    /// The address of that many pages, which are the caller's until it gives them back.
    pub(crate) fn take(&mut self, pages: u64) -> Option<u64> {
        let needed = pages.checked_add(1)?;
        let first = self
            .fit(self.next, needed)
            .or_else(|| self.fit(0, needed))?;
        self.taken.insert(first, first + needed);
        self.next = first + needed;
        Some(first * GRANULE)
    }

    /// Keeps the page at `address` from being handed out; whether nobody has it already.
    pub(crate) fn keep_free(&mut self, address: u64) -> bool {
        let page = address / GRANULE;
        let earlier = self.taken.range(..=page).next_back();
        let free = earlier.is_none_or(|(_, &end)| end <= page);
        if free {
            self.taken.insert(page, page + 1);
        }
        free
    }

    /// Takes a lease back by its address.
    pub(crate) fn give_back(&mut self, address: u64) {
        self.taken.remove(&(address / GRANULE));
    }

    /// The lowest `needed` free pages in a row at or above `from`.
    fn fit(&self, from: u64, needed: u64) -> Option<u64> {
        for window in &self.windows {
            let mut start = window.start.max(from);
            // A lease that begins below `start` may reach beyond it.
            if let Some((_, &end)) = self.taken.range(..=start).next_back() {
                start = start.max(end);
            }
            if start >= window.end {
                continue;
            }
            for (&taken, &end) in self.taken.range(start..window.end) {
                if taken - start >= needed {
                    break;
                }
                start = end;
            }
            if window.end.saturating_sub(start) >= needed {
                return Some(start);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(pages: u64) -> Addresses {
        Addresses::new(&(0x10_0000..0x10_0000 + pages * GRANULE), &[])
    }

    #[test]
    fn leases_are_apart_by_a_page() {
        let mut addresses = window(16);
        assert_eq!(addresses.take(1), Some(0x10_0000));
        assert_eq!(addresses.take(2), Some(0x10_2000));
        assert_eq!(addresses.take(1), Some(0x10_5000));
    }

    #[test]
    fn an_address_given_back_is_reused_last() {
        let mut addresses = window(6);
        let first = addresses.take(1).unwrap();
        addresses.give_back(first);
        assert_eq!(addresses.take(1), Some(0x10_2000));
        assert_eq!(addresses.take(1), Some(0x10_4000));
        assert_eq!(addresses.take(1), Some(first));
        assert_eq!(addresses.take(1), None);
    }

    #[test]
    fn a_hole_that_is_too_small_is_passed_over() {
        let mut addresses = window(8);
        let first = addresses.take(1).unwrap();
        let second = addresses.take(3).unwrap();
        let _third = addresses.take(1).unwrap();
        addresses.give_back(first);
        assert_eq!(addresses.take(2), None);
        addresses.give_back(second);
        assert_eq!(addresses.take(4), Some(first));
    }

    #[test]
    fn reserved_pages_are_never_handed_out() {
        let reserved = [0x10_2000..0x10_2001, 0xfee0_0000..0xfef0_0000];
        let mut addresses = Addresses::new(&(0x10_0000..0x10_6000), &reserved);
        assert_eq!(addresses.take(2), Some(0x10_3000));
        assert_eq!(addresses.take(1), Some(0x10_0000));
        assert_eq!(addresses.take(1), None);
    }

    #[test]
    fn page_that_is_kept_free_is_never_handed_out() {
        let mut addresses = window(8);
        assert_eq!(addresses.take(1), Some(0x10_0000));
        assert!(!addresses.keep_free(0x10_0000));
        assert!(!addresses.keep_free(0x10_1fff));
        assert!(addresses.keep_free(0x10_3000));
        assert!(addresses.keep_free(0));
        assert_eq!(addresses.take(1), Some(0x10_4000));
        assert_eq!(addresses.take(2), None);
    }

    #[test]
    fn hostile_sizes_are_refused() {
        let mut addresses = window(8);
        assert_eq!(addresses.take(8), None);
        assert_eq!(addresses.take(u64::MAX), None);
        assert!(Addresses::new(&(5..5), &[]).take(1).is_none());
    }
}
