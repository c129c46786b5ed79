//! Model of a virtio block device over modern virtio-pci (virtio 1.2).
//!
//! [`VirtioBlk`] has one split virtqueue of up to 64 descriptors, MSI-X and INTx, and a small disk
//! in memory. It offers `VIRTIO_F_VERSION_1` and `VIRTIO_F_INDIRECT_DESC`, and nothing else: no event
//! index, no flush, because a request that completed is durable. The disk survives every reset;
//! a request in flight at a reset is dropped without a trace.
//!
//! Left out: the `VIRTIO_PCI_CAP_PCI_CFG` window (4.1.4.9), the legacy interface, packed rings,
//! more than one queue, discard and write-zeroes, `VIRTIO_F_ACCESS_PLATFORM` (addresses are always
//! those of the bus, whatever is negotiated).
//!
//! It trusts nobody. Rings and descriptors are read once, checked, and used from the copy; a
//! driver that breaks the protocol gets `DEVICE_NEEDS_RESET` and silence until it resets the
//! device.
//!
//! Files: `spec` is the wire format, `regs` the common configuration, `queue` the virtqueue, `disk`
//! the block requests, `controller` the device that joins them.

#![forbid(unsafe_code)]

mod chain;
mod console;
mod controller;
#[cfg(test)]
mod controller_tests;
mod decode;
mod disk;
mod gpu;
mod identity;
mod input;
mod kind;
#[cfg(test)]
mod kind_tests;
mod net;
mod p9;
mod queue;
mod regs;
mod rng;
mod seeded;
mod socket;
mod sound;
pub mod spec;

pub use console::{ConsoleConfig, VirtioConsole};
pub use controller::Virtio;
pub use decode::Decoder;
pub use disk::{BlkConfig, MAX_SECTORS, VirtioBlk};
pub use gpu::{GpuConfig, VirtioGpu};
pub use input::{InputConfig, VirtioInput};
pub use net::{NetConfig, VirtioNet};
pub use p9::{P9Config, Virtio9p};
pub use rng::{RngConfig, VirtioRng};
pub use socket::{SocketConfig, VirtioSocket};
pub use sound::{SoundConfig, VirtioSound};
