//! The driver in the hypervisor, and each tenant in a KVM guest: VMware ESX with the machines it hosts.
//!
//! As `hypervisor`, but that a tenant's domain is the VMM of a guest that has the tenant's frames and
//! nothing else. What the tenant asks of the hypervisor, doorbells and waiting included, is an exit.

use super::{Placement, Wall, hypervisor};
use crate::trial::PlacementId;

pub(super) const PLACEMENT: Placement = Placement {
    id: "hypervisor-kvm",
    placement: PlacementId::HypervisorKvm,
    line: "the driver is part of the hypervisor, its tenants are KVM guests",
    crossing: "hypercall out of the tenant's guest",
    tenants: Wall::Guest,
    ..hypervisor::PLACEMENT
};
