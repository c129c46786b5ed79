//! The report of a run of the whole plan over an engine without processes.

#[path = "../../experiment/tests/fake/mod.rs"]
mod fake;

use cofferdam_experiment::plan::{Filter, Plan, Settings};
use cofferdam_experiment::run::run;
use cofferdam_experiment::summary::Summary;
use cofferdam_machine::config::IommuMode;
use cofferdam_machine::frames::Owner;
use cofferdam_placement::trial::{Corruption, DomainEnd, End};
use cofferdam_report::html;
use cofferdam_report::matrix::Matrix;
use cofferdam_report::terminal::{Style, WIDTH, render};
use fake::{StopAfter, spoiled};

fn summary_of(settings: Settings, filter: Filter, stop: StopAfter, broken: bool) -> Summary {
    let parent = tempfile::tempdir().expect("a temporary directory");
    let plan = Plan::new(settings, filter).expect("the filter leaves trials");
    let mut observer = stop;
    let start = || {
        spoiled(move |spec, report| {
            if broken && spec.iommu == IommuMode::Strict && report.activated > 0 {
                report.corruption.push(Corruption {
                    owner: Owner::Tenant2,
                    bytes: 8,
                });
                report.domains[0].end = DomainEnd::Dead;
                report.domains[0]
                    .deaths
                    .push("<script>alert(1)</script>".into());
                report.end = End::SystemLost;
                if let Some(seen) = &mut report.detection {
                    seen.by = "<script>alert(1)</script>".into();
                }
            }
        })
    };
    let out = parent.path().join("out");
    run(&plan, &out, start, &mut observer)
        .expect("the fake engine never fails")
        .summary
}

fn whole() -> Summary {
    summary_of(
        Settings::QUICK,
        Filter::default(),
        StopAfter::never(),
        false,
    )
}

/// The text without escape sequences.
fn visible(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\x1b') {
        out.push_str(before);
        rest = after.split_once('m').map_or("", |(_, after)| after);
    }
    out.push_str(rest);
    out
}

#[test]
fn terminal_matrix_fits_its_width_whatever_the_counts() {
    for factor in [1, 10, 100, 10_000] {
        let mut summary = whole();
        for cell in &mut summary.cells {
            cell.activated *= factor;
            cell.outcomes
                .values_mut()
                .for_each(|times| *times *= factor);
        }
        for line in render(&summary, Style::Plain).lines() {
            assert!(line.chars().count() <= WIDTH, "{line}");
        }
    }
}

#[test]
fn terminal_matrix_shows_every_row_and_the_gates() {
    let text = render(&whole(), Style::Plain);
    for row in [
        "D1 device victim =",
        "D6 driver early",
        "M1 tenant1 =",
        "B1 pcie-notimeout",
        "B1 machine-check =",
        "R1 index-7",
        "X1 kill-task",
        "X2 polite-300ms",
        "negative control",
        "No prediction was contradicted",
    ] {
        assert!(text.contains(row), "{row}\n{text}");
    }
    assert!(!text.contains('\x1b'));
}

#[test]
fn modes_that_show_the_same_share_a_block() {
    let filter = Filter {
        faults: vec!["D1".into(), "D6".into()],
        ..Filter::default()
    };
    let summary = summary_of(Settings::QUICK, filter, StopAfter::never(), false);
    let text = render(&summary, Style::Plain);
    assert!(text.contains("IOMMU off, passthrough"));
    assert!(text.contains("IOMMU lazy\n"));
    assert!(text.contains("IOMMU strict\n"));
}

#[test]
fn colour_changes_nothing_but_colour() {
    let summary = whole();
    let coloured = render(&summary, Style::Colour);
    assert!(coloured.contains("\x1b[1;31m"));
    let plain = render(&summary, Style::Plain);
    let trimmed = |text: &str| -> Vec<String> {
        text.lines()
            .map(|line| line.trim_end().to_owned())
            .collect()
    };
    assert_eq!(trimmed(&visible(&coloured)), trimmed(&plain));
}

#[test]
fn partial_run_says_so_in_both_forms() {
    let filter = Filter {
        faults: vec!["M1".into()],
        ..Filter::default()
    };
    let summary = summary_of(Settings::QUICK, filter, StopAfter::trials(20), false);
    assert!(render(&summary, Style::Plain).contains("PARTIAL"));
    assert!(html::page(&summary, &[]).contains("Partial."));
}

#[test]
fn page_is_self_contained() {
    let page = html::page(&whole(), &[]);
    for outside in [
        "http://", "https://", "<script", "<link", "<img", "url(", "@import",
    ] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert!(page.contains("prefers-color-scheme: dark"));
    assert!(page.contains("width=device-width"));
}

#[test]
fn page_leads_with_disagreements_and_escapes_what_domains_said() {
    let summary = summary_of(Settings::QUICK, Filter::default(), StopAfter::never(), true);
    assert!(!summary.disagreements.is_empty());
    let page = html::page(&summary, &[]);
    assert!(!page.contains("<script"));
    assert!(page.contains("&lt;script"));
    let at = |text: &str| page.find(text).unwrap_or_else(|| panic!("no {text}"));
    assert!(at("What contradicts the prediction") < at("Measured:"));
    assert!(at("Measured:") < at("By construction:"));
    assert!(
        page.contains("landed in tenant2&#39;s memory")
            || page.contains("landed in tenant2's memory")
    );
}

#[test]
fn page_has_every_cell_and_what_was_unavailable() {
    let summary = whole();
    let page = html::page(&summary, &[]);
    for cell in summary.cells.iter().filter(|cell| !cell.is_clean()) {
        assert!(page.contains(&cell.id), "{}", cell.id);
    }
    for each in &summary.environment.unavailable {
        assert!(page.contains(&each.what));
    }
    for each in &summary.not_applicable {
        assert!(page.contains(&each.case));
    }
}

#[test]
fn matrix_has_a_square_for_every_struck_cell() {
    let summary = whole();
    let matrix = Matrix::of(&summary);
    let squared: usize = matrix
        .blocks
        .iter()
        .flat_map(|block| &block.rows)
        .flat_map(|row| row.squares.iter().flatten())
        .map(|square| square.cells.len())
        .sum();
    let struck = summary.cells.iter().filter(|cell| !cell.is_clean()).count();
    assert_eq!(squared, struck);
}
