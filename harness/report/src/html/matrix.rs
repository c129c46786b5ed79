//! The containment matrix as a heat map.

use super::words::{means, says, symbol, time};
use crate::matrix::{Group, Line, Matrix, Square};
use crate::quantity::percent;
use cofferdam_experiment::catalogue::{driver, placement};
use cofferdam_experiment::statistics::Flag;
use cofferdam_experiment::verdict::Outcome;
use maud::{Markup, html};
use std::collections::BTreeSet;

/// What links from a square to its trials: which details it stands for.
pub(super) fn anchor(case: &str) -> String {
    format!("c-{case}")
}

pub(super) fn section(matrix: &Matrix<'_>) -> Markup {
    html! {
        section aria-labelledby="matrix" {
            h2 #matrix { "The containment matrix" }
            p {
                "A sign for the worst outcome, and how many of the activated trials stayed "
                "contained. Striped: settled by construction, it follows from the topology and the \
                 IOMMU mode. Solid: measured. Modes and fabrics that show the same share a line."
            }
            (legend())
            div.scroll tabindex="0" role="region" aria-label="Containment matrix" {
                table.heat {
                    caption.hidden {
                        "Faults down, placements across: worst outcome and contained trials"
                    }
                    (head(matrix))
                    @for group in &matrix.groups {
                        tbody { (overview(group, matrix.placements.len())) }
                    }
                }
            }
        }
    }
}

fn legend() -> Markup {
    html! {
        ul.legend {
            @for outcome in Outcome::ALL.into_iter().filter(|each| *each != Outcome::Clean) {
                li title=(means(outcome)) {
                    span class={ "key " (outcome.name()) } aria-hidden="true" { (symbol(outcome)) }
                    " " (says(outcome))
                }
            }
            li { span.key.settled aria-hidden="true" { "=" } " by construction" }
            li { b { "\u{2265}" } " times are \"at least\"" }
            li { b { "?" } " unstable by the wall clock" }
            li { "counts without % : n\u{a0}<\u{a0}30 in a cell" }
            li { "\u{2014} does not exist" }
        }
    }
}

/// The line of column headings.
pub(super) fn head(matrix: &Matrix<'_>) -> Markup {
    html! {
        thead { tr {
            th scope="col" { "fault" }
            @for &id in &matrix.placements {
                th scope="col" title=(placement(id).line) { (placement(id).id) }
            }
        } }
    }
}

/// A fault as a whole.
fn overview(group: &Group<'_>, placements: usize) -> Markup {
    html! {
        @for (at, line) in group.lines.iter().enumerate() {
            tr.first[at == 0] {
                th scope="row" {
                    @if at == 0 {
                        a href={ "#f-" (group.fault) } { b { (group.fault) } " " (group.says) }
                    } @else {
                        span.hidden { (group.fault) " " }
                    }
                    small { (line_name(line)) }
                }
                (squares(line, placements, &format!("f-{}", group.fault)))
            }
        }
    }
}

/// On which platforms, and whether it is settled.
pub(super) fn line_name(line: &Line<'_>) -> Markup {
    html! {
        (line.platform)
        @if line.by_construction() {
            @if !line.platform.is_empty() { ", " }
            "= by construction"
        }
    }
}

/// The squares of a line; one for all where all show the same.
pub(super) fn squares(line: &Line<'_>, placements: usize, link: &str) -> Markup {
    html! {
        @if placements > 1 && line.is_uniform() && line.by_construction() {
            @if let Some(Some(first)) = line.squares.first() {
                (square(first, placements, link))
            }
        } @else {
            @for each in &line.squares {
                @match each {
                    None => td.none { span aria-label="does not exist" { "\u{2014}" } },
                    Some(each) => (square(each, 1, link)),
                }
            }
        }
    }
}

fn square(square: &Square<'_>, span: usize, link: &str) -> Markup {
    let tally = square.tally();
    let few = square.flagged(Flag::Few);
    let class = if square.by_construction() {
        "settled"
    } else {
        "measured"
    };
    let share = || percent(f64::from(tally.contained) / f64::from(tally.activated));
    html! {
        td class={ (tally.worst.name()) " " (class) } colspan=[(span > 1).then_some(span)] {
            a href={ "#" (link) } title=(title(square)) {
                span.sign aria-label=(says(tally.worst)) { (symbol(tally.worst)) }
                " "
                @if tally.activated > 0 && !few { (share()) " " }
                span.n { (tally.contained) "/" (tally.activated) }
                @if square.flagged(Flag::Censored) { sup title="censored" { "\u{2265}" } }
                @if square.flagged(Flag::Unstable) { sup title="unstable" { "?" } }
                @if span > 1 { " in each" }
            }
        }
    }
}

/// What a square shows, in words.
fn title(square: &Square<'_>) -> String {
    let tally = square.tally();
    let drivers: BTreeSet<&str> = square
        .cells
        .iter()
        .map(|cell| driver(cell.driver).id)
        .collect();
    let drivers: Vec<&str> = drivers.into_iter().collect();
    let mut text = format!(
        "{} in {} of {}, contained in {}; {} cells, drivers {}",
        says(tally.worst),
        tally.times,
        tally.activated,
        tally.contained,
        square.cells.len(),
        drivers.join(", ")
    );
    if let Some(stall) = square.stall().filter(|stall| *stall > 0) {
        text.push_str(&format!("; stall {}", time(stall)));
    }
    if let Some(back) = square.recovery() {
        text.push_str(&format!("; served again after {}", time(back)));
    }
    text
}
