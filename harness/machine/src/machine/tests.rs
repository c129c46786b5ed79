use super::*;
use crate::config::{FabricKind, IommuMode, TimeoutEnds};
use crate::fabric::Ending;
use crate::frames::{Owner, Use, run_of};
use crate::interrupts::Delivery;
use crate::iommu::{Path, Refusal};
use crate::ledger::Verdict;
use cofferdam_seam::Direction::{Both, FromDevice, ToDevice};
use cofferdam_seam::{BarSpec, Bus, BusPort, DmaFault, InterruptKind, Purpose, Reset};
use proptest::prelude::*;

mod bounce;
mod bus;
mod claims;

/// A device that does what its registers tell it to, good or bad.
struct Puppet {
    identity: &'static PciIdentity,
    iova: u64,
    len: usize,
    fault: Option<DmaFault>,
    steps: u64,
    stepped_at: Time,
    /// Asks to be stepped at once, for ever.
    restless: bool,
    /// What it tells of a reset: it forgets its registers, not its steps.
    resets: u64,
}

/// Registers, 8 bytes each.
mod register {
    pub(super) const IOVA: u32 = 0x00;
    pub(super) const LEN: u32 = 0x08;
    /// Writes `LEN` bytes of 0xab.
    pub(super) const DMA_WRITE: u32 = 0x10;
    /// Reads `LEN` bytes; how it ended: 0 well, 1 not.
    pub(super) const DMA_READ: u32 = 0x18;
    pub(super) const FAULT: u32 = 0x20;
    pub(super) const RAISE: u32 = 0x28;
    pub(super) const PIN: u32 = 0x30;
    pub(super) const WAKE_AT: u32 = 0x38;
    pub(super) const STEPS: u32 = 0x40;
    pub(super) const STEPPED_AT: u32 = 0x48;
    pub(super) const RESTLESS: u32 = 0x50;
    /// Sends the word `LEN` to `IOVA`, as a message does.
    pub(super) const WORD: u32 = 0x58;
    pub(super) const NEVER: u32 = 0x60;
    pub(super) const ABORT: u32 = 0x68;
    pub(super) const RESETS: u32 = 0x70;
}

const BARS: &[BarSpec] = &[BarSpec {
    bar: Bar::ZERO,
    size: 0x2000,
    wide: false,
    prefetchable: false,
}];

const PCIE: Capability = Capability::PcieEndpoint { flr: true };

const fn identity(intx: bool, capabilities: &'static [Capability]) -> PciIdentity {
    PciIdentity {
        vendor: 0x1234,
        device: 0x0001,
        revision: 0,
        class: [0xff, 0, 0],
        subsystem: [0, 0],
        intx,
        bars: BARS,
        capabilities,
    }
}

const fn structure(offset: u32) -> MsixLocation {
    MsixLocation {
        bar: Bar::ZERO,
        offset,
    }
}

static MSIX: PciIdentity = identity(
    true,
    &[
        PCIE,
        Capability::Msi { log2_vectors: 2 },
        Capability::Msix {
            vectors: 8,
            table: structure(0x1000),
            pba: structure(0x1800),
        },
    ],
);
static MSI: PciIdentity = identity(true, &[Capability::Msi { log2_vectors: 2 }, PCIE]);
static PIN: PciIdentity = identity(true, &[PCIE]);
static MUTE: PciIdentity = identity(false, &[]);

impl Puppet {
    fn boxed(identity: &'static PciIdentity) -> Box<dyn Device> {
        Box::new(Self {
            identity,
            iova: 0,
            len: 0,
            fault: None,
            steps: 0,
            stepped_at: Time::ZERO,
            restless: false,
            resets: 0,
        })
    }
}

impl Device for Puppet {
    fn describe(&self) -> &PciIdentity {
        self.identity
    }

    fn read(&mut self, at: Access, _: &mut BusPort<'_>) -> Completion {
        Completion::Data(match at.offset() {
            register::NEVER => return Completion::Never,
            register::ABORT => return Completion::Abort,
            register::IOVA => self.iova,
            register::FAULT => self.fault.is_some().into(),
            register::STEPS => self.steps,
            register::STEPPED_AT => self.stepped_at.0,
            register::RESETS => self.resets,
            _ => 0x5eed,
        })
    }

    fn write(&mut self, at: Access, value: u64, bus: &mut BusPort<'_>) {
        let iova = Iova(self.iova);
        match at.offset() {
            register::IOVA => self.iova = value,
            register::LEN => self.len = usize::try_from(value).unwrap(),
            register::DMA_WRITE => {
                let bytes = vec![0xab; self.len];
                self.fault = bus.dma_write(iova, &bytes, Purpose::Payload).err();
            }
            register::DMA_READ => {
                let mut bytes = vec![0; self.len];
                self.fault = bus.dma_read(iova, &mut bytes, Purpose::Payload).err();
            }
            register::RAISE => bus.raise(Vector(u16::try_from(value).unwrap())),
            register::PIN => bus.set_intx(value == 1),
            register::WAKE_AT => bus.wake_at(Time(value)),
            register::RESTLESS => {
                self.restless = true;
                bus.wake_at(Time::ZERO);
            }
            register::WORD => {
                let word = u32::try_from(self.len).unwrap().to_le_bytes();
                self.fault = bus.dma_write(iova, &word, Purpose::Publish).err();
            }
            _ => {}
        }
    }

    fn step(&mut self, _: Budget, bus: &mut BusPort<'_>) -> Progress {
        self.steps += 1;
        self.stepped_at = bus.now();
        if self.restless {
            Progress::More
        } else {
            Progress::Idle
        }
    }

    fn reset(&mut self, _: Reset) {
        self.resets += 1;
        self.iova = 0;
        self.restless = false;
    }
}

fn config(iommu: IommuMode) -> Config {
    Config {
        iommu,
        ..Config::default()
    }
}

fn machine(config: Config, identity: &'static PciIdentity) -> (Machine, RequesterId) {
    let mut machine = Machine::new(config, Memory::private().unwrap());
    let id = machine.plug(Puppet::boxed(identity));
    (machine, id)
}

/// A machine whose device may send DMA.
fn mastered(iommu: IommuMode) -> (Machine, RequesterId) {
    let (mut machine, id) = machine(config(iommu), &MSIX);
    master(&mut machine, id);
    (machine, id)
}

fn master(machine: &mut Machine, id: RequesterId) {
    let on = spec::command::MEMORY | spec::command::BUS_MASTER;
    machine.config_write(id, spec::COMMAND, Width::Two, on.into());
}

fn set(machine: &mut Machine, id: RequesterId, register: u32, value: u64) {
    let done = machine.mmio_write(id, Bar::ZERO, register, Width::Eight, value);
    assert_eq!(done, Write::Done);
}

fn get(machine: &mut Machine, id: RequesterId, register: u32) -> u64 {
    match machine.mmio_read(id, Bar::ZERO, register, Width::Eight) {
        Read::Done(value) => value,
        waiting @ Read::Waiting { .. } => panic!("{waiting:?}"),
    }
}

/// Lets the device write `len` bytes; whether it was told that all is well.
fn dma_write(machine: &mut Machine, id: RequesterId, at: Iova, len: u64) -> bool {
    dma(machine, id, at, len, register::DMA_WRITE)
}

fn dma(machine: &mut Machine, id: RequesterId, at: Iova, len: u64, way: u32) -> bool {
    set(machine, id, register::IOVA, at.0);
    set(machine, id, register::LEN, len);
    set(machine, id, way, 1);
    get(machine, id, register::FAULT) == 0
}

fn pool() -> PhysAddr {
    PhysAddr(run_of(Owner::Driver, Use::DmaPool).unwrap().bytes().start)
}

fn frame_of(owner: Owner) -> PhysAddr {
    PhysAddr(run_of(owner, Use::Pattern).unwrap().bytes().start)
}

fn byte(machine: &Machine, at: PhysAddr) -> u8 {
    let mut byte = [0];
    machine.memory().read(at, &mut byte).unwrap();
    byte[0]
}

fn last_event(machine: &Machine) -> DmaEvent {
    *machine.dma_events().0.last().expect("the device made DMA")
}

// Registers and configuration space.

#[test]
fn plugged_device_answers_at_its_requester_id_only() {
    let (mut machine, id) = machine(Config::default(), &PIN);
    set(&mut machine, id, register::IOVA, 0x1122_3344_5566_7788);
    assert_eq!(get(&mut machine, id, register::IOVA), 0x1122_3344_5566_7788);
    let nobody = RequesterId::new(9, 0, 0);
    let read = machine.mmio_read(nobody, Bar::ZERO, 0, Width::Four);
    assert_eq!(read, Read::Done(0xffff_ffff));
    let vendor = machine.config_read(nobody, spec::VENDOR, Width::Two);
    assert_eq!(vendor, 0xffff);
    assert_eq!(machine.bar_size(nobody, Bar::ZERO), None);
}

#[test]
fn devices_get_buses_of_their_own_and_bars_that_do_not_overlap() {
    let (mut machine, first) = machine(Config::default(), &PIN);
    let second = machine.plug(Puppet::boxed(&PIN));
    assert_eq!(first, RequesterId::new(1, 0, 0));
    assert_eq!(second, RequesterId::new(2, 0, 0));
    let bar = spec::BARS[0];
    assert_eq!(machine.config_read(first, bar, Width::Four), 0xc000_0000);
    assert_eq!(machine.config_read(second, bar, Width::Four), 0xc000_2000);
}

#[test]
fn misaligned_or_far_access_reads_ones_and_writes_nowhere() {
    let (mut machine, id) = machine(Config::default(), &PIN);
    let last = machine.mmio_read(id, Bar::ZERO, 0x1fff, Width::One);
    assert_eq!(last, Read::Done(0xed));
    set(&mut machine, id, register::IOVA, 5);
    for (bar, offset, width) in [
        (Bar::ZERO, 1, Width::Four),
        (Bar::ZERO, 0x2000, Width::One),
        (Bar::ZERO, u32::MAX, Width::One),
        (Bar::new(1).unwrap(), 0, Width::Four),
    ] {
        let done = machine.mmio_write(id, bar, offset, width, 0);
        assert_eq!(done, Write::Done);
        let read = machine.mmio_read(id, bar, offset, width);
        assert_eq!(read, Read::Done(width.all_ones()), "{bar:?} {offset:#x}");
    }
    assert_eq!(get(&mut machine, id, register::IOVA), 5);
}

#[test]
fn aborted_read_is_all_ones() {
    let (mut machine, id) = machine(Config::default(), &PIN);
    let read = machine.mmio_read(id, Bar::ZERO, register::ABORT, Width::Two);
    assert_eq!(read, Read::Done(0xffff));
}

#[test]
fn unanswered_read_waits_as_the_fabric_says() {
    let never = |config| {
        let (mut machine, id) = machine(config, &PIN);
        machine.advance(Time(7));
        machine.mmio_read(id, Bar::ZERO, register::NEVER, Width::Four)
    };
    let for_ever = Config {
        fabric: FabricKind::PcieNotimeout,
        ..Config::default()
    };
    assert!(matches!(never(for_ever), Read::Waiting { until: None, .. }));
    let fatal = Config {
        timeout_ends: TimeoutEnds::MachineCheck,
        ..Config::default()
    };
    let until = Some(Time(50_000_007));
    let then = Ending::MachineCheck;
    assert_eq!(never(fatal), Read::Waiting { until, then });
}

#[test]
fn last_root_port_takes_a_device() {
    let mut machine = Machine::new(Config::default(), Memory::private().unwrap());
    let ids: Vec<_> = (0..PORTS)
        .map(|_| machine.plug(Puppet::boxed(&PIN)))
        .collect();
    assert_eq!(ids[PORTS - 1], RequesterId::new(64, 0, 0));
    set(&mut machine, ids[PORTS - 1], register::IOVA, 5);
    assert_eq!(get(&mut machine, ids[PORTS - 1], register::IOVA), 5);
    assert_ne!(get(&mut machine, ids[0], register::IOVA), 5);
}

// Time.

#[test]
fn device_is_stepped_at_the_time_it_asked_for() {
    let (mut machine, id) = machine(Config::default(), &PIN);
    set(&mut machine, id, register::WAKE_AT, 500);
    assert_eq!(machine.next_event(), Some(Time(500)));
    machine.advance(Time(499));
    assert_eq!(get(&mut machine, id, register::STEPS), 0);
    machine.advance(Time(10_000));
    assert_eq!(get(&mut machine, id, register::STEPPED_AT), 500);
    assert_eq!(machine.now(), Time(10_000));
    assert_eq!(machine.next_event(), None);
}

#[test]
fn time_does_not_go_back() {
    let (mut machine, _) = machine(Config::default(), &PIN);
    machine.advance(Time(500));
    machine.advance(Time(100));
    assert_eq!(machine.now(), Time(500));
}

#[test]
fn device_that_never_rests_cannot_stop_time() {
    let (mut machine, id) = machine(Config::default(), &PIN);
    set(&mut machine, id, register::RESTLESS, 1);
    machine.advance(Time(99_999));
    let steps = get(&mut machine, id, register::STEPS);
    assert_eq!(machine.now(), Time(99_999));
    assert_eq!(steps, 16 * 100);
}

#[test]
fn end_of_time_is_reached() {
    let (mut machine, id) = machine(Config::default(), &PIN);
    set(&mut machine, id, register::WAKE_AT, u64::MAX);
    set(&mut machine, id, register::WAKE_AT, u64::MAX - 1);
    machine.advance(Time::NEVER);
    assert_eq!(machine.now(), Time::NEVER);
    set(&mut machine, id, register::RESTLESS, 1);
    machine.advance(Time::NEVER);
    assert_eq!(machine.next_event(), None);
}

// Interrupts.

#[test]
fn best_kind_of_interrupts_is_given() {
    for (identity, wanted, kind, count) in [
        (&MSIX, 3, InterruptKind::Msix, 3),
        (&MSIX, 100, InterruptKind::Msix, 8),
        (&MSI, 3, InterruptKind::Msi, 2),
        (&MSI, 100, InterruptKind::Msi, 4),
        (&MSI, 0, InterruptKind::Msi, 1),
        (&PIN, 3, InterruptKind::Intx, 1),
    ] {
        let (mut machine, id) = machine(Config::default(), identity);
        let given = machine.enable_interrupts(id, wanted);
        assert_eq!(given, Ok(Interrupts { kind, count }));
    }
    let (mut machine, id) = machine(Config::default(), &MUTE);
    let given = machine.enable_interrupts(id, 1);
    assert_eq!(given, Err(MachineError::NoInterrupts(id)));
}

#[test]
fn messages_raise_the_vectors_that_were_given() {
    for identity in [&MSIX, &MSI] {
        // A slot beside 0, so that a mixed-up slot shows.
        let (mut machine, other) = machine(Config::default(), identity);
        let id = machine.plug(Puppet::boxed(identity));
        master(&mut machine, id);
        machine.enable_interrupts(other, 2).unwrap();
        machine.enable_interrupts(id, 2).unwrap();
        for vector in [1, 5] {
            set(&mut machine, id, register::RAISE, vector);
        }
        let one = VectorSet::of(Vector(1));
        assert_eq!(machine.pending_interrupts(id), one);
        assert!(machine.pending_interrupts(other).is_empty());
        assert_eq!(machine.take_interrupts(id, VectorSet(u64::MAX)), one);
        assert!(machine.pending_interrupts(id).is_empty());
        assert_eq!(machine.counts().interrupts, 1);
        assert_eq!(machine.counts().dma_requests, 0);
    }
}

#[test]
fn message_without_bus_mastering_is_not_sent() {
    let (mut machine, id) = machine(Config::default(), &MSIX);
    machine.enable_interrupts(id, 1).unwrap();
    set(&mut machine, id, register::RAISE, 0);
    assert!(machine.pending_interrupts(id).is_empty());
}

#[test]
fn pin_is_raised_until_the_device_releases_it() {
    let (mut machine, id) = machine(Config::default(), &PIN);
    machine.enable_interrupts(id, 1).unwrap();
    set(&mut machine, id, register::PIN, 1);
    let zero = VectorSet::of(Vector(0));
    assert_eq!(machine.take_interrupts(id, zero), zero);
    assert_eq!(machine.take_interrupts(id, zero), zero);
    set(&mut machine, id, register::PIN, 0);
    assert!(machine.take_interrupts(id, zero).is_empty());
}

#[test]
fn pin_is_off_until_it_is_given() {
    let (mut machine, id) = machine(Config::default(), &PIN);
    set(&mut machine, id, register::PIN, 1);
    assert!(machine.pending_interrupts(id).is_empty());
}

#[test]
fn message_can_be_forged_in_every_mode() {
    for mode in IommuMode::ALL {
        let (mut machine, id) = mastered(mode);
        let victim = machine.plug(Puppet::boxed(&MSIX));
        machine.enable_interrupts(victim, 1).unwrap();
        set(&mut machine, id, register::IOVA, MESSAGES.start);
        set(&mut machine, id, register::LEN, Controller::data(1).into());
        set(&mut machine, id, register::WORD, 1);
        let raised = machine.pending_interrupts(victim);
        assert_eq!(raised, VectorSet::of(Vector(0)), "{mode:?}");
        assert_eq!(machine.counts().forged_interrupts, 1);
    }
}

#[test]
fn write_to_the_message_window_that_is_no_message_faults() {
    for mode in IommuMode::ALL {
        let (mut machine, id) = mastered(mode);
        assert!(!dma_write(&mut machine, id, Iova(MESSAGES.start), 8));
        assert!(!dma_write(&mut machine, id, Iova(MESSAGES.start + 2), 4));
        assert_eq!(machine.counts().spurious_interrupts, 0);
    }
}

// DMA, IOMMU and ledger together.

#[test]
fn mapped_bytes_are_reached_and_sanctioned_in_every_mode() {
    for mode in IommuMode::ALL {
        let (mut machine, id) = mastered(mode);
        let at = PhysAddr(pool().0 + 4000);
        let mapping = machine.map(id, at, 200, Both).unwrap();
        assert!(dma_write(&mut machine, id, mapping.iova, 200), "{mode:?}");
        // What is bounced arrives when the mapping ends.
        machine.unmap(id, mapping.id).unwrap();
        assert_eq!(byte(&machine, at), 0xab);
        assert_eq!(byte(&machine, PhysAddr(at.0 + 199)), 0xab);
        assert_eq!(byte(&machine, PhysAddr(at.0 + 200)), 0);
        let event = last_event(&machine);
        assert_eq!(event.verdict, Verdict::Sanctioned);
        assert_eq!((event.moved, event.fault), (200, None));
        assert_eq!(event.owner(), Some(Owner::Driver));
        assert_eq!(mapping.iova.0 < MEMORY, !mode.translates());
    }
}

#[test]
fn machine_that_forgets_counts_from_zero_and_keeps_its_mappings() {
    let (mut machine, id) = mastered(IommuMode::Strict);
    let frame = frame_of(Owner::Driver);
    let mapping = machine.map(id, frame, 64, Both).unwrap();
    assert!(!dma_write(
        &mut machine,
        id,
        Iova(frame_of(Owner::Tenant2).0),
        64
    ));
    assert_ne!(machine.counts(), Counts::default());

    machine.forget();

    assert_eq!(machine.counts(), Counts::default());
    let empty = (0, 0);
    let logs = [machine.dma_events().0, machine.stray_events().0].map(<[_]>::len);
    assert_eq!((logs, machine.iommu_faults().0.len()), ([0, 0], 0));
    assert_eq!((machine.iommu_faults().1, machine.port_errors().1), empty);
    assert_eq!(machine.mappings(id), 1);
    assert!(dma_write(&mut machine, id, mapping.iova, 64));
    assert_eq!(machine.counts().stray_blocked, 0);
}

#[test]
fn wild_write_lands_only_where_nothing_translates() {
    for mode in IommuMode::ALL {
        let (mut machine, id) = mastered(mode);
        machine.memory().fill_pattern();
        let victim = frame_of(Owner::Tenant2);
        let told = dma_write(&mut machine, id, Iova(victim.0), 64);
        assert_eq!(told, !mode.translates(), "{mode:?}");
        let event = last_event(&machine);
        let owner = Owner::Tenant2;
        assert_eq!(event.verdict, Verdict::Foreign { owner });
        assert_eq!(event.landed(), !mode.translates());
        let corrupted = machine.memory().corruption();
        if mode.translates() {
            assert_eq!(corrupted, []);
            assert_eq!(machine.iommu_faults().0.len(), 1);
            assert_eq!(machine.counts().stray_blocked, 1);
        } else {
            assert_eq!(corrupted[0].0, owner);
            assert_eq!(machine.counts().stray_landed, 1);
        }
    }
}

#[test]
fn write_stops_at_the_first_page_that_is_not_mapped() {
    let (mut machine, id) = mastered(IommuMode::Strict);
    let mapping = machine.map(id, pool(), 4096, Both).unwrap();
    assert!(!dma_write(&mut machine, id, mapping.iova, 5000));
    let event = last_event(&machine);
    assert_eq!(event.moved, 4096);
    assert_eq!(event.fault, Some(DmaFault::Refused));
    assert_eq!(event.verdict, Verdict::OutOfBounds);
    assert_eq!(byte(&machine, PhysAddr(pool().0 + 4095)), 0xab);
    assert_eq!(byte(&machine, PhysAddr(pool().0 + 4096)), 0);
}

#[test]
fn neighbour_on_a_mapped_page_is_reached_but_out_of_bounds() {
    for mode in IommuMode::ALL {
        let (mut machine, id) = mastered(mode);
        let mapping = machine.map(id, pool(), 100, Both).unwrap();
        assert!(dma_write(&mut machine, id, mapping.iova.offset(100), 8));
        assert_eq!(last_event(&machine).verdict, Verdict::OutOfBounds);
        assert_eq!(machine.counts().stray_landed, 1);
    }
}

#[test]
fn wrong_direction_is_refused_where_something_translates() {
    for mode in IommuMode::ALL {
        let (mut machine, id) = mastered(mode);
        let readable = machine.map(id, pool(), 8, ToDevice).unwrap();
        let told = dma_write(&mut machine, id, readable.iova, 8);
        assert_eq!(told, !mode.translates());
        assert_eq!(last_event(&machine).verdict, Verdict::WrongDirection);
        let next = PhysAddr(pool().0 + 4096);
        let writable = machine.map(id, next, 8, FromDevice).unwrap();
        let told = dma(&mut machine, id, writable.iova, 8, register::DMA_READ);
        assert_eq!(told, !mode.translates());
        assert_eq!(last_event(&machine).verdict, Verdict::WrongDirection);
    }
}

#[test]
fn use_after_unmap_lands_where_the_physics_says() {
    for (mode, primed, wait, lands) in [
        (IommuMode::Off, true, 20_000_000, true),
        (IommuMode::Passthrough, false, 20_000_000, true),
        (IommuMode::Lazy, true, 9_999_999, true),
        (IommuMode::Lazy, true, 10_000_000, false),
        (IommuMode::Lazy, false, 1, false),
        (IommuMode::Strict, true, 0, false),
        (IommuMode::Bounce, true, 0, false),
    ] {
        let (mut machine, id) = mastered(mode);
        let mapping = machine.map(id, pool(), 64, Both).unwrap();
        if primed {
            assert!(dma_write(&mut machine, id, mapping.iova, 64));
        }
        machine.unmap(id, mapping.id).unwrap();
        machine.advance(Time(wait));
        let told = dma_write(&mut machine, id, mapping.iova, 64);
        assert_eq!(told, lands, "{mode:?} after {wait} ns");
        let ago = Duration::from_nanos(wait);
        let event = last_event(&machine);
        assert_eq!(event.verdict, Verdict::UseAfterUnmap { ago });
        assert_eq!(event.stale, lands && mode == IommuMode::Lazy);
        let counts = machine.counts();
        assert_eq!(counts.after_unmap_landed, u64::from(lands));
        assert_eq!(counts.last_after_unmap, lands.then_some(ago));
    }
}

#[test]
fn lazy_flush_is_an_event_until_it_happened() {
    let (mut machine, id) = mastered(IommuMode::Lazy);
    let mapping = machine.map(id, pool(), 64, Both).unwrap();
    machine.advance(Time(1_000));
    machine.unmap(id, mapping.id).unwrap();
    assert_eq!(machine.next_event(), Some(Time(10_001_000)));
    assert_eq!(machine.counts().invalidations, 0);
    machine.advance(Time(10_001_000));
    assert_eq!(machine.next_event(), None);
    assert_eq!(machine.counts().invalidations, 1);
}

#[test]
fn nothing_lands_after_the_driver_is_gone_even_when_lazy() {
    for mode in [IommuMode::Lazy, IommuMode::Strict] {
        let (mut machine, id) = mastered(mode);
        let mapping = machine.map(id, pool(), 64, Both).unwrap();
        assert!(dma_write(&mut machine, id, mapping.iova, 64));
        machine.unmap_all(id);
        assert!(!dma_write(&mut machine, id, mapping.iova, 64), "{mode:?}");
        assert_eq!(machine.next_event(), None);
    }
}

#[test]
fn address_no_memory_answers_is_unbacked() {
    for mode in IommuMode::ALL {
        let (mut machine, id) = mastered(mode);
        for at in [MEMORY, 0x7000_0000, u64::MAX - 3, u64::MAX] {
            assert!(!dma_write(&mut machine, id, Iova(at), 8), "{at:#x}");
            let event = last_event(&machine);
            assert_eq!(event.verdict, Verdict::Unbacked);
            assert!(!event.landed());
        }
    }
}

#[test]
fn refused_read_brings_all_ones() {
    let (mut machine, id) = mastered(IommuMode::Strict);
    let mut bytes = [0; 8];
    let read = machine
        .complex
        .dma_read(id, Iova(0), &mut bytes, Purpose::Payload);
    assert_eq!(read, Err(DmaFault::Refused));
    assert_eq!(bytes, [0xff; 8]);
}

#[test]
fn device_without_bus_mastering_reaches_nothing() {
    let (mut machine, id) = machine(config(IommuMode::Off), &PIN);
    assert!(!dma_write(&mut machine, id, Iova(pool().0), 8));
    assert_eq!(byte(&machine, pool()), 0);
}

#[test]
fn flood_of_honest_dma_hides_no_stray() {
    let (mut machine, id) = mastered(IommuMode::Strict);
    let mapping = machine.map(id, pool(), 64, Both).unwrap();
    for _ in 0..5000 {
        assert!(dma_write(&mut machine, id, mapping.iova, 64));
    }
    assert!(!dma_write(&mut machine, id, Iova(0), 64));
    let (events, dropped) = machine.dma_events();
    assert_eq!((events.len(), dropped), (4096, 905));
    let (strays, dropped) = machine.stray_events();
    assert_eq!((strays.len(), dropped), (1, 0));
    assert_eq!(machine.counts().dma_requests, 5001);
    assert_eq!(machine.drain_events().len(), 4096);
    assert_eq!(machine.dma_events().0, []);
}

#[test]
fn mappings_outside_memory_or_of_nothing_are_refused() {
    let (mut machine, id) = mastered(IommuMode::Strict);
    assert_eq!(machine.map(id, pool(), 0, Both), Err(MachineError::Empty));
    for (at, len) in [(MEMORY - 1, 2), (MEMORY, 1), (u64::MAX, 1), (0, usize::MAX)] {
        let at = PhysAddr(at);
        let refused = machine.map(id, at, len, Both);
        assert_eq!(refused, Err(MachineError::OutsideMemory { at, len }));
    }
    let nobody = RequesterId::new(7, 0, 0);
    let refused = machine.map(nobody, pool(), 1, Both);
    assert_eq!(refused, Err(MachineError::NoSuchDevice(nobody)));
}

#[test]
fn mappings_are_bounded() {
    for mode in [IommuMode::Off, IommuMode::Strict] {
        let (mut machine, id) = mastered(mode);
        let mappings: Vec<_> = (0..LIVE_LIMIT)
            .map(|_| machine.map(id, pool(), 1, Both).unwrap())
            .collect();
        let refused = machine.map(id, pool(), 1, Both);
        assert_eq!(refused, Err(MachineError::TooManyMappings(id)));
        machine.unmap(id, mappings[17].id).unwrap();
        assert!(machine.map(id, pool(), 1, Both).is_ok());
    }
}

#[test]
fn window_that_is_used_up_is_told() {
    let (mut machine, id) = mastered(IommuMode::Strict);
    let all = usize::try_from(MEMORY).unwrap();
    let refused = loop {
        match machine.map(id, PhysAddr(0), all, Both) {
            Ok(_) => {}
            Err(refused) => break refused,
        }
    };
    assert_eq!(refused, MachineError::NoIova(512));
}

#[test]
fn mapping_of_another_requester_cannot_be_unmapped() {
    let (mut machine, id) = mastered(IommuMode::Strict);
    let other = machine.plug(Puppet::boxed(&PIN));
    let mapping = machine.map(id, pool(), 64, Both).unwrap();
    let refused = machine.unmap(other, mapping.id);
    let error = MachineError::NoSuchMapping {
        by: other,
        id: mapping.id,
    };
    assert_eq!(refused, Err(error));
    assert!(dma_write(&mut machine, id, mapping.iova, 64));
    assert_eq!(machine.unmap(id, mapping.id), Ok(()));
    assert!(machine.unmap(id, mapping.id).is_err());
}

// Reset.

#[test]
fn reset_restores_bars_and_takes_mastering_and_interrupts_away() {
    for identity in [&MSIX, &MUTE] {
        let (mut machine, id) = machine(Config::default(), identity);
        master(&mut machine, id);
        let _ = machine.enable_interrupts(id, 1);
        set(&mut machine, id, register::IOVA, 7);
        machine.reset(id);
        assert_eq!(get(&mut machine, id, register::RESETS), 1);
        assert_eq!(get(&mut machine, id, register::IOVA), 0);
        let bar = machine.config_read(id, spec::BARS[0], Width::Four);
        assert_eq!(bar, 0xc000_0000);
        let command = machine.config_read(id, spec::COMMAND, Width::Two);
        assert_eq!(command & u32::from(spec::command::BUS_MASTER), 0);
        master(&mut machine, id);
        set(&mut machine, id, register::RAISE, 0);
        assert!(machine.pending_interrupts(id).is_empty());
    }
}

#[test]
fn driver_that_resets_its_device_itself_finds_its_bars() {
    let (mut machine, id) = machine(Config::default(), &MSIX);
    let pcie = |port: &mut Port, _: &mut _| {
        find_capability(&mut port.function, spec::capability::PCIE).unwrap()
    };
    let at = machine.complex.lend(0, pcie).unwrap();
    let control = at + spec::pcie::DEVICE_CONTROL;
    let flr = spec::pcie::INITIATE_FLR;
    let [_, high] = flr.to_le_bytes();
    for (offset, width, value) in [
        (control, Width::Two, flr.into()),
        (control, Width::Four, flr.into()),
        (control + 1, Width::One, u32::from(high)),
    ] {
        let before = machine.counts().resets;
        machine.config_write(id, offset, width, value);
        assert_eq!(machine.counts().resets, before + 1, "{width:?}");
        let bar = machine.config_read(id, spec::BARS[0], Width::Four);
        assert_eq!(bar, 0xc000_0000);
    }
    for (offset, width, value) in [
        (control, Width::One, 0xff),
        (control + 2, Width::Two, 0xffff),
        (control + 1, Width::Two, 0xffff),
        (control - 4, Width::Eight, u32::MAX),
    ] {
        let before = get(&mut machine, id, register::RESETS);
        machine.config_write(id, offset, width, value);
        let after = get(&mut machine, id, register::RESETS);
        assert_eq!(after, before, "{offset:#x} {width:?}");
    }
}

#[test]
fn wakes_and_mappings_survive_a_reset() {
    let (mut machine, id) = mastered(IommuMode::Strict);
    let mapping = machine.map(id, pool(), 64, Both).unwrap();
    set(&mut machine, id, register::WAKE_AT, 500);
    machine.reset(id);
    // The step after the reset.
    machine.advance(Time(1));
    assert_eq!(machine.next_event(), Some(Time(500)));
    master(&mut machine, id);
    assert!(dma_write(&mut machine, id, mapping.iova, 64));
}

/// What driver and device do to memory.
#[derive(Clone, Debug)]
enum Act {
    Map {
        at: u64,
        len: usize,
    },
    Unmap {
        nth: prop::sample::Index,
    },
    /// Beside, in or across one of the mappings ever made.
    Dma {
        nth: prop::sample::Index,
        skew: i64,
        len: usize,
    },
    Wild {
        at: u64,
        len: usize,
    },
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let nth = any::<prop::sample::Index>;
    let act = prop_oneof![
        2 => (0..MEMORY - 9000, 1..9000_usize).prop_map(|(at, len)| Act::Map { at, len }),
        1 => nth().prop_map(|nth| Act::Unmap { nth }),
        4 => (nth(), -5000..5000_i64, 1..9000_usize)
            .prop_map(|(nth, skew, len)| Act::Dma { nth, skew, len }),
        1 => (prop_oneof![0..MEMORY, any::<u64>()], 1..9000_usize)
            .prop_map(|(at, len)| Act::Wild { at, len }),
    ];
    prop::collection::vec(act, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Seen from memory: not one byte changes outside the pages that are mapped at that moment,
    /// and what the ledger sanctions always lands.
    #[test]
    fn strict_dma_changes_bytes_of_mapped_pages_only(acts in acts()) {
        let (mut machine, id) = mastered(IommuMode::Strict);
        let mut mappings: Vec<(PhysAddr, usize, Option<Mapping>)> = Vec::new();
        let mut known: Vec<(Iova, usize)> = Vec::new();
        for (mark, act) in (1_u8..).zip(acts) {
            let (at, len) = match act {
                Act::Map { at, len } => {
                    let at = PhysAddr(at);
                    let mapping = machine.map(id, at, len, Both).unwrap();
                    known.push((mapping.iova, len));
                    mappings.push((at, len, Some(mapping)));
                    continue;
                }
                Act::Unmap { nth } => {
                    if !mappings.is_empty() {
                        let nth = nth.index(mappings.len());
                        if let Some(mapping) = mappings[nth].2.take() {
                            machine.unmap(id, mapping.id).unwrap();
                        }
                    }
                    continue;
                }
                Act::Dma { nth, skew, len } => {
                    if known.is_empty() {
                        continue;
                    }
                    let (iova, _) = known[nth.index(known.len())];
                    (Iova(iova.0.wrapping_add_signed(skew)), len)
                }
                Act::Wild { at, len } => (Iova(at), len),
            };
            let all = usize::try_from(MEMORY).unwrap();
            let mut before = vec![0; all];
            machine.memory().read(PhysAddr(0), &mut before).unwrap();
            // Nobody wrote that value before.
            let marked = vec![mark; len];
            let done = machine.complex.dma_write(id, at, &marked, Purpose::Payload);
            let event = last_event(&machine);
            if event.verdict.is_sanctioned() {
                prop_assert_eq!(done, Ok(()));
            }
            let mut after = vec![0; all];
            machine.memory().read(PhysAddr(0), &mut after).unwrap();
            let mapped = |frame: u64| mappings.iter().any(|(at, len, live)| {
                let pages = pages_of(&(at.0..at.0 + *len as u64));
                live.is_some() && pages.contains(&frame)
            });
            let frames = before.chunks(4096).zip(after.chunks(4096));
            for (frame, (before, after)) in (0..).zip(frames) {
                prop_assert!(before == after || mapped(frame), "frame {} changed", frame);
            }
            prop_assert!(!event.stale);
        }
    }
}

#[test]
fn recording_keeps_what_devices_did_and_nothing_before_it_was_asked_for() {
    let (mut machine, id) = mastered(IommuMode::Strict);
    let mapping = machine.map(id, pool(), 4096, Both).unwrap();
    assert!(dma_write(&mut machine, id, mapping.iova, 4));
    assert_eq!(machine.take_recorded(), (Vec::new(), 0));

    machine.record();
    assert!(!dma_write(&mut machine, id, Iova(pool().0), 4));
    set(&mut machine, id, register::IOVA, mapping.iova.0);
    set(&mut machine, id, register::LEN, 7);
    set(&mut machine, id, register::WORD, 1);
    machine.enable_interrupts(id, 1).unwrap();
    set(&mut machine, id, register::RAISE, 0);

    let (events, dropped) = machine.take_recorded();
    assert_eq!(dropped, 0);
    let [blocked, published, message] = &events[..] else {
        panic!("{events:?}");
    };
    assert!(matches!(
        blocked,
        BusEvent::Dma { bytes, refusal: Some(Refusal::NotMapped), .. } if bytes.is_empty()
    ));
    assert!(matches!(
        published,
        BusEvent::Dma { bytes, path: Some(Path::Mapped), refusal: None, .. } if *bytes == [7, 0, 0, 0]
    ));
    assert!(matches!(
        message,
        BusEvent::Message { by, became: Delivery::Own, .. } if *by == id
    ));
    assert_eq!(machine.take_recorded(), (Vec::new(), 0));
}
