//! Statistics of a cell: proportions, paired comparisons, and how times spread.
//!
//! Everything is fed one observation at a time and keeps no more than it needs, so a run's length
//! does not show in memory. Nothing is said with a rate or an interval from fewer than [`ENOUGH`]
//! independent observations: trials that share a boot are not independent, see [`Cluster`].
//!
//! Left out: adjustments over the cells of a run (each cell's interval is its own), and models of
//! how times are distributed.

pub mod beta;
pub mod bootstrap;
pub mod cluster;
pub mod distribution;
pub mod flag;
pub mod pairs;
pub mod proportion;

pub use cluster::Cluster;
pub use distribution::{Distribution, Spread, Step};
pub use flag::Flag;
pub use proportion::{Interval, Proportion};

/// Fewer independent observations than this show counts and no rate.
pub const ENOUGH: u32 = 30;
