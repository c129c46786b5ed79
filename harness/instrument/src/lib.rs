//! What lets an unmodified third-party driver run behind the seam although it wants pointers.
//!
//! - [`trap`]: address ranges whose every access is carried out by an [`Mmio`](cofferdam_seam::Mmio);
//! - [`platform`]: the operating system that drivers of the `dma_api` and `mmio_api` family expect,
//!   over any [`DriverHost`](cofferdam_seam::DriverHost);
//! - [`wrapper`]: the rustc wrapper that instruments single crates, and what instrumented code does at
//!   run time: [`trap::callbacks`], [`steps`], [`coverage`], [`constants`], [`asan`].
//!
//! The crate sees the seam and nothing else of the harness, so adapters may depend on it. It trusts
//! the host, the compiler and the kernel; neither the driver, whose wild accesses stay deadly, nor the
//! device.

pub mod asan;
pub mod constants;
pub mod coverage;
pub mod platform;
pub mod steps;
pub mod trap;

pub use cofferdam_instrument_wrapper as wrapper;

/// Ends the process where it is dropped.
struct Abort;

impl Drop for Abort {
    fn drop(&mut self) {
        std::process::abort()
    }
}

/// Runs what was called in the middle of a driver's instructions, where nobody can be unwound to: a
/// panic ends the process, after its message.
#[inline]
fn or_abort<R>(run: impl FnOnce() -> R) -> R {
    let abort = Abort;
    let result = run();
    std::mem::forget(abort);
    result
}
