//! The record of a trial: one line of JSON, with everything needed to rerun and to judge it.

use crate::environment::Mechanism;
use crate::verdict::Verdict;
use cofferdam_placement::trial::{TrialReport, TrialSpec};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead, Read};
use thiserror::Error;

/// Version of the record's schema; a reader refuses others.
pub const SCHEMA: u32 = 1;

/// Wall-clock times, all in one field so that runs can be compared without it. Of trials that share a
/// boot they are the boot's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Times {
    /// When the trial started, us since 1970.
    pub started_us: u64,
    /// When it had finished, us since 1970.
    pub finished_us: u64,
}

/// The record of one finished trial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Record {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The trial's place in the full plan; the same in every subset.
    pub index: u64,
    /// Its number within the cell, from 0.
    pub number: u32,
    /// The index of the first trial of its boot, if it may have shared one: the trials from there to
    /// this one ran one after the other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<u64>,
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

/// The mechanism of the lines that tell of a Linux guest. They have forms of their own, those of the
/// crate `cofferdam-reality`.
pub const GUEST: &str = "linux-guest";

/// What every line says, whatever its form.
#[derive(Deserialize)]
struct LineOf {
    mechanism: String,
}

/// A line of `trials.jsonl`.
#[derive(Debug)]
pub enum Line {
    /// A finished trial.
    Record(Box<Record>),
    /// A line of the mechanism [`GUEST`].
    Guest,
}

/// Bytes a line has at most; a record has some thousands.
const LONGEST: u64 = 16 << 20;

/// Reads `trials.jsonl` line by line. A record ends with its newline; what follows the last one is
/// torn.
#[derive(Debug)]
pub struct Lines<R> {
    from: R,
    bytes: Vec<u8>,
    number: usize,
    start: u64,
    end: u64,
    torn: usize,
}

impl<R: BufRead> Lines<R> {
    /// Reads from the start of the file.
    pub const fn new(from: R) -> Self {
        Self {
            from,
            bytes: Vec::new(),
            number: 0,
            start: 0,
            end: 0,
            torn: 0,
        }
    }

    /// The next line, or `None` at the end or the torn end.
    pub fn next_line(&mut self) -> Result<Option<Line>, RecordError> {
        self.bytes.clear();
        self.number += 1;
        let malformed = |why: String| RecordError::Malformed {
            line: self.number,
            why,
        };
        let mut limited = self.from.by_ref().take(LONGEST);
        let read = limited.read_until(b'\n', &mut self.bytes)?;
        if self.bytes.last() != Some(&b'\n') {
            if read as u64 == LONGEST {
                return Err(malformed(format!("it is longer than {LONGEST} bytes")));
            }
            self.torn = read;
            return Ok(None);
        }
        self.start = self.end;
        self.end += read as u64;
        let why = |error: serde_json::Error| malformed(error.to_string());
        let line_of: LineOf = serde_json::from_slice(&self.bytes).map_err(why)?;
        if line_of.mechanism == GUEST {
            return Ok(Some(Line::Guest));
        }
        let record: Record = serde_json::from_slice(&self.bytes).map_err(why)?;
        if record.schema != SCHEMA {
            return Err(RecordError::Schema {
                line: self.number,
                found: record.schema,
            });
        }
        Ok(Some(Line::Record(Box::new(record))))
    }

    /// The bytes of the line read last, its newline included.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Where in the file the line read last starts.
    pub const fn start(&self) -> u64 {
        self.start
    }

    /// Where the last whole line ends.
    pub const fn end(&self) -> u64 {
        self.end
    }

    /// Bytes of a last line without an end: its writer was killed. It is not a record.
    pub const fn torn(&self) -> usize {
        self.torn
    }
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

/// Reads `trials.jsonl` at once.
pub fn read(from: impl BufRead) -> Result<Records, RecordError> {
    let mut found = Records::default();
    let mut lines = Lines::new(from);
    while let Some(line) = lines.next_line()? {
        match line {
            Line::Record(record) => found.records.push(*record),
            Line::Guest => found.guest += 1,
        }
    }
    found.torn = lines.torn();
    Ok(found)
}
