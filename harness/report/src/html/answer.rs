//! The answer: what is not settled by construction, in sentences made from the counts.

use super::words::{label, list, many, places, says, symbol, time};
use crate::campaign;
use crate::factors::{Decided, Factor, Score, decided, scores};
use cofferdam_experiment::catalogue::{clock_name, driver, fault_named, placement};
use cofferdam_experiment::gates::{Disagreement, GateResult};
use cofferdam_experiment::statistics::ENOUGH;
use cofferdam_experiment::summary::{State, Summary};
use cofferdam_experiment::verdict::Outcome;
use cofferdam_machine::config::IommuMode;
use cofferdam_placement::trial::PlacementId;
use maud::{Markup, html};
use std::collections::{BTreeMap, BTreeSet};

/// Faults a sentence spells out; the others are named.
const IN_FULL: usize = 4;

pub(super) fn section(summary: &Summary) -> Markup {
    let (scores, common) = scores(summary);
    let cases = decided(summary);
    html! {
        h1 { "Where should a driver live?" }
        (notices(summary))
        @if let Some(lead) = lead(&scores) { p.lead { (lead) } }
        @if let Some(deciding) = deciding(&cases) { p.lead { (deciding) } }
        (scoreboard(&scores, common))
        h2 #answer { "What the placement does not settle, and what it does" }
        ul.answers {
            @for sentence in sentences(summary, &cases) { li { (sentence) } }
        }
        (disagreements(summary))
        (run(summary))
    }
}

/// The first sentence: who contained most.
fn lead(scores: &[Score]) -> Option<Markup> {
    let (best, worst) = (scores.first()?, scores.last()?);
    let alike = |one: &Score| {
        let same = |other: &&Score| {
            (other.contained, other.activated, other.system_lost)
                == (one.contained, one.activated, one.system_lost)
        };
        places(scores.iter().filter(same).map(|score| score.placement))
    };
    let share = |score: &Score| (score.contained, score.activated);
    Some(if scores.len() == 1 {
        html! {
            "Struck the same way, " b { (alike(best)) } " contained " (best.contained) " of "
            (best.activated) " faults."
        }
    } else if share(best) == share(worst) {
        html! {
            "Where the driver lives made no difference: every placement contained "
            (best.contained) " of " (best.activated) " strikes."
        }
    } else {
        html! {
            "Struck the same way, " b { (alike(best)) } " contained " b { (best.contained) } " of "
            (best.activated) " faults and lost the system " (times(best.system_lost)) "; "
            b { (alike(worst)) } " contained " b { (worst.contained) } " and lost it "
            (times(worst.system_lost)) "."
        }
    })
}

fn times(count: u32) -> String {
    match count {
        0 => "never".into(),
        1 => "once".into(),
        2 => "twice".into(),
        n => format!("{n} times"),
    }
}

fn scoreboard(scores: &[Score], common: usize) -> Markup {
    let parts = |score: &Score| {
        [
            (Outcome::Contained, score.contained),
            (Outcome::Disturbed, score.disturbed),
            (Outcome::TenantLost, score.tenant_lost),
            (Outcome::SilentCorruption, score.corrupted),
            (Outcome::SystemLost, score.system_lost),
        ]
    };
    html! {
        @if !scores.is_empty() {
            table.score {
                caption {
                    "Outcomes of the " (common) " cells that every placement has and that are not \
                     settled by construction; the same seeds in each. Shares of this plan, not \
                     failure rates of the field."
                }
                thead { tr {
                    th scope="col" { "driver in" }
                    th.wide scope="col" { "outcomes" }
                    @for (outcome, _) in parts(&scores[0]) {
                        th.num scope="col" {
                            span class={ "key " (outcome.name()) } aria-hidden="true" { (symbol(outcome)) }
                            span.long { " " (says(outcome)) }
                        }
                    }
                    th.num scope="col" { "n" }
                } }
                tbody {
                    @for score in scores {
                        tr {
                            th scope="row" { (placement(score.placement).id) }
                            td.wide { div.bar aria-hidden="true" {
                                @for (outcome, times) in parts(score) {
                                    @if times > 0 {
                                        span class=(outcome.name()) style={ "flex:" (times) }
                                            title={ (says(outcome)) ": " (times) } {}
                                    }
                                }
                            } }
                            @for (_, times) in parts(score) { td.num { (times) } }
                            td.num { (score.activated) }
                        }
                    }
                }
            }
        }
    }
}

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

fn sentences(summary: &Summary, cases: &[Decided<'_>]) -> Vec<Markup> {
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
fn deciding(cases: &[Decided<'_>]) -> Option<Markup> {
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
        "Of " (many(open.len(), "measured case")) ", "
        @if parts.is_empty() { "no choice changed any" } @else {
            b { (list(&parts)) } " changed the outcome"
        }
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
            let median = summary
                .placements
                .iter()
                .find(|each| each.placement == id)
                .and_then(|each| each.recovery)
                .map_or(String::new(), |spread| {
                    let sign = if spread.is_at_least(spread.median_ns) {
                        "at least "
                    } else {
                        ""
                    };
                    format!(" (median {sign}{})", time(spread.median_ns))
                });
            format!("{} {recovered} of {needed}{median}", placement(id).id)
        })
        .collect();
    (!parts.is_empty()).then(|| {
        html! {
            a href="#times" { b { "Back in service" } } " where the driver had to be reset or \
            restarted: " (list(&parts)) "."
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

fn disagreements(summary: &Summary) -> Markup {
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

fn notices(summary: &Summary) -> Markup {
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

fn run(summary: &Summary) -> Markup {
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
