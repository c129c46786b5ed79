//! The report of a comparison: one self-contained page, for a screen of any size, light or dark.
//!
//! The answer comes first: what is not settled by construction. Everything behind it is there to be
//! looked up: the matrix, how times spread, pairs, costs, the claims of the argument, and for every
//! cell the trials to run again. No script, no network; every string from a record is escaped.

mod ablations;
mod answer;
mod claims;
mod costs;
mod distributions;
mod environment;
mod literature;
mod matrix;
mod mechanism;
mod page;
mod pairs;
mod reading;
mod split_locks;
mod trials;
mod trusted;
mod words;

pub use page::page;
pub(crate) use words::says;
