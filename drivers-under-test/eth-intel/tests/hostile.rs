//! The driver with devices that lie: the model, behind a layer that changes what registers say and
//! writes into the rings.

use cofferdam_backends::mock::MockMachine;
use cofferdam_machine::config::Config;
use cofferdam_machine::{Machine, Memory};
use cofferdam_seam::service::{DriverError, Net};
use cofferdam_seam::{
    Access, Budget, BusPort, Completion, Deadline, Device, Iova, PciIdentity, Progress, Purpose,
    RequesterId, Reset, Time, Width,
};
use driver_eth_intel::{EthIntel, LONGER_THAN_ITS_BUFFER};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use vdevice_e1000::{E1000, E1000Config};

const CTRL: u32 = 0x0000;
const RESET: u64 = 1 << 26;
const ICR: u32 = 0x00c0;
const RDBAL: u32 = 0x2800;
const RDT: u32 = 0x2818;

/// What the device lies about.
#[derive(Clone, Copy)]
struct Lie {
    /// What a register says.
    read: fn(Access, u64) -> u64,
    /// What it writes over the first receive descriptor's length, checksum and status when the last
    /// buffer has been given.
    descriptor: Option<[u8; 8]>,
    /// Whether a reset after the first goes on for ever.
    endless_reset: bool,
}

const HONEST: Lie = Lie {
    read: |_, value| value,
    descriptor: None,
    endless_reset: false,
};

/// The layer.
struct Liar {
    inner: E1000,
    lie: Lie,
    /// RDBAL: all addresses are below 4 GiB here.
    ring: u64,
    resets: u32,
    /// How often it lied.
    told: Arc<AtomicU32>,
}

impl Device for Liar {
    fn describe(&self) -> &PciIdentity {
        self.inner.describe()
    }

    fn read(&mut self, at: Access, bus: &mut BusPort<'_>) -> Completion {
        match self.inner.read(at, bus) {
            Completion::Data(value) => {
                let mut said = (self.lie.read)(at, value) & at.width().all_ones();
                if self.lie.endless_reset && self.resets > 1 && at.offset() == CTRL {
                    said |= RESET;
                }
                self.told
                    .fetch_add((said != value).into(), Ordering::Relaxed);
                Completion::Data(said)
            }
            other => other,
        }
    }

    fn write(&mut self, at: Access, value: u64, bus: &mut BusPort<'_>) {
        self.resets += u32::from(at.offset() == CTRL && value & RESET != 0);
        if self.lie.endless_reset && self.resets > 1 {
            return;
        }
        self.inner.write(at, value, bus);
        if at.offset() == RDBAL {
            self.ring = value;
        }
        if let Some(bytes) = self.lie.descriptor
            && at.offset() == RDT
            && value == 8
        {
            let written = bus.dma_write(Iova(self.ring + 8), &bytes, Purpose::Completion);
            self.told
                .fetch_add(written.is_ok().into(), Ordering::Relaxed);
        }
    }

    fn step(&mut self, budget: Budget, bus: &mut BusPort<'_>) -> Progress {
        self.inner.step(budget, bus)
    }

    fn reset(&mut self, kind: Reset) {
        self.inner.reset(kind);
    }
}

/// A machine with that device, and how often it lied.
fn machine_with(lie: Lie) -> (MockMachine, RequesterId, Arc<AtomicU32>) {
    let told = Arc::new(AtomicU32::new(0));
    let liar = Liar {
        inner: E1000::new(E1000Config::default()),
        lie,
        ring: 0,
        resets: 0,
        told: told.clone(),
    };
    let memory = Memory::private().expect("2 MiB of memory");
    let mut machine = Machine::new(Config::default(), memory);
    let id = machine.plug(Box::new(liar));
    (MockMachine::new(machine), id, told)
}

fn soon(machine: &MockMachine) -> Deadline {
    Deadline::after(machine.now(), Duration::from_millis(10))
}

#[test]
fn reset_that_never_ends_is_given_up() {
    let (machine, id, told) = machine_with(Lie {
        read: |at, value| {
            if at.offset() == CTRL {
                value | RESET
            } else {
                value
            }
        },
        ..HONEST
    });

    let probed = EthIntel::probe(machine.host(id)).map(drop);

    assert_eq!(probed, Err(DriverError::Protocol("the reset does not end")));
    assert!(machine.now() < Time::ZERO + Duration::from_secs(1));
    assert!(told.load(Ordering::Relaxed) > 0);
}

#[test]
fn device_that_is_gone_is_refused() {
    let (machine, id, told) = machine_with(Lie {
        read: |_, _| u64::MAX,
        ..HONEST
    });
    assert!(EthIntel::probe(machine.host(id)).is_err());
    assert!(told.load(Ordering::Relaxed) > 0);
}

#[test]
fn interrupts_without_end_end_at_the_deadline() {
    let (machine, id, told) = machine_with(Lie {
        read: |at, value| if at.offset() == ICR { 0x81 } else { value },
        ..HONEST
    });
    let mut net = EthIntel::probe(machine.host(id)).expect("honest so far");

    let until = soon(&machine);
    let received = net.receive(&mut [0; 60], until);

    assert!(matches!(received, Err(DriverError::TimedOut(_))));
    assert!(machine.now() <= until.0 + Duration::from_micros(100));
    assert!(told.load(Ordering::Relaxed) > 100);
}

#[test]
fn length_beyond_the_buffer_comes_through_the_crate_and_ends_the_driver() {
    // 65535 bytes, done, end of packet, and every error there is.
    let (machine, id, told) = machine_with(Lie {
        descriptor: Some([0xff, 0xff, 0, 0, 3, 0xff, 0, 0]),
        ..HONEST
    });
    let mut net = EthIntel::probe(machine.host(id)).expect("honest so far");

    let received = net.receive(&mut [0; 60], soon(&machine));
    let again = net.receive(&mut [0; 60], soon(&machine));

    assert_eq!(received, Err(DriverError::Protocol(LONGER_THAN_ITS_BUFFER)));
    assert!(matches!(again, Err(DriverError::Protocol(_))), "broken");
    assert_eq!(told.load(Ordering::Relaxed), 1);
}

#[test]
fn part_of_a_frame_with_errors_is_taken_for_a_frame() {
    // 60 bytes, done, not the end of the packet, and every error there is.
    let (machine, id, told) = machine_with(Lie {
        descriptor: Some([60, 0, 0, 0, 1, 0xff, 0, 0]),
        ..HONEST
    });
    let mut net = EthIntel::probe(machine.host(id)).expect("honest so far");

    let received = net.receive(&mut [0; 60], soon(&machine));

    assert_eq!(received, Ok(60));
    assert_eq!(told.load(Ordering::Relaxed), 1);
}

#[test]
fn device_that_does_not_stop_loses_the_bus() {
    let (machine, id, told) = machine_with(Lie {
        endless_reset: true,
        ..HONEST
    });
    let net = EthIntel::probe(machine.host(id)).expect("honest enough");

    drop(net);

    assert!(told.load(Ordering::Relaxed) > 0);
    let command = machine.machine().config_read(id, 0x04, Width::Two);
    assert_eq!(command & 1 << 2, 0, "bus mastering is off");
}
