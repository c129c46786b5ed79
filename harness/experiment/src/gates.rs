//! Gates: what must hold for a run's figures to mean anything.
//!
//! The negative control (does the injector reach anybody at all?), the clean trials (is the harness
//! quiet by itself?), the A/A control (do two names of one topology agree, both with tenants as
//! processes?) and the predictions (does the machine obey its own physics?).

use crate::cell::Cell;
use crate::predict::{Label, escaped, negative_control, predict};
use crate::record::Record;
use crate::seed::digest;
use crate::verdict::trouble;
use cofferdam_placement::trial::{ClockKind, Fault, PlacementId, TrialReport};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// Examples a gate keeps.
const EXAMPLES: usize = 8;

/// How a gate ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum GateResult {
    /// It held.
    Passed,
    /// It did not: the run fails.
    Failed,
    /// The run has no trial that it could look at.
    NotRun,
    /// It did not hold, and does not have to under this clock.
    Reported,
}

/// One gate of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Gate {
    /// Its name.
    pub name: String,
    /// What it asks.
    pub asks: String,
    /// How it ended.
    pub result: GateResult,
    /// Trials, or pairs of trials, looked at.
    pub checked: u64,
    /// Those that broke it.
    pub failed: u64,
    /// The first of them, in words.
    pub examples: Vec<String>,
}

/// A cell whose trials disagree with its prediction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Disagreement {
    /// The cell.
    pub cell: String,
    /// Whether its outcome should have been settled by construction.
    pub label: Label,
    /// What was predicted.
    pub expected: String,
    /// What the first such trial did instead.
    pub found: String,
    /// Index of that trial.
    pub first: u64,
    /// Trials that disagree.
    pub trials: u32,
}

#[derive(Debug, Default)]
struct Count {
    checked: u64,
    failed: u64,
    examples: Vec<String>,
}

impl Count {
    fn check(&mut self, wrong: Option<String>) {
        self.checked += 1;
        if let Some(what) = wrong {
            self.failed += 1;
            if self.examples.len() < EXAMPLES {
                self.examples.push(what);
            }
        }
    }

    fn gate(self, name: &str, asks: &str, failure: GateResult) -> Gate {
        Gate {
            name: name.to_owned(),
            asks: asks.to_owned(),
            result: match (self.checked, self.failed) {
                (0, _) => GateResult::NotRun,
                (_, 0) => GateResult::Passed,
                _ => failure,
            },
            checked: self.checked,
            failed: self.failed,
            examples: self.examples,
        }
    }
}

/// Watches every record of a run.
#[derive(Debug, Default)]
pub struct Watch {
    control: Count,
    unacted: u64,
    clean: Count,
    predictions: Count,
    disagreements: Vec<Disagreement>,
    disagreeing: HashMap<Cell, usize>,
    /// Of the trials of one number: the first of two that should be equal.
    number: u32,
    halves: HashMap<Cell, (u64, u64)>,
    twins: Count,
}

impl Watch {
    /// Looks at a record of that cell. Records come in the order of the plan.
    pub fn see(&mut self, cell: &Cell, record: &Record) {
        let report = &record.report;
        let named = |what: String| format!("trial {} ({}): {what}", record.index, record.cell);

        // A fault that did not act leaves a clean trial, unless a death or a reset led up to it.
        let clean = report.activated == 0 || matches!(record.spec.fault, Fault::None);
        if clean && record.spec.fault.is_led_up_to() {
            // Neither: something was done to the driver, and the device did nothing with it.
        } else if clean {
            let acted = report.activated > 0;
            let wrong = if acted {
                Some("a fault acted where none was injected".to_owned())
            } else {
                trouble(report)
            };
            self.clean.check(wrong.map(named));
        } else {
            let wrong = predict(cell).expect.disagreement(report, &record.verdict);
            if let Some(found) = &wrong {
                self.disagree(cell, record, found);
            }
            self.predictions.check(wrong.map(named));
        }

        if let Some(victim) = negative_control(cell) {
            if report.activated == 0 {
                self.unacted += 1;
            } else {
                let wrong = (!escaped(report, victim))
                    .then(|| format!("nothing reached {victim}'s memory"));
                self.control.check(wrong.map(named));
            }
        }

        if matches!(
            cell.placement,
            PlacementId::InKernel | PlacementId::Hypervisor
        ) {
            self.pair(cell, record);
        }
    }

    fn disagree(&mut self, cell: &Cell, record: &Record, found: &str) {
        let next = self.disagreements.len();
        let at = *self.disagreeing.entry(*cell).or_insert(next);
        if let Some(known) = self.disagreements.get_mut(at) {
            known.trials += 1;
            return;
        }
        let prediction = predict(cell);
        self.disagreements.push(Disagreement {
            cell: record.cell.clone(),
            label: prediction.label,
            expected: prediction.expect.words(),
            found: found.to_owned(),
            first: record.index,
            trials: 1,
        });
    }

    fn pair(&mut self, cell: &Cell, record: &Record) {
        let key = Cell {
            placement: PlacementId::InKernel,
            ..*cell
        };
        // Under the wall clock no two trials are alike, but their outcomes may be.
        let mine = match record.spec.clock {
            ClockKind::Leap => fingerprint(&record.report),
            ClockKind::Wall => record.verdict.outcome as u64,
        };
        let mine = (record.index, mine);
        // Records come in the order of the plan, so those of an earlier number have no pair.
        if record.number != self.number {
            self.halves.clear();
            self.number = record.number;
        }
        match self.halves.remove(&key) {
            None => {
                self.halves.insert(key, mine);
            }
            Some(other) => {
                let wrong = (other.1 != mine.1)
                    .then(|| format!("trials {} and {} ({}) differ", other.0, mine.0, key.peers()));
                self.twins.check(wrong);
            }
        }
    }

    /// The gates, and the cells that disagree with their prediction: those that should have been
    /// settled by construction first.
    pub fn close(mut self, clock: ClockKind) -> (Vec<Gate>, Vec<Disagreement>) {
        if self.control.checked == 0 && self.unacted > 0 {
            self.control.check(Some(format!(
                "the injector never acted in {} trials",
                self.unacted
            )));
        }
        self.disagreements
            .sort_by_key(|disagreement| (disagreement.label, disagreement.first));
        let (alike, twins) = match clock {
            ClockKind::Leap => (
                "records of in-kernel and hypervisor, both with processes as tenants, are equal but for the name",
                GateResult::Failed,
            ),
            ClockKind::Wall => (
                "in-kernel and hypervisor, both with processes as tenants, end alike",
                GateResult::Reported,
            ),
        };
        let gates = vec![
            self.control.gate(
                "negative control",
                "a wild DMA by the device into a victim's frame, with nothing in its way, lands",
                GateResult::Failed,
            ),
            self.clean.gate(
                "clean trials",
                "where no fault acts there is no error, timeout, stray DMA or reset",
                GateResult::Failed,
            ),
            self.twins.gate("A/A control", alike, twins),
            self.predictions.gate(
                "predictions",
                "no activated trial contradicts what follows from owners, mappings and IOMMU mode",
                GateResult::Failed,
            ),
        ];
        (gates, self.disagreements)
    }
}

/// A digest of a report without the name of the privileged layer.
fn fingerprint(report: &TrialReport) -> u64 {
    let mut report = report.clone().replayed();
    let mut layer = None;
    for domain in &mut report.domains {
        if domain.privileged {
            layer = Some(std::mem::replace(&mut domain.name, "layer".to_owned()));
        }
    }
    if let Some(seen) = &mut report.detection
        && Some(&seen.by) == layer.as_ref()
    {
        seen.by = "layer".to_owned();
    }
    digest([&serde_json::to_vec(&report).unwrap_or_default()[..]])
}
