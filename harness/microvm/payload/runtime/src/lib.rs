//! The host of a driver in a guest, and the call page it is made of. It trusts the VMM; nobody trusts it.

#![no_std]

pub mod host;
pub mod lent;
pub mod page;
