//! Several runs of one plan, over an engine without processes.

mod fake;

use cofferdam_experiment::engine::EngineError;
use cofferdam_experiment::plan::{Filter, Plan, Settings};
use cofferdam_experiment::run::{Observer, RunError};
use cofferdam_experiment::stability::{Stability, runs};
use cofferdam_experiment::statistics::Flag;
use cofferdam_experiment::summary::{State, Summary};
use cofferdam_experiment::verdict::Outcome;
use cofferdam_placement::trial::{ClockKind, PlacementId, TrialReport, TrialSpec};
use fake::{Fake, StopAfter, spoiled};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

const WAVERING: &str = "user-process/strict/pcie/edu/X1.panic";

fn plan() -> Plan {
    let settings = Settings {
        clock: ClockKind::Wall,
        ..Settings::QUICK
    };
    let filter = Filter {
        faults: vec!["X1".into()],
        placements: vec![PlacementId::UserProcess, PlacementId::RootPartition],
        ..Filter::default()
    };
    Plan::new(settings, filter).expect("the filter leaves trials")
}

/// Runs the plan five times. In the trials of run `nth`, from 0, `spoil` may change the reports.
fn five(
    out: &Path,
    observer: &mut dyn Observer,
    spoil: impl Fn(u32, &TrialSpec, &mut TrialReport) + Sync,
) -> Result<Stability, RunError> {
    let started = AtomicU32::new(0);
    let start = || {
        let nth = started.fetch_add(1, Ordering::Relaxed);
        let spoil = &spoil;
        spoiled(move |spec, report| spoil(nth, spec, report))
    };
    runs(&plan(), out, 5, start, observer)
}

fn hurt_a_tenant(spec: &TrialSpec, report: &mut TrialReport) {
    let wavers = spec.placement == PlacementId::UserProcess
        && spec.driver == cofferdam_placement::trial::DriverId::Edu;
    if wavers && report.activated > 0 {
        report.io[1].corrupted = 1;
    }
}

fn summary(out: &Path, run: u32) -> Summary {
    let path = out.join(format!("run-{run}/summary.json"));
    let bytes = std::fs::read(path).expect("every run has a summary");
    serde_json::from_slice(&bytes).expect("a summary")
}

fn flagged(summary: &Summary) -> Vec<&str> {
    summary
        .cells
        .iter()
        .filter(|cell| cell.flags.contains(&Flag::Unstable))
        .map(|cell| cell.id.as_str())
        .collect()
}

#[test]
fn five_runs_that_end_alike_are_stable() {
    let parent = tempfile::tempdir().expect("a temporary directory");
    let out = parent.path().join("out");

    let found = five(&out, &mut StopAfter::never(), |_, _, _| {}).expect("the fake never fails");

    assert!(found.is_complete());
    assert_eq!(found.unstable().count(), 0);
    let faulty = plan().cells().filter(|cell| !cell.is_clean()).count();
    assert_eq!(found.cells.len(), faulty);
    assert!(flagged(&summary(&out, 5)).is_empty());
    let written = std::fs::read(out.join("stability.json")).expect("it was written");
    let read: Stability = serde_json::from_slice(&written).expect("what was written");
    assert_eq!(read, found);
}

#[test]
fn cell_that_ends_otherwise_in_one_run_is_flagged_in_all() {
    let parent = tempfile::tempdir().expect("a temporary directory");
    let out = parent.path().join("out");

    let found = five(&out, &mut StopAfter::never(), |nth, spec, report| {
        if nth == 3 {
            hurt_a_tenant(spec, report);
        }
    })
    .expect("the fake never fails");

    let unstable: Vec<_> = found.unstable().collect();
    assert_eq!(unstable.len(), 1);
    assert_eq!(unstable[0].cell, WAVERING);
    assert_eq!(unstable[0].modes[3], Some(Outcome::SilentCorruption));
    assert_eq!(unstable[0].modes[4], Some(Outcome::Contained));
    for run in 1..=5 {
        assert_eq!(flagged(&summary(&out, run)), [WAVERING]);
    }
}

#[test]
fn minority_of_trials_does_not_move_the_mode() {
    let parent = tempfile::tempdir().expect("a temporary directory");
    let spoilt = AtomicU32::new(0);

    let found = five(
        &parent.path().join("out"),
        &mut StopAfter::never(),
        |nth, spec, report| {
            let before = report.clone();
            if nth == 1 && spoilt.load(Ordering::Relaxed) == 0 {
                hurt_a_tenant(spec, report);
            }
            spoilt.fetch_add(u32::from(*report != before), Ordering::Relaxed);
        },
    )
    .expect("the fake never fails");

    assert_eq!(spoilt.load(Ordering::Relaxed), 1, "one trial was spoilt");
    assert_eq!(found.unstable().count(), 0);
}

#[test]
fn interrupted_runs_say_nothing_of_cells() {
    let parent = tempfile::tempdir().expect("a temporary directory");
    let out = parent.path().join("out");
    let mut observer = StopAfter::trials(plan().len() + 4);

    let found = five(&out, &mut observer, |_, _, _| {}).expect("the fake never fails");

    assert_eq!(found.runs, [State::Complete, State::Interrupted]);
    assert!(!found.is_complete());
    assert_eq!(found.cells, []);
    assert_eq!(summary(&out, 2).finished, 4);
}

#[test]
fn directory_with_results_is_refused_and_a_useless_one_taken_back() {
    let parent = tempfile::tempdir().expect("a temporary directory");
    let used = parent.path().join("used");
    std::fs::create_dir(&used).expect("a directory");
    std::fs::write(used.join("keep"), "me").expect("a file");
    let refused = five(&used, &mut StopAfter::never(), |_, _, _| {});
    assert!(matches!(refused, Err(RunError::Out(_))));

    let out = parent.path().join("out");
    let unavailable = || {
        Err::<Fake<fn(&TrialSpec, &mut TrialReport)>, _>(EngineError::Unavailable("memfd".into()))
    };
    let failed = runs(&plan(), &out, 5, unavailable, &mut StopAfter::never());
    assert!(matches!(failed, Err(RunError::Engine(_))));
    assert!(!out.exists());
}
