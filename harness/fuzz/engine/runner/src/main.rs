//! The runner of all targets of the repository, the planted bugs and their twins among them.
//! `cofferdam fuzz` builds it instrumented and starts it.

use cofferdam_fuzz::target::Target;
use cofferdam_fuzz_engine::{Known, SANITIZED};
use cofferdam_fuzz_planted::{FIXED, PLANTED, expected};

cofferdam_fuzz_engine::main!(&targets(), &bugs());

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
    let pairs = pairs.filter(|(bug, _)| SANITIZED || !expected(bug.bug).oracle.needs_asan());
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
