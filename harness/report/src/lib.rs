//! What a comparison looks like: the matrix on a terminal, the HTML report, lists and progress, and
//! one trial of it, event by event.
//!
//! It renders [`Summary`](cofferdam_experiment::summary::Summary) and the catalogue and derives
//! nothing that is not in them. The HTML page is one file without scripts or network; every string
//! from a record is escaped.

#![forbid(unsafe_code)]

pub mod campaign;
pub mod factors;
pub mod html;
pub mod linux;
pub mod listing;
pub mod matrix;
pub mod outline;
pub mod progress;
pub mod quantity;
pub mod reality;
pub mod split_locks;
pub mod terminal;
pub mod trace;
