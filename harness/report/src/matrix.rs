//! The matrix: faults down, placements across. A line shows a fault, or one case of it, on those
//! platforms (IOMMU mode and fabric) that show the same.
//!
//! What a fault does where everything follows from topology and IOMMU mode, and what it does where
//! that had to be measured, are lines of their own.

use cofferdam_experiment::catalogue::{
    FABRICS, FAULTS, IOMMU_MODES, PLACEMENTS, fabric_name, iommu_name, placement,
};
use cofferdam_experiment::predict::Label;
use cofferdam_experiment::statistics::Flag;
use cofferdam_experiment::summary::{CellSummary, Summary};
use cofferdam_experiment::verdict::Outcome;
use cofferdam_machine::config::{FabricKind, IommuMode};
use cofferdam_placement::own::PlatformId;
use cofferdam_placement::trial::{DriverId, PlacementId};
use std::collections::{BTreeMap, BTreeSet};

/// An IOMMU mode, a fabric, and the machine's parameters.
pub type Platform = (IommuMode, FabricKind, PlatformId);

const fn platform(cell: &CellSummary) -> Platform {
    (cell.iommu, cell.fabric, cell.platform)
}

/// What several cells show together.
#[derive(Debug, Clone)]
pub struct Square<'a> {
    /// The cells.
    pub cells: Vec<&'a CellSummary>,
}

/// A worst outcome and how often it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// The worst outcome; not activated, if nothing was.
    pub worst: Outcome,
    /// Trials with it.
    pub times: u32,
    /// Activated trials.
    pub activated: u32,
    /// Activated trials in which nobody but the driver's own domain was touched.
    pub contained: u32,
}

impl Square<'_> {
    /// The worst outcome over all its cells.
    pub fn tally(&self) -> Tally {
        let worst = self.cells.iter().filter_map(|cell| cell.worst());
        let worst = worst
            .map(|(outcome, _)| outcome)
            .max()
            .unwrap_or(Outcome::NotActivated);
        let sum = |of: &dyn Fn(&CellSummary) -> u32| {
            let each = self.cells.iter().map(|cell| of(cell));
            each.fold(0, u32::saturating_add)
        };
        Tally {
            worst,
            times: sum(&|cell| cell.outcomes.get(&worst).copied().unwrap_or(0)),
            activated: sum(&|cell| cell.activated),
            contained: sum(&|cell| cell.contained),
        }
    }

    /// Whether every outcome follows from topology and IOMMU mode.
    pub fn by_construction(&self) -> bool {
        self.cells
            .iter()
            .all(|cell| cell.label == Label::ByConstruction)
    }

    /// The longest of its cells' medians.
    pub fn median(&self, of: impl Fn(&CellSummary) -> Option<u64>) -> Option<u64> {
        self.cells.iter().filter_map(|cell| of(cell)).max()
    }

    /// The longest median time for which a bystander's heartbeat or request was late.
    pub fn stall(&self) -> Option<u64> {
        let heartbeat = self.median(|cell| cell.stall.map(|spread| spread.median_ns));
        heartbeat.max(self.median(|cell| cell.io_stall.map(|spread| spread.median_ns)))
    }

    /// The longest median time from the fault until the driver served again.
    pub fn recovery(&self) -> Option<u64> {
        self.median(|cell| cell.recovery.after.map(|spread| spread.median_ns))
    }

    /// Whether one of its cells has that flag.
    pub fn flagged(&self, flag: Flag) -> bool {
        self.cells.iter().any(|cell| cell.flags.contains(&flag))
    }
}

/// One line of the matrix.
#[derive(Debug, Clone)]
pub struct Line<'a> {
    /// The platforms that show the same.
    pub platforms: Vec<Platform>,
    /// How these differ from the fault's other platforms: `off, passthrough`. Empty where the fault
    /// has no others.
    pub platform: String,
    /// A square for each placement of the matrix; `None` where the fault does not exist.
    pub squares: Vec<Option<Square<'a>>>,
}

impl Line<'_> {
    /// Whether every outcome in it follows from topology and IOMMU mode.
    pub fn by_construction(&self) -> bool {
        self.squares.iter().flatten().all(Square::by_construction)
    }

    /// Whether all placements have a square and all show the same worst outcome and counts.
    pub fn is_uniform(&self) -> bool {
        let mut tallies = self
            .squares
            .iter()
            .map(|square| square.as_ref().map(Square::tally));
        let first = tallies.next().flatten();
        first.is_some() && tallies.all(|tally| tally == first)
    }
}

/// A case of a fault, with a line for each set of platforms that show the same.
#[derive(Debug, Clone)]
pub struct CaseLines<'a> {
    /// Its name.
    pub case: &'a str,
    /// Its lines.
    pub lines: Vec<Line<'a>>,
}

/// A fault.
#[derive(Debug, Clone)]
pub struct Group<'a> {
    /// Its id.
    pub fault: &'a str,
    /// What happens, from the catalogue.
    pub says: &'static str,
    /// The fault as a whole: what was measured first, then what is settled.
    pub lines: Vec<Line<'a>>,
    /// Case by case.
    pub cases: Vec<CaseLines<'a>>,
}

/// The matrix of a run.
#[derive(Debug, Clone)]
pub struct Matrix<'a> {
    /// The placements across.
    pub placements: Vec<PlacementId>,
    /// The faults down, in the order of the catalogue.
    pub groups: Vec<Group<'a>>,
}

/// What decides whether two platforms show the same: every case and driver of every placement.
type Look<'a> = BTreeMap<(PlacementId, DriverId, &'a str), (Option<Outcome>, u32, u32)>;

fn look<'a>(cells: &[&'a CellSummary]) -> Look<'a> {
    let of = |cell: &&'a CellSummary| {
        let worst = cell.worst().map(|(outcome, _)| outcome);
        (
            (cell.placement, cell.driver, cell.case.as_str()),
            (worst, cell.contained, cell.activated),
        )
    };
    cells.iter().map(of).collect()
}

/// Whether two platforms show the same. A driver in a guest is tried on few of them: its square is of
/// those.
fn same(one: &Look<'_>, other: &Look<'_>) -> bool {
    let within = |one: &Look<'_>, other: &Look<'_>| {
        one.iter().all(|(key, shows)| match other.get(key) {
            Some(there) => there == shows,
            None => placement(key.0).needs_kvm(),
        })
    };
    within(one, other) && within(other, one)
}

/// The values of an axis that occur, in the catalogue's order, by name.
fn named<T: Copy + Ord>(
    order: impl Iterator<Item = T>,
    occur: &BTreeSet<T>,
    name: impl Fn(T) -> &'static str,
) -> String {
    let names: Vec<&str> = order
        .filter(|value| occur.contains(value))
        .map(name)
        .collect();
    names.join(", ")
}

/// What tells these platforms from all those of the fault.
fn platform_name(own: &[Platform], all: &BTreeSet<Platform>) -> String {
    let modes = |of: &mut dyn Iterator<Item = &Platform>| -> BTreeSet<IommuMode> {
        of.map(|platform| platform.0).collect()
    };
    let fabrics = |of: &mut dyn Iterator<Item = &Platform>| -> BTreeSet<FabricKind> {
        of.map(|platform| platform.1).collect()
    };
    let mut parts = Vec::new();
    let own_modes = modes(&mut own.iter());
    if own_modes != modes(&mut all.iter()) {
        let order = IOMMU_MODES.iter().map(|item| item.value);
        parts.push(named(order, &own_modes, iommu_name));
    }
    let own_fabrics = fabrics(&mut own.iter());
    if own_fabrics != fabrics(&mut all.iter()) {
        let order = FABRICS.iter().map(|item| item.value);
        parts.push(named(order, &own_fabrics, fabric_name));
    }
    let mut name = parts.join(" on ");
    let parameters = |of: &mut dyn Iterator<Item = &Platform>| -> BTreeSet<PlatformId> {
        of.map(|platform| platform.2).collect()
    };
    let own_parameters = parameters(&mut own.iter());
    if own_parameters != parameters(&mut all.iter()) {
        let ids: Vec<&str> = own_parameters.into_iter().map(PlatformId::id).collect();
        let space = if name.is_empty() { "" } else { " " };
        name = format!("{name}{space}@{}", ids.join(", @"));
    }
    name
}

fn lines<'a>(
    cells: &[&'a CellSummary],
    all: &BTreeSet<Platform>,
    placements: &[PlacementId],
) -> Vec<Line<'a>> {
    let mut platforms: BTreeMap<Platform, Vec<&'a CellSummary>> = BTreeMap::new();
    for cell in cells {
        let own = platforms.entry(platform(cell)).or_default();
        own.push(cell);
    }
    let mut alike: Vec<(Look<'a>, Vec<Platform>, Vec<&'a CellSummary>)> = Vec::new();
    for (platform, own) in platforms {
        let shows = look(&own);
        match alike.iter_mut().find(|(look, ..)| same(look, &shows)) {
            Some((look, platforms, cells)) => {
                look.extend(shows);
                platforms.push(platform);
                cells.extend(own);
            }
            None => alike.push((shows, vec![platform], own)),
        }
    }
    let square = |cells: &[&'a CellSummary], id: PlacementId| {
        let own = cells.iter().copied().filter(|cell| cell.placement == id);
        let own: Vec<_> = own.collect();
        (!own.is_empty()).then_some(Square { cells: own })
    };
    alike
        .into_iter()
        .map(|(_, platforms, cells)| Line {
            platform: platform_name(&platforms, all),
            squares: placements.iter().map(|&id| square(&cells, id)).collect(),
            platforms,
        })
        .collect()
}

impl<'a> Matrix<'a> {
    /// The matrix of a summary.
    pub fn of(summary: &'a Summary) -> Self {
        let struck = || summary.cells.iter().filter(|cell| !cell.is_clean());
        let placements: Vec<PlacementId> = PLACEMENTS
            .iter()
            .map(|entry| entry.placement)
            .filter(|id| struck().any(|cell| cell.placement == *id))
            .collect();
        let mut faults: BTreeMap<&str, Vec<&CellSummary>> = BTreeMap::new();
        for cell in struck() {
            faults.entry(&cell.fault).or_default().push(cell);
        }
        let groups = FAULTS
            .iter()
            .filter_map(|entry| {
                let (fault, cells) = faults.remove_entry(entry.id)?;
                Some(group(fault, entry.line, &cells, &placements))
            })
            .collect();
        Self { placements, groups }
    }
}

fn group<'a>(
    fault: &'a str,
    says: &'static str,
    cells: &[&'a CellSummary],
    placements: &[PlacementId],
) -> Group<'a> {
    let all: BTreeSet<Platform> = cells.iter().map(|cell| platform(cell)).collect();
    let of = |cell: &CellSummary| (cell.case.clone(), platform(cell));
    // A case on a platform is settled if it is so for every placement and driver.
    let open: BTreeSet<_> = cells
        .iter()
        .filter(|cell| cell.label == Label::Measured)
        .map(|cell| of(cell))
        .collect();
    let (measured, settled): (Vec<&CellSummary>, Vec<&CellSummary>) =
        cells.iter().partition(|cell| open.contains(&of(cell)));
    let mut whole = lines(&measured, &all, placements);
    whole.extend(lines(&settled, &all, placements));

    let mut names: Vec<&'a str> = Vec::new();
    for cell in cells {
        if !names.contains(&cell.case.as_str()) {
            names.push(&cell.case);
        }
    }
    let cases = names.into_iter().map(|case| {
        let own: Vec<_> = cells
            .iter()
            .copied()
            .filter(|cell| cell.case == case)
            .collect();
        CaseLines {
            case,
            lines: lines(&own, &all, placements),
        }
    });
    Group {
        fault,
        says,
        lines: whole,
        cases: cases.collect(),
    }
}
