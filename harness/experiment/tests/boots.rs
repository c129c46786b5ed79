//! Runs whose trials share boots: the same records however they come about, and figures that know
//! which trials belong together.

mod fake;

use cofferdam_experiment::engine::{Engine, EngineError};
use cofferdam_experiment::environment::{Fact, Unavailable};
use cofferdam_experiment::header::Wanted;
use cofferdam_experiment::merge::merge;
use cofferdam_experiment::plan::{Filter, Plan, PlanError, Settings, Trial};
use cofferdam_experiment::record::{Record, read};
use cofferdam_experiment::replay::{Address, ReplayError, boot_of, find};
use cofferdam_experiment::run::{Finished, resume, run_new};
use cofferdam_experiment::shard::Shard;
use cofferdam_machine::config::IommuMode;
use cofferdam_placement::trial::{ClockKind, DriverId, Fault, PlacementId, TrialReport, TrialSpec};
use fake::{StopAfter, spoiled};
use std::fs;
use std::io::Cursor;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

/// An engine whose trials share boots until one leaves something behind: of this fault every one
/// with an even seed.
struct Sharing;

impl Engine for Sharing {
    fn run(&mut self, spec: &TrialSpec) -> Result<TrialReport, EngineError> {
        let mut fake = spoiled(|spec: &TrialSpec, report: &mut TrialReport| {
            let leaves = matches!(spec.fault, Fault::D8 { .. }) && spec.seed.is_multiple_of(2);
            report.spoilt = leaves.then(|| "a test says so".to_owned());
        })?;
        fake.run(spec)
    }

    fn run_boot(&mut self, specs: &[TrialSpec]) -> Result<Vec<TrialReport>, EngineError> {
        for pair in specs.windows(2) {
            assert!(pair[0].may_be_followed_by(&pair[1]), "{pair:?}");
        }
        let mut reports = Vec::new();
        for spec in specs {
            let report = self.run(spec)?;
            let last = report.spoilt.is_some();
            reports.push(report);
            if last {
                break;
            }
        }
        Ok(reports)
    }

    fn facts(&self) -> Vec<Fact> {
        Vec::new()
    }

    fn unavailable(&self) -> Vec<Unavailable> {
        Vec::new()
    }
}

/// Seven trials a cell, three a boot: the last boot has one.
fn wanted() -> Wanted {
    Wanted {
        quick: true,
        trials: Some(7),
        injections_per_boot: Some(3),
        filter: Filter {
            placements: vec![PlacementId::InKernel, PlacementId::UserProcess],
            iommu: vec![IommuMode::Strict],
            drivers: vec![DriverId::Edu],
            faults: vec!["D8".into(), "D1".into(), "X1".into()],
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
    let never = &mut StopAfter::never();
    run_new(&plan, out, lanes(jobs), || Ok(Sharing), never).expect("the engine never fails")
}

fn records(path: &Path) -> Vec<Record> {
    let bytes = fs::read(path.join("trials.jsonl")).expect("records were written");
    read(Cursor::new(bytes)).expect("records").records
}

/// The records but for when they were made.
fn timeless(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path.join("trials.jsonl")).expect("records");
    let head = |line: &str| line.split(",\"times\":").next().map(str::to_owned);
    text.lines().filter_map(head).collect()
}

fn place() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

#[test]
fn records_follow_the_plan_and_name_the_first_of_their_boot() {
    let parent = place();
    let out = parent.path().join("run");
    run_in(&wanted(), &out, 2);
    let plan = wanted().plan().expect("a plan");

    let records = records(&out);

    assert_eq!(records.len() as u64, plan.len());
    let (mut shared, mut ended) = (0, 0);
    for (at, (record, trial)) in records.iter().zip(plan.trials()).enumerate() {
        assert_eq!((record.index, &record.spec), (trial.index, &trial.spec));
        assert_eq!(plan.place(record.index), Some(at as u64));
        assert_eq!(plan.trial(record.index), Some(trial.clone()));
        assert!(
            record.verdict.paired || trial.cell.is_clean(),
            "{}",
            record.cell
        );
        assert_eq!(record.boot.is_some(), trial.shares);
        let Some(boot) = record.boot else {
            assert!(matches!(record.spec.fault, Fault::X1 { .. }));
            continue;
        };
        let first = records
            .iter()
            .find(|other| other.index == boot)
            .expect("it is there");
        assert_eq!((&first.cell, first.boot), (&record.cell, Some(boot)));
        assert!(record.index - boot < 3);
        shared += u32::from(record.index != boot);
        if let Some(before) = at.checked_sub(1).map(|before| &records[before])
            && before.report.spoilt.is_some()
        {
            assert_eq!(
                boot, record.index,
                "nothing follows what left something behind"
            );
            ended += 1;
        }
    }
    assert!(shared > 0 && ended > 0, "{shared} {ended}");
}

#[test]
fn run_killed_within_a_boot_and_continued_is_an_undisturbed_one() {
    let parent = place();
    let whole = parent.path().join("whole");
    run_in(&wanted(), &whole, 1);
    let bytes = fs::read(whole.join("trials.jsonl")).expect("records");
    let lines = bytes.iter().filter(|byte| **byte == b'\n').count();

    for kept in [0, 1, 2, 3, 5, lines / 2, lines - 1, lines] {
        let part = parent.path().join(format!("part{kept}"));
        fs::create_dir(&part).expect("a directory");
        fs::copy(whole.join("run.json"), part.join("run.json")).expect("a header");
        let end: usize = bytes
            .split_inclusive(|b| *b == b'\n')
            .take(kept)
            .map(<[u8]>::len)
            .sum();
        fs::write(part.join("trials.jsonl"), &bytes[..end]).expect("records");

        let never = &mut StopAfter::never();
        resume(
            &part,
            &Wanted::default(),
            Some(lanes(2)),
            || Ok(Sharing),
            never,
        )
        .expect("it continues");

        assert_eq!(timeless(&part), timeless(&whole), "{kept} records");
    }
}

#[test]
fn run_stopped_within_a_boot_is_continued_from_its_start() {
    let parent = place();
    let (whole, part) = (parent.path().join("whole"), parent.path().join("part"));
    run_in(&wanted(), &whole, 1);
    let plan = wanted().plan().expect("a plan");
    let soon = &mut StopAfter::trials(4);
    run_new(&plan, &part, lanes(2), || Ok(Sharing), soon).expect("it is stopped");
    assert!(records(&part).len() < records(&whole).len());

    let never = &mut StopAfter::never();
    resume(&part, &Wanted::default(), None, || Ok(Sharing), never).expect("it continues");

    assert_eq!(timeless(&part), timeless(&whole));
}

#[test]
fn shards_take_whole_boots_and_merge_to_the_whole() {
    let parent = place();
    let whole = parent.path().join("whole");
    run_in(&wanted(), &whole, 1);
    let parts: Vec<PathBuf> = Shard::all(3)
        .map(|shard| {
            let out = parent.path().join(format!("shard{}", shard.number()));
            let part = Wanted {
                shard: Some(shard),
                ..wanted()
            };
            run_in(&part, &out, 1);
            let plan = part.plan().expect("a part");
            assert_eq!(plan.len(), plan.trials().count() as u64);
            for (at, trial) in plan.trials().enumerate() {
                assert_eq!(plan.place(trial.index), Some(at as u64));
            }
            out
        })
        .collect();

    let merged = parent.path().join("merged");
    merge(&parts, &merged, false).expect("all is there");

    assert_eq!(timeless(&merged), timeless(&whole));
}

#[test]
fn trials_of_one_boot_are_one_cluster_of_the_interval() {
    let parent = place();
    let of = |per_boot, out: &str| {
        let wanted = Wanted {
            trials: Some(60),
            injections_per_boot: Some(per_boot),
            ..wanted()
        };
        run_in(&wanted, &parent.path().join(out), 1).summary
    };

    let (alone, together) = (of(1, "alone"), of(6, "together"));

    for (one, other) in alone.cells.iter().zip(&together.cells) {
        assert_eq!(one.outcomes, other.outcomes, "{}", one.id);
        assert!(one.escaped.design.is_none());
        let shares = one.case.starts_with("D1.device");
        let design = other.escaped.design.filter(|_| shares);
        assert_eq!(
            design.map(|design| design.boots),
            shares.then_some(10),
            "{}",
            one.id
        );
    }
}

#[test]
fn trial_of_a_boot_is_replayed_with_those_before_it() {
    let parent = place();
    let out = parent.path().join("run");
    let wanted = Wanted {
        injections_per_boot: Some(7),
        ..wanted()
    };
    run_in(&wanted, &out, 1);
    let records = records(&out);
    let fifth = records.iter().find(|record| {
        matches!(record.spec.fault, Fault::D1 { .. })
            && record.boot.is_some_and(|boot| record.index == boot + 4)
    });
    let fifth = fifth.expect("a boot of seven");
    let address = Address {
        run: out,
        trial: fifth.index,
    };
    let record = find(&address).expect("a record");

    let specs = boot_of(&address, &record).expect("its boot");

    let numbers: Vec<u64> = specs.iter().map(|spec| spec.seed).collect();
    let boot = records.iter().filter(|other| other.boot == fifth.boot);
    let seeds: Vec<u64> = boot.map(|other| other.spec.seed).take(5).collect();
    assert_eq!(numbers, seeds);
    for boot in [0, record.index + 1] {
        let edited = Record {
            boot: Some(boot),
            ..record.clone()
        };
        let refused = boot_of(&address, &edited);
        assert!(
            matches!(refused, Err(ReplayError::Boot { .. })),
            "{refused:?}"
        );
    }
}

#[test]
fn ordinary_plan_knows_nothing_of_boots() {
    let parent = place();
    let out = parent.path().join("run");
    let wanted = Wanted {
        injections_per_boot: None,
        ..wanted()
    };
    run_in(&wanted, &out, 1);

    for file in ["trials.jsonl", "run.json"] {
        let text = fs::read_to_string(out.join(file)).expect("it was written");
        for word in [
            "\"boot\"",
            "\"warm\"",
            "\"spoilt\":null",
            "injections_per_boot",
        ] {
            assert!(!text.contains(word), "{file}: {word}");
        }
    }
}

#[test]
fn boots_are_refused_where_they_make_no_sense() {
    let plan = |clock, injections_per_boot| {
        let settings = Settings {
            clock,
            injections_per_boot,
            ..Settings::QUICK
        };
        Plan::new(settings, Filter::default())
    };
    assert!(matches!(
        plan(ClockKind::Wall, 2),
        Err(PlanError::PerBootByWall(2))
    ));
    assert!(matches!(
        plan(ClockKind::Leap, 0),
        Err(PlanError::PerBoot(0))
    ));
    assert!(matches!(
        plan(ClockKind::Leap, 65),
        Err(PlanError::PerBoot(65))
    ));

    let shared = plan(ClockKind::Leap, 2).expect("a plan");
    let cold = |trial: &Trial| !trial.spec.warm;
    let struck_at_start = |trial: &Trial| matches!(trial.spec.fault, Fault::C3 { .. });
    assert!(
        shared
            .trials()
            .all(|trial| cold(&trial) == struck_at_start(&trial))
    );
}
