//! `cofferdam replay` from outside: trials of every driver come out as recorded, and are told.

use cofferdam_experiment::cell::Cell;
use cofferdam_experiment::environment::Mechanism;
use cofferdam_experiment::record::{Record, SCHEMA, Times};
use cofferdam_experiment::verdict::judge;
use cofferdam_placement::trial::{By, ClockKind, DriverId, Fault, PlacementId, Target, TrialSpec};
use cofferdam_placement::zygote::Zygote;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const PROGRAM: &str = env!("CARGO_BIN_EXE_cofferdam");

/// Runs `replay` in a directory, so that no path of this host is told.
fn replay(place: &Path, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(PROGRAM);
    command.arg("replay").args(arguments).current_dir(place);
    let output = command
        .stdin(Stdio::null())
        .output()
        .expect("the binary runs");
    (
        output.status.code().expect("it exits"),
        String::from_utf8(output.stdout).expect("text"),
        String::from_utf8(output.stderr).expect("text"),
    )
}

fn record(zygote: &mut Zygote, index: u64, spec: TrialSpec) -> Record {
    let report = zygote.run(&spec).expect("a trial");
    Record {
        schema: SCHEMA,
        index,
        number: 0,
        boot: None,
        cell: Cell::of(&spec).id(),
        mechanism: Mechanism::Process,
        environment: "a test".into(),
        verdict: judge(&spec.fault, &report, None),
        spec,
        report,
        times: Times {
            started_us: 0,
            finished_us: 0,
        },
    }
}

/// A directory with a run of these trials in `run`, numbered from 0.
fn recorded(specs: impl IntoIterator<Item = TrialSpec>) -> tempfile::TempDir {
    let place = tempfile::tempdir().expect("a temporary directory");
    let mut zygote = Zygote::launch(Path::new(PROGRAM)).expect("a zygote");
    let mut text = String::new();
    for (index, spec) in (0..).zip(specs) {
        let record = record(&mut zygote, index, spec);
        text += &serde_json::to_string(&record).expect("JSON");
        text.push('\n');
    }
    fs::create_dir(place.path().join("run")).expect("a directory");
    write(place.path(), &text);
    place
}

fn write(place: &Path, text: &str) {
    fs::write(place.join("run/trials.jsonl"), text).expect("written");
}

fn of(driver: DriverId, fault: Fault) -> TrialSpec {
    TrialSpec::new(PlacementId::UserProcess, driver, fault)
}

const WILD: Fault = Fault::D1 {
    by: By::Device,
    target: Target::Tenant1,
    len: 64,
    nth: 3,
};

#[test]
fn every_driver_replays_bit_for_bit_whatever_strikes() {
    let faults = [
        Fault::None,
        WILD,
        Fault::B1 { nth: 9 },
        Fault::X1 { nth: 4 },
    ];
    let specs: Vec<_> = DriverId::ALL
        .iter()
        .flat_map(|driver| faults.map(|fault| of(*driver, fault)))
        .collect();
    let place = recorded(specs.clone());

    for (index, spec) in specs.iter().enumerate() {
        let trial = format!("run#{index}");
        let (code, told, error) = replay(place.path(), &[&trial]);

        assert_eq!((code, error.as_str()), (0, ""), "{spec:?}");
        assert!(
            told.contains("replayed   as recorded, bit for bit"),
            "{spec:?}"
        );
        assert!(told.contains(&format!("cofferdam replay {trial}")));
        if spec.fault == WILD {
            assert!(told.contains("foreign (tenant1), blocked by the IOMMU (not mapped)"));
        }
    }
}

#[test]
fn small_trial_is_told_as_in_the_book() {
    let spec = TrialSpec {
        requests: 1,
        ..TrialSpec::new(PlacementId::InKernel, DriverId::Edu, Fault::None)
    };
    let place = recorded([spec]);

    let (code, told, _) = replay(place.path(), &["run#0"]);

    assert_eq!(code, 0);
    let book = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/replay_edu.txt");
    if std::env::var_os("COFFERDAM_WRITE_GOLDEN").is_some() {
        fs::write(&book, &told).expect("the golden file can be written");
    }
    let expected = fs::read_to_string(&book).expect("the golden file");
    let differs = told.lines().zip(expected.lines()).find(|(a, b)| a != b);
    assert!(
        told == expected,
        "{differs:?}; if that is meant, run this test with COFFERDAM_WRITE_GOLDEN=1"
    );
}

#[test]
fn registers_and_descriptors_have_the_names_of_their_standards() {
    let place = recorded([
        of(DriverId::VirtioBlk, Fault::None),
        of(DriverId::Nvme, Fault::None),
    ]);

    let (_, virtio, _) = replay(place.path(), &["run#0"]);
    for words in [
        "writes device_status (BAR4+0x14) = 0xf ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK",
        "request: write sector",
        "used[0]: chain",
        "status OK",
        "queue 0 notify",
    ] {
        assert!(virtio.contains(words), "{words}");
    }
    let (_, nvme, _) = replay(place.path(), &["run#1"]);
    for words in [
        "reads CSTS (BAR0+0x1c) = 0x1 RDY",
        "SQ0[0]: ",
        "Create I/O Submission Queue",
        "SQ1[0]: Write, CID",
        "CQ1[0]: CID",
        "SQ1 tail doorbell",
    ] {
        assert!(nvme.contains(words), "{words}");
    }
}

#[test]
fn timeline_is_json_in_which_everything_that_begins_ends() {
    let place = recorded([
        of(DriverId::VirtioBlk, Fault::B1 { nth: 20 }),
        of(DriverId::Edu, Fault::X1 { nth: 4 }),
    ]);
    let mut durations = BTreeMap::new();
    for trial in ["run#0", "run#1"] {
        let (code, told, _) = replay(
            place.path(),
            &[trial, "--out", "trace.txt", "--perfetto", "trace.json"],
        );
        assert_eq!((code, told.lines().count()), (0, 1), "{told}");
        assert!(
            fs::metadata(place.path().join("trace.txt"))
                .expect("a trace")
                .len()
                > 1000
        );

        let text = fs::read(place.path().join("trace.json")).expect("a timeline");
        let document: Value = serde_json::from_slice(&text).expect("JSON");

        let mut open: BTreeMap<(u64, u64), Vec<(String, f64)>> = BTreeMap::new();
        for event in document["traceEvents"].as_array().expect("events") {
            let track = ["pid", "tid"].map(|key| event[key].as_u64().expect("a track"));
            let open = open.entry((track[0], track[1])).or_default();
            let name = event["name"].as_str().expect("a name").to_owned();
            match event["ph"].as_str() {
                Some("B") => open.push((name, event["ts"].as_f64().expect("a time"))),
                Some("E") => {
                    let (begun, at) = open.pop().expect("it began");
                    assert_eq!(begun, name);
                    assert!(event["ts"].as_f64().expect("a time") >= at);
                    *durations.entry(name).or_insert(0) += 1;
                }
                Some("i" | "M") => {}
                other => panic!("{other:?}"),
            }
        }
        assert!(open.values().all(Vec::is_empty), "{trial}: {open:?}");
    }
    for name in ["waits", "request", "frozen", "reset", "dead", "restarts"] {
        assert!(durations.contains_key(name), "{name}: {durations:?}");
    }
}

#[test]
fn trial_that_comes_out_otherwise_is_said_to_with_the_field() {
    let place = recorded([of(DriverId::Edu, Fault::None)]);
    let path = place.path().join("run/trials.jsonl");
    let mut record: Value =
        serde_json::from_slice(&fs::read(path).expect("records")).expect("a record");
    record["report"]["counts"]["mmio_reads"] = 1.into();
    write(place.path(), &format!("{record}\n"));

    let (code, told, _) = replay(place.path(), &["run#0"]);

    assert_eq!(code, 1);
    let last = told.lines().last().expect("a conclusion");
    assert!(
        last.contains("NOT as recorded: report.counts.mmio_reads was 1 and is"),
        "{last}"
    );
}

#[test]
fn trial_by_the_wall_clock_is_run_again_and_not_compared() {
    let spec = TrialSpec {
        clock: ClockKind::Wall,
        requests: 2,
        ..of(DriverId::Edu, Fault::None)
    };
    let place = recorded([spec]);

    let (code, told, _) = replay(place.path(), &["run#0"]);

    assert_eq!(code, 0);
    assert!(told.contains("run again by the wall clock"), "{told}");
}

#[test]
fn what_cannot_be_replayed_is_a_usage_error_with_the_remedy() {
    let place = tempfile::tempdir().expect("a temporary directory");
    for (trial, says) in [
        ("run", "RUN_DIR#TRIAL"),
        ("run#x", "RUN_DIR#TRIAL"),
        ("run#0", "there is no directory run"),
        (".#0", "has no trials.jsonl"),
    ] {
        let (code, told, error) = replay(place.path(), &[trial]);
        assert_eq!((code, told.as_str()), (2, ""), "{error}");
        assert!(error.contains(says), "{error}");
    }

    let place = recorded([of(DriverId::Edu, Fault::None)]);
    let (code, _, error) = replay(place.path(), &["run#7"]);
    assert_eq!(code, 2);
    assert!(
        error.contains("has no trial 7: its 1 trials are 0 to 0"),
        "{error}"
    );
    let (code, _, error) = replay(place.path(), &["run#0", "--out", "missing/trace"]);
    assert_eq!(code, 2);
    assert!(error.contains("missing/trace"), "{error}");
}

/// Replays a program that lies in a finding's directory; the exit code and what is said.
fn across(text: &str, on: &str) -> (i32, String) {
    let place = tempfile::tempdir().expect("a directory");
    fs::write(place.path().join("program.prog"), text).expect("a program");
    let (code, out, error) = replay(place.path(), &[".", "--on", on]);
    (code, out + &error)
}

#[test]
fn program_is_the_same_on_backends_and_one_that_is_missing_is_not_passed() {
    let program = "cofferdam program 1\ntarget edu\nmode model\ncall factorial 5\n";

    let (same, said) = across(program, "mock,vfio-user");
    let (missing, why) = across(program, "mock,vfio-user,vfio");
    let (usage, foreign) = across(&program.replace("edu", "virtio-net"), "mock");

    assert_eq!(same, 0, "{said}");
    assert!(said.contains("the same as mock"), "{said}");
    assert_eq!(missing, 3, "{why}");
    assert!(why.contains("vfio       unavailable"), "{why}");
    assert_eq!(usage, 2, "{foreign}");
}
