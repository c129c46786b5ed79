//! What a reader must know before believing a cell's figures.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A reservation about a cell.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Flag {
    /// Fewer than [`ENOUGH`](super::ENOUGH) independent activated trials (trials, in a clean
    /// cell): counts and no rate.
    Few,
    /// Its most frequent outcome was not the same in every run by the wall clock.
    Unstable,
    /// Some of its times are "at least".
    Censored,
}

impl Flag {
    /// What it says beside a cell.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Few => "n < 30",
            Self::Unstable => "unstable cell",
            Self::Censored => "censored",
        }
    }
}
