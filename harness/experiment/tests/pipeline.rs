//! A run from plan to summary, over an engine without processes.

mod fake;

use cofferdam_experiment::engine::EngineError;
use cofferdam_experiment::gates::GateResult;
use cofferdam_experiment::out::{Directory, OutError};
use cofferdam_experiment::plan::{Filter, Plan, Settings};
use cofferdam_experiment::predict::Label;
use cofferdam_experiment::record::{self, Record, RecordError};
use cofferdam_experiment::run::{Finished, RunError, run};
use cofferdam_experiment::summary::{CellSummary, State, Summary};
use cofferdam_experiment::verdict::Outcome;
use cofferdam_machine::frames::Owner;
use cofferdam_placement::trial::{Fault, PlacementId, TrialReport, TrialSpec};
use fake::{Fake, StopAfter, spoiled};
use serde_json::Value;
use std::collections::HashMap;
use std::io::Cursor;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

fn plan(filter: Filter) -> Plan {
    Plan::new(Settings::QUICK, filter).expect("the filter leaves trials")
}

fn of_fault(id: &str) -> Plan {
    plan(Filter {
        faults: vec![id.into()],
        ..Filter::default()
    })
}

fn place() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// A fake engine that changes nothing.
fn honest() -> Result<Fake<impl FnMut(&TrialSpec, &mut TrialReport)>, EngineError> {
    spoiled(|_, _| {})
}

fn run_honestly(plan: &Plan, out: &Path) -> Finished {
    run(plan, out, honest, &mut StopAfter::never()).expect("the fake engine never fails")
}

/// The lines of the records in a directory.
fn lines(directory: &Directory) -> String {
    std::fs::read_to_string(directory.path().join("trials.jsonl")).expect("records were written")
}

fn without_times(lines: &str) -> Vec<Value> {
    lines
        .lines()
        .map(|line| {
            let mut record: Value = serde_json::from_str(line).expect("a record");
            let fields = record.as_object_mut().expect("an object");
            fields.remove("times").expect("times are recorded");
            record
        })
        .collect()
}

fn gate(summary: &Summary, name: &str) -> GateResult {
    summary
        .gates
        .iter()
        .find(|gate| gate.name == name)
        .expect("every run has this gate")
        .result
}

fn cell<'a>(summary: &'a Summary, id: &str) -> &'a CellSummary {
    summary
        .cells
        .iter()
        .find(|cell| cell.id == id)
        .expect("the plan has this cell")
}

fn run_spoiled(
    plan: &Plan,
    spoil: impl FnMut(&TrialSpec, &mut TrialReport) + Clone + Sync,
) -> Summary {
    let parent = place();
    run(
        plan,
        &parent.path().join("out"),
        || spoiled(spoil.clone()),
        &mut StopAfter::never(),
    )
    .expect("the fake engine never fails")
    .summary
}

#[test]
fn whole_plan_passes_every_gate_and_agrees_with_its_predictions() {
    let parent = place();
    let plan = plan(Filter::default());

    let finished = run_honestly(&plan, &parent.path().join("out"));

    let summary = &finished.summary;
    assert_eq!(summary.disagreements, []);
    for gate in &summary.gates {
        assert_eq!(gate.result, GateResult::Passed, "{gate:?}");
        assert!(gate.checked > 0);
    }
    assert!(summary.passed);
    assert_eq!(summary.state, State::Complete);
    assert_eq!(summary.finished, plan.len());
    assert_eq!(summary.cells.len(), plan.cells().count());
}

#[test]
fn summary_counts_the_chain_from_injected_to_contained() {
    let parent = place();
    let finished = run_honestly(&plan(Filter::default()), &parent.path().join("out"));
    let summary = &finished.summary;

    let wild = cell(summary, "user-process/off/pcie/edu/D1.device.tenant1");
    assert_eq!((wild.injected, wild.activated, wild.manifested), (3, 3, 3));
    assert_eq!((wild.contained, wild.landed), (0, 3));
    assert_eq!(wild.worst(), Some((Outcome::SilentCorruption, 3)));
    assert_eq!(wild.corrupted.get("tenant1"), Some(&3));
    assert_eq!(wild.label, Label::ByConstruction);
    assert_eq!(wild.escaped.interval, None, "three trials have no rate");
    assert!(wild.deployed);

    let walled = cell(summary, "user-process/strict/pcie/edu/D1.device.tenant1");
    assert_eq!(walled.worst(), Some((Outcome::Masked, 3)));
    assert_eq!(walled.stray.blocked, 3);
    assert_eq!(walled.noticed.by.get("iommu"), Some(&3));

    let lazy = cell(summary, "user-process/lazy/pcie/edu/D1.device.tenant1");
    assert!(!lazy.deployed);

    let crash = cell(summary, "in-kernel/strict/pcie/edu/X1.panic");
    assert_eq!(crash.worst(), Some((Outcome::SystemLost, 3)));
    assert_eq!(crash.censored, 3);

    let frozen = cell(
        summary,
        "user-process/strict/pcie-notimeout/edu/B1.all-ones",
    );
    assert_eq!(frozen.worst(), Some((Outcome::TenantLost, 3)));

    let clean = cell(summary, "in-kernel/strict/pcie/edu/none");
    assert_eq!((clean.injected, clean.activated), (3, 0));
    assert!(clean.costs.as_ref().is_some_and(|costs| costs.maps > 0));
}

#[test]
fn thirty_trials_have_an_interval_and_a_bound() {
    let settings = Settings {
        trials: 30,
        ..Settings::QUICK
    };
    let filter = Filter {
        faults: vec!["D1".into()],
        placements: vec![PlacementId::UserProcess],
        ..Filter::default()
    };
    let plan = Plan::new(settings, filter).expect("the filter leaves trials");
    let parent = place();

    let finished = run_honestly(&plan, &parent.path().join("out"));

    let walled = cell(
        &finished.summary,
        "user-process/strict/pcie/edu/D1.device.tenant1",
    );
    assert!(walled.escaped.interval.is_some());
    let bound = walled.escaped.upper_bound.expect("no event was seen");
    assert!((bound - 0.095).abs() < 0.001);
}

#[test]
fn same_seed_gives_the_same_records_but_for_times() {
    let parent = place();
    let plan = of_fault("X1");
    let one = run_honestly(&plan, &parent.path().join("one"));
    let two = run_honestly(&plan, &parent.path().join("two"));
    assert_eq!(
        without_times(&lines(&one.directory)),
        without_times(&lines(&two.directory))
    );
}

#[test]
fn subset_has_the_same_records_as_the_whole() {
    let parent = place();
    let whole = run_honestly(&of_fault("D1"), &parent.path().join("whole"));
    let subset = plan(Filter {
        faults: vec!["D1".into()],
        placements: vec![PlacementId::RootPartition],
        ..Filter::default()
    });
    let part = run_honestly(&subset, &parent.path().join("part"));

    let whole: HashMap<u64, Value> = without_times(&lines(&whole.directory))
        .into_iter()
        .map(|record| (record["index"].as_u64().expect("an index"), record))
        .collect();
    let part = without_times(&lines(&part.directory));
    assert_eq!(part.len() as u64, subset.len());
    for record in &part {
        let index = record["index"].as_u64().expect("an index");
        assert_eq!(whole.get(&index), Some(record));
    }
}

#[test]
fn summary_of_a_run_is_the_summary_of_its_files() {
    let parent = place();
    let finished = run_honestly(&of_fault("B1"), &parent.path().join("out"));
    let written = std::fs::read(finished.directory.path().join("summary.json")).expect("a summary");
    let read: Summary = serde_json::from_slice(&written).expect("a summary");
    assert_eq!(read, finished.summary);

    let header = std::fs::read(finished.directory.path().join("run.json")).expect("a header");
    let header: Value = serde_json::from_slice(&header).expect("a header");
    assert_eq!(header["environment_id"], read.environment_id);
    assert_eq!(header["planned"], read.planned);
}

#[test]
fn control_that_does_not_escape_fails_the_run() {
    let summary = run_spoiled(&of_fault("D1"), |_, report| {
        report.corruption.clear();
        report.stray.clear();
        report.stray_landed = 0;
    });
    assert_eq!(gate(&summary, "negative control"), GateResult::Failed);
    assert!(!summary.passed);
}

#[test]
fn control_that_was_never_activated_fails_the_run() {
    let summary = run_spoiled(&of_fault("D1"), |spec, report| {
        if spec.fault != Fault::None {
            *report = TrialReport {
                activated: 0,
                corruption: Vec::new(),
                stray: Vec::new(),
                stray_landed: 0,
                stray_blocked: 0,
                detection: None,
                ..report.clone()
            };
            for io in &mut report.io {
                io.errors = 0;
                io.corrupted = 0;
            }
        }
    });
    assert_eq!(gate(&summary, "negative control"), GateResult::Failed);
    assert_eq!(gate(&summary, "clean trials"), GateResult::Passed);
    assert_eq!(gate(&summary, "predictions"), GateResult::NotRun);
}

#[test]
fn error_in_a_clean_trial_fails_the_run() {
    let summary = run_spoiled(&of_fault("none"), |spec, report| {
        if spec.placement == PlacementId::RootPartition {
            report.io[0].errors = 1;
        }
    });
    assert_eq!(gate(&summary, "clean trials"), GateResult::Failed);
    assert!(!summary.passed);
}

#[test]
fn harm_without_activation_is_not_activated_and_fails_the_run() {
    let summary = run_spoiled(&of_fault("R1"), |_, report| report.activated = 0);
    let struck = cell(&summary, "in-kernel/strict/pcie/virtio-blk/R1.index-64");
    assert_eq!(struck.outcomes.get(&Outcome::NotActivated), Some(&3));
    assert_eq!((struck.activated, struck.contained), (0, 0));
    assert_eq!(gate(&summary, "clean trials"), GateResult::Failed);
}

#[test]
fn death_that_leads_up_to_a_fault_that_does_not_act_is_no_trouble_of_a_clean_trial() {
    let summary = run_spoiled(&of_fault("D12"), |spec, report| {
        if spec.fault != Fault::None {
            report.activated = 0;
            report.domains[0].deaths.push("planned".to_owned());
        }
    });
    assert_eq!(gate(&summary, "clean trials"), GateResult::Passed);
    assert_eq!(gate(&summary, "predictions"), GateResult::NotRun);
}

#[test]
fn difference_between_the_twins_fails_the_run() {
    let summary = run_spoiled(&of_fault("X2"), |spec, report| {
        if spec.placement == PlacementId::Hypervisor {
            report.counts.doorbells += 1;
        }
    });
    assert_eq!(gate(&summary, "A/A control"), GateResult::Failed);
}

#[test]
fn twins_are_not_a_gate_under_the_wall_clock() {
    let settings = Settings {
        clock: cofferdam_placement::trial::ClockKind::Wall,
        ..Settings::QUICK
    };
    let filter = Filter {
        faults: vec!["X2".into()],
        ..Filter::default()
    };
    let plan = Plan::new(settings, filter).expect("the filter leaves trials");
    let times_differ = run_spoiled(&plan, |spec, report| {
        if spec.placement == PlacementId::Hypervisor {
            report.ended_at_ns += 1;
        }
    });
    assert_eq!(gate(&times_differ, "A/A control"), GateResult::Passed);

    let summary = run_spoiled(&plan, |spec, report| {
        if spec.placement == PlacementId::Hypervisor && report.activated > 0 {
            report.io[0].corrupted = 1;
        }
    });
    assert_eq!(gate(&summary, "A/A control"), GateResult::Reported);
    assert!(summary.passed);
}

#[test]
fn escape_through_a_strict_iommu_is_a_disagreement_that_leads() {
    let summary = run_spoiled(&of_fault("D1"), |spec, report| {
        let strict = spec.iommu == cofferdam_machine::config::IommuMode::Strict;
        if strict && spec.placement == PlacementId::UserProcess && report.activated > 0 {
            report
                .corruption
                .push(cofferdam_placement::trial::Corruption {
                    owner: Owner::Tenant2,
                    bytes: 8,
                });
        }
    });
    assert_eq!(gate(&summary, "predictions"), GateResult::Failed);
    let first = summary.disagreements.first().expect("it disagrees");
    assert_eq!(first.label, Label::ByConstruction);
    assert_eq!(first.trials, 3);
    assert!(first.cell.ends_with("D1.device.tenant2"));
}

#[test]
fn stopped_run_keeps_what_it_has_and_says_so() {
    let parent = place();
    let plan = of_fault("M1");
    let finished = run(
        &plan,
        &parent.path().join("out"),
        honest,
        &mut StopAfter::trials(10),
    )
    .expect("the fake engine never fails");
    assert_eq!(finished.summary.state, State::Interrupted);
    assert_eq!(finished.summary.finished, 10);
    assert_eq!(lines(&finished.directory).lines().count(), 10);
}

#[test]
fn record_torn_by_a_kill_is_recognised_and_the_others_are_kept() {
    // Arrange: a run that was killed while it wrote its last line.
    let parent = place();
    let finished = run_honestly(&of_fault("R1"), &parent.path().join("out"));
    let whole = lines(&finished.directory);
    let total = whole.lines().count();
    let last = whole.lines().last().expect("records").len() + 1;

    for cut in [1, last / 2, last - 1] {
        // Act
        let torn = &whole.as_bytes()[..whole.len() - cut];
        let found = record::read(Cursor::new(torn)).expect("only the end is torn");

        // Assert
        assert_eq!(found.records.len(), total - 1);
        assert_eq!(found.torn, last - cut);
    }
    let found = record::read(Cursor::new(&whole)).expect("nothing is torn");
    assert_eq!((found.records.len(), found.torn), (total, 0));
}

#[test]
fn broken_line_in_the_middle_is_an_error_with_its_number() {
    let parent = place();
    let finished = run_honestly(&of_fault("R1"), &parent.path().join("out"));
    let broken = lines(&finished.directory).replacen('{', "[", 1);
    let error = record::read(Cursor::new(broken)).expect_err("line 1 is broken");
    assert!(matches!(error, RecordError::Malformed { line: 1, .. }));
}

#[test]
fn record_of_another_schema_is_refused() {
    let parent = place();
    let finished = run_honestly(&of_fault("R1"), &parent.path().join("out"));
    let other = lines(&finished.directory).replacen("\"schema\":1", "\"schema\":9", 1);
    let error = record::read(Cursor::new(other)).expect_err("schema 9 is unknown");
    assert!(matches!(error, RecordError::Schema { found: 9, .. }));
}

#[test]
fn record_holds_all_it_takes_to_rerun_the_trial() {
    let parent = place();
    let plan = of_fault("D6");
    let finished = run_honestly(&plan, &parent.path().join("out"));
    let found = record::read(Cursor::new(lines(&finished.directory))).expect("records");
    let specs: Vec<TrialSpec> = found
        .records
        .into_iter()
        .map(|record| record.spec)
        .collect();
    assert!(plan.trials().map(|trial| trial.spec).eq(specs));
}

struct Failing {
    runs: u32,
}

impl cofferdam_experiment::engine::Engine for Failing {
    fn run(&mut self, spec: &TrialSpec) -> Result<TrialReport, EngineError> {
        self.runs += 1;
        if self.runs == 1 {
            return Err(EngineError::Infrastructure("killed from outside".into()));
        }
        honest()?.run(spec)
    }

    fn facts(&self) -> Vec<cofferdam_experiment::environment::Fact> {
        Vec::new()
    }

    fn unavailable(&self) -> Vec<cofferdam_experiment::environment::Unavailable> {
        Vec::new()
    }
}

#[test]
fn failed_engine_is_replaced_and_the_trial_tried_again() {
    // Arrange: engines 0 and 1 fail, the third works.
    let parent = place();
    let plan = of_fault("R1");
    let started = AtomicU32::new(0);
    let start = || {
        let earlier = started.fetch_add(1, Ordering::Relaxed);
        Ok(Failing {
            runs: u32::from(earlier >= 2),
        })
    };

    // Act
    let finished = run(
        &plan,
        &parent.path().join("out"),
        start,
        &mut StopAfter::never(),
    )
    .expect("the third engine works");

    // Assert
    assert_eq!(started.into_inner(), 3);
    assert_eq!(finished.summary.infrastructure_failures, []);
    assert_eq!(finished.summary.finished, plan.len());
}

#[test]
fn engines_that_always_fail_end_the_run_without_a_finding() {
    let parent = place();
    let plan = of_fault("R1");
    let finished = run(
        &plan,
        &parent.path().join("out"),
        || Ok(Failing { runs: 0 }),
        &mut StopAfter::never(),
    )
    .expect("the directory can be written");
    assert_eq!(finished.summary.state, State::Aborted);
    assert_eq!(finished.summary.infrastructure_failures.len(), 5);
    assert_eq!(finished.summary.finished, 0);
    assert!(finished.summary.disagreements.is_empty());
}

#[test]
fn engine_that_cannot_start_leaves_nothing_behind() {
    let parent = place();
    let out = parent.path().join("out");
    let error = run(
        &of_fault("R1"),
        &out,
        || Err::<Failing, _>(EngineError::Unavailable("no memfd".into())),
        &mut StopAfter::never(),
    )
    .expect_err("there is no engine");
    assert!(matches!(error, RunError::Engine(_)));
    assert!(error.to_string().contains("no memfd"));
    assert!(!out.exists());
}

#[test]
fn directory_with_results_is_refused() {
    let parent = place();
    let out = parent.path().join("out");
    run_honestly(&of_fault("R1"), &out);
    let before = std::fs::read_to_string(out.join("trials.jsonl")).expect("records");

    let error =
        run(&of_fault("R1"), &out, honest, &mut StopAfter::never()).expect_err("it holds results");

    assert!(matches!(error, RunError::Out(OutError::NotEmpty(_))));
    let after = std::fs::read_to_string(out.join("trials.jsonl")).expect("records");
    assert_eq!(before, after);
}

#[test]
fn files_are_whole_and_no_temporary_is_left() {
    let parent = place();
    let finished = run_honestly(&of_fault("R1"), &parent.path().join("out"));
    assert_eq!(
        names(finished.directory.path()),
        ["run.json", "summary.json", "trials.jsonl"]
    );
}

fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(path)
        .expect("the directory exists")
        .map(|entry| entry.expect("an entry").file_name().display().to_string())
        .collect();
    names.sort();
    names
}

#[test]
fn records_parse_back_to_what_was_judged() {
    let parent = place();
    let finished = run_honestly(&of_fault("X1"), &parent.path().join("out"));
    let found = record::read(Cursor::new(lines(&finished.directory))).expect("records");
    let crashed: Vec<&Record> = found
        .records
        .iter()
        .filter(|record| record.cell == "user-process/strict/pcie/edu/X1.panic")
        .collect();
    assert_eq!(crashed.len(), 3);
    for record in crashed {
        assert_eq!(record.verdict.outcome, Outcome::Contained);
        assert!(record.verdict.paired);
    }
}

#[test]
fn campaign_accounts_for_every_trial_of_its_plan() {
    // Arrange
    let parent = place();
    let out = parent.path().join("out");
    let filter = Filter {
        faults: vec!["D8".into()],
        ..Filter::default()
    };
    let plan = Plan::of_injections(Settings::QUICK, filter, 1000).expect("a plan");

    // Act
    let summary = run_honestly(&plan, &out).summary;

    // Assert
    let account = summary.campaign.expect("it was asked for faults");
    assert_eq!(
        (account.wanted, account.lost, account.surplus),
        (1000, 0, 0)
    );
    assert_eq!(account.left_behind, Some(0));
    assert!(account.activated >= 1000 && account.injected >= account.activated);
    let injected: u32 = summary
        .cells
        .iter()
        .filter(|cell| !cell.is_clean())
        .map(|cell| cell.injected)
        .sum();
    assert_eq!(account.injected, u64::from(injected));
    assert!(account.is_whole());
}

#[test]
fn campaign_that_was_stopped_counts_what_it_lacks() {
    let parent = place();
    let plan = Plan::of_injections(Settings::QUICK, Filter::default(), 10_000).expect("a plan");

    let out = parent.path().join("out");
    let finished = run(&plan, &out, honest, &mut StopAfter::trials(50)).expect("it is stopped");

    let account = finished.summary.campaign.expect("it was asked for faults");
    assert_eq!(account.lost, plan.len() - finished.summary.finished);
    assert!(!account.is_whole());
}
