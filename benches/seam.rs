//! What the seam costs: a register read through the mock host, next to the same read of the bare
//! device model; of edu, and of a device that does nothing, which leaves the seam alone.

use cofferdam_backends::mock::MockMachine;
use cofferdam_machine::config::Config;
use cofferdam_machine::{Machine, Memory};
use cofferdam_seam::{
    Access, Bar, BarSpec, Budget, Bus, BusPort, Completion, Device, DmaFault, DriverHost, Iova,
    Mmio, PciIdentity, Pending, Progress, Purpose, RequesterId, Reset, Time, Width,
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

/// A device whose one register is zero.
struct Zero;

impl Device for Zero {
    fn describe(&self) -> &PciIdentity {
        const BARS: &[BarSpec] = &[BarSpec {
            bar: Bar::ZERO,
            size: 4096,
            wide: false,
            prefetchable: false,
        }];
        const IDENTITY: PciIdentity = PciIdentity {
            vendor: 0x1234,
            device: 1,
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
    fn write(&mut self, _: Access, _: u64, _: &mut BusPort<'_>) {}
    fn step(&mut self, _: Budget, _: &mut BusPort<'_>) -> Progress {
        Progress::Idle
    }
    fn reset(&mut self, _: Reset) {}
}

/// A device model by name.
type Model = (&'static str, fn() -> Box<dyn Device>);

fn seam(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("register read");
    let devices: [Model; 2] = [
        ("zero", || Box::new(Zero)),
        ("edu", || Box::new(Edu::new(EduTiming::default()))),
    ];
    for (name, device) in devices {
        group.bench_function(format!("{name}/bare model"), |bencher| {
            let mut device = black_box(device());
            let at = Access::new(Bar::ZERO, 0, Width::Four, 4096).expect("aligned");
            let (mut bus, mut pending) = (Silence, Pending::default());
            bencher.iter(|| {
                let mut port = BusPort::new(&mut bus, RequesterId(0), &mut pending);
                black_box(device.read(black_box(at), &mut port))
            });
        });
        group.bench_function(format!("{name}/mock host"), |bencher| {
            let mut machine = Machine::new(Config::default(), Memory::private().expect("memory"));
            let device = machine.plug(device());
            let mock = MockMachine::new(machine);
            let mut host = mock.host(device);
            let registers = host.map_bar(Bar::ZERO).expect("BAR 0");
            host.set_bus_master(true).expect("a command register");
            bencher.iter(|| black_box(registers.read32(black_box(0))));
        });
    }
    group.finish();
}

criterion_group!(benches, seam);
criterion_main!(benches);
