//! Times to bugs as a table.

use crate::arguments::TimeToBug;
use crate::known::{Chased, Row};
use cofferdam_fuzz::oracle::Oracle;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

/// What is known of a bug, for whoever watches.
pub fn line(row: &Row<'_>, arguments: &TimeToBug) -> String {
    let limit = arguments.limit.as_secs_f64();
    let mut text = format!("{}: {}", row.known.bug.name(), cells(&row.with, limit));
    if !row.without.is_empty() {
        let _ = write!(text, " | without: {}", cells(&row.without, limit));
    }
    let _ = write!(text, " | {} | twin {}", seen(row), silent(&row.twin));
    text
}

/// The whole table, in Markdown.
pub fn text(rows: &[Row<'_>], arguments: &TimeToBug, spent: Duration) -> String {
    let limit = arguments.limit.as_secs_f64();
    let mut text = format!(
        "# Time to bug\n\n\
         Written by `{}` on {}, {}.\n\n\
         {} campaigns for each bug, each from an empty corpus and with a seed of its own, until the bug is \
         found and minimised or {limit} s of one core have passed. Medians; `> {limit} s` where at least half \
         of the campaigns were stopped. Of a process that dies the executions are not known, and its start \
         counts. The twin is the same driver without the bug, searched for {} s of one core. All in all {:.0} \
         s of one core.\n\n\
         | Bug | Oracle | Found | Median, s | Executions | Found without feedback | Median, s | Executions | Seen as | Twin |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
        command(arguments),
        date(),
        host(),
        arguments.seeds,
        arguments.twins.as_secs_f64(),
        spent.as_secs_f64(),
    );
    for row in rows {
        let known = row.known;
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} |",
            known.bug.name(),
            known.oracle.name(),
            cells(&row.with, limit),
            cells(&row.without, limit),
            seen(row),
            silent(&row.twin)
        );
    }
    let all = rows.len();
    let right = rows
        .iter()
        .filter(|row| row.with.iter().all(|run| run.found.is_some()));
    let halves = rows
        .iter()
        .filter(|row| median(&row.with, |run| Some(run.seconds)).is_some());
    let quiet = rows
        .iter()
        .filter(|row| row.twin.iter().all(|run| run.found.is_none()));
    let _ = writeln!(
        text,
        "\n{} of {all} bugs were found by every campaign, {} by most; {} of {all} twins showed nothing.",
        right.count(),
        halves.count(),
        quiet.count()
    );
    text
}

/// How many campaigns found it, and the medians.
fn cells(runs: &[Chased], limit: f64) -> String {
    if runs.is_empty() {
        return "- | - | -".to_owned();
    }
    let found = runs.iter().filter(|run| run.found.is_some()).count();
    let seconds = match median(runs, |run| Some(run.seconds)) {
        Some(seconds) => format!("{seconds:.2}"),
        None => format!("> {limit}"),
    };
    #[expect(clippy::cast_precision_loss, reason = "shown without digits")]
    let executions = match median(runs, |run| run.executions.map(|count| count as f64)) {
        Some(executions) => format!("{executions:.0}"),
        None => "-".to_owned(),
    };
    format!("{found}/{} | {seconds} | {executions}", runs.len())
}

/// The median where campaigns that found nothing took for ever. None if that is the median.
fn median(runs: &[Chased], of: impl Fn(&Chased) -> Option<f64>) -> Option<f64> {
    let value = |run: &Chased| run.found.and_then(|_| of(run)).unwrap_or(f64::INFINITY);
    let mut values: Vec<f64> = runs.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    let high = *values.get(values.len() / 2)?;
    let low = *values.get(values.len().saturating_sub(1) / 2)?;
    let median = f64::midpoint(low, high);
    median.is_finite().then_some(median)
}

/// Which oracles spoke how often: those that were to speak, and in brackets what else there was before.
fn seen(row: &Row<'_>) -> String {
    let runs = || row.with.iter().chain(&row.without);
    let right = count(runs().filter_map(|run| run.found));
    let others = count(runs().flat_map(|run| run.others.iter().copied()));
    match (right.is_empty(), others.is_empty()) {
        (true, true) => "nothing".to_owned(),
        (false, true) => right,
        (true, false) => format!("({others})"),
        (false, false) => format!("{right} ({others})"),
    }
}

fn count(oracles: impl Iterator<Item = Oracle>) -> String {
    let mut counts = BTreeMap::<&str, u32>::new();
    for oracle in oracles {
        *counts.entry(oracle.name()).or_default() += 1;
    }
    let counts = counts
        .iter()
        .map(|(oracle, count)| format!("{oracle} {count}"));
    counts.collect::<Vec<_>>().join(", ")
}

fn silent(runs: &[Chased]) -> String {
    let shown = runs
        .iter()
        .flat_map(|run| run.found.iter().chain(&run.others));
    let shown = count(shown.copied());
    if shown.is_empty() {
        let executions: u64 = runs.iter().filter_map(|run| run.executions).sum();
        format!("nothing in {executions}")
    } else {
        shown
    }
}

fn command(arguments: &TimeToBug) -> String {
    let mut text = format!(
        "cofferdam time-to-bug --seeds {} --limit {}s --twins {}s",
        arguments.seeds,
        arguments.limit.as_secs(),
        arguments.twins.as_secs()
    );
    if arguments.feedback_only {
        text += " --feedback-only";
    }
    for only in &arguments.only {
        let _ = write!(text, " {only}");
    }
    text
}

/// The processor, and how many of them.
fn host() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let told = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = told.lines().find(|line| line.starts_with("model name"));
    let model = model.and_then(|line| line.split_once(": "));
    let model = model.map_or(std::env::consts::ARCH, |(_, model)| model);
    let toolchain = option_env!("COFFERDAM_TOOLCHAIN").unwrap_or("an unknown compiler");
    format!("{model}, {cores} cores, {toolchain}")
}

/// Today, of the Gregorian calendar, UTC.
fn date() -> String {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let mut day = since.map_or(0, |since| since.as_secs() / 86400);
    let mut year = 1970;
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    while day >= 365 + u64::from(leap(year)) {
        day -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let mut month = 1;
    for days in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if day < days {
            break;
        }
        day -= days;
        month += 1;
    }
    format!("{year}-{month:02}-{:02}", day + 1)
}
