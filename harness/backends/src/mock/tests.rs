use super::*;
use cofferdam_machine::config::{Config, FabricKind, IommuMode, TimeoutEnds};
use cofferdam_machine::{Memory, Verdict};
use cofferdam_seam::Direction::Both;
use cofferdam_seam::{
    Access, BarSpec, Budget, BusPort, Capability, Completion, Device, InterruptKind, Iova,
    PciIdentity, Progress, Purpose, Reset,
};

/// Interrupts by message or pin, and DMA of one byte, some time after it was told to.
struct Echo {
    iova: u64,
    due: Option<Time>,
    pin: bool,
    faults: u64,
}

/// Writes one byte of 0x5a to that address.
const DMA: u32 = 0x00;
/// Raises its interrupt after that many nanoseconds.
const RAISE: u32 = 0x08;
/// Releases the pin.
const RELEASE: u32 = 0x10;
/// Never answers.
const NEVER: u32 = 0x18;
/// DMA requests that faulted.
const FAULTS: u32 = 0x20;
/// Reads 0x1234.
const MAGIC: u32 = 0x28;

const fn identity(capabilities: &'static [Capability]) -> PciIdentity {
    PciIdentity {
        vendor: 0x1234,
        device: 0x0002,
        revision: 0,
        class: [0xff, 0, 0],
        subsystem: [0, 0],
        intx: true,
        bars: &[BarSpec {
            bar: Bar::ZERO,
            size: 4096,
            wide: false,
            prefetchable: false,
        }],
        capabilities,
    }
}

static MESSAGES: PciIdentity = identity(&[Capability::Msi { log2_vectors: 0 }]);
static PIN: PciIdentity = identity(&[]);

impl Device for Echo {
    fn describe(&self) -> &PciIdentity {
        if self.pin { &PIN } else { &MESSAGES }
    }

    fn read(&mut self, at: Access, _: &mut BusPort<'_>) -> Completion {
        match at.offset() {
            NEVER => Completion::Never,
            FAULTS => Completion::Data(self.faults),
            _ => Completion::Data(0x1234),
        }
    }

    fn write(&mut self, at: Access, value: u64, bus: &mut BusPort<'_>) {
        match at.offset() {
            DMA => {
                self.iova = value;
                let done = bus.dma_write(Iova(value), &[0x5a], Purpose::Payload);
                self.faults += u64::from(done.is_err());
            }
            RAISE => {
                let due = bus.now() + Duration::from_nanos(value);
                self.due = Some(due);
                bus.wake_at(due);
            }
            _ => bus.set_intx(false),
        }
    }

    fn step(&mut self, _: Budget, bus: &mut BusPort<'_>) -> Progress {
        if self.due.is_some_and(|due| due <= bus.now()) {
            self.due = None;
            bus.set_intx(true);
            bus.raise(Vector(0));
        }
        Progress::Idle
    }

    fn reset(&mut self, _: Reset) {
        self.due = None;
    }
}

fn machine(config: Config, pin: bool) -> (Machine, RequesterId) {
    let mut machine = Machine::new(config, Memory::private().unwrap());
    let id = machine.plug(Box::new(Echo {
        iova: 0,
        due: None,
        pin,
        faults: 0,
    }));
    (machine, id)
}

fn mock() -> (MockMachine, MockHost) {
    let (machine, id) = machine(Config::default(), false);
    let mock = MockMachine::new(machine);
    let host = mock.host(id);
    (mock, host)
}

fn until(host: &MockHost, nanos: u64) -> Deadline {
    Deadline::after(host.now(), Duration::from_nanos(nanos))
}

const ZERO: [Vector; 1] = [Vector(0)];

#[test]
fn mapped_bar_answers_and_costs_time() {
    let (mock, mut host) = mock();
    let bar = host.map_bar(Bar::ZERO).unwrap();
    let before = mock.now();
    assert_eq!(bar.read32(MAGIC), 0x1234);
    assert_eq!(mock.now(), before + READ);
    bar.write32(RELEASE, 0);
    assert_eq!(mock.now(), before + READ + WRITE);
    assert_eq!(bar.len(), 4096);
    assert_eq!(bar.read32(4096), u32::MAX);
    assert_eq!(bar.read32(2), u32::MAX);
}

#[test]
fn missing_bar_is_told() {
    let (_, mut host) = mock();
    let refused = host.map_bar(Bar::new(3).unwrap()).err();
    assert_eq!(refused, Some(HostError::NoSuchBar(3)));
}

#[test]
fn wait_leaps_to_the_interrupt() {
    for pin in [false, true] {
        let (machine, id) = machine(Config::default(), pin);
        let mock = MockMachine::new(machine);
        let mut host = mock.host(id);
        let bar = host.map_bar(Bar::ZERO).unwrap();
        host.set_bus_master(true).unwrap();
        let given = host.enable_interrupts(1).unwrap();
        let kind = if pin {
            InterruptKind::Intx
        } else {
            InterruptKind::Msi
        };
        assert_eq!(given, Interrupts { kind, count: 1 });

        bar.write64(RAISE, 30_000);
        let raised_at = host.now() + Duration::from_micros(30);
        let woken = host.wait_any(&ZERO, until(&host, 1_000_000));
        let raised = VectorSet::of(Vector(0));
        assert_eq!(woken, Ok(Wake::Interrupt(raised)));
        assert_eq!(host.now(), raised_at);

        bar.write32(RELEASE, 0);
        let again = host.wait_any(&ZERO, until(&host, 10_000));
        assert_eq!(again, Ok(Wake::TimedOut));
    }
}

#[test]
fn wait_ends_at_its_deadline_when_the_interrupt_comes_later() {
    let (_, mut host) = mock();
    let bar = host.map_bar(Bar::ZERO).unwrap();
    host.set_bus_master(true).unwrap();
    host.enable_interrupts(1).unwrap();
    bar.write64(RAISE, 30_000);
    let deadline = until(&host, 10_000);
    assert_eq!(host.wait_any(&ZERO, deadline), Ok(Wake::TimedOut));
    assert_eq!(host.now(), deadline.0);
    let later = host.wait_any(&ZERO, until(&host, 1_000_000)).unwrap();
    assert!(matches!(later, Wake::Interrupt(_)));
}

#[test]
fn wait_for_nothing_without_a_deadline_stops_the_machine() {
    let (mock, mut host) = mock();
    let waited = host.wait_any(&ZERO, Deadline(Time::NEVER));
    assert_eq!(waited, Err(HostError::Stopped));
    assert!(mock.stopped());
}

#[test]
fn poll_for_ever_ends_at_the_horizon() {
    let (machine, id) = machine(Config::default(), false);
    let horizon = Time(1_000_000);
    let mock = MockMachine::with_horizon(machine, horizon);
    let mut host = mock.host(id);
    let mut turns = 0;
    while host.relax().is_ok() {
        turns += 1;
    }
    assert_eq!(turns, 1000);
    assert_eq!(mock.now(), horizon);
    assert!(mock.stopped());
}

#[test]
fn read_that_times_out_is_all_ones_later() {
    let (mock, mut host) = mock();
    let bar = host.map_bar(Bar::ZERO).unwrap();
    let before = mock.now();
    assert_eq!(bar.read32(NEVER), u32::MAX);
    assert_eq!(mock.now(), before + READ + Duration::from_millis(50));
    assert_eq!(bar.read32(MAGIC), 0x1234);
}

#[test]
fn read_that_never_completes_or_is_fatal_stops_every_host() {
    for (fabric, timeout_ends) in [
        (FabricKind::PcieNotimeout, TimeoutEnds::AllOnes),
        (FabricKind::Pcie, TimeoutEnds::MachineCheck),
    ] {
        let config = Config {
            fabric,
            timeout_ends,
            ..Config::default()
        };
        let (machine, id) = machine(config, false);
        let mock = MockMachine::new(machine);
        let mut host = mock.host(id);
        let mut other = mock.host(id);
        let bar = host.map_bar(Bar::ZERO).unwrap();
        let region = host.alloc_dma(8).unwrap();
        assert_eq!(bar.read16(NEVER), u16::MAX);
        assert!(mock.stopped());

        let writes = mock.machine().counts().mmio_writes;
        assert_eq!(bar.read32(MAGIC), u32::MAX);
        bar.write64(DMA, 0);
        assert_eq!(mock.machine().counts().mmio_writes, writes);
        let stopped = HostError::Stopped;
        assert_eq!(host.relax(), Err(stopped));
        assert_eq!(other.relax(), Err(stopped));
        assert_eq!(host.map_bar(Bar::ZERO).err(), Some(stopped));
        assert_eq!(host.config_read(0, Width::Two), Err(stopped));
        assert_eq!(host.config_write(0, Width::Two, 0), Err(stopped));
        assert_eq!(host.set_bus_master(true), Err(stopped));
        assert_eq!(host.enable_interrupts(1), Err(stopped));
        assert_eq!(host.alloc_dma(8).err(), Some(stopped));
        assert_eq!(host.map(&region, 0..8, Both), Err(stopped));
        let waited = host.wait_any(&ZERO, Deadline(Time::NEVER));
        assert_eq!(waited, Err(stopped));
    }
}

#[test]
fn region_is_zeroed_and_bounded() {
    let (_, mut host) = mock();
    let dirty = host.alloc_dma(100).unwrap();
    dirty.write_at(0, &[7; 100]);
    drop(dirty);
    let region = host.alloc_dma(100).unwrap();
    let mut bytes = [1; 100];
    region.read_at(0, &mut bytes);
    assert_eq!(bytes, [0; 100]);

    region.write_at(98, &[1, 2, 3, 4]);
    region.write_at(usize::MAX, &[9]);
    let mut bytes = [8; 4];
    region.read_at(98, &mut bytes);
    assert_eq!(bytes, [1, 2, 0, 0]);
    region.read_at(usize::MAX, &mut bytes);
    assert_eq!(bytes, [0; 4]);
}

#[test]
fn memory_that_is_not_there_is_told() {
    let (_, mut host) = mock();
    for len in [1 << 20, usize::MAX] {
        let refused = host.alloc_dma(len).err();
        assert_eq!(refused, Some(HostError::OutOfMemory(len)));
    }
}

#[test]
fn device_reaches_a_region_only_while_it_is_mapped() {
    let (mock, mut host) = mock();
    let bar = host.map_bar(Bar::ZERO).unwrap();
    host.set_bus_master(true).unwrap();
    let region = host.alloc_dma(64).unwrap();
    let mapping = host.map(&region, 8..16, Both).unwrap();
    let iova = mapping.iova.0;
    bar.write64(DMA, iova);
    let mut byte = [0];
    region.read_at(8, &mut byte);
    assert_eq!(byte, [0x5a]);
    host.unmap(mapping);
    bar.write64(DMA, iova);
    assert_eq!(bar.read(FAULTS, Width::Eight), 1);
    assert_eq!(mock.machine().counts().stray_blocked, 1);
}

#[test]
fn dropped_region_takes_its_mappings_with_it_and_no_others() {
    let (mock, mut host) = mock();
    let bar = host.map_bar(Bar::ZERO).unwrap();
    host.set_bus_master(true).unwrap();
    let kept = host.alloc_dma(64).unwrap();
    let dropped = host.alloc_dma(64).unwrap();
    let kept_mapping = host.map(&kept, 0..64, Both).unwrap();
    let first = host.map(&dropped, 0..8, Both).unwrap();
    let _second = host.map(&dropped, 8..64, Both).unwrap();
    drop(dropped);
    assert_eq!(mock.machine().counts().unmaps, 2);
    bar.write64(DMA, first.iova.0);
    assert_eq!(bar.read(FAULTS, Width::Eight), 1);
    bar.write64(DMA, kept_mapping.iova.0);
    assert_eq!(bar.read(FAULTS, Width::Eight), 1);
    host.unmap(first);
    assert_eq!(mock.machine().counts().unmaps, 2);
}

#[test]
fn mapping_beyond_a_region_is_refused() {
    let (_, mut host) = mock();
    let region = host.alloc_dma(64).unwrap();
    for (start, end) in [(0, 65), (64, 65), (usize::MAX, usize::MAX), (8, 4)] {
        let refused = host.map(&region, start..end, Both);
        let len = 64;
        assert_eq!(refused, Err(HostError::OutOfRegion { start, end, len }));
    }
    let nothing = host.map(&region, 8..8, Both);
    assert_eq!(nothing, Err(HostError::Refused));
}

#[test]
fn region_of_another_machine_is_refused() {
    let (_, mut host) = mock();
    let (_, mut stranger) = mock();
    let region = stranger.alloc_dma(64).unwrap();
    let refused = host.map(&region, 0..64, Both);
    assert_eq!(refused, Err(HostError::Refused));
}

#[test]
fn mapping_of_another_device_is_left_alone() {
    let (mut machine, first) = machine(Config::default(), false);
    let second = machine.plug(Box::new(Echo {
        iova: 0,
        due: None,
        pin: false,
        faults: 0,
    }));
    let mock = MockMachine::new(machine);
    let (mut mine, mut theirs) = (mock.host(first), mock.host(second));
    let region = mine.alloc_dma(64).unwrap();
    let mapping = mine.map(&region, 0..64, Both).unwrap();
    theirs.unmap(mapping);
    assert_eq!(mock.machine().counts().unmaps, 0);
    drop(region);
    assert_eq!(mock.machine().counts().unmaps, 1);
}

#[test]
fn pointer_is_where_the_bytes_are() {
    let (_, mut host) = mock();
    let first = host.alloc_dma(4096).unwrap();
    let second = host.alloc_dma(4096).unwrap();
    let distance = host.pointer(&second).addr().get() - host.pointer(&first).addr().get();
    assert_eq!(distance, 4096);
}

#[test]
fn driver_without_iommu_can_be_made_to_write_anywhere() {
    let config = Config {
        iommu: IommuMode::Off,
        ..Config::default()
    };
    let (machine, id) = machine(config, false);
    machine.memory().fill_pattern();
    let mock = MockMachine::new(machine);
    let mut host = mock.host(id);
    let bar = host.map_bar(Bar::ZERO).unwrap();
    host.set_bus_master(true).unwrap();
    bar.write64(DMA, 8);
    let machine = mock.machine();
    let verdict = machine.dma_events().0[0].verdict;
    assert!(matches!(verdict, Verdict::Foreign { .. }));
    assert_eq!(machine.memory().corruption().len(), 1);
}

#[test]
fn same_calls_end_in_the_same_state() {
    let run = || {
        let (mock, mut host) = mock();
        let bar = host.map_bar(Bar::ZERO).unwrap();
        host.set_bus_master(true).unwrap();
        host.enable_interrupts(1).unwrap();
        let region = host.alloc_dma(64).unwrap();
        for nth in 0..20 {
            let mapping = host.map(&region, 0..64, Both).unwrap();
            bar.write64(DMA, mapping.iova.0 + nth * 7);
            bar.write64(RAISE, nth * 1000);
            host.wait_any(&ZERO, until(&host, 10_000)).unwrap();
            host.unmap(mapping);
        }
        let machine = mock.machine();
        (
            machine.now(),
            machine.counts(),
            machine.dma_events().0.to_vec(),
        )
    };
    assert_eq!(run(), run());
}
