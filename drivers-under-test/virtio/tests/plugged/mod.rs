//! A machine with one device in it, and what every driver must leave behind.

use cofferdam_backends::mock::{MockHost, MockMachine};
use cofferdam_machine::config::{Config, IommuMode};
use cofferdam_machine::{Machine, Memory};
use cofferdam_seam::{Deadline, Device, RequesterId};
use std::time::Duration;

/// A machine with that device.
pub struct Plugged {
    pub machine: MockMachine,
    pub id: RequesterId,
}

impl Plugged {
    pub fn new(device: impl Device + 'static) -> Self {
        Self::under(IommuMode::Strict, device)
    }

    pub fn under(iommu: IommuMode, device: impl Device + 'static) -> Self {
        let memory = Memory::private().expect("2 MiB of memory");
        memory.fill_pattern();
        let config = Config {
            iommu,
            ..Config::default()
        };
        let mut machine = Machine::new(config, memory);
        let id = machine.plug(Box::new(device));
        Self {
            machine: MockMachine::new(machine),
            id,
        }
    }

    pub fn host(&self) -> MockHost {
        self.machine.host(self.id)
    }

    pub fn soon(&self) -> Deadline {
        Deadline::after(self.machine.now(), Duration::from_millis(10))
    }

    /// Whether a driver that is gone left nothing mapped and did no harm.
    pub fn assert_clean(&self) {
        let machine = self.machine.machine();
        let counts = machine.counts();
        assert!(counts.interrupts > 0, "the device was never heard of");
        assert_eq!(counts.maps, counts.unmaps);
        assert_eq!(counts.stray_landed + counts.stray_blocked, 0);
        assert_eq!(machine.memory().corruption(), []);
    }
}

/// Runs a test under each of these IOMMU modes, on a device of its own each.
pub fn under<D: Device + 'static>(
    modes: impl IntoIterator<Item = IommuMode>,
    device: impl Fn() -> D,
    test: impl Fn(&Plugged),
) {
    for iommu in modes {
        let plugged = Plugged::under(iommu, device());
        test(&plugged);
        plugged.assert_clean();
    }
}
