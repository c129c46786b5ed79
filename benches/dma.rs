//! What stands between a device and memory, in device DMA: a page in each IOMMU mode, whose
//! translation the IOTLB holds or not, a page that is mapped and unmapped around its transfer, and a
//! word.
//!
//! The word without translation, over as many pages, is the ground: what a hit or a miss takes on top
//! of it is theirs.

use cofferdam_machine::config::{Config, IommuMode};
use cofferdam_machine::{Machine, Memory, PhysAddr};
use cofferdam_seam::{
    Access, Bar, BarSpec, Budget, BusPort, Completion, Device, Direction, Iova, PciIdentity,
    Progress, Purpose, RequesterId, Reset, Width,
};
use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;

/// A device that writes to the address it is told: eight bytes, or a page.
struct Mover;

const WORD: u32 = 0;
const PAGE: u32 = 8;
const FRAME: usize = 4096;
/// As many pages as the IOTLB has entries.
const HELD: u64 = 64;
/// Half of memory: more pages than the IOTLB has entries.
const PAGES: u64 = 256;

impl Device for Mover {
    fn describe(&self) -> &PciIdentity {
        const BARS: &[BarSpec] = &[BarSpec {
            bar: Bar::ZERO,
            size: 4096,
            wide: false,
            prefetchable: false,
        }];
        const IDENTITY: PciIdentity = PciIdentity {
            vendor: 0x1234,
            device: 2,
            revision: 0,
            class: [0xff, 0, 0],
            subsystem: [0; 2],
            intx: false,
            bars: BARS,
            capabilities: &[],
        };
        &IDENTITY
    }
    fn read(&mut self, _: Access, _: &mut BusPort<'_>) -> Completion {
        Completion::Data(0)
    }
    fn write(&mut self, at: Access, value: u64, bus: &mut BusPort<'_>) {
        let bytes: &[u8] = match at.offset() {
            PAGE => &[0xab; FRAME],
            _ => &[0xab; 8],
        };
        bus.dma_write(Iova(value), bytes, Purpose::Payload)
            .expect("the bench maps what it uses");
    }
    fn step(&mut self, _: Budget, _: &mut BusPort<'_>) -> Progress {
        Progress::Idle
    }
    fn reset(&mut self, _: Reset) {}
}

fn machine(iommu: IommuMode) -> (Machine, RequesterId) {
    let config = Config {
        iommu,
        ..Config::default()
    };
    let mut machine = Machine::new(config, Memory::private().expect("memory"));
    let id = machine.plug(Box::new(Mover));
    // Memory decoding and bus mastering.
    machine.config_write(id, 4, Width::Two, 6);
    (machine, id)
}

fn ring(machine: &mut Machine, id: RequesterId, register: u32, at: u64) {
    let _ = machine.mmio_write(id, Bar::ZERO, register, Width::Eight, black_box(at));
}

/// The pages of one mapping, round and round.
struct Turns {
    first: Iova,
    pages: u64,
    nth: u64,
}

impl Turns {
    fn new(machine: &mut Machine, id: RequesterId, pages: u64) -> Self {
        let all = FRAME * usize::try_from(pages).expect("small");
        let mapping = machine
            .map(id, PhysAddr(0), all, Direction::Both)
            .expect("mapped");
        Self {
            first: mapping.iova,
            pages,
            nth: 0,
        }
    }

    fn next(&mut self) -> u64 {
        self.nth = (self.nth + 1) % self.pages;
        self.first.offset(self.nth * FRAME as u64).0
    }
}

fn name(iommu: IommuMode) -> String {
    format!("{iommu:?}").to_lowercase()
}

/// Pages of a mapping that lasts, each in turn: as many as the IOTLB holds, or more, and since the
/// oldest entry gives way then none is found again.
fn page(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("dma of 4 KiB");
    for iommu in IommuMode::ALL {
        for pages in [HELD, PAGES] {
            let (mut machine, id) = machine(iommu);
            let mut turns = Turns::new(&mut machine, id, pages);
            let name = match (iommu.translates(), pages) {
                (false, _) => format!("{}, {pages} pages", name(iommu)),
                (true, HELD) => format!("{}, {pages} pages, IOTLB hit", name(iommu)),
                (true, _) => format!("{}, {pages} pages, IOTLB miss", name(iommu)),
            };
            group.bench_function(name, |bencher| {
                bencher.iter(|| ring(&mut machine, id, PAGE, turns.next()));
            });
        }
    }
    group.finish();
}

/// A page's worth that shares its pages with others, mapped for one transfer.
fn mapped_for_one(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("map, dma of 4 KiB, unmap");
    for iommu in IommuMode::ALL {
        let (mut machine, id) = machine(iommu);
        group.bench_function(name(iommu), |bencher| {
            bencher.iter(|| {
                let mapping = machine
                    .map(id, PhysAddr(64), FRAME, Direction::FromDevice)
                    .expect("mapped");
                ring(&mut machine, id, PAGE, mapping.iova.0);
                machine.unmap(id, mapping.id).expect("was mapped");
            });
        });
    }
    group.finish();
}

/// Words into a mapping that lasts: always the same page, or each page in turn.
fn word(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("dma of 8 bytes");
    for (what, iommu, pages) in [
        ("no translation, one page", IommuMode::Off, 1),
        ("no translation, 64 pages", IommuMode::Off, HELD),
        ("no translation, 256 pages", IommuMode::Off, PAGES),
        ("IOTLB hit, one page", IommuMode::Strict, 1),
        ("IOTLB hit, 64 pages", IommuMode::Strict, HELD),
        ("IOTLB miss, 256 pages", IommuMode::Strict, PAGES),
    ] {
        let (mut machine, id) = machine(iommu);
        let mut turns = Turns::new(&mut machine, id, pages);
        group.bench_function(what, |bencher| {
            bencher.iter(|| ring(&mut machine, id, WORD, turns.next()));
        });
    }
    group.finish();
}

criterion_group!(benches, page, mapped_for_one, word);
criterion_main!(benches);
