//! Which placements differ, by pairs of trials with one seed.

use super::words::many;
use cofferdam_experiment::catalogue::placement;
use cofferdam_experiment::summary::{Comparison, Question, Summary};
use cofferdam_placement::trial::PlacementId;
use maud::{Markup, html};
use std::collections::BTreeMap;

/// Comparisons listed one by one.
const MOST: usize = 60;
/// Below this, a difference is more than chance.
const LEVEL: f64 = 0.05;

pub(super) const fn asks(question: Question) -> &'static str {
    match question {
        Question::Contained => "contained",
        Question::TenantLost => "tenant lost",
        Question::Corrupted => "silently corrupted",
    }
}

/// What two placements show over all their cells.
#[derive(Default)]
struct Together {
    differ: u32,
    significant: u32,
    first: u32,
    second: u32,
    pairs: u32,
}

fn significant(of: &Comparison) -> bool {
    of.adjusted.is_some_and(|p| p < LEVEL)
}

fn together(of: &[Comparison]) -> BTreeMap<(PlacementId, PlacementId, Question), Together> {
    let mut found: BTreeMap<_, Together> = BTreeMap::new();
    for each in of {
        let own = found
            .entry((each.first, each.second, each.question))
            .or_default();
        own.differ += 1;
        own.significant += u32::from(significant(each));
        own.first = own.first.saturating_add(each.table.only_first);
        own.second = own.second.saturating_add(each.table.only_second);
        own.pairs = own.pairs.saturating_add(each.table.pairs());
    }
    found
}

pub(super) fn section(summary: &Summary) -> Markup {
    let paired = &summary.paired;
    let alike = paired.concordant;
    html! {
        section aria-labelledby="pairs" {
            h2 #pairs { "Which placements differ" }
            p {
                "The same seed in two placements is a pair. McNemar's exact test asks whether the \
                 pairs that ended differently fall to one side; Holm's adjustment covers all \
                 comparisons of one cell. " (alike) " comparisons had no pair that differs"
                @if paired.left_out > 0 { "; " (paired.left_out) " less significant ones are left out" }
                "."
            }
            @if paired.comparisons.is_empty() {
                p { "No pair of trials ended differently in two placements." }
            } @else {
                div.scroll tabindex="0" { table {
                    caption.hidden { "Pairs of placements, over all cells in which they differ" }
                    thead { tr {
                        th scope="col" { "placements" } th scope="col" { "question" }
                        th.num scope="col" { "cells that differ" }
                        th.num scope="col" { "after Holm, p < 0.05" }
                        th.num scope="col" { "yes in the first only" }
                        th.num scope="col" { "yes in the second only" }
                        th.num scope="col" { "pairs" }
                    } }
                    tbody {
                        @for ((first, second, question), own) in together(&paired.comparisons) {
                            tr {
                                th scope="row" { (placement(first).id) " / " (placement(second).id) }
                                td { (asks(question)) }
                                td.num { (own.differ) }
                                td.num { (own.significant) }
                                td.num { (own.first) } td.num { (own.second) }
                                td.num { (own.pairs) }
                            }
                        }
                    }
                } }
                details {
                    summary {
                        "Cell by cell: the most significant "
                        (many(paired.comparisons.len().min(MOST), "comparison"))
                    }
                    div.scroll tabindex="0" { table {
                        caption.hidden { "Comparisons, most significant first" }
                        thead { tr {
                            th scope="col" { "cell" } th scope="col" { "placements" }
                            th scope="col" { "question" }
                            th.num scope="col" { "both / first / second / neither" }
                            th.num scope="col" { "p" } th.num scope="col" { "after Holm" }
                            th.num scope="col" { "family" }
                        } }
                        tbody { @for each in paired.comparisons.iter().take(MOST) { (row(each)) } }
                    } }
                }
                @if paired.comparisons.iter().all(|each| !significant(each)) {
                    p.soft {
                        "Nothing is significant by itself: n pairs that all fall to one side reach \
                         p = 2/2" sup { "n" } ", so a cell needs some ten trials."
                    }
                }
            }
        }
    }
}

fn row(each: &Comparison) -> Markup {
    let p = |p: Option<f64>| p.map_or("-".to_owned(), |p| format!("{p:.2e}"));
    let table = &each.table;
    html! {
        tr {
            th scope="row" { code { (each.peers) } }
            td { (placement(each.first).id) " / " (placement(each.second).id) }
            td { (asks(each.question)) }
            td.num {
                (table.both) " / " (table.only_first) " / " (table.only_second) " / "
                (table.neither)
            }
            td.num { (p(each.p)) } td.num { (p(each.adjusted)) } td.num { (each.family) }
        }
    }
}
