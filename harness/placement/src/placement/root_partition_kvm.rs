//! The driver in a root operating system, and each tenant in a KVM guest: Xen's and Hyper-V's machines.
//!
//! As `root-partition`, but that a tenant's domain is the VMM of a guest that has the tenant's frames and
//! nothing else. The ring is in those, lent to the root; an event is an exit.

use super::{Placement, Wall, root_partition};
use crate::trial::PlacementId;

pub(super) const PLACEMENT: Placement = Placement {
    id: "root-partition-kvm",
    placement: PlacementId::RootPartitionKvm,
    line: "the driver is part of a root operating system, its tenants are KVM guests",
    crossing: "shared ring, and an event by hypercall out of the tenant's guest",
    tenants: Wall::Guest,
    ..root_partition::PLACEMENT
};
