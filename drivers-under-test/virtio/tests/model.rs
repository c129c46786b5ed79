//! The driver with our model of its device, on machines in this process.

use cofferdam_backends::conformance;
use cofferdam_backends::mock::MockMachine;
use cofferdam_machine::config::{Config, FabricKind, IommuMode};
use cofferdam_machine::{DmaEvent, Machine, Memory};
use cofferdam_seam::service::{Block, DriverError};
use cofferdam_seam::{Deadline, HostError, Purpose, RequesterId, Time};
use driver_virtio::VirtioBlk;
use std::time::Duration;
use vdevice_virtio::BlkConfig;

const SECTORS: u64 = 64;

/// A machine with one honest device in it.
fn machine_of(config: Config) -> (Machine, RequesterId) {
    machine_with(config, true)
}

/// The same, with or without an offer of indirect descriptors.
fn machine_with(config: Config, indirect: bool) -> (Machine, RequesterId) {
    let memory = Memory::private().expect("2 MiB of memory");
    memory.fill_pattern();
    let mut machine = Machine::new(config, memory);
    let disk = BlkConfig {
        sectors: SECTORS,
        latency: Duration::from_micros(20),
        seed: 1,
        indirect,
    };
    let id = machine.plug(Box::new(vdevice_virtio::VirtioBlk::new(disk)));
    (machine, id)
}

fn mock_of(config: Config) -> (MockMachine, RequesterId) {
    let (machine, id) = machine_of(config);
    (MockMachine::new(machine), id)
}

fn soon(machine: &MockMachine) -> Deadline {
    Deadline::after(machine.now(), Duration::from_millis(10))
}

#[test]
fn conforms_on_every_machine_and_leaves_no_trace() {
    for iommu in IommuMode::ALL {
        for fabric in FabricKind::ALL {
            let config = Config {
                iommu,
                fabric,
                ..Config::default()
            };
            let (machine, id) = mock_of(config);
            let mut blk = VirtioBlk::probe(machine.host(id)).expect("an honest device");

            assert_eq!(blk.capacity(), SECTORS);
            conformance::block(&mut blk, || machine.now());
            drop(blk);

            let machine = machine.machine();
            let counts = machine.counts();
            assert!(counts.interrupts >= 600, "{config:?}: {counts:?}");
            assert_eq!(counts.maps, counts.unmaps, "{config:?}");
            assert_eq!(counts.stray_landed + counts.stray_blocked, 0, "{config:?}");
            assert_eq!(machine.memory().corruption(), [], "{config:?}");
        }
    }
}

#[test]
fn indirect_descriptors_take_fewer_reads_of_the_ring_and_serve_alike() {
    let fetched = [false, true].map(|indirect| {
        let (machine, id) = machine_with(Config::default(), indirect);
        let machine = MockMachine::new(machine);
        let mut blk = VirtioBlk::probe(machine.host(id)).expect("an honest device");
        machine.machine().drain_events();
        assert_eq!(blk.read(0, &mut [0; 512], soon(&machine)), Ok(()));
        let events = machine.machine().drain_events();
        let descriptors = |event: &&DmaEvent| event.len == 16 && event.why == Purpose::Descriptor;
        let pages = events.iter().filter(descriptors);
        pages.map(|event| event.iova.0 / 4096).collect::<Vec<_>>()
    });

    let [chained, indirect] = fetched;
    assert_eq!(chained.len(), 4, "the header is one of them");
    assert!(chained[..3].iter().all(|page| *page == chained[0]));
    assert_eq!(indirect.len(), 5, "one of the ring and three of the table");
    assert!(indirect[1..4].iter().all(|page| *page != indirect[0]));
}

#[test]
fn two_runs_are_the_same_run() {
    let runs = [(); 2].map(|()| {
        let (machine, id) = mock_of(Config::default());
        let mut blk = VirtioBlk::probe(machine.host(id)).expect("an honest device");
        conformance::block(&mut blk, || machine.now());
        (machine.now(), format!("{:?}", machine.machine().counts()))
    });
    assert_eq!(runs[0], runs[1]);
}

#[test]
fn what_was_written_outlives_the_driver() {
    let (machine, id) = mock_of(Config::default());
    let mut first = VirtioBlk::probe(machine.host(id)).expect("an honest device");
    assert_eq!(first.write(9, &[0xa7; 512], soon(&machine)), Ok(()));
    drop(first);

    let mut second = VirtioBlk::probe(machine.host(id)).expect("an honest device");
    let mut read = [0; 512];
    let result = second.read(9, &mut read, soon(&machine));

    assert_eq!(result, Ok(()));
    assert_eq!(read, [0xa7; 512]);
}

#[test]
fn device_reset_under_the_driver_costs_that_driver_only() {
    let (machine, id) = mock_of(Config::default());
    let mut first = VirtioBlk::probe(machine.host(id)).expect("an honest device");
    machine.machine().reset(id);

    let until = soon(&machine);
    let lost = first.read(0, &mut [0; 512], until);
    drop(first);
    let second = VirtioBlk::probe(machine.host(id));
    let served = second
        .expect("the device is well")
        .read(0, &mut [0; 512], soon(&machine));

    assert!(matches!(lost, Err(error) if !error.is_request_only()));
    assert_eq!(served, Ok(()));
    let counts = machine.machine().counts();
    assert_eq!(counts.stray_landed + counts.stray_blocked, 0);
}

#[test]
fn mappings_taken_away_end_the_request_in_time() {
    let (machine, id) = mock_of(Config::default());
    let mut blk = VirtioBlk::probe(machine.host(id)).expect("an honest device");
    machine.machine().unmap_all(id);

    let until = soon(&machine);
    let result = blk.read(0, &mut [0; 512], until);

    assert!(matches!(result, Err(error) if !error.is_request_only()));
    assert!(machine.now() <= until.0 + Duration::from_micros(100));
    assert!(machine.machine().counts().stray_blocked > 0);
}

#[test]
fn horizon_in_mid_request_stops_the_driver() {
    let (machine, id) = machine_of(Config::default());
    let horizon = Time(1_000_000);
    let machine = MockMachine::with_horizon(machine, horizon);
    let mut blk = VirtioBlk::probe(machine.host(id)).expect("an honest device");
    let until = Deadline(Time::NEVER);

    let stopped = loop {
        if let Err(error) = blk.read(0, &mut [0; 512], until) {
            break error;
        }
    };
    drop(blk);

    // All ones first, then nothing: whichever call the horizon fell into.
    assert!(matches!(
        stopped,
        DriverError::Host(HostError::Stopped) | DriverError::Protocol(_)
    ));
    assert_eq!(machine.now(), horizon);
}
