//! Drivers in a guest, over machines in this process. Without KVM the tests say so and pass; in CI that
//! would be a failure, if CI had it.

use cofferdam_backends::conformance;
use cofferdam_backends::mock::MockMachine;
use cofferdam_machine::config::Config;
use cofferdam_machine::frames::{FRAME, Owner, Run, Use, run_of};
use cofferdam_machine::{Machine, Memory, PhysAddr};
use cofferdam_microvm::{Call, CallError, Death, Driver, Kvm, MicroVm, Nowhere, VmDriver, Window};
use cofferdam_seam::service::{Block, DriverError};
use cofferdam_seam::{Deadline, Device, RequesterId};
use std::time::Duration;
use vdevice_nvme::NvmeConfig;
use vdevice_virtio::BlkConfig;

/// A machine in this process, its device, and this host's KVM.
struct Bench {
    kvm: Kvm,
    machine: MockMachine,
    device: RequesterId,
}

impl Bench {
    /// None, and a line that says why, where there is no KVM.
    fn with(device: Box<dyn Device>) -> Option<Self> {
        let kvm = match Kvm::open() {
            Ok(kvm) => kvm,
            Err(unavailable) => {
                println!("SKIPPED: {unavailable}");
                return None;
            }
        };
        let memory = Memory::private().expect("2 MiB of memory");
        memory.fill_pattern();
        let mut machine = Machine::new(Config::default(), memory);
        let device = machine.plug(device);
        Some(Self {
            kvm,
            machine: MockMachine::new(machine),
            device,
        })
    }

    /// The driver's DMA memory: all that a guest is given.
    fn window(&self) -> Window {
        self.window_of(dma_pool())
    }

    fn window_of(&self, run: &Run) -> Window {
        let at = run.first * FRAME;
        Window {
            at,
            host: self.machine.machine().memory().pointer(PhysAddr(at)),
            len: run.count * FRAME,
        }
    }

    fn boot(&self) -> MicroVm {
        // SAFETY: the machine outlives the guest, and its memory is one a device writes at any time.
        unsafe { MicroVm::boot(&self.kvm, &[self.window()]) }.expect("KVM makes a guest")
    }

    fn probe(
        &self,
        driver: Driver,
    ) -> Result<VmDriver<cofferdam_backends::mock::MockHost>, CallError> {
        let mut vm = self.boot();
        // A test that wants a guest to run out of time says so; on a busy host others take long.
        vm.set_patience(Duration::from_secs(60));
        VmDriver::probe_in(vm, self.machine.host(self.device), driver)
    }

    fn soon(&self) -> Deadline {
        Deadline::after(self.machine.now(), Duration::from_millis(10))
    }
}

fn dma_pool() -> &'static Run {
    run_of(Owner::Driver, Use::DmaPool).expect("the driver has DMA memory")
}

fn edu() -> Box<dyn Device> {
    Box::new(vdevice_edu::Edu::new(vdevice_edu::EduTiming::default()))
}

fn nvme() -> Box<dyn Device> {
    Box::new(vdevice_nvme::Nvme::new(NvmeConfig {
        blocks: 128,
        ..NvmeConfig::default()
    }))
}

fn virtio() -> Box<dyn Device> {
    Box::new(vdevice_virtio::VirtioBlk::new(BlkConfig {
        sectors: 64,
        latency: Duration::from_micros(20),
        seed: 1,
        indirect: true,
    }))
}

#[test]
fn edu_conforms_in_a_guest() {
    let Some(bench) = Bench::with(edu()) else {
        return;
    };
    let mut driver = bench.probe(Driver::Edu).expect("an honest device");

    conformance::compute(&mut driver, || bench.machine.now());

    let counts = driver.vm().counts();
    assert!(
        counts.interrupts > 10 && counts.registers > counts.interrupts,
        "{counts:?}"
    );
    assert_eq!(driver.vm().taken(), counts.interrupts);
    assert_eq!(bench.machine.machine().memory().corruption(), []);
}

#[test]
fn nvme_conforms_in_a_guest() {
    let Some(bench) = Bench::with(nvme()) else {
        return;
    };
    let mut driver = bench.probe(Driver::Nvme).expect("an honest device");

    conformance::block(&mut driver, || bench.machine.now());

    assert!(driver.vm().counts().interrupts >= 600);
    assert_eq!(bench.machine.machine().memory().corruption(), []);
}

#[test]
fn virtio_drivers_conforms_in_a_guest_by_its_own_pci_transport() {
    let Some(bench) = Bench::with(virtio()) else {
        return;
    };
    let mut driver = bench.probe(Driver::VirtioBlk).expect("an honest device");

    conformance::block(&mut driver, || bench.machine.now());

    assert_eq!(bench.machine.machine().memory().corruption(), []);
}

#[test]
fn another_device_is_refused_with_the_drivers_reason() {
    let Some(bench) = Bench::with(nvme()) else {
        return;
    };
    let error = bench.probe(Driver::Edu).err().expect("not an edu device");
    let CallError::Driver(DriverError::Unsupported(reason)) = error else {
        panic!("{error:?}");
    };
    assert!(!reason.is_empty());
}

#[test]
fn panic_arrives_with_message_and_location() {
    let Some(bench) = Bench::with(edu()) else {
        return;
    };
    let mut driver = bench.probe(Driver::Edu).expect("an honest device");

    let error = driver.call(Call::Crash, &[]).expect_err("it panics");

    let text = error.to_string();
    assert!(
        text.contains("planned death") && text.contains("main.rs:"),
        "{text}"
    );
    assert!(driver.death().is_some());
    let after = driver
        .call(Call::Nop, &[])
        .expect_err("the dead do not answer");
    assert_eq!(after.to_string(), text);
}

#[test]
fn stack_overflow_and_heap_exhaustion_are_outcomes() {
    let Some(bench) = Bench::with(edu()) else {
        return;
    };
    let mut deep = bench.probe(Driver::Edu).expect("an honest device");
    assert!(deep.call(Call::Overflow, &[4]).is_ok());
    let error = deep
        .call(Call::Overflow, &[100])
        .expect_err("no such stack");
    assert!(
        matches!(&error, CallError::Died(Death::Exception { vector: 14, address, .. })
            if (0x5f_0000..0x60_0000).contains(address)),
        "{error:?}"
    );

    drop(deep);
    let mut greedy = bench.probe(Driver::Edu).expect("an honest device");
    let error = greedy.call(Call::Exhaust, &[]).expect_err("no such heap");
    assert!(
        error
            .to_string()
            .contains("memory allocation of 4096 bytes failed"),
        "{error}"
    );
}

#[test]
fn endless_loop_ends_within_the_deadline() {
    let Some(bench) = Bench::with(edu()) else {
        return;
    };
    let mut driver = bench.probe(Driver::Edu).expect("an honest device");
    let patience = Duration::from_millis(20);
    driver.vm().set_patience(patience);

    let error = driver.call(Call::Spin, &[]).expect_err("it has no end");

    assert!(
        matches!(error, CallError::Died(Death::TimedOut { at }) if at >= 0x20_0000),
        "{error:?}"
    );
}

#[test]
fn guest_reaches_no_frame_but_its_own() {
    let Some(bench) = Bench::with(edu()) else {
        return;
    };
    let mut vm = bench.boot();
    let pool = dma_pool().bytes();
    let mut driver =
        VmDriver::probe_in(bench.boot(), bench.machine.host(bench.device), Driver::Edu)
            .expect("an honest device");
    let fresh = driver.vm().snapshot().expect("KVM tells its state");
    let mut outside = 0;
    for run in &cofferdam_machine::frames::MAP {
        for at in run.bytes().step_by(4096) {
            let stored = driver.call(Call::Store, &[0x8000_0000 + at, 0x5a, 1]);
            if pool.contains(&at) {
                assert!(stored.is_ok(), "its own frame {at:#x}: {stored:?}");
                continue;
            }
            outside += 1;
            assert!(
                matches!(stored, Err(CallError::Died(Death::Wild { address, of_machine: true, write: true }))
                    if address == at),
                "{at:#x}: {stored:?}"
            );
            driver.revive(&fresh).expect("KVM resets it");
        }
    }
    assert!(outside > 100, "the map has frames of others");
    assert_eq!(bench.machine.machine().memory().corruption(), []);
    // Addresses with nothing behind them, tables of level 0, and code.
    for at in [
        0x1000,
        0x10_0000,
        0x20_0000,
        0x40_0000,
        0x5f_ff00,
        0xfee0_0000,
        1 << 40,
        1 << 63,
    ] {
        let stored = driver.call(Call::Store, &[at, 0, 1]);
        assert!(
            matches!(stored, Err(CallError::Died(_))),
            "{at:#x}: {stored:?}"
        );
        driver.revive(&fresh).expect("KVM resets it");
    }
    assert!(driver.call(Call::Nop, &[]).is_ok());
    drop(vm.snapshot());
}

#[test]
fn tenants_guest_reaches_no_frame_but_its_tenants_and_ends_at_anothers_ring() {
    let Some(bench) = Bench::with(edu()) else {
        return;
    };
    let map = cofferdam_machine::frames::MAP;
    let own = map.iter().filter(|run| run.owner == Owner::Tenant1);
    let windows: Vec<Window> = own.map(|run| bench.window_of(run)).collect();
    // SAFETY: the machine outlives the guest, and its memory is one a device writes at any time.
    let mut vm = unsafe { MicroVm::boot(&bench.kvm, &windows) }.expect("KVM makes a guest");
    let started = vm.start(&mut Nowhere).expect("KVM runs it");
    started.expect("the payload starts");
    let fresh = vm.snapshot().expect("KVM tells its state");
    let mut outside = 0;
    for run in &map {
        for at in run.bytes().step_by(4096) {
            let store = [0x8000_0000 + at, 0x5a, 1];
            let stored = vm.call(Call::Store, &store, &mut Nowhere).expect("KVM");
            if run.owner == Owner::Tenant1 {
                assert!(stored.is_ok(), "its own frame {at:#x}: {stored:?}");
                continue;
            }
            outside += 1;
            assert!(
                matches!(stored, Err(Death::Wild { address, of_machine: true, write: true })
                    if address == at),
                "{at:#x}: {stored:?}"
            );
            vm.reset(&fresh).expect("KVM resets it");
            // The tenant itself, sent to frames that are not its own.
            let (number, block, seed, requests) = (1, 1, 1, 12);
            let astray = [number, block, seed, requests, at, 0];
            let lived = vm.call(Call::Tenant, &astray, &mut Nowhere).expect("KVM");
            assert!(
                matches!(lived, Err(Death::Wild { address, of_machine: true, .. })
                    if (at..at + 8 * 4096).contains(&address)),
                "{at:#x}: {lived:?}"
            );
            vm.reset(&fresh).expect("KVM resets it");
        }
    }
    assert!(outside > 100, "the map has frames of others");
    let corruption = bench.machine.machine().memory().corruption();
    assert!(
        corruption.iter().all(|(owner, _)| *owner == Owner::Tenant1),
        "{corruption:?}"
    );
}

#[test]
fn hostile_hypercalls_are_refused_and_the_guest_goes_on() {
    use cofferdam_microvm_abi::Service;
    let Some(bench) = Bench::with(edu()) else {
        return;
    };
    let driver = bench.probe(Driver::Edu).expect("an honest device");
    let mut world = driver.into_world();
    let edges = [
        0,
        1,
        2,
        3,
        4,
        7,
        8,
        4095,
        4096,
        1 << 20,
        1 << 31,
        1 << 32,
        u64::MAX - 1,
        u64::MAX,
    ];
    let mut refused = 0;
    for code in 0..16 {
        let Some(service) = Service::of(code) else {
            continue;
        };
        for first in edges {
            for second in edges {
                for third in [0, 5, u64::MAX] {
                    let arguments = [first, second, third, 3, 0, 0, 0, 0];
                    let answer = world.answer(service, &arguments);
                    refused += usize::from(answer.is_err());
                }
            }
        }
    }
    assert!(refused > 1000, "{refused}");
    drop(world);
    // All it obtained went back.
    let machine = bench.machine.machine();
    assert_eq!(machine.counts().maps, machine.counts().unmaps);
}

#[test]
fn reset_leaves_no_trace_of_what_was() {
    let Some(bench) = Bench::with(nvme()) else {
        return;
    };
    let mut driver = bench.probe(Driver::Nvme).expect("an honest device");
    let fresh = driver.vm().snapshot().expect("KVM tells its state");
    for round in 0..1000_u64 {
        let ended = match round % 5 {
            0 => driver.call(Call::Crash, &[]),
            1 => driver.call(Call::Overflow, &[100]),
            2 => driver.call(Call::Store, &[0x8000_0000, 1, 1]),
            3 => driver.call(Call::Store, &[0x68_0000, 0xff, 0x1_0000]),
            _ => driver.call(Call::Exhaust, &[]),
        };
        assert_eq!(ended.is_ok(), round % 5 == 3, "{ended:?}");
        driver.revive(&fresh).expect("KVM resets it");
        assert!(driver.call(Call::Nop, &[]).is_ok());
        driver.revive(&fresh).expect("KVM resets it");
    }
    // The driver of the snapshot is as it was, and its device was not told anything.
    let mut sector = [1; 512];
    assert_eq!(driver.read(3, &mut sector, bench.soon()), Ok(()));
}

#[test]
fn nature_is_the_same_every_time() {
    let Ok(kvm) = Kvm::open() else {
        return;
    };
    let first = kvm.nature().expect("a guest of three instructions");
    println!(
        "KVM is {first} here; it stops bus locks: {}",
        kvm.stops_bus_locks()
    );
    assert_eq!(kvm.nature().expect("a guest of three instructions"), first);
}
