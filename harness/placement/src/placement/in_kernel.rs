//! The driver in the kernel: Linux, and every monolithic operating system.

use super::Standing::Deployed;
use super::{Domain, Grant, Placement, Restart, Role, TENANT1, TENANT2, Wall};
use crate::trial::PlacementId;
use cofferdam_machine::config::InterruptHandler;

pub(super) const PLACEMENT: Placement = Placement {
    id: "in-kernel",
    placement: PlacementId::InKernel,
    line: "the driver is part of the kernel",
    stands_for: "Linux and every monolithic operating system",
    crossing: "call ring and doorbell into the kernel",
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
    restart: Restart::Never,
    interrupts: InterruptHandler::Driver,
    wall: Wall::Process,
    tenants: Wall::Process,
    copies: true,
    deployed: [
        Deployed("Linux with intel_iommu=off, or on a machine without an IOMMU"),
        Deployed("Linux with iommu=pt (IOMMU_DEFAULT_PASSTHROUGH)"),
        Deployed("Linux on x86 as built by default (IOMMU_DEFAULT_DMA_LAZY)"),
        Deployed("Linux with iommu.strict=1 (IOMMU_DEFAULT_DMA_STRICT)"),
        Deployed(
            "Linux for devices on external-facing ports, Thunderbolt (drivers/iommu/dma-iommu.c)",
        ),
    ],
};
