//! Placements as data: who the domains are, what each maps, which CPU it has, who restarts whom.
//!
//! One file a placement. Nothing else in the crate knows a placement by name.

mod hypervisor;
mod in_kernel;
mod root_partition;
mod user_process;

use crate::trial::PlacementId;
use cofferdam_machine::config::IommuMode;
use cofferdam_machine::frames::{MAP, Owner, Run, Use};
use serde::Serialize;
use std::time::Duration;

/// What a domain may map of the machine's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grant {
    /// Every frame: a privileged layer.
    All,
    /// All frames of that owner.
    Own(Owner),
    /// The request ring of that tenant, lent by it.
    Ring(Owner),
    /// The event words of the domain that serves, lent by it.
    Events,
}

impl Grant {
    fn covers(self, run: &Run) -> bool {
        match self {
            Self::All => true,
            Self::Own(owner) => run.owner == owner,
            Self::Ring(owner) => run.owner == owner && run.purpose == Use::Ring,
            Self::Events => run.purpose == Use::Events,
        }
    }
}

/// What a domain does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Holds the driver and serves the tenants.
    Serves,
    /// A privileged layer that does not hold the driver: it only has to stay alive.
    Idles,
    /// Tenant 1 or 2: makes verified requests.
    Tenant(u8),
}

/// One protection domain: a process with exactly these mappings.
#[derive(Clone, Copy, Debug)]
pub struct Domain {
    /// Its name in records.
    pub name: &'static str,
    /// What it does.
    pub role: Role,
    /// Whether it is the privileged layer: when it dies, the system stops.
    pub privileged: bool,
    /// The modelled CPU it runs on.
    pub cpu: u8,
    /// What it maps.
    pub grants: &'static [Grant],
}

impl Domain {
    /// The runs of the frame map it may touch.
    pub fn runs(&self) -> impl Iterator<Item = &'static Run> + '_ {
        MAP.iter()
            .filter(|run| self.grants.iter().any(|grant| grant.covers(run)))
    }

    /// Whether it may touch every byte of `phys..phys + len`.
    pub fn may_touch(&self, phys: u64, len: u64) -> bool {
        let Some(end) = phys.checked_add(len) else {
            return false;
        };
        let mut at = phys;
        while at < end {
            match self.runs().find(|run| run.bytes().contains(&at)) {
                Some(run) => at = run.bytes().end,
                None => return false,
            }
        }
        true
    }
}

/// How the domain that holds the driver comes back after its death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// It does not: it is the system.
    Never,
    /// The supervisor starts it again after so much device time. A parameter, not a measurement.
    After(Duration),
}

/// Whether a placement with an IOMMU mode exists outside this experiment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "standing", content = "note", rename_all = "kebab-case")]
pub enum Standing {
    /// That system runs so.
    Deployed(&'static str),
    /// Nobody we know of does, for that reason.
    Synthetic(&'static str),
}

/// Where a driver lives.
#[derive(Clone, Copy, Debug)]
pub struct Placement {
    /// The name on the command line and in records.
    pub id: &'static str,
    /// The same, as a type.
    pub placement: PlacementId,
    /// What it is.
    pub line: &'static str,
    /// The systems it stands for.
    pub stands_for: &'static str,
    /// How a tenant's request gets to the driver.
    pub crossing: &'static str,
    /// The domains, the privileged layer first.
    pub domains: &'static [Domain],
    /// How the driver comes back.
    pub restart: Restart,
    /// Who runs so, in each of [`IommuMode::ALL`].
    pub deployed: [Standing; IommuMode::ALL.len()],
}

/// Every placement, in the order of the report.
pub const ALL: [&Placement; 4] = [
    &in_kernel::PLACEMENT,
    &hypervisor::PLACEMENT,
    &root_partition::PLACEMENT,
    &user_process::PLACEMENT,
];

impl PlacementId {
    /// Its data.
    pub fn placement(self) -> &'static Placement {
        match self {
            Self::InKernel => &in_kernel::PLACEMENT,
            Self::Hypervisor => &hypervisor::PLACEMENT,
            Self::RootPartition => &root_partition::PLACEMENT,
            Self::UserProcess => &user_process::PLACEMENT,
        }
    }
}

impl Placement {
    /// Index of the domain that holds the driver.
    pub fn server(&self) -> usize {
        self.domains
            .iter()
            .position(|domain| domain.role == Role::Serves)
            .unwrap_or(0)
    }

    /// Whether the driver is in the privileged layer itself.
    pub fn driver_is_privileged(&self) -> bool {
        self.domains[self.server()].privileged
    }

    /// Whether the domain that holds the driver maps that owner's own frames, rings aside: whether a
    /// wild store lands there.
    pub fn driver_maps(&self, owner: Owner) -> bool {
        let server = &self.domains[self.server()];
        server
            .runs()
            .any(|run| run.owner == owner && run.purpose == Use::Pattern)
    }

    /// Who runs so in that mode.
    pub fn standing(&self, iommu: IommuMode) -> Standing {
        let of = IommuMode::ALL
            .iter()
            .zip(self.deployed)
            .find(|(mode, _)| **mode == iommu);
        of.map_or(
            Standing::Synthetic("not in the catalogue"),
            |(_, standing)| standing,
        )
    }

    /// Index of a tenant's domain.
    pub fn tenant(&self, tenant: u8) -> Option<usize> {
        self.domains
            .iter()
            .position(|domain| domain.role == Role::Tenant(tenant))
    }
}

/// Tenants are alike in every placement: their own frames, and the event words they ring.
const fn tenant(number: u8, owner: Owner) -> Domain {
    let (name, cpu, grants): (_, _, &'static [Grant]) = match owner {
        Owner::Tenant1 => ("tenant1", 0, &[Grant::Own(Owner::Tenant1), Grant::Events]),
        _ => ("tenant2", 1, &[Grant::Own(Owner::Tenant2), Grant::Events]),
    };
    Domain {
        name,
        role: Role::Tenant(number),
        privileged: false,
        cpu,
        grants,
    }
}

/// The tenant on the driver's CPU.
const TENANT1: Domain = tenant(1, Owner::Tenant1);
/// The tenant on the other CPU.
const TENANT2: Domain = tenant(2, Owner::Tenant2);
/// What a domain that serves tenants but is not privileged maps of theirs.
const LENT: [Grant; 2] = [Grant::Ring(Owner::Tenant1), Grant::Ring(Owner::Tenant2)];

#[cfg(test)]
mod tests {
    use super::*;
    use cofferdam_machine::frames::run_of;

    #[test]
    fn every_placement_has_one_server_two_tenants_and_one_privileged_layer() {
        for placement in ALL {
            let count = |role| placement.domains.iter().filter(|d| d.role == role).count();
            assert_eq!(count(Role::Serves), 1, "{}", placement.id);
            assert_eq!(count(Role::Tenant(1)), 1, "{}", placement.id);
            assert_eq!(count(Role::Tenant(2)), 1, "{}", placement.id);
            assert!(placement.domains[0].privileged, "{}", placement.id);
            assert_eq!(placement.domains.iter().filter(|d| d.privileged).count(), 1);
            assert_eq!(placement.placement.placement().id, placement.id);
        }
    }

    #[test]
    fn server_maps_the_driver_memory_and_both_rings_everywhere() {
        for placement in ALL {
            let server = &placement.domains[placement.server()];
            for (owner, purpose) in [
                (Owner::Driver, Use::DmaPool),
                (Owner::Tenant1, Use::Ring),
                (Owner::Tenant2, Use::Ring),
            ] {
                let bytes = run_of(owner, purpose).expect("in the map").bytes();
                assert!(server.may_touch(bytes.start, bytes.end - bytes.start));
            }
        }
    }

    #[test]
    fn tenants_reach_nothing_of_each_other() {
        for placement in ALL {
            for (domain, other) in [(1, Owner::Tenant2), (2, Owner::Tenant1)] {
                let domain = &placement.domains[placement.tenant(domain).expect("tenant")];
                assert!(
                    domain.runs().all(|run| run.owner != other),
                    "{}",
                    placement.id
                );
            }
        }
    }

    #[test]
    fn touching_stops_at_the_end_of_a_grant() {
        let server = &user_process::PLACEMENT.domains[user_process::PLACEMENT.server()];
        // The driver's last frames.
        let slots = run_of(Owner::Driver, Use::Bounce).expect("slots").bytes();
        assert!(server.may_touch(slots.end - 8, 8));
        assert!(!server.may_touch(slots.end - 8, 9));
        assert!(!server.may_touch(u64::MAX, 2));
    }
}
