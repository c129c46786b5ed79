//! Prints every register access that the device of a short life of the driver sees: `trace faults`, and
//! in an instrumented build `trace callbacks`. The two must be the same.

use cofferdam_backends::conformance;
use cofferdam_backends::mock::MockMachine;
use cofferdam_backends::overheard::Overheard;
use cofferdam_instrument::coverage;
use cofferdam_instrument::trap::Way;
use cofferdam_machine::config::Config;
use cofferdam_machine::{Machine, Memory};
use driver_nvme_crate::NvmeCrate;
use vdevice_nvme::{Nvme, NvmeConfig};

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
