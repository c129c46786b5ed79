//! The driver in the hypervisor: VMware ESX.
//!
//! With tenants as processes this is the topology of `in-kernel` under another name: the A/A control of
//! the comparison. In `hypervisor-kvm` the tenants are guests.

use super::Standing::{Deployed, Synthetic};
use super::{Domain, Grant, Placement, Restart, Role, TENANT1, TENANT2, Wall};
use crate::trial::PlacementId;
use cofferdam_machine::config::InterruptHandler;

pub(super) const PLACEMENT: Placement = Placement {
    id: "hypervisor",
    placement: PlacementId::Hypervisor,
    line: "the driver is part of the hypervisor, its tenants are processes: the A/A control of in-kernel",
    stands_for: "VMware ESX",
    crossing: "hypercall (here: call ring and doorbell, as in-kernel)",
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
    interrupts: InterruptHandler::Driver,
    wall: Wall::Process,
    tenants: Wall::Process,
    copies: true,
    deployed: [
        Deployed("VMware ESX on hosts without VT-d"),
        Synthetic("we know of no documentation of a one-to-one domain for VMkernel drivers"),
        Synthetic("no hypervisor is known to batch invalidations for its own drivers"),
        Synthetic("we know of no documentation that VMkernel drivers run so"),
        Synthetic("no hypervisor is known to bounce for its own drivers"),
    ],
};
