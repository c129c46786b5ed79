//! What the seam costs: a register read through the mock host, next to the same read of the bare
//! device model.

use cofferdam_backends::mock::MockMachine;
use cofferdam_machine::config::Config;
use cofferdam_machine::{Machine, Memory};
use cofferdam_seam::{
    Access, Bar, Bus, BusPort, Device, DmaFault, DriverHost, Iova, Mmio, Pending, Purpose,
    RequesterId, Time, Width,
};
use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use vdevice_edu::{Edu, EduTiming};

/// A bus on which nothing happens.
struct Silence;

impl Bus for Silence {
    fn dma_read(
        &mut self,
        _: RequesterId,
        _: Iova,
        _: &mut [u8],
        _: Purpose,
    ) -> Result<(), DmaFault> {
        Err(DmaFault::Unbacked)
    }
    fn dma_write(&mut self, _: RequesterId, _: Iova, _: &[u8], _: Purpose) -> Result<(), DmaFault> {
        Err(DmaFault::Unbacked)
    }
    fn now(&self) -> Time {
        Time::ZERO
    }
    fn wake_at(&mut self, _: RequesterId, _: Time) {}
}

fn seam(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("register read");
    group.bench_function("bare model", |bencher| {
        let mut edu = Edu::new(EduTiming::default());
        let at = Access::new(Bar::ZERO, 0, Width::Four, 1 << 20).expect("aligned");
        let (mut bus, mut pending) = (Silence, Pending::default());
        bencher.iter(|| {
            let mut port = BusPort::new(&mut bus, RequesterId(0), &mut pending);
            black_box(edu.read(black_box(at), &mut port))
        });
    });
    group.bench_function("mock host", |bencher| {
        let mut machine = Machine::new(Config::default(), Memory::private().expect("memory"));
        let device = machine.plug(Box::new(Edu::new(EduTiming::default())));
        let mock = MockMachine::new(machine);
        let mut host = mock.host(device);
        let registers = host.map_bar(Bar::ZERO).expect("BAR 0");
        bencher.iter(|| black_box(registers.read32(black_box(0))));
    });
    group.finish();
}

criterion_group!(benches, seam);
criterion_main!(benches);
