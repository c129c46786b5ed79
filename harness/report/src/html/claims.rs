//! The claims of the argument, and what this run says to each.

use super::words::{many, rate};
use cofferdam_experiment::claims::{CLAIMS, Holding};
use cofferdam_experiment::summary::Summary;
use maud::{Markup, html};

const fn class(holding: &Holding) -> &'static str {
    match holding {
        Holding::Holds => "holds",
        Holding::DoesNotHold => "not",
        Holding::OnlyIf(_) => "partly",
        Holding::Undecided => "open",
    }
}

pub(super) fn section(summary: &Summary) -> Markup {
    html! {
        section aria-labelledby="claims" {
            h2 #claims { "The argument of 2007, claim by claim" }
            p.soft {
                "Each verdict follows from this run's cells by a fixed rule; another run may judge \
                 otherwise. Intervals are Clopper-Pearson, 95 %."
            }
            @for claim in &CLAIMS {
                @let judged = claim.judge(summary);
                article.claim #{ "claim-" (claim.id) } {
                    h3 { q { (claim.words) } }
                    p {
                        span class={ "verdict " (class(&judged.holding)) } {
                            (judged.holding.words())
                        }
                        @if judged.is_few() { " " span.soft { "(in counts; n < 30 on a side)" } }
                    }
                    p { (judged.because) }
                    details {
                        summary { "What bears on it" }
                        p.inside.soft { (claim.cells) "." }
                        @if !judged.evidence.is_empty() {
                            div.scroll tabindex="0" { table {
                                caption.hidden { "Counts behind the verdict" }
                                thead { tr {
                                    th scope="col" { "event" } th.num scope="col" { "share, 95 %" }
                                    th scope="col" { "cells" }
                                } }
                                tbody {
                                    @for each in &judged.evidence {
                                        tr {
                                            th scope="row" { (each.what) }
                                            td.num { (rate(&each.share)) }
                                            td {
                                                (many(usize::try_from(each.cells).unwrap_or(0), "cell")) ": "
                                                @for fault in &each.faults {
                                                    a href={ "#f-" (fault) } { (fault) } " "
                                                }
                                            }
                                        }
                                    }
                                }
                            } }
                        }
                    }
                }
            }
        }
    }
}
