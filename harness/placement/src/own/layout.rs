//! Placements of users: who the domains are, what each maps, which CPU it has, who comes back.
//!
//! What the harness and the predictions rely on is checked here, so that nothing they say of a
//! placement depends on whose it is.

use super::file::{duration, kept};
use super::{Known, Own, OwnError, Source, Table};
use crate::placement::{ALL, Domain, Grant, Placement, Restart, RingAt, Role, Standing, Wall};
use crate::trial::PlacementId;
use cofferdam_machine::config::{InterruptHandler, IommuMode};
use cofferdam_machine::frames::{Owner, Use, run_of};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use toml::Spanned;

/// Domains at most: each is a process, and has its words among the events.
const DOMAINS: usize = 8;

/// A placement from a file.
pub struct Layout {
    key: String,
    id: &'static str,
    line: &'static str,
    stands_for: &'static str,
    crossing: &'static str,
    domains: &'static [Domain],
    restart: Restart,
    interrupts: InterruptHandler,
    deployed: [Standing; IommuMode::ALL.len()],
}

static TABLE: Table<Layout> = Table::new();
/// As placements, those that were asked for.
static MADE: Mutex<Vec<&'static Placement>> = Mutex::new(Vec::new());

impl Known for Layout {
    const NOUN: &'static str = "placement";
    const REMEDY: &'static str = "give its file by --placement-file";
    const IS_DATA: bool = true;

    fn key(&self) -> &str {
        &self.key
    }

    fn id(&self) -> &str {
        self.id
    }

    fn table() -> &'static Table<Self> {
        &TABLE
    }
}

impl Own<Layout> {
    /// Its data.
    pub fn placement(self) -> &'static Placement {
        let id = PlacementId::Own(self);
        let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(placement) = made.iter().find(|made| made.placement == id) {
            return placement;
        }
        let placement: &'static Placement = Box::leak(Box::new(self.get().as_placement(id)));
        made.push(placement);
        placement
    }

    /// Its name in records.
    pub fn key(self) -> &'static str {
        &self.get().key
    }
}

/// A value in a file.
type Text = Spanned<String>;

/// The values of a file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Values {
    id: Text,
    line: Text,
    stands_for: Text,
    crossing: Text,
    restart: Option<Text>,
    interrupts: Option<Text>,
    domain: Vec<Spanned<DomainValues>>,
    #[serde(default)]
    deployed: BTreeMap<Text, Text>,
    #[serde(default)]
    synthetic: BTreeMap<Text, Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DomainValues {
    name: Text,
    role: Text,
    #[serde(default)]
    privileged: bool,
    cpu: Spanned<i64>,
    grants: Vec<Text>,
}

const ROLES: &str = "serves, idles, carries, emulates1, emulates2, tenant1 or tenant2";
const OWNERS: &str = "hypervisor, kernel, driver, tenant1, tenant2 or free";

fn role(name: &str) -> Option<Role> {
    Some(match name {
        "serves" => Role::Serves,
        "idles" => Role::Idles,
        "carries" => Role::Carries,
        "emulates1" => Role::Emulates(1),
        "emulates2" => Role::Emulates(2),
        "tenant1" => Role::Tenant(1),
        "tenant2" => Role::Tenant(2),
        _ => return None,
    })
}

fn grant(name: &str) -> Option<Grant> {
    let owner = |name: &str| Owner::ALL.into_iter().find(|owner| owner.name() == name);
    let tenant = |name: &str| owner(name).filter(|owner| number(*owner).is_some());
    match name.split_once(':') {
        None if name == "all" => Some(Grant::All),
        None if name == "events" => Some(Grant::Events),
        Some(("own", of)) => owner(of).map(Grant::Own),
        Some(("ring", of)) => tenant(of).map(Grant::Ring),
        Some(("messages", of)) => tenant(of).and_then(number).map(Grant::Messages),
        _ => None,
    }
}

/// The number of a tenant.
const fn number(owner: Owner) -> Option<u8> {
    match owner {
        Owner::Tenant1 => Some(1),
        Owner::Tenant2 => Some(2),
        _ => None,
    }
}

impl DomainValues {
    fn domain(&self, source: &Source) -> Result<Domain, OwnError> {
        let name = source.words("name", &self.name)?;
        if !super::is_id(name) || name == "supervisor" {
            let what = format!("no domain can be called \"{name}\"");
            let remedy = "write small letters, digits and hyphens, and leave supervisor to ours";
            return Err(source.wrong(&self.name, what, remedy));
        }
        let role = role(self.role.get_ref()).ok_or_else(|| {
            let what = format!("\"{}\" is no role", self.role.get_ref());
            source.wrong(&self.role, what, format!("write {ROLES}"))
        })?;
        let cpu = match self.cpu.get_ref() {
            0 => 0,
            1 => 1,
            other => {
                let what = format!("cpu is {other}");
                return Err(source.wrong(&self.cpu, what, "write 0 or 1: there are two"));
            }
        };
        let grants: Vec<Grant> = self
            .grants
            .iter()
            .map(|text| {
                grant(text.get_ref()).ok_or_else(|| {
                    let what = format!("\"{}\" is no grant", text.get_ref());
                    let remedy = format!(
                        "write all, events, own:OWNER, ring:TENANT or messages:TENANT, where OWNER \
                         is {OWNERS} and TENANT tenant1 or tenant2"
                    );
                    source.wrong(text, what, remedy)
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Domain {
            name,
            role,
            privileged: self.privileged,
            cpu,
            grants: Box::leak(grants.into_boxed_slice()),
        })
    }
}

impl Layout {
    pub(super) fn register(source: &Source) -> Result<String, OwnError> {
        let layout = Self::of(source)?;
        let id = layout.id.to_owned();
        TABLE.add(layout, |id| ALL.iter().any(|ours| ours.id == id))?;
        Ok(id)
    }

    fn of(source: &Source) -> Result<Self, OwnError> {
        let values: Values = source.values()?;
        let spans = &values.domain;
        if spans.len() > DOMAINS {
            let what = format!("{} domains are more than {DOMAINS}", spans.len());
            return Err(source.wrong_as_a_whole(what, "merge some"));
        }
        let domains: Vec<Domain> = spans
            .iter()
            .map(|domain| domain.get_ref().domain(source))
            .collect::<Result<_, _>>()?;
        for (index, domain) in domains.iter().enumerate() {
            let mut before = domains.iter().take(index);
            if before.any(|other| other.name == domain.name) {
                let what = format!("there are two domains called \"{}\"", domain.name);
                let name = &spans[index].get_ref().name;
                return Err(source.wrong(name, what, "rename one"));
            }
        }
        let layout = Self {
            key: format!("{}#{}", values.id.get_ref(), source.digest()),
            id: kept(values.id.get_ref()),
            line: source.words("line", &values.line)?,
            stands_for: source.words("stands_for", &values.stands_for)?,
            crossing: source.words("crossing", &values.crossing)?,
            restart: restart(source, values.restart.as_ref())?,
            interrupts: interrupts(source, values.interrupts.as_ref())?,
            deployed: deployed(source, &values)?,
            domains: Box::leak(domains.into_boxed_slice()),
        };
        layout.check(source, spans)?;
        Ok(layout)
    }

    fn as_placement(&self, placement: PlacementId) -> Placement {
        Placement {
            id: self.id,
            placement,
            line: self.line,
            stands_for: self.stands_for,
            crossing: self.crossing,
            domains: self.domains,
            restart: self.restart,
            interrupts: self.interrupts,
            wall: Wall::Process,
            tenants: Wall::Process,
            copies: true,
            deployed: self.deployed,
        }
    }

    /// What holds for every placement, ours included.
    fn check(&self, source: &Source, spans: &[Spanned<DomainValues>]) -> Result<(), OwnError> {
        for (wanted, name) in [
            (Role::Serves, "serves"),
            (Role::Tenant(1), "tenant1"),
            (Role::Tenant(2), "tenant2"),
        ] {
            let with = self.domains.iter().filter(|domain| domain.role == wanted);
            let count = with.count();
            if count != 1 {
                let what = format!("{count} domains have the role {name}");
                return Err(source.wrong_as_a_whole(what, "give it to exactly one"));
            }
        }
        self.check_layer(source, spans)?;
        // What follows asks the data of any placement, whatever its name.
        let placement = self.as_placement(PlacementId::InKernel);
        self.check_restart(source, &placement)?;
        for (index, domain) in self.domains.iter().enumerate() {
            let span = &spans[index];
            let twice = (1..=2).any(|tenant| {
                domain.role.stands_before(tenant) && placement.attendant(tenant) != index
            });
            if twice {
                let what = format!(
                    "{} is not alone between a tenant and the driver",
                    domain.name
                );
                let remedy = "let one domain carry for both tenants, or one emulate for each";
                return Err(source.wrong(&span.get_ref().role, what, remedy));
            }
            if let Some((grant, why)) = self.lacks(&placement, index) {
                let what = format!("{} does not map {why}", domain.name);
                return Err(source.wrong(span, what, format!("grant it {grant}")));
            }
            self.check_tenant(source, span, &placement, index)?;
        }
        Ok(())
    }

    fn check_layer(
        &self,
        source: &Source,
        spans: &[Spanned<DomainValues>],
    ) -> Result<(), OwnError> {
        let layers: Vec<usize> = (0..self.domains.len())
            .filter(|index| self.domains[*index].privileged)
            .collect();
        if layers == [0] {
            return Ok(());
        }
        let what = format!("{} domains are privileged", layers.len());
        let remedy = "say privileged = true of one domain and put it first: it is the layer \
                      everybody else stands on";
        Err(match layers.last() {
            Some(last) => source.wrong(&spans[*last], what, remedy),
            None => source.wrong_as_a_whole(what, remedy),
        })
    }

    fn check_restart(&self, source: &Source, placement: &Placement) -> Result<(), OwnError> {
        match (self.restart, placement.driver_is_privileged()) {
            (Restart::Never | Restart::InPlace(_), true) | (Restart::After(_), false) => Ok(()),
            (Restart::Never | Restart::InPlace(_), false) => Err(source.wrong_as_a_whole(
                "nobody starts the driver's domain again",
                "say how long that takes: restart = \"after 1ms\"",
            )),
            (Restart::After(_), true) => Err(source.wrong_as_a_whole(
                "the driver is in the privileged layer, and nothing starts that again",
                "leave restart out, or write restart = \"in-place 1ms\" for a driver behind an \
                 unwinding boundary",
            )),
        }
    }

    /// What a domain needs for its part and does not map: the grant that would do, and what.
    fn lacks(&self, placement: &Placement, index: usize) -> Option<(String, &'static str)> {
        const RING: &str = "a ring it has an end of";
        let domain = &self.domains[index];
        let ring = |at| match at {
            RingAt::Tenant(tenant) => {
                let owner = [Owner::Tenant1, Owner::Tenant2][usize::from(tenant != 1)];
                (owner, Use::Ring, format!("ring:tenant{tenant}"))
            }
            RingAt::Messages(tenant) => (
                Owner::Driver,
                Use::Messages(tenant),
                format!("messages:tenant{tenant}"),
            ),
        };
        let mut needs = Vec::new();
        if domain.role == Role::Serves {
            let why = "the driver's own memory, where its device's buffers are";
            needs.push(((Owner::Driver, Use::DmaPool, "own:driver".to_owned()), why));
        }
        if domain.role != Role::Idles {
            let why = "the event words by which domains wake each other";
            needs.push(((Owner::Driver, Use::Events, "events".to_owned()), why));
        }
        for (tenant, own) in placement.tenants() {
            let (owner, purpose, lent) = ring(RingAt::Tenant(tenant));
            if index == own {
                let grant = format!("own:tenant{tenant}");
                needs.push(((owner, purpose, grant.clone()), "its own memory"));
                needs.push(((owner, Use::Pattern, grant), "its own memory"));
            } else if index == placement.attendant(tenant) {
                needs.push(((owner, purpose, lent), RING));
            }
        }
        for (at, other) in placement.served_rings() {
            let tenant = matches!(domain.role, Role::Tenant(_));
            if index == placement.server() || (index == other && !tenant) {
                needs.push((ring(at), RING));
            }
        }
        let maps = |owner, purpose| {
            run_of(owner, purpose).is_some_and(|run| {
                let bytes = run.bytes();
                domain.may_touch(bytes.start, bytes.end - bytes.start)
            })
        };
        let unmapped = needs
            .into_iter()
            .find(|((owner, purpose, _), _)| !maps(*owner, *purpose));
        unmapped.map(|((_, _, grant), why)| (grant, why))
    }

    /// A tenant is on its CPU and reaches nobody else's memory.
    fn check_tenant(
        &self,
        source: &Source,
        span: &Spanned<DomainValues>,
        placement: &Placement,
        index: usize,
    ) -> Result<(), OwnError> {
        let domain = &self.domains[index];
        let Role::Tenant(tenant) = domain.role else {
            return Ok(());
        };
        let drivers = self.domains[placement.server()].cpu;
        if (domain.cpu == drivers) != (tenant == 1) {
            let what = format!(
                "tenant{tenant} is on CPU {} and the driver on CPU {drivers}",
                domain.cpu
            );
            let remedy = "tenant1 shares the driver's CPU and tenant2 does not, in every placement";
            return Err(source.wrong(&span.get_ref().cpu, what, remedy));
        }
        let foreign = domain
            .runs()
            .find(|run| number(run.owner) != Some(tenant) && run.purpose != Use::Events);
        match foreign {
            Some(run) => Err(source.wrong(
                span,
                format!("{} maps memory of {}", domain.name, run.owner),
                format!("grant it own:tenant{tenant} and events, and nothing else"),
            )),
            None => Ok(()),
        }
    }
}

fn restart(source: &Source, value: Option<&Text>) -> Result<Restart, OwnError> {
    let Some(text) = value else {
        return Ok(Restart::Never);
    };
    let longest = Duration::from_secs(60);
    let time = |text: &str| duration(text).filter(|time| *time <= longest);
    let known = match text.get_ref().split_once(' ') {
        None if text.get_ref() == "never" => Some(Restart::Never),
        Some(("after", rest)) => time(rest).map(Restart::After),
        Some(("in-place", rest)) => time(rest).map(Restart::InPlace),
        _ => None,
    };
    known.ok_or_else(|| {
        let what = format!("restart is \"{}\"", text.get_ref());
        let remedy = "write \"never\", \"after 1ms\" or \"in-place 1ms\", with a time up to 60s";
        source.wrong(text, what, remedy)
    })
}

fn interrupts(source: &Source, value: Option<&Text>) -> Result<InterruptHandler, OwnError> {
    match value.map(|text| (text, text.get_ref().as_str())) {
        None | Some((_, "driver")) => Ok(InterruptHandler::Driver),
        Some((_, "vfio")) => Ok(InterruptHandler::Vfio),
        Some((text, other)) => {
            let what = format!("interrupts is \"{other}\"");
            let remedy = "write \"driver\" (its own handler) or \"vfio\" (VFIO's, which masks)";
            Err(source.wrong(text, what, remedy))
        }
    }
}

/// Who runs so, mode by mode: each is in one of both tables.
fn deployed(
    source: &Source,
    values: &Values,
) -> Result<[Standing; IommuMode::ALL.len()], OwnError> {
    // In the order of IommuMode::ALL.
    const MODES: [&str; IommuMode::ALL.len()] = ["off", "passthrough", "lazy", "strict", "bounce"];
    for key in values.deployed.keys().chain(values.synthetic.keys()) {
        if !MODES.contains(&key.get_ref().as_str()) {
            let what = format!("\"{}\" is no IOMMU mode", key.get_ref());
            return Err(source.wrong(key, what, format!("write {}", MODES.join(", "))));
        }
    }
    let find = |table: &BTreeMap<Text, Text>, mode: &str| {
        let found = table.iter().find(|(key, _)| key.get_ref() == mode);
        found
            .map(|(key, text)| source.words(key.get_ref(), text))
            .transpose()
    };
    let mut standings = [Standing::Synthetic(""); IommuMode::ALL.len()];
    for (standing, mode) in standings.iter_mut().zip(MODES) {
        let both = (
            find(&values.deployed, mode)?,
            find(&values.synthetic, mode)?,
        );
        *standing = match both {
            (Some(who), None) => Standing::Deployed(who),
            (None, Some(why)) => Standing::Synthetic(why),
            (some, _) => {
                let how = if some.is_some() { "twice" } else { "nowhere" };
                return Err(source.wrong_as_a_whole(
                    format!("the IOMMU mode {mode} is {how}"),
                    "name who runs so under [deployed], or why nobody does under [synthetic]",
                ));
            }
        };
    }
    Ok(standings)
}

#[cfg(test)]
mod tests {
    use super::super::Kind;
    use super::*;

    const EXAMPLE: &str = include_str!("../../../cli/examples/placement.toml");

    fn of(text: &str) -> Result<Layout, OwnError> {
        Layout::of(&Source {
            kind: Kind::Placement,
            file: "mine.toml".into(),
            text: text.into(),
        })
    }

    #[test]
    fn example_is_a_placement() {
        let layout = of(EXAMPLE).expect("the example is whole");
        let placement = layout.as_placement(PlacementId::InKernel);
        assert!(!placement.driver_is_privileged());
        assert!(!placement.driver_maps(Owner::Kernel));
        assert_eq!(placement.restart, Restart::After(Duration::from_millis(20)));
        for mode in IommuMode::ALL {
            assert_ne!(placement.standing(mode), Standing::Synthetic(""));
        }
    }

    #[test]
    fn what_cannot_be_is_named_with_value_and_remedy() {
        for (from, to, says) in [
            (
                "name = \"vm\"",
                "name = \"tenant1\"",
                "two domains called \"tenant1\"; rename one",
            ),
            (
                "name = \"vm\"",
                "name = \"supervisor\"",
                "no domain can be called \"supervisor\"",
            ),
            (
                "role = \"serves\"",
                "role = \"idles\"",
                "0 domains have the role serves; give it to exactly one",
            ),
            (
                "role = \"serves\"",
                "role = \"server\"",
                "\"server\" is no role; write serves, idles",
            ),
            (
                "role = \"tenant2\"",
                "role = \"tenant1\"",
                "2 domains have the role tenant1",
            ),
            (
                "privileged = true\n",
                "",
                "0 domains are privileged; say privileged = true",
            ),
            (
                "role = \"serves\"",
                "privileged = true\nrole = \"serves\"",
                "2 domains are privileged",
            ),
            (
                "cpu = 0\ngrants = [\"own:tenant1",
                "cpu = 2\ngrants = [\"own:tenant1",
                "cpu is 2; write 0 or 1",
            ),
            (
                "cpu = 0\ngrants = [\"own:tenant1",
                "cpu = 1\ngrants = [\"own:tenant1",
                "tenant1 is on CPU 1 and the driver on CPU 0",
            ),
            (
                "\"own:driver\"",
                "\"own:vm\"",
                "\"own:vm\" is no grant; write all, events",
            ),
            (
                "\"own:driver\", ",
                "\"events\", ",
                "vm does not map the driver's own memory, where its device's buffers are; grant it own:driver",
            ),
            (
                "\"ring:tenant2\"",
                "\"events\"",
                "vm does not map a ring it has an end of; grant it ring:tenant2",
            ),
            (
                "\"own:tenant1\", ",
                "\"own:tenant1\", \"ring:tenant2\", ",
                "tenant1 maps memory of tenant2; grant it own:tenant1 and events",
            ),
            (
                "\"own:tenant1\", \"events\"",
                "\"own:tenant1\"",
                "tenant1 does not map the event words",
            ),
            (
                "restart = \"after 20ms\"",
                "",
                "nobody starts the driver's domain again; say how long",
            ),
            (
                "restart = \"after 20ms\"",
                "restart = \"20\"",
                "restart is \"20\"; write \"never\"",
            ),
            (
                "interrupts = \"driver\"",
                "interrupts = \"mine\"",
                "interrupts is \"mine\"; write \"driver\"",
            ),
            (
                "strict = ",
                "strickt = ",
                "\"strickt\" is no IOMMU mode; write off, passthrough",
            ),
            (
                "stands_for",
                "stand_for",
                "unknown field `stand_for`, expected one of",
            ),
        ] {
            assert!(EXAMPLE.contains(from), "{from}");
            let error = of(&EXAMPLE.replacen(from, to, 1))
                .err()
                .expect(to)
                .to_string();
            assert!(error.starts_with("mine.toml"), "{error}");
            assert!(error.contains(says), "{to}: {error}");
        }
    }

    #[test]
    fn id_of_ours_and_an_id_that_is_none_are_refused() {
        for (id, says) in [
            (
                "in-kernel",
                "there is another placement called 'in-kernel' already",
            ),
            ("Driver VM", "'Driver VM' is no id of a placement"),
        ] {
            let source = Source {
                kind: Kind::Placement,
                file: "mine.toml".into(),
                text: EXAMPLE.replacen("net-vm", id, 1),
            };
            let error = Layout::register(&source).expect_err(id).to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
