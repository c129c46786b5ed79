//! Cells that differ in one protection, compared trial by trial.

use super::pairing::{Answers, Question, table};
use crate::ablation::AXES;
use crate::cell::{Case, Cell};
use crate::statistics::pairs::{Table, holm};
use cofferdam_placement::trial::PlacementId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Below this, a difference is more than chance.
const LEVEL: f64 = 0.05;

/// What one protection changes of one case in one placement. Cells that differ in driver, IOMMU mode
/// or fabric are tested each by itself, as their seeds are the same; the counts are of all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ablation {
    /// Name of the axis.
    pub axis: String,
    /// The case on its first side.
    pub first: String,
    /// The case on its second side.
    pub second: String,
    /// Where the driver lives.
    pub placement: PlacementId,
    /// The question.
    pub question: Question,
    /// Pairs of cells.
    pub cells: u32,
    /// Those in which the answers of some pair of trials differ.
    pub differ: u32,
    /// Those that differ by McNemar's exact test, p below 5 % after Holm's adjustment over all pairs
    /// of cells of the axis and all questions. Trials that share boots are not tested.
    pub significant: u32,
    /// The answers of all pairs of trials.
    pub table: Table,
}

const QUESTIONS: [Question; 3] = [
    Question::Contained,
    Question::Corrupted,
    Question::TenantLost,
];

/// One pair of cells and one question.
struct Tested<'a> {
    first: &'a Cell,
    second: Cell,
    question: Question,
    table: Table,
    p: Option<f64>,
    significant: bool,
}

/// Compares both sides of every axis, as far as the run has them.
pub(super) fn compare<'a>(cells: impl Iterator<Item = (&'a Cell, &'a Answers)>) -> Vec<Ablation> {
    let known: BTreeMap<&Cell, &Answers> = cells.collect();
    AXES.iter()
        .flat_map(|axis| {
            let mut tested = Vec::new();
            for (&first, one) in &known {
                let Some(second) = axis.other(first) else {
                    continue;
                };
                if let Some(two) = known.get(&second) {
                    tested.extend(
                        QUESTIONS.map(|question| test((first, one), (second, two), question)),
                    );
                }
            }
            tested.retain(|each| each.table.pairs() > 0);
            adjust(&mut tested);
            gather(axis.id, &tested)
        })
        .collect()
}

fn test<'a>(
    (first, one): (&'a Cell, &Answers),
    (second, two): (Cell, &Answers),
    question: Question,
) -> Tested<'a> {
    let table = table(one, two, question);
    let independent = one.are_independent() && two.are_independent();
    Tested {
        first,
        second,
        question,
        table,
        p: independent.then(|| table.mcnemar()),
        significant: false,
    }
}

fn adjust(tested: &mut [Tested<'_>]) {
    let p: Vec<f64> = tested.iter().filter_map(|each| each.p).collect();
    let with_p = tested.iter_mut().filter(|each| each.p.is_some());
    for (each, p) in with_p.zip(holm(&p)) {
        each.significant = p < LEVEL;
    }
}

fn gather(axis: &str, tested: &[Tested<'_>]) -> Vec<Ablation> {
    let mut sums: BTreeMap<(Case, PlacementId, Question), Ablation> = BTreeMap::new();
    for each in tested {
        let placement = each.first.placement;
        let sum = sums
            .entry((each.first.case, placement, each.question))
            .or_insert_with(|| Ablation {
                axis: axis.to_owned(),
                first: each.first.case.name(),
                second: each.second.case.name(),
                placement,
                question: each.question,
                cells: 0,
                differ: 0,
                significant: 0,
                table: Table::default(),
            });
        sum.cells += 1;
        sum.differ += u32::from(each.table.discordant() > 0);
        sum.significant += u32::from(each.significant);
        sum.table = sum.table.and(&each.table);
    }
    sums.into_values().collect()
}
