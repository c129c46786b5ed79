//! Fuzzing drivers in a KVM guest.
//!
//! [`in_vm`] makes of a target one whose driver runs in a [guest](cofferdam_microvm) of its own, with
//! the same calls and the same device. Everything else is as it was: the adapter runs here, with a proxy in the
//! driver's place, and what the driver asks of its host leaves the guest and is answered by the
//! fuzzer's, so programs, oracles and findings are the same, and a finding of one place can be run again in
//! the other.
//!
//! # What differs
//!
//! - The wall is the processor's. A store of the driver's CPU to what was not given to it leaves the guest, and
//!   is a `wild-access` at the place in the driver that made it. In this process such a store may hit something
//!   that is there, and go unnoticed, or end the process.
//! - A panic ends the guest: nothing is unwound, so what unwinding would have shown is not.
//! - A loop that neither asks the host nor reads a register is noticed after some milliseconds of processor
//!   time, not after so many comparisons; then the device gets its turns.
//! - Edges are counted in the guest and read from its memory. What a driver compares stays there: a campaign
//!   has no dictionary of the driver's constants.
//!
//! # What an execution costs
//!
//! Each register access and each request to the host is an exit: some microseconds on a processor with
//! virtualization, tens where KVM is software. A reset copies some tens of KiB.
//!
//! Left out: drivers that the payload does not have ([`drivers`] lists those it has). All memory that the driver
//! may give the device is in the guest's sight from the start, also what it has not asked for yet. It trusts
//! KVM, the device model and the adapter; neither the guest nor the program.

#![deny(unsafe_code)]

mod guest;
mod proxy;
mod symbols;
mod target;
mod world;

pub use guest::counts;
pub use target::{NotInVm, drivers, in_vm, in_vm_with_wild_stores};
