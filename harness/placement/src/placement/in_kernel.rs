//! The driver in the kernel: Linux, and every monolithic operating system.

use super::{Domain, Grant, Placement, Restart, Role, TENANT1, TENANT2};
use crate::trial::PlacementId;

pub(super) const PLACEMENT: Placement = Placement {
    id: PlacementId::InKernel,
    name: "in-kernel",
    stands_for: "Linux and every monolithic kernel: the driver shares the kernel's address space",
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
};
