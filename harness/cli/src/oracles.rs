//! `cofferdam list oracles`.

use cofferdam_fuzz::oracle::ORACLES;
use serde_json::{Value, json};

/// One a line.
pub fn text() -> String {
    let line = |oracle: &cofferdam_fuzz::oracle::Oracle| {
        format!("{:<22}{}\n", oracle.name(), oracle.description())
    };
    ORACLES.iter().map(line).collect()
}

/// As an array of objects.
pub fn json() -> Value {
    let object = |oracle: &cofferdam_fuzz::oracle::Oracle| json!({ "name": oracle.name(), "description": oracle.description() });
    ORACLES.iter().map(object).collect()
}
