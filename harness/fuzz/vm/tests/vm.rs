//! Programs in this process and in a guest. Without KVM the tests say so and pass.

use cofferdam_fuzz::executor::{Executor, Outcome};
use cofferdam_fuzz::finding::{Finding, explain, look, read_program, read_report};
use cofferdam_fuzz::oracle::Oracle;
use cofferdam_fuzz::program::{Program, text};
use cofferdam_fuzz::target::Target;
use cofferdam_fuzz::world::Detail;
use cofferdam_fuzz_planted::{FIXED, PLANTED};
use cofferdam_fuzz_targets::{edu, eth_intel, nvme, virtio};
use cofferdam_fuzz_vm::{NotInVm, counts, in_vm, in_vm_with_wild_stores};
use std::fs::read_dir;
use std::path::PathBuf;

/// The targets that are not planted, and calls for each.
fn targets() -> [(&'static dyn Target, &'static str); 4] {
    const DISK: &str = "call read 0 1\ncall write 3 2\ncall submit-read 0 1\ncall complete\n\
                        call submit-write 1 3\ncall device-id\ncall complete\ncall device-id\n";
    [
        (&edu::EDU, "call factorial 5\ncall round-trip 64\n"),
        (
            &nvme::OURS,
            "call read 0 1\ncall write 3 4\ncall read 2 12\n",
        ),
        (&virtio::blk::BLK, DISK),
        (cofferdam_fuzz_targets_pci::ALL[0], DISK),
    ]
}

/// An executor of the target in a guest; none, and a line that says why, where there is no KVM.
fn guest(target: &'static dyn Target) -> Option<Executor> {
    match in_vm(target) {
        Ok(target) => Some(executor(target)),
        Err(NotInVm::Unavailable(unavailable)) => {
            println!("SKIPPED: {unavailable}");
            None
        }
        Err(error) => panic!("{}: {error}", target.name()),
    }
}

fn executor(target: &'static dyn Target) -> Executor {
    Executor::new(target).expect("memory")
}

fn parse(target: &dyn Target, body: &str) -> Program {
    let text = format!("cofferdam program 1\ntarget t\nmode model\n{body}");
    let parsed = text::parse(&text, target.calls());
    parsed.expect("a program").program
}

fn run(executor: &mut Executor, program: &Program) -> Outcome {
    let ran = executor.run(program, Detail::Traced);
    ran.expect("memory, and a host that goes on")
}

fn trace(executor: &Executor, outcome: &Outcome) -> String {
    outcome.trace.text(&mut *executor.target().decoder())
}

/// The programs that show a planted bug.
fn regressions(target: &'static dyn Target) -> Vec<PathBuf> {
    let name = target.name();
    let name = name.strip_suffix("-fixed").unwrap_or(name);
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../corpus");
    let Ok(entries) = read_dir(PathBuf::from(corpus).join(name).join("regressions")) else {
        return Vec::new();
    };
    let paths = entries.map(|entry| entry.expect("readable").path());
    paths.collect()
}

fn planted(name: &str) -> &'static dyn Target {
    let found = PLANTED.iter().find(|target| target.name() == name);
    found.expect("there is such a bug")
}

fn shown(executor: &mut Executor, program: &Program) -> Vec<(Oracle, String)> {
    let shown = look(executor, program).expect("memory, and a host that goes on");
    let told = |it: Finding| (it.oracle, it.message);
    shown.into_iter().map(told).collect()
}

#[test]
fn driver_in_a_guest_does_to_an_honest_device_what_it_does_here() {
    for (target, body) in targets() {
        let Some(mut there) = guest(target) else {
            return;
        };
        let mut here = executor(target);
        let program = parse(target, body);
        let before = counts();

        let expected = run(&mut here, &program);
        let outcome = run(&mut there, &program);

        assert!(outcome.started && outcome.sightings.is_empty());
        assert_eq!(trace(&there, &outcome), trace(&here, &expected));
        assert!(
            counts().registers > before.registers + 10,
            "{}",
            target.name()
        );
    }
}

#[test]
fn planted_bugs_are_noticed_alike_here_and_in_a_guest_and_nothing_in_their_twins() {
    let mut programs = 0;
    for target in PLANTED.iter().chain(&FIXED) {
        let Some(mut there) = guest(target) else {
            return;
        };
        let mut here = executor(target);
        for path in regressions(target) {
            let program = read_program(&here, &path).expect("a program");
            programs += 1;

            let expected = shown(&mut here, &program);
            let found = shown(&mut there, &program);

            assert_eq!(found, expected, "{}", path.display());
            assert_eq!(found.is_empty(), target.name().ends_with("-fixed"));
        }
    }
    assert!(programs > 50, "{programs}");
}

#[test]
fn execution_after_one_that_died_or_was_left_is_as_in_a_fresh_guest() {
    let (target, body) = targets()[0];
    let Some(mut honest) = guest(target) else {
        return;
    };
    let program = parse(target, body);
    let expected = run(&mut honest, &program);
    let expected = trace(&honest, &expected);
    let mut deaths = 0;
    for name in [
        "edu-interrupt-loop",
        "edu-status-poll",
        "edu-early-interrupt",
    ] {
        let mut broken = guest(planted(name)).expect("there was KVM");
        for path in regressions(planted(name)) {
            let program_of_bug = read_program(&broken, &path).expect("a program");
            for _ in 0..3 {
                let died = run(&mut broken, &program_of_bug);
                deaths += usize::from(!died.sightings.is_empty());

                let outcome = run(&mut honest, &program);

                assert_eq!(trace(&honest, &outcome), expected, "after {name}");
            }
        }
    }
    assert!(deaths >= 9, "{deaths}");
}

/// What is found in one place is written down, and shows in the other.
fn replays(mut finds: Executor, mut replays: Executor, isolated: bool) {
    let path = regressions(finds.target()).pop().expect("a program");
    let program = read_program(&finds, &path).expect("a program");
    let found = explain(&mut finds, &program, |it| it.oracle == Oracle::Panic);
    let found = found.expect("memory").expect("it panics");
    let place = tempfile::tempdir().expect("a directory");
    found
        .write(finds.target(), place.path())
        .expect("it is written");

    let directory = place.path().join(&found.finding.signature);
    let report = read_report(&directory).expect("a report");
    let program = read_program(&replays, &directory).expect("a program");
    let shown = look(&mut replays, &program).expect("memory");

    assert_eq!(report.isolation.is_some(), isolated);
    let signatures: Vec<_> = shown.iter().map(|it| it.signature.as_str()).collect();
    assert_eq!(signatures, [report.signature.as_str()]);
    assert!(report.location.function.starts_with("driver_planted::"));
}

#[test]
fn finding_of_this_process_replays_in_a_guest() {
    let target = planted("virtio-used-id-index");
    if let Some(there) = guest(target) {
        replays(executor(target), there, false);
    }
}

#[test]
fn finding_of_a_guest_replays_in_this_process() {
    let target = planted("virtio-used-id-index");
    if let Some(there) = guest(target) {
        replays(there, executor(target), true);
    }
}

#[test]
fn wild_store_stops_at_the_wall_and_is_the_drivers() {
    let (target, body) = targets()[0];
    let program = parse(target, body);
    // Memory of the machine that it was not given, its own tables, its code, nothing, and no address at all.
    let wild = [
        0x8000_0000 + (65 << 20),
        0x1000,
        0x20_0000,
        1 << 40,
        1 << 63,
    ];
    for at in wild {
        let target = match in_vm_with_wild_stores(target, at) {
            Err(NotInVm::Unavailable(unavailable)) => {
                println!("SKIPPED: {unavailable}");
                return;
            }
            target => target.expect("a guest"),
        };
        let mut executor = executor(target);

        let shown = look(&mut executor, &program).expect("memory, and a host that goes on");

        let [finding] = shown.as_slice() else {
            panic!("{at:#x}: {shown:?}");
        };
        assert_eq!(finding.oracle, Oracle::WildAccess, "{at:#x}");
        assert_eq!(finding.location.function, "payload::sabotage::store");
        assert_eq!(finding.during, "factorial");
        let outcome = executor.run(&program, Detail::Fast).expect("memory");
        assert!(outcome.abandoned && outcome.sightings.len() == 1);
    }
}

#[test]
fn loop_that_polls_memory_is_a_wait_and_ends() {
    let (target, _) = targets()[2];
    let Some(mut executor) = guest(target) else {
        return;
    };
    // The queue that it polls never changes again.
    let program = parse(target, "call capacity\ncall read 0 1\nremove call #2\n");

    let shown = look(&mut executor, &program).expect("memory, and a host that goes on");

    let [finding] = shown.as_slice() else {
        panic!("{shown:?}");
    };
    assert_eq!(finding.oracle, Oracle::UnboundedWait, "{finding:?}");
    assert!(finding.message.ends_with("and looks at the device") && !finding.defect);
    assert!(finding.location.function.starts_with("virtio_drivers::"));
}

#[test]
fn driver_that_the_payload_does_not_have_is_refused_with_those_it_has() {
    let error = in_vm(&eth_intel::ETH_INTEL)
        .err()
        .map(|error| error.to_string());
    let error = error.unwrap_or_default();
    assert!(
        error.starts_with("`eth-intel` does not run in a VM; there are edu, nvme,"),
        "{error}"
    );
}
