//! A device that lies: each lie ends within the deadline, in an error unless it is one the crate
//! does not look at, and a fresh probe works.

mod scripted;

use cofferdam_seam::service::{Block, DriverError};
use cofferdam_seam::{HostError, InterruptKind};
use driver_virtio::VirtioBlk;
use scripted::{
    COMMON_CAP, DEVICE_CAP, EVENT_IDX, Host, ISR_CAP, Lie, NOTIFY_CAP, READ_ONLY, VERSION_1, Wires,
};
use std::time::Duration;

/// Probes a device that lies from the start. The bus must be taken away from it.
fn probe_of(lie: Lie) -> DriverError {
    let host = Host::new();
    host.0.borrow_mut().lie = lie;
    let error = VirtioBlk::probe(host.clone())
        .err()
        .expect("the lie is found");
    let wires = host.0.borrow();
    assert!(wires.lied > 0);
    assert!(wires.now.nanos() < 1_200_000_000, "{}", wires.now);
    assert_eq!(wires.live(), 0);
    assert!(!wires.master);
    error
}

/// Probes a device whose configuration space or host was changed.
fn probe_with(change: impl FnOnce(&mut Wires)) -> Result<VirtioBlk<Host>, DriverError> {
    let host = Host::new();
    change(&mut host.0.borrow_mut());
    VirtioBlk::probe(host)
}

/// Probes an honest device, which then turns to lying, and reads two sectors.
fn read_of(lie: Lie) -> (Result<[u8; 1024], DriverError>, Host, VirtioBlk<Host>) {
    let host = Host::new();
    host.0.borrow_mut().disk.fill(0xd5);
    let mut blk = VirtioBlk::probe(host.clone()).expect("an honest device");
    host.0.borrow_mut().lie = lie;
    let until = host.soon();
    let mut bytes = [0; 1024];
    let result = blk.read(2, &mut bytes, until).map(|()| bytes);
    assert!(host.0.borrow().lied > 0);
    assert!(host.0.borrow().now <= until.0 + Duration::from_micros(5));
    (result, host, blk)
}

fn refused_as_unsupported(error: DriverError) -> bool {
    matches!(error, DriverError::Unsupported(_))
}

fn refused_as_broken(error: DriverError) -> bool {
    matches!(error, DriverError::Protocol(_))
}

#[test]
fn honest_device_serves() {
    for kind in [InterruptKind::Msix, InterruptKind::Intx] {
        let host = Host::new();
        host.0.borrow_mut().kind = kind;
        let mut blk = VirtioBlk::probe(host.clone()).expect("an honest device");
        let rings = host.0.borrow().live();
        let out: Vec<u8> = (0..=255).cycle().take(20 * 512).collect();
        let mut back = vec![0; 20 * 512];

        assert_eq!(blk.capacity(), 64);
        assert_eq!(blk.write(44, &out, host.soon()), Ok(()));
        assert_eq!(blk.read(44, &mut back, host.soon()), Ok(()));

        assert_eq!(back, out);
        assert_eq!(host.0.borrow().disk[44 * 512..], out);
        assert_eq!(host.0.borrow().live(), rings, "slots live for one request");
        drop(blk);
        assert_eq!(host.0.borrow().live(), 0);
    }
}

#[test]
fn more_requests_than_the_queue_holds_are_served() {
    let host = Host::new();
    let mut blk = VirtioBlk::probe(host.clone()).expect("an honest device");

    for sector in 0..200 {
        let result = blk.write(sector % 64, &[1; 512], host.soon());
        assert_eq!(result, Ok(()));
    }

    assert_eq!(host.0.borrow().doorbells, 200);
}

#[test]
fn another_device_is_refused() {
    let result = probe_with(|wires| wires.config[2] = 0x41);
    assert!(refused_as_unsupported(result.err().expect("refused")));
}

#[test]
fn configuration_space_of_all_ones_is_refused() {
    let result = probe_with(|wires| wires.config.fill(0xff));
    assert!(refused_as_unsupported(result.err().expect("refused")));
}

#[test]
fn capabilities_in_a_loop_are_walked_once() {
    let result = probe_with(|wires| wires.config[DEVICE_CAP + 1] = 0x40);
    assert!(result.is_ok());
}

#[test]
fn missing_structures_are_refused() {
    for cap in [COMMON_CAP, NOTIFY_CAP, ISR_CAP, DEVICE_CAP] {
        let result = probe_with(|wires| wires.config[cap] = 0x11);
        let error = result.err().expect("refused");
        assert!(refused_as_unsupported(error), "{cap:#x}: {error}");
    }
}

#[test]
fn capability_with_a_reserved_bar_counts_for_nothing() {
    let result = probe_with(|wires| wires.config[COMMON_CAP + 4] = 6);
    assert!(refused_as_unsupported(result.err().expect("refused")));
}

#[test]
fn structure_in_an_absent_bar_is_refused() {
    let result = probe_with(|wires| wires.config[COMMON_CAP + 4] = 2);
    assert_eq!(result.err(), Some(HostError::NoSuchBar(2).into()));
}

#[test]
fn structures_outside_their_bar_are_refused() {
    for offset in [0x4000_u32, 0x3ffc, 0xffff_fff0] {
        let result = probe_with(|wires| {
            wires.config[COMMON_CAP + 8..COMMON_CAP + 12].copy_from_slice(&offset.to_le_bytes());
        });
        assert!(refused_as_broken(result.err().expect("refused")));
    }
}

#[test]
fn short_or_misaligned_structures_are_refused() {
    for (at, value) in [(COMMON_CAP + 12, 0x37), (COMMON_CAP + 8, 2)] {
        let result = probe_with(|wires| wires.config[at] = value);
        assert!(refused_as_broken(result.err().expect("refused")));
    }
}

#[test]
fn device_configuration_without_a_capacity_is_refused() {
    let result = probe_with(|wires| wires.config[DEVICE_CAP + 12] = 4);
    assert!(refused_as_unsupported(result.err().expect("refused")));
}

#[test]
fn odd_doorbell_multiplier_is_refused() {
    let result = probe_with(|wires| wires.config[NOTIFY_CAP + 16] = 1);
    assert!(refused_as_broken(result.err().expect("refused")));
}

#[test]
fn registers_of_all_ones_never_complete_the_reset() {
    let error = probe_of(Lie::AllOnes);
    assert!(matches!(error, DriverError::TimedOut(_)));
}

#[test]
fn device_that_never_resets_times_out() {
    let error = probe_of(Lie::NeverResets);
    assert!(matches!(error, DriverError::TimedOut(_)));
}

#[test]
fn legacy_features_are_refused() {
    assert!(refused_as_unsupported(probe_of(Lie::Features(0))));
}

#[test]
fn refused_features_end_the_probe() {
    assert!(refused_as_unsupported(probe_of(Lie::RefusesFeatures)));
}

#[test]
fn configuration_that_never_settles_times_out() {
    let error = probe_of(Lie::NeverSettles);
    assert_eq!(error, DriverError::TimedOut("the configuration to settle"));
}

#[test]
fn short_queues_are_refused() {
    for size in [0, 1, 15] {
        assert!(refused_as_unsupported(probe_of(Lie::QueueSize(size))));
    }
}

#[test]
fn queue_size_of_all_ones_is_cut_to_the_crates() {
    let result = probe_with(|wires| wires.lie = Lie::QueueSize(0xffff));
    assert!(result.is_ok());
}

#[test]
fn queue_enabled_after_reset_breaks_the_protocol() {
    assert!(refused_as_broken(probe_of(Lie::QueueEnabled)));
}

#[test]
fn device_without_vectors_is_refused() {
    assert!(refused_as_unsupported(probe_of(Lie::NoVector)));
}

#[test]
fn exhausted_memory_ends_the_probe_with_the_hosts_error() {
    for regions in 0..3 {
        let result = probe_with(|wires| wires.regions = regions);
        let error = result.err().expect("two rings and an arena");
        assert!(matches!(
            error,
            DriverError::Host(HostError::OutOfMemory(_))
        ));
    }
}

#[test]
fn refused_mapping_ends_the_request_with_the_hosts_error() {
    for mappings in 0..3 {
        let host = Host::new();
        let mut blk = VirtioBlk::probe(host.clone()).expect("an honest device");
        host.0.borrow_mut().mappings = mappings;

        let result = blk.read(0, &mut [0; 512], host.soon());

        assert_eq!(result, Err(DriverError::Host(HostError::Refused)));
        assert_eq!(host.0.borrow().doorbells, 0);
    }
}

#[test]
fn boundless_capacity_is_only_a_number() {
    let host = Host::new();
    host.0.borrow_mut().lie = Lie::Capacity(u64::MAX);
    let mut blk = VirtioBlk::probe(host.clone()).expect("the crate takes any capacity");

    let result = blk.read(u64::MAX, &mut [0; 512], host.soon());

    assert_eq!(blk.capacity(), u64::MAX);
    assert!(matches!(result, Err(DriverError::BadRequest(_))));
    assert_eq!(host.0.borrow().doorbells, 0);
}

#[test]
fn doorbell_out_of_range_breaks_the_protocol() {
    for off in [1, 0xffff] {
        let (result, ..) = read_of(Lie::NotifyOff(off));
        assert!(refused_as_broken(result.expect_err("the lie is found")));
    }
}

#[test]
fn registers_of_all_ones_have_no_doorbell() {
    let (result, ..) = read_of(Lie::AllOnes);
    assert!(refused_as_broken(result.expect_err("the lie is found")));
}

#[test]
fn silenced_doorbell_times_out() {
    for lie in [Lie::NoDoorbell, Lie::Features(VERSION_1 | EVENT_IDX)] {
        let host = Host::new();
        host.0.borrow_mut().lie = lie;
        let mut blk = VirtioBlk::probe(host.clone()).expect("the crate accepts EVENT_IDX");

        let result = blk.read(0, &mut [0; 512], host.soon());

        assert!(matches!(result, Err(DriverError::TimedOut(_))));
        assert_eq!(host.0.borrow().doorbells, 0);
    }
}

#[test]
fn read_only_disk_refuses_writes() {
    let host = Host::new();
    host.0.borrow_mut().lie = Lie::Features(VERSION_1 | READ_ONLY);
    let mut blk = VirtioBlk::probe(host.clone()).expect("an honest device");

    let write = blk.write(0, &[0; 512], host.soon());
    let read = blk.read(0, &mut [0; 512], host.soon());

    assert!(matches!(write, Err(DriverError::BadRequest(_))));
    assert_eq!(read, Ok(()));
}

#[test]
fn unfinished_request_times_out_and_keeps_its_buffers_until_drop() {
    let (result, host, blk) = read_of(Lie::NeverCompletes);

    assert!(matches!(result, Err(DriverError::TimedOut(_))));
    assert_eq!(host.0.borrow().live(), 5, "two rings and three slots");
    drop(blk);
    assert_eq!(host.0.borrow().live(), 0);
    assert!(!host.0.borrow().master, "the bus is taken away first");
}

#[test]
fn buffers_of_a_small_request_are_neighbours_on_a_page() {
    let host = Host::new();
    let mut blk = VirtioBlk::probe(host.clone()).expect("an honest device");
    let rings = host.0.borrow().pages();
    host.0.borrow_mut().lie = Lie::NeverCompletes;

    let result = blk.read(0, &mut [0; 512], host.soon());

    assert!(result.is_err());
    assert_eq!(host.0.borrow().live(), 5);
    assert_eq!(host.0.borrow().pages(), rings + 1);
}

#[test]
fn lost_interrupt_is_made_good_at_the_deadline() {
    let (result, ..) = read_of(Lie::LosesInterrupts);
    assert_eq!(result, Ok([0xd5; 1024]));
}

#[test]
fn interrupt_storm_ends_at_the_deadline() {
    for kind in [InterruptKind::Msix, InterruptKind::Intx] {
        let host = Host::new();
        host.0.borrow_mut().kind = kind;
        let mut blk = VirtioBlk::probe(host.clone()).expect("an honest device");
        host.0.borrow_mut().lie = Lie::Storm;

        let result = blk.read(0, &mut [0; 512], host.soon());

        assert!(matches!(result, Err(DriverError::TimedOut(_))));
        assert!(host.0.borrow().lied > 0);
    }
}

#[test]
fn used_id_of_no_request_breaks_the_protocol() {
    for id in [1, 15, 16, 0xffff, u32::MAX] {
        let (result, ..) = read_of(Lie::UsedId(id));
        assert!(refused_as_broken(result.expect_err("the lie is found")));
    }
}

#[test]
fn upper_half_of_the_used_id_is_not_looked_at() {
    let (result, ..) = read_of(Lie::UsedId(0xdead_0000));
    assert_eq!(result, Ok([0xd5; 1024]));
}

#[test]
fn used_length_is_not_looked_at() {
    for len in [0, u32::MAX] {
        let (result, ..) = read_of(Lie::UsedLen(len));
        assert_eq!(result, Ok([0xd5; 1024]));
    }
}

#[test]
fn publishing_undone_work_breaks_the_protocol() {
    let (result, ..) = read_of(Lie::PublishesUndone);
    assert!(refused_as_broken(result.expect_err("the lie is found")));
}

#[test]
fn used_index_that_runs_ahead_breaks_the_next_request() {
    let (first, host, mut blk) = read_of(Lie::UsedIndexBy(3));
    host.0.borrow_mut().lie = Lie::NeverCompletes;

    let second = blk.read(0, &mut [0; 512], host.soon());

    assert_eq!(first, Ok([0xd5; 1024]));
    assert!(refused_as_broken(second.expect_err("not done")));
}

#[test]
fn used_index_that_stands_still_times_out() {
    let (result, ..) = read_of(Lie::UsedIndexBy(0));
    assert!(matches!(result, Err(DriverError::TimedOut(_))));
}

#[test]
fn failed_request_leaves_the_driver_well() {
    for status in [1, 2, 4, 0xff] {
        let (result, host, mut blk) = read_of(Lie::Status(status));
        host.0.borrow_mut().lie = Lie::None;

        let next = blk.read(0, &mut [0; 512], host.soon());

        assert_eq!(result, Err(DriverError::Io), "status {status}");
        assert_eq!(next, Ok(()));
    }
}

#[test]
fn status_of_the_crates_own_making_breaks_the_protocol() {
    let (result, ..) = read_of(Lie::Status(3));
    assert!(refused_as_broken(result.expect_err("the lie is found")));
}

#[test]
fn device_that_needs_a_reset_is_found_at_once() {
    let (result, host, _) = read_of(Lie::NeedsReset);
    assert_eq!(
        result,
        Err(DriverError::Protocol("DEVICE_NEEDS_RESET is set"))
    );
    assert!(
        host.0.borrow().now.nanos() < 1_000_000,
        "before the deadline"
    );
}

#[test]
fn broken_driver_refuses_until_probed_again() {
    let (_, host, mut blk) = read_of(Lie::NeverCompletes);
    host.0.borrow_mut().lie = Lie::None;

    let refused = blk.read(0, &mut [0; 512], host.soon());
    drop(blk);
    let mut fresh = VirtioBlk::probe(host.clone()).expect("the device is well again");
    let served = fresh.read(0, &mut [0; 512], host.soon());

    assert!(refused_as_broken(refused.expect_err("broken")));
    assert_eq!(served, Ok(()));
}

#[test]
fn two_drivers_on_one_thread_keep_their_memory_apart() {
    let (one, two) = (Host::new(), Host::new());
    let mut first = VirtioBlk::probe(one.clone()).expect("an honest device");
    let mut second = VirtioBlk::probe(two.clone()).expect("an honest device");

    assert_eq!(first.write(0, &[1; 512], one.soon()), Ok(()));
    assert_eq!(second.write(0, &[2; 512], two.soon()), Ok(()));
    drop(first);

    assert_eq!(one.0.borrow().live(), 0);
    assert_eq!(one.0.borrow().disk[0], 1);
    assert_eq!(two.0.borrow().disk[0], 2);
}

#[test]
fn bad_requests_leave_the_driver_well() {
    let host = Host::new();
    let mut blk = VirtioBlk::probe(host.clone()).expect("an honest device");

    for (sector, len) in [(0, 0), (0, 511), (64, 512), (63, 1024), (u64::MAX, 512)] {
        let read = blk.read(sector, &mut vec![0; len], host.soon());
        let write = blk.write(sector, &vec![0; len], host.soon());
        assert!(matches!(read, Err(DriverError::BadRequest(_))));
        assert!(matches!(write, Err(DriverError::BadRequest(_))));
    }

    assert_eq!(blk.read(63, &mut [0; 512], host.soon()), Ok(()));
}

#[test]
fn stopped_machine_is_reported() {
    let host = Host::new();
    let mut blk = VirtioBlk::probe(host.clone()).expect("an honest device");
    host.0.borrow_mut().stopped = true;

    let result = blk.read(0, &mut [0; 512], host.soon());

    assert_eq!(result, Err(DriverError::Host(HostError::Stopped)));
}

#[test]
fn noise_ends_every_request_in_time() {
    let mut lied = 0;
    let mut served = 0;
    for seed in 1..=300 {
        let host = Host::new();
        let mut blk = VirtioBlk::probe(host.clone()).expect("an honest device");
        host.0.borrow_mut().lie = Lie::Noise(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
        for sector in 0..8 {
            let until = host.soon();
            let result = blk.read(sector, &mut [0; 512], until);
            assert!(host.0.borrow().now <= until.0 + Duration::from_micros(5));
            served += u32::from(result.is_ok());
        }
        drop(blk);
        let probed = VirtioBlk::probe(host.clone());
        drop(probed);
        lied += host.0.borrow().lied;
        assert_eq!(host.0.borrow().live(), 0);
    }
    assert!(lied > 1000, "{lied}");
    assert!(served > 100, "{served}");
}
