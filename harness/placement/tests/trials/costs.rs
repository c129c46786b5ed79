//! What a request costs, counted: the same on any host.

use crate::{processes, run};
use cofferdam_placement::crossing::{Rounds, Waiting};
use cofferdam_placement::trial::{
    ClockKind, Counts, DriverId, Fault, PlacementId, TrialReport, TrialSpec,
};

fn clean(placement: PlacementId, driver: DriverId) -> TrialReport {
    run(&TrialSpec::new(placement, driver, Fault::None))
}

fn counts(placement: PlacementId) -> Counts {
    clean(placement, DriverId::VirtioBlk).counts
}

#[test]
fn ring_placements_copy_alike_and_pay_for_a_driver_outside_the_privileged_layer() {
    let inside = counts(PlacementId::InKernel);
    let root = counts(PlacementId::RootPartition);
    let outside = counts(PlacementId::UserProcess);

    assert!(inside.copied_bytes > 0 && inside.wakeups > 0);
    assert_eq!(inside.crossings, inside.doorbells);
    for counts in [&root, &outside] {
        assert_eq!(counts.copied_bytes, inside.copied_bytes);
        assert_eq!(counts.doorbells, inside.doorbells);
        // Each mapping is a call to the privileged layer, there and back.
        assert!(counts.crossings >= inside.crossings + 2 * counts.maps + 2 * counts.unmaps);
    }
}

#[test]
fn who_stands_between_tenants_and_server_copies_every_request_and_crosses_twice_as_often() {
    let shared = counts(PlacementId::UserProcess);
    for placement in processes() {
        if !placement
            .domains
            .iter()
            .any(|domain| domain.role.stands_before(1))
        {
            continue;
        }

        let carried = counts(placement.placement);

        assert_eq!(carried.doorbells, 2 * shared.doorbells, "{}", placement.id);
        // A request's header is 28 bytes, an answer's 16; the data are copied once more.
        let headers = 44 * shared.doorbells / 2;
        assert_eq!(
            carried.copied_bytes,
            2 * shared.copied_bytes + headers,
            "{}",
            placement.id
        );
    }
}

#[test]
fn wall_clock_counts_doorbells_and_copies_too() {
    for placement in processes() {
        let leap = clean(placement.placement, DriverId::Edu);
        let spec = TrialSpec {
            clock: ClockKind::Wall,
            horizon_ns: 20_000_000_000,
            ..TrialSpec::new(placement.placement, DriverId::Edu, Fault::None)
        };

        let wall = run(&spec);

        // A request that a busy host made late is served twice: that adds.
        assert!(wall.counts.copied_bytes >= leap.counts.copied_bytes);
        assert!(wall.counts.doorbells >= leap.counts.doorbells);
        assert!(wall.counts.wakeups > 0, "{}", placement.id);
    }
}

#[test]
fn empty_requests_cross_every_placement() {
    let mut zygote = crate::zygote();
    for placement in processes() {
        let rounds = Rounds {
            waiting: Waiting::Sleep,
            count: 50,
        };

        let took = zygote
            .crossing(placement.placement, rounds)
            .expect("measured");

        assert!(took > 0, "{}", placement.id);
    }
}

#[test]
fn polling_is_refused_where_the_parties_outnumber_the_cores() {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut zygote = crate::zygote();
    for placement in processes() {
        let rounds = Rounds {
            waiting: Waiting::Spin,
            count: 50,
        };

        let took = zygote.crossing(placement.placement, rounds);

        assert_eq!(
            took.is_ok(),
            placement.parties() <= cores,
            "{}: {took:?}",
            placement.id
        );
    }
}

#[test]
fn every_living_domain_has_memory_to_itself() {
    let may_look = nix::unistd::Uid::effective().is_root();
    for placement in processes() {
        let report = clean(placement.placement, DriverId::VirtioBlk);

        for domain in &report.domains {
            // At least a stack, at most a small program without the machine's 2 MiB.
            let plausible = |bytes: u64| (4096..2 << 20).contains(&bytes);
            assert_eq!(
                domain.resident_bytes.is_some_and(plausible),
                may_look,
                "{}: {domain:#?}",
                placement.id
            );
        }
    }
}

#[test]
fn dead_domain_has_no_memory() {
    let report = run(&TrialSpec::new(
        PlacementId::InKernel,
        DriverId::Edu,
        Fault::X1 { nth: 3 },
    ));

    let kernel = crate::domain(&report, "kernel");
    assert_eq!((kernel.deaths.len(), kernel.resident_bytes), (1, None));
}
