//! The answer: what is not settled by construction, in sentences made from the counts.

mod contradictions;
mod run;
mod sentences;

use super::words::{places, says, symbol};
use crate::factors::{Score, Scores, decided, scores};
use cofferdam_experiment::catalogue::placement;
use cofferdam_experiment::summary::Summary;
use cofferdam_experiment::verdict::Outcome;
use maud::{Markup, html};

pub(super) fn section(summary: &Summary) -> Markup {
    let compared = scores(summary);
    let cases = decided(summary);
    html! {
        h1 { "Where should a driver live?" }
        (run::notices(summary))
        @if let Some(lead) = lead(&compared.scores) { p.lead { (lead) } }
        @if let Some(deciding) = sentences::deciding(&cases) { p.lead { (deciding) } }
        (scoreboard(&compared))
        h2 #answer { "What the placement does not settle, and what it does" }
        ul.answers {
            @for sentence in sentences::sentences(summary, &cases) { li { (sentence) } }
        }
        (contradictions::section(summary))
        (run::facts(summary))
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

fn scoreboard(compared: &Scores) -> Markup {
    let scores = &compared.scores;
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
                    "Outcomes of the " (compared.common) " cells that every placement here has and that are \
                     not settled by construction; the same seeds in each. Shares of this plan, not \
                     failure rates of the field."
                    @if !compared.left_out.is_empty() {
                        " Not here, because they are tried in too few of these cells: "
                        (places(compared.left_out.iter().copied())) "; what struck them is below."
                    }
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
            ul.legend.narrow aria-hidden="true" {
                @for (outcome, _) in parts(&scores[0]) {
                    li { span class={ "key " (outcome.name()) } { (symbol(outcome)) } " " (says(outcome)) }
                }
            }
        }
    }
}
