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
use iotlb::{Cached, Iotlb};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::time::Duration;

/// The IOVAs handed out, in pages: 1 GiB that holds no memory, no BAR and no MSI window, below
/// 4 GiB so that devices with 32 address bits reach it.
pub const WINDOW: Range<u64> = 0x1000_0000 / FRAME..0x5000_0000 / FRAME;

/// As many above 4 GiB, for machines whose DMA memory lies there: an address that loses its upper
/// half names no page of it.
pub const HIGH_WINDOW: Range<u64> =
    WINDOW.start + (1 << 32) / FRAME..WINDOW.end + (1 << 32) / FRAME;

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
    /// The request says that its address is translated, and ATS is not enabled for its sender.
    Translated,
    /// The requester ID is not its sender's (ACS source validation).
    Spoofed,
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
            Refusal::Translated => {
                write!(
                    f,
                    "{requester}: {access} {page:#x} refused, claims to be translated"
                )
            }
            Refusal::Spoofed => {
                write!(
                    f,
                    "{requester}: {access} {page:#x} refused, another's requester ID"
                )
            }
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
    /// The IOVAs handed out.
    window: Range<u64>,
    /// Where the search for free IOVAs goes on.
    cursor: u64,
    queue: FlushQueue,
}

impl Domain {
    fn new(requester: RequesterId, window: Range<u64>) -> Self {
        Self {
            requester,
            table: BTreeMap::new(),
            busy: BTreeMap::new(),
            cursor: window.start,
            window,
            queue: FlushQueue {
                pages: Vec::new(),
                due: Time::NEVER,
            },
        }
    }

    /// The first free range of `count` pages at or after the cursor, going round once.
    fn find_free(&self, count: u64) -> Result<u64, NoIova> {
        self.free_within(self.cursor..self.window.end, count)
            .or_else(|| self.free_within(self.window.clone(), count))
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

    /// Whether pages may be mapped where their owner wants them: in the window, and not mapped.
    /// Pages that wait for their invalidation may be, as a whole: that is the mistake of reuse in
    /// flight, and the IOTLB decides what comes of it.
    fn may_choose(&self, pages: &Range<u64>) -> bool {
        let inside = self.window.start <= pages.start && pages.end <= self.window.end;
        let before = self.busy.range(..pages.end).next_back();
        let free = before.is_none_or(|(&start, &end)| {
            let queued = (start..end) == *pages && !self.table.contains_key(&start);
            end <= pages.start || queued
        });
        inside && free
    }

    /// Enters `pages`, which lead to frames from `frame` on.
    fn enter(&mut self, pages: Range<u64>, frame: u64, way: Direction) {
        self.busy.insert(pages.start, pages.end);
        for (page, frame) in pages.zip(frame..) {
            let entry = Entry {
                frame,
                read: way.device_reads(),
                write: way.device_writes(),
            };
            self.table.insert(page, entry);
        }
    }
}

/// The IOMMU of the machine. In modes that do not translate it lets everything pass.
#[derive(Debug)]
pub(crate) struct Iommu {
    mode: IommuMode,
    /// In the order in which requesters were attached: an index is a slot of the fabric.
    domains: Vec<Domain>,
    /// Shared by all domains.
    iotlb: Iotlb,
    window: Range<u64>,
    /// The frame that every domain maps one to one.
    reserved: Option<u64>,
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
            iotlb: Iotlb::new(config.iotlb_entries),
            window: if config.high_memory {
                HIGH_WINDOW
            } else {
                WINDOW
            },
            reserved: config.reserved,
            lazy_entries: config.lazy_entries,
            lazy_delay: config.lazy_delay,
            log: Vec::new(),
            log_entries: config.fault_log,
            dropped: 0,
            invalidations: 0,
        }
    }

    /// Gives the next slot's requester a domain that is empty but for the reserved region.
    pub(crate) fn attach(&mut self, requester: RequesterId) {
        let mut domain = Domain::new(requester, self.window.clone());
        if let Some(frame) = self.reserved {
            domain.enter(frame..frame + 1, frame, Direction::Both);
        }
        self.domains.push(domain);
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
        domain.cursor = first + count;
        domain.enter(first..first + count, frame, way);
        Ok(first)
    }

    /// Maps frames from `frame` on at the pages their owner chose, as VFIO and iommufd let it.
    pub(crate) fn map_at(
        &mut self,
        slot: usize,
        pages: Range<u64>,
        frame: u64,
        way: Direction,
    ) -> Result<(), NoIova> {
        let domain = &mut self.domains[slot];
        if !domain.may_choose(&pages) {
            return Err(NoIova);
        }
        domain.enter(pages, frame, way);
        Ok(())
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
            self.iotlb.mark_stale(requester, pages);
            if full {
                self.flush(slot);
            }
        } else {
            domain.busy.remove(&pages.start);
            self.invalidations += 1;
            self.iotlb.invalidate(requester, pages);
        }
    }

    /// Invalidates the whole domain and lets its queued IOVAs be used again.
    pub(crate) fn flush(&mut self, slot: usize) {
        let domain = &mut self.domains[slot];
        if domain.queue.pages.is_empty() {
            return;
        }
        for pages in domain.queue.pages.drain(..) {
            // Unless it was mapped again while it waited.
            if !domain.table.contains_key(&pages.start) {
                domain.busy.remove(&pages.start);
            }
        }
        domain.queue.due = Time::NEVER;
        let requester = domain.requester;
        self.invalidations += 1;
        self.iotlb.invalidate_all(requester);
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
        if let Some(cached) = self.iotlb.get(requester, page)
            && cached.entry.allows(write)
        {
            let path = if cached.stale {
                Path::Stale
            } else {
                Path::Mapped
            };
            return Ok((cached.entry.frame, path));
        }
        let why = match domain.table.get(&page) {
            Some(&entry) if entry.allows(write) => {
                self.iotlb.insert(Cached {
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

    /// Empties the log and counts from zero.
    pub(crate) fn forget(&mut self) {
        self.log.clear();
        self.dropped = 0;
        self.invalidations = 0;
    }

    pub(crate) fn record(&mut self, fault: FaultRecord) {
        if self.log.len() < self.log_entries {
            self.log.push(fault);
        } else {
            self.dropped += 1;
        }
    }
}

mod iotlb;
#[cfg(test)]
mod tests;
