//! `cofferdam compare` and `merge`: how far a run is, how it ended, and what to read then.

use crate::arguments::{Compare, Format, Merge, Set};
use crate::{interrupt, print};
use cofferdam_experiment::crossings::Crossings;
use cofferdam_experiment::engine::{Engine, EngineError, Processes};
use cofferdam_experiment::environment::guests;
use cofferdam_experiment::header::{HeaderError, Wanted};
use cofferdam_experiment::merge::{self as experiment, MergeError};
use cofferdam_experiment::out::{Directory, OutError, default_path};
use cofferdam_experiment::outline::{Outline, estimate};
use cofferdam_experiment::plan::Plan;
use cofferdam_experiment::record::Record;
use cofferdam_experiment::run::{
    Finished, Measured, Observer, REPORT, RunError, jobs, resume, run_measured,
};
use cofferdam_experiment::split_locks::SplitLocks;
use cofferdam_experiment::summary::{InfrastructureFailure, State, Summary};
use cofferdam_guest::Guest;
use cofferdam_reality::guest::observe;
use cofferdam_reality::liars::{Extent, meet};
use cofferdam_reality::{Comparison, Line, Reality};
use cofferdam_report::progress::Progress;
use cofferdam_report::terminal::{Detail, Style, render};
use cofferdam_report::{campaign, html, linux, reality};
use std::fmt::Display;
use std::io::{IsTerminal, Write, stderr, stdout};
use std::process::ExitCode;
use std::time::{Instant, SystemTime};

const GATE: u8 = 1;
pub const USAGE: u8 = 2;
pub const INFRASTRUCTURE: u8 = 3;
pub const INTERRUPTED: u8 = 130;

pub fn compare(arguments: &Compare) -> ExitCode {
    let wanted = match arguments.wanted() {
        Ok(wanted) => wanted,
        Err(error) => return fail(&error, USAGE),
    };
    if arguments.plan {
        return match outline(arguments, &wanted) {
            Ok(text) => {
                print(&text);
                ExitCode::SUCCESS
            }
            Err(error) => refused(&error),
        };
    }
    // A guest that cannot be had is known before the first trial.
    let guest = match arguments.reality.map(|_| Guest::find()).transpose() {
        Ok(guest) => guest.zip(arguments.reality),
        Err(error) => return fail(&error, INFRASTRUCTURE),
    };
    interrupt::watch();
    let mut screen = Screen::new();
    let finished = carry_out(arguments, &wanted, &mut screen);
    screen.finish();
    match finished {
        Ok(finished) => {
            let detail = if arguments.verbose {
                Detail::Cases
            } else {
                Detail::Faults
            };
            show(finished, guest, (arguments.format, detail), code)
        }
        Err(error) => refused(&error),
    }
}

fn outline(arguments: &Compare, wanted: &Wanted) -> Result<String, RunError> {
    let plan = wanted.plan().map_err(HeaderError::from)?;
    let jobs = jobs(arguments.jobs, plan.settings().clock)?;
    let outline = Outline::of(&plan);
    let estimate = estimate(&plan, jobs, Processes::start)?;
    Ok(match arguments.format {
        Format::Text => cofferdam_report::outline::text(&outline, &estimate),
        Format::Json => {
            let both = serde_json::json!({ "plan": outline, "estimate": estimate });
            format!("{both:#}\n")
        }
    })
}

fn carry_out(
    arguments: &Compare,
    wanted: &Wanted,
    screen: &mut Screen,
) -> Result<Finished, RunError> {
    if let Some(path) = &arguments.resume {
        return resume(path, wanted, arguments.jobs, Processes::start, screen);
    }
    let plan = wanted.plan().map_err(HeaderError::from)?;
    let jobs = jobs(arguments.jobs, plan.settings().clock)?;
    let out = arguments
        .out
        .clone()
        .unwrap_or_else(|| default_path(SystemTime::now()));
    let measure = || measure(&plan);
    run_measured(&plan, &out, jobs, Processes::start, measure, screen)
}

/// What the host is like: what a crossing takes in the plan's placements, what split locks cost. One on
/// which no engine starts says so with the first trial.
fn measure(plan: &Plan) -> Measured {
    let Ok(mut engine) = Processes::start() else {
        return Measured::default();
    };
    let going_on = || match interrupt::asked() {
        true => Err(EngineError::Infrastructure("interrupted".to_owned())),
        false => Ok(()),
    };
    let crossings = Crossings::of_plan(plan, |placement, rounds| {
        going_on()?;
        engine.round_trips(placement, rounds)
    });
    let split_locks = SplitLocks::of_plan(plan, guests().ok(), |spec| {
        going_on()?;
        engine.run(spec)
    });
    Measured {
        crossings: Some(crossings),
        split_locks,
    }
}

pub fn merge(arguments: &Merge) -> ExitCode {
    match experiment::merge(&arguments.from, &arguments.out, arguments.partial) {
        // What is partial on demand is judged by its gates.
        Ok(finished) => show(
            finished,
            None,
            (arguments.format, Detail::Faults),
            |summary| match summary.passed {
                true => 0,
                false => GATE,
            },
        ),
        Err(error) => {
            let code = match &error {
                MergeError::Missing { .. } => GATE,
                MergeError::Run(error) => run_code(error),
                MergeError::Nothing | MergeError::Header(_) | MergeError::Assemble(_) => USAGE,
            };
            fail(&error, code)
        }
    }
}

fn run_code(error: &RunError) -> u8 {
    match error {
        RunError::Out(OutError::NotEmpty(_) | OutError::Busy(_) | OutError::Read { .. })
        | RunError::Header(_)
        | RunError::Assemble(_)
        | RunError::WallJobs(_) => USAGE,
        RunError::Out(_) | RunError::Engine(_) | RunError::Json(_) => INFRASTRUCTURE,
    }
}

/// Writes the page and prints the end of a run.
fn show(
    finished: Finished,
    guest: Option<(Guest, Set)>,
    (format, detail): (Format, Detail),
    code: impl Fn(&Summary) -> u8,
) -> ExitCode {
    let Finished {
        summary,
        mut directory,
        guest: seen,
    } = finished;
    let known: Result<Reality, _> = seen
        .iter()
        .map(|line| serde_json::from_slice::<Line>(line))
        .collect();
    let seen = match (known, guest) {
        // What a guest did is on record: it is not asked again.
        (Ok(known), Some((guest, set))) if known.is_empty() => {
            in_guest(&guest, set, &mut directory)
        }
        (Ok(known), _) => Ok(known),
        (Err(error), _) => Err(error.into()),
    };
    let seen = match seen {
        Ok(seen) => seen,
        Err(error) => return fail(&*error, INFRASTRUCTURE),
    };
    let page = html::page(&summary, &seen);
    if let Err(error) = directory.replace(REPORT, page.as_bytes()) {
        return fail(&error, INFRASTRUCTURE);
    }
    match format {
        Format::Text => {
            let no_color = std::env::var("NO_COLOR").ok();
            let style = Style::for_output(stdout().is_terminal(), no_color.as_deref());
            print(&render(&summary, style, detail));
            if let Some(account) = &summary.campaign {
                print(&format!("{}\n", campaign::text(account)));
            }
            print(&reality::table(&seen.comparisons));
            print(&linux::table(&summary, &seen.trials));
            let report = directory.path().join(REPORT);
            print(&format!("Report: {}\n", report.display()));
        }
        Format::Json => match serde_json::to_string_pretty(&summary) {
            Ok(text) => print(&format!("{text}\n")),
            Err(error) => return fail(&error, INFRASTRUCTURE),
        },
    }
    let disagrees = seen.comparisons.iter().any(|one| !one.holds());
    ExitCode::from(match code(&summary) {
        0 if disagrees => GATE,
        code => code,
    })
}

/// Holds the model against a Linux guest, and has Linux meet liars; a line of `trials.jsonl` each.
fn in_guest(
    guest: &Guest,
    set: Set,
    directory: &mut Directory,
) -> Result<Reality, Box<dyn std::error::Error>> {
    let observations = observe(guest)?;
    let comparisons: Vec<Comparison> = observations
        .iter()
        .map(cofferdam_reality::compare)
        .collect();
    let extent = match set {
        Set::Quick => Extent::Quick,
        Set::All => Extent::All,
    };
    let trials = meet(guest, extent)?;
    let seen = Reality {
        comparisons,
        trials,
    };
    for line in seen.clone().lines() {
        directory.append(serde_json::to_vec(&line)?)?;
    }
    Ok(seen)
}

/// A run whose trials could not all be run is no basis for a gate, so that comes first.
fn code(summary: &Summary) -> u8 {
    match summary.state {
        State::Interrupted => INTERRUPTED,
        State::Aborted => INFRASTRUCTURE,
        State::Complete if !summary.infrastructure_failures.is_empty() => INFRASTRUCTURE,
        State::Complete if summary.campaign.as_ref().is_some_and(|it| !it.is_whole()) => {
            INFRASTRUCTURE
        }
        State::Complete if !summary.passed => GATE,
        State::Complete => 0,
    }
}

/// Says why there is no run.
pub fn refused(error: &RunError) -> ExitCode {
    fail(error, run_code(error))
}

pub fn fail(error: &dyn Display, code: u8) -> ExitCode {
    let _ = writeln!(stderr(), "error: {error}");
    ExitCode::from(code)
}

/// Shows on standard error how far a run is.
pub struct Screen {
    progress: Progress,
}

impl Screen {
    pub fn new() -> Self {
        Self {
            progress: Progress::new(stderr().is_terminal(), Instant::now()),
        }
    }

    pub fn finish(&mut self) {
        self.write(self.progress.finish());
    }

    fn write(&self, text: &str) {
        let _ = stderr().write_all(text.as_bytes());
    }
}

impl Observer for Screen {
    fn done(&mut self, done: u64, total: u64, record: &Record) {
        let line = self
            .progress
            .advance(done, total, &record.cell, Instant::now());
        if let Some(line) = line {
            self.write(&line);
        }
    }

    fn failed(&mut self, _: u64, _: u64, failure: &InfrastructureFailure) {
        self.write(self.progress.finish());
        self.write(&format!(
            "could not run trial {} ({}): {}\n",
            failure.index, failure.cell, failure.what
        ));
    }

    fn stop(&self) -> bool {
        interrupt::asked()
    }
}
