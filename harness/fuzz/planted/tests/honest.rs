//! The targets on honest devices.

use cofferdam_fuzz::executor::Executor;
use cofferdam_fuzz::oracle::Oracle;
use cofferdam_fuzz::program::{Program, text};
use cofferdam_fuzz::target::Target;
use cofferdam_fuzz::world::Detail;
use cofferdam_fuzz_planted::{FIXED, PLANTED, Planted};
use driver_planted::{Bug, Build, Family};

/// Every call of a family, more than once.
fn program(target: &Planted) -> Program {
    let body = match target.bug.family() {
        Family::Edu => "call factorial 5\ncall round-trip 512\ncall round-trip 24\n".repeat(3),
        Family::Virtio | Family::Nvme => {
            "call identify\ncall write 3 1\ncall read 3 1\ncall write 4 2\ncall read 4 2\n"
                .repeat(6)
        }
    };
    let text = format!("cofferdam program 1\ntarget t\nmode model\n{body}");
    text::parse(&text, target.calls())
        .expect("a program")
        .program
}

/// What a defect brings about that needs no hostile device.
fn shows_at_once(target: &Planted) -> &'static [Oracle] {
    match (target.bug, target.build) {
        (Bug::BusMasterLeft, Build::Planted) => &[Oracle::BusHeld],
        // The host gives out addresses above 4 GiB.
        (Bug::TruncatedAddress, Build::Planted) => &[Oracle::DmaUnmapped],
        (Bug::PaddedTransfer, Build::Planted) => &[Oracle::LeakedBytes],
        _ => &[],
    }
}

#[test]
fn honest_device_shows_only_what_always_shows() {
    for target in PLANTED.iter().chain(&FIXED) {
        let mut executor = Executor::new(target).expect("memory");
        let program = program(target);

        let outcome = executor.run(&program, Detail::Traced).expect("memory");

        let name = target.name();
        let mut told: Vec<_> = outcome.sightings.iter().map(|it| it.oracle).collect();
        told.dedup();
        let trace = outcome.trace.text(&mut *target.decoder());
        assert!(outcome.started, "{name}: {trace}");
        assert_eq!(told, shows_at_once(target), "{name}: {trace}");
        let served = trace.matches("-> done").count();
        assert!(served >= 3, "{name} served {served} calls: {trace}");
    }
}

#[test]
fn names_are_unique_and_those_of_the_list() {
    let mut names: Vec<_> = PLANTED.iter().chain(&FIXED).map(Target::name).collect();
    assert!(names.contains(&"nvme-double-completion"));
    assert!(names.contains(&"nvme-double-completion-fixed"));
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all);
}
