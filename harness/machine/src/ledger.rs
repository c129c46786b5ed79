//! The ledger: a sanitizer for DMA.
//!
//! It knows what was mapped for whom, byte by byte, in which direction and until when, and judges
//! what *should* happen to a request. It never looks at the IOMMU: where the two disagree, a wall
//! is missing.

use crate::frames::{FRAME, Owner, owner_at};
use cofferdam_seam::{Direction, Time};
use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::time::Duration;

/// Mappings one requester may hold at a time.
pub const LIVE_LIMIT: usize = 4096;

/// Past mappings the ledger remembers for each requester; the oldest is forgotten.
const RETIRED_LIMIT: usize = 1024;

/// What should have happened to a DMA request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every byte is mapped for this requester and direction.
    Sanctioned,
    /// Mapped, but not for this direction.
    WrongDirection,
    /// It runs out of a live mapping, or lies on a page that has one.
    OutOfBounds,
    /// It goes where a mapping of this requester used to be.
    UseAfterUnmap {
        /// How long after the unmapping.
        ago: Duration,
    },
    /// It goes to a physical address that was never mapped for this requester.
    Foreign {
        /// Whose frame has that physical address.
        owner: Owner,
    },
    /// It goes to the registers of another function.
    PeerToPeer,
    /// It goes to an address that is neither mapped nor memory.
    Unbacked,
}

impl Verdict {
    /// Whether the request was in order.
    pub const fn is_sanctioned(self) -> bool {
        matches!(self, Self::Sanctioned)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sanctioned => f.write_str("sanctioned"),
            Self::WrongDirection => f.write_str("wrong direction"),
            Self::OutOfBounds => f.write_str("out of bounds"),
            Self::UseAfterUnmap { ago } => {
                write!(f, "use after unmap ({} us ago)", ago.as_micros())
            }
            Self::Foreign { owner } => write!(f, "foreign ({owner})"),
            Self::PeerToPeer => f.write_str("peer-to-peer"),
            Self::Unbacked => f.write_str("unbacked"),
        }
    }
}

/// A live mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Live {
    /// The name the driver was given.
    pub id: u64,
    /// Addresses the device may use, without wrap.
    pub bytes: Range<u64>,
    /// Which way.
    pub way: Direction,
}

#[derive(Debug)]
struct Retired {
    bytes: Range<u64>,
    at: Time,
}

/// One requester's page of the ledger.
#[derive(Debug, Default)]
struct Account {
    /// Sorted by first byte, then id.
    live: Vec<Live>,
    /// Oldest first.
    retired: VecDeque<Retired>,
}

impl Account {
    fn retire(&mut self, bytes: Range<u64>, at: Time) {
        if self.retired.len() == RETIRED_LIMIT {
            self.retired.pop_front();
        }
        self.retired.push_back(Retired { bytes, at });
    }

    /// Whether live mappings that pass `usable` cover all of `bytes`.
    fn covers(&self, bytes: &Range<u64>, usable: impl Fn(&Live) -> bool) -> bool {
        let mut reached = bytes.start;
        for live in &self.live {
            if live.bytes.start > reached || reached >= bytes.end {
                break;
            }
            if usable(live) {
                reached = reached.max(live.bytes.end);
            }
        }
        reached >= bytes.end
    }

    /// How long ago the youngest past mapping ended of those that pass `matching`.
    fn retired_ago(&self, now: Time, matching: impl Fn(&Range<u64>) -> bool) -> Option<Duration> {
        let youngest = self.retired.iter().rev();
        let mut matches = youngest.filter(|retired| matching(&retired.bytes));
        matches.next().map(|retired| now.since(retired.at))
    }
}

/// Who mapped what, by slot of the fabric. A slot that was not [attached](Ledger::attach) is the
/// caller's mistake and panics.
#[derive(Debug, Default)]
pub struct Ledger {
    accounts: Vec<Account>,
}

impl Ledger {
    /// Opens an account for the next slot.
    pub fn attach(&mut self) {
        self.accounts.push(Account::default());
    }

    /// Forgets what every account holds and held.
    pub fn clear(&mut self) {
        for account in &mut self.accounts {
            account.live.clear();
            account.retired.clear();
        }
    }

    /// How many mappings the requester in `slot` holds.
    pub fn live_count(&self, slot: usize) -> usize {
        self.accounts[slot].live.len()
    }

    /// Enters a mapping. `fresh` says that its pages were handed out anew, so that what used to be
    /// mapped there is another story.
    pub fn map(&mut self, slot: usize, new: Live, fresh: bool) {
        let account = &mut self.accounts[slot];
        if fresh {
            let pages = pages_of(&new.bytes);
            account
                .retired
                .retain(|retired| !overlap(&pages_of(&retired.bytes), &pages));
        }
        let key = |live: &Live| (live.bytes.start, live.id);
        let place = account.live.partition_point(|live| key(live) < key(&new));
        account.live.insert(place, new);
    }

    /// Ends a mapping and tells where it was, if the requester holds one of that name.
    pub fn unmap(&mut self, slot: usize, id: u64, now: Time) -> Option<Range<u64>> {
        let account = &mut self.accounts[slot];
        let place = account.live.iter().position(|live| live.id == id)?;
        let bytes = account.live.remove(place).bytes;
        account.retire(bytes.clone(), now);
        Some(bytes)
    }

    /// Ends every mapping of the requester and tells which they were, in address order.
    pub fn unmap_all(&mut self, slot: usize, now: Time) -> Vec<Live> {
        let account = &mut self.accounts[slot];
        let ended = std::mem::take(&mut account.live);
        for live in &ended {
            account.retire(live.bytes.clone(), now);
        }
        ended
    }

    /// Judges a request for `bytes` by the requester in `slot`.
    ///
    /// A byte of a live mapping decides first: a request that leaves it is out of bounds wherever
    /// it goes. Then a past mapping that held all of it, then the neighbourhood of a live one,
    /// then a past mapping that held some of it.
    pub fn judge(&self, slot: usize, bytes: &Range<u64>, write: bool, now: Time) -> Verdict {
        let account = &self.accounts[slot];
        let allowed = |live: &Live| {
            if write {
                live.way.device_writes()
            } else {
                live.way.device_reads()
            }
        };
        if account.covers(bytes, allowed) {
            return Verdict::Sanctioned;
        }
        if account.covers(bytes, |_| true) {
            return Verdict::WrongDirection;
        }
        if account.live.iter().any(|live| overlap(&live.bytes, bytes)) {
            return Verdict::OutOfBounds;
        }
        let holds_all = |old: &Range<u64>| old.start <= bytes.start && bytes.end <= old.end;
        if let Some(ago) = account.retired_ago(now, holds_all) {
            return Verdict::UseAfterUnmap { ago };
        }
        let pages = pages_of(bytes);
        let beside = |live: &Live| overlap(&pages_of(&live.bytes), &pages);
        if account.live.iter().any(beside) {
            return Verdict::OutOfBounds;
        }
        if let Some(ago) = account.retired_ago(now, |old| overlap(old, bytes)) {
            return Verdict::UseAfterUnmap { ago };
        }
        match owner_at(bytes.start) {
            Some(owner) => Verdict::Foreign { owner },
            None => Verdict::Unbacked,
        }
    }
}

/// The page numbers that `bytes` touch.
pub(crate) const fn pages_of(bytes: &Range<u64>) -> Range<u64> {
    bytes.start / FRAME..bytes.end.div_ceil(FRAME)
}

fn overlap(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.start < other.end && other.start < one.end
}

#[cfg(test)]
mod tests;
