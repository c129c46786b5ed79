//! Finding a trial's record again, and holding what came out against it.

mod fake;

use cofferdam_experiment::plan::{Filter, Plan, Settings};
use cofferdam_experiment::record::Record;
use cofferdam_experiment::replay::{Address, ReplayError, Replayed, compare, find};
use cofferdam_experiment::run::run;
use cofferdam_machine::config::IommuMode;
use cofferdam_placement::trial::{ClockKind, DriverId, PlacementId};
use fake::{StopAfter, spoiled};
use serde_json::Value;
use std::fs;
use std::path::Path;

/// A run of a few trials, in a directory of its own.
fn finished() -> tempfile::TempDir {
    observed(StopAfter::never())
}

fn observed(mut observer: StopAfter) -> tempfile::TempDir {
    let place = tempfile::tempdir().expect("a temporary directory");
    let filter = Filter {
        placements: vec![PlacementId::InKernel],
        iommu: vec![IommuMode::Strict],
        drivers: vec![DriverId::Edu],
        faults: vec!["M1".into()],
        ..Filter::default()
    };
    let plan = Plan::new(Settings::QUICK, filter).expect("a plan");
    let out = place.path().join("run");
    run(&plan, &out, || spoiled(|_, _| {}), &mut observer).expect("a run");
    place
}

fn lines(place: &Path) -> Vec<String> {
    let text = fs::read_to_string(place.join("run/trials.jsonl")).expect("records");
    text.lines().map(str::to_owned).collect()
}

fn write(place: &Path, text: &str) {
    fs::write(place.join("run/trials.jsonl"), text).expect("written");
}

fn address(place: &Path, trial: u64) -> Address {
    let run = place.join("run");
    Address { run, trial }
}

fn index(line: &str) -> u64 {
    let record: Record = serde_json::from_str(line).expect("a record");
    record.index
}

/// The records with one changed, and the address of that.
fn changed(place: &Path, change: impl Fn(&mut Value)) -> Address {
    let mut lines = lines(place);
    let trial = index(&lines[3]);
    let mut record: Value = serde_json::from_str(&lines[3]).expect("a record");
    change(&mut record);
    lines[3] = record.to_string();
    write(place, &(lines.join("\n") + "\n"));
    address(place, trial)
}

#[test]
fn every_record_of_a_run_that_was_stopped_is_found_by_its_index() {
    let place = observed(StopAfter::trials(7));
    assert_eq!(lines(place.path()).len(), 7);
    for line in lines(place.path()) {
        let trial = index(&line);

        let found = find(&address(place.path(), trial)).expect("a record");

        assert_eq!(found.index, trial);
        assert_eq!(serde_json::to_string(&found).expect("JSON"), line);
    }
}

#[test]
fn address_is_a_directory_and_a_number() {
    let address: Address = "reports/a#b#17".parse().expect("an address");
    assert_eq!(address.run, Path::new("reports/a#b"));
    assert_eq!(address.to_string(), "reports/a#b#17");
    for wrong in ["reports/run", "#3", "reports/run#", "run#-1", "run#x", ""] {
        let error = wrong.parse::<Address>().expect_err(wrong);
        assert!(error.to_string().contains("RUN_DIR#TRIAL"));
    }
}

#[test]
fn missing_run_is_told_from_a_directory_without_records() {
    let place = tempfile::tempdir().expect("a temporary directory");

    let error = find(&address(place.path(), 0)).expect_err("no run");
    assert!(matches!(error, ReplayError::NoRun(_)), "{error}");
    assert!(error.to_string().contains("cofferdam compare"));

    fs::create_dir(place.path().join("run")).expect("a directory");
    let error = find(&address(place.path(), 0)).expect_err("no records");
    assert!(matches!(error, ReplayError::NoTrials(_)), "{error}");
    assert!(error.to_string().contains("trials.jsonl"));
}

#[test]
fn missing_trial_is_answered_with_the_range_and_the_nearest() {
    let place = finished();
    let last = lines(place.path()).iter().map(|line| index(line)).max();
    let last = last.expect("records");

    let error = find(&address(place.path(), 99_999_999)).expect_err("no such trial");

    assert!(matches!(error, ReplayError::NoSuchTrial { near, .. } if near == last));
    assert!(error.to_string().contains(&format!("to {last}")), "{error}");
}

#[test]
fn torn_record_is_no_record_and_is_mentioned() {
    let place = finished();
    let lines = lines(place.path());
    let (torn, whole) = lines.split_last().expect("records");
    let half = &torn[..torn.len() / 2];
    write(place.path(), &(whole.join("\n") + "\n" + half));

    let error = find(&address(place.path(), index(torn))).expect_err("it is torn");
    assert!(error.to_string().contains("torn"), "{error}");
    find(&address(place.path(), index(&whole[0]))).expect("the others are whole");

    write(place.path(), half);
    let error = find(&address(place.path(), index(torn))).expect_err("it is torn");
    assert!(matches!(error, ReplayError::Empty { .. }));
    assert!(error.to_string().contains("torn"), "{error}");
}

#[test]
fn record_of_a_newer_program_is_told_from_one_that_was_edited() {
    let place = finished();
    let newer = changed(place.path(), |record| record["schema"] = 7.into());
    let error = find(&newer).expect_err("another schema");
    assert!(
        matches!(error, ReplayError::Schema { found: 7, .. }),
        "{error}"
    );

    let place = finished();
    let lacking = changed(place.path(), |record| {
        record["spec"]["fault"] = serde_json::json!({"id": "Z9", "nth": 3});
    });
    let error = find(&lacking).expect_err("a fault nobody knows");
    assert!(matches!(error, ReplayError::Lacks { .. }), "{error}");
    assert!(error.to_string().contains("Z9"), "{error}");
    assert!(error.to_string().contains("run.json"), "{error}");

    let place = finished();
    let edited = changed(place.path(), |record| record["report"] = 3.into());
    let error = find(&edited).expect_err("no report");
    assert!(
        matches!(error, ReplayError::Malformed { line: 4, .. }),
        "{error}"
    );
}

#[test]
fn first_field_that_differs_is_named_and_what_the_host_decides_is_not() {
    let place = finished();
    let line = &lines(place.path())[0];
    let mut record: Record = serde_json::from_str(line).expect("a record");
    let mut report = record.report.clone();
    report.domains[0].resident_bytes = Some(12_345);
    assert_eq!(compare(&record, &report), Replayed::Same);

    report.domains[1].longest_gap_ns += 1;
    let Replayed::Differs {
        field,
        recorded,
        now,
    } = compare(&record, &report)
    else {
        panic!("they differ");
    };
    assert_eq!(field, "report.domains[1].longest_gap_ns");
    assert_ne!(recorded, now);

    record.spec.clock = ClockKind::Wall;
    assert_eq!(compare(&record, &report), Replayed::NotRepeatable);
}
