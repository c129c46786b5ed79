//! What users add: the examples beside the command, from outside.

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const PLACEMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/placement.toml");
const PLATFORM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/platform.toml");

fn cofferdam() -> PathBuf {
    env!("CARGO_BIN_EXE_cofferdam").into()
}

/// A program of the examples, which cargo builds beside the binary for every test of all targets.
fn example(name: &str) -> PathBuf {
    let path = cofferdam().with_file_name("examples").join(name);
    assert!(
        path.exists(),
        "build it: cargo build -p cofferdam --examples"
    );
    path
}

fn run(program: &Path, arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the program runs");
    (
        output.status.code().expect("it exits"),
        String::from_utf8(output.stdout).expect("text"),
        String::from_utf8(output.stderr).expect("text"),
    )
}

/// A comparison into a directory of its own, which must pass its gates.
fn compare(program: &Path, arguments: &[&str]) -> (tempfile::TempDir, Value, Vec<Value>) {
    let place = tempfile::tempdir().expect("a temporary directory");
    let out = place.path().to_str().expect("text");
    let quick = ["compare", "--quick", "--trials", "2", "--out", out];
    let (code, _, error) = run(program, &[&quick, arguments].concat());
    assert_eq!(code, 0, "{error}");
    let read = |name: &str| fs::read_to_string(place.path().join(name)).expect("written");
    let summary: Value = serde_json::from_str(&read("summary.json")).expect("a summary");
    assert_eq!(summary["passed"], true);
    let trials = read("trials.jsonl");
    let trials = trials
        .lines()
        .map(|line| serde_json::from_str(line).expect("a record"));
    let trials = trials.collect();
    (place, summary, trials)
}

fn cells<'a>(summary: &'a Value, key: &str, value: &str) -> Vec<&'a Value> {
    let cells = summary["cells"].as_array().expect("cells").iter();
    cells
        .filter(|cell| {
            cell[key]
                .as_str()
                .is_some_and(|found| found.split('#').next() == Some(value))
        })
        .collect()
}

fn no_disagreement(summary: &Value) {
    let found = summary["disagreements"].as_array();
    assert!(found.is_none_or(Vec::is_empty), "{found:?}");
}

#[test]
fn placement_from_a_file_runs_is_predicted_and_replays_without_the_file() {
    // Act
    let (place, summary, trials) = compare(
        &cofferdam(),
        &[
            "--placement-file",
            PLACEMENT,
            "--placement",
            "net-vm",
            "--driver",
            "edu",
            "--fault",
            "M1",
            "--fault",
            "X1",
            "--fault",
            "B1",
        ],
    );

    // Assert: a wild store lands in the driver's own memory and nowhere else.
    no_disagreement(&summary);
    let of = cells(&summary, "placement", "net-vm");
    assert_eq!(of.len(), summary["cells"].as_array().expect("cells").len());
    for cell in of.iter().filter(|cell| cell["fault"] == "M1") {
        assert!(cell["activated"].as_u64() > Some(0));
        assert_eq!(
            cell["landed"].as_u64() > Some(0),
            cell["case"] == "M1.driver",
            "{cell}"
        );
    }
    let crash = of
        .iter()
        .find(|cell| cell["fault"] == "X1")
        .expect("crashes");
    assert!(crash["outcomes"].get("system-lost").is_none(), "{crash}");
    let name = trials[0]["spec"]["placement"].as_str().expect("a name");
    assert!(name.starts_with("net-vm#"), "{name}");

    // The run's directory is all it takes.
    let index = trials.last().expect("trials")["index"].clone();
    let address = format!("{}#{index}", place.path().display());
    let (code, told, error) = run(&cofferdam(), &["replay", &address]);
    assert_eq!(code, 0, "{told}{error}");
    let (code, _, error) = run(
        &cofferdam(),
        &["compare", "--resume", place.path().to_str().expect("text")],
    );
    assert_eq!(code, 0, "{error}");
}

#[test]
fn platform_from_a_file_is_an_axis_and_its_figures_are_the_predictions() {
    let (_place, summary, _) = compare(
        &cofferdam(),
        &[
            "--platform-file",
            PLATFORM,
            "--placement",
            "user-process",
            "--driver",
            "edu",
            "--fabric",
            "pcie",
            "--fault",
            "B1",
            "--fault",
            "B2",
            "--fault",
            "D6",
        ],
    );

    no_disagreement(&summary);
    let all = summary["cells"].as_array().expect("cells");
    let own = cells(&summary, "platform", "patient");
    assert_eq!(own.len() * 2, all.len());
    let frozen = |cell: &&Value| cell["case"] == "B1.all-ones";
    let [usual, patient] = [
        all.iter()
            .find(|cell| frozen(cell) && cell.get("platform").is_none()),
        own.iter().copied().find(|cell| frozen(cell)),
    ]
    .map(|cell| cell.expect("B1 on both")["prediction"].clone());
    assert_eq!(usual, "freezes the driver's CPU for 50 ms");
    assert_eq!(patient, "freezes the driver's CPU for 80 ms");
}

#[test]
fn driver_from_a_crate_serves_and_suffers_in_every_placement() {
    let (_place, summary, _) = compare(
        &example("my_driver"),
        &[
            "--driver",
            "six-registers",
            "--iommu",
            "strict",
            "--fault",
            "D1",
            "--fault",
            "X1",
            "--fault",
            "B9",
            "--fault",
            "R1",
            "--fault",
            "I1",
        ],
    );

    no_disagreement(&summary);
    let own = cells(&summary, "driver", "six-registers");
    assert_eq!(own.len(), summary["cells"].as_array().expect("cells").len());
    assert!(
        own.iter()
            .all(|cell| cell["fault"] != "R1" && cell["fault"] != "I1")
    );
    for fault in ["D1", "X1", "B9"] {
        let mut struck = own.iter().filter(|cell| cell["fault"] == fault);
        assert!(
            struck.any(|cell| cell["activated"].as_u64() > Some(0)),
            "{fault}"
        );
    }
}

#[test]
fn fault_from_a_crate_strikes_every_driver_that_reads_registers() {
    let (_place, summary, trials) = compare(
        &example("my_fault"),
        &["--fault", "flipped-read", "--placement", "user-process"],
    );

    no_disagreement(&summary);
    let own = cells(&summary, "fault", "flipped-read");
    let activated = |cell: &&&Value| cell["activated"].as_u64() > Some(0);
    assert!(own.iter().filter(activated).count() >= 2, "{own:?}");
    let named = |record: &Value| record["spec"]["fault"]["case"] == "flipped-read.lowest";
    assert!(trials.iter().any(named));
}

#[test]
fn what_is_wrong_with_a_file_is_said_before_anything_runs() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let file = place.path().join("mine.toml");
    let name = file.to_str().expect("text");
    let text = fs::read_to_string(PLACEMENT).expect("the example");
    fs::write(&file, text.replacen("cpu = 0", "cpu = 7", 1)).expect("written");

    let (code, out, error) = run(&cofferdam(), &["compare", "--placement-file", name]);
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(
        error.contains("mine.toml:26: cpu is 7; write 0 or 1"),
        "{error}"
    );

    let (code, _, error) = run(
        &cofferdam(),
        &[
            "compare",
            "--platform-file",
            PLATFORM,
            "--platform",
            "patiend",
        ],
    );
    assert_eq!(code, 2);
    assert!(error.contains("did you mean 'patient'"), "{error}");

    let (code, _, error) = run(
        &cofferdam(),
        &["compare", "--platform-file", "/no/such/file"],
    );
    assert_eq!(code, 2);
    assert!(error.contains("cannot read /no/such/file"), "{error}");
}

#[test]
fn placement_of_a_file_is_listed() {
    let (code, out, _) = run(
        &cofferdam(),
        &["list", "placements", "--placement-file", PLACEMENT],
    );
    assert_eq!(code, 0);
    assert!(out.contains("net-vm"), "{out}");
}
