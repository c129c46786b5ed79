//! `cofferdam compare`: runs the plan, shows how far it is, and says how it ended.

use crate::arguments::{Compare, Format};
use crate::{interrupt, print};
use cofferdam_experiment::engine::Processes;
use cofferdam_experiment::out::{Directory, OutError, default_path};
use cofferdam_experiment::plan::Plan;
use cofferdam_experiment::record::Record;
use cofferdam_experiment::run::{Finished, Observer, RunError, run};
use cofferdam_experiment::summary::{InfrastructureFailure, State, Summary};
use cofferdam_guest::Guest;
use cofferdam_reality::Comparison;
use cofferdam_reality::guest::observe;
use cofferdam_report::progress::Progress;
use cofferdam_report::terminal::{Detail, Style, render};
use cofferdam_report::{html, reality};
use std::fmt::Display;
use std::io::{IsTerminal, Write, stderr, stdout};
use std::process::ExitCode;
use std::time::{Instant, SystemTime};

const GATE: u8 = 1;
pub const USAGE: u8 = 2;
pub const INFRASTRUCTURE: u8 = 3;
pub const INTERRUPTED: u8 = 130;

pub fn compare(arguments: &Compare) -> ExitCode {
    let plan = match Plan::new(arguments.settings(), arguments.filter()) {
        Ok(plan) => plan,
        Err(error) => return fail(&error, USAGE),
    };
    let out = arguments
        .out
        .clone()
        .unwrap_or_else(|| default_path(SystemTime::now()));
    // A guest that cannot be had is known before the first trial.
    let guest = match arguments.reality.then(Guest::find).transpose() {
        Ok(guest) => guest,
        Err(error) => return fail(&error, INFRASTRUCTURE),
    };
    interrupt::watch();
    let mut screen = Screen::new();
    let finished = run(&plan, &out, Processes::start, &mut screen);
    screen.finish();
    let Finished {
        summary,
        mut directory,
    } = match finished {
        Ok(finished) => finished,
        Err(error) => return refused(&error),
    };
    let comparisons = match guest.map(|guest| in_guest(&guest, &mut directory)) {
        None => Vec::new(),
        Some(Ok(comparisons)) => comparisons,
        Some(Err(error)) => return fail(&*error, INFRASTRUCTURE),
    };
    let page = html::page(&summary, &comparisons);
    if let Err(error) = directory.replace("report.html", page.as_bytes()) {
        return fail(&error, INFRASTRUCTURE);
    }
    match arguments.format {
        Format::Text => {
            let no_color = std::env::var("NO_COLOR").ok();
            let style = Style::for_output(stdout().is_terminal(), no_color.as_deref());
            let detail = if arguments.verbose {
                Detail::Cases
            } else {
                Detail::Faults
            };
            print(&render(&summary, style, detail));
            print(&reality::table(&comparisons));
            let report = directory.path().join("report.html");
            print(&format!("Report: {}\n", report.display()));
        }
        Format::Json => match serde_json::to_string_pretty(&summary) {
            Ok(text) => print(&format!("{text}\n")),
            Err(error) => return fail(&error, INFRASTRUCTURE),
        },
    }
    let disagrees = comparisons.iter().any(|one| !one.holds());
    ExitCode::from(match code(&summary) {
        0 if disagrees => GATE,
        code => code,
    })
}

/// Holds the model against a Linux guest; a line of `trials.jsonl` each.
fn in_guest(
    guest: &Guest,
    directory: &mut Directory,
) -> Result<Vec<Comparison>, Box<dyn std::error::Error>> {
    let observations = observe(guest)?;
    let comparisons: Vec<Comparison> = observations
        .iter()
        .map(cofferdam_reality::compare)
        .collect();
    for comparison in &comparisons {
        directory.append(serde_json::to_vec(comparison)?)?;
    }
    Ok(comparisons)
}

/// A run whose trials could not all be run is no basis for a gate, so that comes first.
fn code(summary: &Summary) -> u8 {
    match summary.state {
        State::Interrupted => INTERRUPTED,
        State::Aborted => INFRASTRUCTURE,
        State::Complete if !summary.infrastructure_failures.is_empty() => INFRASTRUCTURE,
        State::Complete if !summary.passed => GATE,
        State::Complete => 0,
    }
}

/// Says why there is no run.
pub fn refused(error: &RunError) -> ExitCode {
    let code = match error {
        RunError::Out(OutError::NotEmpty(_)) => USAGE,
        RunError::Out(_) | RunError::Engine(_) | RunError::Json(_) => INFRASTRUCTURE,
    };
    fail(error, code)
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
