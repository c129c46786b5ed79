//! What was run, whether its gates held, and what to know before believing it.

use crate::campaign;
use crate::html::words::{many, time};
use cofferdam_experiment::catalogue::{clock_name, placement};
use cofferdam_experiment::gates::GateResult;
use cofferdam_experiment::statistics::ENOUGH;
use cofferdam_experiment::summary::{State, Summary};
use cofferdam_placement::placement::Wall;
use maud::{Markup, html};

pub(super) fn notices(summary: &Summary) -> Markup {
    html! {
        @match summary.state {
            State::Complete => {}
            State::Interrupted => p.notice {
                b { "Partial. " } "The run was interrupted; what is here is true, but not all."
            }
            State::Aborted => p.notice {
                b { "Partial. " } "The harness failed too often to go on."
            }
        }
        @if !summary.infrastructure_failures.is_empty() {
            p.notice {
                b { (many(summary.infrastructure_failures.len(), "trial")) " could not be run. " }
                "Infrastructure failures count as nothing else. The last words of the first: "
                code { (summary.infrastructure_failures.first().map_or("", |first| &first.what)) }
            }
        }
        @for gate in summary.gates.iter().filter(|gate| gate.result == GateResult::Failed) {
            p.notice {
                b { "Gate failed: " (gate.name) ". " } (gate.asks) ": not so in " (gate.failed)
                " of " (gate.checked) ". Believe no figure before this is understood."
            }
        }
    }
}

/// What the figures of placements with a guest are worth, if there are any.
fn of_guests(summary: &Summary) -> Option<String> {
    let (mut drivers, mut tenants) = (Vec::new(), Vec::new());
    for cell in &summary.cells {
        let entry = placement(cell.placement);
        let those = match (entry.needs_kvm(), entry.tenants) {
            (false, _) => continue,
            (true, Wall::Process) => &mut drivers,
            (true, Wall::Guest) => &mut tenants,
        };
        if !those.contains(&entry.id) {
            those.push(entry.id);
        }
    }
    let guests = summary.environment.guests?;
    let said = [(drivers, "the driver is"), (tenants, "the tenants are")];
    let said = said.into_iter().filter(|(those, _)| !those.is_empty());
    let said: Vec<String> = said
        .map(|(those, who)| format!("in {} {who} in a guest", those.join(", ")))
        .collect();
    (!said.is_empty()).then(|| {
        let times = if guests.times_compare() {
            ""
        } else {
            ", whose exits are counted and whose times by the wall clock stand beside no others"
        };
        format!(
            "Guests are by {}{times}: {}.",
            guests.words(),
            said.join("; ")
        )
    })
}

pub(super) fn facts(summary: &Summary) -> Markup {
    let settings = &summary.settings;
    let activated: u32 = summary.cells.iter().map(|cell| cell.activated).sum();
    html! {
        p.soft {
            (summary.finished) " of " (summary.planned) " trials finished, " (settings.trials)
            " planned for each cell; a fault acted in " (activated) ". Seed " (settings.seed) ", "
            (clock_name(settings.clock)) " clock, " (settings.requests)
            " verified requests a tenant, " (time(settings.horizon_ns))
            " of device time at most. "
            @if settings.trials < ENOUGH {
                "With fewer than " (ENOUGH) " trials a cell, counts are shown and no rates. "
            }
            "Mechanism: " (summary.environment.caveat) "."
            @if let Some(guests) = of_guests(summary) { " " (guests) }
        }
        @if let Some(account) = &summary.campaign {
            p { (campaign::text(account)) }
        }
        ul.gates {
            @for gate in &summary.gates {
                @let (class, sign, result) = match gate.result {
                    GateResult::Passed => ("passed", "\u{2713} ", "held"),
                    GateResult::Failed => ("failed", "\u{2717} ", "failed"),
                    GateResult::NotRun => ("", "", "not part of this run"),
                    GateResult::Reported => ("", "\u{2248} ", "differs, as the wall clock may"),
                };
                li class=(class) title=(gate.asks) {
                    (sign) b { (gate.name) } " " (result)
                    @if gate.checked > 0 {
                        span.soft { " " (gate.checked.saturating_sub(gate.failed)) "/" (gate.checked) }
                    }
                }
            }
        }
    }
}
