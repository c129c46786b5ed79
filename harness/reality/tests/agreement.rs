//! Every cell, in a real guest and on the model.

use cofferdam_guest::{DmaModule, Guest};
use cofferdam_machine::config::IommuMode;
use cofferdam_reality::guest::observe;
use cofferdam_reality::{Stray, compare};

#[test]
fn model_agrees_with_a_real_guest_or_says_why_not() {
    let Some(guest) = Guest::or_skip() else {
        return;
    };
    if DmaModule::or_skip(&guest.tools).is_none() {
        return;
    }

    let observations = observe(&guest).expect("the guest commits every fault");

    let comparisons: Vec<_> = observations.iter().map(compare).collect();
    assert!(comparisons.len() >= 12);
    for comparison in &comparisons {
        assert!(comparison.holds(), "{comparison:#?}");
    }
    // What a translating IOMMU stops, the kernel reports, unless it limits its reports.
    let reported = comparisons.iter().filter(|one| !one.evidence.is_empty());
    assert!(reported.count() > 0, "{comparisons:#?}");
    let lazy = comparisons
        .iter()
        .find(|one| one.of.fault == Stray::D6 && one.of.iommu == IommuMode::Lazy)
        .expect("a lazy D6");
    assert!(lazy.reality.window_ns().is_some(), "{lazy:#?}");
    let strict = comparisons
        .iter()
        .find(|one| one.of.fault == Stray::D6 && one.of.iommu == IommuMode::Strict)
        .expect("a strict D6");
    assert_eq!(strict.reality.window_ns(), None, "{strict:#?}");
}
