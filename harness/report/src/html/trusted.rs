//! The trusted base: lines of code inside the wall, by domain and placement.

use super::words::list;
use cofferdam_experiment::catalogue::trusted::{self, Part};
use cofferdam_experiment::catalogue::{driver, placement};
use cofferdam_experiment::summary::Summary;
use cofferdam_placement::placement::Role;
use cofferdam_placement::trial::{DriverId, PlacementId};
use maud::{Markup, html};
use std::collections::BTreeSet;

pub(super) fn section(summary: &Summary) -> Markup {
    let places: BTreeSet<PlacementId> = summary.cells.iter().map(|cell| cell.placement).collect();
    let drivers: BTreeSet<DriverId> = summary.cells.iter().map(|cell| cell.driver).collect();
    html! {
        h3 #trusted { "Trusted base" }
        p {
            "Lines of code that move with the driver, and the domain they stand in: what is in the "
            "privileged domain everybody has to trust. Rust without blank lines, comments and tests, "
            "counted from the sources this program was built of. " b { "Not counted: " }
            "the kernel of this host, on which all these walls rest and which is not ours; Rust's own "
            "library and small crates that others build on; the machine, which plays hardware and "
            "IOMMU driver. A root operating system is not there, so its lines are not either."
        }
        div.scroll tabindex="0" { table {
            caption.hidden { "Lines of code by placement, domain and driver" }
            thead { tr {
                th scope="col" { "placement" } th scope="col" { "domain" }
                th scope="col" { "holds" }
                @for id in &drivers { th.num scope="col" { (driver(*id).id) } }
            } }
            tbody { @for id in &places { (rows(*id, &drivers)) } }
        } }
        details {
            summary { "What was counted, part by part" }
            div.scroll tabindex="0" { table {
                caption.hidden { "Lines of each part" }
                thead { tr { th scope="col" { "of" } th scope="col" { "parts: lines" } } }
                tbody {
                    @for id in &drivers {
                        tr {
                            th scope="row" { "driver " (driver(*id).id) }
                            td { (counted(&trusted::parts(trusted::driver(*id)))) }
                        }
                    }
                    tr {
                        th scope="row" { "server: the driver's side of a request" }
                        td { (counted(&trusted::parts(&trusted::SERVER))) }
                    }
                    tr {
                        th scope="row" { "carrier between tenants and server" }
                        td { (counted(&trusted::parts(&trusted::CARRIER))) }
                    }
                }
            } }
        }
    }
}

fn counted(parts: &[Part]) -> String {
    if parts.is_empty() {
        return "a user's: not counted".to_owned();
    }
    let each: Vec<String> = parts
        .iter()
        .map(|part| {
            let lines = part
                .lines
                .map_or("sources not at hand".to_owned(), |lines| lines.to_string());
            format!("{} {} {lines}", part.name, part.version).replace("  ", " ")
        })
        .collect();
    list(&each)
}

fn rows(id: PlacementId, drivers: &BTreeSet<DriverId>) -> Markup {
    let of = placement(id);
    let names = |privileged: bool| -> String {
        let domains = of.domains.iter().filter(|domain| {
            domain.privileged == privileged && (privileged || domain.role.holds_driver())
        });
        let names: Vec<&str> = domains.map(|domain| domain.name).collect();
        list(&names)
    };
    let inside = of.driver_is_privileged();
    let carries = of.domains.iter().any(|domain| domain.role == Role::Carries);
    let privileged = match (inside, carries) {
        (true, _) => "driver, its libraries, server",
        (false, true) => "carrier",
        (false, false) => "nothing of the driver's",
    };
    let figure = |lines: Option<u32>| lines.map_or("-".to_owned(), |lines| lines.to_string());
    let line = |own: bool| {
        html! {
            @for &each in drivers {
                @let base = trusted::base(of, each);
                td.num {
                    (figure(base.and_then(|base| if own { base.own } else { base.privileged })))
                }
            }
        }
    };
    html! {
        tr {
            th scope="row" { (of.id) }
            td { (names(true)) small { "privileged" } } td { (privileged) } (line(false))
        }
        @if !inside {
            tr {
                th scope="row" { span.hidden { (of.id) } }
                td { (names(false)) small { "the driver's" } }
                td { "driver, its libraries, server" } (line(true))
            }
        }
    }
}
