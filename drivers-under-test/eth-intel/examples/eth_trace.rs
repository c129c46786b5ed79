//! Prints every register access that the device of a short life of the driver sees: `eth_trace faults`,
//! and in an instrumented build `eth_trace callbacks`. The two must be the same.

use cofferdam_backends::mock::MockMachine;
use cofferdam_backends::overheard::Overheard;
use cofferdam_instrument::coverage;
use cofferdam_instrument::trap::Way;
use cofferdam_machine::config::Config;
use cofferdam_machine::{Machine, Memory};
use cofferdam_seam::Deadline;
use cofferdam_seam::service::Net;
use driver_eth_intel::EthIntel;
use std::time::Duration;
use vdevice_e1000::{E1000, E1000Config};

fn main() {
    let way = match std::env::args().nth(1).as_deref() {
        Some("faults") => Way::Faults,
        Some("callbacks") => {
            let both = ["eth_intel", "driver_eth_intel"].map(coverage::is_instrumented);
            assert!(
                both == [true; 2],
                "callbacks need a build of `cofferdam instrument` with the crate and its adapter"
            );
            Way::Callbacks
        }
        _ => panic!("say `faults` or `callbacks`"),
    };
    let memory = Memory::private().expect("2 MiB of memory");
    let mut machine = Machine::new(Config::default(), memory);
    let id = machine.plug(Box::new(Overheard(E1000::new(E1000Config::default()))));
    let machine = MockMachine::new(machine);
    let mut net = EthIntel::probe_trapped(machine.host(id), way).expect("an honest device");
    let frame = [&[0x02; 6][..], &net.address(), &[0x5a; 88]].concat();
    for _ in 0..200 {
        let until = Deadline::after(machine.now(), Duration::from_millis(10));
        net.send(&frame, until).expect("a buffer");
        net.receive(&mut [0; 100], until).expect("the echo");
    }
}
