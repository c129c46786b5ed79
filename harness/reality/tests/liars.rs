//! Controllers that lie, and Linux's own driver.

use cofferdam_guest::Guest;
use cofferdam_reality::liars::{Extent, Until, lock_bus, meet};
use cofferdam_reality::linux::Outcome;
use serde_json::Value;
use std::time::Duration;

#[test]
fn linux_meets_controllers_that_lie_and_says_what_became_of_it() {
    let Some(guest) = Guest::or_skip() else {
        return;
    };

    let trials = meet(&guest, Extent::Quick).expect("the guest meets every liar");

    for trial in &trials {
        assert!(trial.acted > 0, "{trial:#?}");
        let strayed = trial
            .evidence
            .iter()
            .any(|text| text.contains("DMAR: [DMA Write"));
        let noticed = [Outcome::Reset, Outcome::IoError].contains(&trial.outcome);
        match trial.fault.as_str() {
            // The first stray is always told; the kernel limits how many it tells.
            "D1" => assert!(strayed, "{trial:#?}"),
            // What a completion queue tells wrongly is noticed by the driver.
            _ => assert!(noticed && !strayed, "{trial:#?}"),
        }
    }
    assert_eq!(trials.len(), 4, "{trials:#?}");
}

/// QEMU waits for an answer for ever, and holds its lock meanwhile: nobody runs until we end it.
#[test]
fn locked_bus_stops_the_whole_machine_until_its_server_ends() {
    let Some(guest) = Guest::or_skip() else {
        return;
    };
    let after = Duration::from_secs(3);

    let trial = lock_bus(&guest, Until::ServerEnds(after)).expect("the guest meets the liar");

    let trial = trial.expect("it was met");
    println!("{trial:#?}");
    assert_eq!(trial.acted, 1);
    // The driver hears all ones in the end, and gives the controller up.
    assert_eq!(trial.outcome, Outcome::IoError);
    let stood = |told: &Value| {
        told.as_u64()
            .is_some_and(|ms| u128::from(ms) >= after.as_millis())
    };
    assert!(stood(&trial.told["stall_ms"]));
    let others = trial.told["others"].as_array().expect("honest disks");
    assert_eq!(others.len(), 2);
    for other in others {
        assert!(stood(&other["longest_ms"]));
        assert_eq!(other["errors"], 0);
    }
}
