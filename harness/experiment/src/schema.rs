//! The form of what a run writes, as JSON Schema (draft 2020-12), for programs that read it.

use crate::record::Record;
use crate::summary::Summary;
use schemars::{Schema, schema_for};

/// The schema of a line of `trials.jsonl` that tells of a trial of ours. Lines of the mechanism
/// [`GUEST`](crate::record::GUEST) have other forms.
pub fn trials() -> Schema {
    schema_for!(Record)
}

/// The schema of `summary.json`.
pub fn summary() -> Schema {
    schema_for!(Summary)
}
