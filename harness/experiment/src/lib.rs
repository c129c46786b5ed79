//! The experiment: which faults strike which driver in which placement, and what came of it.
//!
//! [`catalogue`] is what there is, as data. [`plan`] crosses it into trials, [`run`] drives them
//! through an [`engine::Engine`], [`verdict`] derives the outcome of each, [`record`] is the line
//! written for it, from which [`replay`] runs it again, and [`summary`] is what the lines say
//! together, beside the prediction of [`predict`] and behind the gates of [`gates`]. Runs come in
//! parts: [`run`] continues one that was cut short, [`shard`] divides a plan over hosts, and
//! [`merge`] puts the parts together. [`stability`] repeats a run by the wall clock.
//!
//! Left out: running a trial (the placement crate does that behind the `Engine` trait) and drawing
//! the result (the report crate). It trusts the engine's observations and nothing else: a
//! [`TrialReport`](cofferdam_placement::trial::TrialReport) may hold any values, and none of them
//! can make this crate panic.

#![forbid(unsafe_code)]

pub mod ablation;
pub mod assemble;
pub mod campaign;
pub mod catalogue;
pub mod cell;
pub mod claims;
pub mod crossings;
pub mod engine;
pub mod environment;
pub mod gates;
pub mod header;
pub mod lanes;
pub mod merge;
pub mod out;
pub mod outline;
pub mod plan;
pub mod predict;
pub mod record;
pub mod replay;
pub mod run;
pub mod schema;
pub mod seed;
pub mod shard;
pub mod split_locks;
pub mod stability;
pub mod statistics;
pub mod summary;
pub mod verdict;
