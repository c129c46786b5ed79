//! How much memory a run takes, whatever its length.
#![cfg(target_os = "linux")]

mod fake;

use cofferdam_experiment::plan::{Filter, Plan, Settings};
use cofferdam_experiment::run::run;
use cofferdam_machine::config::IommuMode;
use cofferdam_placement::trial::{DriverId, PlacementId};
use fake::{StopAfter, spoiled};
use std::fs;

/// Runs two cells, whose pairs are in no run, until it is stopped. Tells how many trials there were and
/// how many kB were resident at most.
fn peak(mut observer: StopAfter) -> (u64, u64) {
    let settings = Settings {
        trials: 8_000,
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
    let parent = tempfile::tempdir().expect("a temporary directory");
    fs::write("/proc/self/clear_refs", "5").expect("a process may forget its own peak");
    let out = parent.path().join("out");
    let start = || spoiled(|_, _| {});

    let finished = run(&plan, &out, start, &mut observer).expect("it never fails");

    let status = fs::read_to_string("/proc/self/status").expect("a process may look at itself");
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let peak = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    (
        finished.summary.finished,
        peak.expect("the kernel tells the peak"),
    )
}

#[test]
fn run_of_eight_times_the_trials_takes_no_more_memory() {
    // So many trials that histograms have taken the place of single times.
    let (few, short) = peak(StopAfter::trials(2_000));
    let (many, long) = peak(StopAfter::never());

    assert!(many == 16_000 && few * 7 < many, "{few} and {many} trials");
    // An eighth more would be 100 bytes a trial.
    assert!(
        long * 8 < short * 9,
        "{short} kB became {long} kB with the trials"
    );
}
