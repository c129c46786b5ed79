//! What a micro-VM costs: a reset and a trivial run, next to a bare `KVM_RUN` of a guest of one
//! instruction; and a register read from inside, next to the same exit.
//!
//! Under an emulated KVM these times say nothing about other hosts; the first line printed says which
//! it is.

use cofferdam_backends::mock::{MockHost, MockMachine};
use cofferdam_machine::config::Config;
use cofferdam_machine::frames::{FRAME, Owner, Use, run_of};
use cofferdam_machine::{Machine, Memory, PhysAddr};
use cofferdam_microvm::{Call, Driver, Kvm, VmDriver, Window};
use cofferdam_seam::Deadline;
use cofferdam_seam::service::Compute;
use criterion::{Criterion, criterion_group, criterion_main};
use kvm_bindings::{kvm_regs, kvm_userspace_memory_region};
use kvm_ioctls::{VcpuExit, VcpuFd, VmFd};
use std::time::Duration;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

/// A guest that only halts.
struct Bare {
    vcpu: VcpuFd,
    _vm: VmFd,
    _memory: GuestMemoryMmap,
}

impl Bare {
    fn new() -> Self {
        /// `hlt; jmp -3`, in 16-bit code.
        const CODE: [u8; 3] = [0xf4, 0xeb, 0xfd];
        let kvm = kvm_ioctls::Kvm::new().expect("KVM");
        let vm = kvm.create_vm().expect("a VM");
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x1000)]).expect("memory");
        memory.write_slice(&CODE, GuestAddress(0)).expect("memory");
        let host = memory.get_host_address(GuestAddress(0)).expect("memory");
        let region = kvm_userspace_memory_region {
            memory_size: 0x1000,
            userspace_addr: host.addr() as u64,
            ..Default::default()
        };
        // SAFETY: the memory is dropped after the VM.
        unsafe { vm.set_user_memory_region(region) }.expect("a slot");
        let vcpu = vm.create_vcpu(0).expect("a vCPU");
        let mut sregs = vcpu.get_sregs().expect("its state");
        (sregs.cs.base, sregs.cs.selector) = (0, 0);
        vcpu.set_sregs(&sregs).expect("its state");
        let regs = kvm_regs {
            rflags: 2,
            ..Default::default()
        };
        vcpu.set_regs(&regs).expect("its state");
        Self {
            vcpu,
            _vm: vm,
            _memory: memory,
        }
    }

    fn run(&mut self) {
        assert!(matches!(self.vcpu.run(), Ok(VcpuExit::Hlt)));
    }
}

/// Our driver of edu in a guest.
fn driver(kvm: &Kvm) -> (MockMachine, VmDriver<MockHost>) {
    let memory = Memory::private().expect("2 MiB of memory");
    let mut machine = Machine::new(Config::default(), memory);
    let timing = vdevice_edu::EduTiming::default();
    let device = machine.plug(Box::new(vdevice_edu::Edu::new(timing)));
    let machine = MockMachine::new(machine);
    let run = run_of(Owner::Driver, Use::DmaPool).expect("the driver has DMA memory");
    let at = run.first * FRAME;
    let host = machine.machine().memory().pointer(PhysAddr(at));
    let window = Window {
        at,
        host,
        len: run.count * FRAME,
    };
    // SAFETY: the machine outlives the driver, which is dropped first by whoever gets both.
    let driver = unsafe { VmDriver::probe(kvm, &[window], machine.host(device), Driver::Edu) };
    (machine, driver.expect("an honest device"))
}

fn microvm(criterion: &mut Criterion) {
    let kvm = match Kvm::open() {
        Ok(kvm) => kvm,
        Err(unavailable) => return println!("SKIPPED: {unavailable}"),
    };
    println!("KVM is {} here", kvm.nature().expect("a guest runs"));
    let mut group = criterion.benchmark_group("microvm");

    let mut bare = Bare::new();
    group.bench_function("bare KVM_RUN of an empty guest", |bencher| {
        bencher.iter(|| bare.run());
    });
    let (machine, mut driver) = driver(&kvm);
    group.bench_function("a call that does nothing", |bencher| {
        bencher.iter(|| driver.call(Call::Nop, &[]).expect("it lives"));
    });
    let fresh = driver.vm().snapshot().expect("its state");
    group.bench_function("reset and a call that does nothing", |bencher| {
        bencher.iter(|| {
            driver.revive(&fresh).expect("KVM resets it");
            driver.call(Call::Nop, &[]).expect("it lives")
        });
    });
    group.bench_function("a factorial: registers, an interrupt", |bencher| {
        bencher.iter(|| {
            let until = Deadline::after(machine.now(), Duration::from_millis(10));
            driver.factorial(5, until).expect("an honest device")
        });
    });
    group.finish();
    drop(driver);
}

criterion_group!(benches, microvm);
criterion_main!(benches);
