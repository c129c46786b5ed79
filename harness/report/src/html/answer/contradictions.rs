//! Trials that contradict their prediction.

use crate::html::words::{label, many};
use cofferdam_experiment::gates::Disagreement;
use cofferdam_experiment::summary::Summary;
use maud::{Markup, html};

/// Disagreements that are the same but for the placement.
struct Same<'a> {
    places: Vec<&'a str>,
    peers: &'a str,
    first: &'a Disagreement,
    trials: u32,
}

fn same(all: &[Disagreement]) -> Vec<Same<'_>> {
    let mut found: Vec<Same<'_>> = Vec::new();
    for each in all {
        let (place, peers) = each.cell.split_once('/').unwrap_or(("", &each.cell));
        let like = |same: &&mut Same<'_>| {
            let of = |one: &Disagreement| (one.label, one.expected.clone(), one.found.clone());
            same.peers == peers && of(same.first) == of(each)
        };
        match found.iter_mut().find(like) {
            Some(same) => {
                same.places.push(place);
                same.trials = same.trials.saturating_add(each.trials);
            }
            None => found.push(Same {
                places: vec![place],
                peers,
                first: each,
                trials: each.trials,
            }),
        }
    }
    found
}

pub(super) fn section(summary: &Summary) -> Markup {
    let activated: u32 = summary.cells.iter().map(|cell| cell.activated).sum();
    let same = same(&summary.disagreements);
    html! {
        @if same.is_empty() {
            p.soft {
                "No prediction from owners, mappings and IOMMU mode was contradicted in "
                (activated) " activated trials."
            }
        } @else {
            details.notice open[same.len() <= 8] {
                summary {
                    b { "Predictions contradicted" } " in "
                    (many(summary.disagreements.len(), "cell"))
                    ": a finding about the machine or about the prediction"
                }
                div.scroll tabindex="0" { table {
                    caption.hidden { "Cells that contradict their prediction" }
                    thead { tr {
                        th scope="col" { "cell" } th scope="col" { "predicted" }
                        th scope="col" { "found" } th.num scope="col" { "trials" }
                        th scope="col" { "first" }
                    } }
                    tbody {
                        @for each in &same {
                            tr {
                                th scope="row" {
                                    code { (each.peers) } small { (each.places.join(", ")) }
                                }
                                td { (each.first.expected) small { (label(each.first.label)) } }
                                td { (each.first.found) }
                                td.num { (each.trials) }
                                td { code { "cofferdam replay RUN_DIR#" (each.first.first) } }
                            }
                        }
                    }
                } }
            }
        }
    }
}
