//! What lets an unmodified third-party driver run behind the seam although it wants pointers.
//!
//! - [`trap`]: address ranges whose every access is carried out by an [`Mmio`](cofferdam_seam::Mmio);
//! - [`platform`]: the operating system that drivers of the `dma_api` and `mmio_api` family expect,
//!   over any [`DriverHost`](cofferdam_seam::DriverHost);
//! - [`wrapper`]: the rustc wrapper that instruments single crates, and what instrumented code does at
//!   run time: [`trap::callbacks`], [`steps`], [`coverage`].
//!
//! The crate sees the seam and nothing else of the harness, so adapters may depend on it. It trusts
//! the host, the compiler and the kernel; neither the driver, whose wild accesses stay deadly, nor the
//! device.

pub mod coverage;
pub mod platform;
pub mod steps;
pub mod trap;
pub mod wrapper;
