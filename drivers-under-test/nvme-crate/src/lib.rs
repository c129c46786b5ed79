//! `NvmeBlockDriver` of the crate nvme-driver, unmodified, behind our seam.
//!
//! The crate brings the controller's bring-up, its queues and the commands, as state machines after
//! the crate rdif-block; this adapter brings the operating system: memory and registers through
//! `cofferdam-instrument`'s platform, and rdif-block's runtime, which waits, acknowledges interrupts
//! and drains queues. Requests go one at a time. Every register access of the crate is a volatile one
//! through a pointer, and is trapped: by faults, or by callbacks in a build of `cofferdam instrument`.
//!
//! The crate depends on `cofferdam-instrument`, which sees nothing of the harness above the seam.
//!
//! # How the crate waits
//!
//! Not at all: it has no spin loop, no timer and no polling mode. A register transition answers
//! `RegisterPending` with a delay of 100 us, an outstanding command `WaitingForIrq`; the waiting is
//! ours, with our deadlines, and it goes through the host. So an ordinary build runs under every clock.
//! The one loop whose length the device has in its hand is `drain_completions`: it ends at the first
//! entry of the old phase, after one round of the queue at most unless the device writes entries
//! meanwhile. It touches no register on its way, so only an instrumented build sees it run on.
//!
//! A lost interrupt is never made good by a look at the queue: rdif-block forbids that. The request
//! times out and the controller is stopped (`Watchdog`).
//!
//! # What the crate does with a hostile answer
//!
//! It stays as it is. Read in the source of 0.8.2:
//!
//! - the doorbell stride is read from CAP again at every doorbell, never checked against the BAR, and
//!   a liar makes the doorbell a 32-bit store up to 388 KiB behind the start of the BAR. A device that
//!   is gone lies so: CAP reads as all ones;
//! - CAP.TO, and CSTS.CFS after the controller was ready, are never looked at;
//! - any new entry of the admin queue completes the one command outstanding: its command identifier
//!   is not read; no entry's submission queue head or identifier is;
//! - an I/O entry whose command identifier is out of range or not pending is an error of the whole
//!   drain, whatever else was in it (so a forged entry costs the controller, not memory safety);
//! - LBADS is used as an exponent unchecked: from 32 on the block size is zero, which is refused, in
//!   a release build, and a panic where overflow is checked; format 0 counts as 512 bytes unread, and
//!   of NSZE 32 bits of 64 are used;
//! - controller shutdown is CC = 0: no shutdown notification, no deletion of queues. Dropping the
//!   driver does not even do that: the adapter does, and takes the bus away;
//! - queues and Identify buffers are mapped for both directions: `dma_api` does not tell the way. A
//!   request's data is made here, and mapped one way. Every allocation has pages of its own.
//!
//! A panic of the crate is the driver's crash: it is not caught.
//!
//! Left out: blocks other than 512 bytes, metadata, requests in parallel. A write is followed by a
//! flush, since the crate does not tell whether the device has a volatile cache.
//!
//! The adapter trusts its host and the crate's memory safety, and nothing the device says.

mod blk;
mod interrupts;
mod runtime;
mod spec;

pub use blk::NvmeCrate;
