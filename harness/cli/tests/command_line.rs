//! The binary from outside: what it prints, what it writes, how it ends.

use cofferdam_experiment::catalogue::PLACEMENTS;
use cofferdam_experiment::environment::guests;
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
fn unknown_id_is_answered_with_the_nearest_and_the_way_to_all() {
    for (option, wrong, nearest, list) in [
        ("--placement", "in-kernal", "in-kernel", "placements"),
        ("--iommu", "strikt", "strict", "iommu"),
        ("--fabric", "pcie-dcp", "pcie-dpc", "fabrics"),
        ("--driver", "virtio-blok", "virtio-blk", "drivers"),
        ("--clock", "wal", "wall", "clocks"),
    ] {
        let (code, out, error) = run(&["compare", option, wrong]);
        assert_eq!(code, 2, "{error}");
        assert_eq!(out, "");
        let answer = format!(
            "is called '{wrong}': did you mean '{nearest}'? `cofferdam list {list}` shows all\n"
        );
        assert!(error.contains(&answer), "{error}");
        let (code, out, _) = run(&["list", list]);
        assert_eq!(code, 0);
        assert!(out.contains(nearest), "{out}");
    }
    let (code, _, error) = run(&["compare", "--fault", "zebra"]);
    assert_eq!(code, 2);
    let answer = "no fault is called 'zebra': `cofferdam list faults` shows all\n";
    assert!(error.contains(answer), "{error}");
}

#[test]
fn split_locks_are_measured_in_pairs_beside_what_the_host_could_do() {
    let pairs = ["split-lock", "--pairs", "2", "--placement", "user-process"];

    let (code, out, error) = run(&[&pairs[..], &["--format", "json"]].concat());

    assert_eq!(code, 0, "{error}");
    let found: Value = serde_json::from_str(&out).expect("JSON");
    let way = &found["ways"][0];
    assert_eq!(
        (&way["placement"], &way["pairs"]),
        (&"user-process".into(), &2.into())
    );
    assert_eq!(way["activated"], 2, "{way:#}");
    for kind in ["quiet", "aligned", "split"] {
        assert!(
            way[kind]["in_order"]["median_ns"].as_u64() > Some(0),
            "{way:#}"
        );
    }
    let host = found["host"].as_array().expect("facts");
    assert!(
        host.iter()
            .any(|fact| fact["name"] == "KVM_CAP_X86_BUS_LOCK_EXIT")
    );
    let (code, _, error) = run(&["split-lock", "--placement", "zebra"]);
    assert_eq!(code, 2);
    assert!(error.contains("cofferdam list placements"), "{error}");
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
    assert!(printed.contains("M1 "));
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

/// The records without their times, and without what the host gave the processes.
fn timeless(out: &Path) -> Vec<String> {
    let text = fs::read_to_string(out.join("trials.jsonl")).expect("records");
    assert!(text.ends_with('\n'), "the last line is whole");
    let lines = text.lines().map(|line| line.rsplit_once(",\"times\":"));
    lines
        .map(|line| without_resident(line.expect("times come last").0))
        .collect()
}

fn without_resident(line: &str) -> String {
    let parts = line.split("\"resident_bytes\":");
    let parts = parts.map(|part| part.trim_start_matches(|c: char| c.is_ascii_digit()));
    parts.collect()
}

fn assert_same(one: &Path, other: &Path) {
    assert_eq!(timeless(one), timeless(other));
    let read = |out: &Path, name: &str| fs::read(out.join(name)).expect("it was written");
    // Times of crossings are of one host's one run, so a merged run has none.
    let json = |out: &Path, name: &str| {
        let mut json: Value = serde_json::from_slice(&read(out, name)).expect("JSON");
        json["crossings"].take();
        json
    };
    assert!(json(one, "run.json") == json(other, "run.json"));
    let summary = |out: &Path| {
        let mut summary = json(out, "summary.json");
        for cell in summary["cells"].as_array_mut().expect("cells") {
            cell["resident"].take();
        }
        summary
    };
    assert!(summary(one) == summary(other), "the summaries differ");
}

/// A run that is long enough to be cut short.
const LONGER: [&str; 9] = [
    "compare", "--quick", "--trials", "2", "--driver", "edu", "--iommu", "strict", "--fault",
];

fn longer<'a>(out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = LONGER.to_vec();
    arguments.extend(["D1", "--out", out]);
    arguments.extend(more);
    arguments
}

/// Waits until so many bytes of records are there.
fn until_written(child: &mut std::process::Child, out: &Path, bytes: u64) {
    while fs::metadata(out.join("trials.jsonl")).map_or(0, |file| file.len()) < bytes {
        let ended = child.try_wait().expect("it can be asked");
        assert!(ended.is_none(), "it ended before it wrote its records");
        std::thread::yield_now();
    }
}

fn begun(arguments: &[&str]) -> std::process::Child {
    cofferdam(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs")
}

#[test]
fn run_killed_twice_and_resumed_is_an_undisturbed_one() {
    // Arrange
    let parent = place();
    let (whole, part) = (parent.path().join("whole"), parent.path().join("part"));
    let (code, _, error) = run(&longer(text(&whole), &["--jobs", "1"]));
    assert_eq!(code, 0, "{error}");
    let length = fs::metadata(whole.join("trials.jsonl"))
        .expect("records")
        .len();

    // Act
    let mut child = begun(&longer(text(&part), &[]));
    until_written(&mut child, &part, length / 4);
    child.kill().expect("it can be killed");
    child.wait().expect("it is gone");
    let mut child = begun(&["compare", "--resume", text(&part)]);
    until_written(&mut child, &part, length / 2);
    child.kill().expect("it can be killed");
    child.wait().expect("it is gone");
    assert!(!part.join("summary.json").exists(), "nothing looks whole");
    let (code, printed, error) = run(&["compare", "--resume", text(&part), "--quick"]);

    // Assert
    assert_eq!(code, 0, "{error}");
    assert!(!printed.contains("PARTIAL"));
    assert_same(&whole, &part);
}

#[test]
fn resume_with_another_seed_names_both() {
    let parent = place();
    let out = parent.path().join("out");
    let (code, _, error) = run(&small(&out));
    assert_eq!(code, 0, "{error}");

    let (code, _, error) = run(&["compare", "--resume", text(&out), "--seed", "9"]);

    assert_eq!(code, 2);
    assert!(
        error.contains("--seed is 1 in") && error.contains("9 here"),
        "{error}"
    );
}

#[test]
fn merged_shards_are_the_whole_and_a_missing_one_is_an_error() {
    let parent = place();
    let at = |name: &str| parent.path().join(name);
    let (whole, one, two) = (at("whole"), at("one"), at("two"));
    for (out, more) in [
        (&whole, &["--jobs", "1"][..]),
        (&one, &["--shard", "1/2"]),
        (&two, &["--shard", "2/2", "--jobs", "2"]),
    ] {
        let (code, _, error) = run(&longer(text(out), more));
        assert_eq!(code, 0, "{error}");
    }

    let merged = at("merged");
    let (code, printed, error) = run(&["merge", text(&two), text(&one), "--out", text(&merged)]);
    assert_eq!(code, 0, "{error}");
    assert!(printed.contains("No prediction was contradicted"));
    assert_same(&whole, &merged);

    let half = at("half");
    let arguments = ["merge", text(&two), "--out", text(&half)];
    let (code, _, error) = run(&arguments);
    assert_eq!(code, 1, "{error}");
    assert!(error.contains("of shard 1/2"), "{error}");
    assert!(!half.exists());
    let (code, printed, error) = run(&[&arguments[..], &["--partial"]].concat());
    assert_eq!(code, 0, "{error}");
    assert!(printed.contains("PARTIAL"), "{printed}");
}

#[test]
fn plan_says_what_would_run_and_for_how_long_and_writes_nothing() {
    let parent = place();
    let ask = |format: &str| {
        let arguments = [&SMALL[..], &["--plan", "--format", format]].concat();
        let output = cofferdam(&arguments).current_dir(parent.path()).output();
        let output = output.expect("the binary runs");
        assert_eq!(output.status.code(), Some(0));
        String::from_utf8(output.stdout).expect("text")
    };

    let plan: Value = serde_json::from_str(&ask("json")).expect("JSON");
    let told = ask("text");

    // Six cases and their clean trials in each placement.
    let guests = guests().is_ok();
    let here = PLACEMENTS
        .iter()
        .filter(|placement| guests || !placement.needs_kvm())
        // This driver is tried with no tenant in a guest.
        .filter(|placement| !placement.has_tenant_in_guest());
    let places = here.count();
    let all = 7 * places;
    assert_eq!(plan["plan"]["trials"], all);
    assert_eq!(plan["plan"]["faults"]["M1"], 6 * places);
    assert_eq!(plan["plan"]["placements"]["user-process"], 7);
    assert!(plan["estimate"]["run_ns"].as_u64() >= Some(1));
    assert!(
        told.contains(&format!("{all} trials in {all} cells"))
            && told.contains("of these trials took")
    );
    assert_eq!(fs::read_dir(parent.path()).expect("it exists").count(), 0);
}

#[test]
fn schemas_are_printed_as_json() {
    let keys = [
        ("trials", "/$defs/Record/properties/spec"),
        ("trials", "/$defs/Comparison/properties/reality"),
        ("trials", "/$defs/Trial/properties/outcome"),
        ("summary", "/properties/gates"),
    ];
    for (of, key) in keys {
        let (code, out, error) = run(&["schema", of]);
        assert_eq!(code, 0, "{error}");
        let schema: Value = serde_json::from_str(&out).expect("JSON");
        assert!(
            schema.pointer(key).is_some_and(Value::is_object),
            "{key}: {out}"
        );
    }
}

#[test]
fn jobs_do_not_go_with_the_wall_clock() {
    let parent = place();
    let out = parent.path().join("out");
    let mut arguments = small(&out);
    arguments.extend(["--clock", "wall", "--jobs", "2"]);
    let (code, _, error) = run(&arguments);
    assert_eq!(code, 2);
    assert!(error.contains("wall-clock trials run alone"), "{error}");
    assert!(!out.exists());
}

#[test]
fn run_out_of_room_ends_with_whole_records_and_is_continued_when_there_is_some() {
    // Arrange
    let parent = place();
    let (whole, part) = (parent.path().join("whole"), parent.path().join("part"));
    let (code, _, error) = run(&longer(text(&whole), &["--jobs", "1"]));
    assert_eq!(code, 0, "{error}");
    let length = fs::metadata(whole.join("trials.jsonl"))
        .expect("records")
        .len();

    // Act: the engine has started, and from now on no file grows beyond two thirds and a bit.
    let mut child = begun(&longer(text(&part), &["--jobs", "1"]));
    until_written(&mut child, &part, 1);
    let room = length * 2 / 3;
    let limit = rustix::process::Rlimit {
        current: Some(room),
        maximum: Some(room),
    };
    let id = i32::try_from(child.id())
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    rustix::process::prlimit(id, rustix::process::Resource::Fsize, limit).expect("a limit");
    let output = child.wait_with_output().expect("it ends");

    // Assert
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{error}");
    assert!(
        error.contains("--resume") && error.contains("trials.jsonl"),
        "{error}"
    );
    let kept = timeless(&part);
    assert!(!kept.is_empty());
    assert_eq!(kept[..], timeless(&whole)[..kept.len()]);
    let size = fs::metadata(part.join("trials.jsonl"))
        .expect("records")
        .len();
    assert!(
        size <= room && room - size < 16_384,
        "it used the room it had"
    );
    assert!(!part.join("summary.json").exists());

    let (code, _, error) = run(&["compare", "--resume", text(&part)]);
    assert_eq!(code, 0, "{error}");
    assert_same(&whole, &part);
}

#[test]
fn stability_runs_some_cells_by_the_wall_clock_and_writes_what_it_found() {
    let parent = place();
    let out = parent.path().join("out");
    let arguments = [
        "stability",
        "--quick",
        "--trials",
        "1",
        "--driver",
        "edu",
        "--fault",
        "M1",
        "--cells",
        "2",
        "--runs",
        "2",
        "--out",
    ];

    let (code, said, error) = run(&[&arguments[..], &[text(&out)]].concat());

    assert_eq!(code, 0, "{error}");
    assert!(
        said.contains("of 2 cells ended the same way in 2 of 2 runs"),
        "{said}"
    );
    let written = fs::read_to_string(out.join("stability.json")).expect("it was written");
    let found: Value = serde_json::from_str(&written).expect("JSON");
    assert_eq!(found["cells"].as_array().map(Vec::len), Some(2));
    for run in ["run-1", "run-2"] {
        let summary = fs::read_to_string(out.join(run).join("summary.json")).expect("a summary");
        let summary: Value = serde_json::from_str(&summary).expect("JSON");
        assert_eq!(summary["settings"]["clock"], "wall");
    }
}

#[test]
fn stability_of_clean_cells_or_of_too_many_is_a_usage_error() {
    let parent = place();
    let out = parent.path().join("out");
    let (code, _, error) = run(&[
        "stability",
        "--quick",
        "--fault",
        "none",
        "--out",
        text(&out),
    ]);
    assert_eq!(code, 2, "{error}");
    assert!(error.contains("no faulty cell"), "{error}");

    let (code, _, error) = run(&["stability", "--cells", "41", "--out", text(&out)]);
    assert_eq!(code, 2, "{error}");
    assert!(error.contains("41"), "{error}");
    assert!(!out.exists());
}

#[test]
fn without_kvm_a_run_leaves_guests_out_and_says_why() {
    let parent = place();
    let hidden = |arguments: &[&str]| {
        cofferdam(arguments)
            .env("COFFERDAM_KVM", "/dev/no-such-kvm")
            .current_dir(parent.path())
            .output()
            .expect("the binary runs")
    };

    let ran = hidden(&[&SMALL[..], &["--out", "out"]].concat());
    let asked = hidden(&[&SMALL[..], &["--placement", "driver-vm", "--out", "no"]].concat());

    assert_eq!(ran.status.code(), Some(0));
    let summary = fs::read(parent.path().join("out/summary.json")).expect("a summary");
    let summary: Value = serde_json::from_slice(&summary).expect("JSON");
    let cells = summary["cells"].as_array().expect("cells");
    assert!(cells.iter().all(|cell| cell["placement"] != "driver-vm"));
    let missing = summary["environment"]["unavailable"]
        .as_array()
        .expect("a list");
    let kvm = missing
        .iter()
        .find(|entry| entry["what"] == "KVM")
        .expect("it is missing");
    let why = kvm["why"].as_str().expect("text");
    assert!(
        why.contains("/dev/no-such-kvm") && why.contains("load kvm_intel"),
        "{why}"
    );
    assert_eq!(asked.status.code(), Some(2));
    let error = String::from_utf8(asked.stderr).expect("text");
    assert!(
        error.contains("driver-vm needs KVM") && error.contains("load kvm_intel"),
        "{error}"
    );
}
