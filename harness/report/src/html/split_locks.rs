//! What split locks by the driver's CPU cost a bystander on another core (B8).

use crate::split_locks::{KINDS, Kind, factor, line, price};
use cofferdam_experiment::catalogue::placement;
use cofferdam_experiment::split_locks::{Read, SplitLocks};
use cofferdam_experiment::summary::Summary;
use maud::{Markup, html};

pub(super) fn section(summary: &Summary) -> Markup {
    html! {
        h3 #split-locks { "Split locks against a bystander" }
        @match &summary.split_locks {
            None => p {
                "Not measured in this run: it is small, or was put together from several. "
                code { "cofferdam split-lock" } " measures it by itself."
            },
            Some(found) => (table(found)),
        }
    }
}

fn table(found: &SplitLocks) -> Markup {
    html! {
        p {
            "A locked increment across two cache lines locks the bus against every core. For 20 ms the "
            "driver's CPU makes as many as it can, and tenant 2, on another core, times reads of its "
            "own memory. The control is the same loop within one line. By the wall clock, before the "
            "first trial, the two in turn. " b { "Only true of this host" }
            ": of its processor, and of what else it did."
        }
        div.scroll tabindex="0" { table.times {
            caption {
                "Of each trial the median; median of the trials, 95 % by bootstrap over boots; factor "
                "over the control."
            }
            thead { tr {
                th scope="col" { "driver in" } th scope="col" { "tenant 2 reads" }
                th.num scope="col" { "before" } th.num scope="col" { "control" }
                th.num scope="col" { "split locks" } th.num scope="col" { "factor" }
            } }
            tbody {
                @for way in &found.ways {
                    @for (nth, (name, of)) in KINDS.into_iter().enumerate() {
                        tr {
                            @if nth == 0 {
                                th scope="row" rowspan="2" {
                                    (placement(way.placement).id)
                                    small {
                                        (way.mechanism.words()) ", " (way.pairs) " pairs, "
                                        (way.activated) " storms were activated, "
                                        (way.ended) " were ended; " (price(way))
                                        @if let Some(why) = &way.why_not { "; " (why) }
                                    }
                                }
                            }
                            td { (name) }
                            @for read in [&way.quiet, &way.aligned, &way.split] {
                                td.num { (figure(read.as_ref(), of)) }
                            }
                            td.num { (factor(way, of)) }
                        }
                    }
                }
            }
        } }
        p {
            "What this host could do about it: "
            @for (nth, fact) in found.host.iter().enumerate() {
                @if nth > 0 { "; " }
                (fact.name) ": " (fact.value)
            }
            "."
        }
    }
}

fn figure(read: Option<&Read>, of: Kind) -> String {
    read.map_or_else(|| "\u{2014}".to_owned(), |read| line(of(read)))
}
