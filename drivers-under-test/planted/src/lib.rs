//! Drivers with one known defect each: ground truth for whoever hunts defects.
//!
//! Every [`Bug`] is a small driver, written as its author might have, with one defect that was
//! found in real drivers before; `planted.toml` says where, and what should find it. Each comes in
//! two [builds](Build) from the same file: `Planted` has the defective lines, `Fixed` the right
//! ones, and nothing else differs. What the drivers of a device share (`edu`, `virtio`, `nvme`) is
//! meant to be right: a finding there is a real one.
//!
//! The planted drivers trust the device where their defect says so; the twins trust nobody but
//! their host. Overflow checks must be on for the arithmetic defects to show as panics.
//!
//! Left out: flushes, more than one queue, and every convenience. Do not copy these drivers; copy
//! `driver-edu`.

#![no_std]
#![deny(unsafe_code)]

extern crate alloc;

mod bug;
mod call;
mod edu;
mod nvme;
mod variant;
mod virtio;

pub use bug::{Bug, Build, Family};
pub use call::{Call, Serve};
