//! Both builds of every planted driver, on honest devices.

#[expect(dead_code, reason = "the tests of hostile devices use the rest")]
mod world;

use cofferdam_machine::config::Config;
use cofferdam_seam::service::DriverError;
use driver_planted::{Bug, Build};
use std::collections::BTreeSet;
use world::twist::Plan;
use world::{Step, observe, workload};

/// The defects that show whatever the device does.
fn shows_at_once(bug: Bug) -> Option<&'static str> {
    match bug {
        Bug::BusMasterLeft => Some("bus-held"),
        Bug::PaddedTransfer => Some("leaked-bytes"),
        _ => None,
    }
}

/// What an honest device returns for the calls that a driver knows.
fn expected(steps: &[Step], index: usize) -> Vec<u8> {
    let mut medium = vec![0; 64 * 512];
    for step in &steps[..index] {
        if let Step::Write(sector, bytes) = step {
            let start = usize::try_from(*sector).expect("small") * 512;
            medium[start..start + bytes.len()].copy_from_slice(bytes);
        }
    }
    match &steps[index] {
        Step::Factorial(5) => 120_u32.to_le_bytes().to_vec(),
        Step::Factorial(12) => 479_001_600_u32.to_le_bytes().to_vec(),
        Step::Factorial(n) => panic!("what is {n}!?"),
        Step::RoundTrip(bytes) => bytes.clone(),
        Step::Read(sector, len) => {
            let start = usize::try_from(*sector).expect("small") * 512;
            medium[start..start + len].to_vec()
        }
        Step::Write(..) => Vec::new(),
        Step::Identify => {
            let mut name = b"cfd0000000000000000".to_vec();
            name.push(0);
            name
        }
    }
}

#[test]
fn every_build_serves_an_honest_device() {
    for bug in Bug::ALL {
        for build in Build::ALL {
            let steps = workload(bug.family());
            let outcome = observe(*bug, build, Plan::default(), Config::default(), &steps);
            assert_eq!(outcome.probe, None, "{bug:?} {build:?}");
            let unknown = |error: &DriverError| matches!(error, DriverError::BadRequest(_));
            let errors = &outcome.errors;
            assert!(errors.iter().all(unknown), "{bug:?} {build:?}: {errors:?}");
            for (nth, answer) in &outcome.served {
                assert_eq!(*answer, expected(&steps, *nth), "{bug:?} {build:?} {nth}");
            }
            let served = outcome.served.len();
            assert!(served >= 2, "{bug:?} {build:?} knows {served} calls");
        }
    }
}

#[test]
fn nothing_shows_on_an_honest_device_but_what_always_does() {
    for bug in Bug::ALL {
        for build in Build::ALL {
            let steps = workload(bug.family());
            let outcome = observe(*bug, build, Plan::default(), Config::default(), &steps);
            let always = match build {
                Build::Planted => shows_at_once(*bug),
                Build::Fixed => None,
            };
            let always: BTreeSet<_> = always.into_iter().collect();
            assert_eq!(outcome.findings, always, "{bug:?} {build:?}");
            assert_eq!(outcome.acted, 0, "{bug:?}: the device was honest");
        }
    }
}
