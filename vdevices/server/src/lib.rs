//! Serves a device model to virtual machine monitors: QEMU, Cloud Hypervisor, our own client.
//!
//! A [`Server`] puts the PCI layer around a [`Device`](cofferdam_seam::Device) and speaks vfio-user
//! over a socket, one client at a time: configuration space and BARs by messages, interrupts by
//! eventfds, DMA through the files the client shares or by messages the client carries out (and its
//! IOMMU judges); see [`Dma`]. A client that went away may come back, and finds the device reset:
//! what it was told of the old client's memory, it must not use on the new one's.
//!
//! Every access to a BAR is a message, but that doorbells can be memory the client maps, which this side
//! then looks at again and again ([`Options::map_doorbells`]).
//!
//! Left out: other BARs that can be mapped, migration, the second socket for
//! the server's own commands, resampled interrupts. The MSI-X table is the client's business, as it
//! is with VFIO: a vector that an eventfd was given for is delivered there, whatever the table says.
//!
//! It trusts the model and the kernel, and nothing that comes over the socket: lengths, counts,
//! indices and numbers of descriptors are bounded, every wait for a peer has a deadline, and what
//! cannot be understood is answered with an error or ends the connection. Shared memory is read and
//! written as a file, never mapped, so a client that shrinks it hurts nobody. Only a client that
//! clears `O_NONBLOCK` on an eventfd it has filled can hold up the thread, and that thread serves
//! nobody else.
//!
//! Files: `spec` is the wire format, `stream` frames and descriptors on a socket, `memory` what the
//! client lent, `interrupts` its eventfds, `link` the bus the model sees, `session` one client's
//! life, `server` the door.

#![forbid(unsafe_code)]

mod doorbells;
mod interrupts;
mod link;
mod memory;
mod server;
mod session;
pub mod spec;
pub mod stream;
mod tap;

pub use link::{Broken, Dma};
pub use server::{BindError, Door, Options, Server};
pub use session::Ended;
