//! The driver in a server of a message-passing microkernel: L4, seL4, MINIX 3, QNX.
//!
//! As `user-process`, but for a tenant's way to the driver: no memory is shared. The kernel copies a
//! request's header and data from the tenant's frames into the server's message buffer, and the
//! answer back.

use super::Standing::{Deployed, Synthetic};
use super::{Domain, Grant, Placement, Restart, Role, TENANT1, TENANT2, Wall};
use crate::trial::PlacementId;
use cofferdam_machine::config::InterruptHandler;
use cofferdam_machine::frames::Owner;
use std::time::Duration;

pub(super) const PLACEMENT: Placement = Placement {
    id: "microkernel",
    placement: PlacementId::Microkernel,
    line: "the driver is a server that a small kernel passes messages to",
    stands_for: "MINIX 3, QNX, L4 and seL4",
    crossing: "synchronous messages, copied by the kernel",
    domains: &[
        Domain {
            name: "kernel",
            role: Role::Carries,
            privileged: true,
            cpu: 1,
            grants: &[Grant::All],
        },
        Domain {
            name: "driver",
            role: Role::Serves,
            privileged: false,
            cpu: 0,
            // Its message buffer is its own; no tenant's frame is there.
            grants: &[Grant::Own(Owner::Driver)],
        },
        TENANT1,
        TENANT2,
    ],
    // A server is started again as a process is (MINIX 3: by its reincarnation server).
    restart: Restart::After(Duration::from_millis(1)),
    // A driver server is sent a message, and the line is masked until it acknowledges: as VFIO does.
    interrupts: InterruptHandler::Vfio,
    wall: Wall::Process,
    tenants: Wall::Process,
    copies: true,
    deployed: [
        Deployed("QNX without its smmuman service; MINIX 3 on machines without an IOMMU"),
        Synthetic("we know of no microkernel that gives a driver server a one-to-one domain"),
        Synthetic("we know of no microkernel that batches the invalidations of a driver server"),
        Deployed("seL4 with VT-d, where unmapping an I/O page invalidates; QNX with smmuman"),
        Synthetic("we know of no microkernel that bounces a driver server's partial pages"),
    ],
};
