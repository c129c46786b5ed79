//! The drivers of this repository, and third-party crates, as fuzz targets: a file each.
//!
//! Generic drivers are compiled here, so the runner instruments this crate too. The adapters use the
//! drivers as their documentation says, and nothing else: what an adapter does wrong would look like
//! a defect of its driver.

pub mod eth_intel;
pub mod nvme_crate;

use cofferdam_fuzz::target::Target;

/// All targets, in the order in which they are listed.
pub fn all() -> &'static [&'static dyn Target] {
    static ALL: [&dyn Target; 2] = [&nvme_crate::NVME_CRATE, &eth_intel::ETH_INTEL];
    &ALL
}
