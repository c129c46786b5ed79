//! The programs that show the planted bugs, on both builds.

use cofferdam_fuzz::executor::Executor;
use cofferdam_fuzz::oracle::Oracle;
use cofferdam_fuzz::program::{Program, text};
use cofferdam_fuzz::target::Target;
use cofferdam_fuzz::world::Detail;
use cofferdam_fuzz_planted::{FIXED, PLANTED, Planted};
use std::collections::BTreeSet;
use std::fs::{read_dir, read_to_string};
use std::path::PathBuf;

/// Bugs without a program yet, and why.
const WITHOUT: [(&str, &str); 4] = [
    ("virtio-capacity-allocation", "it ends the process"),
    ("virtio-identify-scan", "only AddressSanitizer sees it"),
    (
        "virtio-capability-loop",
        "only an instrumented driver can be stopped in it",
    ),
    (
        "virtio-chain-circle",
        "only an instrumented driver can be stopped in it",
    ),
];

fn corpus() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../corpus"))
}

/// The programs of a bug, each with the oracle its file is named after.
fn programs(target: &Planted) -> Vec<(Oracle, Program)> {
    let directory = corpus().join(target.name()).join("regressions");
    let Ok(entries) = read_dir(directory) else {
        return Vec::new();
    };
    entries
        .map(|entry| {
            let path = entry.expect("readable").path();
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            let oracle = stem.and_then(Oracle::named).expect("an oracle's name");
            let text = read_to_string(&path).expect("readable");
            assert_eq!(text::target_of(&text).as_deref(), Ok(target.name()));
            let parsed = text::parse(&text, target.calls()).expect("a program");
            (oracle, parsed.program)
        })
        .collect()
}

fn sightings(target: &'static Planted, program: &Program) -> BTreeSet<Oracle> {
    let mut executor = Executor::new(target).expect("memory");
    let outcome = executor.run(program, Detail::Close).expect("memory");
    outcome.sightings.iter().map(|it| it.oracle).collect()
}

#[test]
fn every_bug_but_those_without_has_a_program() {
    for target in &PLANTED {
        let named = |(name, _): &&(&str, &str)| *name == target.name();
        let without = WITHOUT.iter().find(named);
        let has = !programs(target).is_empty();
        assert_eq!(has, without.is_none(), "{}", target.name());
    }
}

#[test]
fn programs_show_the_bug_and_nothing_in_the_twin() {
    for (planted, fixed) in PLANTED.iter().zip(&FIXED) {
        for (oracle, program) in programs(planted) {
            let shown = sightings(planted, &program);
            assert!(shown.contains(&oracle), "{}: {shown:?}", planted.name());
            let shown = sightings(fixed, &program);
            assert!(shown.is_empty(), "{}: {shown:?}", fixed.name());
        }
    }
}
