//! Model of the Intel 82540EM, a Gigabit Ethernet controller of the 8254x family ("e1000").
//!
//! [`E1000`] has one transmit and one receive ring of legacy descriptors, address filters, an EEPROM,
//! a PHY behind MDIC, INTx and MSI, and a link partner on the other end of its cable that sends
//! frames back or keeps quiet ([`Peer`]). It follows Intel's Software Developer's Manual, with these
//! differences: it is a PCI Express endpoint with function-level reset, has no I/O and no flash BAR,
//! and the link comes up a fixed time after the driver asked for it.
//!
//! A frame takes a fixed time on the wire, in each direction; transmission stands still while the link
//! is down, and received frames that find no descriptor wait in the packet buffer. A frame and its
//! descriptor's status are written before the interrupt that tells of them.
//!
//! Left out: interrupt moderation (the delay and throttle registers hold what is written, and causes
//! are set at once), checksum offload, segmentation and VLANs: context descriptors and data descriptors
//! of the extended format are completed and nothing is sent for them. Of the statistics only those of
//! whole frames count. No flow control, no wake-up, no loopback modes, no bit-banged EEPROM access.
//!
//! It trusts nobody: descriptors are read once and used from the copy, lengths are cut to what the
//! manual allows, a ring whose head or tail lies outside it stands still, and a ring that cannot be
//! read stops until the next reset.
//!
//! Files: `spec` is the wire format, `identity` the PCI function, `regs` the registers, `eeprom` and
//! `phy` what lies behind two of them, `filter` which frames are taken, `ring` where descriptors are,
//! `transmit` and `receive` the two engines, `peer` the other end of the cable, `controller` the device
//! that joins them.

#![forbid(unsafe_code)]

mod controller;
#[cfg(test)]
mod controller_tests;
mod decode;
mod eeprom;
mod filter;
mod identity;
mod peer;
mod phy;
mod receive;
mod regs;
mod ring;
pub mod spec;
mod transmit;

pub use controller::{E1000, E1000Config};
pub use decode::Decoder;
pub use peer::Peer;
