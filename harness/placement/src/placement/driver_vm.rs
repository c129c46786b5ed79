//! The driver alone in a small virtual machine: Xen's driver domains, Qubes' net VM, DD/OS.
//!
//! The domain that serves is the VMM's process, with the rings; the driver is in its KVM guest, which
//! has the driver's frames, the device's registers by exits, and nothing else.

use super::Standing::{Deployed, Synthetic};
use super::{Domain, Grant, HYPERVISOR, Placement, Restart, Role, TENANT1, TENANT2, Wall};
use crate::trial::PlacementId;
use cofferdam_machine::config::InterruptHandler;
use cofferdam_machine::frames::Owner;
use std::time::Duration;

pub(super) const PLACEMENT: Placement = Placement {
    id: "driver-vm",
    placement: PlacementId::DriverVm,
    line: "the driver is alone in a small virtual machine",
    stands_for: "Xen driver domains, Qubes' net VM, DD/OS",
    crossing: "shared ring and event, then a call into the guest",
    domains: &[
        HYPERVISOR,
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
    // A guest is made, which takes some 2 ms, and the device found again.
    restart: Restart::After(Duration::from_millis(5)),
    interrupts: InterruptHandler::Vfio,
    wall: Wall::Guest,
    tenants: Wall::Process,
    copies: true,
    deployed: [
        Deployed("Xen driver domains of PV guests on machines without an IOMMU"),
        Synthetic("a guest is never given all memory"),
        Synthetic("Xen and VFIO invalidate before an unmapping returns"),
        Deployed("Xen driver domains and Qubes' net VM with VT-d"),
        Synthetic("VFIO maps the guest's pages themselves"),
    ],
};
