//! Linux's own driver before controllers that lie, beside our driver in our kernel: a table on the
//! terminal and a section of the page.

use crate::html::says;
use cofferdam_experiment::catalogue::iommu_name;
use cofferdam_experiment::summary::{CellSummary, Summary};
use cofferdam_placement::trial::{DriverId, PlacementId};
use cofferdam_reality::linux::{Outcome, Trial};
use maud::{Markup, html};
use serde_json::Value;
use std::fmt::Write;

/// What the same fault did to our driver of NVMe in our kernel under the same IOMMU mode, in a few words.
fn in_kernel(summary: &Summary, trial: &Trial) -> String {
    let like = |cell: &&CellSummary| {
        cell.placement == PlacementId::InKernel
            && cell.driver == DriverId::Nvme
            && cell.fault == trial.fault
            && cell.iommu == trial.iommu
    };
    let of = |all: &dyn Fn(&&CellSummary) -> bool| {
        let cells = summary.cells.iter().filter(like).filter(|cell| all(cell));
        let worst = cells.clone().filter_map(CellSummary::worst);
        let worst = worst.map(|(outcome, _)| outcome).max()?;
        let (mut times, mut activated) = (0, 0);
        for cell in cells {
            times += cell.outcomes.get(&worst).copied().unwrap_or(0);
            activated += cell.activated;
        }
        Some(format!("{} {times}/{activated}", says(worst)))
    };
    of(&|cell| cell.case == trial.case)
        .or_else(|| of(&|_| true).map(|words| format!("{words} (its other cases)")))
        .unwrap_or_else(|| "not in this plan".to_owned())
}

/// Milliseconds that the guest's agent told of.
fn told(told: &Value, what: &str) -> String {
    let told = told[what].as_u64();
    told.map_or_else(|| "\u{2014}".to_owned(), |ms| format!("{ms} ms"))
}

/// The table for a terminal, empty if no liar was met.
pub fn table(summary: &Summary, trials: &[Trial]) -> String {
    let Some(first) = trials.first() else {
        return String::new();
    };
    let mut out = format!(
        "\nLinux's own driver of NVMe ({}) before controllers that lie\n",
        first.kernel
    );
    for trial in trials {
        let _ = writeln!(
            out,
            "{:<27}{:<9}{:<19}{}",
            trial.case,
            iommu_name(trial.iommu),
            trial.outcome.words(),
            in_kernel(summary, trial),
        );
        if let Some(machine) = &trial.machine {
            let others = trial.told["others"].as_array().into_iter().flatten();
            let longest: Vec<String> = others.map(|one| told(one, "longest_ms")).collect();
            let stall = told(&trial.told, "stall_ms");
            let _ = writeln!(
                out,
                "  {machine}: nobody ran for {stall}; honest disks: {}",
                longest.join(", "),
            );
        }
    }
    out.push_str(
        "(case, IOMMU, Linux, our driver in-kernel: worst outcome of the activated trials)\n",
    );
    out
}

/// The page's section, empty if no liar was met.
pub fn section(summary: &Summary, trials: &[Trial]) -> Markup {
    html! {
        @if let Some(first) = trials.first() {
            section aria-labelledby="linux" {
                h2 #linux { "Linux before controllers that lie" }
                p {
                    "The driver of NVMe of Linux " (first.kernel) ", unmodified, in a guest, and a controller "
                    "of ours, served to it, that lies once; by the guest's own words. Beside it our driver "
                    "in our kernel before the same fault under the same IOMMU mode: its worst outcome, and in "
                    "how many of the activated trials. Linux waits 2 s for a request here, not 30; its "
                    "times are those of an emulated machine."
                }
                div.scroll tabindex="0" { table {
                    caption.hidden { "Faults, Linux and our kernel" }
                    thead { tr {
                        th scope="col" { "case" } th scope="col" { "IOMMU" } th scope="col" { "Linux" }
                        th scope="col" { "nobody ran for" } th scope="col" { "our in-kernel" }
                        th scope="col" { "the guest's words" }
                    } }
                    tbody {
                        @for one in trials {
                            tr {
                                th scope="row" {
                                    (one.case)
                                    @if let Some(machine) = &one.machine { small { (machine) } }
                                }
                                td { (iommu_name(one.iommu)) }
                                td {
                                    (one.outcome.words())
                                    @if one.outcome == Outcome::IoError {
                                        small { (one.told["errors"]) " of 32 requests" }
                                    }
                                }
                                td {
                                    (told(&one.told, "stall_ms"))
                                    @for other in one.told["others"].as_array().into_iter().flatten() {
                                        small {
                                            "longest read of an honest disk: "
                                            (told(other, "longest_ms"))
                                        }
                                    }
                                }
                                td { (in_kernel(summary, one)) }
                                td.soft { @for line in &one.evidence { small { (line) } } }
                            }
                        }
                    }
                } }
            }
        }
    }
}
