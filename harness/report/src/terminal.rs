//! The matrix on a terminal, within 100 columns.

use crate::matrix::{Line, Matrix, Square};
use crate::quantity::{percent, time};
use cofferdam_experiment::catalogue::{clock_name, placement};
use cofferdam_experiment::gates::GateResult;
use cofferdam_experiment::predict::Label;
use cofferdam_experiment::statistics::Flag;
use cofferdam_experiment::summary::{State, Summary};
use cofferdam_experiment::verdict::Outcome;
use std::ops::Range;

/// Columns the output fits into.
pub const WIDTH: usize = 100;
const NAME: usize = 22;
const COLUMN: usize = 19;
/// Placements side by side; more of them come below.
const ACROSS: usize = (WIDTH - NAME) / COLUMN;
/// Disagreements shown where cases are not.
const FEW: usize = 8;

/// How much of the matrix to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// A line for each fault, and one more where platforms differ.
    Faults,
    /// A line for each case.
    Cases,
}

/// Whether to colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Escape sequences of ECMA-48.
    Colour,
    /// None.
    Plain,
}

impl Style {
    /// Colours on a terminal, unless NO_COLOR (<https://no-color.org>) is set to anything.
    pub fn for_output(is_terminal: bool, no_color: Option<&str>) -> Self {
        if is_terminal && no_color.is_none_or(str::is_empty) {
            Self::Colour
        } else {
            Self::Plain
        }
    }

    fn paint(self, text: &str, code: &str) -> String {
        match self {
            Self::Colour => format!("\x1b[{code}m{text}\x1b[0m"),
            Self::Plain => text.to_owned(),
        }
    }
}

const fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Clean => "clean",
        Outcome::NotActivated => "inactive",
        Outcome::Masked => "masked",
        Outcome::Contained => "contained",
        Outcome::Disturbed => "disturbed",
        Outcome::TenantLost => "tenant-lost",
        Outcome::SilentCorruption => "corrupted",
        Outcome::SystemLost => "system-lost",
    }
}

const fn colour(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Clean | Outcome::NotActivated => "2",
        Outcome::Masked | Outcome::Contained => "32",
        Outcome::Disturbed => "33",
        Outcome::TenantLost => "35",
        Outcome::SilentCorruption => "31",
        Outcome::SystemLost => "1;31",
    }
}

/// Pads to a column, then paints: escape sequences have no width.
fn padded(text: &str, width: usize) -> String {
    let mut cut: String = text.chars().take(width - 1).collect();
    let length = cut.chars().count();
    cut.extend(std::iter::repeat_n(' ', width - length));
    cut
}

fn square(square: Option<&Square<'_>>, style: Style) -> String {
    let Some(square) = square else {
        return style.paint(&padded("-", COLUMN), "2");
    };
    let tally = square.tally();
    let counts = format!("{}/{}", tally.times, tally.activated);
    let text = match tally.worst {
        Outcome::NotActivated => {
            let injected: u32 = square.cells.iter().map(|cell| cell.injected).sum();
            format!("inactive 0/{injected}")
        }
        // Where figures are long, the word gives way.
        worst => {
            let room = (COLUMN - 2).saturating_sub(counts.len());
            let word: String = word(worst).chars().take(room).collect();
            format!("{word} {counts}")
        }
    };
    style.paint(&padded(&text, COLUMN), colour(tally.worst))
}

fn push_line(out: &mut String, line: &str) {
    out.push_str(line.trim_end());
    out.push('\n');
}

/// The placements, as many at a time as fit.
fn bands(matrix: &Matrix<'_>) -> impl Iterator<Item = Range<usize>> + use<> {
    let count = matrix.placements.len();
    (0..count)
        .step_by(ACROSS)
        .map(move |first| first..count.min(first + ACROSS))
}

fn headings(matrix: &Matrix<'_>, band: Range<usize>, style: Style) -> String {
    let mut line = padded("", NAME);
    for &id in &matrix.placements[band] {
        line.push_str(&padded(placement(id).id, COLUMN));
    }
    style.paint(line.trim_end(), "1")
}

/// What a line is called: the fault or case, the mark of what is settled, the platforms.
fn name(of: &str, line: &Line<'_>) -> String {
    let mark = if line.by_construction() { " =" } else { "" };
    format!("{of}{mark} {}", line.platform)
}

/// Lines with what they are called, for one level of detail.
fn named<'m, 'a>(matrix: &'m Matrix<'a>, detail: Detail) -> Vec<(&'a str, &'m Line<'a>)> {
    let groups = matrix.groups.iter();
    match detail {
        Detail::Faults => groups
            .flat_map(|group| group.lines.iter().map(|line| (group.fault, line)))
            .collect(),
        Detail::Cases => groups
            .flat_map(|group| &group.cases)
            .flat_map(|case| case.lines.iter().map(|line| (case.case, line)))
            .collect(),
    }
}

/// Lines one below the other, a band of placements at a time. A name that is longer than its
/// column stands on a line of its own.
fn table(
    out: &mut String,
    matrix: &Matrix<'_>,
    lines: &[(&str, &Line<'_>)],
    style: Style,
    text: impl Fn(Option<&Square<'_>>) -> String,
) {
    for band in bands(matrix) {
        push_line(out, &headings(matrix, band.clone(), style));
        for (of, each) in lines {
            let squares = &each.squares[band.clone()];
            if squares.iter().all(Option::is_none) {
                continue;
            }
            let name = name(of, each);
            let mut line = if name.chars().count() < NAME {
                padded(&name, NAME)
            } else {
                push_line(out, &name);
                padded("", NAME)
            };
            for square in squares {
                line.push_str(&text(square.as_ref()));
            }
            push_line(out, &line);
        }
    }
}

/// The matrix of a run, with its gates and what disagrees with the prediction.
pub fn render(summary: &Summary, style: Style, detail: Detail) -> String {
    let matrix = Matrix::of(summary);
    let mut out = String::new();
    push_line(&mut out, &first_line(summary));
    push_line(
        &mut out,
        "Each square: the worst outcome, and in how many of the activated trials it came.",
    );
    push_line(
        &mut out,
        "= follows from topology and IOMMU mode; all else is measured.  - does not exist.",
    );
    if detail == Detail::Faults {
        push_line(
            &mut out,
            "A line is a fault with all its cases; --verbose and the report have them one by one.",
        );
    }
    out.push('\n');
    let lines = named(&matrix, detail);
    table(&mut out, &matrix, &lines, style, |each| square(each, style));
    durations(&mut out, &matrix, &lines, style);
    conclusions(&mut out, summary, style, detail);
    out
}

fn first_line(summary: &Summary) -> String {
    let settings = &summary.settings;
    let mut line = format!(
        "cofferdam compare: {} of {} trials, {} a cell, {} clock, seed {}",
        summary.finished,
        summary.planned,
        settings.trials,
        clock_name(settings.clock),
        settings.seed
    );
    match summary.state {
        State::Complete => {}
        State::Interrupted => line.push_str(": PARTIAL, interrupted"),
        State::Aborted => line.push_str(": PARTIAL, the harness failed"),
    }
    line
}

/// For how long: measured lines in which somebody had to wait or to come back.
fn durations(out: &mut String, matrix: &Matrix<'_>, lines: &[(&str, &Line<'_>)], style: Style) {
    let told = |square: &Square<'_>| {
        let any = |time: Option<u64>| time.is_some_and(|ns| ns > 0);
        any(square.stall()) || any(square.recovery())
    };
    let lines: Vec<_> = lines
        .iter()
        .copied()
        .filter(|(_, line)| !line.by_construction() && line.squares.iter().flatten().any(told))
        .collect();
    if lines.is_empty() {
        return;
    }
    out.push('\n');
    let title = "For how long: bystanders' stall / recovery, the longest of the cells' medians";
    push_line(out, &style.paint(title, "1"));
    table(out, matrix, &lines, style, |square| {
        padded(&square.map_or("-".to_owned(), duration), COLUMN)
    });
}

/// A square's stall and recovery.
fn duration(square: &Square<'_>) -> String {
    if square.tally().activated == 0 {
        return "-".into();
    }
    let stall = if square.flagged(Flag::Censored) {
        "lost".into()
    } else {
        square.stall().map_or("-".into(), time)
    };
    let back = square.recovery();
    format!("{stall} / {}", back.map_or("-".into(), time))
}

fn conclusions(out: &mut String, summary: &Summary, style: Style, detail: Detail) {
    out.push('\n');
    for gate in &summary.gates {
        let (text, code) = match gate.result {
            GateResult::Passed => ("ok", "32"),
            GateResult::Failed => ("FAILED", "1;31"),
            GateResult::NotRun => ("not run", "2"),
            GateResult::Reported => ("differs", "33"),
        };
        let line = format!(
            "{}{}{} of {} failed",
            padded(&gate.name, NAME),
            style.paint(&padded(text, 9), code),
            gate.failed,
            gate.checked
        );
        push_line(out, &line);
        for example in gate.examples.iter().take(3) {
            push_line(out, &clipped(&format!("    {example}")));
        }
    }
    let activated: u32 = summary.cells.iter().map(|cell| cell.activated).sum();
    if summary.disagreements.is_empty() {
        let line = format!("No prediction was contradicted in {activated} activated trials.");
        push_line(out, &line);
    } else {
        push_line(out, "Contradicted predictions:");
        let shown = match detail {
            Detail::Faults => FEW,
            Detail::Cases => summary.disagreements.len(),
        };
        for each in summary.disagreements.iter().take(shown) {
            let label = match each.label {
                Label::ByConstruction => "by construction",
                Label::Measured => "measured",
            };
            push_line(
                out,
                &clipped(&format!(
                    "    {} ({label}): {}; {} ({} trials, first {})",
                    each.cell, each.expected, each.found, each.trials, each.first
                )),
            );
        }
        let more = summary.disagreements.len().saturating_sub(shown);
        if more > 0 {
            push_line(out, &format!("    and {more} more, in the report"));
        }
    }
    intervals(out, summary);
    for failure in summary.infrastructure_failures.iter().take(5) {
        let line = format!("Could not run trial {}: {}", failure.index, failure.what);
        push_line(out, &clipped(&line));
    }
    let failures = summary.infrastructure_failures.len();
    if failures > 0 {
        push_line(out, &format!("{failures} infrastructure failures."));
    }
}

/// What may be said about rates, where there are enough trials.
fn intervals(out: &mut String, summary: &Summary) {
    let bounds = summary
        .cells
        .iter()
        .filter_map(|cell| cell.escaped.upper_bound);
    let widest = bounds.reduce(f64::max);
    if let Some(bound) = widest {
        let line = format!(
            "Where nothing escaped in a cell, its rate of escapes is below {} (95 %).",
            percent(bound)
        );
        push_line(out, &line);
    }
}

fn clipped(line: &str) -> String {
    if line.chars().count() <= WIDTH {
        return line.to_owned();
    }
    let mut cut: String = line.chars().take(WIDTH - 3).collect();
    cut.push_str("...");
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_color_wins_over_a_terminal() {
        assert_eq!(Style::for_output(true, None), Style::Colour);
        assert_eq!(Style::for_output(true, Some("")), Style::Colour);
        assert_eq!(Style::for_output(true, Some("1")), Style::Plain);
        assert_eq!(Style::for_output(false, None), Style::Plain);
    }
}
