//! Edges that were counted in a guest. A file of its own: counters are the whole process's.

use cofferdam_fuzz::executor::Executor;
use cofferdam_fuzz::finding::read_program;
use cofferdam_fuzz::program::{Program, text};
use cofferdam_fuzz::target::Target;
use cofferdam_fuzz::world::Detail;
use cofferdam_fuzz_planted::PLANTED;
use cofferdam_fuzz_targets::edu::EDU;
use cofferdam_fuzz_vm::{NotInVm, in_vm};
use cofferdam_instrument::coverage::Counters;
use std::path::Path;

/// What was counted in one execution, which starts with no counter above zero.
fn counted(executor: &mut Executor, program: &Program) -> Vec<u8> {
    // SAFETY: nobody else takes them, and the guest runs on this thread, not while these are in use.
    let mut counters = unsafe { Counters::take() };
    counters.clear();
    executor.run(program, Detail::Fast).expect("an execution");
    let units: Vec<_> = counters.units().map(|unit| unit.to_vec()).collect();
    units.concat()
}

fn edges(counted: &[u8]) -> usize {
    counted.iter().filter(|count| **count != 0).count()
}

fn parse(target: &dyn Target, body: &str) -> Program {
    let text = format!("cofferdam program 1\ntarget t\nmode model\n{body}");
    let parsed = text::parse(&text, target.calls());
    parsed.expect("a program").program
}

#[test]
fn edges_of_a_driver_in_a_guest_are_seen_however_its_execution_ends() {
    let in_guest = match in_vm(&EDU) {
        Ok(target) => target,
        Err(NotInVm::Unavailable(unavailable)) => {
            println!("SKIPPED: {unavailable}");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    let mut edu = Executor::new(in_guest).expect("memory");
    let some = parse(&EDU, "call factorial 5\n");
    let more = parse(&EDU, "call factorial 5\ncall round-trip 64\n");
    let ends = ["virtio-zero-capacity", "edu-status-poll"];

    let first = counted(&mut edu, &some);
    let deeper = counted(&mut edu, &more);
    for name in ends {
        let found = PLANTED.iter().find(|target| target.name() == name);
        let bug: &'static dyn Target = found.expect("there is such a bug");
        let mut planted = Executor::new(in_vm(bug).expect("as before")).expect("memory");
        let regressions = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../../corpus")
            .join(name);
        let entries = regressions
            .join("regressions")
            .read_dir()
            .expect("a folder");
        for entry in entries {
            let path = entry.expect("readable").path();
            let program = read_program(&planted, &path).expect("a program");
            assert!(edges(&counted(&mut planted, &program)) > 5, "{name}");
        }
    }
    let again = counted(&mut edu, &some);

    assert!(edges(&first) > 20, "{}", edges(&first));
    assert!(edges(&deeper) > edges(&first) + 10, "{}", edges(&deeper));
    assert!(first == again, "the same program counts the same");
}
