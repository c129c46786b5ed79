//! `E1000` of the crate eth-intel, unmodified, behind our seam: the driver of Intel's 82540EM and
//! 82545EM.
//!
//! The crate brings the controller's bring-up, its two rings and its interrupt registers, as parts
//! after the crate rdif-eth; this adapter brings the operating system: memory and registers through
//! `cofferdam-instrument`'s platform, and rdif-eth's runtime, which owns the buffers, runs the handler
//! when an interrupt comes, polls the queues and arms the interrupts again. Every register access of
//! the crate is a volatile one through a pointer, and is trapped: by faults, or by callbacks in a build
//! of `cofferdam instrument` with the crates `eth_intel` and `driver_eth_intel`.
//!
//! The crate depends on `cofferdam-instrument`, which sees nothing of the harness above the seam.
//!
//! # How the crate waits
//!
//! Once, for the end of a reset, by 20,000 reads of CTRL at most. Everything else is polled by the
//! runtime, whose waits go through the host with our deadlines, so an ordinary build runs under every
//! clock. The runtime keeps to rdif-eth's contract: it takes completions until there are none, and
//! looks again when the handler or the arming of interrupts says that there is work.
//!
//! # What the crate does that it should not
//!
//! It stays as it is; FINDINGS.md has what was found, with evidence. What a user of this adapter
//! notices of it with an honest device: after 256 frames were sent, the crate takes descriptors of
//! the last round for news, loses track of its ring, and gives sent buffers back a round late. Then
//! [`send`](cofferdam_seam::service::Net::send) finds no buffer and times out.
//!
//! Buffers are made once, when the driver starts, one way each, and their pool is dropped then: a
//! buffer that the crate drops while the device has it is unmapped, so the machine sees what follows.
//!
//! The crate never looks at the link. [`is_link_up`](cofferdam_seam::service::Net::is_link_up)
//! reads STATUS itself.
//!
//! A panic of the crate is the driver's crash: it is not caught.
//!
//! Left out: more than one queue, checksum offload, which the crate has neither, and 82545EM, whose
//! model we do not have.
//!
//! The adapter trusts its host and the crate's memory safety, and nothing the device says: a frame
//! that is reported longer than its buffer ends the driver ([`LONGER_THAN_ITS_BUFFER`]).

mod net;
mod runtime;
mod spec;

pub use net::EthIntel;
pub use runtime::LONGER_THAN_ITS_BUFFER;
