//! Many executions in one guest, with deaths of every kind among them: each comes out as in a guest of
//! its own, nothing gathers in the process, and nothing of it outlives a SIGKILL. Without KVM the tests
//! say so and pass.

use cofferdam_backends::mock::{MockHost, MockMachine};
use cofferdam_machine::config::Config;
use cofferdam_machine::frames::{FRAME, Owner, Use, run_of};
use cofferdam_machine::{Machine, Memory, PhysAddr};
use cofferdam_microvm::{
    Call, CallError, Counts, Death, Driver, Kvm, MACHINE, MicroVm, Nowhere, Snapshot, VmDriver,
    Window,
};
use cofferdam_seam::service::Compute;
use cofferdam_seam::{Deadline, RequesterId, SplitMix64};
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{env, fs};

/// How many executions to make, if not 1000.
const EXECUTIONS: &str = "COFFERDAM_GUEST_EXECUTIONS";
/// Executions after which the process has all the memory it needs.
const WARM: u64 = 300;
/// Growth of the resident set that is the allocator's business, in bytes.
const SLACK: u64 = 512 << 10;

/// Descriptors and memory are the process's: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// What the driver in the guest is made to do.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Factorial(u32),
    RoundTrip(usize),
    /// A request before there is a driver.
    Unprobed,
    Panic,
    /// A panic when a driver has its device, its interrupts and its memory.
    PanicInService,
    Hang,
    Overflow,
    Exhaust,
    /// A frame that is not the guest's.
    WildFrame(u64),
    /// Where nothing is, and level 0's own tables.
    Wild(u64),
    /// An exception with no table of exceptions.
    TripleFault,
    /// All of the driver's heap.
    Scribble(u8),
    SplitLock,
}

impl Deed {
    const ALL: [Self; 20] = [
        Self::Factorial(5),
        Self::Factorial(12),
        Self::RoundTrip(64),
        Self::RoundTrip(256),
        Self::Unprobed,
        Self::Panic,
        Self::PanicInService,
        Self::Hang,
        Self::Overflow,
        Self::Exhaust,
        Self::WildFrame(0),
        Self::WildFrame(0x10_0000),
        Self::Wild(0x1000),
        Self::Wild(0xfee0_0000),
        Self::Wild(1 << 63),
        Self::TripleFault,
        Self::TripleFault,
        Self::Scribble(0),
        Self::Scribble(0xff),
        Self::SplitLock,
    ];
}

/// How an execution ended, and what it took.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Outcome {
    end: Result<Vec<u8>, String>,
    exits: u64,
    registers: u64,
    hypercalls: u64,
    interrupts: u64,
}

/// A machine in this process with an edu device, and this host's KVM.
struct Bench {
    kvm: Kvm,
    machine: MockMachine,
    device: RequesterId,
}

impl Bench {
    fn new() -> Option<Self> {
        let kvm = Kvm::open()
            .inspect_err(|unavailable| println!("SKIPPED: {unavailable}"))
            .ok()?;
        let memory = Memory::private().expect("2 MiB of memory");
        memory.fill_pattern();
        let mut machine = Machine::new(Config::default(), memory);
        let device = machine.plug(Box::new(vdevice_edu::Edu::new(
            vdevice_edu::EduTiming::default(),
        )));
        Some(Self {
            kvm,
            machine: MockMachine::new(machine),
            device,
        })
    }

    /// A guest that waits for its first call, and how it comes back there.
    fn guest(&self) -> (MicroVm, Snapshot) {
        let run = run_of(Owner::Driver, Use::DmaPool).expect("the driver has DMA memory");
        let at = run.first * FRAME;
        let window = Window {
            at,
            host: self.machine.machine().memory().pointer(PhysAddr(at)),
            len: run.count * FRAME,
        };
        // SAFETY: the machine outlives the guest, and its memory is one a device writes at any time.
        let vm = unsafe { MicroVm::boot(&self.kvm, &[window]) };
        let mut vm = vm.expect("KVM makes a guest");
        let started = vm.start(&mut Nowhere).expect("KVM runs it");
        started.expect("the payload starts");
        let fresh = vm.snapshot().expect("KVM tells its state");
        (vm, fresh)
    }

    /// One execution in a guest at its snapshot, and the guest.
    fn execute(&self, (mut vm, fresh): (MicroVm, &Snapshot), deed: Deed) -> (MicroVm, Outcome) {
        let patience = match deed {
            Deed::Hang => Duration::from_millis(4),
            _ => Duration::from_secs(60),
        };
        vm.set_patience(patience);
        if matches!(deed, Deed::TripleFault) {
            vm.lose_exceptions(fresh);
        }
        let before = vm.counts();
        let mut driver = VmDriver::around(vm, self.machine.host(self.device));
        let end = self
            .carry_out(&mut driver, deed)
            .map_err(|error| match error {
                // Where a loop was interrupted is chance.
                CallError::Died(Death::TimedOut { .. }) => "timed out".to_owned(),
                CallError::Vm(error) => panic!("the host failed: {error}"),
                other => other.to_string(),
            });
        let (vm, world) = driver.into_parts();
        drop(world);
        // The machine's log is its own, and bounded.
        self.machine.machine().drain_events();
        let after = vm.counts();
        let of = |count: fn(&Counts) -> u64| count(&after) - count(&before);
        let outcome = Outcome {
            end,
            exits: of(|counts| counts.exits),
            registers: of(|counts| counts.registers),
            hypercalls: of(|counts| counts.hypercalls),
            interrupts: of(|counts| counts.interrupts),
        };
        (vm, outcome)
    }

    fn carry_out(&self, driver: &mut VmDriver<MockHost>, deed: Deed) -> Result<Vec<u8>, CallError> {
        let soon =
            |machine: &MockMachine| Deadline::after(machine.now(), Duration::from_millis(50));
        let done = |word: u64| word.to_le_bytes().to_vec();
        let probe = |driver: &mut VmDriver<MockHost>| driver.load(Driver::Edu);
        match deed {
            Deed::Factorial(n) => {
                probe(driver)?;
                let value = driver.factorial(n, soon(&self.machine))?;
                Ok(value.to_le_bytes().to_vec())
            }
            Deed::RoundTrip(len) => {
                probe(driver)?;
                let out: Vec<u8> = (0..len).map(|at| at.to_le_bytes()[0]).collect();
                let mut back = vec![0; len];
                driver.round_trip(&out, &mut back, soon(&self.machine))?;
                Ok(back)
            }
            Deed::Unprobed => driver.call(Call::Factorial, &[3, u64::MAX]).map(done),
            Deed::Panic => driver.call(Call::Crash, &[]).map(done),
            Deed::PanicInService => {
                probe(driver)?;
                driver.call(Call::Crash, &[]).map(done)
            }
            Deed::Hang => driver.call(Call::Spin, &[]).map(done),
            Deed::Overflow => driver.call(Call::Overflow, &[100]).map(done),
            Deed::Exhaust => driver.call(Call::Exhaust, &[]).map(done),
            Deed::WildFrame(at) => driver.call(Call::Store, &[MACHINE + at, 1, 1]).map(done),
            Deed::Wild(at) => driver.call(Call::Store, &[at, 1, 1]).map(done),
            Deed::TripleFault => driver.call(Call::Store, &[0x1000, 1, 1]).map(done),
            Deed::Scribble(byte) => {
                let heap = cofferdam_microvm_abi::HEAP;
                let arguments = [heap.start, byte.into(), heap.end - heap.start];
                driver.call(Call::Store, &arguments).map(done)
            }
            Deed::SplitLock => driver.call(Call::Lock, &[0, 50]).map(done),
        }
    }
}

fn executions() -> u64 {
    let asked = env::var(EXECUTIONS).ok();
    asked.and_then(|count| count.parse().ok()).unwrap_or(1000)
}

/// Open descriptors of this process.
fn descriptors() -> usize {
    let open = fs::read_dir("/proc/self/fd").expect("a process sees its descriptors");
    open.count()
}

/// Resident bytes of this process.
fn resident() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm").expect("a process sees its size");
    let pages = pages.split_whitespace().nth(1).map(str::parse::<u64>);
    pages.and_then(Result::ok).expect("pages") * FRAME
}

#[test]
fn execution_after_any_other_comes_out_as_in_a_guest_of_its_own() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(bench) = Bench::new() else {
        return;
    };
    // Arrange: each deed in a fresh guest.
    let expected: Vec<Outcome> = Deed::ALL
        .into_iter()
        .map(|deed| {
            let (vm, fresh) = bench.guest();
            bench.execute((vm, &fresh), deed).1
        })
        .collect();
    let says = |deed: fn(&Deed) -> bool, text: &str| {
        let at = Deed::ALL.iter().position(deed).expect("it is among them");
        let end = &expected[at].end;
        let died = end.as_ref().is_err_and(|end| end.contains(text));
        assert!(died, "{end:?}");
    };
    says(|deed| matches!(deed, Deed::TripleFault), "triple fault");
    says(|deed| matches!(deed, Deed::Hang), "timed out");
    says(|deed| matches!(deed, Deed::WildFrame(_)), "wild store");
    says(|deed| matches!(deed, Deed::Overflow), "page fault");
    says(|deed| matches!(deed, Deed::PanicInService), "planned death");
    assert!(expected[0].end.is_ok() && expected[2].end.is_ok());

    // Act and assert: all of them in one guest, in any order.
    let (mut vm, fresh) = bench.guest();
    let mut draw = SplitMix64::new(1);
    let (mut open, mut size) = (descriptors(), resident());
    let started = Instant::now();
    println!("running");
    for nth in 0..executions() {
        if nth == WARM {
            (open, size) = (descriptors(), resident());
        }
        let which = usize::try_from(draw.number() % Deed::ALL.len() as u64).unwrap_or(0);
        vm.reset(&fresh).expect("KVM resets it");

        let (back, outcome) = bench.execute((vm, &fresh), Deed::ALL[which]);

        vm = back;
        assert_eq!(
            outcome,
            expected[which],
            "{:?}, execution {nth}",
            Deed::ALL[which]
        );
    }
    assert_eq!(descriptors(), open);
    let grown = resident().saturating_sub(size);
    println!(
        "{} executions in {:?}: {open} descriptors, {size} bytes resident and {grown} more",
        executions(),
        started.elapsed()
    );
    assert!(grown < SLACK, "{grown} bytes more than {size}");
    let machine = bench.machine.machine();
    assert_eq!(machine.memory().corruption(), []);
    assert_eq!(machine.counts().maps, machine.counts().unmaps);
}

/// Tasks of the kernel or of anybody that are there for that process: KVM names its own so.
fn of_process(pid: u32) -> Vec<String> {
    let entries = fs::read_dir("/proc").expect("processes can be listed");
    let tasks = entries.filter_map(|entry| {
        let status = fs::read_to_string(entry.ok()?.path().join("status")).ok()?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            Some(line.trim().to_owned())
        };
        let (name, parent) = (field("Name:")?, field("PPid:")?);
        let its = parent == pid.to_string() || name.ends_with(&format!("-{pid}"));
        its.then_some(name)
    });
    tasks.collect()
}

#[test]
fn nothing_is_left_behind_after_kill_9() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    if Kvm::open().is_err() {
        return;
    }
    let program = env::current_exe().expect("this program's file");
    let mut child = Command::new(program)
        .args(["--exact", "--nocapture", "--test-threads=1"])
        .arg("execution_after_any_other_comes_out_as_in_a_guest_of_its_own")
        .env(EXECUTIONS, u64::MAX.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("this program starts");
    let pid = child.id();
    let mut lines = BufReader::new(child.stdout.take().expect("it was asked for")).lines();
    let runs = lines.any(|line| line.is_ok_and(|line| line.contains("running")));
    assert!(runs, "it ended before its first execution");

    child.kill().expect("it is ours");

    let status = child.wait().expect("it is ours");
    assert_eq!(status.signal(), Some(9));
    let until = Instant::now() + Duration::from_secs(10);
    // What dies with it takes a moment.
    while !of_process(pid).is_empty() && Instant::now() < until {
        std::thread::yield_now();
    }
    assert_eq!(of_process(pid), [""; 0]);
    // The host gives its resources to the next.
    let bench = Bench::new().expect("there was KVM");
    let (vm, fresh) = bench.guest();
    let (_, outcome) = bench.execute((vm, &fresh), Deed::Factorial(5));
    assert_eq!(outcome.end, Ok(120_u32.to_le_bytes().to_vec()));
}
