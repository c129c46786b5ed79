//! What host and guest say to each other: a job goes in with the initial file system, one line of
//! JSON a message comes out of the guest's second serial port.
//!
//! The host takes nothing on trust: it bounds the length and the number of lines, and a line that
//! does not parse ends the boot as an infrastructure failure.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::time::Duration;

/// Where the agent finds its [`Job`] in the guest.
pub const JOB: &str = "/cofferdam/job.json";

/// The serial port that carries [`Message`]s out of the guest. The first one is the console.
pub const PORT: &str = "/dev/ttyS1";

/// The longest line of a [`Message`], in bytes: room for [`DETAIL_LIMIT`] and for
/// [`RECORDS_LIMIT`] records of the longest kind.
pub const LINE_LIMIT: usize = 2 << 20;

/// The longest verdict of a check with its detail, in bytes.
pub const DETAIL_LIMIT: usize = 256 << 10;

/// The most records of the log in one message. The kernel cuts a record at about a kilobyte.
pub const RECORDS_LIMIT: usize = 500;

/// All that a guest is asked to do before it powers itself off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Kernel modules, dependencies first.
    pub modules: Vec<LoadModule>,
    /// The checks, in order.
    pub tasks: Vec<Task>,
}

/// A kernel module in the guest's file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadModule {
    /// Absolute path in the guest.
    pub file: String,
    /// As on the command line of `insmod`: `name=value`, separated by spaces.
    pub parameters: String,
}

/// One check to run, in a process of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// A name of the agent's table of checks.
    pub name: String,
    /// What the check gets to know.
    pub arguments: Vec<String>,
    /// When the check is killed and counts as failed.
    pub deadline: Duration,
}

impl Task {
    /// A check without arguments that may take 30 s.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self::with(name, &[])
    }

    /// A check with arguments that may take 30 s.
    #[must_use]
    pub fn with(name: &str, arguments: &[&str]) -> Self {
        Self {
            name: name.to_owned(),
            arguments: arguments.iter().map(|&text| text.to_owned()).collect(),
            deadline: Duration::from_secs(30),
        }
    }
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// What it looked for is so.
    Passed,
    /// It is not so, or the check itself died or was killed at its deadline.
    Failed,
    /// It could not be looked for here; the detail says why.
    Skipped,
}

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// The name of its [`Task`].
    pub name: String,
    /// What the check was given.
    pub arguments: Vec<String>,
    /// How it ended.
    pub verdict: Verdict,
    /// Whatever the check wants known.
    pub detail: Value,
    /// What the guest's kernel logged meanwhile.
    pub log: Vec<Record>,
    /// By the guest's clock.
    pub took: Duration,
}

/// One record of the guest kernel's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Since the guest booted.
    pub at: Duration,
    /// Syslog severity: 0 emergency ... 7 debug.
    pub severity: u8,
    /// The text without prefix and line end.
    pub text: String,
}

/// A line from the guest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Message {
    /// The agent runs; file systems are mounted, modules not yet loaded.
    Started {
        /// `uname -r`.
        release: String,
    },
    /// What the kernel logged outside of checks (the boot, the modules), and during the next check
    /// what is too much for its message.
    Log(Vec<Record>),
    /// A check has ended.
    Check(Check),
    /// The agent itself cannot go on; nothing more follows.
    Broken(String),
    /// All tasks are done; the guest powers off.
    Finished,
}
