//! The programs that show the defects of virtio-drivers 0.13.0 told in
//! `drivers-under-test/virtio/FINDINGS.md`, each with the oracle that speaks.

use cofferdam_fuzz::executor::Executor;
use cofferdam_fuzz::oracle::Oracle::{
    self, DmaAfterUnmap, LeakedMapping, LengthBeyondBuffer, Panic, StackWhileMapped, UnsentData,
};
use cofferdam_fuzz::program::{Mode, Program, text};
use cofferdam_fuzz::target::Target;
use cofferdam_fuzz::world::Detail;
use cofferdam_fuzz_targets::ALL;
use std::fs::{read_dir, read_to_string};
use std::path::PathBuf;

/// A target, a seed of its, and the oracle.
const SHOWN: [(&str, &str, Oracle); 20] = [
    ("virtio-9p", "used-length-over-buffer", LengthBeyondBuffer),
    ("virtio-blk", "used-length-ignored", UnsentData),
    (
        "virtio-blk",
        "wrong-id-leaves-buffers-lent",
        StackWhileMapped,
    ),
    ("virtio-console", "empty-receive", Panic),
    ("virtio-console", "used-length-over-buffer", Panic),
    ("virtio-gpu", "display-without-pixels", Panic),
    (
        "virtio-gpu",
        "frame-buffer-freed-while-attached",
        DmaAfterUnmap,
    ),
    ("virtio-gpu", "frame-buffer-size-overflow", Panic),
    ("virtio-input", "used-id-indexes-events", Panic),
    ("virtio-net", "used-id-indexes-buffers", Panic),
    ("virtio-net", "used-length-over-buffer", Panic),
    ("virtio-rng", "used-length-over-buffer", LengthBeyondBuffer),
    ("virtio-socket", "credit-underflow", Panic),
    ("virtio-socket", "packet-of-an-earlier-connection", Panic),
    ("virtio-socket", "used-id-indexes-buffers", Panic),
    ("virtio-socket", "used-length-over-buffer", Panic),
    ("virtio-sound", "chmap-count-over-page", Panic),
    ("virtio-sound", "jack-count-over-page", Panic),
    ("virtio-sound", "jack-list-missing", Panic),
    ("virtio-sound", "stream-count-over-page", Panic),
];

fn target(name: &str) -> &'static dyn Target {
    let found = ALL.iter().find(|target| target.name() == name);
    *found.expect("a target")
}

fn seeds(target: &str) -> PathBuf {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../corpus");
    PathBuf::from(corpus).join(target).join("seeds")
}

fn oracles(target: &'static dyn Target, program: &Program) -> Vec<Oracle> {
    let mut executor = Executor::new(target).expect("memory");
    let outcome = executor.run(program, Detail::Close).expect("memory");
    outcome.sightings.iter().map(|it| it.oracle).collect()
}

#[test]
fn every_program_shows_its_defect() {
    for (name, seed, oracle) in SHOWN {
        let path = seeds(name).join(seed).with_extension("prog");
        let body = read_to_string(&path).expect("readable");
        assert_eq!(text::target_of(&body).as_deref(), Ok(name));
        let target = target(name);
        let parsed = text::parse(&body, target.calls()).expect("a program");

        let shown = oracles(target, &parsed.program);

        assert!(shown.contains(&oracle), "{name} {seed}: {shown:?}");
    }
}

#[test]
fn every_program_of_these_targets_is_known() {
    for target in ALL.iter().filter(|it| it.driver().name == "virtio-drivers") {
        let entries = read_dir(seeds(target.name())).expect("a directory");
        for entry in entries {
            let path = entry.expect("readable").path();
            let seed = path.file_stem().and_then(|stem| stem.to_str());
            let known = SHOWN
                .iter()
                .any(|(name, known, _)| *name == target.name() && Some(*known) == seed);
            assert!(known, "{}", path.display());
        }
    }
}

#[test]
fn buffers_to_receive_into_are_never_unshared() {
    let program = Program {
        mode: Mode::Model,
        actions: Vec::new(),
    };
    for name in ["virtio-net", "virtio-console", "virtio-input"] {
        let shown = oracles(target(name), &program);
        assert!(shown.contains(&LeakedMapping), "{name}: {shown:?}");
    }
}
