//! Whether a cell ends the same way every time it is run by the wall clock.
//!
//! A run under leap replays; by the wall clock the host has its say. A cell whose most frequent
//! outcome is not the same in every one of several runs is unstable, and flagged in the summary of
//! each of them. That is reported and never a gate: it says how far a figure can be trusted.

use crate::engine::{Engine, EngineError};
use crate::out::{replace, vacant};
use crate::plan::Plan;
use crate::run::{Finished, Observer, RunError, run};
use crate::statistics::Flag;
use crate::summary::{CellSummary, State, Summary};
use crate::verdict::Outcome;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs;
use std::path::Path;

/// Version of the schema of `stability.json`.
pub const SCHEMA: u32 = 1;

/// How one cell ended in each run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CellStability {
    /// The cell.
    pub cell: String,
    /// Its most frequent outcome, run by run; `None` where it has no trial.
    pub modes: Vec<Option<Outcome>>,
    /// Whether that is the same in every run.
    pub stable: bool,
}

/// What several runs of one plan say together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stability {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Runs asked for.
    pub wanted: u32,
    /// How far each of those begun came. With one that is not complete, nothing is said of cells.
    pub runs: Vec<State>,
    /// Trials that could not be run.
    pub infrastructure_failures: u64,
    /// The faulty cells, in the order of the plan.
    pub cells: Vec<CellStability>,
}

/// The most frequent outcome of a cell; of several, the worst. Trials whose fault was not activated
/// count: a fault that acts in one run and not in the next is no stable ground either.
pub fn mode(cell: &CellSummary) -> Option<Outcome> {
    cell.outcomes
        .iter()
        .max_by_key(|&(outcome, times)| (times, outcome))
        .map(|(outcome, _)| *outcome)
}

impl Stability {
    /// What these runs say, of `wanted`.
    pub fn of(runs: &[Summary], wanted: u32) -> Self {
        let states: Vec<State> = runs.iter().map(|run| run.state).collect();
        let complete =
            states.len() == wanted as usize && states.iter().all(|state| *state == State::Complete);
        let mut cells = Vec::new();
        if let (Some(first), true) = (runs.first(), complete) {
            let modes: Vec<HashMap<&str, Option<Outcome>>> = runs.iter().map(modes).collect();
            for cell in first.cells.iter().filter(|cell| !cell.is_clean()) {
                let modes: Vec<Option<Outcome>> = modes
                    .iter()
                    .map(|run| run.get(cell.id.as_str()).copied().flatten())
                    .collect();
                cells.push(CellStability {
                    cell: cell.id.clone(),
                    stable: modes[0].is_some() && modes.iter().all(|mode| *mode == modes[0]),
                    modes,
                });
            }
        }
        Self {
            schema: SCHEMA,
            wanted,
            runs: states,
            infrastructure_failures: runs
                .iter()
                .map(|run| run.infrastructure_failures.len() as u64)
                .sum(),
            cells,
        }
    }

    /// Whether every run is complete.
    pub fn is_complete(&self) -> bool {
        self.runs.len() == self.wanted as usize
            && self.runs.iter().all(|state| *state == State::Complete)
    }

    /// The cells that did not end the same way in every run.
    pub fn unstable(&self) -> impl Iterator<Item = &CellStability> {
        self.cells.iter().filter(|cell| !cell.stable)
    }

    /// Flags these cells in a summary.
    pub fn flag(&self, summary: &mut Summary) {
        for unstable in self.unstable() {
            for cell in &mut summary.cells {
                if cell.id == unstable.cell {
                    cell.flag(Flag::Unstable);
                }
            }
        }
    }
}

fn modes(run: &Summary) -> HashMap<&str, Option<Outcome>> {
    run.cells
        .iter()
        .map(|cell| (cell.id.as_str(), mode(cell)))
        .collect()
}

/// Runs a plan so many times, each run into a directory `run-N` of `out`, and writes
/// `stability.json` beside them. A run that is interrupted or aborted is the last one.
pub fn runs<E: Engine>(
    plan: &Plan,
    out: &Path,
    wanted: u32,
    start: impl Fn() -> Result<E, EngineError> + Sync,
    observer: &mut dyn Observer,
) -> Result<Stability, RunError> {
    let made = vacant(out)?;
    let mut finished: Vec<Finished> = Vec::new();
    for nth in 1..=wanted {
        let one = run(plan, &out.join(format!("run-{nth}")), &start, observer);
        if one.is_err() && nth == 1 && made {
            // Best effort: an empty directory that stays misleads nobody.
            let _ = fs::remove_dir(out);
        }
        let one = one?;
        let last = one.summary.state != State::Complete;
        finished.push(one);
        if last {
            break;
        }
    }
    let (mut summaries, directories): (Vec<_>, Vec<_>) = finished
        .into_iter()
        .map(|one| (one.summary, one.directory))
        .unzip();
    let stability = Stability::of(&summaries, wanted);
    for (summary, directory) in summaries.iter_mut().zip(&directories) {
        stability.flag(summary);
        directory.replace("summary.json", &serde_json::to_vec_pretty(summary)?)?;
    }
    replace(
        out,
        "stability.json",
        &serde_json::to_vec_pretty(&stability)?,
    )?;
    Ok(stability)
}
