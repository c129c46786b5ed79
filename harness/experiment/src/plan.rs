//! The plan: which trials there are.
//!
//! It crosses only the axes that can matter to a fault, as the catalogue says. The full plan is
//! enumerated first and filtered afterwards, so a trial has the same index and the same seed in any
//! subset. The seed depends on the driver and the trial's number alone, so everything a report
//! compares is paired: placements, IOMMU modes and fabrics see the same workload, and a faulty
//! trial differs from its clean pair in the fault and nothing else.

use crate::campaign;
use crate::catalogue::{
    DRIVERS, FABRICS, FAULTS, Fault, IN_TENANT, IOMMU_MODES, OF_INTERRUPTS, PLACEMENTS, cases,
    corner, crossed, driver, fabric_name, iommu_name, of_tenants, placement, why_not,
};
use crate::cell::Cell;
use crate::seed::{Draw, derive, digest};
use crate::shard::Shard;
use cofferdam_machine::config::{FabricKind, IommuMode};
use cofferdam_placement::guest;
use cofferdam_placement::own::PlatformId;
use cofferdam_placement::placement::Placement;
use cofferdam_placement::trial::{ClockKind, DriverId, Fault as Strike, PlacementId, TrialSpec};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use thiserror::Error;

/// What is the same for all trials of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Settings {
    /// The clock.
    pub clock: ClockKind,
    /// Trials a cell.
    pub trials: u32,
    /// Device time at which a trial ends at the latest, ns.
    pub horizon_ns: u64,
    /// Verified requests each tenant makes.
    pub requests: u32,
    /// The run's seed.
    pub seed: u64,
    /// Faults that should act over all cells, if so many were asked for: then the run accounts for
    /// itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub injections: Option<u64>,
    /// Trials of a cell that share a boot, where its fault leaves everything as it was; at least 1.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub injections_per_boot: u32,
}

const fn one() -> u32 {
    1
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde asks with a reference"
)]
const fn is_one(count: &u32) -> bool {
    *count == 1
}

/// Trials that share a boot at most.
pub const MOST_OF_A_BOOT: u32 = 64;

impl Settings {
    /// A run that takes minutes.
    pub const QUICK: Self = Self {
        clock: ClockKind::Leap,
        trials: 3,
        horizon_ns: 1_000_000_000,
        requests: 12,
        seed: 1,
        injections: None,
        injections_per_boot: 1,
    };

    /// A run with enough trials a cell for intervals.
    pub const FULL: Self = Self {
        clock: ClockKind::Leap,
        trials: 30,
        horizon_ns: 2_000_000_000,
        requests: 12,
        seed: 1,
        injections: None,
        injections_per_boot: 1,
    };
}

impl Settings {
    /// Whether trials of that cell show anything by its clock.
    fn shows(&self, cell: &Cell) -> bool {
        self.clock == ClockKind::Wall || cell.case.fault.by_wall().is_none()
    }
}

/// A subset of the plan; an empty list means all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Filter {
    /// Placements.
    pub placements: Vec<PlacementId>,
    /// Platforms.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub platforms: Vec<PlatformId>,
    /// IOMMU modes.
    pub iommu: Vec<IommuMode>,
    /// Fabrics.
    pub fabrics: Vec<FabricKind>,
    /// Drivers.
    pub drivers: Vec<DriverId>,
    /// With interrupt remapping, or without.
    #[serde(default)]
    pub intremap: Option<bool>,
    /// With Access Control Services, or without.
    #[serde(default)]
    pub acs: Option<bool>,
    /// Faults, by id. The clean trials of what is left are always added.
    pub faults: Vec<String>,
    /// Leaves out the placements with somebody in a guest: the host has no KVM.
    #[serde(default, skip_serializing_if = "is_off")]
    pub without_kvm: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
const fn is_off(switch: &bool) -> bool {
    !*switch
}

fn allows<T: PartialEq>(list: &[T], value: &T) -> bool {
    list.is_empty() || list.contains(value)
}

impl Filter {
    fn place(&self, cell: &Cell) -> bool {
        allows(&self.placements, &cell.placement)
            && allows(&self.platforms, &cell.platform)
            && allows(&self.iommu, &cell.iommu)
            && allows(&self.fabrics, &cell.fabric)
            && allows(&self.drivers, &cell.driver)
            && self.intremap.is_none_or(|on| on == cell.case.intremap)
            && self.acs.is_none_or(|on| on == cell.case.acs)
            && !(self.without_kvm && placement(cell.placement).needs_kvm())
    }

    fn fault(&self, cell: &Cell) -> bool {
        self.faults.is_empty() || self.faults.iter().any(|id| id == cell.case.fault.id())
    }
}

/// Why there is no plan.
#[derive(Debug, Error)]
pub enum PlanError {
    /// The filters exclude each other.
    #[error("no trial matches: {0}")]
    Empty(String),
    /// So many faults cannot be asked for.
    #[error(
        "--injections {wanted} cannot be spread over {cells} cells with a fault: choose faults, and \
         at most {MOST_TRIALS} trials for each of their cells"
    )]
    Injections {
        /// What was asked for.
        wanted: u64,
        /// Cells with a fault.
        cells: u64,
    },
    /// More shards than boots a cell.
    #[error(
        "shard {shard} has no trial: a shard takes every {}th of {boots} boots a cell; make at \
         most {boots} shards, or raise --trials",
        shard.of()
    )]
    EmptyShard {
        /// The shard.
        shard: Shard,
        /// Boots a cell: trials, where each has one.
        boots: u32,
    },
    /// Not so many trials share a boot.
    #[error("--injections-per-boot {0} is none of 1 to {MOST_OF_A_BOOT}")]
    PerBoot(u32),
    /// By the wall clock every trial has a boot of its own.
    #[error(
        "--injections-per-boot {0} does not go with --clock wall: its times are those of fresh \
         boots; leave it out"
    )]
    PerBootByWall(u32),
}

/// One trial of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trial {
    /// Its place in the full plan, the same in every subset.
    pub index: u64,
    /// Its number within the cell, from 0.
    pub number: u32,
    /// The number within the cell of the boot it is to share; its own, if it shares none.
    pub boot: u32,
    /// Whether it may share a boot.
    pub shares: bool,
    /// Its cell.
    pub cell: Cell,
    /// All it takes to run it.
    pub spec: TrialSpec,
}

/// A plan: cells, and how often each is tried.
#[derive(Clone, Debug)]
pub struct Plan {
    settings: Settings,
    filter: Filter,
    shard: Option<Shard>,
    cells: Vec<(u64, Cell)>,
    full: u64,
}

/// Whether trials of that cell may share a boot.
fn shares(cell: &Cell) -> bool {
    cell.case.fault.stateless().is_some()
}

/// Every cell there is: clean ones first, then fault by fault; within a case placements come last,
/// so that peers run one after the other.
fn all_cells() -> Vec<Cell> {
    let mut cells: Vec<Cell> = FAULTS
        .iter()
        .flat_map(|fault| cells_of(fault))
        .filter(|cell| why_not(cell).is_none())
        .collect();
    let faulty = cells.iter().filter(|cell| !cell.is_clean());
    let pairs: HashSet<Cell> = faulty.map(Cell::clean).collect();
    // On the usual fabric every mode is measured without faults too.
    let usual = |cell: &Cell| cell.fabric == FabricKind::Pcie && !cell.case.is_ablation();
    cells.retain(|cell| !cell.is_clean() || usual(cell) || pairs.contains(cell));
    cells
}

/// A fault crossed with all its axes, the corners where it does not exist included.
fn cells_of(fault: &Fault) -> Vec<Cell> {
    let mut cells = Vec::new();
    let cases = cases(fault);
    for driver in DRIVERS.iter() {
        for platform in PlatformId::list() {
            for &fabric in fault.fabrics {
                for &iommu in fault.iommu {
                    for &case in &cases {
                        cells.extend(
                            PLACEMENTS
                                .iter()
                                .map(|placement| Cell {
                                    placement: placement.placement,
                                    platform,
                                    iommu,
                                    fabric,
                                    driver: driver.driver,
                                    case,
                                })
                                .filter(crossed),
                        );
                    }
                }
            }
        }
    }
    cells
}

/// Trials a cell at most, where they follow from faults that were asked for.
const MOST_TRIALS: u32 = 1_000_000;

impl Plan {
    /// The plan of that subset in which so many faults should act altogether: every cell gets as many
    /// trials, as many as that takes.
    pub fn of_injections(
        settings: Settings,
        filter: Filter,
        wanted: u64,
    ) -> Result<Self, PlanError> {
        let mut plan = Self::new(settings, filter)?;
        let faulty = plan.cells().filter(|cell| !cell.is_clean());
        let cells = faulty.count() as u64;
        let trials = campaign::trials(wanted, cells).filter(|trials| *trials <= MOST_TRIALS);
        plan.settings.trials = trials.ok_or(PlanError::Injections { wanted, cells })?;
        plan.settings.injections = Some(wanted);
        Ok(plan)
    }

    /// The plan of that subset.
    pub fn new(settings: Settings, filter: Filter) -> Result<Self, PlanError> {
        let per_boot = settings.injections_per_boot;
        if !(1..=MOST_OF_A_BOOT).contains(&per_boot) {
            return Err(PlanError::PerBoot(per_boot));
        }
        if per_boot > 1 && settings.clock == ClockKind::Wall {
            return Err(PlanError::PerBootByWall(per_boot));
        }
        let all = all_cells();
        let chosen: HashSet<Cell> = all
            .iter()
            .filter(|cell| filter.place(cell) && filter.fault(cell))
            .filter(|cell| settings.shows(cell))
            .flat_map(|cell| [*cell, cell.clean()])
            .collect();
        if chosen.is_empty() {
            return Err(PlanError::Empty(explain(&filter)));
        }
        let full = all.len() as u64;
        let cells = (0..)
            .zip(all)
            .filter(|(_, cell)| chosen.contains(cell))
            .collect();
        Ok(Self {
            settings,
            filter,
            shard: None,
            cells,
            full,
        })
    }

    /// The same plan with no more than so many faulty cells, spread evenly over it, and their clean
    /// ones. Trials keep their index and seed.
    #[must_use]
    pub fn at_most(mut self, faulty: usize) -> Self {
        let all: Vec<Cell> = self
            .cells()
            .filter(|cell| !cell.is_clean())
            .copied()
            .collect();
        let few = all.len().min(faulty);
        let chosen: HashSet<Cell> = (0..few)
            .filter_map(|nth| all.get(nth * all.len() / few))
            .flat_map(|cell| [*cell, cell.clean()])
            .collect();
        self.cells.retain(|(_, cell)| chosen.contains(cell));
        self
    }

    /// A part of it.
    pub fn shard(self, shard: Shard) -> Result<Self, PlanError> {
        let part = Self {
            shard: Some(shard),
            ..self
        };
        if part.is_empty() {
            let boots = part.settings.trials.div_ceil(part.per_boot());
            return Err(PlanError::EmptyShard { shard, boots });
        }
        Ok(part)
    }

    /// What is the same for all its trials.
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The subset it is.
    pub const fn filter(&self) -> &Filter {
        &self.filter
    }

    /// The part of the plan it is, if it is not the whole.
    pub const fn part(&self) -> Option<Shard> {
        self.shard
    }

    /// Its cells, in the order they run.
    pub fn cells(&self) -> impl Iterator<Item = &Cell> {
        self.cells.iter().map(|(_, cell)| cell)
    }

    /// How many trials it has.
    pub fn len(&self) -> u64 {
        self.cells.len() as u64 * self.numbers().count() as u64
    }

    /// Trials of a cell that may share a boot.
    const fn per_boot(&self) -> u32 {
        self.settings.injections_per_boot
    }

    /// The trials' numbers within a cell.
    fn numbers(&self) -> impl Iterator<Item = u32> {
        (0..self.settings.trials).filter(|number| self.has(*number))
    }

    /// Whether the trials of that number are among them: a shard takes whole boots.
    fn has(&self, number: u32) -> bool {
        let boot = number / self.per_boot();
        self.shard.is_none_or(|shard| shard.has(boot))
    }

    /// Whether it has no trials.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its trials: the first of every cell, then the second, so that a run cut short still has all
    /// cells. A clean trial comes before those it is paired with. Their indices ascend. Where trials
    /// share boots, those of a boot of every cell come first, then those of the next.
    pub fn trials(&self) -> impl Iterator<Item = Trial> + '_ {
        self.boots().flatten()
    }

    /// The same, those together that are to share a boot, as long as nothing comes in between.
    pub fn boots(&self) -> impl Iterator<Item = Vec<Trial>> + '_ {
        let per_boot = self.per_boot();
        let first = self.numbers().filter(move |n| n.is_multiple_of(per_boot));
        first.flat_map(move |first| {
            let to = first.saturating_add(per_boot).min(self.settings.trials);
            self.cells.iter().flat_map(move |&(position, cell)| {
                let trials = (first..to).map(move |number| self.at(number, position, cell));
                if shares(&cell) {
                    vec![trials.collect()]
                } else {
                    trials.map(|trial| vec![trial]).collect::<Vec<_>>()
                }
            })
        })
    }

    fn at(&self, number: u32, position: u64, cell: Cell) -> Trial {
        let per_boot = self.per_boot();
        let boot = u64::from(number / per_boot) * self.full + position;
        Trial {
            index: boot * u64::from(per_boot) + u64::from(number % per_boot),
            number,
            boot: number / per_boot,
            shares: per_boot > 1 && shares(&cell),
            cell,
            spec: self.spec(&cell, number),
        }
    }

    /// The trial with that index, if it is one of this plan.
    pub fn trial(&self, index: u64) -> Option<Trial> {
        let (number, at) = self.find(index)?;
        let (position, cell) = *self.cells.get(at)?;
        Some(self.at(number, position, cell))
    }

    /// Where in [`Plan::trials`] the trial with that index comes, from 0, if it is one of this plan.
    pub fn place(&self, index: u64) -> Option<u64> {
        let (number, at) = self.find(index)?;
        let per_boot = self.per_boot();
        let boot = number / per_boot;
        let before = boot / self.shard.map_or(1, Shard::of) * per_boot;
        let first = boot * per_boot;
        let together = per_boot.min(self.settings.trials - first);
        let within = at as u64 * u64::from(together) + u64::from(number - first);
        Some(u64::from(before) * self.cells.len() as u64 + within)
    }

    /// The number of the trial with that index, and which of the cells is its.
    fn find(&self, index: u64) -> Option<(u32, usize)> {
        let per_boot = u64::from(self.per_boot());
        let (boot, within) = (index.checked_div(per_boot)?, index % per_boot);
        let number = boot.checked_div(self.full)?.checked_mul(per_boot)?;
        let number = u32::try_from(number.checked_add(within)?).ok()?;
        let position = boot % self.full;
        let here = number < self.settings.trials && self.has(number);
        let at = self.cells.binary_search_by_key(&position, |cell| cell.0);
        at.ok().filter(|_| here).map(|at| (number, at))
    }

    /// A digest of the whole plan, by which its shards know each other, and by which a run is not
    /// continued with another catalogue: how often each cell is tried, and how the first time.
    pub fn digest(&self) -> String {
        let first = self.cells.iter().map(|&(position, cell)| {
            let trial = self.at(0, position, cell);
            serde_json::to_vec(&(trial.index, &trial.spec)).unwrap_or_default()
        });
        let mut head = format!("{} {}", self.settings.trials, self.full);
        if self.per_boot() > 1 {
            head.push_str(&format!(" {}", self.per_boot()));
        }
        let head = head.into_bytes();
        let parts: Vec<Vec<u8>> = std::iter::once(head).chain(first).collect();
        format!("{:016x}", digest(parts.iter().map(Vec::as_slice)))
    }

    fn spec(&self, cell: &Cell, number: u32) -> TrialSpec {
        let settings = &self.settings;
        let seed = derive(settings.seed, &[driver(cell.driver).id], number);
        let fault = cell.case.strike(&mut Draw::new(!seed), settings.requests);
        TrialSpec {
            placement: cell.placement,
            platform: cell.platform,
            driver: cell.driver,
            iommu: cell.iommu,
            fabric: cell.fabric,
            timeout_ends: cell.case.timeout_ends,
            oops: cell.case.oops,
            intremap: cell.case.intremap,
            acs: cell.case.acs,
            data: cell.case.data,
            packing: cell.case.packing,
            fault,
            clock: settings.clock,
            horizon_ns: settings.horizon_ns,
            requests: settings.requests,
            seed,
            // What strikes in the driver's start cannot come after it.
            warm: self.per_boot() > 1 && !matches!(fault, Strike::C3 { .. }),
        }
    }
}

/// Says where the chosen faults do run.
fn explain(filter: &Filter) -> String {
    let places: Vec<String> = FAULTS
        .iter()
        .filter(|fault| allows(&filter.faults, &fault.id.to_owned()))
        .map(|fault| {
            let modes: Vec<_> = IOMMU_MODES
                .iter()
                .filter(|mode| fault.iommu.contains(&mode.value))
                .map(|mode| mode.id)
                .collect();
            let fabrics: Vec<_> = FABRICS
                .iter()
                .filter(|fabric| fault.fabrics.contains(&fabric.value))
                .map(|fabric| fabric.id)
                .collect();
            let not: Vec<_> = fault
                .except
                .iter()
                .filter_map(|except| except.driver)
                .map(|id| format!(", not with --driver {}", driver(id).id))
                .collect();
            let wall = cases(fault)
                .iter()
                .any(|case| case.fault.by_wall().is_some());
            format!(
                "{} runs with {}--iommu {} and --fabric {}{}",
                fault.id,
                if wall { "--clock wall, " } else { "" },
                modes.join("|"),
                fabrics.join("|"),
                not.concat()
            )
        })
        .collect();
    let guests = PLACEMENTS.iter().filter(|placement| placement.needs_kvm());
    let guests: Vec<_> = guests.map(|placement| placement.id).collect();
    let guests = format!(
        "{} with --iommu off|strict, --fabric pcie and the drivers that can be in a guest only",
        guests.join("|")
    );
    format!("{}; {guests}; drop or change a filter", places.join("; "))
}

/// A corner of the plan where a fault does not exist, for the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NotApplicable {
    /// The case.
    pub case: String,
    /// Where: a driver, a fabric or a placement.
    pub place: String,
    /// Why.
    pub reason: String,
}

/// The drivers that are not among those in a guest, and the placements that want them there, or are
/// tried thinly.
fn outside(filter: &Filter) -> impl Iterator<Item = NotApplicable> + '_ {
    let guests = PLACEMENTS.iter().filter(|placement| {
        placement.needs_kvm()
            && !filter.without_kvm
            && allows(&filter.placements, &placement.placement)
    });
    guests.flat_map(move |placement| {
        if placement.has_tenant_in_guest() {
            return in_tenant(placement);
        }
        let drivers = DRIVERS.iter().filter(|entry| {
            guest::in_payload(entry.driver).is_none() && allows(&filter.drivers, &entry.driver)
        });
        let absent = drivers.map(|entry| NotApplicable {
            case: format!("every fault in {}", placement.id),
            place: entry.id.to_owned(),
            reason:
                "the program in the guest has drivers of its own build: edu, virtio-blk and nvme"
                    .to_owned(),
        });
        let polls = allows(&filter.drivers, &DriverId::VirtioBlk).then(|| NotApplicable {
            case: format!("{} in {}", OF_INTERRUPTS.join(", "), placement.id),
            place: driver(DriverId::VirtioBlk).id.to_owned(),
            reason: "by its own PCI transport virtio-drivers polls, and asks for no interrupts"
                .to_owned(),
        });
        absent.chain(polls).collect::<Vec<_>>()
    })
}

/// What is not tried where a tenant is in a guest, with its driver or without.
fn in_tenant(placement: &Placement) -> Vec<NotApplicable> {
    let case = |case: String, place: &str, reason: &str| NotApplicable {
        case,
        place: place.to_owned(),
        reason: reason.to_owned(),
    };
    let [driver_alike, fault_alike] = match placement.housing() {
        Some(_) => [
            "thinly tried: what a driver does there differs by who is in its guest, not by the driver",
            "thinly tried: they differ from driver-vm in nothing, or need a restart, or two tenants \
             with requests",
        ],
        None => [
            "thinly tried: the driver is where it is beside tenants that are processes",
            "thinly tried: a tenant in a guest asks what it asks as a process, and its exits are all \
             that differs",
        ],
    };
    vec![
        case(
            format!("every fault in {}", placement.id),
            &format!("every driver but {}", driver(IN_TENANT).id),
            driver_alike,
        ),
        case(
            format!(
                "all but {} in {}",
                of_tenants(placement).join(", "),
                placement.id
            ),
            "every driver",
            fault_alike,
        ),
    ]
}

impl Plan {
    /// Why cells of this plan do not exist, and how many for each reason.
    pub fn left_out(&self) -> BTreeMap<&'static str, u64> {
        let mut counts = BTreeMap::new();
        let cells = FAULTS.iter().flat_map(|fault| cells_of(fault));
        for cell in cells.filter(|cell| self.filter.place(cell) && self.filter.fault(cell)) {
            if let Some(reason) = why_not(&cell) {
                *counts.entry(reason).or_default() += 1;
            }
        }
        counts
    }

    /// The corners of this plan where a fault does not exist.
    pub fn not_applicable(&self) -> Vec<NotApplicable> {
        let mut found: Vec<NotApplicable> = outside(&self.filter).collect();
        for &fault in FAULTS.iter() {
            for cell in cells_of(fault) {
                if !(self.filter.place(&cell) && self.filter.fault(&cell)) {
                    continue;
                }
                let Some(except) = corner(fault, &cell) else {
                    if let Some(why) = cell.case.fault.by_wall()
                        && !self.settings.shows(&cell)
                    {
                        let entry = NotApplicable {
                            case: cell.case.name(),
                            place: "the leap clock".to_owned(),
                            reason: why.to_owned(),
                        };
                        if !found.contains(&entry) {
                            found.push(entry);
                        }
                    }
                    continue;
                };
                let place = match except {
                    _ if except.driver.is_some() => driver(cell.driver).id,
                    _ if matches!(cell.driver, DriverId::Own(_)) => driver(cell.driver).id,
                    _ if except.fabric.is_some() => fabric_name(cell.fabric),
                    _ if except.iommu.is_some() => iommu_name(cell.iommu),
                    _ => placement(cell.placement).id,
                };
                let entry = NotApplicable {
                    case: cell.case.name(),
                    place: place.to_owned(),
                    reason: except.reason.to_owned(),
                };
                if !found.contains(&entry) {
                    found.push(entry);
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn plan(filter: Filter) -> Plan {
        Plan::new(Settings::QUICK, filter).expect("the filter leaves trials")
    }

    fn in_guest(cell: &Cell) -> bool {
        placement(cell.placement).needs_kvm()
    }

    /// Placements whose driver is in a process.
    fn processes() -> usize {
        let all = PLACEMENTS.iter();
        all.filter(|placement| !placement.needs_kvm()).count()
    }

    fn count_of(plan: &Plan, fault: &str) -> usize {
        let cells = plan.cells().filter(|cell| !in_guest(cell));
        cells.filter(|cell| cell.case.fault.id() == fault).count()
    }

    #[test]
    fn full_plan_crosses_only_what_can_matter() {
        let plan = plan(Filter::default());

        let (places, drivers, modes) = (processes(), DRIVERS.len(), IOMMU_MODES.len());
        let panicking = PLACEMENTS
            .iter()
            .filter(|placement| placement.panic_ends_layer() && !placement.needs_kvm())
            .count();
        let unbounced = modes - 1;
        // One driver has nobody beside its buffers.
        assert_eq!(
            count_of(&plan, "D1"),
            places * unbounced * (drivers * 2 * 8 - 1)
        );
        assert_eq!(count_of(&plan, "D8"), places * unbounced * drivers);
        // Reuse of an address needs addresses, and modes that translate them.
        assert_eq!(count_of(&plan, "D7"), places * drivers * 3);
        // Without an IOMMU nothing is remapped.
        assert_eq!(count_of(&plan, "I4"), places * drivers * (2 * modes - 1));
        assert_eq!(count_of(&plan, "I1"), places * drivers * 4);
        assert_eq!(count_of(&plan, "I2"), places * drivers * 2);
        assert_eq!(count_of(&plan, "I3"), places * drivers);
        assert_eq!(count_of(&plan, "I5"), places * drivers * 2);
        assert_eq!(count_of(&plan, "C2"), places * drivers * 3);
        // Only virtio-blk's driver walks capabilities, and edu has no MSI-X.
        assert_eq!(count_of(&plan, "C3"), places * 3);
        assert_eq!(count_of(&plan, "C4"), places * (drivers - 1) * 2 * 5);
        assert_eq!(count_of(&plan, "M1"), places * drivers * 6);
        assert_eq!(count_of(&plan, "R1"), places * (drivers - 1) * 2);
        assert_eq!(count_of(&plan, "X1"), (places + panicking) * drivers);
        assert_eq!(count_of(&plan, "X2"), places * drivers * 3);
        assert_eq!(count_of(&plan, "B1"), places * drivers * 5);
        assert_eq!(count_of(&plan, "B2"), places * drivers * 4);
        assert_eq!(count_of(&plan, "B5"), places * drivers * 3);
        assert_eq!(count_of(&plan, "B6"), places * drivers * 4);
        assert_eq!(count_of(&plan, "D9"), places * drivers * 2 * 4);
    }

    #[test]
    fn guests_are_tried_where_they_can_differ_from_a_process() {
        let plan = plan(Filter::default());
        let cells: Vec<&Cell> = plan.cells().filter(|cell| in_guest(cell)).collect();
        for cell in &cells {
            assert!(guest::in_payload(cell.driver).is_some(), "{}", cell.id());
            assert_eq!(cell.fabric, FabricKind::Pcie, "{}", cell.id());
        }
        for fault in ["D1", "M1", "X1", "X2", "B1", "I1", "R1"] {
            assert!(
                cells.iter().any(|cell| cell.case.fault.id() == fault),
                "{fault}"
            );
        }
        let excluded = plan.not_applicable();
        assert!(
            cells
                .iter()
                .any(|cell| cell.placement == PlacementId::Passthrough),
            "thinly, but tried"
        );
        let of = |entry: &&NotApplicable| entry.case == "every fault in driver-vm";
        let places: Vec<_> = excluded
            .iter()
            .filter(of)
            .map(|entry| &entry.place[..])
            .collect();
        assert_eq!(places, ["nvme-crate"]);
    }

    #[test]
    fn what_shows_by_the_wall_clock_only_is_in_no_other_plan() {
        let wall = Settings {
            clock: ClockKind::Wall,
            ..Settings::QUICK
        };
        let storms = |plan: &Plan| count_of(plan, "B8");
        let leap = plan(Filter::default());
        assert_eq!(storms(&leap), 0);
        let excluded = leap.not_applicable();
        let why = excluded
            .iter()
            .find(|entry| entry.place == "the leap clock");
        assert!(why.is_some_and(|why| why.reason.contains("--clock wall")));
        let by_wall = Plan::new(wall, Filter::default()).expect("the full plan");
        assert_eq!(storms(&by_wall), 2 * processes() * DRIVERS.len());
        // The others keep their places.
        let shared = |trial: &Trial| trial.cell.case.fault.id() != "B8";
        let indices = |plan: &Plan| -> Vec<u64> {
            let shared = plan.trials().filter(shared);
            shared.map(|trial| trial.index).collect()
        };
        assert_eq!(indices(&leap), indices(&by_wall));
        let only = Filter {
            faults: vec!["B8".into()],
            ..Filter::default()
        };
        let error = Plan::new(Settings::QUICK, only).expect_err("not by this clock");
        assert!(error.to_string().contains("--clock wall"), "{error}");
    }

    #[test]
    fn host_without_kvm_leaves_guests_out_and_all_else_alone() {
        let all = plan(Filter::default());
        let without = plan(Filter {
            without_kvm: true,
            ..Filter::default()
        });
        let left: Vec<Trial> = all
            .trials()
            .filter(|trial| !in_guest(&trial.cell))
            .collect();
        assert!(without.trials().eq(left));
        assert!(without.len() < all.len());
        let only = Filter {
            without_kvm: true,
            placements: vec![PlacementId::DriverVm],
            ..Filter::default()
        };
        assert!(Plan::new(Settings::QUICK, only).is_err());
    }

    #[test]
    fn cell_ids_are_unique() {
        let plan = plan(Filter::default());
        let ids: HashSet<String> = plan.cells().map(Cell::id).collect();
        assert_eq!(ids.len(), plan.cells().count());
    }

    #[test]
    fn trial_keeps_index_and_seed_in_any_subset() {
        // Arrange
        let full: HashMap<u64, Trial> = plan(Filter::default())
            .trials()
            .map(|trial| (trial.index, trial))
            .collect();
        let subset = plan(Filter {
            placements: vec![PlacementId::UserProcess],
            faults: vec!["D1".into(), "X1".into()],
            ..Filter::default()
        });

        // Act and assert
        assert!(subset.len() < full.len() as u64);
        for trial in subset.trials() {
            assert_eq!(full.get(&trial.index), Some(&trial));
        }
    }

    #[test]
    fn more_trials_leave_the_first_ones_alone() {
        let few = plan(Filter::default());
        let many = Plan::new(
            Settings {
                trials: 5,
                ..Settings::QUICK
            },
            Filter::default(),
        )
        .expect("the filter leaves trials");
        assert!(
            few.trials()
                .eq(many.trials().take(usize::try_from(few.len()).unwrap()))
        );
    }

    #[test]
    fn everything_compared_runs_with_the_same_seed() {
        let mut seeds: HashMap<(DriverId, u32), u64> = HashMap::new();
        for trial in plan(Filter::default()).trials() {
            let key = (trial.cell.driver, trial.number);
            let seed = *seeds.entry(key).or_insert(trial.spec.seed);
            assert_eq!(seed, trial.spec.seed);
        }
        let distinct: HashSet<u64> = seeds.values().copied().collect();
        assert_eq!(distinct.len(), seeds.len());
    }

    #[test]
    fn clean_trials_come_with_every_fault_and_before_it() {
        let plan = plan(Filter {
            faults: vec!["B1".into()],
            drivers: vec![DriverId::Edu],
            ..Filter::default()
        });
        let mut clean = HashSet::new();
        for trial in plan.trials() {
            if trial.cell.is_clean() {
                clean.insert((trial.cell, trial.number));
            } else {
                assert!(clean.contains(&(trial.cell.clean(), trial.number)));
            }
        }
        // Every placement on every fabric, strict only.
        assert_eq!(count_of(&plan, "none"), FABRICS.len() * processes());
    }

    #[test]
    fn few_cells_are_spread_over_the_plan_and_keep_their_clean_ones() {
        // Arrange
        let full: HashMap<u64, Trial> = plan(Filter::default())
            .trials()
            .map(|trial| (trial.index, trial))
            .collect();

        // Act
        let few = plan(Filter::default()).at_most(10);

        // Assert
        let faulty: Vec<&Cell> = few.cells().filter(|cell| !cell.is_clean()).collect();
        assert_eq!(faulty.len(), 10);
        let faults: HashSet<&str> = faulty.iter().map(|cell| cell.case.fault.id()).collect();
        assert!(faults.len() > 2, "{faults:?}");
        for cell in faulty {
            assert!(few.cells().any(|clean| *clean == cell.clean()));
        }
        for trial in few.trials() {
            assert_eq!(full.get(&trial.index), Some(&trial));
        }
        assert!(plan(Filter::default()).at_most(0).is_empty());
        let clean = plan(Filter {
            faults: vec!["none".into()],
            ..Filter::default()
        });
        assert!(clean.at_most(10).is_empty());
        let whole = plan(Filter::default());
        assert_eq!(whole.clone().at_most(10_000).len(), whole.len());
    }

    #[test]
    fn cell_of_a_spec_is_the_cell_it_was_made_from() {
        for trial in plan(Filter::default()).trials() {
            assert_eq!(Cell::of(&trial.spec), trial.cell);
        }
    }

    #[test]
    fn shards_are_disjoint_and_together_the_plan() {
        // Arrange
        let settings = Settings {
            trials: 7,
            ..Settings::QUICK
        };
        let whole = Plan::new(settings, Filter::default()).expect("the filter leaves trials");

        // Act
        let mut together: Vec<Trial> = Shard::all(3)
            .flat_map(|shard| {
                let part = whole.clone().shard(shard).expect("seven trials for three");
                assert_eq!(part.len(), part.trials().count() as u64);
                assert_eq!(part.digest(), whole.digest());
                part.trials().collect::<Vec<_>>()
            })
            .collect();
        together.sort_by_key(|trial| trial.index);

        // Assert
        assert!(whole.trials().eq(together));
    }

    #[test]
    fn shard_without_a_trial_is_refused() {
        let shard = "4/4".parse().expect("a shard");
        let error = plan(Filter::default())
            .shard(shard)
            .expect_err("three trials a cell");
        assert!(error.to_string().contains("at most 3 shards"), "{error}");
    }

    #[test]
    fn trial_is_found_by_its_index_where_the_plan_has_it() {
        let filter = Filter {
            faults: vec!["X1".into()],
            ..Filter::default()
        };
        let part = plan(filter)
            .shard("2/3".parse().expect("a shard"))
            .expect("one trial a cell");
        let all = plan(Filter::default());

        for (place, trial) in (0..).zip(part.trials()) {
            assert_eq!(part.place(trial.index), Some(place));
            assert_eq!(part.trial(trial.index), Some(trial));
        }
        let found = all
            .trials()
            .filter(|trial| part.trial(trial.index).is_some());
        assert_eq!(found.count() as u64, part.len());
        assert_eq!(part.trial(u64::MAX), None);
    }

    #[test]
    fn filters_that_exclude_each_other_are_explained() {
        let error = Plan::new(
            Settings::QUICK,
            Filter {
                faults: vec!["M1".into()],
                iommu: vec![IommuMode::Off],
                ..Filter::default()
            },
        )
        .expect_err("M1 is crossed with strict only");
        assert!(error.to_string().contains("M1 runs with --iommu strict"));
    }

    #[test]
    fn corners_without_the_fault_are_listed_once() {
        let corners = plan(Filter::default()).not_applicable();
        let of = |case: &str| corners.iter().filter(|entry| entry.case == case).count();
        assert_eq!(of("R1.index-64"), 1);
        assert_eq!(of("B1.machine-check"), 3);
        let spared = PLACEMENTS
            .iter()
            .filter(|placement| !placement.panic_ends_layer());
        assert_eq!(of("X1.kill-task"), spared.count());
        assert_eq!(of("I4.remapped"), 1);
    }
}
