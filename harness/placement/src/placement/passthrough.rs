//! The driver in the kernel of a tenant's own virtual machine, which has the device to itself.
//!
//! Tenant 1 is the machine: its VMM's process plays the application, and the guest is its kernel with
//! the driver, with the tenant's frames and the driver's, and the device's registers by exits. What the
//! device may reach is what the driver mapped, by a virtual IOMMU. Tenant 2 is another machine, without
//! a device. A machine that dies is not started again.

use super::Standing::{Deployed, Synthetic};
use super::{Domain, Grant, HYPERVISOR, Placement, Restart, Role, TENANT2, Wall};
use crate::trial::PlacementId;
use cofferdam_machine::config::InterruptHandler;
use cofferdam_machine::frames::Owner;

pub(super) const PLACEMENT: Placement = Placement {
    id: "passthrough",
    placement: PlacementId::Passthrough,
    line: "the driver is in the kernel of the one tenant that has the device to itself",
    stands_for: "VMDirectPath, PCI passthrough of KVM and Xen, dedicated devices of mainframes",
    crossing: "a call inside the tenant's virtual machine",
    domains: &[
        HYPERVISOR,
        Domain {
            name: "tenant1",
            role: Role::Houses(1),
            privileged: false,
            cpu: 0,
            grants: &[Grant::Own(Owner::Driver), Grant::Own(Owner::Tenant1)],
        },
        TENANT2,
    ],
    restart: Restart::Never,
    interrupts: InterruptHandler::Vfio,
    wall: Wall::Guest,
    tenants: Wall::Process,
    copies: true,
    deployed: [
        Deployed("Xen PV guests with a device on machines without an IOMMU"),
        Synthetic("a guest is never given all memory"),
        Synthetic("Xen and VFIO invalidate before an unmapping returns"),
        Deployed("KVM with VFIO and a virtual IOMMU in the guest"),
        Synthetic("VFIO maps the guest's pages themselves"),
    ],
};
