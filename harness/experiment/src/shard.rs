//! Shards: one plan, run in parts by hosts that know nothing of each other.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// A part of a plan: every `of`-th trial of each cell, from the `number`-th on. It has every cell,
/// and a trial's clean pair with it, so it is a comparison by itself.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "String", into = "String")]
pub struct Shard {
    number: u32,
    of: u32,
}

/// Why a text names no shard.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("'{0}' names no shard: write I/N, the I-th of N parts, with I from 1 to N, such as 2/3")]
pub struct ShardError(String);

impl Shard {
    /// How many parts there are.
    pub const fn of(self) -> u32 {
        self.of
    }

    /// Which part it is, from 1.
    pub const fn number(self) -> u32 {
        self.number
    }

    /// Whether it has the trials of that number, which count from 0.
    pub const fn has(self, trial: u32) -> bool {
        trial % self.of == self.number - 1
    }

    /// The parts of `of`.
    pub fn all(of: u32) -> impl Iterator<Item = Self> {
        (1..=of).map(move |number| Self { number, of })
    }
}

impl FromStr for Shard {
    type Err = ShardError;

    fn from_str(text: &str) -> Result<Self, ShardError> {
        let parts = text.split_once('/').and_then(|(number, of)| {
            let (number, of) = (number.parse().ok()?, of.parse().ok()?);
            (1..=of).contains(&number).then_some(Self { number, of })
        });
        parts.ok_or_else(|| ShardError(text.to_owned()))
    }
}

impl TryFrom<String> for Shard {
    type Error = ShardError;

    fn try_from(text: String) -> Result<Self, ShardError> {
        text.parse()
    }
}

impl From<Shard> for String {
    fn from(shard: Shard) -> Self {
        shard.to_string()
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_trial_is_in_one_shard() {
        for of in 1..=7 {
            for trial in 0..30 {
                assert_eq!(Shard::all(of).filter(|shard| shard.has(trial)).count(), 1);
            }
        }
    }

    #[test]
    fn text_that_names_no_part_is_refused_with_the_text() {
        for text in [
            "",
            "1",
            "0/3",
            "4/3",
            "1/0",
            "-1/3",
            "1/3/3",
            "a/b",
            "1/9999999999",
        ] {
            let error = Shard::from_str(text).expect_err("it names no shard");
            assert!(error.to_string().contains(&format!("'{text}'")));
        }
        assert_eq!(
            "2/3".parse::<Shard>().map(|shard| shard.to_string()),
            Ok("2/3".into())
        );
    }
}
