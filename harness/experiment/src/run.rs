//! Drives the trials of a plan, and writes each as soon as it is done.

use crate::cell::Cell;
use crate::engine::{Engine, EngineError};
use crate::environment::{Environment, Mechanism};
use crate::out::{Directory, OutError};
use crate::plan::{Filter, Plan, Settings, Trial};
use crate::record::{Record, SCHEMA, Times};
use crate::summary::{Collector, InfrastructureFailure, State, Summary};
use crate::verdict::{Baseline, judge};
use cofferdam_placement::trial::TrialReport;
use serde::Serialize;
use std::collections::HashMap;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};
use thiserror::Error;

/// How often a trial is tried before it counts as an infrastructure failure.
const ATTEMPTS: u32 = 3;
/// So many trials in a row that cannot be run end the run: nothing here works.
const IN_A_ROW: u32 = 5;

/// Why a run did not take place or could not be written.
#[derive(Debug, Error)]
pub enum RunError {
    /// The output directory.
    #[error(transparent)]
    Out(#[from] OutError),
    /// The engine did not start.
    #[error("cannot start the trial engine: {0}")]
    Engine(#[from] EngineError),
    /// A record could not be written as JSON.
    #[error("cannot write a record: {0}")]
    Json(#[from] serde_json::Error),
}

/// Watches a run, and may stop it.
pub trait Observer {
    /// A trial is done: `done` of `total`.
    fn done(&mut self, done: u64, total: u64, record: &Record);
    /// A trial could not be run.
    fn failed(&mut self, done: u64, total: u64, failure: &InfrastructureFailure);
    /// Whether to stop before the next trial.
    fn stop(&self) -> bool;
}

/// What `run.json` says from the start, so that the records of a run that was killed can be read
/// and repeated.
#[derive(Serialize)]
struct Header<'a> {
    schema: u32,
    planned: u64,
    settings: &'a Settings,
    filter: &'a Filter,
    environment_id: &'a str,
    environment: &'a Environment,
}

/// A finished run.
#[derive(Debug)]
pub struct Finished {
    /// Its summary, which is also in `summary.json`.
    pub summary: Summary,
    /// Where it was written.
    pub directory: Directory,
}

/// Runs a plan into a new directory. `start` makes a fresh engine. On an error before the first
/// trial nothing is left behind; later errors leave the records written so far.
pub fn run<E: Engine>(
    plan: &Plan,
    out: &Path,
    mut start: impl FnMut() -> Result<E, EngineError>,
    observer: &mut dyn Observer,
) -> Result<Finished, RunError> {
    let mut directory = Directory::create(out)?;
    let engine = match start() {
        Ok(engine) => engine,
        Err(error) => {
            directory.abandon();
            return Err(error.into());
        }
    };
    let environment =
        Environment::probe(plan.settings().clock, engine.facts(), engine.unavailable());
    let environment_id = environment.id();
    let header = Header {
        schema: SCHEMA,
        planned: plan.len(),
        settings: plan.settings(),
        filter: plan.filter(),
        environment_id: &environment_id,
        environment: &environment,
    };
    directory.replace("run.json", &serde_json::to_vec_pretty(&header)?)?;

    let mut attempts = Attempts {
        engine: Some(engine),
        start,
    };
    let mut collector = Collector::default();
    let mut clean: HashMap<(Cell, u32), Baseline> = HashMap::new();
    let mut state = State::Complete;
    let mut in_a_row = 0;
    for (done, trial) in (1..).zip(plan.trials()) {
        if observer.stop() {
            state = State::Interrupted;
            break;
        }
        let started_us = now_us();
        match attempts.run(&trial, observer) {
            Ok(report) => {
                in_a_row = 0;
                let pair = clean.get(&(trial.cell.clean(), trial.number));
                let verdict = judge(&trial.spec.fault, &report, pair);
                if trial.cell.is_clean() {
                    clean.insert((trial.cell, trial.number), Baseline::of(&report));
                }
                let record = Record {
                    schema: SCHEMA,
                    index: trial.index,
                    number: trial.number,
                    cell: trial.cell.id(),
                    mechanism: Mechanism::Process,
                    environment: environment_id.clone(),
                    spec: trial.spec,
                    verdict,
                    report,
                    times: Times {
                        started_us,
                        finished_us: now_us(),
                    },
                };
                directory.append(serde_json::to_vec(&record)?)?;
                collector.add(&record);
                observer.done(done, plan.len(), &record);
            }
            // Whoever stops a run may have stopped the engine with it.
            Err(_) if observer.stop() => {
                state = State::Interrupted;
                break;
            }
            Err(error) => {
                let failure = InfrastructureFailure {
                    index: trial.index,
                    cell: trial.cell.id(),
                    what: error.to_string(),
                };
                observer.failed(done, plan.len(), &failure);
                collector.fail(failure);
                in_a_row += 1;
                if in_a_row == IN_A_ROW || matches!(error, EngineError::Unavailable(_)) {
                    state = State::Aborted;
                    break;
                }
            }
        }
    }

    let summary = collector.close(plan, environment, state);
    directory.replace("summary.json", &serde_json::to_vec_pretty(&summary)?)?;
    Ok(Finished { summary, directory })
}

struct Attempts<E, F> {
    engine: Option<E>,
    start: F,
}

impl<E: Engine, F: FnMut() -> Result<E, EngineError>> Attempts<E, F> {
    /// Runs a trial, again with a fresh engine if the harness failed.
    fn run(&mut self, trial: &Trial, observer: &dyn Observer) -> Result<TrialReport, EngineError> {
        let mut attempt = 1;
        loop {
            let error = match self.once(trial) {
                Ok(report) => return Ok(report),
                Err(error) => error,
            };
            // A failed engine is not used again, whatever it says next.
            self.engine = None;
            let again = matches!(error, EngineError::Infrastructure(_));
            if attempt == ATTEMPTS || !again || observer.stop() {
                return Err(error);
            }
            attempt += 1;
        }
    }

    fn once(&mut self, trial: &Trial) -> Result<TrialReport, EngineError> {
        let engine = match &mut self.engine {
            Some(engine) => engine,
            none => none.insert((self.start)()?),
        };
        engine.run(&trial.spec)
    }
}

fn now_us() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
        })
}
