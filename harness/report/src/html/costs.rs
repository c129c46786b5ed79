//! What a request costs without faults: counted events, which are true on any host.

use super::words::time;
use crate::quantity::per;
use cofferdam_experiment::catalogue::{driver, fabric_name, iommu_name, placement};
use cofferdam_experiment::summary::{CellSummary, Summary};
use maud::{Markup, html};
use serde_json::Value;

/// The counted events of a cell, by name, in the order of the record.
fn counts(cell: &CellSummary) -> Vec<(String, u64)> {
    let Some(Ok(Value::Object(counts))) = cell.costs.as_ref().map(serde_json::to_value) else {
        return Vec::new();
    };
    counts
        .into_iter()
        .filter_map(|(name, count)| Some((name.replace('_', " "), count.as_u64()?)))
        .collect()
}

/// Placements that cost the same, and what.
struct Row {
    placements: Vec<&'static str>,
    figures: Vec<String>,
}

fn rows(summary: &Summary) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let mut clean: Vec<&CellSummary> = summary
        .cells
        .iter()
        .filter(|cell| cell.is_clean())
        .collect();
    clean.sort_by_key(|cell| (cell.driver, cell.fabric, cell.iommu));
    for cell in clean {
        let median = |spread: Option<cofferdam_experiment::statistics::Spread>| {
            spread.map_or("-".into(), |spread| time(spread.median_ns))
        };
        let mut figures = vec![
            driver(cell.driver).id.to_owned(),
            iommu_name(cell.iommu).to_owned(),
            fabric_name(cell.fabric).to_owned(),
            cell.injected.to_string(),
        ];
        let each = counts(cell);
        figures.extend(
            each.into_iter()
                .map(|(_, count)| per(count, cell.requests.completed)),
        );
        figures.push(median(cell.stall));
        figures.push(median(cell.io_stall));
        let name = placement(cell.placement).id;
        match rows.iter_mut().find(|row| row.figures == figures) {
            Some(row) => row.placements.push(name),
            None => rows.push(Row {
                placements: vec![name],
                figures,
            }),
        }
    }
    rows
}

pub(super) fn section(summary: &Summary) -> Markup {
    let rows = rows(summary);
    let columns: Vec<String> = summary
        .cells
        .iter()
        .find(|cell| cell.costs.is_some())
        .map(counts)
        .unwrap_or_default()
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    html! {
        section aria-labelledby="costs" {
            h2 #costs { "What a request costs without faults" }
            p {
                "Events for each completed request of a tenant, counted in the clean trials: true \
                 on any host. The two times are medians of device time, the model's. "
                b { "What a crossing takes is not in this run: " }
                (summary.environment.caveat) "."
            }
            @if rows.is_empty() {
                p { "This run has no clean trials." }
            } @else {
                div.scroll tabindex="0" { table {
                    caption.hidden { "Counted costs for each request, by placement and driver" }
                    thead { tr {
                        th scope="col" { "placement" } th scope="col" { "driver" }
                        th scope="col" { "IOMMU" } th scope="col" { "fabric" }
                        th.num scope="col" { "n" }
                        @for column in &columns { th.num scope="col" { (column) } }
                        th.num scope="col" { "longest gap" } th.num scope="col" { "longest request" }
                    } }
                    tbody {
                        @for row in &rows {
                            tr {
                                th scope="row" { (row.placements.join(", ")) }
                                @for figure in &row.figures { td.num { (figure) } }
                            }
                        }
                    }
                } }
            }
            (memory(summary))
        }
    }
}

/// What the domains of a placement keep in memory.
fn memory(summary: &Summary) -> Markup {
    let _ = summary;
    html! {}
}
