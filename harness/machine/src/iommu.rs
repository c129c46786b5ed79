//! The IOMMU: one domain a requester, a page table, an IOTLB that can hold what the page table no
//! longer does, and a fault log that can overflow.
//!
//! It decides what a DMA request *does*. Whether the request *should* have been made is the
//! ledger's business. The granule is a page of [`FRAME`] bytes, so whatever shares a page with a
//! mapped buffer is reachable: sub-page protection is not modelled.
//!
//! A freed IOVA comes back as late as possible (the allocator goes round its window) and never
//! before its invalidation completed. So a late DMA meets an unmapped page, not a stranger's
//! mapping: reuse in flight is a fault of its own.

use crate::config::{Config, IommuMode};
use crate::frames::FRAME;
use cofferdam_seam::{Direction, RequesterId, Time};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::ops::Range;
use std::time::Duration;

/// The IOVAs handed out, in pages: 1 GiB that holds no memory, no BAR and no MSI window, below
/// 4 GiB so that devices with 32 address bits reach it.
pub const WINDOW: Range<u64> = 0x1000_0000 / FRAME..0x5000_0000 / FRAME;

/// What a page table entry or an IOTLB entry says of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    /// The frame behind the page.
    frame: u64,
    read: bool,
    write: bool,
}

impl Entry {
    const fn allows(self, write: bool) -> bool {
        if write { self.write } else { self.read }
    }
}

/// A translation that the IOTLB holds.
#[derive(Clone, Copy, Debug)]
struct Cached {
    requester: RequesterId,
    page: u64,
    entry: Entry,
    /// The page table no longer has it.
    stale: bool,
}

/// How a page was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// Untranslated: the address is physical.
    Identity,
    /// Through a mapping that is in the page table.
    Mapped,
    /// Through an IOTLB entry whose mapping is gone.
    Stale,
}

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No entry for the page.
    NotMapped,
    /// The entry forbids this direction.
    Forbidden,
    /// The message names a vector that is not its sender's.
    Interrupt,
}

/// A refused request, as the fault log holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultRecord {
    /// When.
    pub at: Time,
    /// Who asked.
    pub requester: RequesterId,
    /// First byte of the refused page.
    pub page: u64,
    /// Whether it was a write.
    pub write: bool,
    /// Why.
    pub why: Refusal,
}

impl fmt::Display for FaultRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let access = if self.write { "write to" } else { "read of" };
        let Self {
            requester, page, ..
        } = self;
        match self.why {
            Refusal::NotMapped => write!(f, "{requester}: {access} {page:#x} refused, not mapped"),
            Refusal::Forbidden => write!(f, "{requester}: {access} {page:#x} refused, forbidden"),
            Refusal::Interrupt => write!(f, "{requester}: interrupt message refused, not its own"),
        }
    }
}

/// The IOVA window has no free range of that many pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoIova;

/// Pages that are unmapped but not yet invalidated.
#[derive(Debug)]
struct FlushQueue {
    pages: Vec<Range<u64>>,
    /// When the timer runs out; meaningful while `pages` is not empty.
    due: Time,
}

/// One requester's address space.
#[derive(Debug)]
struct Domain {
    requester: RequesterId,
    table: BTreeMap<u64, Entry>,
    /// Ranges that may not be handed out, start to end: mapped, or waiting for their invalidation.
    busy: BTreeMap<u64, u64>,
    /// Where the search for free IOVAs goes on.
    cursor: u64,
    queue: FlushQueue,
}

impl Domain {
    fn new(requester: RequesterId) -> Self {
        Self {
            requester,
            table: BTreeMap::new(),
            busy: BTreeMap::new(),
            cursor: WINDOW.start,
            queue: FlushQueue {
                pages: Vec::new(),
                due: Time::NEVER,
            },
        }
    }

    /// The first free range of `count` pages at or after the cursor, going round once.
    fn find_free(&self, count: u64) -> Result<u64, NoIova> {
        self.free_within(self.cursor..WINDOW.end, count)
            .or_else(|| self.free_within(WINDOW.start..WINDOW.end, count))
            .ok_or(NoIova)
    }

    fn free_within(&self, within: Range<u64>, count: u64) -> Option<u64> {
        let before = self.busy.range(..within.start).next_back();
        let mut start = before.map_or(within.start, |(_, &end)| end.max(within.start));
        for (&busy, &end) in self.busy.range(within.start..within.end) {
            if busy.saturating_sub(start) >= count {
                break;
            }
            start = end;
        }
        (start.checked_add(count)? <= within.end).then_some(start)
    }
}

/// The IOMMU of the machine. In modes that do not translate it lets everything pass.
#[derive(Debug)]
pub(crate) struct Iommu {
    mode: IommuMode,
    /// In the order in which requesters were attached: an index is a slot of the fabric.
    domains: Vec<Domain>,
    /// Shared by all domains; the front is the oldest.
    iotlb: VecDeque<Cached>,
    iotlb_entries: usize,
    lazy_entries: usize,
    lazy_delay: Duration,
    log: Vec<FaultRecord>,
    log_entries: usize,
    dropped: u64,
    invalidations: u64,
}

impl Iommu {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            mode: config.iommu,
            domains: Vec::new(),
            iotlb: VecDeque::new(),
            iotlb_entries: config.iotlb_entries,
            lazy_entries: config.lazy_entries,
            lazy_delay: config.lazy_delay,
            log: Vec::new(),
            log_entries: config.fault_log,
            dropped: 0,
            invalidations: 0,
        }
    }

    /// Gives the next slot's requester an empty domain.
    pub(crate) fn attach(&mut self, requester: RequesterId) {
        self.domains.push(Domain::new(requester));
    }

    /// Maps `count` frames from `frame` on at fresh IOVAs; the first page's number. Only in modes
    /// that translate.
    pub(crate) fn map(
        &mut self,
        slot: usize,
        frame: u64,
        count: u64,
        way: Direction,
    ) -> Result<u64, NoIova> {
        let domain = &mut self.domains[slot];
        let first = domain.find_free(count)?;
        domain.busy.insert(first, first + count);
        domain.cursor = first + count;
        for nth in 0..count {
            let entry = Entry {
                frame: frame + nth,
                read: way.device_reads(),
                write: way.device_writes(),
            };
            domain.table.insert(first + nth, entry);
        }
        Ok(first)
    }

    /// Takes the pages of one mapping out of the page table. Strict: their IOTLB entries are gone
    /// when this returns. Lazy: when the queue is full or its time has come.
    pub(crate) fn unmap(&mut self, slot: usize, pages: Range<u64>, now: Time) {
        let domain = &mut self.domains[slot];
        for page in pages.clone() {
            domain.table.remove(&page);
        }
        let requester = domain.requester;
        if self.mode == IommuMode::Lazy {
            let queue = &mut domain.queue;
            if queue.pages.is_empty() {
                queue.due = now + self.lazy_delay;
            }
            queue.pages.push(pages.clone());
            let full = queue.pages.len() >= self.lazy_entries;
            for cached in &mut self.iotlb {
                if cached.requester == requester && pages.contains(&cached.page) {
                    cached.stale = true;
                }
            }
            if full {
                self.flush(slot);
            }
        } else {
            domain.busy.remove(&pages.start);
            self.invalidations += 1;
            self.iotlb
                .retain(|cached| cached.requester != requester || !pages.contains(&cached.page));
        }
    }

    /// Invalidates the whole domain and lets its queued IOVAs be used again.
    pub(crate) fn flush(&mut self, slot: usize) {
        let domain = &mut self.domains[slot];
        if domain.queue.pages.is_empty() {
            return;
        }
        for pages in domain.queue.pages.drain(..) {
            domain.busy.remove(&pages.start);
        }
        domain.queue.due = Time::NEVER;
        let requester = domain.requester;
        self.invalidations += 1;
        self.iotlb.retain(|cached| cached.requester != requester);
    }

    /// The domain whose flush timer runs out next, and when.
    pub(crate) fn next_flush(&self) -> Option<(Time, usize)> {
        self.domains
            .iter()
            .enumerate()
            .filter(|(_, domain)| !domain.queue.pages.is_empty())
            .map(|(slot, domain)| (domain.queue.due, slot))
            .min()
    }

    /// Translates a page number for one request of the requester in `slot`. A refusal is logged.
    pub(crate) fn translate(
        &mut self,
        slot: usize,
        page: u64,
        write: bool,
        now: Time,
    ) -> Result<(u64, Path), Refusal> {
        if !self.mode.translates() {
            return Ok((page, Path::Identity));
        }
        let domain = &self.domains[slot];
        let requester = domain.requester;
        let cached = self.iotlb.iter().find(|cached| {
            cached.requester == requester && cached.page == page && cached.entry.allows(write)
        });
        if let Some(cached) = cached {
            let path = if cached.stale {
                Path::Stale
            } else {
                Path::Mapped
            };
            return Ok((cached.entry.frame, path));
        }
        let why = match domain.table.get(&page) {
            Some(&entry) if entry.allows(write) => {
                self.prime(Cached {
                    requester,
                    page,
                    entry,
                    stale: false,
                });
                return Ok((entry.frame, Path::Mapped));
            }
            Some(_) => Refusal::Forbidden,
            None => Refusal::NotMapped,
        };
        self.record(FaultRecord {
            at: now,
            requester,
            page: page.wrapping_mul(FRAME),
            write,
            why,
        });
        Err(why)
    }

    /// The refused requests that the log could hold, and how many it could not.
    pub(crate) fn faults(&self) -> (&[FaultRecord], u64) {
        (&self.log, self.dropped)
    }

    /// Invalidations so far: one an unmapping in strict mode, one a flush in lazy mode.
    pub(crate) const fn invalidations(&self) -> u64 {
        self.invalidations
    }

    /// Puts a translation into the IOTLB; the oldest gives way.
    fn prime(&mut self, new: Cached) {
        if self.iotlb_entries == 0 {
            return;
        }
        while self.iotlb.len() >= self.iotlb_entries {
            self.iotlb.pop_front();
        }
        self.iotlb.push_back(new);
    }

    pub(crate) fn record(&mut self, fault: FaultRecord) {
        if self.log.len() < self.log_entries {
            self.log.push(fault);
        } else {
            self.dropped += 1;
        }
    }
}

#[cfg(test)]
mod tests;
