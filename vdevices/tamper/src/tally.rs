//! What the outside knows of the lies.

use crate::Lie;
use cofferdam_seam::{Iova, Time};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// When the lies begin, and what became of them. Shared between the device, which writes it, and
/// whoever runs the trial.
#[derive(Debug)]
pub struct Tally {
    armed: AtomicBool,
    acted: AtomicU32,
    /// Nanoseconds; `Time::NEVER` while nothing has acted.
    first_at: AtomicU64,
    /// A page to be remembered, and when it was named; `Time::NEVER` while none was.
    recalled: AtomicU64,
    recalled_at: AtomicU64,
    /// There are other lies than before, which the device has not taken up yet.
    renewed: AtomicBool,
    next: Mutex<Vec<Lie>>,
}

impl Default for Tally {
    fn default() -> Self {
        Self::new()
    }
}

impl Tally {
    /// Of lies that have not begun.
    pub fn new() -> Self {
        Self {
            armed: AtomicBool::new(false),
            acted: AtomicU32::new(0),
            first_at: AtomicU64::new(Time::NEVER.nanos()),
            recalled: AtomicU64::new(0),
            recalled_at: AtomicU64::new(Time::NEVER.nanos()),
            renewed: AtomicBool::new(false),
            next: Mutex::new(Vec::new()),
        }
    }

    /// Gives the device other lies, to be told when it is armed the next time; until then it is honest.
    /// What it counted is forgotten, and so is whatever it had announced and not done yet.
    pub fn renew(&self, lies: Vec<Lie>) {
        self.armed.store(false, Ordering::Release);
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = lies;
        self.acted.store(0, Ordering::Release);
        for time in [&self.first_at, &self.recalled_at] {
            time.store(Time::NEVER.nanos(), Ordering::Release);
        }
        self.renewed.store(true, Ordering::Release);
    }

    /// The lies of the last [`Tally::renew`], once.
    pub(crate) fn take_renewed(&self) -> Option<Vec<Lie>> {
        self.renewed.swap(false, Ordering::AcqRel).then(|| {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *next)
        })
    }

    /// Whether there are other lies than the device has.
    #[inline]
    pub(crate) fn is_renewed(&self) -> bool {
        self.renewed.load(Ordering::Acquire)
    }

    /// Lets the counting begin: the device is honest before, so that a driver's start does not
    /// shift which access of its workload is the nth. Again changes nothing.
    pub fn arm(&self) {
        self.armed.store(true, Ordering::Release);
    }

    /// Lies that really happened: reads answered wrongly, entries changed, DMA writes that left
    /// the device (whether the IOMMU let them through is not the device's business).
    pub fn acted(&self) -> u32 {
        self.acted.load(Ordering::Acquire)
    }

    /// Device time of the first of them.
    pub fn first_at(&self) -> Option<Time> {
        let at = Time(self.first_at.load(Ordering::Acquire));
        (at != Time::NEVER).then_some(at)
    }

    /// Whether they have begun.
    #[inline]
    pub fn armed(&self) -> bool {
        self.armed.load(Ordering::Acquire)
    }

    /// Names a page of the device's addresses whose memory has got a new owner, at that device time.
    pub fn recall(&self, page: Iova, now: Time) {
        // The page is written before the time, so that who sees the time sees the page.
        self.recalled.store(page.0, Ordering::Relaxed);
        self.recalled_at.store(now.nanos(), Ordering::Release);
    }

    /// The page that was named last, and when.
    pub fn recalled(&self) -> Option<(Iova, Time)> {
        let at = Time(self.recalled_at.load(Ordering::Acquire));
        (at != Time::NEVER).then(|| (Iova(self.recalled.load(Ordering::Relaxed)), at))
    }

    /// Tells of a lie at that device time.
    pub fn act(&self, now: Time) {
        // The time is written before the count, so that who sees the count sees the time.
        self.first_at.fetch_min(now.nanos(), Ordering::AcqRel);
        self.acted.fetch_add(1, Ordering::AcqRel);
    }
}
