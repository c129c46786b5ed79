//! The driver with our model of its device, on machines in this process.

use cofferdam_backends::conformance;
use cofferdam_backends::mock::MockMachine;
use cofferdam_machine::config::{Config, FabricKind, IommuMode};
use cofferdam_machine::{Machine, Memory};
use cofferdam_seam::service::{Compute, DriverError};
use cofferdam_seam::{Deadline, HostError, RequesterId, Time};
use driver_edu::Edu;
use std::time::Duration;
use vdevice_edu::EduTiming;

/// A machine with one honest device in it.
fn machine_of(config: Config, timing: EduTiming) -> (Machine, RequesterId) {
    let memory = Memory::private().expect("2 MiB of memory");
    memory.fill_pattern();
    let mut machine = Machine::new(config, memory);
    let id = machine.plug(Box::new(vdevice_edu::Edu::new(timing)));
    (machine, id)
}

fn mock_of(config: Config, timing: EduTiming) -> (MockMachine, RequesterId) {
    let (machine, id) = machine_of(config, timing);
    (MockMachine::new(machine), id)
}

fn slow() -> EduTiming {
    EduTiming {
        factorial: Duration::from_millis(50),
        dma: Duration::from_millis(50),
    }
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
            let (machine, id) = mock_of(config, EduTiming::default());
            let mut edu = Edu::probe(machine.host(id)).expect("an honest device");

            conformance::compute(&mut edu, || machine.now());
            drop(edu);

            let machine = machine.machine();
            let counts = machine.counts();
            assert!(counts.interrupts >= 20, "{config:?}: {counts:?}");
            assert!(counts.maps >= 20, "{config:?}: {counts:?}");
            assert_eq!(counts.maps, counts.unmaps, "{config:?}");
            assert_eq!(counts.stray_landed + counts.stray_blocked, 0, "{config:?}");
            assert_eq!(machine.memory().corruption(), [], "{config:?}");
        }
    }
}

#[test]
fn two_runs_are_the_same_run() {
    let runs = [(); 2].map(|()| {
        let (machine, id) = mock_of(Config::default(), EduTiming::default());
        let mut edu = Edu::probe(machine.host(id)).expect("an honest device");
        conformance::compute(&mut edu, || machine.now());
        (machine.now(), format!("{:?}", machine.machine().counts()))
    });
    assert_eq!(runs[0], runs[1]);
}

#[test]
fn driver_that_gave_up_is_followed_by_one_that_waits() {
    let (machine, id) = mock_of(Config::default(), slow());
    let mut first = Edu::probe(machine.host(id)).expect("an honest device");

    let late = first.round_trip(&[1; 64], &mut [0; 64], soon(&machine));
    drop(first);
    let mut second = Edu::probe(machine.host(id)).expect("the device comes to rest");
    let patient = Deadline::after(machine.now(), Duration::from_secs(1));
    let mut back = [0; 64];
    let served = second.round_trip(&[2; 64], &mut back, patient);

    assert_eq!(late, Err(DriverError::TimedOut("the DMA")));
    assert_eq!(served, Ok(()));
    assert_eq!(back, [2; 64]);
    let counts = machine.machine().counts();
    assert_eq!(counts.stray_landed, 0, "the first one's DMA had no bus");
}

#[test]
fn device_reset_under_the_driver_costs_that_driver_only() {
    let (machine, id) = mock_of(Config::default(), EduTiming::default());
    let mut first = Edu::probe(machine.host(id)).expect("an honest device");
    machine.machine().reset(id);

    let lost = first.round_trip(&[1; 8], &mut [0; 8], soon(&machine));
    drop(first);
    let second = Edu::probe(machine.host(id));
    let served = second
        .expect("the device is well")
        .factorial(5, soon(&machine));

    // Without the bus neither data nor interrupt comes through. The device sets its reason all
    // the same, which must not count.
    assert_eq!(lost, Err(DriverError::TimedOut("the DMA")));
    assert_eq!(served, Ok(120));
    let counts = machine.machine().counts();
    assert_eq!(counts.stray_landed + counts.stray_blocked, 0);
}

#[test]
fn horizon_in_mid_request_stops_the_driver() {
    let (machine, id) = machine_of(Config::default(), EduTiming::default());
    let horizon = Time(1_000_000);
    let machine = MockMachine::with_horizon(machine, horizon);
    let mut edu = Edu::probe(machine.host(id)).expect("an honest device");
    let until = Deadline(Time::NEVER);

    let stopped = loop {
        if let Err(error) = edu.factorial(5, until) {
            break error;
        }
    };
    drop(edu);

    // All ones first, then nothing: whichever call the horizon fell into.
    assert!(matches!(
        stopped,
        DriverError::Host(HostError::Stopped) | DriverError::Protocol(_)
    ));
    assert_eq!(machine.now(), horizon);
}
