//! The driver in the hypervisor: VMware ESX.
//!
//! With processes as the only mechanism this is the topology of `in-kernel` under another name:
//! the A/A control of the comparison. Tenants in KVM guests will end that.

use super::{Domain, Grant, Placement, Restart, Role, TENANT1, TENANT2};
use crate::trial::PlacementId;

pub(super) const PLACEMENT: Placement = Placement {
    id: PlacementId::Hypervisor,
    name: "hypervisor",
    stands_for: "VMware ESX: the driver shares the hypervisor's address space",
    crossing: "hypercall ring and doorbell into the hypervisor",
    domains: &[
        Domain {
            name: "hypervisor",
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
