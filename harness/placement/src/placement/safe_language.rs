//! The driver in the kernel's address space, in a language whose panics unwind: RedLeaf, Singularity,
//! Theseus.
//!
//! Every entry into the driver is a call through a proxy that a panic ends: its state is dropped and
//! it is started again in the same process. The boundary holds panics only. Rust for Linux is not
//! this: there a panic of a driver is a BUG of the kernel.

use super::Standing::{Deployed, Synthetic};
use super::{Domain, Grant, Placement, Restart, Role, TENANT1, TENANT2, Wall};
use crate::trial::PlacementId;
use cofferdam_machine::config::InterruptHandler;
use std::time::Duration;

pub(super) const PLACEMENT: Placement = Placement {
    id: "safe-language",
    placement: PlacementId::SafeLanguage,
    line: "the driver shares the kernel's process, behind an unwinding boundary",
    stands_for: "RedLeaf, Singularity, Theseus",
    crossing: "proxied call (ring and doorbell into the kernel, as in-kernel)",
    domains: &[
        Domain {
            name: "kernel",
            role: Role::Serves,
            privileged: true,
            cpu: 0,
            grants: &[Grant::All],
        },
        TENANT1,
        TENANT2,
    ],
    // No process is made: objects are dropped and made again.
    restart: Restart::InPlace(Duration::from_micros(100)),
    interrupts: InterruptHandler::Driver,
    wall: Wall::Process,
    tenants: Wall::Process,
    copies: true,
    deployed: [
        Deployed("RedLeaf as published, which assumes benign devices; Singularity"),
        Synthetic("we know of no such system that gives a driver a one-to-one domain"),
        Synthetic("we know of no such system that batches invalidations"),
        Synthetic("RedLeaf names an IOMMU as a way to relax its trust in devices, and uses none"),
        Synthetic("we know of no such system that bounces partial pages"),
    ],
};
