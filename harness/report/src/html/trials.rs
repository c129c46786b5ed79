//! Fault by fault: its cases, every cell, and the trials to run again.
//!
//! A page of a large plan would be too long to load, so cells are bounded: what goes first are
//! cells that are settled by construction, had one outcome in all trials and disagree with nothing.
//! The page says how many.

use super::matrix::{anchor, head, line_name, squares};
use super::words::{label, many, rate, says, spread, symbol, time};
use crate::matrix::{CaseLines, Group, Matrix};
use cofferdam_experiment::catalogue::{driver, fabric_name, fault_named, iommu_name, placement};
use cofferdam_experiment::predict::Label;
use cofferdam_experiment::summary::{CellSummary, SAMPLED, Summary};
use cofferdam_experiment::verdict::Outcome;
use maud::{Markup, html};
use std::collections::{BTreeMap, HashSet};

/// Cells a page lists at most; one takes about 600 bytes.
const MOST: usize = 4000;

/// The cells that are listed.
struct Listed<'a> {
    ids: HashSet<&'a str>,
    left_out: usize,
}

impl<'a> Listed<'a> {
    fn of(summary: &'a Summary) -> Self {
        let contradicting: HashSet<&str> = summary
            .disagreements
            .iter()
            .map(|each| each.cell.as_str())
            .collect();
        let struck = summary.cells.iter().filter(|cell| !cell.is_clean());
        let cells: Vec<(&str, bool)> = struck
            .map(|cell| {
                let dull = cell.label == Label::ByConstruction
                    && cell.outcomes.len() <= 1
                    && !contradicting.contains(cell.id.as_str());
                (cell.id.as_str(), dull)
            })
            .collect();
        Self::choose(&cells, MOST)
    }

    /// All cells if there is room, else at most so many of those that are not dull.
    fn choose(cells: &[(&'a str, bool)], most: usize) -> Self {
        let roomy = cells.len() <= most;
        let ids: HashSet<&str> = cells
            .iter()
            .filter(|(_, dull)| roomy || !dull)
            .take(most)
            .map(|(id, _)| *id)
            .collect();
        Self {
            left_out: cells.len() - ids.len(),
            ids,
        }
    }
}

pub(super) fn section(matrix: &Matrix<'_>, summary: &Summary) -> Markup {
    let listed = Listed::of(summary);
    html! {
        section aria-labelledby="faults" {
            h2 #faults { "Fault by fault, with the trials to run again" }
            p {
                "Every cell names up to " (SAMPLED) " trials of each of its outcomes, so the odd "
                "ones are among them. Trial 42 runs again with "
                code { "cofferdam replay RUN_DIR#42" }
                ", where RUN_DIR is the directory this page lies in; its record is the line of "
                code { "trials.jsonl" } " with " code { "\"index\":42" } "."
            }
            @if listed.left_out > 0 {
                p.notice {
                    (many(listed.left_out, "cell")) " are left out here, to keep this page small, "
                    "first those settled by construction with one outcome in all trials. They "
                    "count in every other section, and are in " code { "summary.json" } "."
                }
            }
            @for group in &matrix.groups { (fault(group, matrix, &listed)) }
        }
    }
}

fn fault(group: &Group<'_>, matrix: &Matrix<'_>, listed: &Listed<'_>) -> Markup {
    html! {
        details.fault #{ "f-" (group.fault) } {
            summary {
                b { (group.fault) } " " (group.says)
                span.soft { " \u{b7} " (many(group.cases.len(), "case")) }
            }
            @if let Some(entry) = fault_named(group.fault) {
                p.inside.soft {
                    "By the " (entry.by) "; varied: " (entry.parameters) "; strikes "
                    (entry.trigger) "; expected to notice: " (entry.oracle) "."
                }
            }
            div.scroll tabindex="0" { table.heat {
                caption.hidden { "Cases of " (group.fault) }
                (head(matrix))
                tbody {
                    @for case in &group.cases {
                        @for line in &case.lines {
                            tr {
                                th scope="row" { (case.case) small { (line_name(line)) } }
                                (squares(line, matrix.placements.len(), &anchor(case.case)))
                            }
                        }
                    }
                }
            } }
            @for case in &group.cases { (cells(case, listed)) }
        }
    }
}

fn cells(case: &CaseLines<'_>, listed: &Listed<'_>) -> Markup {
    let squares = case
        .lines
        .iter()
        .flat_map(|line| line.squares.iter().flatten());
    let cells: Vec<&CellSummary> = squares
        .flat_map(|square| square.cells.iter().copied())
        .filter(|cell| listed.ids.contains(cell.id.as_str()))
        .collect();
    html! {
        details.cells-of #(anchor(case.case)) {
            summary { code { (case.case) } span.soft { " \u{b7} " (many(cells.len(), "cell")) } }
            @if !cells.is_empty() {
                div.scroll tabindex="0" { table.cells {
                    caption.hidden { "Cells of " (case.case) }
                    thead { tr {
                        th scope="col" { "cell" } th scope="col" { "predicted" }
                        th scope="col" { "outcomes: trials" } th scope="col" { "escaped" }
                        th scope="col" { "whom" } th.num scope="col" { "stall" }
                        th.num scope="col" { "noticed" } th.num scope="col" { "recovery" }
                    } }
                    tbody { @for cell in cells { (row(cell)) } }
                } }
            }
        }
    }
}

fn names(of: &BTreeMap<String, u32>) -> String {
    let each: Vec<String> = of
        .iter()
        .map(|(name, times)| format!("{name} {times}"))
        .collect();
    each.join(", ")
}

fn row(cell: &CellSummary) -> Markup {
    let whom: Vec<String> = [&cell.corrupted, &cell.hurt]
        .into_iter()
        .filter(|names| !names.is_empty())
        .map(names)
        .collect();
    html! {
        tr {
            th scope="row" {
                (placement(cell.placement).id)
                small {
                    (iommu_name(cell.iommu)) " " (fabric_name(cell.fabric)) " "
                    (driver(cell.driver).id)
                    @if !cell.deployed { ", synthetic" }
                }
            }
            td { (cell.prediction) small { (label(cell.label)) } }
            td { @for (outcome, times) in &cell.outcomes { (sampled(cell, *outcome, *times)) } }
            td { (rate(&cell.escaped)) }
            td {
                (whom.join("; "))
                @if cell.blast_bytes > 0 { small { (cell.blast_bytes) " bytes at most" } }
                @if let Some(window) = cell.stray.stale_window_ns {
                    small { "stale for " (time(window)) }
                }
            }
            td.num { (spread(cell.stall)) }
            td.num { (spread(cell.noticed.after)) small { (names(&cell.noticed.by)) } }
            td.num {
                @if cell.recovery.needed > 0 {
                    (spread(cell.recovery.after))
                    small { (cell.recovery.recovered) " of " (cell.recovery.needed) }
                    @if cell.recovery.longest_reset_ns > 0 {
                        small { "net " (spread(cell.recovery.net)) }
                    }
                }
            }
        }
    }
}

/// An outcome, how often it came, and its first trials.
fn sampled(cell: &CellSummary, outcome: Outcome, times: u32) -> Markup {
    let samples = cell.samples.get(&outcome).map_or(&[][..], Vec::as_slice);
    html! {
        div {
            span class={ "key " (outcome.name()) } title=(says(outcome)) { (symbol(outcome)) }
            " " (times) ": "
            @for index in samples { code { "#" (index) } " " }
            @if usize::try_from(times).is_ok_and(|times| times > samples.len()) { "\u{2026}" }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_cells_are_listed_where_there_is_room() {
        let listed = Listed::choose(&[("a", true), ("b", false)], 2);
        assert_eq!((listed.ids.len(), listed.left_out), (2, 0));
    }

    #[test]
    fn settled_cells_give_way_first() {
        let cells = [("a", true), ("b", false), ("c", true), ("d", false)];
        let listed = Listed::choose(&cells, 3);
        assert_eq!((listed.ids, listed.left_out), (["b", "d"].into(), 2));
    }

    #[test]
    fn page_is_bounded_even_where_every_cell_was_measured() {
        let cells = [("a", false), ("b", false), ("c", false), ("d", false)];
        let listed = Listed::choose(&cells, 3);
        assert_eq!((listed.ids.len(), listed.left_out), (3, 1));
    }
}
