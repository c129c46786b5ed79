//! What the records of a run say together, cell by cell, and by pairs of placements.

mod ablated;
mod pairing;
mod tally;

use crate::campaign::Campaign;
use crate::cell::Cell;
use crate::crossings::Crossings;
use crate::environment::Environment;
use crate::gates::{Disagreement, Gate, GateResult, Watch};
use crate::plan::{Filter, NotApplicable, Plan, Settings};
use crate::predict::Label;
use crate::record::Record;
use crate::shard::Shard;
use crate::split_locks::SplitLocks;
use crate::statistics::{Cluster, Flag, Proportion, Spread, Step};
use crate::verdict::Outcome;
use cofferdam_machine::config::{FabricKind, IommuMode};
use cofferdam_placement::own::PlatformId;
use cofferdam_placement::trial::{Counts, DriverId, PlacementId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use tally::{Tally, Times};

pub use ablated::Ablation;
pub use pairing::{Comparison, Paired, Question};

/// Version of the summary's schema.
pub const SCHEMA: u32 = 1;

/// Trials of each outcome that a cell names.
pub const SAMPLED: usize = 3;

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
    /// What a crossing took on this host, by the wall clock, if that was measured: in a run put
    /// together from several it is not, their own directories say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crossings: Option<Crossings>,
    /// What split locks cost a bystander on this host, if that was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split_locks: Option<SplitLocks>,
    /// The part of the plan, if it is not all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<Shard>,
    /// The account of a run that was asked for so many faults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub campaign: Option<Campaign>,
    /// The gates.
    pub gates: Vec<Gate>,
    /// Cells that disagree with their prediction.
    pub disagreements: Vec<Disagreement>,
    /// The cells, in the order of the plan.
    pub cells: Vec<CellSummary>,
    /// Placements compared by pairs of trials with one seed.
    #[serde(default)]
    pub paired: Paired,
    /// What one protection changes, all else the same.
    #[serde(default)]
    pub ablations: Vec<Ablation>,
    /// Times of the activated trials of each placement, over all its faults.
    #[serde(default)]
    pub placements: Vec<PlacementSummary>,
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
    /// From the fault to its detection, in those trials.
    pub after: Option<Spread>,
    /// The same over all activated trials: without a detection, "at least" to the trial's end.
    #[serde(default)]
    pub latency: Option<Spread>,
}

/// How service came back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Recovery {
    /// Activated trials with a reset or a restart, or whose driver ended dead.
    pub needed: u32,
    /// Those in which the driver served again.
    pub recovered: u32,
    /// From the fault until it did, in those trials.
    pub after: Option<Spread>,
    /// The same over all trials that needed it: where it never did, "at least" to the trial's end.
    #[serde(default)]
    pub latency: Option<Spread>,
    /// Of the trials in which it did, the time without that in which software waited for resets of
    /// the device, as the standards demand wherever the driver lives.
    #[serde(default)]
    pub net: Option<Spread>,
    /// The longest of these waits in one of its trials, ns.
    #[serde(default)]
    pub longest_reset_ns: u64,
}

/// Trials in which the kernel switched off an interrupt line that nobody served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CutOff {
    /// How many.
    pub trials: u32,
    /// Interrupts that the driver's CPU had taken in such a trial, at least.
    pub fewest: u64,
    /// At most.
    pub most: u64,
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

/// Empirical distribution functions of those times that are not "at least", for plots.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Curves {
    /// Of the stall of bystanders.
    pub stall: Vec<Step>,
    /// Of the longest request of a tenant.
    pub io_stall: Vec<Step>,
    /// From the fault to its detection.
    pub noticed: Vec<Step>,
    /// From the fault until the driver served again.
    pub recovery: Vec<Step>,
    /// The same without the waits for resets of the device.
    #[serde(default)]
    pub recovery_net: Vec<Step>,
}

/// The times of a placement. Placements meet not quite the same faults, so compare cells or pairs;
/// this is for the picture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlacementSummary {
    /// The placement.
    pub placement: PlacementId,
    /// Stall of bystanders beyond the clean pair.
    pub stall: Option<Spread>,
    /// Longest request of a tenant beyond that of the clean pair.
    pub io_stall: Option<Spread>,
    /// From the fault to its detection.
    pub noticed: Option<Spread>,
    /// From the fault until the driver served again, where it had to.
    pub recovery: Option<Spread>,
    /// Where it did: the same without the waits for resets of the device.
    #[serde(default)]
    pub recovery_net: Option<Spread>,
    /// How these times spread.
    pub curves: Curves,
}

/// One cell, summed up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CellSummary {
    /// Its name.
    pub id: String,
    /// Where the driver lives.
    pub placement: PlacementId,
    /// The machine's parameters.
    #[serde(default, skip_serializing_if = "PlatformId::is_usual")]
    pub platform: PlatformId,
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
    /// Interrupt lines that were switched off.
    #[serde(default)]
    pub cut_off: Option<CutOff>,
    /// Costs over all trials, in a clean cell.
    pub costs: Option<Counts>,
    /// The first trials of each outcome, by index: at most [`SAMPLED`], so that the odd ones are
    /// among them.
    #[serde(default)]
    pub samples: BTreeMap<Outcome, Vec<u64>>,
    /// Most bytes that each domain alone kept resident, in a clean cell. The host's figure. Empty
    /// where the host does not let us look.
    #[serde(default)]
    pub resident: BTreeMap<String, u64>,
    /// What to know before believing the figures.
    #[serde(default)]
    pub flags: Vec<Flag>,
    /// How times spread.
    #[serde(default)]
    pub curves: Curves,
}

/// Sums up records one by one. It keeps figures, not records, so a long run stays small: a cell
/// takes some 200 kB at most, whatever its trials, and three bits of each for the pairs. Only boots
/// that are shared are kept one by one.
#[derive(Debug, Default)]
pub struct Collector {
    cells: Vec<(Cell, Tally)>,
    known: HashMap<Cell, usize>,
    placements: BTreeMap<PlacementId, Times>,
    watch: Watch,
    finished: u64,
    failures: Vec<InfrastructureFailure>,
}

impl Collector {
    /// Adds a finished trial. Those of one boot come together.
    pub fn add(&mut self, record: &Record) {
        let boot = record.boot.map(Cluster::Shared);
        self.add_from(record, boot.unwrap_or(Cluster::Own(record.index)));
    }

    /// Adds a finished trial of that boot.
    pub fn add_from(&mut self, record: &Record, boot: Cluster) {
        let cell = Cell::of(&record.spec);
        let next = self.cells.len();
        let at = *self.known.entry(cell).or_insert(next);
        if at == next {
            self.cells.push((cell, Tally::default()));
        }
        if let Some((cell, tally)) = self.cells.get_mut(at) {
            tally.add(cell, record, boot);
        }
        if record.verdict.outcome >= Outcome::Masked {
            let times = self.placements.entry(cell.placement).or_default();
            times.add(record, boot);
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
        let seed = plan.settings().seed;
        let (gates, disagreements) = self.watch.close(plan.settings().clock);
        let answers = self
            .cells
            .iter()
            .map(|(cell, tally)| (cell, &tally.answers));
        let paired = pairing::compare(answers.clone());
        let ablations = ablated::compare(answers);
        let placements = self
            .placements
            .iter()
            .map(|(&placement, times)| PlacementSummary::of(placement, times, seed))
            .collect();
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
            crossings: None,
            split_locks: None,
            shard: plan.part(),
            campaign: None,
            gates,
            disagreements,
            cells: self
                .cells
                .into_iter()
                .map(|(cell, tally)| tally.close(&cell, seed))
                .collect(),
            paired,
            ablations,
            placements,
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

    /// Adds a flag, once.
    pub fn flag(&mut self, flag: Flag) {
        if !self.flags.contains(&flag) {
            self.flags.push(flag);
        }
    }

    /// Whether it is a clean cell.
    pub fn is_clean(&self) -> bool {
        self.fault == "none"
    }
}
