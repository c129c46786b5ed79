//! Prints every register access that the device of a short life of the driver sees: `trace faults`, and
//! in an instrumented build `trace callbacks`. The two must be the same.

use cofferdam_backends::conformance;
use cofferdam_backends::mock::MockMachine;
use cofferdam_instrument::coverage;
use cofferdam_instrument::trap::Way;
use cofferdam_machine::config::Config;
use cofferdam_machine::{Machine, Memory};
use cofferdam_seam::{Access, Budget, BusPort, Completion, Device, PciIdentity, Progress, Reset};
use driver_nvme_crate::NvmeCrate;
use vdevice_nvme::{Nvme, NvmeConfig};

/// The model, overheard.
struct Overheard(Nvme);

impl Device for Overheard {
    fn describe(&self) -> &PciIdentity {
        self.0.describe()
    }

    fn read(&mut self, at: Access, bus: &mut BusPort<'_>) -> Completion {
        let completion = self.0.read(at, bus);
        println!("read {:#x} {:?}: {completion:x?}", at.offset(), at.width());
        completion
    }

    fn write(&mut self, at: Access, value: u64, bus: &mut BusPort<'_>) {
        println!("write {:#x} {:?}: {value:#x}", at.offset(), at.width());
        self.0.write(at, value, bus);
    }

    fn step(&mut self, budget: Budget, bus: &mut BusPort<'_>) -> Progress {
        self.0.step(budget, bus)
    }

    fn reset(&mut self, kind: Reset) {
        self.0.reset(kind);
    }
}

fn main() {
    let way = match std::env::args().nth(1).as_deref() {
        Some("faults") => Way::Faults,
        Some("callbacks") => {
            assert!(
                coverage::is_instrumented("nvme_driver"),
                "callbacks need a build of `cofferdam instrument`"
            );
            Way::Callbacks
        }
        _ => panic!("say `faults` or `callbacks`"),
    };
    let memory = Memory::private().expect("2 MiB of memory");
    let mut machine = Machine::new(Config::default(), memory);
    let id = machine.plug(Box::new(Overheard(Nvme::new(NvmeConfig::default()))));
    let machine = MockMachine::new(machine);
    let mut blk = NvmeCrate::probe_trapped(machine.host(id), way).expect("an honest device");
    conformance::block(&mut blk, || machine.now());
}
