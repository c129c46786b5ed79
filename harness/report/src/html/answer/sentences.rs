//! What decides which faults, how often service came back, and for how long: a sentence each.

use crate::factors::{Decided, Factor};
use crate::html::words::{list, many, places, says, time};
use cofferdam_experiment::catalogue::{driver, fault_named, placement};
use cofferdam_experiment::environment::Mechanism;
use cofferdam_experiment::statistics::Spread;
use cofferdam_experiment::summary::Summary;
use cofferdam_experiment::verdict::Outcome;
use cofferdam_machine::config::IommuMode;
use cofferdam_placement::trial::{ClockKind, PlacementId};
use maud::{Markup, html};
use std::collections::{BTreeMap, BTreeSet};

/// Faults a sentence spells out; the others are named.
const IN_FULL: usize = 4;

/// The faults of some cases and how many cases of each, the first few with their line from the
/// catalogue.
fn faults(cases: &[&Decided<'_>]) -> Markup {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for case in cases {
        match counts.iter_mut().find(|(fault, _)| *fault == case.fault) {
            Some((_, count)) => *count += 1,
            None => counts.push((case.fault, 1)),
        }
    }
    let (first, rest) = counts.split_at(counts.len().min(IN_FULL));
    html! {
        @for (at, (id, count)) in first.iter().enumerate() {
            @if at > 0 { "; " }
            a href={ "#f-" (id) } { (id) } " "
            (fault_named(id).map_or("", |fault| fault.line))
            @if *count > 1 { " (" (count) ")" }
        }
        @if !rest.is_empty() {
            "; and "
            @for (at, (id, count)) in rest.iter().enumerate() {
                @if at > 0 { ", " }
                a href={ "#f-" (id) } { (id) }
                @if *count > 1 { " (" (count) ")" }
            }
        }
    }
}

pub(super) fn sentences(summary: &Summary, cases: &[Decided<'_>]) -> Vec<Markup> {
    let open: Vec<&Decided<'_>> = cases.iter().filter(|case| !case.by_construction).collect();
    let places: BTreeSet<PlacementId> = open
        .iter()
        .flat_map(|case| case.outcomes.keys().copied())
        .collect();
    let count = places.len();
    [
        nothing_helps(&open, count),
        placement_decides(&open),
        others_decide(
            &open,
            Factor::Iommu,
            "The IOMMU mode, and not the wall, decides",
        ),
        others_decide(&open, Factor::Fabric, "The fabric decides"),
        drivers_differ(&open),
        always(&open, count),
        never_back(summary),
        recovery(summary),
        window(summary),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// In how many cases each choice changed anything.
pub(super) fn deciding(cases: &[Decided<'_>]) -> Option<Markup> {
    let open: Vec<&Decided<'_>> = cases.iter().filter(|case| !case.by_construction).collect();
    if open.is_empty() {
        return None;
    }
    let by = |factor| open.iter().filter(|case| case.by.contains(&factor)).count();
    let mut ranked: Vec<(usize, Factor)> = Factor::ALL
        .into_iter()
        .map(|factor| (by(factor), factor))
        .filter(|(count, _)| *count > 0)
        .collect();
    ranked.sort_by(|one, other| other.cmp(one));
    let parts: Vec<String> = ranked
        .iter()
        .map(|(count, factor)| format!("{} in {count}", factor.name()))
        .collect();
    let none = open.iter().filter(|case| case.by.is_empty()).count();
    Some(html! {
        "What changed the outcome, in " (many(open.len(), "measured case")) ": "
        @if parts.is_empty() { "no choice" } @else { b { (list(&parts)) } }
        "; nothing did in " (none) "."
    })
}

/// Cases in which nobody was spared, whatever the placement.
fn nothing_helps(open: &[&Decided<'_>], placements: usize) -> Option<Markup> {
    let lost: Vec<&Decided<'_>> = open
        .iter()
        .copied()
        .filter(|case| case.outcomes.len() == placements && case.never_contained())
        .collect();
    if lost.is_empty() || placements < 2 {
        return None;
    }
    let spared_by: BTreeSet<Factor> = lost
        .iter()
        .flat_map(|case| case.by.iter().copied())
        .filter(|factor| *factor != Factor::Placement)
        .collect();
    let softer: Vec<&str> = spared_by.into_iter().map(Factor::name).collect();
    Some(html! {
        b { "No wall contains" }
        " " (many(lost.len(), "case")) ": in all " (placements) " placements somebody else is hurt. "
        (faults(&lost))
        "."
        @if !softer.is_empty() { " What changes how badly: " (list(&softer)) "." }
    })
}

/// For each fault that the placement decides: who fared how.
fn placement_decides(open: &[&Decided<'_>]) -> Option<Markup> {
    let own: Vec<&Decided<'_>> = open
        .iter()
        .copied()
        .filter(|case| case.by.contains(&Factor::Placement))
        .collect();
    if own.is_empty() {
        return None;
    }
    let mut by_fault: BTreeMap<&str, BTreeMap<PlacementId, Outcome>> = BTreeMap::new();
    for case in &own {
        let worst = by_fault.entry(case.fault).or_default();
        for (id, outcomes) in &case.outcomes {
            if let Some(outcome) = outcomes.last() {
                let known = worst.entry(*id).or_insert(*outcome);
                *known = (*known).max(*outcome);
            }
        }
    }
    Some(html! {
        b { "The wall decides" } " " (many(own.len(), "case")) ". At worst: "
        @for (at, (fault, worst)) in by_fault.iter().take(5).enumerate() {
            @if at > 0 { "; " }
            a href={ "#f-" (fault) } { (fault) } " "
            (fault_named(fault).map_or("", |entry| entry.line)) ", "
            (fates(worst))
        }
        @if by_fault.len() > 5 { "; and " (many(by_fault.len() - 5, "other fault")) }
        "."
    })
}

/// `contained in a and b, system lost in c`, mildest first.
fn fates(worst: &BTreeMap<PlacementId, Outcome>) -> String {
    let mut by_outcome: BTreeMap<Outcome, Vec<PlacementId>> = BTreeMap::new();
    for (id, outcome) in worst {
        by_outcome.entry(*outcome).or_default().push(*id);
    }
    let parts: Vec<String> = by_outcome
        .into_iter()
        .map(|(outcome, ids)| format!("{} in {}", says(outcome), places(ids)))
        .collect();
    parts.join(", ")
}

/// Cases that another choice decides and the placement does not.
fn others_decide(open: &[&Decided<'_>], factor: Factor, says: &str) -> Option<Markup> {
    let own: Vec<&Decided<'_>> = open
        .iter()
        .copied()
        .filter(|case| case.by.contains(&factor) && !case.by.contains(&Factor::Placement))
        .collect();
    (!own.is_empty()).then(|| {
        html! { b { (says) } " " (many(own.len(), "case")) ". " (faults(&own)) "." }
    })
}

/// Drivers that take the same lie differently.
fn drivers_differ(open: &[&Decided<'_>]) -> Option<Markup> {
    let own: Vec<&Decided<'_>> = open
        .iter()
        .copied()
        .filter(|case| case.by.contains(&Factor::Driver))
        .collect();
    if own.is_empty() {
        return None;
    }
    let mut fared: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
    for cell in own.iter().flat_map(|case| &case.cells) {
        let (contained, activated) = fared.entry(driver(cell.driver).id).or_default();
        *contained = contained.saturating_add(cell.contained);
        *activated = activated.saturating_add(cell.activated);
    }
    let parts: Vec<String> = fared
        .into_iter()
        .map(|(id, (contained, activated))| format!("{id} {contained} of {activated}"))
        .collect();
    Some(html! {
        b { "Drivers differ" } " in " (many(own.len(), "case"))
        " under the same lies. Contained there: " (list(&parts)) "."
    })
}

/// Cases that every placement contains.
fn always(open: &[&Decided<'_>], placements: usize) -> Option<Markup> {
    let own: Vec<&Decided<'_>> = open
        .iter()
        .copied()
        .filter(|case| case.outcomes.len() == placements && case.always_contained())
        .collect();
    (!own.is_empty()).then(|| {
        html! {
            b { "Harmless everywhere" } ": " (many(own.len(), "case"))
            " stayed with the driver in every trial of every placement. " (faults(&own)) "."
        }
    })
}

/// In how many trials a tenant or the system never came back.
fn never_back(summary: &Summary) -> Option<Markup> {
    let stalls: Vec<_> = summary
        .placements
        .iter()
        .filter_map(|each| Some((placement(each.placement).id, each.stall?)))
        .collect();
    if stalls.iter().all(|(_, stall)| stall.censored == 0) {
        return None;
    }
    let parts: Vec<String> = stalls
        .iter()
        .map(|(id, stall)| format!("{id} {} of {}", stall.censored, stall.n))
        .collect();
    Some(html! {
        a href="#times" { b { "Stalled for good" } } ", a tenant or the system lost to the end of "
        "the trial: " (list(&parts)) "."
    })
}

/// A time in words, "at least" if that is all that is known.
fn at_least(of: &Spread, ns: u64) -> String {
    let sign = if of.is_at_least(ns) { "at least " } else { "" };
    format!("{sign}{}", time(ns))
}

fn recovery(summary: &Summary) -> Option<Markup> {
    let mut by: BTreeMap<PlacementId, (u32, u32)> = BTreeMap::new();
    for cell in &summary.cells {
        let (recovered, needed) = by.entry(cell.placement).or_default();
        *recovered = recovered.saturating_add(cell.recovery.recovered);
        *needed = needed.saturating_add(cell.recovery.needed);
    }
    let parts: Vec<String> = by
        .into_iter()
        .filter(|(_, (_, needed))| *needed > 0)
        .map(|(id, (recovered, needed))| {
            let own = summary.placements.iter().find(|each| each.placement == id);
            let median = own
                .and_then(|each| each.recovery.zip(each.recovery_net))
                .map_or(String::new(), |(gross, net)| {
                    let at = |spread: Spread| at_least(&spread, spread.median_ns);
                    match gross.median_ns == net.median_ns {
                        true => format!(" (median {})", at(gross)),
                        false => format!(" (median {}; net {})", at(gross), at(net)),
                    }
                });
            // By the leap clock emulation takes no time.
            let by = Mechanism::of(id, summary.environment.guests);
            let marked = summary.settings.clock == ClockKind::Wall && !by.times_compare();
            let by = if marked {
                format!(" by {}, not to be ranked", by.words())
            } else {
                String::new()
            };
            format!("{} {recovered} of {needed}{median}{by}", placement(id).id)
        })
        .collect();
    (!parts.is_empty()).then(|| {
        html! {
            a href="#times" { b { "Back in service" } } " where the driver had to be reset or \
            restarted; medians over all of these, and over those that came back net of the waits \
            that resets demand: "
            (list(&parts)) "."
        }
    })
}

/// For how long an unmapped page stayed reachable by the address it had. (D7 gives the address to
/// another buffer, which is reached by right of its own mapping.)
fn window(summary: &Summary) -> Option<Markup> {
    let longest = |mode: IommuMode| {
        let cells = summary.cells.iter();
        let cells = cells.filter(|cell| cell.iommu == mode && cell.fault == "D6");
        cells.filter_map(|cell| cell.stray.stale_window_ns).max()
    };
    let lazy = longest(IommuMode::Lazy)?;
    Some(html! {
        b { "A lazy IOMMU" } " let a device write up to " (time(lazy)) " after the unmapping; "
        @match longest(IommuMode::Strict) {
            None => "a strict one never did.",
            Some(strict) => { "a strict one up to " (time(strict)) "." }
        }
    })
}
