//! The report of a run of the whole plan over an engine without processes.

#[path = "../../experiment/tests/fake/mod.rs"]
mod fake;

use cofferdam_experiment::environment::Mechanism;
use cofferdam_experiment::plan::{Filter, Plan, Settings};
use cofferdam_experiment::run::run;
use cofferdam_experiment::summary::Summary;
use cofferdam_machine::config::IommuMode;
use cofferdam_machine::frames::Owner;
use cofferdam_placement::trial::{ClockKind, Corruption, DomainEnd, End, PlacementId};
use cofferdam_reality::Reality;
use cofferdam_reality::linux::{Outcome, Trial};
use cofferdam_report::factors::{Factor, Score, Scores, decided, scores};
use cofferdam_report::matrix::{Line, Matrix};
use cofferdam_report::terminal::{Detail, Style, WIDTH, render};
use cofferdam_report::{html, linux};
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
        for detail in [Detail::Faults, Detail::Cases] {
            for line in render(&summary, Style::Plain, detail).lines() {
                assert!(line.chars().count() <= WIDTH, "{line}");
            }
        }
    }
}

#[test]
fn terminal_matrix_has_a_line_for_every_fault_and_the_gates() {
    let summary = whole();
    let text = render(&summary, Style::Plain, Detail::Faults);
    for cell in summary.cells.iter().filter(|cell| !cell.is_clean()) {
        let starts = |line: &str| line.split(' ').next() == Some(&cell.fault);
        assert!(text.lines().any(starts), "{}\n{text}", cell.fault);
    }
    assert!(text.contains("negative control"));
    assert!(text.contains("No prediction was contradicted"));
    assert!(!text.contains('\x1b'));
}

#[test]
fn verbose_matrix_has_a_line_for_every_case() {
    let summary = whole();
    let text = render(&summary, Style::Plain, Detail::Cases);
    for cell in summary.cells.iter().filter(|cell| !cell.is_clean()) {
        let starts = |line: &str| line.split(' ').next() == Some(&cell.case);
        assert!(text.lines().any(starts), "{}\n{text}", cell.case);
    }
    let faults = render(&summary, Style::Plain, Detail::Faults);
    assert!(faults.lines().count() < text.lines().count());
}

#[test]
fn platforms_that_show_the_same_share_a_line() {
    let filter = Filter {
        faults: vec!["D6".into()],
        ..Filter::default()
    };
    let summary = summary_of(Settings::QUICK, filter, StopAfter::never(), false);
    let matrix = Matrix::of(&summary);
    let names: Vec<&str> = matrix.groups[0]
        .lines
        .iter()
        .map(|line| line.platform.as_str())
        .collect();
    assert!(names.contains(&"off, passthrough"), "{names:?}");
    assert!(names.contains(&"lazy"), "{names:?}");
}

#[test]
fn colour_changes_nothing_but_colour() {
    let summary = whole();
    let coloured = render(&summary, Style::Colour, Detail::Cases);
    assert!(coloured.contains("\x1b[1;31m"));
    let plain = render(&summary, Style::Plain, Detail::Cases);
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
    assert!(render(&summary, Style::Plain, Detail::Faults).contains("PARTIAL"));
    assert!(html::page(&summary, &Reality::default()).contains("Partial."));
}

#[test]
fn page_is_self_contained() {
    let page = html::page(&whole(), &Reality::default());
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
    let page = html::page(&summary, &Reality::default());
    assert!(!page.contains("<script"));
    assert!(page.contains("&lt;script"));
    let at = |text: &str| page.find(text).unwrap_or_else(|| panic!("no {text}"));
    assert!(at("Gate failed") < at("contradict"));
    assert!(at("contradict") < at("The containment matrix"));
    assert!(
        page.contains("landed in tenant2&#39;s memory")
            || page.contains("landed in tenant2's memory")
    );
}

#[test]
fn page_has_every_case_its_trials_and_what_was_unavailable() {
    let filter = Filter {
        faults: vec!["X1".into(), "D6".into(), "B1".into()],
        ..Filter::default()
    };
    let summary = summary_of(Settings::QUICK, filter, StopAfter::never(), false);
    let page = html::page(&summary, &Reality::default());
    for cell in summary.cells.iter().filter(|cell| !cell.is_clean()) {
        assert!(
            page.contains(&format!("id=\"c-{}\"", cell.case)),
            "{}",
            cell.case
        );
        for index in cell.samples.values().flatten() {
            assert!(page.contains(&format!("#{index}</code>")), "{index}");
        }
    }
    for each in &summary.environment.unavailable {
        assert!(page.contains(&each.what));
    }
    for each in &summary.not_applicable {
        assert!(page.contains(&each.case));
    }
}

#[test]
fn matrix_has_a_square_for_every_struck_cell_in_both_forms() {
    let summary = whole();
    let matrix = Matrix::of(&summary);
    let cells = |line: &Line<'_>| -> usize {
        let squares = line.squares.iter().flatten();
        squares.map(|square| square.cells.len()).sum()
    };
    let by_fault: usize = matrix
        .groups
        .iter()
        .flat_map(|group| &group.lines)
        .map(cells)
        .sum();
    let by_case: usize = matrix
        .groups
        .iter()
        .flat_map(|group| &group.cases)
        .flat_map(|case| &case.lines)
        .map(cells)
        .sum();
    let struck = summary.cells.iter().filter(|cell| !cell.is_clean()).count();
    assert_eq!((by_fault, by_case), (struck, struck));
}

#[test]
fn every_link_of_the_page_leads_somewhere() {
    let page = html::page(&whole(), &Reality::default());
    let links = page.split("href=\"#").skip(1);
    let targets: std::collections::BTreeSet<&str> =
        links.filter_map(|rest| rest.split('"').next()).collect();
    assert!(targets.len() > 20);
    for target in targets {
        assert!(page.contains(&format!("id=\"{target}\"")), "{target}");
    }
}

#[test]
fn page_of_a_run_with_nothing_finished_stands() {
    let filter = Filter {
        faults: vec!["M1".into()],
        ..Filter::default()
    };
    let summary = summary_of(Settings::QUICK, filter, StopAfter::trials(0), false);
    let page = html::page(&summary, &Reality::default());
    assert!(page.contains("Partial."));
    assert!(page.contains("cannot be decided here"));
}

#[test]
fn recovery_in_a_guest_stands_beside_that_in_a_process_and_emulation_is_marked() {
    let crashes = Filter {
        placements: vec![PlacementId::UserProcess, PlacementId::DriverVm],
        faults: vec!["X1".into()],
        ..Filter::default()
    };
    let mut summary = summary_of(Settings::QUICK, crashes, StopAfter::never(), false);
    summary.environment.guests = Some(Mechanism::KvmEmulated);
    let mut page_by = |clock| {
        summary.settings.clock = clock;
        let page = html::page(&summary, &Reality::default());
        let from = page.find("From the fault until the driver served again");
        let to = page.find("Recovery, net of resets");
        let figures = page[from.expect("recovery")..to.expect("net")].to_owned();
        (page, figures)
    };

    let (leap, figures) = page_by(ClockKind::Leap);
    let (wall, _) = page_by(ClockKind::Wall);

    for (id, by) in [("user-process", "process"), ("driver-vm", "emulated KVM")] {
        let row = format!("<th scope=\"row\">{id}</th><td>{by}</td><td class=\"num\">");
        assert!(figures.contains(&row), "{row}: {figures}");
    }
    let mark = "by emulated KVM, not to be ranked";
    assert!(leap.contains("what is shown is device time") && !leap.contains(mark));
    assert!(wall.contains("with no other row") && wall.contains(mark));
}

#[test]
fn a_choice_decides_only_where_nothing_else_differs() {
    let summary = whole();
    let cases = decided(&summary);
    let by = |name: &str| {
        let case = cases.iter().find(|case| case.case == name);
        &case.unwrap_or_else(|| panic!("no {name}")).by
    };
    assert!(by("X1.panic").contains(&Factor::Placement));
    assert!(by("B1.all-ones").contains(&Factor::Fabric));
    assert!(by("D1.device.tenant1").contains(&Factor::Iommu));
    assert!(!by("D1.device.tenant1").contains(&Factor::Placement));
}

#[test]
fn scores_compare_the_same_cells_and_order_by_containment() {
    let summary = whole();
    let Scores { scores, common, .. } = scores(&summary);
    assert!(common > 0);
    let share = |score: &Score| f64::from(score.contained) / f64::from(score.activated);
    assert!(scores.is_sorted_by(|one, other| share(one) >= share(other)));
    assert!(
        scores
            .windows(2)
            .all(|two| two[0].activated == two[1].activated)
    );
}

#[test]
fn placements_tried_in_few_cells_do_not_narrow_the_comparison_unless_they_are_all_there_is() {
    let summary = whole();
    let of = |ids: &[PlacementId]| {
        let mut summary = summary.clone();
        summary.cells.retain(|cell| ids.contains(&cell.placement));
        scores(&summary)
    };
    let tried = [PlacementId::InKernel, PlacementId::UserProcess];
    let narrow = PlacementId::LibraryOs;

    let without = of(&tried);
    let with = of(&[tried[0], tried[1], narrow]);
    let alone = of(&[tried[0], narrow]);

    assert_eq!(with.left_out, [narrow]);
    assert_eq!((with.scores, with.common), (without.scores, without.common));
    assert_eq!(alone.left_out, []);
}

/// Linux before a controller that lied about a completion.
fn met(case: &str) -> Trial {
    Trial {
        schema: 1,
        mechanism: "linux-guest".into(),
        cell: format!("{case}/linux-nvme/strict"),
        driver: "linux-nvme".into(),
        fault: case.split('.').next().expect("a fault").into(),
        case: case.into(),
        iommu: IommuMode::Strict,
        machine: None,
        acted: 1,
        outcome: Outcome::IoError,
        told: serde_json::json!({ "errors": 3, "stall_ms": 12 }),
        evidence: vec!["nvme nvme0: <b>".into()],
        kernel: "6.12".into(),
    }
}

#[test]
fn linux_stands_beside_our_kernel_and_its_words_are_escaped() {
    let summary = whole();
    let nothing = summary_of(
        Settings::QUICK,
        Filter::default(),
        StopAfter::trials(0),
        false,
    );
    let reality = Reality {
        trials: vec![met("R1")],
        ..Reality::default()
    };

    let page = html::page(&summary, &reality);
    let text = linux::table(&summary, &reality.trials);
    let missing = linux::table(&nothing, &reality.trials);

    assert!(page.contains("nvme nvme0: &lt;b&gt;") && page.contains("3 of 32 requests"));
    let line = text
        .lines()
        .find(|line| line.starts_with("R1"))
        .expect("a line");
    assert!(line.contains("I/O error") && line.contains('/'), "{text}");
    assert!(missing.contains("not in this plan"), "{missing}");
    assert!(
        text.lines().all(|line| line.chars().count() <= WIDTH),
        "{text}"
    );
    assert!(linux::table(&summary, &[]).is_empty());
}
