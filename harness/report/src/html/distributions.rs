//! How stalls, detection and recovery spread, as a strip for each placement.
//!
//! A strip is an empirical distribution function over a logarithmic axis of time: filled up to the
//! share of trials that were over by then. What is censored never fills: the strip stays below its
//! top, and the rest has a colour of its own.

use super::words::{says_time, spread, time};
use cofferdam_experiment::catalogue::placement;
use cofferdam_experiment::environment::Mechanism;
use cofferdam_experiment::statistics::{Spread, Step};
use cofferdam_experiment::summary::{PlacementSummary, Summary};
use cofferdam_placement::trial::{ClockKind, PlacementId};
use maud::{Markup, html};
use std::fmt::Write;

/// The axis: powers of ten, ns.
const FROM: u64 = 1_000;
const DECADES: u32 = 7;
/// The drawing's size, in units of its own.
const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 100.0;

/// One of the times that are drawn.
struct Metric {
    title: &'static str,
    says: &'static str,
    spread: fn(&PlacementSummary) -> Option<Spread>,
    curve: fn(&PlacementSummary) -> &[Step],
}

static METRICS: [Metric; 5] = [
    Metric {
        title: "Stall of bystanders",
        says: "Longest gap between heartbeats of a domain other than the driver's, beyond that of \
               the paired clean trial.",
        spread: |of| of.stall,
        curve: |of| &of.curves.stall,
    },
    Metric {
        title: "Longest request",
        says: "Longest request of a tenant, beyond that of the paired clean trial.",
        spread: |of| of.io_stall,
        curve: |of| &of.curves.io_stall,
    },
    Metric {
        title: "Detection",
        says: "From the fault until anybody noticed: IOMMU, fabric, driver, tenant or supervisor.",
        spread: |of| of.noticed,
        curve: |of| &of.curves.noticed,
    },
    Metric {
        title: "Recovery",
        says: "From the fault until the driver served again, where it was reset, restarted or died.",
        spread: |of| of.recovery,
        curve: |of| &of.curves.recovery,
    },
    Metric {
        title: "Recovery, net of resets",
        says: "Where it served again: the same without the time in which software waited for a reset of the device: 100 ms \
               or more, by the standard and wherever the driver lives (PCI Express Base 6.0, 6.6.2).",
        spread: |of| of.recovery_net,
        curve: |of| &of.curves.recovery_net,
    },
];

pub(super) fn section(summary: &Summary) -> Markup {
    html! {
        @if !summary.placements.is_empty() {
            section aria-labelledby="times" {
                h2 #times { "Stall, detection and recovery" }
                p {
                    "Share of the activated trials that were over by then, over device time on a \
                     logarithmic axis; the upright line is the median. The red part of a strip is \
                     censored: in those trials it was not over at the end, and \"at least\" is all \
                     that is known. Placements do not meet quite \
                     the same faults; compare pairs below."
                }
                @if let Some(word) = of_emulation(summary) { (word) }
                div.charts {
                    @for metric in &METRICS { (chart(metric, summary)) }
                }
            }
        }
    }
}

/// By what a placement's domains are apart, in this run.
fn mechanism(of: PlacementId, summary: &Summary) -> Mechanism {
    Mechanism::of(of, summary.environment.guests)
}

/// A word about times that the host's clock gave to guests of an emulated KVM.
fn of_emulation(summary: &Summary) -> Option<Markup> {
    let emulated = |each: &&PlacementSummary| !mechanism(each.placement, summary).times_compare();
    let those: Vec<&str> = summary
        .placements
        .iter()
        .filter(emulated)
        .map(|each| placement(each.placement).id)
        .collect();
    (!those.is_empty()).then(|| {
        html! {
            p {
                "Guests are by emulated KVM in " (those.join(", ")) ". "
                @match summary.settings.clock {
                    ClockKind::Leap => {
                        "By the leap clock that costs them no time: what is shown is device time, as \
                         elsewhere."
                    }
                    ClockKind::Wall => {
                        "Their times are those of the emulation and say nothing of a processor's \
                         guests: they are to be compared with each other, and with no other row."
                    }
                }
            }
        }
    })
}

fn chart(metric: &Metric, summary: &Summary) -> Markup {
    let placements = summary.placements.iter();
    let rows: Vec<(&PlacementSummary, Spread)> = placements
        .filter_map(|each| Some((each, (metric.spread)(each)?)))
        .collect();
    html! {
        figure {
            figcaption { b { (metric.title) } " " span.soft { (metric.says) } }
            @if rows.is_empty() {
                p.soft { "No trial of this run has such a time." }
            } @else {
                div.strips aria-hidden="true" {
                    @for (of, spread) in &rows {
                        span.name { (placement(of.placement).id) }
                        (strip((metric.curve)(of), spread))
                    }
                    span {}
                    div.axis {
                        @for tick in 0..=DECADES {
                            span class=[(tick % 2 == 1).then_some("odd")]
                                style={ "left:" (percent_at(FROM * 10_u64.pow(tick))) "%" } {
                                (tick_name(tick))
                            }
                        }
                    }
                }
                details {
                    summary { "The figures" }
                    div.scroll tabindex="0" { table {
                        caption.hidden { (metric.title) ": quantiles by placement" }
                        thead { tr {
                            th scope="col" { "placement" } th scope="col" { "by" }
                            th.num scope="col" { "n" }
                            th.num scope="col" { "median, max" }
                            th.num scope="col" { "95 % of the median" }
                            th.num scope="col" { "p99" } th.num scope="col" { "p99.9" }
                            th.num scope="col" { "censored" }
                        } }
                        tbody { @for (of, spread) in &rows {
                            (figures(of, spread, mechanism(of.placement, summary)))
                        } }
                    } }
                }
            }
        }
    }
}

fn figures(of: &PlacementSummary, own: &Spread, by: Mechanism) -> Markup {
    html! {
        tr {
            th scope="row" { (placement(of.placement).id) }
            td { (by.words()) }
            td.num { (own.n) }
            td.num { (spread(Some(*own))) }
            td.num {
                @match own.median_interval {
                    None => "-",
                    Some(range) => {
                        (says_time(own, range.low_ns)) " to " (says_time(own, range.high_ns))
                    }
                }
            }
            td.num { (says_time(own, own.p99_ns)) }
            td.num { (says_time(own, own.p999_ns)) }
            td.num { (own.censored) }
        }
    }
}

fn tick_name(tick: u32) -> String {
    // "10.0 us" says no more than "10 us" on an axis.
    let name = time(FROM * 10_u64.pow(tick))
        .replace(".00", "")
        .replace(".0", "");
    if tick == 0 {
        format!("\u{2264}{name}")
    } else {
        name
    }
}

/// Where a time is on the axis, from 0 to 1.
#[expect(
    clippy::cast_precision_loss,
    reason = "a place on an axis needs three digits"
)]
fn place(ns: u64) -> f64 {
    let decades = (ns.max(FROM) as f64 / FROM as f64).log10();
    (decades / f64::from(DECADES)).clamp(0.0, 1.0)
}

fn percent_at(ns: u64) -> String {
    format!("{:.1}", place(ns) * 100.0)
}

/// The outline of what is filled: right and up at every step, then back along the bottom.
fn outline(curve: &[Step], n: u32) -> (String, f64) {
    let mut path = format!("M0 {HEIGHT:.0}");
    let mut level = HEIGHT;
    for step in curve {
        let x = place(step.ns) * WIDTH;
        let _ = write!(path, "L{x:.0} {level:.0}");
        level = HEIGHT * (1.0 - (f64::from(step.values) / f64::from(n.max(1))).min(1.0));
        let _ = write!(path, "L{x:.0} {level:.0}");
    }
    let _ = write!(path, "L{WIDTH:.0} {level:.0}L{WIDTH:.0} {HEIGHT:.0}Z");
    (path, level)
}

fn strip(curve: &[Step], spread: &Spread) -> Markup {
    let (path, _) = outline(curve, spread.n);
    let median = format!("{:.0}", place(spread.median_ns) * WIDTH);
    html! {
        svg.strip viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } preserveAspectRatio="none" {
            @for tick in 1..DECADES {
                @let x = format!("{:.0}", place(FROM * 10_u64.pow(tick)) * WIDTH);
                line.grid x1=(x) x2=(x) y1="0" y2=(HEIGHT) {}
            }
            path.ecdf d=(path) {}
            @if spread.censored > 0 {
                @let height = f64::from(spread.censored) / f64::from(spread.n.max(1)) * HEIGHT;
                rect.censored x="0" y="0" width=(WIDTH) height=(format!("{:.0}", height.min(HEIGHT))) {}
            }
            line.median x1=(median) x2=(median) y1="0" y2=(HEIGHT) {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axis_is_logarithmic_and_bounded() {
        assert!(place(0) < f64::EPSILON);
        assert!((place(10_000) - 1.0 / 7.0).abs() < 1e-12);
        assert!((place(u64::MAX) - 1.0).abs() < f64::EPSILON);
    }

    #[test]
    fn censored_strip_ends_below_its_top() {
        let steps = [Step {
            ns: 10_000,
            values: 3,
        }];
        let (_, half) = outline(&steps, 6);
        assert!((half - HEIGHT / 2.0).abs() < 1e-9);
        let (_, full) = outline(&steps, 3);
        assert!(full.abs() < 1e-9);
    }

    #[test]
    fn more_values_than_trials_stay_in_the_drawing() {
        let (_, level) = outline(&[Step { ns: 1, values: 9 }], 3);
        assert!(level.abs() < 1e-9);
    }
}
