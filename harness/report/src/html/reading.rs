//! What the words mean.

use super::words::{means, says, symbol};
use cofferdam_experiment::catalogue::{DRIVERS, FABRICS, IOMMU_MODES, PLACEMENTS};
use cofferdam_experiment::verdict::Outcome;
use maud::{Markup, html};

pub(super) fn section() -> Markup {
    html! {
        h2 { "How to read this" }
        div.scroll tabindex="0" { table {
            caption.hidden { "Outcomes" }
            thead { tr { th scope="col" { "outcome" } th scope="col" { "means" } } }
            tbody {
                @for outcome in Outcome::ALL.into_iter().filter(|each| *each != Outcome::Clean) {
                    tr {
                        th scope="row" { span class={ "key " (outcome.name()) } { (symbol(outcome)) } " " (says(outcome)) }
                        td { (means(outcome)) }
                    }
                }
            }
        } }
        h3 { "Placements" }
        dl {
            @for entry in PLACEMENTS.iter() {
                dt { (entry.id) }
                dd {
                    (entry.line) span.soft { ". Stands for " (entry.stands_for) ". A tenant's way: "
                    (entry.crossing) }
                }
            }
        }
        h3 { "Drivers" }
        dl {
            @for entry in DRIVERS.iter() { dt { (entry.id) } dd { (entry.line) } }
        }
        h3 { "IOMMU modes and fabrics" }
        dl {
            @for item in &IOMMU_MODES { dt { (item.id) } dd { (item.line) } }
            @for item in &FABRICS { dt { (item.id) } dd { (item.line) } }
        }
        h3 { "Limits" }
        p {
            "Walls are processes with their own mappings; devices, IOMMU and fabric are models. \
             So who is hurt is measured on real walls, how long it lasts is device time of the \
             model, and no figure includes the cost of traps or nested paging."
        }
    }
}
