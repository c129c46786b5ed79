//! Two drivers of one device: our `nvme` and the unmodified crate `nvme-driver`, over the same model
//! behind the mock host, one request of 4 KiB at a time.
//!
//! The crate's registers are trapped: by faults, and also by callbacks where `cofferdam instrument`
//! built the bench. What the requests of each driver consist of is counted and printed first, since
//! the difference comes from there: register accesses, and what one costs.

use cofferdam_backends::mock::MockMachine;
use cofferdam_instrument::trap::Way;
use cofferdam_machine::config::Config;
use cofferdam_machine::{Counts, Machine, Memory};
use cofferdam_seam::service::Block;
use cofferdam_seam::{Deadline, RequesterId, Time};
use criterion::{Criterion, criterion_group, criterion_main};
use driver_nvme::Nvme as Ours;
use driver_nvme_crate::NvmeCrate;
use std::hint::black_box;
use vdevice_nvme::{Nvme, NvmeConfig};

const REQUEST: usize = 4096;
/// Requests that are counted.
const COUNTED: u64 = 64;
/// Time is the device's: no bench waits for it.
const NO_HURRY: Deadline = Deadline(Time::NEVER);

fn machine() -> (MockMachine, RequesterId) {
    let mut machine = Machine::new(Config::default(), Memory::private().expect("memory"));
    let id = machine.plug(Box::new(Nvme::new(NvmeConfig::default())));
    (MockMachine::new(machine), id)
}

/// A driver that came up, on a machine of its own.
type Brought = (MockMachine, Box<dyn Block>);

/// A driver's name, and what brings it up.
type Contender = (&'static str, fn() -> Brought);

fn ours() -> Brought {
    let (machine, id) = machine();
    let driver = Ours::probe(machine.host(id)).expect("an honest device");
    (machine, Box::new(driver))
}

fn third_party(way: Way) -> Brought {
    let (machine, id) = machine();
    let driver = NvmeCrate::probe_trapped(machine.host(id), way).expect("an honest device");
    (machine, Box::new(driver))
}

/// Moves the next 4 KiB of the disk.
struct Workload {
    driver: Box<dyn Block>,
    sector: u64,
    buffer: [u8; REQUEST],
}

impl Workload {
    fn new(driver: Box<dyn Block>) -> Self {
        Self {
            driver,
            sector: 0,
            buffer: [0x5a; REQUEST],
        }
    }

    fn request(&mut self, write: bool) {
        let Self {
            driver,
            sector,
            buffer,
        } = self;
        let done = if write {
            driver.write(*sector, black_box(buffer), NO_HURRY)
        } else {
            driver.read(*sector, black_box(buffer), NO_HURRY)
        };
        done.expect("an honest device");
        *sector = (*sector + 8) % driver.capacity();
    }
}

/// Prints what one request of a driver consists of.
fn count(name: &str, (machine, driver): Brought, write: bool) {
    let mut workload = Workload::new(driver);
    let before = machine.machine().counts();
    for _ in 0..COUNTED {
        workload.request(write);
    }
    let after = machine.machine().counts();
    let each = |of: fn(&Counts) -> u64| (of(&after) - of(&before)) as f64 / COUNTED as f64;
    println!(
        "{name}: {} register reads, {} register writes, {} mappings, {} DMA requests, {} interrupts",
        each(|counts| counts.mmio_reads),
        each(|counts| counts.mmio_writes),
        each(|counts| counts.maps),
        each(|counts| counts.dma_requests),
        each(|counts| counts.interrupts),
    );
}

fn drivers(criterion: &mut Criterion) {
    let mut contenders: Vec<Contender> = vec![
        ("ours", ours),
        ("crate, faults", || third_party(Way::Faults)),
    ];
    if Way::of("nvme_driver") == Way::Callbacks {
        contenders.push(("crate, callbacks", || third_party(Way::Callbacks)));
    } else {
        println!("no callbacks: `cofferdam instrument` did not build this bench");
    }
    for (what, write) in [("read of 4 KiB", false), ("write of 4 KiB", true)] {
        let mut group = criterion.benchmark_group(format!("drivers/{what}"));
        for (name, bring) in &contenders {
            count(&format!("{what}, {name}"), bring(), write);
            let (_machine, driver) = bring();
            let mut workload = Workload::new(driver);
            group.bench_function(*name, |bencher| bencher.iter(|| workload.request(write)));
        }
        group.finish();
    }
}

criterion_group!(benches, drivers);
criterion_main!(benches);
