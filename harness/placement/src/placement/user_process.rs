//! The driver in a process of its own: VFIO user space, SUD, DPDK, SPDK.

use super::Standing::{Deployed, Synthetic};
use super::{Domain, Grant, Placement, Restart, Role, TENANT1, TENANT2, Wall};
use crate::trial::PlacementId;
use cofferdam_machine::config::InterruptHandler;
use cofferdam_machine::frames::Owner;
use std::time::Duration;

pub(super) const PLACEMENT: Placement = Placement {
    id: "user-process",
    placement: PlacementId::UserProcess,
    line: "the driver is an unprivileged process of its own",
    stands_for: "VFIO user space, SUD, DPDK and SPDK",
    crossing: "shared ring and event",
    domains: &[
        Domain {
            name: "kernel",
            role: Role::Idles,
            privileged: true,
            cpu: 1,
            grants: &[Grant::All],
        },
        Domain {
            name: "driver",
            role: Role::Serves,
            privileged: false,
            cpu: 0,
            grants: &[Grant::Own(Owner::Driver), super::LENT[0], super::LENT[1]],
        },
        TENANT1,
        TENANT2,
    ],
    // A process is forked and the device found again.
    restart: Restart::After(Duration::from_millis(1)),
    interrupts: InterruptHandler::Vfio,
    wall: Wall::Process,
    tenants: Wall::Process,
    copies: true,
    deployed: [
        Deployed("DPDK over uio_pci_generic with the IOMMU disabled"),
        Deployed("DPDK over uio_pci_generic with iommu=pt"),
        Synthetic("VFIO and iommufd invalidate before an unmapping returns"),
        Deployed("DPDK and SPDK over VFIO"),
        Synthetic("VFIO maps the driver's pages themselves"),
    ],
};
