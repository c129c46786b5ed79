//! The driver with devices that lie: the model, behind a layer that changes what registers say.

use cofferdam_backends::conformance;
use cofferdam_backends::mock::MockMachine;
use cofferdam_machine::config::Config;
use cofferdam_machine::{Machine, Memory};
use cofferdam_seam::service::{Block, DriverError};
use cofferdam_seam::{
    Access, Budget, BusPort, Capability, Completion, Deadline, Device, PciIdentity, Progress,
    RequesterId, Reset, Time,
};
use driver_nvme_crate::NvmeCrate;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use vdevice_nvme::{Nvme, NvmeConfig};

/// Controller capabilities, controller configuration and status, the first doorbell (NVM Express
/// Base 2.0, 3.1.3).
const CAP: u32 = 0x00;
const CSTS: u32 = 0x1c;
const DOORBELLS: u32 = 0x1000;

/// What a lie makes of an access. None: the access does not reach the device.
#[derive(Clone, Copy)]
struct Lie {
    read: fn(Access, u64) -> u64,
    /// Whether the write reaches the device.
    write: fn(Access) -> bool,
}

const HONEST: Lie = Lie {
    read: |_, value| value,
    write: |_| true,
};

/// The layer.
struct Liar {
    inner: Nvme,
    identity: PciIdentity,
    lie: Lie,
    /// How often it lied.
    told: Arc<AtomicU32>,
}

impl Device for Liar {
    fn describe(&self) -> &PciIdentity {
        &self.identity
    }

    fn read(&mut self, at: Access, bus: &mut BusPort<'_>) -> Completion {
        match self.inner.read(at, bus) {
            Completion::Data(value) => {
                let said = (self.lie.read)(at, value);
                self.told
                    .fetch_add((said != value).into(), Ordering::Relaxed);
                Completion::Data(said)
            }
            other => other,
        }
    }

    fn write(&mut self, at: Access, value: u64, bus: &mut BusPort<'_>) {
        if (self.lie.write)(at) {
            self.inner.write(at, value, bus);
        } else {
            self.told.fetch_add(1, Ordering::Relaxed);
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
fn machine_with(
    lie: Lie,
    change: impl FnOnce(&mut PciIdentity),
) -> (MockMachine, RequesterId, Arc<AtomicU32>) {
    let inner = Nvme::new(NvmeConfig::default());
    let mut identity = *inner.describe();
    change(&mut identity);
    let told = Arc::new(AtomicU32::new(0));
    let liar = Liar {
        inner,
        identity,
        lie,
        told: told.clone(),
    };
    let memory = Memory::private().expect("2 MiB of memory");
    let mut machine = Machine::new(Config::default(), memory);
    let id = machine.plug(Box::new(liar));
    (MockMachine::new(machine), id, told)
}

#[test]
fn device_without_msix_is_served_by_its_line() {
    let (machine, id, _) = machine_with(HONEST, |identity| {
        static NONE: [Capability; 0] = [];
        identity.capabilities = &NONE;
    });
    let mut blk = NvmeCrate::probe(machine.host(id)).expect("an honest device");
    conformance::block(&mut blk, || machine.now());
}

#[test]
fn controller_that_never_becomes_ready_is_given_up() {
    let lie = Lie {
        read: |at, value| if at.offset() == CSTS { 0 } else { value },
        ..HONEST
    };
    let (machine, id, told) = machine_with(lie, |_| {});

    let probed = NvmeCrate::probe(machine.host(id));

    assert!(matches!(probed, Err(DriverError::TimedOut(_))));
    assert!(machine.now() < Time::ZERO + Duration::from_secs(2));
    assert!(told.load(Ordering::Relaxed) > 0);
}

#[test]
fn controller_that_never_stops_is_given_up_and_loses_the_bus() {
    let lie = Lie {
        read: |at, value| {
            if at.offset() == CSTS {
                value | 1
            } else {
                value
            }
        },
        ..HONEST
    };
    let (machine, id, told) = machine_with(lie, |_| {});

    let probed = NvmeCrate::probe(machine.host(id));

    assert!(matches!(probed, Err(DriverError::TimedOut(_))));
    assert!(told.load(Ordering::Relaxed) > 0);
    let command = machine
        .machine()
        .config_read(id, 0x04, cofferdam_seam::Width::Two);
    assert_eq!(command & 1 << 2, 0, "bus mastering is off");
}

#[test]
fn deaf_doorbells_end_in_a_time_out() {
    let lie = Lie {
        // Those of the I/O queue, 8 bytes on.
        write: |at| at.offset() < DOORBELLS + 8,
        ..HONEST
    };
    let (machine, id, told) = machine_with(lie, |_| {});
    let mut blk = NvmeCrate::probe(machine.host(id)).expect("honest so far");

    let until = Deadline::after(machine.now(), Duration::from_millis(10));
    let first = blk.read(0, &mut [0; 512], until);
    let second = blk.read(0, &mut [0; 512], until);

    assert!(matches!(first, Err(DriverError::TimedOut(_))));
    assert!(matches!(second, Err(DriverError::Protocol(_))), "broken");
    assert!(told.load(Ordering::Relaxed) > 0);
}

#[test]
fn device_that_is_gone_is_refused() {
    let lie = Lie {
        read: |at, _| at.width().all_ones(),
        ..HONEST
    };
    let (machine, id, told) = machine_with(lie, |_| {});
    let probed = NvmeCrate::probe(machine.host(id));
    assert!(probed.is_err());
    assert!(told.load(Ordering::Relaxed) > 0);
}

/// The bits of CAP.DSTRD, all set: doorbells 128 KiB apart.
fn far_doorbells(at: Access, value: u64) -> u64 {
    if at.offset() == CAP {
        value | 0xf << 32
    } else {
        value
    }
}

/// Does nothing unless it runs in the child of the next test.
#[test]
fn child_believes_in_far_doorbells() {
    if std::env::var_os("COFFERDAM_TEST_CHILD").is_none() {
        return;
    }
    let lie = Lie {
        read: far_doorbells,
        ..HONEST
    };
    let (machine, id, _) = machine_with(lie, |_| {});
    let _ = NvmeCrate::probe(machine.host(id));
}

#[test]
fn doorbell_stride_of_a_liar_is_a_wild_store_that_kills() {
    let output = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "child_believes_in_far_doorbells"])
        .env("COFFERDAM_TEST_CHILD", "1")
        .output()
        .expect("a child of this test");
    assert_eq!(output.status.signal(), Some(11), "{}", output.status);
}
