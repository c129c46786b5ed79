//! What a summary says of pairs of placements, of shared boots and of times that never ended.

mod fake;

use cofferdam_experiment::catalogue::{DRIVERS, PLACEMENTS};
use cofferdam_experiment::environment::Environment;
use cofferdam_experiment::plan::{Filter, Plan, Settings};
use cofferdam_experiment::record::{self, Record};
use cofferdam_experiment::run::{Finished, run};
use cofferdam_experiment::statistics::{Cluster, Flag};
use cofferdam_experiment::summary::{CellSummary, Collector, Comparison, Question, State, Summary};
use cofferdam_placement::guest;
use cofferdam_placement::trial::{ClockKind, DriverId, PlacementId};
use fake::{StopAfter, spoiled};
use std::io::Cursor;
use std::path::Path;

fn plan(fault: &str, trials: u32) -> Plan {
    let settings = Settings {
        trials,
        ..Settings::QUICK
    };
    let filter = Filter {
        faults: vec![fault.into()],
        ..Filter::default()
    };
    Plan::new(settings, filter).expect("the filter leaves trials")
}

fn run_in(parent: &Path, plan: &Plan) -> Finished {
    run(
        plan,
        &parent.join("out"),
        || spoiled(|_, _| {}),
        &mut StopAfter::never(),
    )
    .expect("the fake engine never fails")
}

fn summary_of(fault: &str, trials: u32) -> Summary {
    let parent = tempfile::tempdir().expect("a temporary directory");
    run_in(parent.path(), &plan(fault, trials)).summary
}

fn records_of(plan: &Plan) -> Vec<Record> {
    let parent = tempfile::tempdir().expect("a temporary directory");
    let finished = run_in(parent.path(), plan);
    let lines = std::fs::read(finished.directory.path().join("trials.jsonl")).expect("records");
    record::read(Cursor::new(lines)).expect("records").records
}

/// Sums up records, each in the boot that `boot` says.
fn sum(plan: &Plan, records: &[Record], boot: impl Fn(&Record) -> Cluster) -> Summary {
    let mut collector = Collector::default();
    for record in records {
        collector.add_from(record, boot(record));
    }
    let environment = Environment::probe(ClockKind::Leap, Vec::new(), Vec::new());
    collector.close(plan, environment, State::Complete)
}

fn cell<'a>(summary: &'a Summary, id: &str) -> &'a CellSummary {
    summary
        .cells
        .iter()
        .find(|cell| cell.id == id)
        .expect("the plan has this cell")
}

fn between(
    summary: &Summary,
    first: PlacementId,
    second: PlacementId,
    question: Question,
) -> Option<&Comparison> {
    summary.paired.comparisons.iter().find(|comparison| {
        (comparison.first, comparison.second) == (first, second)
            && comparison.question == question
            && comparison.peers == "strict/pcie/edu/X1.panic"
    })
}

/// Pairs among so many.
fn pairs_of(count: usize) -> u32 {
    u32::try_from(count * count.saturating_sub(1) / 2).expect("few")
}

#[test]
fn crash_that_one_placement_contains_differs_significantly() {
    let summary = summary_of("X1", 30);

    let found = between(
        &summary,
        PlacementId::InKernel,
        PlacementId::UserProcess,
        Question::Contained,
    )
    .expect("they differ");
    assert_eq!((found.table.only_first, found.table.only_second), (0, 30));
    // 30 of 30 discordant pairs on one side: 2 / 2^30. Each pair of placements has two questions.
    let p = found.p.expect("no boot is shared");
    assert!((p - 2.0_f64.powi(-29)).abs() < 1e-15);
    // This driver is tried with no tenant in a guest.
    let places = PLACEMENTS
        .iter()
        .filter(|entry| !entry.has_tenant_in_guest());
    let family = 2 * pairs_of(places.count());
    assert_eq!(found.family, family);
    let adjusted = found.adjusted.expect("no boot is shared");
    assert!(p < adjusted && adjusted <= f64::from(family) * p);
    assert!(
        summary
            .paired
            .comparisons
            .is_sorted_by_key(|one| one.adjusted)
    );
}

#[test]
fn twins_do_not_differ_and_are_only_counted() {
    let summary = summary_of("X1", 3);
    for question in [Question::Contained, Question::TenantLost] {
        let twins = between(
            &summary,
            PlacementId::InKernel,
            PlacementId::Hypervisor,
            question,
        );
        assert_eq!(twins, None);
    }
    let paired = &summary.paired;
    // For each driver two questions: X1.panic everywhere, X1.kill-task where it exists.
    let pairs = DRIVERS.iter().map(|driver| {
        // Not every driver can be in a guest.
        let places = || {
            PLACEMENTS
                .iter()
                .filter(|placement| match placement.has_tenant_in_guest() {
                    true => driver.driver == DriverId::Nvme,
                    false => !placement.needs_kvm() || guest::in_payload(driver.driver).is_some(),
                })
        };
        let panicking = places().filter(|placement| placement.panic_ends_layer());
        u64::from(pairs_of(places().count()) + pairs_of(panicking.count()))
    });
    let all = paired.comparisons.len() as u64 + paired.concordant;
    assert_eq!(all, 2 * pairs.sum::<u64>());
    assert_eq!((paired.left_out, paired.trials_left_out), (0, 0));
}

#[test]
fn trials_that_were_not_activated_are_no_pairs() {
    let parent = tempfile::tempdir().expect("a temporary directory");
    let summary = run(
        &plan("X1", 4),
        &parent.path().join("out"),
        || {
            spoiled(|spec, report| {
                if spec.placement == PlacementId::UserProcess {
                    report.activated = 0;
                }
            })
        },
        &mut StopAfter::never(),
    )
    .expect("the fake engine never fails")
    .summary;
    for comparison in &summary.paired.comparisons {
        assert_ne!(comparison.second, PlacementId::UserProcess);
        assert_eq!(comparison.table.pairs(), 4);
    }
}

#[test]
fn stopped_run_compares_the_pairs_it_finished() {
    // Arrange: a run that is stopped before the second trials of the last six cells, which are
    // those of the last driver.
    let plan = plan("X1", 3);
    let cells = plan.cells().count() as u64;
    let parent = tempfile::tempdir().expect("a temporary directory");

    // Act
    let summary = run(
        &plan,
        &parent.path().join("out"),
        || spoiled(|_, _| {}),
        &mut StopAfter::trials(2 * cells - 6),
    )
    .expect("the fake engine never fails")
    .summary;

    // Assert
    let mut sizes: Vec<u32> = summary
        .paired
        .comparisons
        .iter()
        .map(|comparison| comparison.table.pairs())
        .collect();
    sizes.sort_unstable();
    assert_eq!((sizes.first(), sizes.last()), (Some(&1), Some(&2)));
}

#[test]
fn shared_boots_widen_intervals_and_leave_pairs_without_p() {
    // Arrange: the same records, in boots of their own or five trials of a cell to a boot.
    let plan = plan("X1", 60);
    let records = records_of(&plan);

    // Act
    let own = sum(&plan, &records, |record| Cluster::Own(record.index));
    let shared = sum(&plan, &records, |record| {
        Cluster::Shared(u64::from(record.number / 5))
    });

    // Assert: 60 trials that agree are worth 12 boots, which is too few for a rate.
    let id = "user-process/strict/pcie/edu/X1.panic";
    let (plain, clustered) = (cell(&own, id), cell(&shared, id));
    assert!(plain.escaped.upper_bound.is_some());
    assert_eq!(plain.flags, []);
    assert_eq!(plain.escaped.design, None);
    let design = clustered.escaped.design.expect("boots are shared");
    assert_eq!(design.boots, 12);
    assert!(design.effective <= 12.0);
    assert_eq!(clustered.escaped.upper_bound, None);
    assert_eq!(clustered.flags, [Flag::Few]);
    assert!(own.paired.comparisons.iter().all(|one| one.p.is_some()));
    assert!(!shared.paired.comparisons.is_empty());
    assert!(shared.paired.comparisons.iter().all(|one| one.p.is_none()));
}

#[test]
fn number_that_asks_for_memory_is_left_out_and_counted() {
    let plan = plan("X1", 3);
    let mut records = records_of(&plan);
    for record in &mut records {
        if record.number == 2 {
            record.number = u32::MAX;
        }
    }
    let summary = sum(&plan, &records, |record| Cluster::Own(record.index));
    let faulty = plan.cells().filter(|cell| !cell.is_clean()).count();
    assert_eq!(summary.paired.trials_left_out, faulty as u64);
    for comparison in &summary.paired.comparisons {
        assert_eq!(comparison.table.pairs(), 2);
    }
}

#[test]
fn system_that_is_lost_recovers_at_the_trials_end_at_least() {
    let summary = summary_of("X1", 30);
    let lost = cell(&summary, "in-kernel/strict/pcie/edu/X1.panic");
    assert_eq!(lost.recovery.after, None, "it never served again");
    let latency = lost.recovery.latency.expect("it needed to");
    assert_eq!((latency.n, latency.censored), (30, 30));
    assert!(latency.is_at_least(latency.median_ns));
    assert!(lost.curves.recovery.is_empty());
    assert_eq!(lost.flags, [Flag::Censored]);

    let served = cell(&summary, "user-process/strict/pcie/edu/X1.panic");
    let latency = served.recovery.latency.expect("it needed to");
    assert_eq!(Some(latency), served.recovery.after);
    assert!(latency.median_interval.is_some());
    assert_eq!(served.flags, []);
}

#[test]
fn placements_have_the_times_of_all_their_faults() {
    let summary = summary_of("X1", 3);
    let placements: Vec<PlacementId> = summary.placements.iter().map(|of| of.placement).collect();
    assert_eq!(placements.len(), PLACEMENTS.len());
    for of in &summary.placements {
        let cells = summary.cells.iter();
        let activated: u32 = cells
            .filter(|cell| cell.placement == of.placement)
            .map(|cell| cell.activated)
            .sum();
        assert_eq!(of.stall.map(|spread| spread.n), Some(activated));
    }
}

#[test]
fn summary_without_the_later_fields_can_still_be_read() {
    // Arrange: a summary as it was before pairs, flags and curves.
    let summary = summary_of("R1", 3);
    let mut value = serde_json::to_value(&summary).expect("a summary");
    let fields = value.as_object_mut().expect("an object");
    fields.remove("paired");
    fields.remove("placements");
    for cell in fields["cells"].as_array_mut().expect("cells") {
        let cell = cell.as_object_mut().expect("an object");
        cell.remove("flags");
        cell.remove("curves");
        for times in ["noticed", "recovery"] {
            let times = cell[times].as_object_mut().expect("an object");
            times.remove("latency");
        }
    }

    // Act
    let read: Summary = serde_json::from_value(value).expect("an older summary");

    // Assert
    assert_eq!(read.cells.len(), summary.cells.len());
    assert_eq!(read.paired.comparisons, []);
}
