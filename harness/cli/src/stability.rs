//! `cofferdam stability`: some cells of the plan, several times by the wall clock.

use crate::arguments::{self, Format};
use crate::compare::{INFRASTRUCTURE, INTERRUPTED, Screen, USAGE, fail, refused};
use crate::{interrupt, print};
use cofferdam_experiment::engine::Processes;
use cofferdam_experiment::record::Record;
use cofferdam_experiment::run::Observer;
use cofferdam_experiment::stability::{Stability, runs};
use cofferdam_experiment::summary::{InfrastructureFailure, State};
use cofferdam_experiment::verdict::Outcome;
use std::fmt::Write;
use std::process::ExitCode;

pub fn stability(arguments: &arguments::Stability) -> ExitCode {
    let wanted = match arguments.wanted() {
        Ok(wanted) => wanted,
        Err(error) => return fail(&error, USAGE),
    };
    let plan = match wanted.plan() {
        Ok(plan) => plan.at_most(arguments.cells.into()),
        Err(error) => return fail(&error, USAGE),
    };
    if plan.is_empty() {
        let why = "no faulty cell is selected, and clean cells have one outcome; drop a filter";
        return fail(&why, USAGE);
    }
    interrupt::watch();
    let mut screen = Runs {
        screen: Screen::new(),
        runs: arguments.runs.into(),
        before: 0,
    };
    let found = runs(
        &plan,
        &arguments.out,
        arguments.runs,
        Processes::start,
        &mut screen,
    );
    screen.screen.finish();
    let stability = match found {
        Ok(stability) => stability,
        Err(error) => return refused(&error),
    };
    match arguments.format {
        Format::Text => print(&text(&stability, plan.settings().trials)),
        Format::Json => match serde_json::to_string_pretty(&stability) {
            Ok(text) => print(&format!("{text}\n")),
            Err(error) => return fail(&error, INFRASTRUCTURE),
        },
    }
    code(&stability)
}

fn code(stability: &Stability) -> ExitCode {
    if stability.runs.contains(&State::Interrupted) {
        ExitCode::from(INTERRUPTED)
    } else if stability.is_complete() && stability.infrastructure_failures == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(INFRASTRUCTURE)
    }
}

fn text(stability: &Stability, trials: u32) -> String {
    let mut text = String::new();
    let complete = stability.runs.iter();
    let complete = complete.filter(|state| **state == State::Complete).count();
    if !stability.is_complete() {
        return format!(
            "{complete} of {} runs are complete, so nothing is said of any cell.\n",
            stability.wanted
        );
    }
    let unstable = stability.unstable().count();
    // Writing to a string does not fail.
    let _ = writeln!(
        text,
        "{} of {} cells ended the same way in {complete} of {complete} runs by the wall clock, by \
         the most frequent outcome of {trials} trials.",
        stability.cells.len() - unstable,
        stability.cells.len()
    );
    for cell in stability.unstable() {
        let modes: Vec<&str> = cell
            .modes
            .iter()
            .map(|mode| mode.map_or("no trial", Outcome::name))
            .collect();
        let _ = writeln!(text, "  unstable: {}: {}", cell.cell, modes.join(", "));
    }
    if stability.infrastructure_failures > 0 {
        let _ = writeln!(
            text,
            "{} trials could not be run; the runs' summaries say why.",
            stability.infrastructure_failures
        );
    }
    text
}

/// Shows several runs as one.
struct Runs {
    screen: Screen,
    runs: u64,
    before: u64,
}

impl Runs {
    /// Trials done so far, and of how many.
    fn all(&mut self, done: u64, total: u64) -> (u64, u64) {
        let so_far = self.before + done;
        if done == total {
            self.before = so_far;
        }
        (so_far, self.runs * total)
    }
}

impl Observer for Runs {
    fn done(&mut self, done: u64, total: u64, record: &Record) {
        let (done, total) = self.all(done, total);
        self.screen.done(done, total, record);
    }

    fn failed(&mut self, done: u64, total: u64, failure: &InfrastructureFailure) {
        let (done, total) = self.all(done, total);
        self.screen.failed(done, total, failure);
    }

    fn stop(&self) -> bool {
        self.screen.stop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cofferdam_experiment::stability::{CellStability, SCHEMA};

    fn two_runs(second: State, modes: [Outcome; 2]) -> Stability {
        Stability {
            schema: SCHEMA,
            wanted: 2,
            runs: vec![State::Complete, second],
            infrastructure_failures: 0,
            cells: vec![CellStability {
                cell: "a/b".into(),
                modes: modes.map(Some).to_vec(),
                stable: modes[0] == modes[1],
            }],
        }
    }

    #[test]
    fn unstable_cell_is_named_with_its_outcomes() {
        let modes = [Outcome::Masked, Outcome::TenantLost];
        let text = text(&two_runs(State::Complete, modes), 3);
        assert!(text.contains("0 of 1 cells ended the same way in 2 of 2 runs"));
        assert!(text.contains("unstable: a/b: masked, tenant-lost"));
    }

    #[test]
    fn incomplete_runs_say_nothing_of_cells() {
        let text = text(&two_runs(State::Interrupted, [Outcome::Masked; 2]), 3);
        assert!(text.contains("1 of 2 runs are complete"));
        assert!(!text.contains("a/b"));
    }
}
