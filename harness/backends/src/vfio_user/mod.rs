//! The seam over vfio-user: a driver here, a served device in a thread, a process or a VMM elsewhere.
//!
//! A [`VfioUserDevice`] is one connection. Registers and configuration are messages, interrupts come
//! as eventfds, and DMA memory is a file in memory that the device is lent page by page, at addresses
//! of its own, with a page between that is nobody's. What the server asks for by message is granted
//! by the same mappings. Time is the host's.
//!
//! A register read that is not answered within [`ANSWER`] reads as all ones, as one that no device
//! completes does; a connection that fails reads so too, and the next call to the host fails.
//!
//! It trusts the server no more than a driver trusts a device: answers are checked against the
//! questions, and every wait ends.

mod client;
mod host;

pub use client::{ANSWER, Failure};
pub use host::{VfioUserDevice, VfioUserDma, VfioUserHost, VfioUserMmio};
