//! The form of what a run writes, as JSON Schema (draft 2020-12), for programs that read it.

use crate::record::Record;
use crate::summary::Summary;
use schemars::{Schema, schema_for};

/// The schema of a line of `trials.jsonl`. Lines of the mechanism
/// [`GUEST`](crate::record::GUEST) have another form.
pub fn trials() -> Schema {
    schema_for!(Record)
}

/// The schema of `summary.json`.
pub fn summary() -> Schema {
    schema_for!(Summary)
}
