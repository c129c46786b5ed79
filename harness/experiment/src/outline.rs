//! What a run would be, before it is one: how many trials of what, and how long they take.

use crate::catalogue::{driver, fabric_name, iommu_name, placement};
use crate::cell::Cell;
use crate::engine::{Engine, EngineError};
use crate::lanes::{Host, Next, Ran, Take, drive};
use crate::plan::{Plan, Trial};
use serde::Serialize;
use std::collections::{BTreeMap, HashSet};
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

/// Trials that a calibration runs, about.
const SAMPLE: usize = 48;

/// What would run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Outline {
    /// Cells.
    pub cells: u64,
    /// Trials.
    pub trials: u64,
    /// Trials by placement.
    pub placements: BTreeMap<&'static str, u64>,
    /// Trials by IOMMU mode.
    pub iommu: BTreeMap<&'static str, u64>,
    /// Trials by fabric.
    pub fabrics: BTreeMap<&'static str, u64>,
    /// Trials by driver.
    pub drivers: BTreeMap<&'static str, u64>,
    /// Trials by fault.
    pub faults: BTreeMap<&'static str, u64>,
    /// Why cells do not exist, and how many.
    pub not_applicable: BTreeMap<&'static str, u64>,
}

impl Outline {
    /// The outline of a plan.
    pub fn of(plan: &Plan) -> Self {
        let cells = plan.cells().count() as u64;
        let each = plan.len().checked_div(cells).unwrap_or(0);
        let mut outline = Self {
            cells,
            trials: plan.len(),
            placements: BTreeMap::new(),
            iommu: BTreeMap::new(),
            fabrics: BTreeMap::new(),
            drivers: BTreeMap::new(),
            faults: BTreeMap::new(),
            not_applicable: plan.left_out(),
        };
        for cell in plan.cells() {
            for (counts, name) in [
                (&mut outline.placements, placement(cell.placement).id),
                (&mut outline.iommu, iommu_name(cell.iommu)),
                (&mut outline.fabrics, fabric_name(cell.fabric)),
                (&mut outline.drivers, driver(cell.driver).id),
                (&mut outline.faults, cell.case.fault.id()),
            ] {
                *counts.entry(name).or_default() += each;
            }
        }
        outline
    }
}

/// How long a run should take on this host, as loaded as it was just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Estimate {
    /// Trials that were run to find out.
    pub sampled: u64,
    /// How many at a time.
    pub jobs: NonZeroUsize,
    /// How long they took together, ns.
    pub took_ns: u64,
    /// How long the run should take, ns.
    pub run_ns: u64,
}

struct Sampling {
    started: Option<Instant>,
    done: u64,
    failed: Option<EngineError>,
}

impl Take for Sampling {
    type Error = EngineError;

    fn ready(&mut self, _: Host) -> Result<(), EngineError> {
        self.started = Some(Instant::now());
        Ok(())
    }

    fn take(&mut self, ran: Ran) -> Result<Next, EngineError> {
        match ran.result {
            Ok(_) => {
                self.done += 1;
                Ok(Next::Continue)
            }
            Err(error) => {
                self.failed = Some(error);
                Ok(Next::Stop)
            }
        }
    }

    fn stop(&mut self) -> bool {
        false
    }
}

/// Runs trials spread evenly over a plan, records none, and tells how long all would take.
pub fn estimate<E: Engine>(
    plan: &Plan,
    jobs: NonZeroUsize,
    start: impl Fn() -> Result<E, EngineError> + Sync,
) -> Result<Estimate, EngineError> {
    let cells = plan.cells().count();
    // Placements alternate fastest and are four: an odd step meets them all alike.
    let together = plan.settings().injections_per_boot as usize;
    let step = (cells.saturating_mul(together) / SAMPLE) | 1;
    let chosen: HashSet<Cell> = plan.cells().step_by(step).copied().collect();
    let boot_of = |boot: &Vec<Trial>| boot.first().map(|trial| trial.boot);
    let first = plan.boots().next().as_ref().and_then(boot_of);
    // All that a plan has of these cells before it comes back to the first.
    let round = plan.boots().take_while(|boot| boot_of(boot) == first);
    let sample = round.filter(|boot| boot.iter().any(|trial| chosen.contains(&trial.cell)));
    let mut sampling = Sampling {
        started: None,
        done: 0,
        failed: None,
    };
    drive(jobs, &start, sample, &mut sampling)?;
    if let Some(error) = sampling.failed {
        return Err(error);
    }
    let took = sampling
        .started
        .map_or(Duration::ZERO, |started| started.elapsed());
    let all = took.as_nanos() * u128::from(plan.len());
    let run = all.checked_div(u128::from(sampling.done)).unwrap_or(0);
    Ok(Estimate {
        sampled: sampling.done,
        jobs,
        took_ns: u64::try_from(took.as_nanos()).unwrap_or(u64::MAX),
        run_ns: u64::try_from(run).unwrap_or(u64::MAX),
    })
}
