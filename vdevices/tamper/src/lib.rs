//! The layer that makes a correct device lie.
//!
//! [`Tamper`] wraps a device model and is a device model itself. What it lies about is data, a list
//! of [`Lie`]s; the model inside stays as honest as it was and does not know. The [`Tally`] it
//! shares with whoever set it up says when the lies begin, how often they acted and when first.
//!
//! Breaches of the bus's rules are told to the bus, which knows what they do.
//!
//! A lie goes through the same port as the truth, past the bus-master enable bit (but for
//! [`Lie::LateMessage`]). What it claims (another's requester ID, an address that is translated
//! already) it asks of the fabric, which knows who asks; what it does to its own configuration it
//! asks of the PCI layer. It trusts the lies it is given, which are the
//! experiment's own, and nobody else.

#![forbid(unsafe_code)]

mod interrupts;
mod lie;
mod script;
mod tally;
mod tamper;
#[cfg(test)]
mod tamper_tests;

pub use lie::{Aim, Lie, Publishing, Trigger};
pub use tally::Tally;
pub use tamper::Tamper;
