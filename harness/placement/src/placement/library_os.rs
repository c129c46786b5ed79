//! The application and its driver are one program in a virtual machine of their own: BEA's LiquidVM,
//! unikernels.
//!
//! As in `passthrough`, but that no kernel copies the application's data: it calls its driver.

use super::Standing::{Deployed, Synthetic};
use super::{Domain, Grant, Placement, Restart, Role, TENANT2, Wall};
use crate::trial::PlacementId;
use cofferdam_machine::config::InterruptHandler;
use cofferdam_machine::frames::Owner;

pub(super) const PLACEMENT: Placement = Placement {
    id: "library-os",
    placement: PlacementId::LibraryOs,
    line: "the driver is in the application, alone in a virtual machine with its device",
    stands_for: "BEA LiquidVM, unikernels (Unikraft, IncludeOS) with a device of their own",
    crossing: "a function call of the application",
    domains: &[
        Domain {
            name: "hypervisor",
            role: Role::Idles,
            privileged: true,
            cpu: 1,
            grants: &[Grant::All],
        },
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
    copies: false,
    deployed: [
        Synthetic("no unikernel we know of was given a device without an IOMMU"),
        Synthetic("a guest is never given all memory"),
        Synthetic("Xen and VFIO invalidate before an unmapping returns"),
        Deployed("unikernels on KVM with VFIO, with a virtual IOMMU"),
        Synthetic("VFIO maps the guest's pages themselves"),
    ],
};
