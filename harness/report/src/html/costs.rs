//! What a request costs without faults: counted events, which are true on any host, and memory.

use super::words::time;
use super::{mechanism, split_locks, trusted};
use crate::quantity::per;
use cofferdam_experiment::catalogue::{driver, fabric_name, iommu_name, placement};
use cofferdam_experiment::statistics::Spread;
use cofferdam_experiment::summary::{CellSummary, Summary};
use cofferdam_placement::trial::PlacementId;
use maud::{Markup, html};
use serde_json::Value;
use std::collections::BTreeMap;

/// What a wall costs comes first; the rest follows in the order of the record.
const FIRST: [&str; 6] = [
    "crossings",
    "copied_bytes",
    "wakeups",
    "maps",
    "unmaps",
    "invalidations",
];

/// The counted events of a cell, by name.
fn counts(cell: &CellSummary) -> Vec<(String, u64)> {
    let Some(Ok(Value::Object(counts))) = cell.costs.as_ref().map(serde_json::to_value) else {
        return Vec::new();
    };
    let rank = |name: &str| FIRST.iter().position(|first| *first == name);
    let mut counts: Vec<(String, u64)> = counts
        .into_iter()
        .filter_map(|(name, count)| Some((name, count.as_u64()?)))
        .collect();
    counts.sort_by_key(|(name, _)| rank(name).unwrap_or(FIRST.len()));
    counts
        .into_iter()
        .map(|(name, count)| (name.replace('_', " "), count))
        .collect()
}

/// Places that cost the same, and what.
struct Row<'a> {
    driver: &'static str,
    cells: Vec<&'a CellSummary>,
    figures: Vec<String>,
}

/// The rows, and the names of their figures. Events that no cell has are not among them.
fn rows(summary: &Summary) -> (Vec<Row<'_>>, Vec<String>) {
    let mut clean: Vec<&CellSummary> = summary
        .cells
        .iter()
        .filter(|cell| cell.is_clean() && cell.costs.is_some())
        .collect();
    clean.sort_by_key(|cell| cell.driver);
    let mut seen: Vec<String> = Vec::new();
    let came = |name: &String| {
        let cells = clean.iter().flat_map(|cell| counts(cell));
        cells
            .into_iter()
            .any(|(own, count)| own == *name && count > 0)
    };
    for (name, _) in clean.first().map(|cell| counts(cell)).unwrap_or_default() {
        if came(&name) {
            seen.push(name);
        }
    }
    let median =
        |spread: Option<Spread>| spread.map_or("-".into(), |spread| time(spread.median_ns));
    let mut rows: Vec<Row<'_>> = Vec::new();
    for cell in clean {
        let mut figures: Vec<String> = counts(cell)
            .into_iter()
            .filter(|(name, _)| seen.contains(name))
            .map(|(_, count)| per(count, cell.requests.completed))
            .collect();
        figures.push(median(cell.stall));
        figures.push(median(cell.io_stall));
        let driver = driver(cell.driver).id;
        let like = |row: &&mut Row<'_>| row.driver == driver && row.figures == figures;
        match rows.iter_mut().find(like) {
            Some(row) => row.cells.push(cell),
            None => rows.push(Row {
                driver,
                cells: vec![cell],
                figures,
            }),
        }
    }
    let mut columns = seen;
    columns.extend(["longest gap".to_owned(), "longest request".to_owned()]);
    (rows, columns)
}

/// The values of an axis in some cells, by name, each once.
fn named(cells: &[&CellSummary], name: impl Fn(&CellSummary) -> &'static str) -> String {
    let mut names: Vec<&str> = Vec::new();
    for cell in cells {
        let name = name(cell);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names.join(", ")
}

pub(super) fn section(summary: &Summary) -> Markup {
    let (rows, columns) = rows(summary);
    html! {
        section aria-labelledby="costs" {
            h2 #costs { "What a request costs without faults" }
            p {
                "Events for each completed request of a tenant, counted in the clean trials: true \
                 on any host; an event that is missing never came. The last two columns are \
                 medians of device time, the model's. What a crossing takes in time is "
                a href="#mechanism" { "below" } "; " (summary.environment.caveat) "."
            }
            @if rows.is_empty() {
                p { "This run has no clean trials." }
            } @else {
                div.scroll tabindex="0" { table.costs {
                    caption.hidden { "Counted costs for each request, by driver and place" }
                    thead { tr {
                        th scope="col" { "driver, placement" }
                        @for column in &columns { th.num scope="col" { (column) } }
                    } }
                    tbody {
                        @for row in &rows {
                            tr {
                                th scope="row" {
                                    (row.driver) ": "
                                    (named(&row.cells, |cell| placement(cell.placement).id))
                                    small {
                                        (named(&row.cells, |cell| iommu_name(cell.iommu))) " on "
                                        (named(&row.cells, |cell| fabric_name(cell.fabric)))
                                    }
                                }
                                @for figure in &row.figures { td.num { (figure) } }
                            }
                        }
                    }
                } }
            }
            (mechanism::section(summary))
            (split_locks::section(summary))
            (memory(summary))
            (trusted::section(summary))
        }
    }
}

/// What the domains of a placement keep in memory: the most of its clean cells.
fn memory(summary: &Summary) -> Markup {
    let mut most: BTreeMap<PlacementId, BTreeMap<&str, u64>> = BTreeMap::new();
    for cell in &summary.cells {
        for (domain, bytes) in &cell.resident {
            let of = most.entry(cell.placement).or_default();
            let known = of.entry(domain).or_default();
            *known = (*known).max(*bytes);
        }
    }
    let total =
        |of: &BTreeMap<&str, u64>| of.values().fold(0, |sum, b| u64::saturating_add(sum, *b));
    let largest = most.values().map(total).max().unwrap_or(0);
    html! {
        h3 #memory { "Memory" }
        @if most.is_empty() {
            p { "No record of this run says what its domains keep resident." }
        } @else {
            p {
                "KiB that only this domain's process kept resident at the end of a clean trial, \
                 the machine's memory and the program aside; the most of all clean cells. Processes, \
                 not operating systems: this is what a wall costs here, and no more."
            }
            div.scroll tabindex="0" { table {
                caption.hidden { "Resident memory by placement and domain" }
                thead { tr {
                    th scope="col" { "placement" } th.num scope="col" { "domains" }
                    th.num scope="col" { "KiB together" } th.wide scope="col" { "" }
                    th scope="col" { "each, KiB" }
                } }
                tbody {
                    @for (id, of) in &most {
                        @let sum = total(of);
                        tr {
                            th scope="row" { (placement(*id).id) }
                            td.num { (of.len()) } td.num { (sum / 1024) }
                            td.wide { div.bar aria-hidden="true" {
                                @for bytes in of.values() {
                                    span.memory style={ "flex:" (bytes) } {}
                                }
                                span style={ "flex:" (largest - sum) } {}
                            } }
                            td {
                                @for (at, (domain, bytes)) in of.iter().enumerate() {
                                    @if at > 0 { ", " }
                                    (domain) " " (bytes / 1024)
                                }
                            }
                        }
                    }
                }
            } }
        }
    }
}
