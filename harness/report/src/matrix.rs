//! The matrix: faults down, placements across, one block for each IOMMU mode.
//!
//! Cells of both drivers, and of the four kinds of victims of a wild DMA, share a square: it shows
//! the worst outcome and how often it came, among all their activated trials.

use cofferdam_experiment::catalogue::{FAULTS, IOMMU_MODES, PLACEMENTS};
use cofferdam_experiment::predict::Label;
use cofferdam_experiment::summary::{CellSummary, Summary};
use cofferdam_experiment::verdict::Outcome;
use cofferdam_machine::config::IommuMode;
use cofferdam_placement::trial::{DriverId, PlacementId};
use std::collections::BTreeMap;

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
}

fn tally<'a>(cells: impl Iterator<Item = &'a CellSummary> + Clone) -> Tally {
    let activated = cells.clone().map(|cell| cell.activated).sum();
    let worst = cells
        .clone()
        .filter_map(|cell| cell.worst())
        .map(|(outcome, _)| outcome)
        .max()
        .unwrap_or(Outcome::NotActivated);
    Tally {
        worst,
        times: cells
            .filter(|_| worst != Outcome::NotActivated)
            .filter_map(|cell| cell.outcomes.get(&worst))
            .sum(),
        activated,
    }
}

impl Square<'_> {
    /// The worst outcome over all its cells.
    pub fn tally(&self) -> Tally {
        tally(self.cells.iter().copied())
    }

    /// The same for each driver.
    pub fn by_driver(&self) -> BTreeMap<DriverId, Tally> {
        let mut drivers: Vec<DriverId> = self.cells.iter().map(|cell| cell.driver).collect();
        drivers.sort_unstable();
        drivers.dedup();
        drivers
            .into_iter()
            .map(|driver| {
                let own = self.cells.iter().copied();
                (driver, tally(own.filter(move |cell| cell.driver == driver)))
            })
            .collect()
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

    /// Whether times are "at least" in some trial.
    pub fn censored(&self) -> bool {
        self.cells.iter().any(|cell| cell.censored > 0)
    }
}

/// Whether two times differ by no more than a tenth.
fn close(one: Option<u64>, other: Option<u64>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one.abs_diff(other) <= one.max(other) / 10,
        (one, other) => one == other,
    }
}

/// One row: a fault with its parameters.
#[derive(Debug, Clone)]
pub struct Row<'a> {
    /// Its name, at most 19 characters.
    pub name: String,
    /// The fault's id.
    pub fault: &'a str,
    /// A square for each placement of the matrix; `None` where the fault does not exist.
    pub squares: Vec<Option<Square<'a>>>,
}

impl<'a> Row<'a> {
    /// The squares as one, if all placements have one and they show the same outcomes and, within
    /// a tenth, the same times.
    pub fn uniform(&self) -> Option<Square<'a>> {
        let squares: Vec<&Square<'a>> = self.squares.iter().flatten().collect();
        let first = squares.first()?;
        let same = squares.len() == self.squares.len()
            && squares.iter().all(|square| {
                square.by_driver() == first.by_driver()
                    && close(square.stall(), first.stall())
                    && close(square.recovery(), first.recovery())
            });
        same.then(|| Square {
            cells: squares
                .iter()
                .flat_map(|square| square.cells.iter().copied())
                .collect(),
        })
    }

    /// Whether every outcome in it follows from topology and IOMMU mode.
    pub fn by_construction(&self) -> bool {
        self.squares.iter().flatten().all(Square::by_construction)
    }
}

/// The rows of one IOMMU mode.
#[derive(Debug, Clone)]
pub struct Block<'a> {
    /// The mode.
    pub iommu: IommuMode,
    /// Its name.
    pub name: &'static str,
    /// Its rows, in the order of the plan.
    pub rows: Vec<Row<'a>>,
}

impl Block<'_> {
    /// Whether another block shows the same in every square.
    fn looks_like(&self, other: &Self) -> bool {
        let look = |block: &Self| -> Vec<_> {
            let squares = block.rows.iter().map(|row| {
                let squares = row.squares.iter();
                let squares: Vec<_> = squares
                    .map(|square| square.as_ref().map(Square::by_driver))
                    .collect();
                (row.name.clone(), squares)
            });
            squares.collect()
        };
        look(self) == look(other)
    }
}

/// The matrix of a run.
#[derive(Debug, Clone)]
pub struct Matrix<'a> {
    /// The placements across.
    pub placements: Vec<PlacementId>,
    /// The blocks, weakest IOMMU mode first.
    pub blocks: Vec<Block<'a>>,
}

/// Whether the IOMMU mode matters to a fault: those are crossed with more than one.
pub fn depends_on_iommu(fault: &str) -> bool {
    FAULTS
        .iter()
        .any(|entry| entry.id == fault && entry.iommu.len() > 1)
}

/// The row a cell belongs to.
fn row_name(cell: &CellSummary) -> String {
    let mut parts = cell.case.split('.');
    let (fault, first) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    match (fault, first, parts.next()) {
        ("D1", by, Some("hypervisor" | "kernel" | "tenant1" | "tenant2")) => {
            format!("D1 {by} victim")
        }
        ("D1", by, Some("driver")) => format!("D1 {by} own"),
        ("B1", "all-ones", None) => format!(
            "B1 {}",
            cofferdam_experiment::catalogue::fabric_name(cell.fabric)
        ),
        (fault, "", None) => fault.to_owned(),
        (fault, first, None) => format!("{fault} {first}"),
        (fault, first, Some(second)) => format!("{fault} {first} {second}"),
    }
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
        let blocks = IOMMU_MODES
            .iter()
            .map(|mode| Block {
                iommu: mode.value,
                name: mode.id,
                rows: rows(
                    struck().filter(|cell| cell.iommu == mode.value),
                    &placements,
                ),
            })
            .filter(|block| !block.rows.is_empty())
            .collect();
        Self { placements, blocks }
    }

    /// The blocks, neighbours that look the same together.
    pub fn alike(&self) -> impl DoubleEndedIterator<Item = &[Block<'a>]> {
        self.blocks.chunk_by(|one, next| one.looks_like(next))
    }
}

fn rows<'a>(
    cells: impl Iterator<Item = &'a CellSummary>,
    placements: &[PlacementId],
) -> Vec<Row<'a>> {
    let mut rows: Vec<Row<'a>> = Vec::new();
    for cell in cells {
        let name = row_name(cell);
        let at = rows.iter().position(|row| row.name == name);
        let at = at.unwrap_or_else(|| {
            rows.push(Row {
                name,
                fault: &cell.fault,
                squares: vec![None; placements.len()],
            });
            rows.len() - 1
        });
        let column = placements.iter().position(|id| *id == cell.placement);
        let square = column.and_then(|column| rows.get_mut(at)?.squares.get_mut(column));
        if let Some(square) = square {
            square
                .get_or_insert(Square { cells: Vec::new() })
                .cells
                .push(cell);
        }
    }
    rows
}
