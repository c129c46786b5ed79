//! A trial of a finished run, once more: its record is found, run again by whoever called, and held
//! against what came out.
//!
//! Under leap a trial is its specification, so both reports are the same to the last field, but for
//! what only the host decides. By the wall clock no two trials are.

use crate::header::know_own;
use crate::out::TRIALS;
use crate::plan::MOST_OF_A_BOOT;
use crate::record::{GUEST, Record, SCHEMA};
use cofferdam_placement::own::OwnError;
use cofferdam_placement::trial::{ClockKind, TrialReport, TrialSpec};
use serde::Deserialize;
use serde_json::Value;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;
use std::str::FromStr;
use thiserror::Error;

/// Which trial of which run: `RUN_DIR#TRIAL`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The run's directory.
    pub run: PathBuf,
    /// The trial's index, as in its record.
    pub trial: u64,
}

/// What is no address.
#[derive(Debug, Error)]
#[error(
    "name a trial as RUN_DIR#TRIAL, such as reports/run#17: TRIAL is the `index` of its record"
)]
pub struct NoAddress;

impl FromStr for Address {
    type Err = NoAddress;

    fn from_str(text: &str) -> Result<Self, NoAddress> {
        let (run, trial) = text.rsplit_once('#').ok_or(NoAddress)?;
        let trial = trial.parse().map_err(|_| NoAddress)?;
        if run.is_empty() {
            return Err(NoAddress);
        }
        let run = PathBuf::from(run);
        Ok(Self { run, trial })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.run.display(), self.trial)
    }
}

/// Why a trial cannot be run again.
#[derive(Debug, Error)]
pub enum ReplayError {
    /// There is no such directory.
    #[error("there is no directory {}; name one that `cofferdam compare` wrote", .0.display())]
    NoRun(PathBuf),
    /// A file of a user's that it ran with is none here.
    #[error(transparent)]
    Own(#[from] OwnError),
    /// It is not that of a run.
    #[error(
        "{} has no {TRIALS}; name a directory that `cofferdam compare` wrote (of a stability run, \
         one of its run-N)",
        .0.display()
    )]
    NoTrials(PathBuf),
    /// The records could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No trial was finished.
    #[error("{} has no finished trial{torn}; run the comparison again", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
        /// Whether a torn record is there.
        torn: Torn,
    },
    /// The run has no such trial.
    #[error(
        "{} has no trial {trial}: its {count} trials are {first} to {last}{}{torn}; name one of them",
        path.display(),
        if last - first < *count { String::new() } else { format!(" with gaps, the nearest {near}") }
    )]
    NoSuchTrial {
        /// The file.
        path: PathBuf,
        /// The trial asked for.
        trial: u64,
        /// Trials there are.
        count: u64,
        /// The lowest index.
        first: u64,
        /// The highest.
        last: u64,
        /// The one nearest to what was asked for.
        near: u64,
        /// Whether a torn record is there.
        torn: Torn,
    },
    /// A line is no record.
    #[error("line {line} of {} is not a record: {why}; the file was edited or mixed up", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Its number, from 1.
        line: u64,
        /// What the parser says.
        why: String,
    },
    /// A record that names a boot it cannot have shared.
    #[error(
        "trial {trial} says that its boot began with trial {first}, and no boot has so many trials; \
         the file was edited or mixed up"
    )]
    Boot {
        /// The trial.
        trial: u64,
        /// The first of its boot.
        first: u64,
    },
    /// A record of another schema.
    #[error(
        "trial {trial} was recorded with schema {found}, this program reads schema {SCHEMA}; replay \
         it with the program that wrote it (`cofferdam` in the environment of run.json)"
    )]
    Schema {
        /// The trial.
        trial: u64,
        /// Its schema.
        found: u32,
    },
    /// A record that names what this build does not know.
    #[error(
        "trial {trial} needs what this program lacks: {why}; replay it with the program that wrote \
         it (`cofferdam` in the environment of run.json)"
    )]
    Lacks {
        /// The trial.
        trial: u64,
        /// What the parser says.
        why: String,
    },
}

/// Whether a file ends in a record without an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Torn(bool);

impl fmt::Display for Torn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0 {
            " (the last line is torn: its writer was killed before that trial was recorded)"
        } else {
            ""
        })
    }
}

/// What every record says, whatever its schema.
#[derive(Deserialize)]
struct Head {
    mechanism: String,
    #[serde(default)]
    schema: u32,
    #[serde(default)]
    index: u64,
    #[serde(default)]
    spec: Value,
}

/// Finds the record of a trial. A record ends with its newline; what follows the last one is torn and
/// none. Only the record asked for has to be one that this program knows.
pub fn find(address: &Address) -> Result<Record, ReplayError> {
    if !address.run.is_dir() {
        return Err(ReplayError::NoRun(address.run.clone()));
    }
    know_own(&address.run)?;
    let path = address.run.join(TRIALS);
    let unreadable = |source| ReplayError::Io {
        path: path.clone(),
        source,
    };
    let mut file = match File::open(&path) {
        Ok(file) => BufReader::new(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(ReplayError::NoTrials(address.run.clone()));
        }
        Err(error) => return Err(unreadable(error)),
    };
    let trial = address.trial;
    let (mut count, mut first, mut last, mut near) = (0_u64, u64::MAX, 0, 0_u64);
    let mut torn = Torn(false);
    let mut bytes = Vec::new();
    for line in 1.. {
        bytes.clear();
        if file.read_until(b'\n', &mut bytes).map_err(unreadable)? == 0 {
            break;
        }
        if bytes.last() != Some(&b'\n') {
            torn = Torn(true);
            break;
        }
        let malformed = |error: serde_json::Error| ReplayError::Malformed {
            path: path.clone(),
            line,
            why: error.to_string(),
        };
        let head: Head = serde_json::from_slice(&bytes).map_err(malformed)?;
        if head.mechanism == GUEST {
            continue;
        }
        if head.index == trial {
            return known(head, &bytes).map_err(|error| error.told(malformed));
        }
        if count == 0 || head.index.abs_diff(trial) < near.abs_diff(trial) {
            near = head.index;
        }
        count += 1;
        first = first.min(head.index);
        last = last.max(head.index);
    }
    Err(if count == 0 {
        ReplayError::Empty { path, torn }
    } else {
        ReplayError::NoSuchTrial {
            path,
            trial,
            count,
            first,
            last,
            near,
            torn,
        }
    })
}

/// What it takes to run the trial of a record again: the trials before it in its boot, and itself.
pub fn boot_of(address: &Address, record: &Record) -> Result<Vec<TrialSpec>, ReplayError> {
    let first = record.boot.unwrap_or(record.index);
    let before = record.index.checked_sub(first);
    let before = before.filter(|count| *count < u64::from(MOST_OF_A_BOOT));
    before.ok_or(ReplayError::Boot {
        trial: record.index,
        first,
    })?;
    let others = (first..record.index).map(|trial| {
        let run = address.run.clone();
        Ok(find(&Address { run, trial })?.spec)
    });
    let this = std::iter::once(Ok(record.spec.clone()));
    others.chain(this).collect()
}

/// What is wrong with a record: known here, or known to the parser alone.
enum Wrong {
    Told(ReplayError),
    Parser(serde_json::Error),
}

impl Wrong {
    fn told(self, malformed: impl Fn(serde_json::Error) -> ReplayError) -> ReplayError {
        match self {
            Self::Told(error) => error,
            Self::Parser(error) => malformed(error),
        }
    }
}

fn known(head: Head, bytes: &[u8]) -> Result<Record, Wrong> {
    let trial = head.index;
    if head.schema != SCHEMA {
        let found = head.schema;
        return Err(Wrong::Told(ReplayError::Schema { trial, found }));
    }
    // Looked at on its own, because it is what a newer program has more of.
    if let Err(error) = serde_json::from_value::<TrialSpec>(head.spec) {
        let why = error.to_string();
        return Err(Wrong::Told(ReplayError::Lacks { trial, why }));
    }
    serde_json::from_slice(bytes).map_err(Wrong::Parser)
}

/// How a trial came out the second time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replayed {
    /// As recorded, to the last field.
    Same,
    /// Otherwise, though it runs under leap.
    Differs {
        /// The first field that differs, by the alphabet.
        field: String,
        /// What was recorded.
        recorded: String,
        /// What came out.
        now: String,
    },
    /// It runs by the wall clock, where nothing comes out twice.
    NotRepeatable,
}

/// Holds a report against a record.
pub fn compare(record: &Record, report: &TrialReport) -> Replayed {
    if record.spec.clock == ClockKind::Wall {
        return Replayed::NotRepeatable;
    }
    let value = |report: &TrialReport| serde_json::to_value(report.clone().replayed());
    match (value(&record.report), value(report)) {
        (Ok(recorded), Ok(now)) => match difference("report", &recorded, &now) {
            Some((field, recorded, now)) => Replayed::Differs {
                field,
                recorded,
                now,
            },
            None => Replayed::Same,
        },
        // A report holds nothing that JSON cannot say.
        (recorded, now) => Replayed::Differs {
            field: "report".to_owned(),
            recorded: format!("{recorded:?}"),
            now: format!("{now:?}"),
        },
    }
}

/// The first place where two values differ.
fn difference(path: &str, one: &Value, other: &Value) -> Option<(String, String, String)> {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            let keys = one
                .keys()
                .chain(other.keys().filter(|key| !one.contains_key(*key)));
            keys.into_iter().find_map(|key| {
                let of = |map: &serde_json::Map<_, _>| map.get(key).cloned().unwrap_or_default();
                difference(&format!("{path}.{key}"), &of(one), &of(other))
            })
        }
        (Value::Array(one), Value::Array(other)) => {
            (0..one.len().max(other.len())).find_map(|at| {
                let of = |list: &[Value]| list.get(at).cloned().unwrap_or_default();
                difference(&format!("{path}[{at}]"), &of(one), &of(other))
            })
        }
        (one, other) if one == other => None,
        (one, other) => Some((path.to_owned(), one.to_string(), other.to_string())),
    }
}
