//! Placements compared trial by trial: the same driver, fault, IOMMU mode, fabric and seed.
//!
//! Trials of one number share their seed, so they are a pair; those in which either fault was not
//! activated are not. All comparisons of one driver, fault, IOMMU mode and fabric, of every pair of
//! placements and both questions, are one family for Holm's adjustment, those without a
//! difference included.

use crate::cell::Cell;
use crate::statistics::Cluster;
use crate::statistics::pairs::{Table, holm};
use crate::verdict::{Outcome, Verdict};
use cofferdam_placement::trial::PlacementId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// Comparisons a summary keeps: the most significant ones.
const MOST: usize = 4096;
/// Trials of a cell that can be paired. A larger number is counted as left out, so that a record
/// cannot ask for memory.
const NUMBERS: u32 = 1 << 20;

/// What a pair is asked.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Question {
    /// Was the fault contained?
    Contained,
    /// Was a tenant lost?
    TenantLost,
    /// Was somebody's memory or data corrupted silently? Asked of ablations only.
    Corrupted,
}

/// Two placements and one question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Comparison {
    /// What both have in common: `strict/pcie/edu/D1.device.tenant1`.
    pub peers: String,
    /// The first placement.
    pub first: PlacementId,
    /// The second placement.
    pub second: PlacementId,
    /// The question.
    pub question: Question,
    /// The answers.
    pub table: Table,
    /// McNemar's exact p. `None` where trials share boots: pairs are not independent then, and it
    /// would be too small.
    pub p: Option<f64>,
    /// That p after Holm's adjustment over the family.
    pub adjusted: Option<f64>,
    /// Comparisons in the family.
    pub family: u32,
}

/// All comparisons of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Paired {
    /// Those in which the answers of some pair differ, most significant first.
    pub comparisons: Vec<Comparison>,
    /// How many others there are, in which no pair differs.
    pub concordant: u64,
    /// How many more differ, but are less significant than all that are listed.
    pub left_out: u64,
    /// Trials left out, as their numbers are too large.
    pub trials_left_out: u64,
}

/// A set of trial numbers, one bit each.
#[derive(Debug, Default)]
struct Numbers(Vec<u64>);

impl Numbers {
    fn add(&mut self, number: u32) {
        let word = (number / 64) as usize;
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (number % 64);
    }

    fn word(&self, at: usize) -> u64 {
        self.0.get(at).copied().unwrap_or(0)
    }
}

/// The answers of a cell's trials.
#[derive(Debug, Default)]
pub(super) struct Answers {
    activated: Numbers,
    contained: Numbers,
    tenant_lost: Numbers,
    corrupted: Numbers,
    boots_are_shared: bool,
    left_out: u64,
}

impl Answers {
    /// Adds an activated trial.
    pub(super) fn add(&mut self, number: u32, verdict: &Verdict, boot: Cluster) {
        if number >= NUMBERS {
            self.left_out += 1;
            return;
        }
        self.boots_are_shared |= matches!(boot, Cluster::Shared(_));
        self.activated.add(number);
        if verdict.contained {
            self.contained.add(number);
        }
        if verdict.tenants_lost > 0 {
            self.tenant_lost.add(number);
        }
        if verdict.outcome == Outcome::SilentCorruption {
            self.corrupted.add(number);
        }
    }

    /// Whether its trials had a boot of their own each.
    pub(super) const fn are_independent(&self) -> bool {
        !self.boots_are_shared
    }

    const fn to(&self, question: Question) -> &Numbers {
        match question {
            Question::Contained => &self.contained,
            Question::TenantLost => &self.tenant_lost,
            Question::Corrupted => &self.corrupted,
        }
    }
}

pub(super) fn table(first: &Answers, second: &Answers, question: Question) -> Table {
    let mut table = Table::default();
    for at in 0..first.activated.0.len().min(second.activated.0.len()) {
        let pairs = first.activated.word(at) & second.activated.word(at);
        let one = first.to(question).word(at);
        let other = second.to(question).word(at);
        table.both += (pairs & one & other).count_ones();
        table.only_first += (pairs & one & !other).count_ones();
        table.only_second += (pairs & !one & other).count_ones();
        table.neither += (pairs & !one & !other).count_ones();
    }
    table
}

/// Compares all placements of cells that differ in nothing else.
pub(super) fn compare<'a>(cells: impl Iterator<Item = (&'a Cell, &'a Answers)>) -> Paired {
    let mut paired = Paired::default();
    let mut families: Vec<Vec<(&Cell, &Answers)>> = Vec::new();
    let mut known: HashMap<Cell, usize> = HashMap::new();
    for (cell, answers) in cells.filter(|(cell, _)| !cell.is_clean()) {
        paired.trials_left_out += answers.left_out;
        let peers = Cell {
            placement: PlacementId::InKernel,
            ..*cell
        };
        let next = families.len();
        match families.get_mut(*known.entry(peers).or_insert(next)) {
            Some(family) => family.push((cell, answers)),
            None => families.push(vec![(cell, answers)]),
        }
    }
    for family in families {
        let (differ, alike): (Vec<_>, Vec<_>) = comparisons(&family)
            .into_iter()
            .partition(|comparison| comparison.table.discordant() > 0);
        paired.concordant += alike.len() as u64;
        paired.comparisons.extend(differ);
    }
    let rank = |comparison: &Comparison| comparison.adjusted.unwrap_or(1.0);
    paired
        .comparisons
        .sort_by(|one, other| rank(one).total_cmp(&rank(other)));
    paired.left_out = paired.comparisons.len().saturating_sub(MOST) as u64;
    paired.comparisons.truncate(MOST);
    paired
}

fn comparisons(family: &[(&Cell, &Answers)]) -> Vec<Comparison> {
    let mut found = Vec::new();
    for (at, (first, one)) in family.iter().enumerate() {
        for (second, other) in &family[at + 1..] {
            for question in [Question::Contained, Question::TenantLost] {
                let table = table(one, other, question);
                if table.pairs() == 0 {
                    continue;
                }
                let independent = !(one.boots_are_shared || other.boots_are_shared);
                found.push(Comparison {
                    peers: first.peers(),
                    first: first.placement,
                    second: second.placement,
                    question,
                    table,
                    p: independent.then(|| table.mcnemar()),
                    adjusted: None,
                    family: 0,
                });
            }
        }
    }
    let tested: Vec<f64> = found.iter().filter_map(|comparison| comparison.p).collect();
    let size = u32::try_from(tested.len()).unwrap_or(u32::MAX);
    let mut adjusted = holm(&tested).into_iter();
    for comparison in &mut found {
        comparison.family = size;
        if comparison.p.is_some() {
            comparison.adjusted = adjusted.next();
        }
    }
    found
}
