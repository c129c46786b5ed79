//! A trial, retold: as text for reading, as trace events for a timeline.
//!
//! Both say what is in the [`Trace`] and the record, in the terms
//! of whoever wrote the driver, and judge nothing anew.

mod decode;
pub mod perfetto;
pub mod text;

use cofferdam_experiment::record::Record;
use cofferdam_experiment::replay::{Address, Replayed};
use cofferdam_placement::trace::Trace;
use cofferdam_placement::trial::TrialReport;

/// A trial that was run again.
#[derive(Debug)]
pub struct Story<'a> {
    /// Where its record is.
    pub address: &'a Address,
    /// What was recorded.
    pub record: &'a Record,
    /// What came out now.
    pub report: &'a TrialReport,
    /// Whether that is the same.
    pub replayed: &'a Replayed,
    /// What happened on the way.
    pub trace: &'a Trace,
}

impl Story<'_> {
    /// A domain's name; the supervisor's index is one past the last.
    fn domain(&self, index: usize) -> &'static str {
        let domains = self.record.spec.placement.placement().domains;
        domains
            .get(index)
            .map_or("supervisor", |domain| domain.name)
    }

    /// Index of the domain that holds the driver.
    fn server(&self) -> usize {
        self.record.spec.placement.placement().server()
    }

    /// The domains whose bits are set.
    fn domains(&self, bits: u64) -> String {
        let names = (0..64).filter(|bit| bits >> bit & 1 == 1);
        let names: Vec<&str> = names.map(|bit| self.peer(bit)).collect();
        names.join(" and ")
    }

    /// Who rings a doorbell: beside domains there is the bell that tolls for the dead.
    fn peer(&self, bit: usize) -> &'static str {
        if bit > self.record.spec.placement.placement().domains.len() {
            "the death bell"
        } else {
            self.domain(bit)
        }
    }
}
