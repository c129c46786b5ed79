//! What stands between a device and memory, in device DMA: a page in each IOMMU mode, a page that is
//! mapped and unmapped around its transfer, and a word whose translation the IOTLB holds or not.
//!
//! The word without translation is the ground: what a hit or a miss takes on top of it is theirs.

use cofferdam_machine::config::{Config, IommuMode};
use cofferdam_machine::{Machine, Memory, PhysAddr};
use cofferdam_seam::{
    Access, Bar, BarSpec, Budget, BusPort, Completion, Device, Direction, Iova, PciIdentity,
    Progress, Purpose, RequesterId, Reset, Width,
};
use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main};
use std::hint::black_box;

/// A device that writes to the address it is told: eight bytes, or a page.
struct Mover;

const WORD: u32 = 0;
const PAGE: u32 = 8;
const FRAME: usize = 4096;
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

fn name(iommu: IommuMode) -> String {
    format!("{iommu:?}").to_lowercase()
}

/// A page into a mapping that lasts.
fn page(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("dma of 4 KiB");
    for iommu in IommuMode::ALL {
        let (mut machine, id) = machine(iommu);
        let mapping = machine
            .map(id, PhysAddr(0), FRAME, Direction::Both)
            .expect("mapped");
        group.bench_function(name(iommu), |bencher| {
            bencher.iter(|| ring(&mut machine, id, PAGE, mapping.iova.0));
        });
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

/// Words into one mapping of many pages: always the same page, or each page in turn.
fn word(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("dma of 8 bytes");
    let measure = |group: &mut BenchmarkGroup<'_, _>, name: &str, iommu, pages: u64| {
        let (mut machine, id) = machine(iommu);
        let all = FRAME * usize::try_from(PAGES).expect("small");
        let mapping = machine
            .map(id, PhysAddr(0), all, Direction::Both)
            .expect("mapped");
        let mut nth = 0;
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                nth = (nth + 1) % pages;
                let at = mapping.iova.offset(nth * FRAME as u64);
                ring(&mut machine, id, WORD, at.0);
            });
        });
    };
    measure(&mut group, "no translation, one page", IommuMode::Off, 1);
    measure(
        &mut group,
        "no translation, 256 pages",
        IommuMode::Off,
        PAGES,
    );
    measure(&mut group, "IOTLB hit, one page", IommuMode::Strict, 1);
    measure(&mut group, "IOTLB hit, 64 pages", IommuMode::Strict, 64);
    measure(
        &mut group,
        "IOTLB miss, 256 pages",
        IommuMode::Strict,
        PAGES,
    );
    group.finish();
}

criterion_group!(benches, page, mapped_for_one, word);
criterion_main!(benches);
