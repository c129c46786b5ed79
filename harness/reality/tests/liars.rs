//! Controllers that lie, and Linux's own driver.

use cofferdam_guest::Guest;
use cofferdam_reality::liars::{Extent, meet};
use cofferdam_reality::linux::Outcome;

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
