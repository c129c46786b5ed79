//! Runs in parts, in time and in space: killed and continued, side by side, in shards that are
//! merged. Whatever the way, the result is that of one undisturbed run.

mod fake;

use cofferdam_experiment::assemble::AssembleError;
use cofferdam_experiment::engine::{Engine, EngineError};
use cofferdam_experiment::environment::{Fact, Unavailable};
use cofferdam_experiment::header::{HeaderError, Wanted};
use cofferdam_experiment::merge::{MergeError, merge};
use cofferdam_experiment::outline::{Outline, estimate};
use cofferdam_experiment::plan::Filter;
use cofferdam_experiment::run::{Finished, RunError, resume, run_new};
use cofferdam_experiment::seed::Draw;
use cofferdam_experiment::shard::Shard;
use cofferdam_experiment::summary::State;
use cofferdam_placement::trial::{ClockKind, PlacementId, TrialReport, TrialSpec};
use fake::{Fake, StopAfter, spoiled};
use serde_json::Value;
use std::collections::HashSet;
use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Barrier, Mutex};

fn honest() -> Result<Fake<impl FnMut(&TrialSpec, &mut TrialReport)>, EngineError> {
    spoiled(|_, _| {})
}

fn wanted(fault: &str) -> Wanted {
    Wanted {
        quick: true,
        filter: Filter {
            faults: vec![fault.into()],
            ..Filter::default()
        },
        ..Wanted::default()
    }
}

fn lanes(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).expect("a run has lanes")
}

fn run_in(wanted: &Wanted, out: &Path, jobs: usize) -> Finished {
    let plan = wanted.plan().expect("the filter leaves trials");
    run_new(&plan, out, lanes(jobs), honest, &mut StopAfter::never())
        .expect("the fake engine never fails")
}

fn records(path: &Path) -> Vec<u8> {
    fs::read(path.join("trials.jsonl")).expect("records were written")
}

/// The records, byte for byte but for the times.
fn timeless(path: &Path) -> Vec<String> {
    let text = String::from_utf8(records(path)).expect("records are text");
    assert!(text.ends_with('\n'), "the last line is whole");
    text.lines()
        .map(|line| {
            let (head, times) = line.rsplit_once(",\"times\":").expect("times come last");
            let _: Value = serde_json::from_str(&format!("{head}}}")).expect("all else is JSON");
            assert!(times.contains("finished_us"));
            head.to_owned()
        })
        .collect()
}

fn assert_same(one: &Path, other: &Path) {
    assert_eq!(timeless(one), timeless(other));
    for name in ["summary.json", "run.json"] {
        let read = |path: &Path| fs::read(path.join(name)).expect("it was written");
        assert!(read(one) == read(other), "{name} differs");
    }
}

/// A run of which a kill left the first `bytes` of its records and no summary.
fn killed(whole: &Path, to: &Path, bytes: usize) {
    fs::create_dir(to).expect("a directory");
    fs::copy(whole.join("run.json"), to.join("run.json")).expect("a header");
    fs::write(to.join("trials.jsonl"), &records(whole)[..bytes]).expect("records");
}

#[test]
fn run_killed_anywhere_and_continued_is_an_undisturbed_one() {
    let parent = tempfile::tempdir().expect("a temporary directory");
    let whole = parent.path().join("whole");
    run_in(&wanted("R1"), &whole, 1);
    let length = records(&whole).len();
    let mut draw = Draw::new(7);
    let mut cuts: Vec<usize> = (0..12)
        .map(|_| draw.between(0, u32::try_from(length).expect("a small file")) as usize)
        .collect();
    cuts.extend([0, 1, length - 1, length]);

    for (at, cut) in cuts.into_iter().enumerate() {
        let part = parent.path().join(format!("part{at}"));
        killed(&whole, &part, cut);
        let jobs = Some(lanes(1 + at % 3));

        resume(
            &part,
            &Wanted::default(),
            jobs,
            honest,
            &mut StopAfter::never(),
        )
        .expect("the run can be continued");

        assert_same(&whole, &part);
    }
}

#[test]
fn run_stopped_again_and_again_comes_to_its_end() {
    let parent = tempfile::tempdir().expect("a temporary directory");
    let (whole, part) = (parent.path().join("whole"), parent.path().join("part"));
    let wanted = wanted("X1");
    run_in(&wanted, &whole, 1);
    let plan = wanted.plan().expect("the filter leaves trials");
    run_new(&plan, &part, lanes(2), honest, &mut StopAfter::trials(3)).expect("it stops");

    let mut stops = 0;
    while resume(
        &part,
        &wanted,
        Some(lanes(1)),
        honest,
        &mut StopAfter::trials(9),
    )
    .expect("the run can be continued")
    .summary
    .state
        == State::Interrupted
    {
        stops += 1;
    }

    assert!(stops > 2);
    assert_same(&whole, &part);
}

#[test]
fn trial_lost_in_the_middle_is_run_and_put_in_its_place() {
    // Arrange: clean trials are lost, so what was paired with them has no pair.
    let parent = tempfile::tempdir().expect("a temporary directory");
    let (whole, part) = (parent.path().join("whole"), parent.path().join("part"));
    run_in(&wanted("B1"), &whole, 1);
    killed(&whole, &part, 0);
    let text = String::from_utf8(records(&whole)).expect("records are text");
    let left: String = text
        .lines()
        .filter(|line| !line.contains("root-partition/strict/pcie/edu/none"))
        .map(|line| {
            let alone = line.contains("root-partition/strict/pcie/edu/");
            let unpaired = line.replace("\"paired\":true", "\"paired\":false");
            format!("{}\n", if alone { unpaired.as_str() } else { line })
        })
        .collect();
    assert!(left.contains("\"paired\":false"));
    fs::write(part.join("trials.jsonl"), left).expect("records");

    // Act
    resume(
        &part,
        &Wanted::default(),
        None,
        honest,
        &mut StopAfter::never(),
    )
    .expect("the run can be continued");

    // Assert
    assert_same(&whole, &part);
}

#[test]
fn finished_run_is_continued_without_an_engine() {
    let parent = tempfile::tempdir().expect("a temporary directory");
    let whole = parent.path().join("whole");
    run_in(&wanted("R1"), &whole, 1);
    let before = records(&whole);
    let none =
        || Err::<Fake<fn(&TrialSpec, &mut TrialReport)>, _>(EngineError::Unavailable("no".into()));

    resume(
        &whole,
        &Wanted::default(),
        None,
        none,
        &mut StopAfter::never(),
    )
    .expect("nothing is missing");

    assert!(before == records(&whole));
}

#[test]
fn other_wishes_than_the_runs_are_refused_with_both_values() {
    let parent = tempfile::tempdir().expect("a temporary directory");
    let whole = parent.path().join("whole");
    run_in(&wanted("R1"), &whole, 1);
    let before = records(&whole);
    let other = |change: fn(&mut Wanted)| {
        let mut wanted = wanted("R1");
        change(&mut wanted);
        wanted
    };

    for (wanted, what) in [
        (other(|w| w.seed = Some(5)), "--seed is 1 in"),
        (other(|w| w.trials = Some(9)), "--trials is 3 in"),
        (
            other(|w| w.clock = Some(ClockKind::Wall)),
            "--clock is leap in",
        ),
        (
            other(|w| w.filter.faults = vec!["X1".into()]),
            "--fault is R1 in",
        ),
        (
            other(|w| w.filter.placements = vec![PlacementId::InKernel]),
            "--placement is all in",
        ),
        (
            other(|w| w.shard = "1/2".parse().ok()),
            "--shard is none in",
        ),
    ] {
        let error = resume(&whole, &wanted, None, honest, &mut StopAfter::never())
            .expect_err("it is another run");
        assert!(matches!(
            error,
            RunError::Header(HeaderError::Differs { .. })
        ));
        assert!(error.to_string().contains(what), "{error}");
    }
    assert!(before == records(&whole));
}

#[test]
fn run_of_another_version_or_catalogue_is_not_continued() {
    let parent = tempfile::tempdir().expect("a temporary directory");
    let whole = parent.path().join("whole");
    run_in(&wanted("R1"), &whole, 1);
    let header = fs::read_to_string(whole.join("run.json")).expect("a header");
    let version = concat!("\"cofferdam\": \"", env!("CARGO_PKG_VERSION"));
    for (from, to, what) in [
        (version, "\"cofferdam\": \"0.0.9", "the version is 0.0.9"),
        ("\"plan\": \"", "\"plan\": \"0", "the plan's digest"),
    ] {
        fs::write(whole.join("run.json"), header.replace(from, to)).expect("a header");
        let error = resume(
            &whole,
            &Wanted::default(),
            None,
            honest,
            &mut StopAfter::never(),
        )
        .expect_err("it is another program's");
        assert!(error.to_string().contains(what), "{error}");
    }
}

/// An engine none of whose trials ends before as many run as the barrier waits for.
struct Wide<'a>(&'a Barrier);

impl Engine for Wide<'_> {
    fn run(&mut self, spec: &TrialSpec) -> Result<TrialReport, EngineError> {
        self.0.wait();
        honest()?.run(spec)
    }

    fn facts(&self) -> Vec<Fact> {
        honest().map(|engine| engine.facts()).unwrap_or_default()
    }

    fn unavailable(&self) -> Vec<Unavailable> {
        honest()
            .map(|engine| engine.unavailable())
            .unwrap_or_default()
    }
}

#[test]
fn trials_side_by_side_are_recorded_as_one_by_one() {
    let parent = tempfile::tempdir().expect("a temporary directory");
    let (one, many) = (parent.path().join("one"), parent.path().join("many"));
    let wanted = wanted("R1");
    run_in(&wanted, &one, 1);
    let barrier = Barrier::new(3);

    let plan = wanted.plan().expect("the filter leaves trials");
    assert_eq!(plan.len() % 3, 0, "three at a time come out even");
    let start = || Ok(Wide(&barrier));
    run_new(&plan, &many, lanes(3), start, &mut StopAfter::never()).expect("it runs");

    assert_same(&one, &many);
}

/// An engine that fails the first time at every trial.
struct Shaky<'a>(&'a Mutex<HashSet<String>>);

impl Engine for Shaky<'_> {
    fn run(&mut self, spec: &TrialSpec) -> Result<TrialReport, EngineError> {
        let new = self
            .0
            .lock()
            .expect("nobody panics")
            .insert(format!("{spec:?}"));
        if new {
            return Err(EngineError::Infrastructure("killed from outside".into()));
        }
        honest()?.run(spec)
    }

    fn facts(&self) -> Vec<Fact> {
        honest().map(|engine| engine.facts()).unwrap_or_default()
    }

    fn unavailable(&self) -> Vec<Unavailable> {
        honest()
            .map(|engine| engine.unavailable())
            .unwrap_or_default()
    }
}

#[test]
fn engines_that_fail_side_by_side_are_replaced_each() {
    let parent = tempfile::tempdir().expect("a temporary directory");
    let (one, many) = (parent.path().join("one"), parent.path().join("many"));
    let wanted = wanted("R1");
    run_in(&wanted, &one, 1);
    let failed = Mutex::new(HashSet::new());

    let plan = wanted.plan().expect("the filter leaves trials");
    run_new(
        &plan,
        &many,
        lanes(2),
        || Ok(Shaky(&failed)),
        &mut StopAfter::never(),
    )
    .expect("it runs");

    let failed = failed.into_inner().expect("nobody panics");
    assert_eq!(failed.len() as u64, plan.len());
    assert_same(&one, &many);
}

fn shards(parent: &Path, wanted: &Wanted, of: u32) -> Vec<PathBuf> {
    Shard::all(of)
        .map(|shard| {
            let out = parent.join(format!("shard{}", shard.number()));
            let part = Wanted {
                shard: Some(shard),
                ..wanted.clone()
            };
            let finished = run_in(&part, &out, 1);
            assert!(finished.summary.passed, "a shard is a comparison by itself");
            assert_eq!(finished.summary.state, State::Complete);
            out
        })
        .collect()
}

#[test]
fn merged_shards_are_the_whole_in_any_order_and_however_often() {
    // Arrange
    let parent = tempfile::tempdir().expect("a temporary directory");
    let whole = parent.path().join("whole");
    let wanted = wanted("M1");
    run_in(&wanted, &whole, 1);
    let parts = shards(parent.path(), &wanted, 3);
    let [one, two, three] = &parts[..] else {
        panic!("three shards");
    };
    let merged = parent.path().join("merged");

    // Act and assert
    merge(&parts, &merged, false).expect("all is there");
    assert_same(&whole, &merged);

    for (at, from) in [
        vec![three, one, two],
        vec![one, one, two, three, two],
        vec![&merged],
        vec![&merged, two],
    ]
    .into_iter()
    .enumerate()
    {
        let from: Vec<PathBuf> = from.into_iter().cloned().collect();
        let again = parent.path().join(format!("again{at}"));
        merge(&from, &again, false).expect("all is there");
        assert!(records(&merged) == records(&again));
        assert_same(&whole, &again);
    }
}

#[test]
fn missing_shard_is_named_with_counts_and_nothing_is_written() {
    let parent = tempfile::tempdir().expect("a temporary directory");
    let wanted = wanted("M1");
    let parts = shards(parent.path(), &wanted, 3);
    let out = parent.path().join("merged");
    let planned = wanted.plan().expect("the filter leaves trials").len();

    let error = merge(&[parts[0].clone(), parts[2].clone()], &out, false)
        .expect_err("the second is missing");

    let text = error.to_string();
    assert!(matches!(error, MergeError::Missing { .. }));
    assert!(
        text.contains(&format!("{} of {planned} trials", planned / 3)),
        "{text}"
    );
    assert!(
        text.contains(&format!("{} of shard 2/3;", planned / 3)),
        "{text}"
    );
    assert!(!out.exists());
}

#[test]
fn partial_merge_can_be_continued_to_the_whole() {
    let parent = tempfile::tempdir().expect("a temporary directory");
    let (whole, out) = (parent.path().join("whole"), parent.path().join("merged"));
    let wanted = wanted("M1");
    run_in(&wanted, &whole, 1);
    let parts = shards(parent.path(), &wanted, 3);

    let merged = merge(&parts[1..], &out, true).expect("what is there");
    assert_eq!(merged.summary.state, State::Interrupted);
    assert!(merged.summary.finished < merged.summary.planned);
    drop(merged);
    resume(
        &out,
        &Wanted::default(),
        None,
        honest,
        &mut StopAfter::never(),
    )
    .expect("the rest can be run");

    assert_same(&whole, &out);
}

#[test]
fn two_different_records_of_one_trial_are_an_error_that_names_it() {
    let parent = tempfile::tempdir().expect("a temporary directory");
    let wanted = wanted("R1");
    let (one, other) = (parent.path().join("one"), parent.path().join("other"));
    run_in(&wanted, &one, 1);
    let plan = wanted.plan().expect("the filter leaves trials");
    let liar = || spoiled(|_, report: &mut TrialReport| report.counts.doorbells += 1);
    run_new(&plan, &other, lanes(1), liar, &mut StopAfter::never()).expect("it runs");

    let error = merge(&[one, other], &parent.path().join("out"), false).expect_err("they differ");

    assert!(matches!(
        error,
        MergeError::Assemble(AssembleError::Conflict { .. })
    ));
    let first = plan.trials().next().expect("a trial");
    assert!(
        error
            .to_string()
            .contains(&format!("trial {} ({})", first.index, first.cell.id()))
    );
}

#[test]
fn shards_of_other_plans_are_refused() {
    let parent = tempfile::tempdir().expect("a temporary directory");
    let one = parent.path().join("one");
    run_in(&wanted("R1"), &one, 1);
    for (at, (other, what)) in [
        (
            Wanted {
                seed: Some(2),
                ..wanted("R1")
            },
            "--seed is 2",
        ),
        (wanted("X1"), "--fault is X1"),
    ]
    .into_iter()
    .enumerate()
    {
        let path = parent.path().join(format!("other{at}"));
        run_in(&other, &path, 1);
        let from = [one.clone(), path];
        let error = merge(&from, &parent.path().join("out"), false).expect_err("another plan");
        assert!(error.to_string().contains(what), "{error}");
    }
}

#[test]
fn record_of_another_plan_is_refused() {
    let parent = tempfile::tempdir().expect("a temporary directory");
    let one = parent.path().join("one");
    run_in(&wanted("R1"), &one, 1);
    let text = String::from_utf8(records(&one)).expect("records are text");
    fs::write(
        one.join("trials.jsonl"),
        text.replacen("\"seed\":", "\"seed\":1", 1),
    )
    .expect("records");

    let error = merge(&[one], &parent.path().join("out"), false).expect_err("it was edited");

    assert!(matches!(
        error,
        MergeError::Assemble(AssembleError::Foreign { .. })
    ));
}

#[test]
fn trials_of_two_hosts_go_together_by_the_leaping_clock_only() {
    let parent = tempfile::tempdir().expect("a temporary directory");
    for (clock, goes) in [(ClockKind::Leap, true), (ClockKind::Wall, false)] {
        let wanted = Wanted {
            clock: Some(clock),
            ..wanted("R1")
        };
        let base = parent.path().join(format!("{clock:?}"));
        fs::create_dir(&base).expect("a directory");
        let parts = shards(&base, &wanted, 2);
        for name in ["run.json", "trials.jsonl"] {
            // Another name for the second host, in its header and in its records.
            let path = parts[1].join(name);
            let text = fs::read_to_string(&path).expect("it was written");
            fs::write(
                &path,
                text.replace("made up by a test", "made up elsewhere"),
            )
            .expect("it");
        }
        let header: Value =
            serde_json::from_slice(&fs::read(parts[1].join("run.json")).expect("a header"))
                .expect("JSON");
        let moved: cofferdam_experiment::environment::Environment =
            serde_json::from_value(header["environment"].clone()).expect("an environment");
        let text = String::from_utf8(records(&parts[1])).expect("text");
        let old = header["environment_id"].as_str().expect("a name");
        fs::write(
            parts[1].join("trials.jsonl"),
            text.replace(old, &moved.id()),
        )
        .expect("records");

        let merged = merge(&parts, &base.join("out"), false);

        match merged {
            Ok(merged) => {
                assert!(goes);
                assert_eq!(merged.summary.elsewhere, [moved]);
            }
            Err(error) => {
                assert!(!goes, "{error}");
                assert!(error.to_string().contains("the environment is"), "{error}");
            }
        }
    }
}

#[test]
fn outline_counts_every_trial_once_on_every_axis() {
    let plan = wanted("B1").plan().expect("the filter leaves trials");

    let outline = Outline::of(&plan);
    let guess = estimate(&plan, lanes(2), honest).expect("the fake engine never fails");

    for axis in [
        &outline.placements,
        &outline.iommu,
        &outline.fabrics,
        &outline.drivers,
        &outline.faults,
    ] {
        assert_eq!(axis.values().sum::<u64>(), plan.len());
    }
    assert!(outline.not_applicable.values().all(|cells| *cells > 0));
    assert!(!outline.not_applicable.is_empty());
    assert!(guess.sampled > 0 && guess.sampled <= plan.len());
}
