//! The binary from outside: what it prints, what it writes, how it ends.

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn cofferdam(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cofferdam"));
    command.args(arguments).stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> (i32, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = cofferdam(arguments).output().expect("the binary runs");
    (
        status.code().expect("it exits"),
        String::from_utf8(stdout).expect("text"),
        String::from_utf8(stderr).expect("text"),
    )
}

fn place() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary path is text")
}

const SMALL: [&str; 8] = [
    "compare", "--quick", "--trials", "1", "--driver", "edu", "--fault", "M1",
];

fn small(out: &Path) -> Vec<&str> {
    let mut arguments = SMALL.to_vec();
    arguments.extend(["--out", text(out)]);
    arguments
}

#[test]
fn unknown_id_is_answered_with_the_value_the_ids_and_the_nearest() {
    for (option, wrong, nearest) in [
        ("--placement", "in-kernal", "in-kernel"),
        ("--iommu", "strikt", "strict"),
        ("--fabric", "pcie-dcp", "pcie-dpc"),
        ("--driver", "virtio-blok", "virtio-blk"),
        ("--clock", "wal", "wall"),
    ] {
        let (code, out, error) = run(&["compare", option, wrong]);
        assert_eq!(code, 2, "{error}");
        assert_eq!(out, "");
        assert!(error.contains(wrong), "{error}");
        assert!(error.contains("possible values"), "{error}");
        assert!(error.contains(&format!("'{nearest}'")), "{error}");
    }
    let (code, _, error) = run(&["compare", "--fault", "D99"]);
    assert_eq!(code, 2);
    for id in ["D99", "D1", "D6", "X2"] {
        assert!(error.contains(id), "{error}");
    }
}

#[test]
fn filters_that_exclude_each_other_are_a_usage_error() {
    let (code, _, error) = run(&["compare", "--fault", "m1", "--iommu", "off"]);
    assert_eq!(code, 2);
    assert!(error.contains("no trial matches"), "{error}");
    assert!(error.contains("strict"), "{error}");
}

#[test]
fn out_that_cannot_be_written_ends_before_any_trial() {
    let parent = place();
    let file = parent.path().join("file");
    fs::write(&file, "keep").expect("a file");
    let out = file.join("results");

    let (code, _, error) = run(&small(&out));

    assert_eq!(code, 3, "{error}");
    assert!(error.contains("cannot write"), "{error}");
    assert_eq!(fs::read_to_string(&file).expect("the file"), "keep");
}

#[test]
fn out_with_results_is_refused_and_left_alone() {
    let parent = place();
    fs::write(parent.path().join("trials.jsonl"), "keep").expect("a file");

    let (code, _, error) = run(&small(parent.path()));

    assert_eq!(code, 2, "{error}");
    let kept = fs::read_to_string(parent.path().join("trials.jsonl")).expect("the file");
    assert_eq!(kept, "keep");
}

#[test]
fn lists_are_readable_by_people_and_programs() {
    for (list, id) in [
        ("placements", "user-process"),
        ("faults", "B1"),
        ("drivers", "virtio-blk"),
        ("devices", "edu"),
    ] {
        let (code, out, _) = run(&["list", list]);
        assert_eq!(code, 0);
        assert!(out.contains(id), "{out}");

        let (code, out, _) = run(&["list", list, "--format", "json"]);
        assert_eq!(code, 0);
        let items: Value = serde_json::from_str(&out).expect("JSON");
        let items = items.as_array().expect("an array");
        assert!(items.iter().any(|item| item["id"] == id));
        assert!(items.iter().all(|item| item["line"].is_string()));
    }
}

#[test]
fn small_run_writes_everything_and_prints_its_summary() {
    let parent = place();
    let out = parent.path().join("out");
    let mut arguments = small(&out);
    arguments.extend(["--format", "json"]);

    let (code, printed, error) = run(&arguments);

    assert_eq!(code, 0, "{error}");
    let printed: Value = serde_json::from_str(&printed).expect("a summary");
    let written = fs::read_to_string(out.join("summary.json")).expect("a summary");
    let written: Value = serde_json::from_str(&written).expect("a summary");
    assert_eq!(printed, written);
    assert_eq!(written["state"], "complete");
    let records = fs::read_to_string(out.join("trials.jsonl")).expect("records");
    assert_eq!(
        Some(records.lines().count() as u64),
        written["planned"].as_u64()
    );
    let page = fs::read_to_string(out.join("report.html")).expect("a report");
    assert!(page.ends_with("</html>"));
}

#[test]
fn output_that_is_no_terminal_has_no_colour_and_plain_lines() {
    let parent = place();
    let out = parent.path().join("out");
    let (code, printed, error) = run(&small(&out));
    assert_eq!(code, 0, "{error}");
    assert!(!printed.contains('\x1b') && !error.contains('\x1b'));
    assert!(printed.contains("M1 tenant1"));
    assert!(error.contains("100 %"));
}

/// A run long enough to be cut short, after its first record was written.
fn started(out: &Path) -> std::process::Child {
    let mut child = cofferdam(&["compare", "--trials", "1000", "--out", text(out)])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .expect("the binary runs");
    let trials = out.join("trials.jsonl");
    while !fs::metadata(&trials).is_ok_and(|file| file.len() > 0) {
        let ended = child.try_wait().expect("it can be asked");
        assert!(ended.is_none(), "it ended before it wrote a record");
        std::thread::yield_now();
    }
    child
}

#[test]
fn interrupt_finishes_the_trial_and_writes_a_partial_summary() {
    let parent = place();
    let out = parent.path().join("out");
    let child = started(&out);

    let id = i32::try_from(child.id()).expect("a process id");
    // A terminal signals the whole group, as Ctrl-C does.
    killpg(Pid::from_raw(id), Signal::SIGINT).expect("it can be signalled");
    let output = child.wait_with_output().expect("it ends");

    assert_eq!(output.status.code(), Some(130));
    assert!(String::from_utf8_lossy(&output.stdout).contains("PARTIAL"));
    let summary = fs::read_to_string(out.join("summary.json")).expect("a summary");
    let summary: Value = serde_json::from_str(&summary).expect("a summary");
    assert_eq!(summary["state"], "interrupted");
    let records = fs::read_to_string(out.join("trials.jsonl")).expect("records");
    assert_eq!(
        Some(records.lines().count() as u64),
        summary["finished"].as_u64()
    );
    assert_eq!(summary["infrastructure_failures"], Value::Array(Vec::new()));
}

#[test]
fn kill_loses_no_finished_trial() {
    let parent = place();
    let out = parent.path().join("out");
    let mut child = started(&out);

    child.kill().expect("it can be killed");
    child.wait().expect("it is gone");

    assert!(!out.join("summary.json").exists(), "nothing looks whole");
    assert!(out.join("run.json").exists());
    let file = fs::File::open(out.join("trials.jsonl")).expect("records");
    let found = cofferdam_experiment::record::read(BufReader::new(file)).expect("whole lines");
    assert!(!found.records.is_empty());
    let lines = BufReader::new(fs::File::open(out.join("trials.jsonl")).expect("records")).lines();
    assert!(lines.count() - found.records.len() <= 1);
}
