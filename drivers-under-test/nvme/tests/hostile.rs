//! A controller that lies: each lie ends in an error within its limit, and a fresh probe works.

mod scripted;

use cofferdam_seam::service::{Block, DriverError};
use cofferdam_seam::{HostError, InterruptKind};
use driver_nvme::Nvme;
use scripted::{Host, Lie, SECTORS, Wires};
use std::time::Duration;

/// Probes a device that lies from the start. The bus must be taken away from it, and all memory.
fn probe_of(lie: Lie) -> DriverError {
    let host = Host::new();
    host.0.borrow_mut().lie = lie;
    let error = Nvme::probe(host.clone()).err().expect("the lie is found");
    let wires = host.0.borrow();
    assert!(wires.lied > 0);
    assert!(wires.now.nanos() < 1_100_000_000, "{}", wires.now);
    assert_eq!(wires.live(), 0);
    assert!(!wires.master);
    error
}

/// Probes a device that was changed.
fn probe_with(change: impl FnOnce(&mut Wires)) -> Result<Nvme<Host>, DriverError> {
    let host = Host::new();
    change(&mut host.0.borrow_mut());
    Nvme::probe(host)
}

/// Why a device that was changed is refused.
fn refusal_of(change: impl FnOnce(&mut Wires)) -> DriverError {
    probe_with(change).err().expect("refused")
}

/// Probes an honest device, which then turns to lying, and reads two sectors.
fn read_of(lie: Lie) -> (Result<[u8; 1024], DriverError>, Host, Nvme<Host>) {
    let host = Host::new();
    host.0.borrow_mut().disk.fill(0xd5);
    let mut nvme = Nvme::probe(host.clone()).expect("an honest device");
    host.0.borrow_mut().lie = lie;
    let until = host.soon();
    let mut bytes = [0; 1024];
    let result = nvme.read(2, &mut bytes, until).map(|()| bytes);
    assert!(host.0.borrow().lied > 0);
    assert!(host.0.borrow().now <= until.0 + Duration::from_micros(5));
    (result, host, nvme)
}

/// That a lie breaks the protocol of a read.
#[track_caller]
fn read_breaks(lie: Lie) {
    let (result, ..) = read_of(lie);
    assert!(
        matches!(result, Err(DriverError::Protocol(_))),
        "{lie:?}: {result:?}"
    );
}

fn noise(len: usize) -> Vec<u8> {
    (0_u8..=250).cycle().take(len).collect()
}

#[test]
fn honest_device_serves_by_every_kind_of_interrupt() {
    for kind in [InterruptKind::Msix, InterruptKind::Msi, InterruptKind::Intx] {
        let host = Host::new();
        host.0.borrow_mut().kind = kind;
        let mut nvme = Nvme::probe(host.clone()).expect("an honest device");
        let queues = host.0.borrow().live();
        let out = noise(50 * 512);
        let mut back = vec![0; out.len()];

        assert_eq!(nvme.capacity(), SECTORS);
        assert_eq!(nvme.write(78, &out, host.soon()), Ok(()));
        assert_eq!(nvme.read(78, &mut back, host.soon()), Ok(()));

        assert_eq!(back, out);
        assert_eq!(host.0.borrow().disk[78 * 512..], out);
        assert_eq!(
            host.0.borrow().live(),
            queues,
            "buffers live for one command"
        );
        assert_eq!(host.0.borrow().late, 0, "{kind:?}");
        assert_eq!(host.0.borrow().masked > 0, kind != InterruptKind::Msix);
        drop(nvme);
        assert_eq!(host.0.borrow().live(), 0);
        assert_eq!(host.0.borrow().shutdowns, 1);
    }
}

#[test]
fn every_length_goes_by_its_own_kind_of_prp() {
    let host = Host::new();
    let mut nvme = Nvme::probe(host.clone()).expect("an honest device");
    for sectors in 1..=34 {
        let out = noise(sectors * 512);
        let mut back = vec![0; out.len()];
        assert_eq!(nvme.write(3, &out, host.soon()), Ok(()));
        assert_eq!(nvme.read(3, &mut back, host.soon()), Ok(()));
        assert_eq!(back, out, "{sectors} sectors");
    }
}

#[test]
fn writes_force_unit_access() {
    let host = Host::new();
    let mut nvme = Nvme::probe(host.clone()).expect("an honest device");
    assert_eq!(nvme.write(0, &[1; 1024], host.soon()), Ok(()));
    assert_eq!(host.0.borrow().commands, [(1, 0x4000_0001)]);
}

#[test]
fn only_the_bytes_of_the_request_are_mapped() {
    let host = Host::new();
    let mut nvme = Nvme::probe(host.clone()).expect("an honest device");
    let queues = host.0.borrow().reachable();
    host.0.borrow_mut().gather = 2;

    assert!(nvme.submit_read(0, 512).is_ok());
    assert_eq!(host.0.borrow().reachable(), queues + 512);
    assert!(nvme.submit_write(0, &[0; 4 * 4096]).is_ok());

    // Data, and a list of the three pages the command does not name itself.
    assert_eq!(host.0.borrow().reachable(), queues + 512 + 4 * 4096 + 3 * 8);
}

#[test]
fn transfers_are_cut_to_mdts() {
    let host = Host::new();
    host.0.borrow_mut().controller[77] = 1;
    let mut nvme = Nvme::probe(host.clone()).expect("an honest device");
    assert_eq!(nvme.transfer_limit(), 8192);
    assert_eq!(nvme.write(0, &noise(40 * 512), host.soon()), Ok(()));
    assert_eq!(host.0.borrow().commands.len(), 3);
    assert_eq!(host.0.borrow().disk[..40 * 512], noise(40 * 512));
}

#[test]
fn mdts_without_a_limit_or_beyond_reason_is_cut_to_the_buffer() {
    for mdts in [0, 3, 51, 52, 63, 64, 255] {
        let nvme = probe_with(|wires| wires.controller[77] = mdts).expect("an honest device");
        assert_eq!(nvme.transfer_limit(), 4 * 4096, "{mdts}");
    }
}

#[test]
fn commands_complete_out_of_order() {
    let host = Host::new();
    let mut nvme = Nvme::probe(host.clone()).expect("an honest device");
    let depth = nvme.depth();
    for (sector, byte) in (0_u8..128).enumerate() {
        host.0.borrow_mut().disk[sector * 512..][..512].fill(byte);
    }
    host.0.borrow_mut().gather = depth;

    for round in 0..16_u8 {
        let tags: Vec<_> = (0..depth as u64)
            .map(|nth| {
                nvme.submit_read(u64::from(round) * 8 + nth, 512)
                    .expect("room")
            })
            .collect();
        assert!(nvme.poll().expect("well").is_some());
        for (tag, sector) in tags.into_iter().zip(round * 8..) {
            let mut bytes = [0; 512];
            assert_eq!(nvme.complete(tag, &mut bytes, host.soon()), Ok(()));
            assert_eq!(bytes, [sector; 512]);
        }
        assert_eq!(nvme.poll(), Ok(None));
    }
}

#[test]
fn full_queue_refuses_and_goes_on() {
    let host = Host::new();
    let mut nvme = Nvme::probe(host.clone()).expect("an honest device");
    host.0.borrow_mut().gather = nvme.depth();
    let tags: Vec<_> = (0..nvme.depth())
        .map(|_| nvme.submit_write(0, &[7; 512]).expect("room"))
        .collect();

    let refused = nvme.submit_read(0, 512);

    assert!(matches!(refused, Err(DriverError::BadRequest(_))));
    for tag in tags {
        assert_eq!(nvme.complete(tag, &mut [], host.soon()), Ok(()));
    }
}

#[test]
fn shortest_queue_holds_one_command() {
    let host = Host::new();
    host.0.borrow_mut().cap &= !0x003e;
    let mut nvme = Nvme::probe(host.clone()).expect("an honest device");
    assert_eq!(nvme.depth(), 1);
    for sector in 0..9 {
        assert_eq!(nvme.write(sector, &[1; 512], host.soon()), Ok(()));
    }
}

#[test]
fn tag_counts_once_and_for_its_length_only() {
    let host = Host::new();
    let mut nvme = Nvme::probe(host.clone()).expect("an honest device");
    let tag = nvme.submit_read(0, 1024).expect("room");

    let short = nvme.complete(tag, &mut [0; 512], host.soon());
    let right = nvme.complete(tag, &mut [0; 1024], host.soon());
    let again = nvme.complete(tag, &mut [], host.soon());

    assert!(matches!(short, Err(DriverError::BadRequest(_))));
    assert_eq!(right, Ok(()));
    assert!(matches!(again, Err(DriverError::BadRequest(_))));
}

#[test]
fn another_class_is_refused() {
    for class in [0x0106_0100, u32::MAX] {
        let error = refusal_of(|wires| wires.class = class);
        assert!(matches!(error, DriverError::Unsupported(_)));
    }
}

#[test]
fn capabilities_beyond_us_are_refused() {
    let honest = 0x0000_0020_0201_003f_u64;
    for cap in [
        honest | 1 << 48,    // MPSMIN 8 KiB
        honest & !(1 << 37), // no NVM command set
        honest | 0xf << 32,  // DSTRD 15 in a BAR of 16 KiB
        u64::MAX,
    ] {
        let error = refusal_of(|wires| wires.cap = cap);
        assert!(matches!(error, DriverError::Unsupported(_)), "{cap:#x}");
    }
    let error = refusal_of(|wires| wires.bar = 0x1000);
    assert!(matches!(error, DriverError::Unsupported(_)));
    let error = refusal_of(|wires| wires.cap = honest & !0xffff);
    assert!(matches!(error, DriverError::Protocol(_)), "MQES 0: {error}");
}

#[test]
fn doorbell_stride_is_followed() {
    let host = Host::new();
    host.0.borrow_mut().cap |= 4 << 32;
    let mut nvme = Nvme::probe(host.clone()).expect("an honest device");
    assert_eq!(nvme.read(0, &mut [0; 512], host.soon()), Ok(()));
}

#[test]
fn registers_of_all_ones_fail_the_probe() {
    assert!(matches!(probe_of(Lie::AllOnes), DriverError::Protocol(_)));
}

#[test]
fn controller_that_is_never_ready_times_out_by_its_own_limit() {
    let error = probe_of(Lie::NeverReady);
    assert_eq!(error, DriverError::TimedOut("CSTS.RDY to be set"));
}

#[test]
fn limit_of_zero_is_one_unit() {
    let host = Host::new();
    host.0.borrow_mut().cap &= !(0xff << 24);
    assert!(Nvme::probe(host.clone()).is_ok());
    host.0.borrow_mut().lie = Lie::NeverReady;
    let start = host.0.borrow().now;
    assert!(Nvme::probe(host.clone()).is_err());
    let took = host.0.borrow().now.since(start).as_millis();
    assert_eq!(took, 500);
}

#[test]
fn controller_that_never_rests_times_out() {
    let error = probe_of(Lie::NeverRests);
    assert_eq!(error, DriverError::TimedOut("CSTS.RDY to be cleared"));
}

#[test]
fn fatal_status_at_enable_fails_the_probe() {
    assert!(matches!(
        probe_of(Lie::FatalAtEnable),
        DriverError::Protocol(_)
    ));
}

#[test]
fn admin_command_that_never_completes_fails_the_probe_in_a_second() {
    for lie in [Lie::NeverCompletes, Lie::Storm, Lie::OldPhase] {
        assert_eq!(probe_of(lie), DriverError::TimedOut("an admin command"));
    }
}

#[test]
fn admin_completions_that_cannot_be_fail_the_probe() {
    for lie in [
        Lie::CidXor(1),
        Lie::Twice,
        Lie::SqId(1),
        Lie::SqHead(9),
        Lie::Status(2),
        Lie::Fatal,
    ] {
        assert!(matches!(probe_of(lie), DriverError::Protocol(_)), "{lie:?}");
    }
}

#[test]
fn short_identify_is_no_device_of_ours() {
    for len in [0, 100, 512] {
        let error = probe_of(Lie::ShortIdentify(len));
        assert!(matches!(error, DriverError::Unsupported(_)), "{len}");
    }
    assert!(matches!(
        probe_of(Lie::MovesNothing),
        DriverError::Unsupported(_)
    ));
}

#[test]
fn controller_data_are_not_taken_for_namespace_data() {
    let host = Host::new();
    host.0.borrow_mut().controller[0] = 0xf4;
    host.0.borrow_mut().controller[130] = 9;
    host.0.borrow_mut().lie = Lie::NoNamespaceData;
    let error = Nvme::probe(host.clone()).err().expect("refused");
    assert!(host.0.borrow().lied > 0);
    assert!(matches!(error, DriverError::Unsupported(_)));
}

#[test]
fn controllers_we_cannot_drive_are_refused() {
    // SQES 7 to 7, CQES 5 to 5, no namespace.
    for (at, value) in [(512, 0x77), (513, 0x55), (516, 0)] {
        let error = refusal_of(|wires| wires.controller[at] = value);
        assert!(matches!(error, DriverError::Unsupported(_)), "{at}");
    }
}

#[test]
fn namespaces_we_cannot_drive_are_refused() {
    for change in [
        |wires: &mut Wires| wires.namespace[..8].fill(0),
        |wires: &mut Wires| wires.namespace[130] = 12,
        |wires: &mut Wires| wires.namespace[130] = 0,
        |wires: &mut Wires| wires.namespace[130] = 255,
        |wires: &mut Wires| wires.namespace[128] = 8,
    ] {
        let error = refusal_of(change);
        assert!(matches!(error, DriverError::Unsupported(_)), "{error}");
    }
    let error = refusal_of(|wires| wires.namespace[26] = 1);
    assert!(matches!(error, DriverError::Protocol(_)), "{error}");
}

#[test]
fn disk_of_every_block_there_can_be_does_not_overflow() {
    let host = Host::new();
    host.0.borrow_mut().namespace[..8].fill(0xff);
    let mut nvme = Nvme::probe(host.clone()).expect("an honest device");
    assert_eq!(nvme.capacity(), u64::MAX);
    let result = nvme.write(u64::MAX, &[0; 512], host.soon());
    assert!(matches!(result, Err(DriverError::BadRequest(_))));
}

#[test]
fn request_that_never_completes_times_out_and_keeps_its_buffer_until_drop() {
    for lie in [Lie::NeverCompletes, Lie::Storm, Lie::OldPhase] {
        let (result, host, nvme) = read_of(lie);

        assert_eq!(
            result,
            Err(DriverError::TimedOut("the request to complete"))
        );
        assert_eq!(host.0.borrow().live(), 5, "the device may still write it");
        assert!(host.0.borrow().master);
        drop(nvme);
        assert_eq!(host.0.borrow().live(), 0);
        assert_eq!(host.0.borrow().shutdowns, 0, "not in working order");
    }
}

#[test]
fn lost_interrupt_costs_the_deadline_only() {
    let (result, ..) = read_of(Lie::LosesInterrupts);
    assert_eq!(result, Ok([0xd5; 1024]));
}

#[test]
fn unknown_commands_break_the_protocol() {
    // Another slot, a slot there is not, an older or newer generation.
    for bits in [1, 0xf, 0x10, 0x8000, 0xffff] {
        read_breaks(Lie::CidXor(bits));
    }
}

#[test]
fn identifier_of_the_command_before_breaks_the_protocol() {
    let host = Host::new();
    let mut nvme = Nvme::probe(host.clone()).expect("an honest device");
    assert_eq!(nvme.read(0, &mut [0; 512], host.soon()), Ok(()));
    host.0.borrow_mut().lie = Lie::PreviousCid;

    let result = nvme.read(0, &mut [0; 512], host.soon());

    assert!(matches!(result, Err(DriverError::Protocol(_))));
}

#[test]
fn completion_that_comes_twice_breaks_the_protocol() {
    read_breaks(Lie::Twice);
}

#[test]
fn queue_heads_and_numbers_that_cannot_be_break_the_protocol() {
    for head in [2, 15, 16, 0xffff] {
        read_breaks(Lie::SqHead(head));
    }
    for id in [0, 2, 0xffff] {
        read_breaks(Lie::SqId(id));
    }
}

#[test]
fn queue_head_that_stands_still_ends_when_the_queue_is_full() {
    let host = Host::new();
    let mut nvme = Nvme::probe(host.clone()).expect("an honest device");
    host.0.borrow_mut().lie = Lie::SqHead(0);
    let served = (0..100)
        .take_while(|_| nvme.read(0, &mut [0; 512], host.soon()).is_ok())
        .count();
    assert_eq!(served, 15);
}

#[test]
fn controller_that_gives_up_breaks_the_protocol() {
    read_breaks(Lie::Fatal);
    read_breaks(Lie::AllOnes);
}

#[test]
fn failed_command_is_an_io_error_and_returns_no_data() {
    let host = Host::new();
    host.0.borrow_mut().disk.fill(0xd5);
    let mut nvme = Nvme::probe(host.clone()).expect("an honest device");
    let mut bytes = [1; 512];
    host.0.borrow_mut().lie = Lie::Status(0x281);

    let failed = nvme.read(2, &mut bytes, host.soon());
    host.0.borrow_mut().lie = Lie::None;

    assert_eq!(failed, Err(DriverError::Io));
    assert_eq!(bytes, [1; 512]);
    assert_eq!(host.0.borrow().live(), 4);
    assert_eq!(nvme.read(2, &mut bytes, host.soon()), Ok(()));
}

#[test]
fn read_that_moves_nothing_returns_no_older_data() {
    let host = Host::new();
    host.0.borrow_mut().disk.fill(0xd5);
    let mut nvme = Nvme::probe(host.clone()).expect("an honest device");
    let mut bytes = [1; 512];
    assert_eq!(nvme.read(0, &mut bytes, host.soon()), Ok(()));
    host.0.borrow_mut().lie = Lie::MovesNothing;
    assert_eq!(nvme.read(0, &mut bytes, host.soon()), Ok(()));
    assert_eq!(bytes, [0; 512]);
}

#[test]
fn shutdown_that_never_ends_is_given_up() {
    let host = Host::new();
    let nvme = Nvme::probe(host.clone()).expect("an honest device");
    host.0.borrow_mut().lie = Lie::NeverShutsDown;
    drop(nvme);
    let wires = host.0.borrow();
    assert!(wires.lied > 0 && wires.now.nanos() < 1_100_000_000);
    assert_eq!((wires.live(), wires.master), (0, false));
}

#[test]
fn enabled_controller_is_waited_for_before_it_is_disabled() {
    let host = Host::new();
    host.0.borrow_mut().lag = 20;
    host.0.borrow_mut().cc = 0x0046_0001;
    let mut nvme = Nvme::probe(host.clone()).expect("an honest device");
    assert_eq!(nvme.read(0, &mut [0; 512], host.soon()), Ok(()));
}

#[test]
fn broken_driver_refuses_until_probed_again() {
    let (_, host, mut nvme) = read_of(Lie::NeverCompletes);
    host.0.borrow_mut().lie = Lie::None;

    let refused = nvme.read(0, &mut [0; 512], host.soon());
    let submitted = nvme.submit_read(0, 512);
    drop(nvme);
    let mut fresh = Nvme::probe(host.clone()).expect("the device is well again");
    let served = fresh.read(0, &mut [0; 512], host.soon());

    assert!(matches!(refused, Err(DriverError::Protocol(_))));
    assert!(matches!(submitted, Err(DriverError::Protocol(_))));
    assert_eq!(served, Ok(()));
}

#[test]
fn bad_requests_leave_the_driver_well() {
    let host = Host::new();
    let mut nvme = Nvme::probe(host.clone()).expect("an honest device");
    for (sector, len) in [(0, 0), (0, 511), (SECTORS - 1, 1024), (u64::MAX, 512)] {
        let result = nvme.read(sector, &mut vec![0; len], host.soon());
        assert!(matches!(result, Err(DriverError::BadRequest(_))));
    }
    let long = nvme.submit_read(0, 5 * 4096);
    assert!(matches!(long, Err(DriverError::BadRequest(_))));
    assert_eq!(nvme.read(0, &mut [0; 512], host.soon()), Ok(()));
}

#[test]
fn host_without_mappings_ends_probe_and_request() {
    for mappings in 0..6 {
        let error = refusal_of(|wires| wires.mappings = mappings);
        assert_eq!(error, DriverError::Host(HostError::Refused), "{mappings}");
    }
    let host = Host::new();
    let mut nvme = Nvme::probe(host.clone()).expect("an honest device");
    host.0.borrow_mut().mappings = 1;
    let result = nvme.write(0, &[0; 4 * 4096], host.soon());
    assert_eq!(result, Err(DriverError::Host(HostError::Refused)));
    drop(nvme);
    assert_eq!(host.0.borrow().live(), 0);
}

#[test]
fn stopped_machine_is_reported() {
    let host = Host::new();
    let mut nvme = Nvme::probe(host.clone()).expect("an honest device");
    host.0.borrow_mut().stopped = true;
    let result = nvme.read(0, &mut [0; 512], host.soon());
    assert_eq!(result, Err(DriverError::Host(HostError::Stopped)));
}

#[test]
fn noise_ends_every_request_in_time() {
    let (mut lied, mut served, mut broke) = (0, 0, 0);
    for seed in 1..=300 {
        let host = Host::new();
        let mut nvme = Nvme::probe(host.clone()).expect("an honest device");
        host.0.borrow_mut().lie = Lie::Noise(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
        for sector in 0..8 {
            let until = host.soon();
            match nvme.read(sector, &mut [0; 2048], until) {
                Ok(()) => served += 1,
                Err(_) => broke += 1,
            }
            assert!(host.0.borrow().now <= until.0 + Duration::from_micros(5));
        }
        drop(nvme);
        lied += host.0.borrow().lied;
        assert_eq!(host.0.borrow().live(), 0);
    }
    assert!(lied > 300, "{lied}");
    assert!(served > 100 && broke > 100, "{served} {broke}");
}
