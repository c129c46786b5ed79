//! Puts the records of one or several files in the order of their plan, and judges them anew.
//!
//! What is kept of a record until it is read again is where it stands, so that files of any size
//! can be put together. Verdicts follow from the reports: a trial whose clean pair came later, or
//! from another file, is judged with it.

use crate::cell::Cell;
use crate::plan::{Plan, Trial};
use crate::record::{Line, Lines, Record, RecordError};
use crate::seed::digest;
use crate::verdict::{Baseline, Verdict, judge};
use cofferdam_placement::trial::TrialReport;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why records cannot be put together.
#[derive(Debug, Error)]
pub enum AssembleError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file holds something else than records.
    #[error("{path}: {source}")]
    Record {
        /// The file.
        path: PathBuf,
        /// What.
        source: RecordError,
    },
    /// A record of another plan.
    #[error(
        "{path}: trial {index} ({cell}) is none of the plan's; the file was edited or mixed up"
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What the record says it is.
        index: u64,
        /// Its cell.
        cell: String,
    },
    /// Two records of one trial say different things.
    #[error(
        "trial {index} ({cell}) has two records that differ, in {one} and in {other}: a trial \
         replays exactly, so one was edited or made by another program; leave that directory out"
    )]
    Conflict {
        /// The trial.
        index: u64,
        /// Its cell.
        cell: String,
        /// One file.
        one: PathBuf,
        /// The other.
        other: PathBuf,
    },
    /// A record has no form as JSON.
    #[error("cannot compare a record: {0}")]
    Json(#[from] serde_json::Error),
}

/// Where a record stands, and which one it is. There is one for every record, so it is small.
#[derive(Debug)]
struct Place {
    start: u64,
    /// When it was made, us since 1970, and in which of the environments: of equal records the first
    /// is kept.
    started_us: u64,
    environment: u32,
    file: u32,
    length: u32,
    says: u64,
}

/// Files, environments and bytes of a line are few.
fn narrow(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Judges trials with the clean trials that came before them in the plan.
#[derive(Debug, Default)]
pub struct Pairs {
    boot: u32,
    clean: Known,
    known: BTreeMap<u32, Known>,
}

/// Clean trials, by cell and number.
type Known = HashMap<(Cell, u32), Baseline>;

impl Pairs {
    /// Judges the report of a trial; trials come in the order of the plan.
    pub fn judge(&mut self, trial: &Trial, report: &TrialReport) -> Verdict {
        if trial.boot != self.boot || !self.known.is_empty() {
            // Trials are paired with those of their own number, and all numbers of a boot come
            // together, so what came before can go.
            if trial.boot != self.boot {
                self.clean.clear();
            }
            self.boot = trial.boot;
            self.clean
                .extend(self.known.remove(&trial.boot).into_iter().flatten());
        }
        let pair = self.clean.get(&(trial.cell.clean(), trial.number));
        let verdict = judge(&trial.spec.fault, report, pair);
        if trial.cell.is_clean() {
            self.clean
                .insert((trial.cell, trial.number), Baseline::of(report));
        }
        verdict
    }
}

/// Records of a plan, from files.
#[derive(Debug)]
pub struct Assembly<'a> {
    plan: &'a Plan,
    files: Vec<PathBuf>,
    /// Names of environments.
    environments: Vec<String>,
    found: BTreeMap<u64, Place>,
    guest: Vec<Vec<u8>>,
    in_order: bool,
}

/// What a file turned out to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Bytes of its whole lines.
    pub whole: u64,
    /// Bytes after them: a line whose writer was killed.
    pub torn: usize,
}

fn reading(path: &Path) -> impl FnOnce(io::Error) -> AssembleError + '_ {
    move |source| AssembleError::Io {
        path: path.to_owned(),
        source,
    }
}

impl<'a> Assembly<'a> {
    /// None yet.
    pub const fn new(plan: &'a Plan) -> Self {
        Self {
            plan,
            files: Vec::new(),
            environments: Vec::new(),
            found: BTreeMap::new(),
            guest: Vec::new(),
            in_order: true,
        }
    }

    /// Adds the records of a file. A torn end is none.
    pub fn add(&mut self, path: &Path) -> Result<Extent, AssembleError> {
        let file = File::open(path).map_err(reading(path))?;
        let mut lines = Lines::new(BufReader::new(file));
        let number = narrow(self.files.len());
        self.files.push(path.to_owned());
        let mut last = None;
        loop {
            let line = lines.next_line().map_err(|source| AssembleError::Record {
                path: path.to_owned(),
                source,
            })?;
            match line {
                None => break,
                Some(Line::Guest) => {
                    if !self.guest.iter().any(|known| known == lines.bytes()) {
                        self.guest.push(lines.bytes().to_owned());
                    }
                }
                Some(Line::Record(record)) => {
                    self.in_order &= number == 0
                        && self.guest.is_empty()
                        && last.is_none_or(|last| last < record.index);
                    last = Some(record.index);
                    let place = Place {
                        file: number,
                        start: lines.start(),
                        length: narrow(lines.bytes().len()),
                        started_us: record.times.started_us,
                        environment: self.environment(&record.environment),
                        says: says(&record)?,
                    };
                    self.place(&record, place)?;
                }
            }
        }
        Ok(Extent {
            whole: lines.end(),
            torn: lines.torn(),
        })
    }

    fn environment(&mut self, name: &str) -> u32 {
        let known = self.environments.iter().position(|known| known == name);
        narrow(known.unwrap_or_else(|| {
            self.environments.push(name.to_owned());
            self.environments.len() - 1
        }))
    }

    /// By what of equal records the first is chosen.
    fn made(&self, place: &Place) -> (u64, Option<&str>) {
        let name = self.environments.get(place.environment as usize);
        (place.started_us, name.map(String::as_str))
    }

    fn place(&mut self, record: &Record, place: Place) -> Result<(), AssembleError> {
        let path = |file: u32| self.files.get(file as usize).cloned().unwrap_or_default();
        let planned = self.plan.trial(record.index).is_some_and(|trial| {
            trial.spec == record.spec
                && trial.number == record.number
                && trial.cell.id() == record.cell
        });
        if !planned {
            return Err(AssembleError::Foreign {
                path: path(place.file),
                index: record.index,
                cell: record.cell.clone(),
            });
        }
        match self.found.get(&record.index) {
            Some(known) if known.says != place.says => Err(AssembleError::Conflict {
                index: record.index,
                cell: record.cell.clone(),
                one: path(known.file),
                other: path(place.file),
            }),
            Some(known) if self.made(known) <= self.made(&place) => Ok(()),
            _ => {
                self.found.insert(record.index, place);
                Ok(())
            }
        }
    }

    /// How many trials have a record.
    pub fn len(&self) -> u64 {
        self.found.len() as u64
    }

    /// Whether no trial has a record.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// The trials that have none, in the order of the plan.
    pub fn missing(&self) -> impl Iterator<Item = Trial> {
        self.plan.trials().filter(|trial| !self.has(trial.index))
    }

    /// Whether that trial has a record.
    fn has(&self, index: u64) -> bool {
        self.found.contains_key(&index)
    }

    /// The same with those that are to share a boot with them: what a trial finds there is what those
    /// before it left.
    pub fn missing_boots(&self) -> impl Iterator<Item = Vec<Trial>> {
        let lacks = |boot: &Vec<Trial>| boot.iter().any(|trial| !self.has(trial.index));
        self.plan.boots().filter(lacks)
    }

    /// The trials among those that have a record.
    pub fn known_of_missing_boots(&self) -> BTreeSet<u64> {
        let indices = self.missing_boots().flatten().map(|trial| trial.index);
        indices.filter(|index| self.has(*index)).collect()
    }

    /// Names of the environments the trials took place in, in the order in which they are first
    /// met.
    pub fn environments(&self) -> Vec<&str> {
        let mut seen = BTreeSet::new();
        self.found
            .values()
            .filter_map(|place| self.made(place).1)
            .filter(|name| seen.insert(*name))
            .collect()
    }

    /// The clean trials with which missing ones are paired.
    pub fn pairs(&self) -> Result<Pairs, AssembleError> {
        let boots: BTreeSet<u32> = self.missing().map(|trial| trial.boot).collect();
        let mut pairs = Pairs::default();
        let mut open = self.closed();
        for (&index, place) in &self.found {
            let trial = self.plan.trial(index);
            let Some(trial) = trial.filter(|trial| trial.cell.is_clean()) else {
                continue;
            };
            if boots.contains(&trial.boot) {
                let record = self.read(place, &mut open)?;
                pairs
                    .known
                    .entry(trial.boot)
                    .or_default()
                    .insert((trial.cell, trial.number), Baseline::of(&record.report));
            }
        }
        Ok(pairs)
    }

    fn closed(&self) -> Vec<Option<BufReader<File>>> {
        self.files.iter().map(|_| None).collect()
    }

    /// Lines that hold the model against a Linux guest, with their newlines.
    pub fn guest(&self) -> &[Vec<u8>] {
        &self.guest
    }

    /// Sorts those lines, so that it does not matter which file came first.
    pub fn sort_guest(&mut self) {
        self.guest.sort();
    }

    /// Hands every record over, in the order of the plan. Tells whether one file holds just these,
    /// in this order.
    pub fn each<E: From<AssembleError>>(
        &self,
        mut take: impl FnMut(Record) -> Result<(), E>,
    ) -> Result<bool, E> {
        let mut pairs = Pairs::default();
        let mut as_written = self.in_order;
        let mut open = self.closed();
        for (&index, place) in &self.found {
            let mut record = self.read(place, &mut open)?;
            let Some(trial) = self.plan.trial(index) else {
                continue;
            };
            let verdict = pairs.judge(&trial, &record.report);
            as_written &= verdict == record.verdict;
            record.verdict = verdict;
            take(record)?;
        }
        Ok(as_written)
    }

    fn read(
        &self,
        place: &Place,
        open: &mut [Option<BufReader<File>>],
    ) -> Result<Record, AssembleError> {
        let path = self
            .files
            .get(place.file as usize)
            .map_or(Path::new(""), PathBuf::as_path);
        let mut line = vec![0; place.length as usize];
        let mut fill = || {
            let Some(open) = open.get_mut(place.file as usize) else {
                return Err(io::Error::from(io::ErrorKind::NotFound));
            };
            let file = match open {
                Some(file) => file,
                none => none.insert(BufReader::new(File::open(path)?)),
            };
            let at = i64::try_from(place.start).unwrap_or(i64::MAX);
            let here = i64::try_from(file.stream_position()?).unwrap_or(i64::MAX);
            // Within its buffer a relative seek costs nothing.
            file.seek_relative(at - here)?;
            file.read_exact(&mut line)
        };
        fill().map_err(reading(path))?;
        serde_json::from_slice(&line).map_err(|error| AssembleError::Record {
            path: path.to_owned(),
            source: RecordError::Malformed {
                line: 0,
                why: format!("it changed while it was read ({error})"),
            },
        })
    }
}

/// What a record says of its trial, without when and where it was made and what was judged.
fn says(record: &Record) -> Result<u64, serde_json::Error> {
    let said = serde_json::to_vec(&(
        &record.mechanism,
        &record.spec,
        record.report.clone().replayed(),
    ))?;
    Ok(digest([&said[..]]))
}

/// The line of a record, with its newline.
pub fn line(record: &Record) -> Result<Vec<u8>, serde_json::Error> {
    let mut line = serde_json::to_vec(record)?;
    line.push(b'\n');
    Ok(line)
}
