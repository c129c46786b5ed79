//! How much memory a run takes, whatever its length.
#![cfg(target_os = "linux")]

mod fake;

use cofferdam_experiment::plan::{Filter, Plan, Settings};
use cofferdam_experiment::run::run;
use cofferdam_machine::config::IommuMode;
use cofferdam_placement::trial::{DriverId, PlacementId};
use fake::{StopAfter, spoiled};
use std::fs;

/// Runs that many trials of two cells, the pairs of which are in no run, and tells how many kB were
/// resident at most.
fn peak(trials: u32) -> u64 {
    let settings = Settings {
        trials: trials / 2,
        ..Settings::QUICK
    };
    let filter = Filter {
        placements: vec![PlacementId::Hypervisor],
        iommu: vec![IommuMode::Strict],
        drivers: vec![DriverId::Edu],
        faults: vec!["D8".into()],
        ..Filter::default()
    };
    let plan = Plan::new(settings, filter).expect("the filter leaves trials");
    assert_eq!(plan.len(), u64::from(trials));
    let parent = tempfile::tempdir().expect("a temporary directory");
    fs::write("/proc/self/clear_refs", "5").expect("a process may forget its own peak");
    let out = parent.path().join("out");
    let start = || spoiled(|_, _| {});

    let finished = run(&plan, &out, start, &mut StopAfter::never()).expect("it never fails");

    assert_eq!(finished.summary.finished, plan.len());
    let status = fs::read_to_string("/proc/self/status").expect("a process may look at itself");
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
        .expect("the kernel tells the peak")
}

#[test]
fn run_of_eight_times_the_trials_takes_no_more_memory() {
    // So many trials that histograms have taken the place of single times.
    let short = peak(2_000);
    let long = peak(16_000);
    // An eighth more would be 100 bytes a trial.
    assert!(
        long * 8 < short * 9,
        "{short} kB became {long} kB with the trials"
    );
}
