//! The drivers of the crate virtio-drivers, unmodified, behind our seam: block, network, console,
//! entropy, 9P, GPU, input, socket and sound.
//!
//! The crate brings the drivers and their virtqueue; this adapter brings the two traits it asks
//! for ([`Hal`](virtio_drivers::Hal) for memory, [`Transport`](virtio_drivers::transport::Transport)
//! for registers) over any [`DriverHost`](cofferdam_seam::DriverHost), and the waiting. Requests go
//! one at a time, and through the crate's non-blocking calls where it has them. Its blocking ones read
//! memory without end: there our transport waits at the doorbell, so that the crate finds its answer
//! when it looks, and leaves the call at the deadline. It takes no part in `EVENT_IDX` then, and waits
//! until the device wants to hear its doorbell, because the crate would wait without ringing it. A
//! device that runs beside the driver can still fall silent between our look and the crate's.
//!
//! # What is the crate's, and what ours
//!
//! The subject of measurement is the crate. What it does with a hostile answer stays as it is:
//!
//! - the used element's length is never looked at, and only 16 bits of its 32-bit id are;
//! - any status byte but 0, 2 and 3 is an I/O error;
//! - a used index that runs ahead completes requests that were not done (we find it out by the
//!   status byte, which nobody wrote);
//! - the device can silence the doorbell: by the used ring's flags, or by `EVENT_IDX`, which is
//!   accepted when offered;
//! - a panic of the crate is the driver's crash: it is not caught.
//!
//! The crate trusts its transport to be infallible, so ours checks what the standard makes a
//! transport's or a driver's duty and the crate leaves out: the reset completes, `VERSION_1` is
//! offered, `FEATURES_OK` sticks, a vector was assigned, the doorbell lies inside its structure, and
//! after a silence `DEVICE_NEEDS_RESET` is looked at. Where a call into the crate must not go on (a
//! failed check, a deadline inside a loop of the crate's, a host that refuses memory) the adapter
//! unwinds through it with a private payload and catches that payload alone. So a program with this
//! driver must be built with `panic = "unwind"`.
//!
//! # Memory
//!
//! Rings are regions of their own. Request header, data and status byte are copied through slots
//! of a small arena, packed side by side, so each has neighbours on its page, as kernel heap
//! buffers have; each slot is mapped only while it is shared. After an error the instance answers
//! no more, and whatever the device may still own stays allocated and mapped until drop has reset
//! the device and taken the bus away from it.
//!
//! Left out: legacy and transitional devices, flushing (a completed write must be durable),
//! requests in parallel.
//!
//! The adapter trusts its host and the crate's memory safety, and nothing the device says.

mod abandon;
mod arena;
mod blk;
mod console;
mod gpu;
mod hal;
mod input;
mod instance;
mod net;
mod p9;
mod rng;
mod session;
mod socket;
mod sound;
mod spec;
mod structure;
mod transport;

pub use blk::VirtioBlk;
pub use console::VirtioConsole;
pub use gpu::{CURSOR_BYTES, VirtioGpu};
pub use input::VirtioInput;
pub use net::{LONGEST_FRAME, VirtioNet};
pub use p9::{LONGEST_MESSAGE, Virtio9p};
pub use rng::VirtioRng;
pub use socket::{Stream, VirtioSocket};
pub use sound::{LONGEST_PERIOD, VirtioSound};
