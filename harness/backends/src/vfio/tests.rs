//! The backend over a kernel that is played here: QEMU's edu behind an IOMMU that can be made to
//! leak, and calls that can be made to fail.

use super::*;
use crate::conformance;
use crate::vfio::platform::Platform;
use cofferdam_machine::Verdict;
use cofferdam_seam::{
    Bar, Deadline, Direction, DmaRegion, DriverHost, HostError, InterruptKind, Iova, Mmio, RawDma,
    Time, Vector, VectorSet, Wake, Width,
};
use driver_edu::Edu;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;
use vmm_sys_util::eventfd::EventFd;

const PAGE: u64 = 4096;

/// The kernel's side, shared with the test.
#[derive(Default)]
struct World {
    config: BTreeMap<u64, u8>,
    /// Calls of these names fail.
    failing: Vec<&'static str>,
    calls: Vec<String>,
    maps: BTreeMap<u64, (Rc<Mapped>, Range<usize>, Direction)>,
    /// Translations outlive their mappings, and directions are not looked at.
    leaky: bool,
    /// Vectors of MSI-X, MSI and INTx.
    vectors: [u16; 3],
    events: Vec<EventFd>,
    enabled: Option<InterruptKind>,
    /// BAR 0 can be mapped.
    mappable: bool,
    /// DMA commands the device obeys; it ignores later ones.
    obeys: Option<u32>,
    edu: Registers,
}

#[derive(Default)]
struct Registers {
    liveness: u32,
    factorial: u32,
    status: u32,
    raised: u32,
    dma: [u64; 4],
    buffer: Vec<u8>,
}

impl World {
    fn edu() -> Rc<RefCell<Self>> {
        let mut config: BTreeMap<u64, u8> = (0..256).map(|at| (at, 0)).collect();
        config.extend((0..).zip([0x34, 0x12, 0xe8, 0x11]));
        let edu = Registers {
            buffer: vec![0; 4096],
            ..Registers::default()
        };
        Rc::new(RefCell::new(Self {
            config,
            vectors: [0, 1, 1],
            edu,
            ..Self::default()
        }))
    }

    fn call(&mut self, name: &'static str) -> io::Result<()> {
        self.calls.push(name.to_owned());
        if self.failing.contains(&name) {
            return Err(io::Error::from_raw_os_error(nix::libc::EIO));
        }
        Ok(())
    }

    fn made(&self, name: &str) -> usize {
        self.calls.iter().filter(|call| *call == name).count()
    }

    fn raise(&mut self, reason: u32) {
        self.edu.raised |= reason;
        if let Some(event) = self.events.first() {
            event.write(1).unwrap();
        }
    }

    fn read_register(&self, at: u64) -> u64 {
        let edu = &self.edu;
        match at {
            0x00 => 0x0100_00ed,
            0x04 => (!edu.liveness).into(),
            0x08 => edu.factorial.into(),
            0x20 => edu.status.into(),
            0x24 => edu.raised.into(),
            _ => 0,
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "registers of 32 bits")]
    fn write_register(&mut self, at: u64, value: u64) {
        match at {
            0x04 => self.edu.liveness = value as u32,
            0x08 => {
                self.edu.factorial = (1..=value as u32).fold(1, u32::wrapping_mul);
                if self.edu.status & 0x80 != 0 {
                    self.raise(1);
                }
            }
            0x20 => self.edu.status = value as u32,
            0x64 => self.edu.raised &= !(value as u32),
            0x80 | 0x88 | 0x90 => self.edu.dma[index(at - 0x80) / 8] = value,
            0x98 if self.obeys == Some(0) => {}
            0x98 => {
                self.obeys = self.obeys.map(|left| left - 1);
                self.copy(value & 2 != 0);
                self.raise(0x100);
            }
            _ => {}
        }
    }

    /// A DMA, byte by byte through the IOMMU.
    fn copy(&mut self, to_ram: bool) {
        if self.config[&4] & 4 == 0 {
            return;
        }
        let [source, destination, count, _] = self.edu.dma;
        for nth in 0..count {
            if to_ram {
                let byte = self.edu.buffer[index(source - 0x4_0000 + nth)];
                if let Some((memory, at)) = self.translate(destination + nth, true) {
                    memory.write(at, &[byte]);
                }
            } else {
                let mut byte = [0];
                if let Some((memory, at)) = self.translate(source + nth, false) {
                    memory.read(at, &mut byte);
                }
                self.edu.buffer[index(destination - 0x4_0000 + nth)] = byte[0];
            }
        }
    }

    fn translate(&self, at: u64, write: bool) -> Option<(&Mapped, usize)> {
        let (first, (memory, pages, way)) = self.maps.range(..=at).next_back()?;
        let offset = pages.start + index(at - first);
        let allowed = self.leaky
            || if write {
                way.device_writes()
            } else {
                way.device_reads()
            };
        (allowed && pages.contains(&offset)).then_some((memory, offset))
    }
}

fn index(at: u64) -> usize {
    usize::try_from(at).unwrap()
}

struct Played(Rc<RefCell<World>>);

impl Kernel for Played {
    fn door(&self) -> Door {
        Door::Group
    }

    fn size(&self, region: Region) -> u64 {
        match region {
            Region::Bar(Bar::ZERO) => 0x10_0000,
            Region::Bar(_) => 0,
            Region::Config => 256,
        }
    }

    fn read(&self, region: Region, at: u64, into: &mut [u8]) -> io::Result<()> {
        let mut world = self.0.borrow_mut();
        if let Region::Bar(_) = region {
            world.call("read a register")?;
            let bytes = world.read_register(at).to_le_bytes();
            into.copy_from_slice(&bytes[..into.len()]);
        } else {
            world.call("read configuration space")?;
            for (at, byte) in (at..).zip(into) {
                *byte = world.config[&at];
            }
        }
        Ok(())
    }

    fn write(&self, region: Region, at: u64, from: &[u8]) -> io::Result<()> {
        let mut world = self.0.borrow_mut();
        if let Region::Bar(_) = region {
            world.call("write a register")?;
            let mut value = [0; 8];
            value[..from.len()].copy_from_slice(from);
            world.write_register(at, u64::from_le_bytes(value));
        } else {
            world.call("write configuration space")?;
            world.config.extend((at..).zip(from.iter().copied()));
        }
        Ok(())
    }

    fn map_bar(&self, _: Bar) -> io::Result<Vec<Area>> {
        let mut world = self.0.borrow_mut();
        world.call("map a BAR")?;
        if !world.mappable {
            return Ok(Vec::new());
        }
        let bytes = Mapped::anonymous(8192)?;
        bytes.write(0, &[0x11; 4]);
        bytes.write(4096, &[0x22; 4]);
        // The page between is the kernel's.
        let first = Area { offset: 0, bytes };
        let bytes = Mapped::anonymous(4096)?;
        bytes.write(0, &[0x33; 4]);
        let last = Area {
            offset: 0x3000,
            bytes,
        };
        Ok(vec![first, last])
    }

    fn vectors(&self, kind: InterruptKind) -> u16 {
        let [msix, msi, intx] = self.0.borrow().vectors;
        match kind {
            InterruptKind::Msix => msix,
            InterruptKind::Msi => msi,
            InterruptKind::Intx => intx,
        }
    }

    fn enable(&self, kind: InterruptKind, events: &[EventFd]) -> io::Result<()> {
        let mut world = self.0.borrow_mut();
        if events.len() > 1 {
            world.call("enable many")?;
        }
        world.call(match kind {
            InterruptKind::Msix => "enable MSI-X",
            InterruptKind::Msi => "enable MSI",
            InterruptKind::Intx => "enable INTx",
        })?;
        let clones = events.iter().map(|event| event.try_clone());
        world.events = clones.collect::<Result<_, _>>()?;
        world.enabled = Some(kind);
        Ok(())
    }

    fn disable(&self, _: InterruptKind) -> io::Result<()> {
        let mut world = self.0.borrow_mut();
        world.enabled = None;
        world.call("disable")
    }

    fn unmask_intx(&self) -> io::Result<()> {
        self.0.borrow_mut().call("unmask")
    }

    fn map_dma(
        &self,
        at: Iova,
        memory: &Rc<Mapped>,
        pages: Range<usize>,
        way: Direction,
    ) -> io::Result<()> {
        assert!(at.0.is_multiple_of(PAGE) && pages.start.is_multiple_of(4096));
        assert!(pages.len().is_multiple_of(4096) && pages.end <= memory.len());
        let mut world = self.0.borrow_mut();
        world.call("map")?;
        world.maps.insert(at.0, (Rc::clone(memory), pages, way));
        Ok(())
    }

    fn unmap_dma(&self, at: Iova, len: usize) -> io::Result<()> {
        let mut world = self.0.borrow_mut();
        world.call("unmap")?;
        assert_eq!(world.maps[&at.0].1.len(), len);
        if !world.leaky {
            world.maps.remove(&at.0);
        }
        Ok(())
    }

    fn reset(&self) -> io::Result<bool> {
        let mut world = self.0.borrow_mut();
        world.call("reset")?;
        world.config.insert(4, 0);
        Ok(true)
    }
}

impl Drop for Played {
    fn drop(&mut self) {
        let mut world = self.0.borrow_mut();
        world.calls.push("close".to_owned());
        world.config.insert(4, 0);
    }
}

fn device(world: &Rc<RefCell<World>>) -> VfioDevice {
    with(world, &Options::default())
}

fn with(world: &Rc<RefCell<World>>, options: &Options) -> VfioDevice {
    VfioDevice::over(Box::new(Played(Rc::clone(world))), &[], options)
}

fn soon(host: &VfioHost) -> Deadline {
    Deadline::after(host.now(), Duration::from_millis(5))
}

#[test]
fn driver_passes_its_suite() {
    let world = World::edu();
    let device = device(&world);
    let mut driver = Edu::probe(device.host()).unwrap();
    conformance::compute(&mut driver, || device.now());
    drop(driver);
    assert_eq!(device.mappings(), 0);
    assert_eq!(device.failure(), None);
    assert!(world.borrow().maps.is_empty());
    assert!(world.borrow().made("map") > 10);
}

#[test]
fn access_outside_or_misaligned_never_reaches_the_kernel() {
    let world = World::edu();
    let device = device(&world);
    let registers = device.host().map_bar(Bar::ZERO).unwrap();
    assert_eq!(registers.len(), 0x10_0000);
    assert_eq!(registers.read(0x10_0000, Width::One), 0xff);
    assert_eq!(registers.read(2, Width::Four), 0xffff_ffff);
    registers.write(u32::MAX, Width::Eight, 0);
    assert_eq!(world.borrow().made("read a register"), 0);
    assert_eq!(world.borrow().made("write a register"), 0);
    assert_eq!(
        device.host().map_bar(Bar::new(1).unwrap()).unwrap_err(),
        HostError::NoSuchBar(1)
    );
}

#[test]
fn failed_register_access_is_told_by_the_next_call() {
    for (call, what) in [
        ("read a register", "read a register"),
        ("write a register", "write a register"),
    ] {
        let world = World::edu();
        let device = device(&world);
        let mut host = device.host();
        let registers = host.map_bar(Bar::ZERO).unwrap();
        world.borrow_mut().failing.push(call);
        registers.write32(0, 0);
        let read = registers.read32(0);
        assert_eq!(read == u32::MAX, call == "read a register");
        let code = nix::libc::EIO.unsigned_abs();
        assert_eq!(host.relax(), Err(HostError::Infrastructure(code)));
        assert_eq!(device.failure().unwrap().what, what);
    }
}

#[test]
fn mapped_parts_of_a_bar_are_accessed_directly_and_the_rest_by_calls() {
    let world = World::edu();
    world.borrow_mut().mappable = true;
    let device = device(&world);
    let registers = device.host().map_bar(Bar::ZERO).unwrap();
    assert_eq!(registers.read32(0), 0x1111_1111);
    assert_eq!(registers.read16(0x1002), 0x2222);
    assert_eq!(registers.read32(0x3000), 0x3333_3333);
    assert_eq!(world.borrow().made("read a register"), 0);
    registers.read32(0x2000);
    registers.read32(0x4000);
    assert_eq!(world.borrow().made("read a register"), 2);
}

#[test]
fn device_that_does_not_decode_is_left_alone() {
    let world = World::edu();
    world.borrow_mut().mappable = true;
    let device = device(&world);
    let mut host = device.host();
    let registers = host.map_bar(Bar::ZERO).unwrap();
    assert_eq!(registers.read32(0), 0x1111_1111);
    host.config_write(4, Width::Two, 0).unwrap();
    // The kernel would answer with a signal.
    assert_eq!(registers.read32(0), u32::MAX);
    host.config_write(4, Width::Two, 2).unwrap();
    assert_eq!(registers.read32(0), 0x1111_1111);
    device.reset().unwrap();
    assert_eq!(registers.read32(0), u32::MAX);
}

#[test]
fn device_put_to_sleep_is_left_alone() {
    let world = World::edu();
    {
        let mut world = world.borrow_mut();
        world.mappable = true;
        // A list of vendor-specific and power management, which leads back to its start.
        let list = [(6, 0x10), (0x34, 0x40), (0x40, 9), (0x41, 0x50), (0x50, 1)];
        world.config.extend(list);
        world.config.insert(0x51, 0x40);
    }
    let device = device(&world);
    let mut host = device.host();
    let registers = host.map_bar(Bar::ZERO).unwrap();
    assert_eq!(registers.read32(0), 0x1111_1111);
    host.config_write(0x54, Width::Two, 3).unwrap();
    assert_eq!(registers.read32(0), u32::MAX);
    host.config_write(0x54, Width::Two, 0).unwrap();
    assert_eq!(registers.read32(0), 0x1111_1111);
}

#[test]
fn capability_list_that_goes_round_ends() {
    let world = World::edu();
    let list = [(6, 0x10), (0x34, 0x40), (0x40, 9), (0x41, 0x40)];
    world.borrow_mut().config.extend(list);
    let device = device(&world);
    assert!(device.host().map_bar(Bar::ZERO).is_ok());
}

#[test]
fn configuration_accesses_are_checked() {
    let world = World::edu();
    let device = device(&world);
    let mut host = device.host();
    assert_eq!(host.config_read(0, Width::Four), Ok(0x11e8_1234));
    assert_eq!(host.config_read(2, Width::Four), Ok(u32::MAX));
    assert_eq!(host.config_read(0x100, Width::One), Ok(0xff));
    assert_eq!(host.config_read(0, Width::Eight), Ok(u32::MAX));
    let before = world.borrow().calls.len();
    host.config_write(0xffff, Width::Two, 1).unwrap();
    assert_eq!(world.borrow().calls.len(), before);
}

#[test]
fn each_mapping_has_pages_of_its_own_and_its_direction() {
    let world = World::edu();
    let device = device(&world);
    let mut host = device.host();
    let region = host.alloc_dma(8192).unwrap();
    let out = host.map(&region, 16..32, Direction::ToDevice).unwrap();
    let back = host.map(&region, 32..4097, Direction::FromDevice).unwrap();
    assert_eq!(out.iova.0 % PAGE, 16);
    assert_eq!(back.iova.0 % PAGE, 32);
    // A page lies between that is never mapped.
    assert_eq!(back.iova.0 / PAGE - out.iova.0 / PAGE, 2);
    assert_eq!(device.judge(out.iova, 16, false), Verdict::Sanctioned);
    assert_eq!(device.judge(out.iova, 16, true), Verdict::WrongDirection);
    assert_eq!(device.judge(out.iova, 17, false), Verdict::OutOfBounds);
    let (_, pages, way) = world.borrow().maps[&(out.iova.0 & !0xfff)].clone();
    assert_eq!((pages, way), (0..4096, Direction::ToDevice));
    let (_, pages, way) = world.borrow().maps[&(back.iova.0 & !0xfff)].clone();
    assert_eq!((pages, way), (0..8192, Direction::FromDevice));

    let at = out.iova;
    host.unmap(out);
    assert!(matches!(
        device.judge(at, 16, false),
        Verdict::UseAfterUnmap { .. }
    ));
    // What is not in a driver's address space is nobody's memory there.
    assert_eq!(device.judge(Iova(0), 16, false), Verdict::Unbacked);
    drop(region);
    assert!(world.borrow().maps.is_empty());
    assert_eq!(device.mappings(), 0);
    drop(back);
}

#[test]
fn bad_mappings_are_refused() {
    let world = World::edu();
    let one = device(&world);
    let other = with(&world, &Options::default());
    let mut host = one.host();
    let region = host.alloc_dma(100).unwrap();
    assert_eq!((region.len(), region.is_empty()), (100, false));
    let way = Direction::Both;
    let backwards = Range { start: 2, end: 1 };
    assert!(matches!(
        host.map(&region, backwards, way),
        Err(HostError::OutOfRegion { .. })
    ));
    assert!(matches!(
        host.map(&region, 0..101, way),
        Err(HostError::OutOfRegion { .. })
    ));
    assert_eq!(host.map(&region, 5..5, way), Err(HostError::Refused));
    let foreign = other.host().alloc_dma(100).unwrap();
    assert_eq!(host.map(&foreign, 0..100, way), Err(HostError::Refused));
    assert!(matches!(
        host.alloc_dma(usize::MAX),
        Err(HostError::OutOfMemory(usize::MAX))
    ));
    world.borrow_mut().failing.push("map");
    assert_eq!(host.map(&region, 0..100, way), Err(HostError::Refused));
    // It is the driver's problem: the host goes on.
    world.borrow_mut().failing.clear();
    assert!(host.map(&region, 0..100, way).is_ok());
    assert_eq!(one.failure(), None);
}

#[test]
fn mapping_that_cannot_be_taken_down_ends_the_host() {
    let world = World::edu();
    let device = device(&world);
    let mut host = device.host();
    let region = host.alloc_dma(4096).unwrap();
    let stuck = host.map(&region, 0..4096, Direction::Both).unwrap();
    world.borrow_mut().failing.push("unmap");
    host.unmap(stuck);
    assert_eq!(device.failure().unwrap().what, "take a mapping down");
    assert!(matches!(host.relax(), Err(HostError::Infrastructure(_))));
    assert_eq!(world.borrow().maps.len(), 1);
}

#[test]
fn memory_is_copied_within_its_bounds() {
    let world = World::edu();
    let device = device(&world);
    let mut host = device.host();
    let region = host.alloc_dma(10).unwrap();
    region.write_at(8, &[1, 2, 3, 4]);
    let mut read = [9; 4];
    region.read_at(8, &mut read);
    assert_eq!(read, [1, 2, 0, 0]);
    let mut slack = [9; 2];
    region.read_at(usize::MAX, &mut slack);
    assert_eq!(slack, [0; 2]);
    let pointer = host.pointer(&region);
    assert!(pointer.as_ptr().addr().is_multiple_of(4096));
}

#[test]
fn wait_ends_by_interrupt_or_deadline() {
    let world = World::edu();
    world.borrow_mut().vectors = [3, 1, 1];
    let device = device(&world);
    let mut host = device.host();
    let given = host.enable_interrupts(2).unwrap();
    assert_eq!((given.kind, given.count), (InterruptKind::Msix, 2));
    let [zero, one] = [Vector(0), Vector(1)];

    let until = soon(&host);
    assert_eq!(host.wait_any(&[zero, one], until), Ok(Wake::TimedOut));
    assert!(until.passed(host.now()));

    world.borrow().events[1].write(3).unwrap();
    let until = soon(&host);
    assert_eq!(host.wait_any(&[zero], until), Ok(Wake::TimedOut));
    let raised = Wake::Interrupt(VectorSet::of(one));
    let until = soon(&host);
    assert_eq!(host.wait_any(&[one, one, zero], until), Ok(raised));
    // A vector that was not given is never raised.
    let until = soon(&host);
    assert_eq!(host.wait_any(&[Vector(2)], until), Ok(Wake::TimedOut));
}

#[test]
fn wait_without_end_ends_at_the_horizon() {
    let world = World::edu();
    let options = Options {
        horizon: Duration::from_millis(20),
        ..Options::default()
    };
    let device = with(&world, &options);
    let mut host = device.host();
    let stopped = host.wait_any(&[Vector(0)], Deadline(Time::NEVER));
    assert_eq!(stopped, Err(HostError::Stopped));
    assert_eq!(host.relax(), Err(HostError::Stopped));
}

#[test]
fn interrupts_fall_back_to_what_works() {
    for (vectors, failing, kind, count) in [
        ([8, 4, 1], vec![], InterruptKind::Msix, 4),
        ([8, 4, 1], vec!["enable many"], InterruptKind::Msix, 1),
        ([8, 4, 1], vec!["enable MSI-X"], InterruptKind::Msi, 4),
        ([0, 2, 1], vec![], InterruptKind::Msi, 2),
        ([0, 0, 1], vec![], InterruptKind::Intx, 1),
    ] {
        let world = World::edu();
        world.borrow_mut().vectors = vectors;
        world.borrow_mut().failing = failing;
        let given = device(&world).host().enable_interrupts(4).unwrap();
        assert_eq!((given.kind, given.count), (kind, count));
    }
    let world = World::edu();
    world.borrow_mut().vectors = [0; 3];
    let none = device(&world).host().enable_interrupts(1);
    assert_eq!(none, Err(HostError::NoVectors(1)));
}

#[test]
fn second_driver_gets_interrupts_of_its_own() {
    let world = World::edu();
    let device = device(&world);
    let mut first = device.host();
    first.enable_interrupts(1).unwrap();
    world.borrow().events[0].write(1).unwrap();
    let mut second = device.host();
    second.enable_interrupts(1).unwrap();
    assert_eq!(world.borrow().made("disable"), 1);
    let until = soon(&second);
    assert_eq!(second.wait_any(&[Vector(0)], until), Ok(Wake::TimedOut));
}

#[test]
fn pin_is_unmasked_when_the_driver_waits_again() {
    let world = World::edu();
    world.borrow_mut().vectors = [0, 0, 1];
    let device = device(&world);
    let mut host = device.host();
    host.enable_interrupts(1).unwrap();
    let pin = Vector(0);
    world.borrow().events[0].write(1).unwrap();
    let until = soon(&host);
    let raised = Wake::Interrupt(VectorSet::of(pin));
    assert_eq!(host.wait_any(&[pin], until), Ok(raised));
    assert_eq!(world.borrow().made("unmask"), 0);
    let until = soon(&host);
    assert_eq!(host.wait_any(&[pin], until), Ok(Wake::TimedOut));
    assert_eq!(world.borrow().made("unmask"), 1);
}

#[test]
fn closed_device_is_gone_but_its_memory_stays() {
    let world = World::edu();
    let device = device(&world);
    let mut host = device.host();
    let registers = host.map_bar(Bar::ZERO).unwrap();
    let region = host.alloc_dma(16).unwrap();
    let mapping = host.map(&region, 0..16, Direction::Both).unwrap();
    region.write_at(0, &[7]);

    device.close();

    assert_eq!(world.borrow().made("close"), 1);
    assert_eq!(registers.read32(0), u32::MAX);
    assert_eq!(host.relax(), Err(HostError::Stopped));
    assert_eq!(host.set_bus_master(false), Err(HostError::Stopped));
    let mut byte = [0];
    region.read_at(0, &mut byte);
    assert_eq!(byte, [7]);
    assert_eq!(device.mappings(), 0);
    host.unmap(mapping);
    assert_eq!(device.failure(), None);
}

/// A run on an edu behind a good or a leaky IOMMU, without a kernel's log.
fn report(fault: Option<Fault>, leaky: bool) -> (Report, Rc<RefCell<World>>) {
    let world = World::edu();
    world.borrow_mut().leaky = leaky;
    let nowhere = tempfile::tempdir().unwrap();
    let platform = Platform::at(nowhere.path());
    let address = "0000:00:01.0".parse().unwrap();
    let open = || Ok(device(&world));
    let workload = Workload::default();
    let report = run(&platform, address, fault, &workload, open, Edu::probe).unwrap();
    (report, world)
}

#[test]
fn run_without_a_fault_is_clean() {
    let (report, _) = report(None, false);
    assert_eq!(report.outcome, Outcome::Clean);
    assert_eq!(report.door, Door::Group);
    assert_eq!((report.right, report.wrong), (3, 0));
    assert!(!report.is_finding());
    assert!(report.no_log.is_some());
}

#[test]
fn good_iommu_blocks_what_goes_astray() {
    for (fault, verdict) in [
        (Fault::D4, "out of bounds"),
        (Fault::D6, "use after unmap"),
        (Fault::D8, "wrong direction"),
    ] {
        let (report, _) = report(Some(fault), false);
        assert_eq!(report.outcome, Outcome::Blocked, "{fault:?}");
        assert_eq!(report.bytes_landed, Some(0), "{fault:?}");
        assert_eq!(report.wall, Some(Wall::Unrecorded), "{fault:?}");
        assert!(report.verdict.unwrap().starts_with(verdict), "{fault:?}");
        // The device did act on it: the driver got other bytes than it should.
        assert_eq!((report.right, report.wrong), (6, 1), "{fault:?}");
        assert_eq!(report.recovered, Some(true), "{fault:?}");
    }
}

#[test]
fn leaky_iommu_is_found_out() {
    for fault in [Fault::D6, Fault::D8] {
        let (report, _) = report(Some(fault), true);
        assert_eq!(report.outcome, Outcome::Landed, "{fault:?}");
        assert!(report.bytes_landed > Some(4000), "{fault:?}");
        assert!(report.is_finding(), "{fault:?}");
    }
}

#[test]
fn overrun_on_the_same_page_lands_behind_any_iommu() {
    let (report, _) = report(Some(Fault::D4InPage), false);
    assert_eq!(report.outcome, Outcome::Landed);
    assert_eq!(report.bytes_landed, Some(63));
    assert!(!report.is_finding());
}

#[test]
fn device_of_a_dead_driver_is_closed_and_opened_again() {
    let (report, world) = report(Some(Fault::D12), false);
    assert_eq!(report.errors, ["the machine stopped"]);
    assert_eq!(report.recovered, Some(true));
    // Ours is done with the second one too.
    assert_eq!(world.borrow().made("close"), 2);
}

#[test]
fn device_that_ignores_the_faulty_request_proves_nothing() {
    let world = World::edu();
    // Two transfers of each of three requests, and the way out of the fourth.
    world.borrow_mut().obeys = Some(7);
    let nowhere = tempfile::tempdir().unwrap();
    let workload = Workload {
        patience: Duration::from_millis(50),
        ..Workload::default()
    };
    let report = run(
        &Platform::at(nowhere.path()),
        "00:01.0".parse().unwrap(),
        Some(Fault::D8),
        &workload,
        || Ok(device(&world)),
        Edu::probe,
    )
    .unwrap();
    assert_eq!(report.outcome, Outcome::Unclear);
    assert_eq!((report.wall, report.right), (None, 3));
    assert!(report.is_finding());
}

#[test]
fn fault_that_does_not_strike_proves_nothing() {
    let world = World::edu();
    world.borrow_mut().failing.push("map a BAR");
    let nowhere = tempfile::tempdir().unwrap();
    let platform = Platform::at(nowhere.path());
    let report = run(
        &platform,
        "00:01.0".parse().unwrap(),
        Some(Fault::D8),
        &Workload::default(),
        || Ok(device(&world)),
        Edu::probe,
    )
    .unwrap();
    assert_eq!(report.outcome, Outcome::NotActivated);
    assert!(report.is_finding());
    assert!(report.failure.unwrap().contains("map a BAR"));
}
