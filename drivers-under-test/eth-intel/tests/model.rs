//! The driver with our model of its device, on machines in this process.

use cofferdam_backends::mock::MockMachine;
use cofferdam_instrument::trap::Way;
use cofferdam_machine::config::{Config, FabricKind, IommuMode};
use cofferdam_machine::{Machine, Memory};
use cofferdam_seam::service::{DriverError, Net};
use cofferdam_seam::{Deadline, HostError, RequesterId, Time};
use driver_eth_intel::EthIntel;
use std::time::Duration;
use vdevice_e1000::{E1000, E1000Config, Peer};

const PEER: [u8; 6] = [0x02, 0, 0, 0, 0, 0x09];

/// A machine with one honest device in it.
fn mock_with(config: Config, device: E1000Config) -> (MockMachine, RequesterId) {
    let memory = Memory::private().expect("2 MiB of memory");
    memory.fill_pattern();
    let mut machine = Machine::new(config, memory);
    let id = machine.plug(Box::new(E1000::new(device)));
    (MockMachine::new(machine), id)
}

fn mock() -> (MockMachine, RequesterId) {
    mock_with(Config::default(), E1000Config::default())
}

fn soon(machine: &MockMachine) -> Deadline {
    Deadline::after(machine.now(), Duration::from_millis(10))
}

/// A frame to the partner, and what the echo makes of it.
fn frames(own: [u8; 6], len: usize, seed: u8) -> (Vec<u8>, Vec<u8>) {
    let data = (0..=250).cycle().map(|byte: u8| byte.wrapping_add(seed));
    let data: Vec<u8> = data.take(len - 12).collect();
    let sent = [&PEER[..], &own, &data].concat();
    let mut back = [&own[..], &PEER, &data].concat();
    // The controller pads.
    back.resize(len.max(60), 0);
    (sent, back)
}

/// Sends frames of every kind of length one by one and takes the answers.
fn converse(net: &mut impl Net, machine: &MockMachine, count: u8) {
    for round in 0..count {
        let len = [14, 59, 60, 61, 576, 1513, 1514][usize::from(round) % 7];
        let (sent, back) = frames(net.address(), len, round);
        let mut received = [0; 2048];

        assert_eq!(net.send(&sent, soon(machine)), Ok(()), "frame {round}");
        let len = net.receive(&mut received, soon(machine));

        assert_eq!(len, Ok(back.len()), "frame {round}");
        assert!(received[..back.len()] == back, "frame {round} differs");
    }
}

#[test]
fn frames_come_back_on_every_machine_and_leave_no_trace() {
    for iommu in IommuMode::ALL {
        for fabric in FabricKind::ALL {
            let config = Config {
                iommu,
                fabric,
                ..Config::default()
            };
            let (machine, id) = mock_with(config, E1000Config::default());
            let mut net = EthIntel::probe(machine.host(id)).expect("an honest device");

            assert_eq!(net.address(), E1000Config::default().address);
            converse(&mut net, &machine, 100);
            drop(net);

            let machine = machine.machine();
            let counts = machine.counts();
            assert!(counts.interrupts >= 100, "{config:?}: {counts:?}");
            assert_eq!(counts.maps, counts.unmaps, "{config:?}");
            assert_eq!(counts.stray_landed + counts.stray_blocked, 0, "{config:?}");
            assert_eq!(machine.memory().corruption(), [], "{config:?}");
        }
    }
}

#[test]
fn two_runs_are_the_same_run() {
    let runs = [(); 2].map(|()| {
        let (machine, id) = mock();
        let mut net = EthIntel::probe(machine.host(id)).expect("an honest device");
        converse(&mut net, &machine, 20);
        (machine.now(), format!("{:?}", machine.machine().counts()))
    });
    assert_eq!(runs[0], runs[1]);
}

#[test]
fn frames_that_arrive_together_are_taken_in_order() {
    let (machine, id) = mock();
    let mut net = EthIntel::probe(machine.host(id)).expect("an honest device");
    let frames: Vec<_> = (0..20)
        .map(|seed| frames(net.address(), 700, seed))
        .collect();

    for (sent, _) in &frames {
        assert_eq!(net.send(sent, soon(&machine)), Ok(()));
    }
    for (_, back) in &frames {
        let mut received = [0; 700];
        assert_eq!(net.receive(&mut received, soon(&machine)), Ok(700));
        assert!(received[..] == back[..]);
    }
}

#[test]
fn link_is_seen_to_come_up() {
    let (machine, id) = mock();
    let mut net = EthIntel::probe(machine.host(id)).expect("an honest device");
    assert_eq!(net.is_link_up(), Ok(false));

    let nothing = net.receive(&mut [0; 60], soon(&machine));

    assert_eq!(nothing, Err(DriverError::TimedOut("a frame to arrive")));
    assert_eq!(net.is_link_up(), Ok(true));
}

#[test]
fn without_a_cable_buffers_run_out_in_time() {
    let device = E1000Config {
        negotiation: None,
        ..E1000Config::default()
    };
    let (machine, id) = mock_with(Config::default(), device);
    let mut net = EthIntel::probe(machine.host(id)).expect("an honest device");
    let (sent, _) = frames(net.address(), 60, 0);

    let results: Vec<_> = (0..9).map(|_| net.send(&sent, soon(&machine))).collect();

    assert_eq!(results[..8], [Ok(()); 8]);
    assert_eq!(results[8], Err(DriverError::TimedOut("a frame to be sent")));
    assert_eq!(net.is_link_up(), Ok(false), "it is well");
}

#[test]
fn partner_that_keeps_quiet_is_not_waited_for_longer_than_asked() {
    let device = E1000Config {
        peer: Peer::Quiet,
        ..E1000Config::default()
    };
    let (machine, id) = mock_with(Config::default(), device);
    let mut net = EthIntel::probe(machine.host(id)).expect("an honest device");
    let (sent, _) = frames(net.address(), 60, 0);
    assert_eq!(net.send(&sent, soon(&machine)), Ok(()));

    let until = soon(&machine);
    let received = net.receive(&mut [0; 60], until);

    assert!(matches!(received, Err(DriverError::TimedOut(_))));
    assert!(machine.now() <= until.0 + Duration::from_micros(100));
}

#[test]
fn what_is_no_frame_is_refused_and_the_driver_is_well() {
    let (machine, id) = mock();
    let mut net = EthIntel::probe(machine.host(id)).expect("an honest device");

    for len in [0, 13, 1515] {
        let refused = net.send(&vec![0; len], soon(&machine));
        assert!(matches!(refused, Err(DriverError::BadRequest(_))), "{len}");
    }

    converse(&mut net, &machine, 1);
}

#[test]
fn frame_longer_than_the_callers_memory_is_cut() {
    let (machine, id) = mock();
    let mut net = EthIntel::probe(machine.host(id)).expect("an honest device");
    let (sent, back) = frames(net.address(), 600, 7);
    assert_eq!(net.send(&sent, soon(&machine)), Ok(()));

    let mut received = [0; 64];
    let len = net.receive(&mut received, soon(&machine));

    assert_eq!(len, Ok(600));
    assert_eq!(received[..], back[..64]);
}

#[test]
fn device_serves_another_driver_after_the_first() {
    let (machine, id) = mock();
    let first = EthIntel::probe(machine.host(id)).expect("an honest device");
    drop(first);

    let mut second = EthIntel::probe(machine.host(id)).expect("an honest device");

    converse(&mut second, &machine, 7);
}

#[test]
fn device_reset_under_the_driver_costs_that_driver_only() {
    let (machine, id) = mock();
    let mut first = EthIntel::probe(machine.host(id)).expect("an honest device");
    machine.machine().reset(id);

    let lost = first.receive(&mut [0; 60], soon(&machine));
    drop(first);
    let mut second = EthIntel::probe(machine.host(id)).expect("the device is well");
    converse(&mut second, &machine, 1);

    assert!(matches!(lost, Err(DriverError::TimedOut(_))));
    let counts = machine.machine().counts();
    assert_eq!(counts.stray_landed + counts.stray_blocked, 0);
}

#[test]
fn mappings_taken_away_end_the_request_in_time() {
    let (machine, id) = mock();
    let mut net = EthIntel::probe(machine.host(id)).expect("an honest device");
    machine.machine().unmap_all(id);
    let (sent, _) = frames(net.address(), 60, 0);

    let until = soon(&machine);
    assert_eq!(net.send(&sent, until), Ok(()));
    let received = net.receive(&mut [0; 60], until);

    assert!(matches!(received, Err(DriverError::TimedOut(_))));
    assert!(machine.now() <= until.0 + Duration::from_micros(100));
    assert!(machine.machine().counts().stray_blocked > 0);
}

#[test]
fn driver_that_is_dropped_frees_all_its_memory_even_with_frames_under_way() {
    let (machine, id) = mock();
    for _ in 0..50 {
        let mut net = EthIntel::probe(machine.host(id)).expect("memory for one more");
        let (sent, _) = frames(net.address(), 1514, 0);
        assert_eq!(net.send(&sent, soon(&machine)), Ok(()));
    }
    let counts = machine.machine().counts();
    assert_eq!(counts.maps, counts.unmaps);
    assert_eq!(counts.stray_landed + counts.stray_blocked, 0);
}

#[test]
fn horizon_stops_the_driver() {
    let memory = Memory::private().expect("2 MiB of memory");
    let mut machine = Machine::new(Config::default(), memory);
    let id = machine.plug(Box::new(E1000::new(E1000Config::default())));
    let horizon = Time(1_000_000);
    let machine = MockMachine::with_horizon(machine, horizon);
    let mut net = EthIntel::probe(machine.host(id)).expect("an honest device");

    let stopped = net.receive(&mut [0; 60], Deadline(Time::NEVER));
    drop(net);

    assert_eq!(stopped, Err(DriverError::Host(HostError::Stopped)));
    assert_eq!(machine.now(), horizon);
}

#[test]
fn another_device_is_refused_and_not_touched() {
    let (machine, id) = mock();
    let absent = RequesterId(id.0 ^ 0xff00);
    let probed = EthIntel::probe_trapped(machine.host(absent), Way::Faults);
    assert!(matches!(probed, Err(DriverError::Unsupported(_))));
}
