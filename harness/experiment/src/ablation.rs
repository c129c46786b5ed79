//! Ablations: one protection taken away, everything else the same, seeds included.
//!
//! An axis is data: its two sides, and for a cell on the first side the cell on the second. What
//! both cells of a pair have in the run is compared trial by trial.

use crate::cell::Cell;
use cofferdam_placement::trial::{DataPath, Fault, Oops, Packing};

/// Something that is there or not, or done one way or the other.
#[derive(Debug)]
pub struct Axis {
    /// A short name, for links and records.
    pub id: &'static str,
    /// What is varied.
    pub what: &'static str,
    /// Its two sides, the weaker one first.
    pub sides: [&'static str; 2],
    other: fn(&Cell) -> Option<Cell>,
}

impl Axis {
    /// The cell on the second side that differs from a cell on the first in nothing else. `None` if
    /// that cell is not on the first side.
    pub fn other(&self, cell: &Cell) -> Option<Cell> {
        (self.other)(cell)
    }
}

fn quarantine(cell: &Cell) -> Option<Cell> {
    let mut other = *cell;
    match &mut other.case.fault {
        Fault::D12 { quarantine, .. } if !*quarantine => *quarantine = true,
        _ => return None,
    }
    Some(other)
}

fn acs(cell: &Cell) -> Option<Cell> {
    let mut other = *cell;
    match &mut other.case.fault {
        Fault::D9 { .. } | Fault::D13 { .. } if !other.case.acs => other.case.acs = true,
        _ => return None,
    }
    Some(other)
}

fn intremap(cell: &Cell) -> Option<Cell> {
    let mut other = *cell;
    if cell.is_clean() || std::mem::replace(&mut other.case.intremap, true) {
        return None;
    }
    Some(other)
}

fn oops(cell: &Cell) -> Option<Cell> {
    let mut other = *cell;
    if cell.is_clean() || cell.case.oops != Oops::Panic {
        return None;
    }
    other.case.oops = Oops::KillTask;
    Some(other)
}

fn data(cell: &Cell) -> Option<Cell> {
    let mut other = *cell;
    if cell.is_clean() || cell.case.data != DataPath::ZeroCopy {
        return None;
    }
    other.case.data = DataPath::Copy;
    Some(other)
}

fn packing(cell: &Cell) -> Option<Cell> {
    let mut other = *cell;
    if cell.is_clean() || cell.case.packing != Packing::Packed || cell.case.data != DataPath::Copy {
        return None;
    }
    other.case.packing = Packing::OneAPage;
    Some(other)
}

/// The axes.
pub static AXES: [Axis; 6] = [
    Axis {
        id: "quarantine",
        what: "Pages of a driver that died or was reset",
        sides: ["given out again at once", "quarantined"],
        other: quarantine,
    },
    Axis {
        id: "acs",
        what: "Switches and ports check what passes them (ACS)",
        sides: ["no", "yes"],
        other: acs,
    },
    Axis {
        id: "intremap",
        what: "Interrupts are remapped",
        sides: ["no", "yes"],
        other: intremap,
    },
    Axis {
        id: "oops",
        what: "A crash in the privileged layer",
        sides: ["stops the layer", "kills the task only"],
        other: oops,
    },
    Axis {
        id: "data",
        what: "A request's data",
        sides: [
            "moved by the device in the tenant's own pages",
            "copied through the driver's buffers",
        ],
        other: data,
    },
    Axis {
        id: "packing",
        what: "The driver's buffers",
        sides: ["packed on common pages", "one a page"],
        other: packing,
    },
];

/// The axis of that name.
pub fn axis(id: &str) -> Option<&'static Axis> {
    AXES.iter().find(|axis| axis.id == id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Filter, Plan, Settings};
    use std::collections::HashSet;

    #[test]
    fn every_axis_has_pairs_in_the_plan_and_they_share_their_seeds() {
        let plan = Plan::new(Settings::QUICK, Filter::default()).expect("the plan is not empty");
        let first: Vec<_> = plan.trials().filter(|trial| trial.number == 0).collect();
        let cells: HashSet<Cell> = first.iter().map(|trial| trial.cell).collect();
        for axis in &AXES {
            let pairs: Vec<_> = first
                .iter()
                .filter_map(|trial| Some((trial, axis.other(&trial.cell)?)))
                .filter(|(_, other)| cells.contains(other))
                .collect();
            assert!(!pairs.is_empty(), "{}", axis.id);
            for (trial, other) in pairs {
                let twin = first.iter().find(|trial| trial.cell == other);
                assert_eq!(twin.map(|twin| twin.spec.seed), Some(trial.spec.seed));
            }
        }
    }

    #[test]
    fn second_side_has_no_other() {
        let plan = Plan::new(Settings::QUICK, Filter::default()).expect("the plan is not empty");
        for trial in plan.trials().filter(|trial| trial.number == 0) {
            for axis in &AXES {
                if let Some(other) = axis.other(&trial.cell) {
                    assert_eq!(axis.other(&other), None, "{} {}", axis.id, other.id());
                }
            }
        }
    }
}
