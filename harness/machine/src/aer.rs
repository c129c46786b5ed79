//! The errors that ports report (Advanced Error Reporting, PCI Express Base 6.0, 6.2).

use cofferdam_seam::{RequesterId, Time};
use std::fmt;

/// How bad an error is (PCI Express Base 6.0, 6.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Nothing was lost.
    Correctable,
    /// A request was lost, the link works.
    NonFatal,
    /// The link cannot be relied on.
    Fatal,
}

/// What went wrong (PCI Express Base 6.0, table 6-5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortError {
    /// No completion came in time.
    CompletionTimeout,
    /// A completion came after its request had been given up.
    UnexpectedCompletion,
    /// Data arrived that were marked as bad.
    Poisoned,
    /// The completer gave up.
    CompleterAbort,
    /// The link went down without anybody's leave.
    SurpriseDown,
    /// Credits were not given back in time.
    FlowControl,
}

/// An error, as a port logged it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorRecord {
    /// When.
    pub at: Time,
    /// The function it concerns.
    pub source: RequesterId,
    /// What.
    pub error: PortError,
    /// How bad.
    pub severity: Severity,
}

impl fmt::Display for ErrorRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.error {
            PortError::CompletionTimeout => "a completion timeout",
            PortError::UnexpectedCompletion => "an unexpected completion",
            PortError::Poisoned => "poisoned data",
            PortError::CompleterAbort => "a completer abort",
            PortError::SurpriseDown => "a link that went down by surprise",
            PortError::FlowControl => "a flow control protocol error",
        })?;
        let Self {
            source, severity, ..
        } = self;
        let how = match severity {
            Severity::Correctable => "correctable",
            Severity::NonFatal => "non-fatal",
            Severity::Fatal => "fatal",
        };
        write!(f, " ({source}, {how})")
    }
}

/// The log: the first errors stay, the rest is counted. An error may be entered before its time,
/// when nothing can prevent it any more.
#[derive(Debug)]
pub(crate) struct ErrorLog {
    records: Vec<ErrorRecord>,
    dropped: u64,
    limit: usize,
}

impl ErrorLog {
    pub(crate) const fn new(limit: usize) -> Self {
        Self {
            records: Vec::new(),
            dropped: 0,
            limit,
        }
    }

    pub(crate) fn enter(&mut self, record: ErrorRecord) {
        if self.records.len() < self.limit {
            let place = self.records.partition_point(|other| other.at <= record.at);
            self.records.insert(place, record);
        } else {
            self.dropped += 1;
        }
    }

    /// Empties the log.
    pub(crate) fn forget(&mut self) {
        self.records.clear();
        self.dropped = 0;
    }

    /// What happened by `now`, oldest first, and how much the log had no room for.
    pub(crate) fn by(&self, now: Time) -> (&[ErrorRecord], u64) {
        let happened = self.records.partition_point(|record| record.at <= now);
        (&self.records[..happened], self.dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(at: u64) -> ErrorRecord {
        ErrorRecord {
            at: Time(at),
            source: RequesterId::new(1, 0, 0),
            error: PortError::CompletionTimeout,
            severity: Severity::NonFatal,
        }
    }

    #[test]
    fn error_is_read_when_its_time_has_come() {
        let mut log = ErrorLog::new(4);
        log.enter(record(20));
        log.enter(record(10));
        assert_eq!(log.by(Time(9)).0, []);
        assert_eq!(log.by(Time(10)).0, [record(10)]);
        assert_eq!(log.by(Time(20)).0, [record(10), record(20)]);
    }

    #[test]
    fn full_log_counts_what_it_drops() {
        let mut log = ErrorLog::new(1);
        log.enter(record(1));
        log.enter(record(2));
        assert_eq!(log.by(Time(9)), (&[record(1)][..], 1));
    }
}
