//! The programs that show the defects of virtio-drivers' PCI transport told in
//! `drivers-under-test/virtio/FINDINGS.md`, each with the oracle that speaks.

use cofferdam_fuzz::executor::Executor;
use cofferdam_fuzz::oracle::Oracle;
use cofferdam_fuzz::program::text;
use cofferdam_fuzz::world::Detail;
use cofferdam_fuzz_targets_pci::ALL;
use std::fs::{read_dir, read_to_string};
use std::path::PathBuf;

/// A seed of virtio-blk-pci, and the oracle.
const SHOWN: [(&str, Oracle); 5] = [
    ("bar-index-beyond-bars", Oracle::Promise),
    ("bar-index-overflows", Oracle::Panic),
    ("capability-list-without-end", Oracle::UnboundedWait),
    ("doorbell-beyond-structure", Oracle::Panic),
    ("structure-end-overflows", Oracle::Panic),
];

/// Where registers are trapped by faults, nobody can leave the driver in the middle of an access: only an
/// instrumented one can be stopped there.
const INSTRUMENTED_ONLY: &str = "removed-before-drop";

fn seeds() -> PathBuf {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../../corpus");
    PathBuf::from(corpus).join("virtio-blk-pci/seeds")
}

#[test]
fn every_program_shows_its_defect() {
    let found = ALL.iter().find(|it| it.name() == "virtio-blk-pci");
    let target = *found.expect("a target");
    for (seed, oracle) in SHOWN {
        let path = seeds().join(seed).with_extension("prog");
        let body = read_to_string(&path).expect("readable");
        assert_eq!(text::target_of(&body).as_deref(), Ok(target.name()));
        let parsed = text::parse(&body, target.calls()).expect("a program");
        let mut executor = Executor::new(target).expect("memory");

        let outcome = executor.run(&parsed.program, Detail::Close);

        let shown = outcome.expect("memory").sightings;
        assert!(
            shown.iter().any(|it| it.oracle == oracle),
            "{seed}: {shown:?}"
        );
    }
}

#[test]
fn every_program_is_known() {
    for entry in read_dir(seeds()).expect("a directory") {
        let path = entry.expect("readable").path();
        let seed = path.file_stem().and_then(|stem| stem.to_str());
        let known = SHOWN.iter().any(|(known, _)| Some(*known) == seed);
        assert!(
            known || seed == Some(INSTRUMENTED_ONLY),
            "{}",
            path.display()
        );
    }
}
