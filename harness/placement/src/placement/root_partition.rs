//! The driver in a root operating system beside the hypervisor: Xen's dom0, Hyper-V's root.

use super::Standing::{Deployed, Synthetic};
use super::{Domain, Grant, HYPERVISOR, Placement, Restart, Role, TENANT1, TENANT2, Wall};
use crate::trial::PlacementId;
use cofferdam_machine::config::InterruptHandler;
use cofferdam_machine::frames::Owner;
use std::time::Duration;

pub(super) const PLACEMENT: Placement = Placement {
    id: "root-partition",
    placement: PlacementId::RootPartition,
    line: "the driver is part of a root operating system beside the hypervisor",
    stands_for: "Xen dom0, the root partition of Viridian and Hyper-V",
    crossing: "shared ring and event",
    domains: &[
        HYPERVISOR,
        Domain {
            name: "root",
            role: Role::Serves,
            privileged: false,
            cpu: 0,
            // The root's own frames are the kernel's and the driver's.
            grants: &[
                Grant::Own(Owner::Kernel),
                Grant::Own(Owner::Driver),
                super::LENT[0],
                super::LENT[1],
            ],
        },
        TENANT1,
        TENANT2,
    ],
    // An operating system boots: long beside a process, short beside a real dom0 (tens of seconds).
    restart: Restart::After(Duration::from_millis(200)),
    interrupts: InterruptHandler::Driver,
    wall: Wall::Process,
    tenants: Wall::Process,
    copies: true,
    deployed: [
        Deployed("Xen dom0 with iommu=off, the first Hyper-V hosts"),
        Deployed("Xen dom0 with dom0-iommu=passthrough"),
        Synthetic("Xen maps dom0's memory statically, Windows does not document batching"),
        Deployed("Windows with Hyper-V and drivers that opt in to DMA remapping"),
        Deployed("Linux as dom0 or root, for devices on external-facing ports"),
    ],
};
