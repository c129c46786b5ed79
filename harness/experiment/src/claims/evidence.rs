//! Counts that a judgement rests on.

use crate::statistics::Proportion;
use crate::summary::CellSummary;
use crate::verdict::Outcome;
use std::collections::BTreeSet;

/// How often something happened in some cells.
#[derive(Clone, Debug, PartialEq)]
pub struct Evidence {
    /// In which cells, and what.
    pub what: String,
    /// How often, among their activated trials.
    pub share: Proportion,
    /// How many cells these are.
    pub cells: u32,
    /// The faults among them.
    pub faults: Vec<String>,
}

impl Evidence {
    /// Counts an event over cells.
    pub(super) fn count<'a>(
        what: impl Into<String>,
        cells: impl Iterator<Item = &'a CellSummary>,
        event: impl Fn(&CellSummary) -> u32,
    ) -> Self {
        let (mut events, mut of, mut count) = (0_u32, 0_u32, 0_u32);
        let mut faults = BTreeSet::new();
        for cell in cells.filter(|cell| cell.activated > 0) {
            events = events.saturating_add(event(cell).min(cell.activated));
            of = of.saturating_add(cell.activated);
            count += 1;
            faults.insert(cell.fault.clone());
        }
        Self {
            what: what.into(),
            share: Proportion::new(events, of),
            cells: count,
            faults: faults.into_iter().collect(),
        }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.share.of == 0
    }

    pub(super) const fn never(&self) -> bool {
        self.share.events == 0
    }

    /// Whether the event came more often here than there: apart by their intervals where there are
    /// such, by counts of the same cells otherwise.
    pub(super) fn exceeds(&self, other: &Self) -> bool {
        match (self.share.interval, other.share.interval) {
            (Some(own), Some(others)) => own.low > others.high,
            _ => {
                let cross = |one: u32, two: u32| u64::from(one) * u64::from(two);
                cross(self.share.events, other.share.of) > cross(other.share.events, self.share.of)
            }
        }
    }

    /// `12 of 36`.
    pub fn counts(&self) -> String {
        format!("{} of {}", self.share.events, self.share.of)
    }
}

/// Trials with that outcome or a worse one.
pub(super) fn at_least(cell: &CellSummary, outcome: Outcome) -> u32 {
    let times = cell.outcomes.range(outcome..).map(|(_, times)| *times);
    times.fold(0, u32::saturating_add)
}

/// Trials that lost a tenant or the system, or corrupted somebody's state without a word.
pub(super) fn lost_or_corrupted(cell: &CellSummary) -> u32 {
    at_least(cell, Outcome::TenantLost)
}

/// Trials that lost a tenant or the system.
pub(super) fn lost(cell: &CellSummary) -> u32 {
    let times = |outcome| cell.outcomes.get(&outcome).copied().unwrap_or(0);
    times(Outcome::TenantLost).saturating_add(times(Outcome::SystemLost))
}

/// Trials in which memory of somebody other than the driver was changed. A tenant's own request
/// that came back wrong is its data, not its memory.
pub(super) fn memory_hit(cell: &CellSummary) -> u32 {
    let owners = cell
        .corrupted
        .iter()
        .filter(|(name, _)| !name.contains("'s data"));
    owners.map(|(_, times)| *times).max().unwrap_or(0)
}
