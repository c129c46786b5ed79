//! Placements as data: who the domains are, what each maps, which CPU it has, who restarts whom.
//!
//! One file a placement. Nothing else in the crate knows a placement by name.

mod driver_vm;
mod hosted;
mod hypervisor;
mod hypervisor_kvm;
mod in_kernel;
mod library_os;
mod microkernel;
mod passthrough;
mod root_partition;
mod root_partition_kvm;
mod safe_language;
mod user_process;

use crate::own::{Known, Layout, Own, Unknown};
use crate::trial::PlacementId;
use cofferdam_machine::config::{InterruptHandler, IommuMode};
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
    /// The driver's side of that tenant's requests, lent to whoever carries them there.
    Messages(u8),
    /// The event words of the domains that serve or carry requests.
    Events,
}

impl Grant {
    fn covers(self, run: &Run) -> bool {
        match self {
            Self::All => true,
            Self::Own(owner) => run.owner == owner,
            Self::Ring(owner) => run.owner == owner && run.purpose == Use::Ring,
            Self::Messages(tenant) => run.purpose == Use::Messages(tenant),
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
    /// A kernel that copies every tenant's messages to the server and the answers back, and looks
    /// into none.
    Carries,
    /// The VMM of that tenant: serves it an emulated device, and calls the server for what the
    /// tenant asks of that. The tenant lives in it and dies with it.
    Emulates(u8),
    /// Tenant 1 or 2: makes verified requests.
    Tenant(u8),
    /// That tenant, with the driver in it: makes its requests to its own driver, which serves nobody
    /// else.
    Houses(u8),
}

impl Role {
    /// Whether it stands between that tenant and the server.
    pub const fn stands_before(self, tenant: u8) -> bool {
        match self {
            Self::Carries => true,
            Self::Emulates(own) => own == tenant,
            Self::Serves | Self::Idles | Self::Tenant(_) | Self::Houses(_) => false,
        }
    }

    /// The tenant it is.
    pub const fn tenant(self) -> Option<u8> {
        match self {
            Self::Tenant(tenant) | Self::Houses(tenant) => Some(tenant),
            Self::Serves | Self::Idles | Self::Carries | Self::Emulates(_) => None,
        }
    }

    /// Whether the driver is in it.
    pub const fn holds_driver(self) -> bool {
        matches!(self, Self::Serves | Self::Houses(_))
    }
}

/// A ring of requests, by whose memory it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingAt {
    /// In the frames of that tenant.
    Tenant(u8),
    /// Among the driver's frames, for that tenant's requests.
    Messages(u8),
}

impl RingAt {
    /// Whose requests are in it.
    pub const fn tenant(self) -> u8 {
        match self {
            Self::Tenant(tenant) | Self::Messages(tenant) => tenant,
        }
    }
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

    /// The runs that are the tenant's own: what its guest is given, where it is in one.
    pub fn runs_of_tenant(&self) -> impl Iterator<Item = &'static Run> + '_ {
        let owner = self.role.tenant().map(|tenant| match tenant {
            1 => Owner::Tenant1,
            _ => Owner::Tenant2,
        });
        self.runs().filter(move |run| Some(run.owner) == owner)
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
    /// The driver behind an unwinding boundary does, in the same process, after so much device time.
    /// Its process does not come back: it is the system. A parameter, not a measurement.
    InPlace(Duration),
}

/// What keeps a driver, or a tenant, from its surroundings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wall {
    /// The mappings of its domain's process.
    Process,
    /// A KVM guest in that process, with its own frames and no more.
    Guest,
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
    /// Whose handler its interrupts call.
    pub interrupts: InterruptHandler,
    /// What keeps the driver from its surroundings.
    pub wall: Wall,
    /// What keeps the tenants from theirs, where no driver is in one.
    pub tenants: Wall,
    /// Whether somebody copies requests' data between a tenant's memory and the driver.
    pub copies: bool,
    /// Who runs so, in each of [`IommuMode::ALL`].
    pub deployed: [Standing; IommuMode::ALL.len()],
}

/// Every placement of ours, in the order of the report.
pub const ALL: [&Placement; 12] = [
    &in_kernel::PLACEMENT,
    &hypervisor::PLACEMENT,
    &hypervisor_kvm::PLACEMENT,
    &root_partition::PLACEMENT,
    &root_partition_kvm::PLACEMENT,
    &user_process::PLACEMENT,
    &microkernel::PLACEMENT,
    &hosted::PLACEMENT,
    &safe_language::PLACEMENT,
    &driver_vm::PLACEMENT,
    &passthrough::PLACEMENT,
    &library_os::PLACEMENT,
];

impl PlacementId {
    /// Its data.
    pub fn placement(self) -> &'static Placement {
        match self {
            Self::InKernel => &in_kernel::PLACEMENT,
            Self::Hypervisor => &hypervisor::PLACEMENT,
            Self::RootPartition => &root_partition::PLACEMENT,
            Self::UserProcess => &user_process::PLACEMENT,
            Self::Microkernel => &microkernel::PLACEMENT,
            Self::Hosted => &hosted::PLACEMENT,
            Self::SafeLanguage => &safe_language::PLACEMENT,
            Self::DriverVm => &driver_vm::PLACEMENT,
            Self::Passthrough => &passthrough::PLACEMENT,
            Self::LibraryOs => &library_os::PLACEMENT,
            Self::HypervisorKvm => &hypervisor_kvm::PLACEMENT,
            Self::RootPartitionKvm => &root_partition_kvm::PLACEMENT,
            Self::Own(own) => own.placement(),
        }
    }

    /// All there are: ours, and after them the users', of which none can be added from now on.
    pub fn list() -> Vec<&'static Placement> {
        let own = Layout::table().list().into_iter().map(Own::placement);
        ALL.into_iter().chain(own).collect()
    }

    /// The one of that id.
    pub fn named(id: &str) -> Option<Self> {
        let ours = ALL.iter().find(|entry| entry.id.eq_ignore_ascii_case(id));
        ours.map(|entry| entry.placement)
            .or_else(|| Layout::table().named(id).map(Self::Own))
    }
}

impl From<PlacementId> for String {
    fn from(id: PlacementId) -> Self {
        match id {
            PlacementId::Own(own) => own.key().to_owned(),
            ours => ours.placement().id.to_owned(),
        }
    }
}

impl TryFrom<String> for PlacementId {
    type Error = Unknown;

    fn try_from(key: String) -> Result<Self, Unknown> {
        match ALL.iter().find(|entry| entry.id == key) {
            Some(ours) => Ok(ours.placement),
            None => Own::of_key(&key).map(Self::Own),
        }
    }
}

impl Placement {
    /// Index of the domain that holds the driver.
    pub fn server(&self) -> usize {
        self.domains
            .iter()
            .position(|domain| domain.role.holds_driver())
            .unwrap_or(0)
    }

    /// Whether the driver is in the privileged layer itself.
    pub fn driver_is_privileged(&self) -> bool {
        self.domains[self.server()].privileged
    }

    /// Whether a driver that panics takes the privileged layer with it.
    pub fn panic_ends_layer(&self) -> bool {
        self.driver_is_privileged() && !matches!(self.restart, Restart::InPlace(_))
    }

    /// Whether somebody is in a KVM guest, which not every host has.
    pub fn needs_kvm(&self) -> bool {
        self.wall == Wall::Guest || self.tenants == Wall::Guest
    }

    /// Whether a tenant is in a guest, with the driver or without.
    pub fn has_tenant_in_guest(&self) -> bool {
        self.housing().is_some() || self.tenants == Wall::Guest
    }

    /// The domain at that index, if it is a tenant's and the tenant is in a guest of its own.
    pub fn machine_of_tenant(&self, index: usize) -> Option<&Domain> {
        let domain = self.domains.get(index)?;
        let tenant = matches!(domain.role, Role::Tenant(_));
        (tenant && self.tenants == Wall::Guest).then_some(domain)
    }

    /// Whether the driver reaches that owner's own frames, rings aside: whether a wild store lands
    /// there.
    pub fn driver_maps(&self, owner: Owner) -> bool {
        let reached = |run: &Run| run.owner == owner && run.purpose == Use::Pattern;
        match self.wall {
            Wall::Guest => self.guest_runs().any(reached),
            Wall::Process => self.domains[self.server()].runs().any(reached),
        }
    }

    /// The runs of the frame map that the driver's guest is given, where it is in one: the driver's own
    /// memory, and that of the tenant it is in.
    pub fn guest_runs(&self) -> impl Iterator<Item = &'static Run> {
        let housing = self.housing();
        self.domains[self.server()].runs().filter(move |run| {
            let of_driver = matches!(run.purpose, Use::Pattern | Use::DmaPool);
            match run.owner {
                Owner::Driver => of_driver,
                Owner::Tenant1 => housing == Some(1),
                Owner::Tenant2 => housing == Some(2),
                Owner::Hypervisor | Owner::Kernel | Owner::Free | Owner::Newcomer => false,
            }
        })
    }

    /// The tenant that the driver is in, if it is in one: nobody else has a way to it.
    pub fn housing(&self) -> Option<u8> {
        match self.domains[self.server()].role {
            Role::Houses(tenant) => Some(tenant),
            _ => None,
        }
    }

    /// Whether that tenant has a way to the driver.
    pub fn reaches(&self, tenant: u8) -> bool {
        self.housing().is_none_or(|housing| housing == tenant)
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

    /// The tenants, and the index of each one's domain.
    pub fn tenants(&self) -> impl Iterator<Item = (u8, usize)> + '_ {
        let domains = self.domains.iter().enumerate();
        domains.filter_map(|(index, domain)| Some((domain.role.tenant()?, index)))
    }

    /// Index of the domain at the other end of a tenant's ring: the server, or who stands before it.
    pub fn attendant(&self, tenant: u8) -> usize {
        self.domains
            .iter()
            .position(|domain| domain.role.stands_before(tenant))
            .unwrap_or_else(|| self.server())
    }

    /// Domains a request of tenant 1 runs through, unless the driver is in it: two, or three where somebody
    /// stands between.
    pub fn parties(&self) -> usize {
        2 + usize::from(self.attendant(1) != self.server())
    }

    /// Whether tenants lend the driver's domain the pages their data are in: nobody stands between.
    pub fn lends_pages(&self) -> bool {
        self.housing().is_none()
            && self
                .served_rings()
                .all(|(ring, _)| matches!(ring, RingAt::Tenant(_)))
    }

    /// The rings the server serves, and the index of the domain at the other end of each.
    pub fn served_rings(&self) -> impl Iterator<Item = (RingAt, usize)> + '_ {
        let served = self.tenants().filter(|(tenant, _)| self.reaches(*tenant));
        served.map(|(tenant, index)| {
            let attendant = self.attendant(tenant);
            if attendant == self.server() {
                (RingAt::Tenant(tenant), index)
            } else {
                (RingAt::Messages(tenant), attendant)
            }
        })
    }

    /// Whether two domains share a ring, and so have business with each other.
    pub fn are_peers(&self, one: usize, other: usize) -> bool {
        let serves = |index| index == self.server();
        let across = |a: usize, b: usize| match self.domains.get(b).map(|domain| domain.role) {
            Some(Role::Tenant(tenant)) => self.reaches(tenant) && a == self.attendant(tenant),
            Some(Role::Carries | Role::Emulates(_)) => serves(a),
            Some(Role::Serves | Role::Idles | Role::Houses(_)) | None => false,
        };
        across(one, other) || across(other, one)
    }

    /// Index of a tenant's domain.
    pub fn tenant(&self, tenant: u8) -> Option<usize> {
        self.domains
            .iter()
            .position(|domain| domain.role.tenant() == Some(tenant))
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

/// A privileged layer that has no driver and stays out of the way.
const HYPERVISOR: Domain = Domain {
    name: "hypervisor",
    role: Role::Idles,
    privileged: true,
    cpu: 1,
    grants: &[Grant::All],
};
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
            let roles = || placement.domains.iter().map(|domain| domain.role);
            let holders = roles().filter(|role| role.holds_driver());
            assert_eq!(holders.count(), 1, "{}", placement.id);
            for tenant in [1, 2] {
                let count = roles().filter(|role| role.tenant() == Some(tenant));
                assert_eq!(count.count(), 1, "{}", placement.id);
            }
            assert!(placement.domains[0].privileged, "{}", placement.id);
            assert_eq!(placement.domains.iter().filter(|d| d.privileged).count(), 1);
            assert_eq!(placement.placement.placement().id, placement.id);
        }
    }

    fn maps(domain: &Domain, owner: Owner, purpose: Use) -> bool {
        let bytes = run_of(owner, purpose).expect("in the map").bytes();
        domain.may_touch(bytes.start, bytes.end - bytes.start)
    }

    const fn whereabouts(ring: RingAt) -> (Owner, Use) {
        match ring {
            RingAt::Tenant(1) => (Owner::Tenant1, Use::Ring),
            RingAt::Tenant(_) => (Owner::Tenant2, Use::Ring),
            RingAt::Messages(tenant) => (Owner::Driver, Use::Messages(tenant)),
        }
    }

    #[test]
    fn both_ends_of_every_ring_map_it() {
        for placement in ALL {
            let server = &placement.domains[placement.server()];
            assert!(maps(server, Owner::Driver, Use::DmaPool));
            let served = [1, 2].map(|tenant| usize::from(placement.reaches(tenant)));
            assert_eq!(placement.served_rings().count(), served[0] + served[1]);
            for (ring, other) in placement.served_rings() {
                let (owner, purpose) = whereabouts(ring);
                assert!(maps(server, owner, purpose), "{}", placement.id);
                let other = &placement.domains[other];
                assert!(maps(other, owner, purpose), "{}", placement.id);
            }
            for (tenant, index) in placement.tenants() {
                let (owner, purpose) = whereabouts(RingAt::Tenant(tenant));
                if !placement.reaches(tenant) {
                    continue;
                }
                let attendant = &placement.domains[placement.attendant(tenant)];
                assert!(maps(attendant, owner, purpose), "{}", placement.id);
                assert!(maps(&placement.domains[index], owner, purpose));
            }
        }
    }

    #[test]
    fn domains_have_business_only_across_a_ring() {
        for placement in ALL {
            let [one, two] = [1, 2].map(|tenant| placement.tenant(tenant).expect("tenant"));
            assert!(!placement.are_peers(one, two), "{}", placement.id);
            for (tenant, index) in placement.tenants() {
                let attendant = placement.attendant(tenant);
                if placement.housing().is_some() {
                    // Its own it needs not ring for, and the other's it may not.
                    assert!(!placement.are_peers(index, attendant), "{}", placement.id);
                    continue;
                }
                assert!(placement.are_peers(index, attendant), "{}", placement.id);
                assert_eq!(
                    placement.are_peers(index, placement.server()),
                    attendant == placement.server(),
                    "{}",
                    placement.id
                );
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
    fn driver_server_of_a_microkernel_maps_no_frame_of_a_tenant() {
        let server = &microkernel::PLACEMENT.domains[microkernel::PLACEMENT.server()];
        assert!(server.runs().all(|run| run.owner == Owner::Driver));
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
