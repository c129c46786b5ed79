//! The driver with our model of its device, on machines in this process.

use cofferdam_backends::conformance;
use cofferdam_backends::mock::MockMachine;
use cofferdam_instrument::trap::Way;
use cofferdam_machine::config::{Config, FabricKind, IommuMode};
use cofferdam_machine::{Machine, Memory};
use cofferdam_seam::service::{Block, DriverError};
use cofferdam_seam::{Deadline, HostError, RequesterId, Time};
use driver_nvme_crate::NvmeCrate;
use std::time::Duration;
use vdevice_nvme::{Nvme, NvmeConfig};

const BLOCKS: u64 = 64;

/// A machine with one honest device in it.
fn machine_of(config: Config, device: NvmeConfig) -> (Machine, RequesterId) {
    let memory = Memory::private().expect("2 MiB of memory");
    memory.fill_pattern();
    let mut machine = Machine::new(config, memory);
    let id = machine.plug(Box::new(Nvme::new(device)));
    (machine, id)
}

fn device() -> NvmeConfig {
    NvmeConfig {
        blocks: BLOCKS,
        ..NvmeConfig::default()
    }
}

fn mock_of(config: Config) -> (MockMachine, RequesterId) {
    let (machine, id) = machine_of(config, device());
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
            let mut blk = NvmeCrate::probe(machine.host(id)).expect("an honest device");

            assert_eq!(blk.capacity(), BLOCKS);
            conformance::block(&mut blk, || machine.now());
            drop(blk);

            let machine = machine.machine();
            let counts = machine.counts();
            assert!(counts.interrupts >= 900, "{config:?}: {counts:?}");
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
        let mut blk = NvmeCrate::probe(machine.host(id)).expect("an honest device");
        conformance::block(&mut blk, || machine.now());
        (machine.now(), format!("{:?}", machine.machine().counts()))
    });
    assert_eq!(runs[0], runs[1]);
}

#[test]
fn transfers_longer_than_a_page_and_than_a_command_come_back() {
    let (machine, id) = mock_of(Config::default());
    let mut blk = NvmeCrate::probe(machine.host(id)).expect("an honest device");
    // 5 pages and a bit, by two commands, the first with a PRP list.
    let written: Vec<u8> = (0..44 * 512_u32).map(|at| (at % 251) as u8).collect();
    let mut read = vec![0; written.len()];

    assert_eq!(blk.write(3, &written, soon(&machine)), Ok(()));
    assert_eq!(blk.read(3, &mut read, soon(&machine)), Ok(()));

    assert!(read == written);
}

#[test]
fn doorbells_far_apart_and_short_queues_are_served() {
    let sparse = NvmeConfig {
        doorbell_stride: 4,
        max_queue_entries: 2,
        queues: 1,
        ..device()
    };
    let (machine, id) = machine_of(Config::default(), sparse);
    let machine = MockMachine::new(machine);
    let mut blk = NvmeCrate::probe(machine.host(id)).expect("an honest device");
    conformance::block(&mut blk, || machine.now());
}

#[test]
fn what_was_written_outlives_the_driver() {
    let (machine, id) = mock_of(Config::default());
    let mut first = NvmeCrate::probe(machine.host(id)).expect("an honest device");
    assert_eq!(first.write(9, &[0xa7; 512], soon(&machine)), Ok(()));
    drop(first);

    let mut second = NvmeCrate::probe(machine.host(id)).expect("an honest device");
    let mut read = [0; 512];
    let result = second.read(9, &mut read, soon(&machine));

    assert_eq!(result, Ok(()));
    assert_eq!(read, [0xa7; 512]);
}

#[test]
fn device_reset_under_the_driver_costs_that_driver_only() {
    let (machine, id) = mock_of(Config::default());
    let mut first = NvmeCrate::probe(machine.host(id)).expect("an honest device");
    machine.machine().reset(id);

    let until = soon(&machine);
    let lost = first.read(0, &mut [0; 512], until);
    drop(first);
    let second = NvmeCrate::probe(machine.host(id));
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
    let mut blk = NvmeCrate::probe(machine.host(id)).expect("an honest device");
    machine.machine().unmap_all(id);

    let until = soon(&machine);
    let result = blk.read(0, &mut [0; 512], until);

    assert!(matches!(result, Err(error) if !error.is_request_only()));
    assert!(machine.now() <= until.0 + Duration::from_micros(100));
    assert!(machine.machine().counts().stray_blocked > 0);
}

#[test]
fn driver_that_is_dropped_frees_all_its_memory_even_in_mid_request() {
    let (machine, id) = mock_of(Config::default());
    for _ in 0..50 {
        let mut blk = NvmeCrate::probe(machine.host(id)).expect("memory for one more");
        // Over before the device has carried it out.
        let until = Deadline::after(machine.now(), Duration::from_micros(5));
        let late = blk.write(0, &[1; 16 * 512], until);
        assert!(matches!(late, Err(DriverError::TimedOut(_))), "{late:?}");
    }
}

#[test]
fn horizon_in_mid_request_stops_the_driver() {
    let (machine, id) = machine_of(Config::default(), device());
    let horizon = Time(1_000_000);
    let machine = MockMachine::with_horizon(machine, horizon);
    let mut blk = NvmeCrate::probe(machine.host(id)).expect("an honest device");
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

#[test]
fn another_device_is_refused_and_not_touched() {
    let (machine, id) = mock_of(Config::default());
    let absent = RequesterId(id.0 ^ 0xff00);
    let probed = NvmeCrate::probe_trapped(machine.host(absent), Way::Faults);
    assert!(matches!(probed, Err(DriverError::Unsupported(_))));
}
