//! What split locks cost a bystander, as text.

use crate::quantity::time;
use cofferdam_experiment::catalogue::placement;
use cofferdam_experiment::split_locks::{Read, SplitLock, SplitLocks};
use cofferdam_experiment::statistics::Spread;
use std::fmt::Write;

/// Of 64 lines, the figure of one.
const LINES: u64 = 64;

/// A table, and what the host could do.
pub fn text(found: &SplitLocks) -> String {
    let mut out = String::new();
    for way in &found.ways {
        let id = placement(way.placement).id;
        let _ = writeln!(
            out,
            "{id} ({}): {} pairs, {} storms were activated, {} were ended",
            way.mechanism.words(),
            way.pairs,
            way.activated,
            way.ended
        );
        let _ = writeln!(out, "  {}", price(way));
        for (name, of) in KINDS {
            let _ = writeln!(out, "  {name:<38}{}", row(way, of));
        }
        if let Some(why) = &way.why_not {
            let _ = writeln!(out, "  {why}");
        }
    }
    for fact in &found.host {
        let _ = writeln!(out, "{}: {}", fact.name, fact.value);
    }
    out
}

/// One kind of reading.
pub(crate) type Kind = fn(&Read) -> Spread;

/// The kinds of reading, in words.
pub(crate) const KINDS: [(&str, Kind); 2] = [
    ("a cache line in order", |read| read.in_order),
    ("a line whose address the last decides", |read| {
        read.scattered
    }),
];

/// What an increment took the driver's CPU, and what follows from that.
pub(crate) fn price(way: &SplitLock) -> String {
    let of = |spread: Option<Spread>| spread.map_or_else(dash, |spread| time(spread.median_ns));
    let slowed = match way.is_slowed_down() {
        true => {
            ": longer than a processor takes, so the kernel or a hypervisor slows down who makes one"
        }
        false => "",
    };
    format!(
        "an increment within a line {}, across two {}{slowed}",
        of(way.within_ns),
        of(way.across_ns)
    )
}

fn row(way: &SplitLock, of: Kind) -> String {
    let figure = |read: &Option<Read>| read.as_ref().map_or_else(dash, |read| line(of(read)));
    format!(
        "quiet {}, control {}, split locks {}: {}",
        figure(&way.quiet),
        figure(&way.aligned),
        figure(&way.split),
        factor(way, of)
    )
}

fn dash() -> String {
    "-".to_owned()
}

/// What one line took: the median, and its interval.
pub(crate) fn line(spread: Spread) -> String {
    let median = tenths(spread.median_ns);
    match spread.median_interval {
        Some(range) => format!(
            "{median} ns ({} to {})",
            tenths(range.low_ns),
            tenths(range.high_ns)
        ),
        None => format!("{median} ns"),
    }
}

fn tenths(ns: u64) -> String {
    let tenths = ns.saturating_mul(10) / LINES;
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// How many times as long it took during split locks as during the control.
pub(crate) fn factor(way: &SplitLock, of: Kind) -> String {
    match way.slowed_tenths(of) {
        Some(tenths) => format!("{}.{}\u{d7}", tenths / 10, tenths % 10),
        None => dash(),
    }
}
