//! The drivers of this repository, and third-party crates, as fuzz targets: a file each.
//!
//! Generic drivers are compiled here, so the runner instruments this crate too. The adapters use the
//! drivers as their documentation says, and nothing else: what an adapter does wrong would look like
//! a defect of its driver.

pub mod block;
pub mod edu;
pub mod eth_intel;
pub mod nvme;
pub mod virtio;

use cofferdam_fuzz::target::Target;

/// All targets, in the order in which they are listed.
pub static ALL: &[&dyn Target] = &[
    &virtio::blk::BLK,
    &virtio::net::NET,
    &virtio::console::CONSOLE,
    &virtio::rng::RNG,
    &virtio::input::INPUT,
    &virtio::gpu::GPU,
    &virtio::socket::SOCKET,
    &virtio::sound::SOUND,
    &virtio::p9::P9,
    &nvme::CRATE,
    &nvme::OURS,
    &eth_intel::ETH_INTEL,
    &edu::EDU,
];
