//! The matrix on a terminal, within 100 columns.

use crate::matrix::{Matrix, Row, Square, depends_on_iommu};
use crate::quantity::{percent, time};
use cofferdam_experiment::catalogue::{clock_name, placement};
use cofferdam_experiment::gates::GateResult;
use cofferdam_experiment::predict::Label;
use cofferdam_experiment::summary::{State, Summary};
use cofferdam_experiment::verdict::Outcome;
use std::ops::Range;

/// Columns the output fits into.
pub const WIDTH: usize = 100;
const NAME: usize = 22;
const COLUMN: usize = 19;
/// Placements side by side; more of them come below.
const ACROSS: usize = (WIDTH - NAME) / COLUMN;

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

fn row_line(row: &Row<'_>, band: Range<usize>, style: Style) -> String {
    let mark = if row.by_construction() { " =" } else { "" };
    let mut line = padded(&format!("{}{mark}", row.name), NAME);
    for each in &row.squares[band] {
        line.push_str(&square(each.as_ref(), style));
    }
    line
}

/// The matrix of a run, with its gates and what disagrees with the prediction.
pub fn render(summary: &Summary, style: Style) -> String {
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

    // Modes that show the same are shown once.
    for blocks in matrix.alike() {
        let names: Vec<&str> = blocks.iter().map(|block| block.name).collect();
        out.push('\n');
        let title = format!("IOMMU {}", names.join(", "));
        push_line(&mut out, &style.paint(&title, "1"));
        for band in bands(&matrix) {
            push_line(&mut out, &headings(&matrix, band.clone(), style));
            for row in blocks.first().map_or(&[][..], |block| &block.rows) {
                push_line(&mut out, &row_line(row, band.clone(), style));
            }
        }
    }
    durations(&mut out, &matrix, style);
    conclusions(&mut out, summary, style);
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

/// For how long: measured rows of the strictest mode.
fn durations(out: &mut String, matrix: &Matrix<'_>, style: Style) {
    let Some(block) = matrix.blocks.last() else {
        return;
    };
    let rows: Vec<_> = block
        .rows
        .iter()
        .filter(|row| !row.by_construction() && !depends_on_iommu(row.fault))
        .collect();
    if rows.is_empty() {
        return;
    }
    out.push('\n');
    push_line(
        out,
        &style.paint(
            &format!(
                "IOMMU {}, for how long: bystanders' stall / recovery, medians of the slower driver",
                block.name
            ),
            "1",
        ),
    );
    for band in bands(matrix) {
        push_line(out, &headings(matrix, band.clone(), style));
        for row in &rows {
            let mut line = padded(&row.name, NAME);
            for each in &row.squares[band.clone()] {
                let text = each.as_ref().map_or("-".to_owned(), duration);
                line.push_str(&padded(&text, COLUMN));
            }
            push_line(out, &line);
        }
    }
}

/// A square's stall and recovery.
fn duration(square: &Square<'_>) -> String {
    if square.tally().activated == 0 {
        return "-".into();
    }
    let stall = if square.censored() {
        "lost".into()
    } else {
        square.stall().map_or("-".into(), time)
    };
    let back = square.recovery();
    format!("{stall} / {}", back.map_or("-".into(), time))
}

fn conclusions(out: &mut String, summary: &Summary, style: Style) {
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
        for each in &summary.disagreements {
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
