//! A guest: its memory, its processor, and what it leaves the guest for.

use crate::kvm::Kvm;
use crate::layout::{self, Fill};
use crate::payload::{Payload, payload};
use crate::services::{Silence, World};
use crate::watchdog::{Patience, Watchdog};
use cofferdam_microvm_abi::{
    BAR_WINDOW, BARS, CALL, Call, HYPERCALL, MACHINE, MACHINE_LEN, RAM, Service, USER, VECTORS,
    page, refusal,
};
use cofferdam_seam::{Deadline, HostError, Time, VectorSet, Width};
use kvm_bindings::{
    KVM_BUS_LOCK_DETECTION_EXIT, KVM_CAP_X86_BUS_LOCK_EXIT, kvm_enable_cap, kvm_fpu, kvm_regs,
    kvm_sregs, kvm_userspace_memory_region,
};
use kvm_ioctls::{SyncReg, VcpuExit, VcpuFd, VmFd};
use std::ops::Range;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU8;
use std::time::Duration;
use std::{fmt, mem, slice};
use thiserror::Error;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

/// How long a call may keep the processor without an end, if nobody says otherwise.
const PATIENCE: Duration = Duration::from_secs(1);

/// `KVM_INTERRUPT` (Linux, Documentation/virt/kvm/api.rst, 4.16): injects a vector.
const KVM_INTERRUPT: u32 = 0x4004_ae86;
/// `KVM_RUN` and `KVM_SET_FPU` (the same, 4.10 and 4.23).
const KVM_RUN: u32 = 0xae80;
const KVM_SET_FPU: u32 = 0x41a0_ae8d;

/// The host could not make or run a guest; never a finding.
#[derive(Clone, Debug, Error)]
#[error("the micro-VM failed at {step}: {reason}")]
pub struct VmError {
    step: &'static str,
    reason: String,
}

impl VmError {
    pub(crate) fn at(step: &'static str) -> impl FnOnce(&dyn fmt::Display) -> Self {
        move |reason| Self {
            step,
            reason: reason.to_string(),
        }
    }
}

/// Attaches the step that failed.
trait Step<T> {
    fn step(self, step: &'static str) -> Result<T, VmError>;
}

impl<T, E: fmt::Display> Step<T> for Result<T, E> {
    fn step(self, step: &'static str) -> Result<T, VmError> {
        self.map_err(|error| VmError::at(step)(&error))
    }
}

/// Bytes of this process that a guest is given, at the guest address of the machine's physical
/// address `at`.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// The machine's physical address, a multiple of 4096.
    pub at: u64,
    /// The first byte here, page aligned.
    pub host: NonNull<u8>,
    /// Bytes, a multiple of 4096.
    pub len: u64,
}

/// How a guest ended that was not asked to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Death {
    /// The driver panicked: message and location.
    Panicked(String),
    /// The processor raised an exception at level 3 that nobody handles.
    Exception {
        /// Its number (SDM 3A, 7.15).
        vector: u8,
        /// Its error code.
        error: u64,
        /// The instruction.
        at: u64,
        /// CR2: of a page fault, the address.
        address: u64,
        /// The stack pointer.
        stack: u64,
    },
    /// The driver's CPU went to an address that the guest was not given.
    Wild {
        /// The machine's physical address, if it is in the window onto that, else the guest's.
        address: u64,
        /// Whether it is the machine's.
        of_machine: bool,
        /// Whether it wrote.
        write: bool,
    },
    /// An exception in the delivery of an exception in the delivery of an exception.
    TripleFault,
    /// The time was up.
    TimedOut {
        /// The instruction at which it was.
        at: u64,
    },
    /// It locked the bus and the host's KVM said so.
    BusLock,
    /// The driver's host inside cannot do what the driver needs, for that reason.
    GaveUp(String),
    /// It broke the rules of the call page, or left in a way that has no meaning here.
    Broke(String),
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panicked(message) => write!(f, "{message}"),
            Self::Exception {
                vector: 14,
                error,
                at,
                address,
                stack,
            } => {
                let what = if error & 2 != 0 { "write" } else { "read" };
                write!(
                    f,
                    "page fault: {what} at {address:#x}, instruction {at:#x}, stack {stack:#x}"
                )
            }
            Self::Exception {
                vector, error, at, ..
            } => {
                write!(
                    f,
                    "exception {vector}, error code {error:#x}, instruction {at:#x}"
                )
            }
            Self::Wild {
                address,
                of_machine,
                write,
            } => {
                let what = if *write { "store" } else { "load" };
                let whose = if *of_machine {
                    "the machine's"
                } else {
                    "the guest's"
                };
                write!(
                    f,
                    "wild {what}: {whose} address {address:#x} is not this guest's"
                )
            }
            Self::TripleFault => f.write_str("triple fault"),
            Self::TimedOut { at } => write!(f, "no end in sight, at instruction {at:#x}"),
            Self::BusLock => f.write_str("the driver locked the bus"),
            Self::GaveUp(reason) => f.write_str(reason),
            Self::Broke(how) => write!(f, "the guest broke its protocol: {how}"),
        }
    }
}

/// What a guest left for, counted: true of any host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Exits altogether.
    pub exits: u64,
    /// Register accesses among them.
    pub registers: u64,
    /// Hypercalls among them.
    pub hypercalls: u64,
    /// Interrupts injected.
    pub interrupts: u64,
}

/// A guest with one processor. Dropping it ends it.
pub struct MicroVm {
    // In this order: the processor and the VM go before the memory they use.
    vcpu: VcpuFd,
    _vm: VmFd,
    memory: GuestMemoryMmap,
    windows: Vec<Window>,
    watchdog: Watchdog,
    counts: Counts,
    /// Since the last reset.
    died: bool,
    /// The driver does not see the windows, since then.
    blind: bool,
    payload: &'static Payload,
}

/// All of a guest's private state.
pub struct Snapshot {
    regs: kvm_regs,
    sregs: kvm_sregs,
    fpu: kvm_fpu,
    parts: Vec<(GuestAddress, Vec<u8>)>,
}

/// Fills the memory of a guest that does not run yet.
struct Fresh<'a>(&'a GuestMemoryMmap);

impl Fill for Fresh<'_> {
    fn word(&mut self, at: u64, value: u64) {
        let written = self.0.write_obj(value, GuestAddress(at));
        debug_assert!(written.is_ok(), "tables lie in private memory");
    }
}

impl MicroVm {
    /// A guest with these windows onto the machine's memory and no others, at its first instruction.
    ///
    /// # Safety
    ///
    /// The windows' bytes stay mapped while it lives, and whoever else uses them expects them to change.
    ///
    /// # Errors
    ///
    /// The host cannot make it.
    pub unsafe fn boot(kvm: &Kvm, windows: &[Window]) -> Result<Self, VmError> {
        // SAFETY: the caller's promise.
        unsafe { Self::boot_with(kvm, windows, payload()) }
    }

    /// The same with another payload.
    ///
    /// # Safety
    ///
    /// As there.
    ///
    /// # Errors
    ///
    /// As there.
    pub unsafe fn boot_with(
        kvm: &Kvm,
        windows: &[Window],
        payload: &'static Payload,
    ) -> Result<Self, VmError> {
        let vm = kvm.kvm.create_vm().step("KVM_CREATE_VM")?;
        let len = usize::try_from(RAM).step("its memory's size")?;
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), len)]).step("its memory")?;
        let host = memory
            .get_host_address(GuestAddress(0))
            .step("its memory")?;
        let own = [(0, host.addr() as u64, RAM)].into_iter();
        let given = windows.iter().map(|window| {
            let host = window.host.addr().get() as u64;
            (MACHINE + window.at, host, window.len)
        });
        for (slot, (at, host, len)) in (0..).zip(own.chain(given)) {
            let region = kvm_userspace_memory_region {
                slot,
                flags: 0,
                guest_phys_addr: at,
                memory_size: len,
                userspace_addr: host,
            };
            // SAFETY: the private memory outlives the VM, see the fields' order; the caller vouches for
            // the windows.
            unsafe { vm.set_user_memory_region(region) }.step("a memory slot")?;
        }
        layout::tables(&mut Fresh(&memory), payload);
        for segment in &payload.segments {
            let at = GuestAddress(segment.range.start);
            memory.write_slice(segment.bytes, at).step("the payload")?;
        }
        if kvm.stops_bus_locks() {
            let stop = kvm_enable_cap {
                cap: KVM_CAP_X86_BUS_LOCK_EXIT,
                args: [KVM_BUS_LOCK_DETECTION_EXIT.into(), 0, 0, 0],
                ..Default::default()
            };
            vm.enable_cap(&stop).step("KVM_CAP_X86_BUS_LOCK_EXIT")?;
        }
        let mut vcpu = vm.create_vcpu(0).step("KVM_CREATE_VCPU")?;
        let cpuid = kvm
            .kvm
            .get_supported_cpuid(kvm_bindings::KVM_MAX_CPUID_ENTRIES)
            .step("KVM_GET_SUPPORTED_CPUID")?;
        vcpu.set_cpuid2(&cpuid).step("KVM_SET_CPUID2")?;
        let mut sregs = vcpu.get_sregs().step("KVM_GET_SREGS")?;
        layout::special_registers(&mut sregs);
        vcpu.set_sregs(&sregs).step("KVM_SET_SREGS")?;
        let regs = layout::registers(payload);
        vcpu.set_regs(&regs).step("KVM_SET_REGS")?;
        // What a reset sets, and where a death happened, travel in the shared page.
        vcpu.set_sync_valid_reg(SyncReg::Register);
        Ok(Self {
            vcpu,
            _vm: vm,
            memory,
            windows: windows.to_vec(),
            watchdog: Watchdog::new(Patience::Real(PATIENCE)),
            counts: Counts::default(),
            died: false,
            blind: false,
            payload,
        })
    }

    /// How long a call may take.
    pub fn set_patience(&mut self, patience: impl Into<Patience>) {
        self.watchdog = Watchdog::new(patience.into());
    }

    /// The processor's descriptor.
    pub fn processor(&self) -> RawFd {
        self.vcpu.as_raw_fd()
    }

    /// What is asked of the processor's descriptor from the first call on, resets included: a filter of
    /// system calls has to allow these requests and no others.
    pub const REQUESTS: [u32; 3] = [KVM_RUN, KVM_INTERRUPT, KVM_SET_FPU];

    /// What it left for so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Writes the data of the next call, as much as there can be.
    pub fn set_data(&mut self, data: &[u8]) -> Result<(), VmError> {
        let len = data.len().min(page::DATA_MAX as usize);
        let at = GuestAddress(CALL + page::DATA);
        self.memory
            .write_slice(&data[..len], at)
            .step("a call's data")
    }

    /// Reads the data of the last call.
    pub fn data(&self, into: &mut [u8]) -> Result<(), VmError> {
        let len = into.len().min(page::DATA_MAX as usize);
        let at = GuestAddress(CALL + page::DATA);
        self.memory
            .read_slice(&mut into[..len], at)
            .step("a call's data")
    }

    /// Interrupts that the guest's handler counted.
    pub fn taken(&self) -> u64 {
        self.word(page::TAKEN)
    }

    /// The text in the call page.
    pub fn text(&self) -> String {
        let len = self.word(page::TEXT_LEN).min(page::TEXT_MAX);
        let mut bytes = vec![0; len as usize];
        let read = self
            .memory
            .read_slice(&mut bytes, GuestAddress(CALL + page::TEXT));
        debug_assert!(read.is_ok(), "the call page is memory");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Makes a call; the eight words of its result. The first call also starts the payload.
    ///
    /// # Errors
    ///
    /// The guest died of it; it must be reset or dropped. The outer error is the host's.
    pub fn call(
        &mut self,
        call: Call,
        arguments: &[u64],
        world: &mut impl World,
    ) -> Result<Result<[u64; 8], Death>, VmError> {
        self.set_word(page::TO_GUEST, call as u64);
        for (at, argument) in (1..8).zip(arguments) {
            self.set_word(page::TO_GUEST + 8 * at, *argument);
        }
        self.run(world)
    }

    /// Brings a guest that has just booted to where it waits for its first call.
    pub fn start(&mut self, world: &mut impl World) -> Result<Result<(), Death>, VmError> {
        Ok(self.run(world)?.map(drop))
    }

    /// Runs until the guest asks for the next call.
    fn run(&mut self, world: &mut impl World) -> Result<Result<[u64; 8], Death>, VmError> {
        self.watchdog.begin().step("its watchdog")?;
        // A world may leave this call for good, from within.
        let died = std::mem::replace(&mut self.died, true);
        let ended = self.leave(world)?;
        self.died = died || ended.is_err() || self.blind;
        Ok(ended)
    }

    /// The time is up: what the world says to that. A death, if it is one.
    fn out_of_time(&mut self, world: &mut impl World) -> Result<Option<Death>, VmError> {
        let within = self.payload.stack();
        world.left(&|most| stack(&self.vcpu.sync_regs().regs, &self.memory, &within, most));
        match world.silent() {
            Silence::Ends => {
                let at = self.instruction();
                return Ok(Some(Death::TimedOut { at }));
            }
            Silence::GoesOn => {}
            Silence::GoesOnBlind => {
                // Another root makes the processor forget what it knew of the tables. A reset brings the
                // first one back.
                let mut sregs = self.vcpu.get_sregs().step("KVM_GET_SREGS")?;
                sregs.cr3 = layout::BLIND;
                self.blind = true;
                self.vcpu.set_sregs(&sregs).step("KVM_SET_SREGS")?;
            }
        }
        self.watchdog.begin().step("its watchdog")?;
        Ok(None)
    }

    fn leave(&mut self, world: &mut impl World) -> Result<Result<[u64; 8], Death>, VmError> {
        let regs = &raw const self.vcpu.sync_regs_mut().regs;
        let within = self.payload.stack();
        loop {
            if let Some(now) = world.clock() {
                self.set_word(page::CLOCK, now.nanos());
            }
            let exit = match self.vcpu.run() {
                // A signal of this process is not the guest's leaving.
                Ok(VcpuExit::Intr) => continue,
                Ok(exit) => exit,
                Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {
                    if self.watchdog.passed()
                        && let Some(death) = self.out_of_time(world)?
                    {
                        return Ok(Err(death));
                    }
                    continue;
                }
                Err(error) => return Err(VmError::at("KVM_RUN")(&error)),
            };
            self.counts.exits += 1;
            let memory = &self.memory;
            // SAFETY: the shared page lives as long as the processor, and nobody writes registers to it
            // before the next KVM_RUN. What the exit borrows is another part of the page.
            world.left(&|most| stack(unsafe { &*regs }, memory, &within, most));
            let death = match exit {
                VcpuExit::MmioWrite(HYPERCALL, data) => {
                    let code = data.try_into().map_or(u32::MAX, u32::from_le_bytes);
                    self.counts.hypercalls += 1;
                    match Service::of(code.into()) {
                        Some(Service::Next) => return Ok(Ok(self.words(page::FROM_GUEST))),
                        Some(Service::Wait) => self.wait(world)?,
                        Some(service) => self.serve(service, world),
                        None => Some(Death::Broke(format!("there is no hypercall {code}"))),
                    }
                }
                VcpuExit::MmioRead(at, data) => match register(at, data.len()) {
                    Some((bar, offset, width)) => {
                        self.counts.registers += 1;
                        let value = world.read(bar, offset, width).to_le_bytes();
                        data.copy_from_slice(&value[..data.len()]);
                        None
                    }
                    None => Some(wild(at, false)),
                },
                VcpuExit::MmioWrite(at, data) => match register(at, data.len()) {
                    Some((bar, offset, width)) => {
                        let mut value = [0; 8];
                        value[..data.len()].copy_from_slice(data);
                        self.counts.registers += 1;
                        world.write(bar, offset, width, u64::from_le_bytes(value));
                        None
                    }
                    None => Some(wild(at, true)),
                },
                VcpuExit::Shutdown => Some(Death::TripleFault),
                VcpuExit::Unsupported(33) => Some(Death::BusLock),
                other => Some(Death::Broke(format!("it left with {other:?}"))),
            };
            if let Some(death) = death {
                return Ok(Err(death));
            }
            // A guest that keeps leaving is out of time, too. Not asked at each exit: the clock costs.
            if self.counts.exits.is_multiple_of(64)
                && self.watchdog.passed()
                && let Some(death) = self.out_of_time(world)?
            {
                return Ok(Err(death));
            }
        }
    }

    /// A hypercall but the one for more work.
    fn serve(&mut self, service: Service, world: &mut impl World) -> Option<Death> {
        let words = self.words(page::FROM_GUEST);
        match service {
            Service::Panic => return Some(Death::Panicked(self.text())),
            Service::GiveUp => return Some(Death::GaveUp(self.text())),
            Service::Fault => {
                let of = |nth: u64| self.word(page::FAULT + 8 * nth);
                return Some(Death::Exception {
                    vector: u8::try_from(of(0)).unwrap_or(u8::MAX),
                    error: of(1),
                    at: of(2),
                    address: of(3),
                    stack: of(4),
                });
            }
            _ => {}
        }
        let answer = match service {
            Service::Share => self.share(&words, world),
            Service::Unshare => self.unshare(&words, world),
            _ => {
                let pointer = |at: NonNull<u8>| self.guest_address(at);
                world.serve(service, &words, &pointer)
            }
        };
        self.answer(answer);
        None
    }

    /// Bytes of its private memory that a driver names, if they are its own.
    fn own_bytes(&self, at: u64, len: u64) -> Result<(GuestAddress, Vec<u8>), HostError> {
        let end = at.checked_add(len).filter(|end| *end <= RAM);
        let end = end.filter(|_| at >= USER).ok_or(HostError::Refused)?;
        let mut bytes = vec![0; (end - at) as usize];
        let read = self.memory.read_slice(&mut bytes, GuestAddress(at));
        read.map_err(|_| HostError::Refused)?;
        Ok((GuestAddress(at), bytes))
    }

    fn share(&mut self, words: &[u64; 8], world: &mut impl World) -> Result<[u64; 2], HostError> {
        let [at, len, way, ..] = *words;
        let (_, bytes) = self.own_bytes(at, len)?;
        Ok([world.share(at, &bytes, way)?, 0])
    }

    fn unshare(&mut self, words: &[u64; 8], world: &mut impl World) -> Result<[u64; 2], HostError> {
        let [iova, len, at, ..] = *words;
        if at == 0 {
            let len = usize::try_from(len).map_err(|_| HostError::Refused)?;
            return Ok([world.unshare(iova, len, None)?.into(), 0]);
        }
        let (at, mut bytes) = self.own_bytes(at, len)?;
        let held = world.unshare(iova, bytes.len(), Some(&mut bytes))?;
        let written = self.memory.write_slice(&bytes, at);
        written.map_err(|_| HostError::Refused)?;
        Ok([held.into(), 0])
    }

    /// The guest waits for an interrupt. Its answer says which vectors were raised; the lowest of them is
    /// injected, as an interrupt controller would deliver it.
    fn wait(&mut self, world: &mut impl World) -> Result<Option<Death>, VmError> {
        let [vectors, until, ..] = self.words(page::FROM_GUEST);
        let raised = world.wait(VectorSet(vectors), Deadline(Time(until)));
        let first = raised.ok().and_then(|raised| raised.iter().next());
        self.answer(raised.map(|raised| [raised.0, 0]));
        let first = first.filter(|_| world.interrupts());
        let Some(vector) = first.and_then(|vector| u8::try_from(vector.0).ok()) else {
            return Ok(None);
        };
        if self.vcpu.get_kvm_run().if_flag == 0 {
            return Ok(Some(Death::Broke(
                "it waits with interrupts off".to_owned(),
            )));
        }
        let vector = u32::from(VECTORS.saturating_add(vector));
        // SAFETY: the descriptor is a vCPU's, and the argument is the struct kvm_interrupt that this
        // request reads: one 32-bit number.
        let done = unsafe {
            libc::ioctl(
                self.vcpu.as_raw_fd(),
                KVM_INTERRUPT.into(),
                &raw const vector,
            )
        };
        if done != 0 {
            let error = std::io::Error::last_os_error();
            return Err(VmError::at("KVM_INTERRUPT")(&error));
        }
        self.counts.interrupts += 1;
        Ok(None)
    }

    fn answer(&mut self, answer: Result<[u64; 2], HostError>) {
        let words = match answer {
            Ok([first, second]) => [refusal::NONE, first, second, 0],
            Err(error) => refused(error),
        };
        for (at, word) in (0..).zip(words) {
            self.set_word(page::TO_GUEST + 8 * at, word);
        }
    }

    /// Where the guest finds a byte of its windows.
    fn guest_address(&self, at: NonNull<u8>) -> Option<u64> {
        let at = at.addr().get() as u64;
        self.windows.iter().find_map(|window| {
            let offset = at.checked_sub(window.host.addr().get() as u64)?;
            (offset < window.len).then_some(MACHINE + window.at + offset)
        })
    }

    /// What it would take to come back to this point. To be called between calls.
    ///
    /// # Errors
    ///
    /// The host does not tell.
    pub fn snapshot(&mut self) -> Result<Snapshot, VmError> {
        let regs = self.vcpu.get_regs().step("KVM_GET_REGS")?;
        let parts = layout::state(self.payload, regs.rsp)
            .into_iter()
            .map(part_of(&self.memory));
        Ok(Snapshot {
            regs,
            sregs: self.vcpu.get_sregs().step("KVM_GET_SREGS")?,
            fpu: self.vcpu.get_fpu().step("KVM_GET_FPU")?,
            parts: parts.collect::<Result<_, _>>()?,
        })
    }

    /// The edge counters of the payload's instrumented drivers, in the guest's own memory, which stays mapped
    /// for good from then on; none if none is instrumented. A reset resets them.
    ///
    /// # Errors
    ///
    /// They do not lie in the guest's memory.
    pub fn counters(&self) -> Result<&'static [AtomicU8], VmError> {
        let within = &self.payload.counters;
        let len = usize::try_from(within.end.saturating_sub(within.start)).step("its counters")?;
        if len == 0 {
            return Ok(&[]);
        }
        let place = self.memory.get_slice(GuestAddress(within.start), len);
        let first = place.step("its counters")?.ptr_guard_mut().as_ptr();
        mem::forget(self.memory.clone());
        // SAFETY: so many bytes of memory that is never unmapped, since one of its owners never goes. The
        // guest changes them while it runs, as atomic bytes may be changed.
        Ok(unsafe { slice::from_raw_parts(first.cast::<AtomicU8>(), len) })
    }

    /// Comes back to that point, whatever happened since. The machine's memory is its owner's affair.
    ///
    /// # Errors
    ///
    /// The host refuses.
    pub fn reset(&mut self, to: &Snapshot) -> Result<(), VmError> {
        if self.died {
            // The next KVM_RUN would first end the access that the guest left with, and change the registers
            // set here (Linux, Documentation/virt/kvm/api.rst, 5: KVM_EXIT_MMIO).
            self.vcpu.set_kvm_immediate_exit(1);
            let ended = self.vcpu.run().err();
            self.vcpu.set_kvm_immediate_exit(0);
            if ended.is_none_or(|error| error.errno() != libc::EINTR) {
                return Err(VmError::at("ending an access")(&"KVM_RUN did not return"));
            }
        }
        for (at, bytes) in &to.parts {
            self.memory.write_slice(bytes, *at).step("a reset")?;
        }
        self.vcpu.sync_regs_mut().regs = to.regs;
        self.vcpu.set_sync_dirty_reg(SyncReg::Register);
        // Compiled code that got to the end of its call changed no segment and no control word; a guest
        // that died may have run anything, and not at level 3.
        self.blind = false;
        if std::mem::take(&mut self.died) {
            self.vcpu.set_fpu(&to.fpu).step("KVM_SET_FPU")?;
            self.vcpu.sync_regs_mut().sregs = to.sregs;
            self.vcpu.set_sync_dirty_reg(SyncReg::SystemRegister);
        }
        Ok(())
    }

    /// Sabotage of a guest that was just reset to that point: it has no table of exceptions, so that the
    /// next one is a triple fault. The next reset gives the table back.
    pub fn lose_exceptions(&mut self, at: &Snapshot) {
        let sregs = &mut self.vcpu.sync_regs_mut().sregs;
        *sregs = at.sregs;
        sregs.idt.limit = 0;
        self.vcpu.set_sync_dirty_reg(SyncReg::SystemRegister);
        self.died = true;
    }

    fn instruction(&self) -> u64 {
        self.vcpu.sync_regs().regs.rip
    }

    fn words(&self, at: u64) -> [u64; 8] {
        std::array::from_fn(|nth| self.word(at + 8 * nth as u64))
    }

    fn word(&self, at: u64) -> u64 {
        let word = self.memory.read_obj(GuestAddress(CALL + at));
        debug_assert!(word.is_ok(), "the call page is memory");
        word.unwrap_or_default()
    }

    fn set_word(&mut self, at: u64, value: u64) {
        let written = self.memory.write_obj(value, GuestAddress(CALL + at));
        debug_assert!(written.is_ok(), "the call page is memory");
    }
}

impl fmt::Debug for MicroVm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MicroVm")
            .field("windows", &self.windows)
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
}

fn part_of(
    memory: &GuestMemoryMmap,
) -> impl Fn(Range<u64>) -> Result<(GuestAddress, Vec<u8>), VmError> {
    move |range| {
        let at = GuestAddress(range.start);
        let mut bytes = vec![0; usize::try_from(range.end - range.start).step("a snapshot")?];
        memory.read_slice(&mut bytes, at).step("a snapshot")?;
        Ok((at, bytes))
    }
}

/// The return addresses on a driver's stack, by its frame pointers, and its instruction first. It may have
/// scribbled over all of them.
fn stack(regs: &kvm_regs, memory: &GuestMemoryMmap, within: &Range<u64>, most: usize) -> Vec<u64> {
    let word = |at: u64| memory.read_obj::<u64>(GuestAddress(at)).ok();
    let mut frames = vec![regs.rip];
    let mut frame = regs.rbp;
    while frames.len() < most
        && (within.start..within.end - 15).contains(&frame)
        && let (Some(outer), Some(back)) = (word(frame), word(frame + 8))
    {
        frames.push(back);
        if outer <= frame {
            break;
        }
        frame = outer;
    }
    frames
}

/// Which register lies at a guest address.
fn register(at: u64, bytes: usize) -> Option<(u8, u32, Width)> {
    let from = at.checked_sub(BARS)?;
    let bar = u8::try_from(from / BAR_WINDOW)
        .ok()
        .filter(|bar| *bar < 6)?;
    let offset = u32::try_from(from % BAR_WINDOW).ok()?;
    Some((bar, offset, Width::from_bytes(bytes as u64)?))
}

fn wild(at: u64, write: bool) -> Death {
    let of_machine = (MACHINE..MACHINE + MACHINE_LEN).contains(&at);
    Death::Wild {
        address: if of_machine { at - MACHINE } else { at },
        of_machine,
        write,
    }
}

/// An error, as the guest is told it.
fn refused(error: HostError) -> [u64; 4] {
    match error {
        HostError::NoSuchBar(bar) => [refusal::NO_SUCH_BAR, bar as u64, 0, 0],
        HostError::OutOfMemory(len) => [refusal::OUT_OF_MEMORY, len as u64, 0, 0],
        HostError::OutOfRegion { start, end, len } => {
            [refusal::OUT_OF_REGION, start as u64, end as u64, len as u64]
        }
        HostError::Refused => [refusal::REFUSED, 0, 0, 0],
        HostError::NoVectors(wanted) => [refusal::NO_VECTORS, wanted.into(), 0, 0],
        HostError::Stopped => [refusal::STOPPED, 0, 0, 0],
        HostError::Infrastructure(code) => [refusal::INFRASTRUCTURE, code.into(), 0, 0],
    }
}
