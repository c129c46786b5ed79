//! What one protection changes, all else the same.

use super::pairs::asks;
use super::words::many;
use cofferdam_experiment::ablation::{AXES, Axis};
use cofferdam_experiment::catalogue::placement;
use cofferdam_experiment::summary::{Ablation, Summary};
use cofferdam_placement::trial::PlacementId;
use maud::{Markup, html};

/// Placements that show the same.
struct Row<'a> {
    of: &'a Ablation,
    places: Vec<PlacementId>,
}

fn rows<'a>(all: &'a [Ablation], axis: &Axis) -> Vec<Row<'a>> {
    let mut rows: Vec<Row<'a>> = Vec::new();
    for each in all.iter().filter(|each| each.axis == axis.id) {
        let like = |row: &&mut Row<'_>| {
            let as_there = Ablation {
                placement: row.of.placement,
                ..each.clone()
            };
            *row.of == as_there
        };
        match rows.iter_mut().find(like) {
            Some(row) => row.places.push(each.placement),
            None => rows.push(Row {
                of: each,
                places: vec![each.placement],
            }),
        }
    }
    rows.sort_by_key(|row| (row.of.first.clone(), row.of.question));
    rows
}

pub(super) fn section(summary: &Summary) -> Markup {
    html! {
        section aria-labelledby="ablations" {
            h2 #ablations { "What one protection changes" }
            p {
                "Two cases that differ in one protection, with the same seeds, driver, IOMMU mode and "
                "fabric, trial by trial. Cells are tested one by one, by McNemar's exact test with "
                "Holm's adjustment over the axis; the counts are of all their pairs of trials."
            }
            @if summary.ablations.is_empty() {
                p { "No such pair is part of this run." }
            }
            @for axis in &AXES { (one(axis, &rows(&summary.ablations, axis))) }
        }
    }
}

fn one(axis: &Axis, rows: &[Row<'_>]) -> Markup {
    let (differ, same): (Vec<&Row<'_>>, Vec<&Row<'_>>) =
        rows.iter().partition(|row| row.of.differ > 0);
    html! {
        @if !rows.is_empty() {
            h3 #{ "ablation-" (axis.id) } {
                (axis.what) ": " (axis.sides[0]) ", or " (axis.sides[1])
            }
            @if differ.is_empty() {
                p { "No pair of trials ended differently." }
            } @else {
                div.scroll tabindex="0" { table {
                    caption.hidden { (axis.what) ": pairs of trials" }
                    thead { tr {
                        th scope="col" { "case" } th scope="col" { "question" }
                        th.num scope="col" { "yes: " (axis.sides[0]) }
                        th.num scope="col" { "yes: " (axis.sides[1]) }
                        th.num scope="col" { "pairs" }
                        th.num scope="col" { "cells that differ" }
                        th.num scope="col" { "p < 0.05" }
                    } }
                    tbody { @for row in &differ { (line(row)) } }
                } }
            }
            @if !same.is_empty() && !differ.is_empty() {
                p.soft { "The same on both sides in " (many(same.len(), "other comparison")) "." }
            }
        }
    }
}

fn line(row: &Row<'_>) -> Markup {
    let (of, table) = (row.of, &row.of.table);
    let names: Vec<&str> = row.places.iter().map(|id| placement(*id).id).collect();
    let yes = |own: u32| table.both.saturating_add(own);
    html! {
        tr {
            th scope="row" {
                a href={ "#c-" (of.first) } { (of.first) } ", "
                a href={ "#c-" (of.second) } { (of.second) }
                small { (names.join(", ")) }
            }
            td { (asks(of.question)) }
            td.num { (yes(table.only_first)) } td.num { (yes(table.only_second)) }
            td.num { (table.pairs()) }
            td.num { (of.differ) " of " (of.cells) } td.num { (of.significant) }
        }
    }
}
