//! The driver with our model of its device, on machines in this process.

use cofferdam_backends::conformance;
use cofferdam_backends::mock::MockMachine;
use cofferdam_machine::config::{Config, FabricKind, IommuMode};
use cofferdam_machine::{Machine, Memory};
use cofferdam_seam::service::{Block, DriverError};
use cofferdam_seam::{Deadline, HostError, RequesterId, Time};
use driver_nvme::Nvme;
use std::time::Duration;
use vdevice_nvme::NvmeConfig;

const SECTORS: u64 = 128;

/// A machine with one honest controller in it.
fn machine_of(config: Config, disk: NvmeConfig) -> (Machine, RequesterId) {
    let memory = Memory::private().expect("2 MiB of memory");
    memory.fill_pattern();
    let mut machine = Machine::new(config, memory);
    let id = machine.plug(Box::new(vdevice_nvme::Nvme::new(disk)));
    (machine, id)
}

fn disk() -> NvmeConfig {
    NvmeConfig {
        blocks: SECTORS,
        ..NvmeConfig::default()
    }
}

fn mock_of(config: Config) -> (MockMachine, RequesterId) {
    let (machine, id) = machine_of(config, disk());
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
            let mut nvme = Nvme::probe(machine.host(id)).expect("an honest device");

            assert_eq!(nvme.capacity(), SECTORS);
            conformance::block(&mut nvme, || machine.now());
            drop(nvme);

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
fn two_runs_are_the_same_run() {
    let runs = [(); 2].map(|()| {
        let (machine, id) = mock_of(Config::default());
        let mut nvme = Nvme::probe(machine.host(id)).expect("an honest device");
        conformance::block(&mut nvme, || machine.now());
        (machine.now(), format!("{:?}", machine.machine().counts()))
    });
    assert_eq!(runs[0], runs[1]);
}

#[test]
fn transfers_of_every_kind_of_prp_arrive() {
    let (machine, id) = mock_of(Config::default());
    let mut nvme = Nvme::probe(machine.host(id)).expect("an honest device");
    for sectors in [1, 8, 9, 16, 17, 25, 32, 33, 100] {
        let out: Vec<u8> = (0_u8..=250).cycle().take(sectors * 512).collect();
        let mut back = vec![0; out.len()];
        assert_eq!(nvme.write(5, &out, soon(&machine)), Ok(()));
        assert_eq!(nvme.read(5, &mut back, soon(&machine)), Ok(()));
        assert!(back == out, "{sectors} sectors");
    }
}

#[test]
fn full_queue_completes_command_by_command() {
    let (machine, id) = mock_of(Config::default());
    let mut nvme = Nvme::probe(machine.host(id)).expect("an honest device");
    for _ in 0..10 {
        let sectors = (0_u8..).take(nvme.depth());
        let mut tags = Vec::new();
        for sector in sectors.clone() {
            tags.push(
                nvme.submit_write(sector.into(), &[sector; 512])
                    .expect("room"),
            );
        }
        for tag in tags {
            assert_eq!(nvme.complete(tag, &mut [], soon(&machine)), Ok(()));
        }
        let mut tags = Vec::new();
        for sector in sectors {
            tags.push((sector, nvme.submit_read(sector.into(), 512).expect("room")));
        }
        for (sector, tag) in tags {
            let mut bytes = [0xff; 512];
            assert_eq!(nvme.complete(tag, &mut bytes, soon(&machine)), Ok(()));
            assert_eq!(bytes, [sector; 512]);
        }
    }
}

#[test]
fn what_was_written_outlives_the_driver() {
    let (machine, id) = mock_of(Config::default());
    let mut first = Nvme::probe(machine.host(id)).expect("an honest device");
    assert_eq!(first.write(9, &[0xa7; 512], soon(&machine)), Ok(()));
    drop(first);

    let mut second = Nvme::probe(machine.host(id)).expect("an honest device");
    let mut read = [0; 512];
    let result = second.read(9, &mut read, soon(&machine));

    assert_eq!(result, Ok(()));
    assert_eq!(read, [0xa7; 512]);
}

#[test]
fn device_reset_under_the_driver_costs_that_driver_only() {
    let (machine, id) = mock_of(Config::default());
    let mut first = Nvme::probe(machine.host(id)).expect("an honest device");
    machine.machine().reset(id);

    let until = soon(&machine);
    let lost = first.read(0, &mut [0; 512], until);
    drop(first);
    let second = Nvme::probe(machine.host(id));
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
    let mut nvme = Nvme::probe(machine.host(id)).expect("an honest device");
    machine.machine().unmap_all(id);

    let until = soon(&machine);
    let result = nvme.read(0, &mut [0; 512], until);

    assert!(matches!(result, Err(error) if !error.is_request_only()));
    assert!(machine.now() <= until.0 + Duration::from_micros(100));
    assert!(machine.machine().counts().stray_blocked > 0);
}

#[test]
fn horizon_in_mid_request_stops_the_driver() {
    let (machine, id) = machine_of(Config::default(), disk());
    let horizon = Time(2_000_000);
    let machine = MockMachine::with_horizon(machine, horizon);
    let mut nvme = Nvme::probe(machine.host(id)).expect("an honest device");
    let until = Deadline(Time::NEVER);

    let stopped = loop {
        if let Err(error) = nvme.read(0, &mut [0; 512], until) {
            break error;
        }
    };
    drop(nvme);

    // All ones first, then nothing: whichever call the horizon fell into.
    assert!(matches!(
        stopped,
        DriverError::Host(HostError::Stopped) | DriverError::Protocol(_)
    ));
    assert_eq!(machine.now(), horizon);
}

#[test]
fn other_strides_and_the_shortest_queues_are_served() {
    for (doorbell_stride, max_queue_entries, depth) in [(4, 64, 8), (0, 2, 1), (1, 3, 2)] {
        let config = NvmeConfig {
            doorbell_stride,
            max_queue_entries,
            queues: 1,
            ..disk()
        };
        let (machine, id) = machine_of(Config::default(), config);
        let machine = MockMachine::new(machine);
        let mut nvme = Nvme::probe(machine.host(id)).expect("an honest device");
        assert_eq!(nvme.depth(), depth);
        conformance::block(&mut nvme, || machine.now());
    }
}
