//! The programs that show the defects of drivers whose registers are trapped, told in the FINDINGS.md of
//! their adapters, in an ordinary build, where faults trap them.

use cofferdam_fuzz::executor::Executor;
use cofferdam_fuzz::finding::look;
use cofferdam_fuzz::oracle::Oracle::{self, DmaUnmapped, Panic, Promise, WildAccess};
use cofferdam_fuzz::program::text;
use cofferdam_fuzz::target::Target;
use cofferdam_fuzz_targets::ALL;
use std::fs::{read_dir, read_to_string};
use std::path::PathBuf;

/// A target, a seed of its, and what it shows, if anything.
const SHOWN: [(&str, &str, Option<Oracle>); 7] = [
    ("eth-intel", "length-over-buffer", Some(Promise)),
    // The driver counts: its wait for the end of a reset has one.
    ("eth-intel", "removed-before-remove", None),
    ("nvme-driver", "block-size-overflow", Some(Panic)),
    (
        "nvme-driver",
        "doorbell-stride-into-msix",
        Some(DmaUnmapped),
    ),
    (
        "nvme-driver",
        "doorbell-stride-over-registers",
        Some(WildAccess),
    ),
    ("nvme-driver", "removed-at-completion", Some(WildAccess)),
    ("nvme-driver", "removed-before-read", Some(WildAccess)),
];

fn target(name: &str) -> &'static dyn Target {
    let found = ALL.iter().find(|target| target.name() == name);
    *found.expect("a target")
}

fn seeds(target: &str) -> PathBuf {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../corpus");
    PathBuf::from(corpus).join(target).join("seeds")
}

#[test]
fn every_program_shows_its_defect_each_time() {
    for (name, seed, oracle) in SHOWN {
        let path = seeds(name).join(seed).with_extension("prog");
        let body = read_to_string(&path).expect("readable");
        assert_eq!(text::target_of(&body).as_deref(), Ok(name));
        let target = target(name);
        let program = text::parse(&body, target.calls())
            .expect("a program")
            .program;
        let mut executor = Executor::new(target).expect("memory");
        for _ in 0..3 {
            let shown = look(&mut executor, &program).expect("memory");

            let told: Vec<_> = shown.iter().map(|it| it.oracle).collect();
            assert_eq!(told, oracle.as_slice(), "{name} {seed}");
        }
    }
}

#[test]
fn every_program_of_these_targets_is_known() {
    for name in ["eth-intel", "nvme-driver"] {
        for entry in read_dir(seeds(name)).expect("a directory") {
            let path = entry.expect("readable").path();
            let seed = path.file_stem().and_then(|stem| stem.to_str());
            let known = SHOWN
                .iter()
                .any(|(target, known, _)| *target == name && Some(*known) == seed);
            assert!(known, "{}", path.display());
        }
    }
}
