//! What decides: which choice, all others the same, changed what came of a case.
//!
//! Two cells that differ in one choice only are compared by their most frequent outcome, the milder
//! one on a tie. A choice decides a case if some such pair differs.

use cofferdam_experiment::catalogue::placement;
use cofferdam_experiment::summary::{CellSummary, Summary};
use cofferdam_experiment::verdict::Outcome;
use cofferdam_machine::config::{FabricKind, IommuMode};
use cofferdam_placement::trial::{DriverId, PlacementId};
use std::collections::{BTreeMap, BTreeSet};

/// A choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Factor {
    /// Where the driver lives.
    Placement,
    /// The IOMMU mode.
    Iommu,
    /// The fabric.
    Fabric,
    /// The driver.
    Driver,
}

impl Factor {
    /// Every choice.
    pub const ALL: [Self; 4] = [Self::Placement, Self::Iommu, Self::Fabric, Self::Driver];

    /// The choice, as a subject.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Placement => "where the driver lives",
            Self::Iommu => "the IOMMU mode",
            Self::Fabric => "the fabric",
            Self::Driver => "which driver it is",
        }
    }
}

/// The most frequent outcome of a cell's activated trials; the milder one on a tie.
pub fn modal(cell: &CellSummary) -> Option<Outcome> {
    let struck = cell
        .outcomes
        .iter()
        .filter(|(outcome, _)| **outcome >= Outcome::Masked);
    struck
        .rev()
        .max_by_key(|(_, times)| **times)
        .map(|(outcome, _)| *outcome)
}

/// A case and what decides it.
#[derive(Clone, Debug)]
pub struct Decided<'a> {
    /// The fault.
    pub fault: &'a str,
    /// The case.
    pub case: &'a str,
    /// Whether all its cells follow from topology and IOMMU mode.
    pub by_construction: bool,
    /// The choices that change its outcome.
    pub by: BTreeSet<Factor>,
    /// Its modal outcomes in each placement.
    pub outcomes: BTreeMap<PlacementId, BTreeSet<Outcome>>,
    /// Its activated trials.
    pub activated: u32,
    /// Its cells.
    pub cells: Vec<&'a CellSummary>,
}

impl Decided<'_> {
    /// Whether nobody but the driver's domain was touched, in any trial.
    pub fn always_contained(&self) -> bool {
        self.cells
            .iter()
            .all(|cell| cell.contained == cell.activated)
    }

    /// Whether somebody else was touched, in every trial.
    pub fn never_contained(&self) -> bool {
        self.cells.iter().all(|cell| cell.contained == 0)
    }
}

type Coordinates = (PlacementId, IommuMode, FabricKind, DriverId);

/// Whether two cells differ in that choice only.
fn differ_only_in(factor: Factor, one: Coordinates, other: Coordinates) -> bool {
    let differ = [
        one.0 != other.0,
        one.1 != other.1,
        one.2 != other.2,
        one.3 != other.3,
    ];
    (0..4)
        .zip(differ)
        .all(|(at, differs)| differs == (Factor::ALL.get(at) == Some(&factor)))
}

/// Every case of a run with at least one activated trial, in the order of the plan.
pub fn decided(summary: &Summary) -> Vec<Decided<'_>> {
    let mut names: Vec<&str> = Vec::new();
    let mut by_case: BTreeMap<&str, Vec<&CellSummary>> = BTreeMap::new();
    for cell in summary
        .cells
        .iter()
        .filter(|cell| !cell.is_clean() && cell.activated > 0)
    {
        let own = by_case.entry(&cell.case).or_default();
        if own.is_empty() {
            names.push(&cell.case);
        }
        own.push(cell);
    }
    names
        .into_iter()
        .filter_map(|case| {
            let cells = by_case.remove(case)?;
            let first = cells.first()?;
            Some(Decided {
                fault: &first.fault,
                case,
                by_construction: cells
                    .iter()
                    .all(|cell| cell.label == cofferdam_experiment::predict::Label::ByConstruction),
                by: deciding(&cells),
                outcomes: outcomes(&cells),
                activated: cells
                    .iter()
                    .fold(0, |sum, cell| sum.saturating_add(cell.activated)),
                cells,
            })
        })
        .collect()
}

fn outcomes(cells: &[&CellSummary]) -> BTreeMap<PlacementId, BTreeSet<Outcome>> {
    let mut found: BTreeMap<PlacementId, BTreeSet<Outcome>> = BTreeMap::new();
    for cell in cells {
        found.entry(cell.placement).or_default().extend(modal(cell));
    }
    found
}

fn deciding(cells: &[&CellSummary]) -> BTreeSet<Factor> {
    let shown: Vec<(Coordinates, Option<Outcome>)> = cells
        .iter()
        .map(|cell| {
            let at = (cell.placement, cell.iommu, cell.fabric, cell.driver);
            (at, modal(cell))
        })
        .collect();
    let mut by = BTreeSet::new();
    for (nth, (one, outcome)) in shown.iter().enumerate() {
        for (other, another) in shown.iter().skip(nth + 1) {
            if outcome != another {
                let factor = Factor::ALL
                    .into_iter()
                    .find(|factor| differ_only_in(*factor, *one, *other));
                by.extend(factor);
            }
        }
    }
    by
}

/// A placement and how it fared over the cells that all placements compared have and that are not all
/// settled by construction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Score {
    /// The placement.
    pub placement: PlacementId,
    /// Activated trials.
    pub activated: u32,
    /// Contained among them.
    pub contained: u32,
    /// That disturbed somebody and cost nothing.
    pub disturbed: u32,
    /// That lost a tenant.
    pub tenant_lost: u32,
    /// That corrupted somebody silently.
    pub corrupted: u32,
    /// That lost the system.
    pub system_lost: u32,
}

/// How placements fared over the same cells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scores {
    /// The most contained first.
    pub scores: Vec<Score>,
    /// The cells.
    pub common: usize,
    /// Tried in too few cells: to compare them would leave hardly any cells to compare.
    pub left_out: Vec<PlacementId>,
}

/// A placement is left out that was tried in fewer cells than the widest one's by that factor.
const NARROW: usize = 4;

/// The placements that were tried in too few cells, unless fewer than two would be left.
fn narrow<'a>(struck: impl Iterator<Item = &'a CellSummary>) -> BTreeSet<PlacementId> {
    let mut cells: BTreeMap<PlacementId, usize> = BTreeMap::new();
    for cell in struck {
        *cells.entry(cell.placement).or_default() += 1;
    }
    let widest = cells.values().max().copied().unwrap_or(0);
    let narrow: BTreeSet<PlacementId> = cells
        .iter()
        .filter(|(_, count)| **count < widest / NARROW)
        .map(|(placement, _)| *placement)
        .collect();
    if cells.len() < narrow.len() + 2 {
        return BTreeSet::new();
    }
    narrow
}

/// Every placement's score; the cells compared are the same in each.
pub fn scores(summary: &Summary) -> Scores {
    let struck = || {
        let cells = summary.cells.iter();
        cells.filter(|cell| !cell.is_clean() && cell.activated > 0)
    };
    let left_out = narrow(struck());
    let peers = |cell: &CellSummary| {
        let of = cell.id.split_once('/').map_or("", |(_, peers)| peers);
        of.to_owned()
    };
    let mut families: BTreeMap<String, Vec<&CellSummary>> = BTreeMap::new();
    for cell in struck().filter(|cell| !left_out.contains(&cell.placement)) {
        families.entry(peers(cell)).or_default().push(cell);
    }
    let placements: BTreeSet<PlacementId> = families
        .values()
        .flatten()
        .map(|cell| cell.placement)
        .collect();
    families.retain(|_, cells| {
        cells.len() == placements.len()
            && cells
                .iter()
                .any(|cell| cell.label == cofferdam_experiment::predict::Label::Measured)
    });
    let mut scores: Vec<Score> = placements
        .into_iter()
        .map(|id| {
            let own = || {
                let cells = families.values().flatten();
                cells.filter(move |cell| cell.placement == id)
            };
            let times = |outcome| {
                own().fold(0_u32, |sum, cell| {
                    sum.saturating_add(cell.outcomes.get(&outcome).copied().unwrap_or(0))
                })
            };
            Score {
                placement: id,
                activated: own().fold(0, |sum, cell| sum.saturating_add(cell.activated)),
                contained: own().fold(0, |sum, cell| sum.saturating_add(cell.contained)),
                disturbed: times(Outcome::Disturbed),
                tenant_lost: times(Outcome::TenantLost),
                corrupted: times(Outcome::SilentCorruption),
                system_lost: times(Outcome::SystemLost),
            }
        })
        .filter(|score| score.activated > 0)
        .collect();
    // Who loses the system less often comes first among equals.
    scores.sort_by(|one, other| {
        let share = |score: &Score| f64::from(score.contained) / f64::from(score.activated);
        share(other)
            .total_cmp(&share(one))
            .then(one.system_lost.cmp(&other.system_lost))
            .then(
                placement(one.placement)
                    .id
                    .cmp(placement(other.placement).id),
            )
    });
    Scores {
        scores,
        common: families.len(),
        left_out: left_out.into_iter().collect(),
    }
}
