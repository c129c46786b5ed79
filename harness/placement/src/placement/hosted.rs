//! The driver in a host's kernel, behind a second device: VMware Workstation and Fusion, QEMU without
//! passthrough.
//!
//! A tenant is a virtual machine with an emulated device. Its VMM, a process, refuses what the
//! emulated device does not have and calls the host's kernel for the rest. A VMM that dies takes its
//! tenant along and nobody else.

use super::Standing::Deployed;
use super::{Domain, Grant, Placement, Restart, Role, TENANT1, TENANT2, Wall};
use crate::trial::PlacementId;
use cofferdam_machine::config::InterruptHandler;
use cofferdam_machine::frames::Owner;

pub(super) const PLACEMENT: Placement = Placement {
    id: "hosted",
    placement: PlacementId::Hosted,
    line: "the driver is part of a host's kernel; a VMM shows each tenant an emulated device",
    stands_for: "VMware Workstation and Fusion, Virtual PC, QEMU without passthrough",
    crossing: "exit to the VMM (here: ring and doorbell), then a call ring into the host's kernel",
    domains: &[
        Domain {
            name: "kernel",
            role: Role::Serves,
            privileged: true,
            cpu: 0,
            grants: &[Grant::All],
        },
        // A VMM maps all of its guest's memory, and the ring it calls the host by.
        Domain {
            name: "vmm1",
            role: Role::Emulates(1),
            privileged: false,
            cpu: 0,
            grants: &[
                Grant::Own(Owner::Tenant1),
                Grant::Messages(1),
                Grant::Events,
            ],
        },
        Domain {
            name: "vmm2",
            role: Role::Emulates(2),
            privileged: false,
            cpu: 1,
            grants: &[
                Grant::Own(Owner::Tenant2),
                Grant::Messages(2),
                Grant::Events,
            ],
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
        Deployed("VMware Workstation or QEMU on Linux with intel_iommu=off"),
        Deployed("VMware Workstation or QEMU on Linux with iommu=pt"),
        Deployed("VMware Workstation or QEMU on Linux as built by default"),
        Deployed("VMware Workstation or QEMU on Linux with iommu.strict=1"),
        Deployed("QEMU on Linux, for devices it marks untrusted (external ports)"),
    ],
};
