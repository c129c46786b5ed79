//! Models of virtio devices over modern virtio-pci (virtio 1.2).
//!
//! What all kinds have in common is [`Virtio`]: registers, split virtqueues of up to 64 descriptors,
//! MSI-X and INTx. It offers `VIRTIO_F_VERSION_1` and `VIRTIO_F_INDIRECT_DESC`, and no event index.
//! A kind adds its configuration and what it does with a chain: [`VirtioBlk`], a small disk that is
//! durable when a request completes, so it offers no flush; [`VirtioNet`], whose peer echoes frames;
//! [`VirtioConsole`], whose terminal echoes; [`VirtioRng`] and [`VirtioInput`], seeded; [`VirtioGpu`]
//! without 3D; [`VirtioSocket`], whose peer accepts and echoes streams; [`VirtioSound`], which plays in
//! device time; [`Virtio9p`], a directory with one file. A chain in service at a reset is dropped without
//! a trace; what lies behind the device (disk, random stream, typing) survives it.
//!
//! Left out: the `VIRTIO_PCI_CAP_PCI_CFG` window (4.1.4.9), the legacy interface, packed rings, more
//! than one pair of queues, offloads, recording, discard and write-zeroes, `VIRTIO_F_ACCESS_PLATFORM`
//! (addresses are always those of the bus, whatever is negotiated).
//!
//! It trusts nobody. Rings and descriptors are read once, checked, and used from the copy; a driver
//! that breaks the protocol gets `DEVICE_NEEDS_RESET` and silence until it resets the device. What a
//! kind keeps for a driver is bounded.
//!
//! Files: `spec` is the wire format, with a part a kind, `regs` the common configuration, `queue` the
//! virtqueue, `chain` what is in it, `kind` what a kind must say, `controller` the device that joins
//! them; `disk`, `net` and so on are the kinds.

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
