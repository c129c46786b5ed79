//! The layer that makes a correct device lie.
//!
//! [`Tamper`] wraps a device model and is a device model itself. What it lies about is data, a list
//! of [`Lie`]s; the model inside stays as honest as it was and does not know. The [`Tally`] it
//! shares with whoever set it up says when the lies begin, how often they acted and when first.
//!
//! Breaches of the bus's rules are told to the bus, which knows what they do. Left out: forged
//! requester IDs, pre-translated addresses, and lies in configuration space, which the PCI layer owns.
//!
//! A lie goes through the same port as the truth: under the device's own requester ID, past the
//! bus-master enable bit, into the IOMMU. It trusts the lies it is given, which are the
//! experiment's own, and nobody else.

#![forbid(unsafe_code)]

mod lie;
mod script;
mod tally;
mod tamper;
#[cfg(test)]
mod tamper_tests;

pub use lie::{Aim, Lie, Trigger};
pub use tally::Tally;
pub use tamper::Tamper;
