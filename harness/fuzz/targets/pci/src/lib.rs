//! The unmodified virtio-drivers crate over its own PCI transport.
//!
//! The crate finds the device's structures in configuration space, sizes the BARs and reaches the
//! registers through pointers, which are trapped. The drivers, workloads and models are those of
//! [`cofferdam_fuzz_targets::virtio`]. A crate of its own, because the runner reports each load and
//! store of what is compiled here.
//!
//! Firmware placed the BARs and enabled the device before the driver starts. Which addresses are the
//! device's is for the crate's HAL to know, so a device that lies about where its BARs lie is refused.

mod target;

use cofferdam_fuzz::target::Target;
use cofferdam_fuzz_targets::virtio;
use target::Pci;

/// All of them, in the order in which they are listed.
pub static ALL: &[&dyn Target] = &[
    &Pci::new("virtio-blk-pci", &virtio::blk::BLK),
    &Pci::new("virtio-net-pci", &virtio::net::NET),
    &Pci::new("virtio-console-pci", &virtio::console::CONSOLE),
    &Pci::new("virtio-rng-pci", &virtio::rng::RNG),
    &Pci::new("virtio-input-pci", &virtio::input::INPUT),
    &Pci::new("virtio-gpu-pci", &virtio::gpu::GPU),
    &Pci::new("virtio-socket-pci", &virtio::socket::SOCKET),
    &Pci::new("virtio-sound-pci", &virtio::sound::SOUND),
    &Pci::new("virtio-9p-pci", &virtio::p9::P9),
];
