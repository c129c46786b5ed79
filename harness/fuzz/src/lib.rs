//! Fuzzing drivers from the device side.
//!
//! An input is a typed [`program`]: what the workload asks of the driver, and what the device does
//! about it. The [`executor`] runs it: a fresh [`world`] around an honest device model that the program
//! tampers with (or around no model at all), the driver on a stack of its own, and the [`oracle`]s
//! that watch both. What they notice becomes a [`finding`]: minimised, named by where in the driver
//! it happens, and written so that it survives the process.
//!
//! A driver joins by a [`target`]: some fifty lines. Generators and mutators ([`mutate`]) know the
//! types of a program and what the driver reads; which program is tried next is the business of an
//! engine, and this crate knows none.
//!
//! It models one PCI function with memory BARs, an IOMMU that is exact to the byte, and one CPU.
//! Left out: what the `machine` crate models of fabrics, timeouts and other functions, and drivers
//! with threads of their own. It trusts the device model and the adapter; neither the driver nor the
//! program. A wild access of the driver that the processor reports is a finding, and the driver is
//! left where it stands; a wild store that reaches the harness ends the process, which a campaign
//! survives.

#![deny(unsafe_code)]

pub mod answers;
pub mod arena;
pub mod campaign;
mod coroutine;
pub mod executor;
mod fault;
pub mod finding;
pub mod frames;
pub mod host;
mod lies;
mod memory;
pub mod minimize;
pub mod mutate;
pub mod oracle;
pub mod program;
pub mod random;
mod script;
pub mod target;
pub mod trace;
mod watch;
pub mod witness;
pub mod world;
