//! Where a planted driver shows what it does: an honest device model that can be bent, a machine
//! whose ledger judges its DMA, and a host that keeps the books of the driver.

pub mod twist;
pub mod witness;

use self::twist::{Plan, Seen, Twist};
use self::witness::{Books, Stopped, Witness};
use cofferdam_backends::mock::MockMachine;
use cofferdam_machine::config::Config;
use cofferdam_machine::{Machine, Memory, Verdict};
use cofferdam_seam::service::DriverError;
use cofferdam_seam::{Deadline, Device, Width};
use driver_planted::{Bug, Build, Call, Family, Serve};
use std::cell::Cell;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How long each call may take.
const PATIENCE: Duration = Duration::from_millis(5);

/// One call of a workload.
#[derive(Clone, Debug)]
pub enum Step {
    Factorial(u32),
    RoundTrip(Vec<u8>),
    Read(u64, usize),
    Write(u64, Vec<u8>),
    Identify,
}

/// What came of a run.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The oracles that spoke.
    pub findings: BTreeSet<&'static str>,
    /// The steps that were served, and what each returned.
    pub served: Vec<(usize, Vec<u8>)>,
    pub errors: Vec<DriverError>,
    pub probe: Option<DriverError>,
    /// How often the device acted as it should not.
    pub acted: u32,
    /// Where it panicked: the end of a path.
    pub panic: Option<String>,
}

thread_local! {
    /// The file of the last panic on this thread.
    static PANICKED_IN: Cell<Option<String>> = const { Cell::new(None) };
}

/// The honest device of a family.
pub fn honest(family: Family) -> Box<dyn Device> {
    match family {
        Family::Edu => Box::new(vdevice_edu::Edu::new(Default::default())),
        Family::Virtio => Box::new(vdevice_virtio::VirtioBlk::new(vdevice_virtio::BlkConfig {
            sectors: 64,
            ..Default::default()
        })),
        Family::Nvme => Box::new(vdevice_nvme::Nvme::new(vdevice_nvme::NvmeConfig {
            blocks: 64,
            ..Default::default()
        })),
    }
}

/// Calls that an honest device serves.
pub fn workload(family: Family) -> Vec<Step> {
    let pattern = |len: usize, seed: usize| -> Vec<u8> {
        (0..len)
            .map(|at| u8::try_from((at * 7 + seed * 31) % 251 + 1).expect("below 252"))
            .collect()
    };
    match family {
        Family::Edu => vec![
            Step::Factorial(5),
            Step::Factorial(12),
            Step::RoundTrip(pattern(512, 1)),
            Step::RoundTrip(pattern(24, 2)),
            Step::RoundTrip(pattern(4096, 3)),
        ],
        Family::Virtio | Family::Nvme => {
            let mut steps = vec![Step::Identify];
            for turn in 0..20 {
                let sector = 3 * turn as u64;
                steps.push(Step::Write(sector, pattern(512, turn)));
                steps.push(Step::Write(sector + 1, pattern(1024, turn + 1)));
                steps.push(Step::Read(sector, 512));
                steps.push(Step::Read(sector, 1024));
            }
            steps
        }
    }
}

/// Runs one build of a bug's driver through `steps` on a device bent by `plan`.
pub fn observe(bug: Bug, build: Build, plan: Plan, config: Config, steps: &[Step]) -> Outcome {
    let seen = Arc::new(Mutex::new(Seen::default()));
    let device = Twist::new(honest(bug.family()), plan, Arc::clone(&seen));
    let memory = Memory::private().expect("2 MiB of memory");
    let mut machine = Machine::new(config, memory);
    let id = machine.plug(Box::new(device));
    let machine = MockMachine::new(machine);
    let books = Rc::new(RefCell::new(Books::default()));
    let host = Witness::new(machine.host(id), Rc::clone(&books));
    let mut outcome = Outcome::default();
    let mut stopped = false;

    set_hook(Box::new(|panic| {
        PANICKED_IN.set(panic.location().map(|place| place.file().to_owned()));
        // What a driver does is data here, what a test says is not.
        if !panic
            .location()
            .is_some_and(|place| place.file().contains("planted/src"))
        {
            eprintln!("{panic}");
        }
    }));
    let ran = catch_unwind(AssertUnwindSafe(|| {
        let probe = bug.run(build, host, |driver| {
            for (nth, step) in steps.iter().enumerate() {
                let until = Deadline::after(machine.now(), PATIENCE);
                serve(driver, (nth, step), until, &seen, &mut outcome);
            }
        });
        outcome.probe = probe.err();
    }));
    if let Err(payload) = ran {
        outcome.findings.insert(match payload.downcast_ref() {
            Some(Stopped::Waiting) => "unbounded-wait",
            Some(Stopped::Running) => "runaway",
            None => "panic",
        });
        outcome.panic = PANICKED_IN.take();
        stopped = true;
    }

    let mut machine = machine.machine();
    // A driver that was stopped on its stack still holds what it held.
    if !stopped {
        // What the device still does when its driver is gone.
        let command = machine.config_read(id, 4, Width::Two);
        if command & 1 << 2 != 0 {
            outcome.findings.insert("bus-held");
        }
        let counts = machine.counts();
        if counts.maps != counts.unmaps {
            outcome.findings.insert("leaked-mapping");
        }
        let later = machine.now() + Duration::from_secs(1);
        machine.advance(later);
    }
    for event in machine.stray_events().0 {
        outcome.findings.insert(match event.verdict {
            Verdict::Sanctioned => continue,
            Verdict::WrongDirection => "dma-wrong-direction",
            Verdict::OutOfBounds => "dma-out-of-bounds",
            Verdict::UseAfterUnmap { .. } => "dma-after-unmap",
            Verdict::Foreign { .. } | Verdict::PeerToPeer | Verdict::Unbacked => "dma-unmapped",
        });
    }
    let books = books.borrow();
    if !stopped && books.freed_while_mapped > 0 {
        outcome.findings.insert("freed-while-mapped");
    }
    if books.double_unmaps > 0 {
        outcome.findings.insert("bad-unmap");
    }
    if books.foreign_waits > 0 {
        outcome.findings.insert("interrupt-misuse");
    }
    outcome.acted = seen.lock().expect("no test panics with it").acted;
    outcome
}

/// Makes one call, and compares what it returned with what went over the bus.
fn serve(
    driver: &mut dyn Serve,
    (nth, step): (usize, &Step),
    until: Deadline,
    seen: &Mutex<Seen>,
    outcome: &mut Outcome,
) {
    let (call, room) = match step {
        Step::Factorial(n) => (Call::Factorial(*n), 4),
        Step::RoundTrip(out) => (Call::RoundTrip(out), out.len()),
        Step::Read(sector, len) => (Call::Read(*sector), *len),
        Step::Write(sector, from) => (Call::Write(*sector, from), 0),
        Step::Identify => (Call::Identify, 20),
    };
    seen.lock().expect("no test panics with it").forget();
    // No device here sends this.
    let mut into = vec![0xee; room];
    let result = driver.call(call, &mut into, until);
    match result {
        Ok(len) => {
            let seen = seen.lock().expect("no test panics with it");
            if len > room {
                outcome.findings.insert("length-beyond-buffer");
            }
            let read = matches!(step, Step::Read(..) | Step::Identify);
            // Zeroes tell nobody anything.
            let made_up = |at: usize| into[at] != 0 && seen.sent.get(at) != Some(&into[at]);
            if read && (0..len.min(room)).any(made_up) {
                outcome.findings.insert("unsent-data");
            }
            outcome.served.push((nth, into));
        }
        Err(error) => outcome.errors.push(error),
    }
    // What a call that failed started may still be under way in the next one.
    if let (Ok(_), Step::RoundTrip(given) | Step::Write(_, given)) = (result, step) {
        let seen = seen.lock().expect("no test panics with it");
        let beyond = seen.received.iter().skip(given.len());
        if beyond.copied().any(|byte| byte != 0) {
            outcome.findings.insert("leaked-bytes");
        }
    }
}
