//! The runner of all targets of the repository, the planted bugs and their twins among them.
//! `cofferdam fuzz` builds it instrumented and starts it.

use cofferdam_fuzz::target::Target;
use cofferdam_fuzz_engine::{INFRASTRUCTURE, Known, USAGE};
use cofferdam_fuzz_planted::{FIXED, PLANTED, expected};
use cofferdam_fuzz_vm::NotInVm;

cofferdam_fuzz_engine::main!(&targets(), &bugs(), in_vm);

fn in_vm(target: &'static dyn Target) -> Result<&'static dyn Target, (String, u8)> {
    cofferdam_fuzz_vm::in_vm(target).map_err(|error| {
        let code = match &error {
            NotInVm::Driver(_) => USAGE,
            _ => INFRASTRUCTURE,
        };
        (error.to_string(), code)
    })
}

fn targets() -> Vec<&'static dyn Target> {
    let planted = PLANTED.iter().chain(&FIXED);
    let planted = planted.map(|target| target as &dyn Target);
    let others = cofferdam_fuzz_targets::ALL
        .iter()
        .chain(cofferdam_fuzz_targets_pci::ALL)
        .copied();
    others.chain(planted).collect()
}

fn bugs() -> Vec<Known> {
    let pairs = PLANTED.iter().zip(&FIXED);
    pairs
        .map(|(bug, twin)| {
            let expected = expected(bug.bug);
            Known {
                bug,
                twin,
                oracle: expected.oracle,
                also: expected.also,
            }
        })
        .collect()
}
