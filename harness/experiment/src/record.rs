//! The record of a trial: one line of JSON, with everything needed to rerun and to judge it.

use crate::environment::Mechanism;
use crate::verdict::Verdict;
use cofferdam_placement::trial::{TrialReport, TrialSpec};
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead};
use thiserror::Error;

/// Version of the record's schema; a reader refuses others.
pub const SCHEMA: u32 = 1;

/// Wall-clock times, all in one field so that runs can be compared without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// When the trial started, us since 1970.
    pub started_us: u64,
    /// When it had finished, us since 1970.
    pub finished_us: u64,
}

/// The record of one finished trial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The trial's place in the full plan; the same in every subset.
    pub index: u64,
    /// Its number within the cell, from 0.
    pub number: u32,
    /// The cell's name.
    pub cell: String,
    /// How domains were kept apart.
    pub mechanism: Mechanism,
    /// Name of the environment, which `run.json` and `summary.json` describe.
    pub environment: String,
    /// What was to be done.
    pub spec: TrialSpec,
    /// What was judged.
    pub verdict: Verdict,
    /// What was seen.
    pub report: TrialReport,
    /// When, by the wall clock.
    pub times: Times,
}

/// Why records could not be read.
#[derive(Debug, Error)]
pub enum RecordError {
    /// The file could not be read.
    #[error("cannot read records: {0}")]
    Io(#[from] io::Error),
    /// A line that is not the torn end of the file is no record.
    #[error("line {line} is not a record: {why}; the file was edited or mixed up")]
    Malformed {
        /// Its number, from 1.
        line: usize,
        /// What the parser says.
        why: String,
    },
    /// Another schema.
    #[error("line {line} has schema {found}, this program reads schema {SCHEMA}")]
    Schema {
        /// Its number, from 1.
        line: usize,
        /// Its schema.
        found: u32,
    },
}

/// The mechanism of the lines that hold the model against a Linux guest. They have a form of their
/// own, that of the crate `cofferdam-reality`.
pub const GUEST: &str = "linux-guest";

/// What every line says, whatever its form.
#[derive(Deserialize)]
struct LineOf {
    mechanism: String,
}

/// The records of a file.
#[derive(Debug, Default)]
pub struct Records {
    /// Every finished trial.
    pub records: Vec<Record>,
    /// Lines of the mechanism [`GUEST`], which are not read here.
    pub guest: usize,
    /// Bytes of a last line without an end: its writer was killed. It is not a record.
    pub torn: usize,
}

/// Reads `trials.jsonl`. A record ends with its newline; what follows the last one is torn.
pub fn read(mut from: impl BufRead) -> Result<Records, RecordError> {
    let mut found = Records::default();
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        if from.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        if line.last() != Some(&b'\n') {
            found.torn = line.len();
            break;
        }
        let malformed = |error: serde_json::Error| RecordError::Malformed {
            line: number,
            why: error.to_string(),
        };
        let line_of: LineOf = serde_json::from_slice(&line).map_err(malformed)?;
        if line_of.mechanism == GUEST {
            found.guest += 1;
            continue;
        }
        let record: Record = serde_json::from_slice(&line).map_err(malformed)?;
        if record.schema != SCHEMA {
            return Err(RecordError::Schema {
                line: number,
                found: record.schema,
            });
        }
        found.records.push(record);
    }
    Ok(found)
}
