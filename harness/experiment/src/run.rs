//! Drives the trials of a plan, and writes each as soon as it is done.
//!
//! A run that was killed, stopped or ran out of room is continued from its records: those that are
//! missing are run, and what comes of it is what an undisturbed run would have written.

use crate::assemble::{AssembleError, Assembly, Pairs, line};
use crate::campaign::Campaign;
use crate::crossings::Crossings;
use crate::engine::{Engine, EngineError};
use crate::environment::{Environment, Mechanism};
use crate::header::{HEADER, Header, HeaderError, Wanted};
use crate::lanes::{Host, Next, Ran, Take, drive};
use crate::out::{Directory, OutError, TRIALS};
use crate::plan::{Plan, Trial};
use crate::record::{Record, SCHEMA, Times};
use crate::split_locks::SplitLocks;
use crate::summary::{Collector, InfrastructureFailure, State, Summary};
use cofferdam_placement::trial::ClockKind;
use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::path::Path;
use std::thread::available_parallelism;
use thiserror::Error;

/// So many trials in a row that cannot be run end the run: nothing here works.
const IN_A_ROW: u32 = 5;
/// So many altogether end it too: each is listed, and the list has to have an end.
const ALTOGETHER: usize = 1000;

/// The file of the summary.
pub const SUMMARY: &str = "summary.json";
/// The file of the page that people read.
pub const REPORT: &str = "report.html";

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
    /// The run to continue is another.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The records of the run to continue.
    #[error(transparent)]
    Assemble(#[from] AssembleError),
    /// More than one trial at a time by the wall clock.
    #[error(
        "--jobs {0} does not go with --clock wall: wall-clock trials run alone, or they would \
         measure each other; leave --jobs out"
    )]
    WallJobs(NonZeroUsize),
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

/// A finished run.
#[derive(Debug)]
pub struct Finished {
    /// Its summary, which is also in `summary.json`.
    pub summary: Summary,
    /// Where it was written.
    pub directory: Directory,
    /// Lines of its records that hold the model against a Linux guest.
    pub guest: Vec<Vec<u8>>,
}

/// Trials at a time: as many as were asked for, or else what this host does best. Under leap all
/// processes of a trial share a core, and the wall clock wants the host for itself.
pub fn jobs(asked: Option<NonZeroUsize>, clock: ClockKind) -> Result<NonZeroUsize, RunError> {
    match (asked, clock) {
        (Some(jobs), ClockKind::Wall) if jobs.get() > 1 => Err(RunError::WallJobs(jobs)),
        (Some(jobs), _) => Ok(jobs),
        (None, ClockKind::Wall) => Ok(NonZeroUsize::MIN),
        (None, ClockKind::Leap) => Ok(available_parallelism().unwrap_or(NonZeroUsize::MIN)),
    }
}

/// Runs a plan into a new directory, a trial at a time.
pub fn run<E: Engine>(
    plan: &Plan,
    out: &Path,
    start: impl Fn() -> Result<E, EngineError> + Sync,
    observer: &mut dyn Observer,
) -> Result<Finished, RunError> {
    run_new(plan, out, NonZeroUsize::MIN, start, observer)
}

/// What was measured of the host before the first trial, by the wall clock.
#[derive(Debug, Default)]
pub struct Measured {
    /// What a crossing takes.
    pub crossings: Option<Crossings>,
    /// What split locks cost a bystander.
    pub split_locks: Option<SplitLocks>,
}

/// The same as [`run_new`], and before the first trial, while the host has nothing else to do,
/// `measure` tells what it is like.
pub fn run_measured<E: Engine>(
    plan: &Plan,
    out: &Path,
    jobs: NonZeroUsize,
    start: impl Fn() -> Result<E, EngineError> + Sync,
    measure: impl FnOnce() -> Measured,
    observer: &mut dyn Observer,
) -> Result<Finished, RunError> {
    let directory = Directory::create(out)?;
    let measured = measure();
    run_into(plan, directory, jobs, start, measured, observer)
}

/// Runs a plan into a new directory, so many trials at a time. `start` makes a fresh engine. On an
/// error before the first trial nothing is left behind; later errors leave the records written so
/// far.
pub fn run_new<E: Engine>(
    plan: &Plan,
    out: &Path,
    jobs: NonZeroUsize,
    start: impl Fn() -> Result<E, EngineError> + Sync,
    observer: &mut dyn Observer,
) -> Result<Finished, RunError> {
    let nothing = Measured::default();
    run_into(
        plan,
        Directory::create(out)?,
        jobs,
        start,
        nothing,
        observer,
    )
}

fn run_into<E: Engine>(
    plan: &Plan,
    directory: Directory,
    jobs: NonZeroUsize,
    start: impl Fn() -> Result<E, EngineError> + Sync,
    measured: Measured,
    observer: &mut dyn Observer,
) -> Result<Finished, RunError> {
    let mut session = Session::new(plan, directory, observer);
    session.measured = measured;
    if let Err(error) = drive(jobs, &start, plan.boots(), &mut session) {
        session.directory.abandon();
        return Err(error);
    }
    let header = session.header.ok_or_else(silent)?;
    let close = Close {
        plan,
        header,
        state: session.state,
        directory: session.directory,
        guest: Vec::new(),
    };
    close.with(session.collector)
}

/// Continues the run in a directory: runs the trials of its plan that have no record. Whatever is
/// `wanted` must be what that run is.
pub fn resume<E: Engine>(
    path: &Path,
    wanted: &Wanted,
    asked: Option<NonZeroUsize>,
    start: impl Fn() -> Result<E, EngineError> + Sync,
    observer: &mut dyn Observer,
) -> Result<Finished, RunError> {
    let header = Header::read(path)?;
    let plan = header.plan_as_wanted(path, wanted)?;
    let jobs = jobs(asked, plan.settings().clock)?;
    let mut directory = Directory::open(path)?;
    let trials = path.join(TRIALS);
    let mut known = Assembly::new(&plan);
    let extent = known.add(&trials)?;
    directory.cut(extent.whole)?;

    let mut session = Session::new(&plan, directory, observer);
    session.header = Some(header);
    if known.len() < plan.len() {
        // They say how far the run was, which is about to be wrong.
        session.directory.remove(SUMMARY)?;
        session.directory.remove(REPORT)?;
        session.pairs = known.pairs()?;
        session.done = known.len();
        session.known = known.known_of_missing_boots();
        drive(jobs, &start, known.missing_boots(), &mut session)?;
    }
    let header = session.header.ok_or_else(silent)?;
    let mut whole = Assembly::new(&plan);
    whole.add(&trials)?;
    let mut collector = Collector::default();
    let as_written = whole.each(|record| -> Result<(), RunError> {
        collector.add(&record);
        Ok(())
    })?;
    for failure in session.failures {
        collector.fail(failure);
    }
    if !as_written {
        session
            .directory
            .rewrite(|write| write_all(&whole, write))?;
    }
    let close = Close {
        plan: &plan,
        header,
        state: session.state,
        directory: session.directory,
        guest: whole.guest().to_vec(),
    };
    close.with(collector)
}

/// Writes records in the order of their plan, and what a guest was seen to do after them.
pub(crate) fn write_all(
    assembly: &Assembly<'_>,
    write: &mut dyn FnMut(&[u8]) -> Result<(), OutError>,
) -> Result<(), RunError> {
    assembly.each(|record| -> Result<(), RunError> { Ok(write(&line(&record)?)?) })?;
    for line in assembly.guest() {
        write(line)?;
    }
    Ok(())
}

/// The end of every run: its summary.
pub(crate) struct Close<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) header: Header,
    pub(crate) state: State,
    pub(crate) directory: Directory,
    pub(crate) guest: Vec<Vec<u8>>,
}

impl Close<'_> {
    pub(crate) fn with(self, collector: Collector) -> Result<Finished, RunError> {
        self.directory.sync()?;
        let mut summary = collector.close(self.plan, self.header.environment, self.state);
        summary.elsewhere = self.header.elsewhere;
        if let Some(wanted) = self.plan.settings().injections {
            let failures = summary.infrastructure_failures.len() as u64;
            let records = self.directory.path().join(TRIALS);
            let account = Campaign::of(wanted, self.plan, failures, &records);
            let account = account.map_err(|source| OutError::Read {
                path: records,
                source,
            })?;
            summary.campaign = Some(account);
        }
        summary.crossings = self.header.crossings;
        summary.split_locks = self.header.split_locks;
        let text = serde_json::to_vec_pretty(&summary)?;
        self.directory.replace(SUMMARY, &text)?;
        Ok(Finished {
            summary,
            directory: self.directory,
            guest: self.guest,
        })
    }
}

/// The lanes report an engine's start or its failure before anything else.
fn silent() -> RunError {
    EngineError::Infrastructure("it neither started nor failed".to_owned()).into()
}

/// A run that takes place.
struct Session<'a> {
    plan: &'a Plan,
    directory: Directory,
    observer: &'a mut dyn Observer,
    header: Option<Header>,
    measured: Measured,
    environment: String,
    guests: Option<Mechanism>,
    pairs: Pairs,
    /// Trials that are run again for those that share their boot, and have a record.
    known: BTreeSet<u64>,
    collector: Collector,
    failures: Vec<InfrastructureFailure>,
    done: u64,
    in_a_row: u32,
    state: State,
}

impl<'a> Session<'a> {
    fn new(plan: &'a Plan, directory: Directory, observer: &'a mut dyn Observer) -> Self {
        Self {
            plan,
            directory,
            observer,
            header: None,
            measured: Measured::default(),
            environment: String::new(),
            guests: None,
            pairs: Pairs::default(),
            known: BTreeSet::new(),
            collector: Collector::default(),
            failures: Vec::new(),
            done: 0,
            in_a_row: 0,
            state: State::Complete,
        }
    }

    fn fail(&mut self, trial: &Trial, error: &EngineError) -> Next {
        let failure = InfrastructureFailure {
            index: trial.index,
            cell: trial.cell.id(),
            what: error.to_string(),
        };
        self.observer.failed(self.done, self.plan.len(), &failure);
        self.collector.fail(failure.clone());
        self.failures.push(failure);
        self.in_a_row += 1;
        if self.in_a_row >= IN_A_ROW
            || self.failures.len() >= ALTOGETHER
            || matches!(error, EngineError::Unavailable(_))
        {
            self.state = State::Aborted;
            return Next::Stop;
        }
        Next::Continue
    }
}

impl Take for Session<'_> {
    type Error = RunError;

    fn ready(&mut self, host: Host) -> Result<(), RunError> {
        let clock = self.plan.settings().clock;
        let here = Environment::probe(clock, host.facts, host.unavailable);
        self.environment = here.id();
        self.guests = here.guests;
        let header = match self.header.take() {
            None => Header {
                crossings: self.measured.crossings.take(),
                split_locks: self.measured.split_locks.take(),
                ..Header::new(self.plan, here)
            },
            Some(mut known) => {
                known.admit(&here, self.directory.path())?;
                if known.environments().all(|known| *known != here) {
                    known.elsewhere.push(here);
                }
                known
            }
        };
        let text = serde_json::to_vec_pretty(&header)?;
        self.header = Some(header);
        Ok(self.directory.replace(HEADER, &text)?)
    }

    fn take(&mut self, ran: Ran) -> Result<Next, RunError> {
        if self.known.contains(&ran.trial.index) {
            return Ok(Next::Continue);
        }
        self.done += 1;
        let trial = ran.trial;
        let report = match ran.result {
            Ok(report) => report,
            // Whoever stops a run may have stopped the engine with it.
            Err(_) if self.observer.stop() => {
                self.done -= 1;
                self.state = State::Interrupted;
                return Ok(Next::Stop);
            }
            Err(error) => return Ok(self.fail(&trial, &error)),
        };
        self.in_a_row = 0;
        let record = Record {
            schema: SCHEMA,
            index: trial.index,
            number: trial.number,
            boot: trial.shares.then_some(ran.boot),
            cell: trial.cell.id(),
            mechanism: Mechanism::of(trial.spec.placement, self.guests),
            environment: self.environment.clone(),
            verdict: self.pairs.judge(&trial, &report),
            spec: trial.spec,
            report,
            times: Times {
                started_us: ran.started_us,
                finished_us: ran.finished_us,
            },
        };
        self.directory.append(serde_json::to_vec(&record)?)?;
        self.collector.add(&record);
        self.observer.done(self.done, self.plan.len(), &record);
        Ok(Next::Continue)
    }

    fn stop(&mut self) -> bool {
        let stop = self.observer.stop();
        if stop {
            self.state = State::Interrupted;
        }
        stop
    }
}
