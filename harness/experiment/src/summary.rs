//! What the records of a run say together, cell by cell.

use crate::catalogue::{Standing, placement};
use crate::cell::Cell;
use crate::environment::Environment;
use crate::gates::{Disagreement, Gate, GateResult, Watch};
use crate::plan::{Filter, NotApplicable, Plan, Settings};
use crate::predict::{Label, predict};
use crate::record::Record;
use crate::shard::Shard;
use crate::statistics::{Proportion, Spread};
use crate::verdict::Outcome;
use cofferdam_machine::config::{FabricKind, IommuMode};
use cofferdam_placement::trial::{Counts, DriverId, PlacementId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};

/// Version of the summary's schema.
pub const SCHEMA: u32 = 1;

/// How far a run came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Every trial of the plan was run or has failed for good.
    Complete,
    /// Somebody stopped it: what is there is true, but not all.
    Interrupted,
    /// The harness failed too often to go on.
    Aborted,
}

/// A trial that could not be run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InfrastructureFailure {
    /// Its place in the full plan.
    pub index: u64,
    /// Its cell.
    pub cell: String,
    /// What failed, the last time.
    pub what: String,
}

/// A run, summed up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Summary {
    /// [`SCHEMA`].
    pub schema: u32,
    /// How far it came.
    pub state: State,
    /// Whether every gate held.
    pub passed: bool,
    /// Trials planned.
    pub planned: u64,
    /// Trials finished.
    pub finished: u64,
    /// Trials that could not be run.
    pub infrastructure_failures: Vec<InfrastructureFailure>,
    /// What was the same for all trials.
    pub settings: Settings,
    /// The subset of the plan.
    pub filter: Filter,
    /// Where it took place.
    pub environment: Environment,
    /// The name by which records refer to it.
    pub environment_id: String,
    /// Where some trials took place instead, if it was continued or put together there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub elsewhere: Vec<Environment>,
    /// The part of the plan, if it is not all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<Shard>,
    /// The gates.
    pub gates: Vec<Gate>,
    /// Cells that disagree with their prediction.
    pub disagreements: Vec<Disagreement>,
    /// The cells, in the order of the plan.
    pub cells: Vec<CellSummary>,
    /// Where a fault does not exist.
    pub not_applicable: Vec<NotApplicable>,
}

/// Who noticed a fault, and how soon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Noticed {
    /// Activated trials in which anybody did.
    pub trials: u32,
    /// By whom first, and how often.
    pub by: BTreeMap<String, u32>,
    /// From the fault to its detection.
    pub after: Option<Spread>,
}

/// How service came back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Recovery {
    /// Activated trials with a reset or a restart, or whose driver ended dead.
    pub needed: u32,
    /// Those in which the driver served again.
    pub recovered: u32,
    /// From the fault until it did.
    pub after: Option<Spread>,
}

/// Requests of both tenants over all activated trials (over all trials of a clean cell).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Requests {
    /// That ended well.
    pub completed: u64,
    /// Answered with an error and tried again.
    pub errors: u64,
    /// Answered with success and wrong data.
    pub corrupted: u64,
    /// Acknowledged writes that cannot be read back.
    pub lost: u64,
    /// Answered twice.
    pub duplicated: u64,
}

/// Stray DMA over all activated trials.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Stray {
    /// Requests that reached memory.
    pub landed: u64,
    /// Requests that were refused.
    pub blocked: u64,
    /// The longest time after an unmapping at which one landed, ns.
    pub stale_window_ns: Option<u64>,
}

/// One cell, summed up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CellSummary {
    /// Its name.
    pub id: String,
    /// Where the driver lives.
    pub placement: PlacementId,
    /// The IOMMU mode.
    pub iommu: IommuMode,
    /// The fabric.
    pub fabric: FabricKind,
    /// The driver.
    pub driver: DriverId,
    /// The fault's id.
    pub fault: String,
    /// The case's name.
    pub case: String,
    /// What was predicted.
    pub prediction: String,
    /// From what.
    pub because: String,
    /// Whether that settles the outcome.
    pub label: Label,
    /// Whether anybody runs so.
    pub deployed: bool,
    /// Who, or why nobody.
    pub deployed_as: String,
    /// Trials in which the fault was injected; trials, in a clean cell.
    pub injected: u32,
    /// In which the faulty access happened.
    pub activated: u32,
    /// In which somebody's state or time differed.
    pub manifested: u32,
    /// In which nothing outside the driver's own domain differed.
    pub contained: u32,
    /// In which something did, among the activated.
    pub escaped: Proportion,
    /// In which the faulty access reached memory.
    pub landed: u32,
    /// How often each outcome came.
    pub outcomes: BTreeMap<Outcome, u32>,
    /// Who was hurt, and in how many trials.
    pub hurt: BTreeMap<String, u32>,
    /// Whose state was corrupted, and in how many trials.
    pub corrupted: BTreeMap<String, u32>,
    /// Most bytes changed outside the driver's frames in one trial.
    pub blast_bytes: u64,
    /// Stall of bystanders beyond the clean pair; in a clean cell, the longest gap itself.
    pub stall: Option<Spread>,
    /// Longest request of a tenant beyond that of the clean pair; in a clean cell, the request
    /// itself.
    pub io_stall: Option<Spread>,
    /// Activated trials whose times are "at least".
    pub censored: u32,
    /// Trials without a clean pair.
    pub unpaired: u32,
    /// How long the driver's CPU stood still at most, ns.
    pub frozen_ns: u64,
    /// Detection.
    pub noticed: Noticed,
    /// Recovery.
    pub recovery: Recovery,
    /// Requests.
    pub requests: Requests,
    /// Stray DMA.
    pub stray: Stray,
    /// Costs over all trials, in a clean cell.
    pub costs: Option<Counts>,
}

#[derive(Debug, Default)]
struct Tally {
    injected: u32,
    activated: u32,
    manifested: u32,
    contained: u32,
    landed: u32,
    outcomes: BTreeMap<Outcome, u32>,
    hurt: BTreeMap<String, u32>,
    corrupted: BTreeMap<String, u32>,
    blast_bytes: u64,
    stalls: Vec<u64>,
    io_stalls: Vec<u64>,
    censored: u32,
    unpaired: u32,
    frozen_ns: u64,
    noticed_by: BTreeMap<String, u32>,
    noticed_after: Vec<u64>,
    recovery_needed: u32,
    recovered_after: Vec<u64>,
    requests: Requests,
    stray: Stray,
    costs: Counts,
}

fn count(into: &mut BTreeMap<String, u32>, names: &[String]) {
    for name in names {
        *into.entry(name.clone()).or_default() += 1;
    }
}

impl Tally {
    fn add(&mut self, cell: &Cell, record: &Record) {
        let (report, verdict) = (&record.report, &record.verdict);
        self.injected += 1;
        *self.outcomes.entry(verdict.outcome).or_default() += 1;
        self.unpaired += u32::from(!verdict.paired && !cell.is_clean());
        if verdict.outcome == Outcome::NotActivated {
            return;
        }
        self.activated += u32::from(!cell.is_clean());
        self.manifested += u32::from(verdict.manifested);
        self.contained += u32::from(verdict.contained);
        self.landed += u32::from(verdict.landed);
        self.censored += u32::from(verdict.censored);
        count(&mut self.hurt, &verdict.hurt);
        count(&mut self.corrupted, &verdict.corrupted);
        self.blast_bytes = self.blast_bytes.max(verdict.blast_bytes);
        self.stalls.push(verdict.stall_ns);
        self.io_stalls.push(verdict.io_stall_ns);
        let frozen = report
            .domains
            .iter()
            .filter(|domain| domain.holds_driver)
            .map(|domain| domain.frozen_ns);
        self.frozen_ns = frozen.fold(self.frozen_ns, u64::max);
        if let Some(seen) = &report.detection {
            *self.noticed_by.entry(seen.by.clone()).or_default() += 1;
            self.noticed_after.push(seen.after_ns);
        }
        let died = report
            .domains
            .iter()
            .any(|domain| domain.holds_driver && !domain.deaths.is_empty());
        if report.resets > 0 || died || report.recovered_after_ns.is_some() {
            self.recovery_needed += 1;
            self.recovered_after.extend(report.recovered_after_ns);
        }
        for io in &report.io {
            self.requests.completed += u64::from(io.completed);
            self.requests.errors += u64::from(io.errors);
            self.requests.corrupted += u64::from(io.corrupted);
            self.requests.lost += u64::from(io.lost);
            self.requests.duplicated += u64::from(io.duplicated);
        }
        let stray = &mut self.stray;
        stray.landed = stray.landed.saturating_add(report.stray_landed);
        stray.blocked = stray.blocked.saturating_add(report.stray_blocked);
        stray.stale_window_ns = stray.stale_window_ns.max(report.stale_window_ns);
        add_counts(&mut self.costs, &report.counts);
    }

    fn close(self, cell: &Cell) -> CellSummary {
        let prediction = predict(cell);
        let standing = placement(cell.placement).standing(cell.iommu);
        let (deployed, deployed_as) = match standing {
            Standing::Deployed(system) => (true, system),
            Standing::Synthetic(why) => (false, why),
        };
        let noticed: u32 = self.noticed_by.values().sum();
        CellSummary {
            id: cell.id(),
            placement: cell.placement,
            iommu: cell.iommu,
            fabric: cell.fabric,
            driver: cell.driver,
            fault: cell.case.fault.id().to_owned(),
            case: cell.case.name(),
            prediction: prediction.expect.words(),
            because: prediction.because.to_owned(),
            label: prediction.label,
            deployed,
            deployed_as: deployed_as.to_owned(),
            injected: self.injected,
            activated: self.activated,
            manifested: self.manifested,
            contained: self.contained,
            escaped: Proportion::new(
                self.activated.saturating_sub(self.contained),
                self.activated,
            ),
            landed: self.landed,
            outcomes: self.outcomes,
            hurt: self.hurt,
            corrupted: self.corrupted,
            blast_bytes: self.blast_bytes,
            stall: Spread::of(&self.stalls),
            io_stall: Spread::of(&self.io_stalls),
            censored: self.censored,
            unpaired: self.unpaired,
            frozen_ns: self.frozen_ns,
            noticed: Noticed {
                trials: noticed,
                by: self.noticed_by,
                after: Spread::of(&self.noticed_after),
            },
            recovery: Recovery {
                needed: self.recovery_needed,
                recovered: u32::try_from(self.recovered_after.len()).unwrap_or(u32::MAX),
                after: Spread::of(&self.recovered_after),
            },
            requests: self.requests,
            stray: self.stray,
            costs: cell.is_clean().then_some(self.costs),
        }
    }
}

fn add_counts(into: &mut Counts, more: &Counts) {
    for (into, more) in [
        (&mut into.mmio_reads, more.mmio_reads),
        (&mut into.mmio_writes, more.mmio_writes),
        (&mut into.maps, more.maps),
        (&mut into.unmaps, more.unmaps),
        (&mut into.invalidations, more.invalidations),
        (&mut into.doorbells, more.doorbells),
        (&mut into.interrupts, more.interrupts),
        (&mut into.dma_requests, more.dma_requests),
    ] {
        *into = into.saturating_add(more);
    }
}

/// Sums up records one by one. It keeps figures, not records, so a long run stays small.
#[derive(Debug, Default)]
pub struct Collector {
    cells: Vec<(Cell, Tally)>,
    known: HashMap<Cell, usize>,
    watch: Watch,
    finished: u64,
    failures: Vec<InfrastructureFailure>,
}

impl Collector {
    /// Adds a finished trial.
    pub fn add(&mut self, record: &Record) {
        let cell = Cell::of(&record.spec);
        let next = self.cells.len();
        let at = *self.known.entry(cell).or_insert(next);
        if at == next {
            self.cells.push((cell, Tally::default()));
        }
        if let Some((cell, tally)) = self.cells.get_mut(at) {
            tally.add(cell, record);
        }
        self.watch.see(&cell, record);
        self.finished += 1;
    }

    /// Adds a trial that could not be run.
    pub fn fail(&mut self, failure: InfrastructureFailure) {
        self.failures.push(failure);
    }

    /// The summary of what was added.
    pub fn close(self, plan: &Plan, environment: Environment, state: State) -> Summary {
        let (gates, disagreements) = self.watch.close(plan.settings().clock);
        Summary {
            schema: SCHEMA,
            state,
            passed: gates.iter().all(|gate| gate.result != GateResult::Failed),
            planned: plan.len(),
            finished: self.finished,
            infrastructure_failures: self.failures,
            settings: plan.settings().clone(),
            filter: plan.filter().clone(),
            environment_id: environment.id(),
            environment,
            elsewhere: Vec::new(),
            shard: plan.part(),
            gates,
            disagreements,
            cells: self
                .cells
                .into_iter()
                .map(|(cell, tally)| tally.close(&cell))
                .collect(),
            not_applicable: plan.not_applicable(),
        }
    }
}

impl CellSummary {
    /// The worst outcome among activated trials, and how often it came.
    pub fn worst(&self) -> Option<(Outcome, u32)> {
        self.outcomes
            .iter()
            .rev()
            .find(|(outcome, _)| **outcome >= Outcome::Masked)
            .map(|(outcome, times)| (*outcome, *times))
    }

    /// Whether it is a clean cell.
    pub fn is_clean(&self) -> bool {
        self.fault == "none"
    }
}
