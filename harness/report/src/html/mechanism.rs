//! What a crossing took on this host, beside a bare one that waits the same way.

use super::words::time;
use cofferdam_experiment::catalogue::placement;
use cofferdam_experiment::crossings::{Crossing, Crossings};
use cofferdam_experiment::environment::Mechanism;
use cofferdam_experiment::statistics::Spread;
use cofferdam_experiment::summary::Summary;
use cofferdam_placement::crossing::Waiting;
use maud::{Markup, html};

const fn waits(waiting: Waiting) -> &'static str {
    match waiting {
        Waiting::Spin => "both sides poll",
        Waiting::Sleep => "both sides sleep",
    }
}

pub(super) fn section(summary: &Summary) -> Markup {
    html! {
        h3 #mechanism { "Mechanism cost on this host" }
        @match &summary.crossings {
            None => p {
                "Not measured in this run: it was put together from several, continued one of an "
                "earlier version, or its host could not start the measurement."
            },
            Some(Crossings { why_none: Some(why), .. }) => p { "Not measured: " (why) "." },
            Some(crossings) => (table(crossings, summary.environment.guests)),
        }
    }
}

fn table(crossings: &Crossings, guests: Option<Mechanism>) -> Markup {
    html! {
        p {
            "There and back by the wall clock, before the first trial: a tenant's empty request in "
            "each placement, and a bare ping-pong of two processes over one word. Compare down a "
            "column, polling with polling and sleeping with sleeping. " b { "Only true of this host" }
            ", of processes as walls, and of a quiet moment; no verdict rests on it."
        }
        div.scroll tabindex="0" { table.times {
            caption {
                "Median of so many boots, n, of the mean of the round trips in each; 95 % by "
                "bootstrap over boots; factor over the bare crossing."
            }
            thead { tr {
                th scope="col" { "crossing" }
                @for waiting in [Waiting::Spin, Waiting::Sleep] {
                    th.num scope="col" { (waits(waiting)) } th.num scope="col" { "over bare" }
                }
            } }
            tbody {
                @for way in crossings.ways.iter().filter(|way| way.waiting == Waiting::Spin) {
                    tr {
                        th scope="row" {
                            (way.placement.map_or("bare ping-pong", |id| placement(id).id))
                            @if by(way, guests) != Mechanism::Process {
                                small { (by(way, guests).words()) }
                            }
                        }
                        @for waiting in [Waiting::Spin, Waiting::Sleep] {
                            (figures(crossings, way, waiting, by(way, guests)))
                        }
                    }
                }
            }
        } }
    }
}

/// What keeps the driver from its surroundings where that way leads.
fn by(way: &Crossing, guests: Option<Mechanism>) -> Mechanism {
    way.placement
        .map_or(Mechanism::Process, |id| Mechanism::of(id, guests))
}

fn figures(crossings: &Crossings, row: &Crossing, waiting: Waiting, by: Mechanism) -> Markup {
    let bare = crossings.bare(waiting);
    let own = match row.placement {
        None => bare,
        Some(id) => crossings.of(id, waiting),
    };
    let took = own.and_then(|own| own.took);
    let why = own.and_then(|own| own.why_not.as_deref());
    html! {
        @match took {
            None => td.num colspan="2" { "\u{2014}" small.why { (why.unwrap_or("not measured")) } },
            Some(took) => {
                td.num {
                    (time(took.median_ns))
                    small {
                        @if let Some(range) = took.median_interval {
                            (time(range.low_ns)) " to " (time(range.high_ns)) ", "
                        }
                        "n\u{a0}" (took.n)
                    }
                }
                td.num {
                    @if !by.times_compare() {
                        "not compared"
                    } @else if row.placement.is_some() {
                        (factor(took, bare.and_then(|bare| bare.took)))
                    }
                }
            }
        }
    }
}

/// How many times as long it took. Of a bare crossing that was disturbed, which its interval shows,
/// no multiple means anything.
fn factor(took: Spread, bare: Option<Spread>) -> String {
    let steady = |bare: &Spread| {
        bare.median_interval
            .is_none_or(|range| range.high_ns <= range.low_ns.saturating_mul(2))
    };
    match bare.filter(|bare| bare.median_ns > 0) {
        None => "-".to_owned(),
        Some(bare) if !steady(&bare) => "host was busy".to_owned(),
        Some(bare) => {
            let tenths = took.median_ns.saturating_mul(10) / bare.median_ns;
            format!("{}.{}\u{d7}", tenths / 10, tenths % 10)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cofferdam_experiment::statistics::bootstrap::Range;

    fn spread(median_ns: u64) -> Spread {
        Spread {
            n: 30,
            median_ns,
            median_interval: None,
            p99_ns: median_ns,
            p999_ns: median_ns,
            max_ns: median_ns,
            censored: 0,
            censored_from_ns: None,
        }
    }

    #[test]
    fn factor_has_a_digit_and_none_without_a_bare_crossing() {
        assert_eq!(factor(spread(551), Some(spread(124))), "4.4\u{d7}");
        assert_eq!(factor(spread(90), Some(spread(100))), "0.9\u{d7}");
        assert_eq!(factor(spread(551), None), "-");
        assert_eq!(factor(spread(551), Some(spread(0))), "-");
    }

    #[test]
    fn disturbed_bare_crossing_has_no_multiple() {
        let range = Range {
            low_ns: 4_000,
            high_ns: 1_490_000,
        };
        let bare = Spread {
            median_interval: Some(range),
            ..spread(27_500)
        };
        assert_eq!(factor(spread(551), Some(bare)), "host was busy");
    }
}
