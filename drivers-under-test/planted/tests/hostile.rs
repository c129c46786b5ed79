//! For every planted bug the device reaction that shows it, and that the twin bears the same.

#[expect(dead_code, reason = "the tests of honest devices use the rest")]
mod world;

use cofferdam_machine::config::Config;
use cofferdam_seam::{Iova, Purpose, Width};
use driver_planted::{Bug, Build, Family};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::env;
use std::fs::read_to_string;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;
use world::twist::{Bend, Plan};
use world::{Outcome, Step, observe};

/// The signal of an abort.
const SIGABRT: i32 = 6;

/// Registers of edu.
mod edu {
    pub const LIVENESS: u32 = 0x04;
    pub const FACTORIAL: u32 = 0x08;
    pub const STATUS: u32 = 0x20;
    pub const REASONS: u32 = 0x24;
    pub const ACKNOWLEDGE: u32 = 0x64;
    pub const DMA_COMMAND: u32 = 0x98;
    pub const FACTORIAL_DONE: u64 = 1;
}

/// Registers of the virtio model: its structures are in BAR 4, a page each.
mod virtio {
    pub const GENERATION: u32 = 0x15;
    pub const QUEUE_SIZE: u32 = 0x18;
    pub const DESCRIPTORS: [u32; 2] = [0x20, 0x24];
    pub const USED: [u32; 2] = [0x30, 0x34];
    pub const ISR: u32 = 0x1000;
    pub const CAPACITY: u32 = 0x2000;
    pub const DOORBELL: u32 = 0x3000;
}

/// Registers of the NVMe model.
mod nvme {
    pub const CC: u32 = 0x14;
    pub const ADMIN_TAIL: u32 = 0x1000;
    pub const IO_TAIL: u32 = 0x1008;
}

/// A reaction of the device, and of the platform, and the calls that meet it.
struct Trap {
    plan: Plan,
    config: Config,
    steps: Vec<Step>,
}

impl Trap {
    fn new(plan: Plan, steps: &[Step]) -> Self {
        Self {
            plan,
            config: Config::default(),
            steps: steps.to_vec(),
        }
    }
}

/// A device whose register at `offset` reads as `value` says.
fn reads(offset: u32, mut value: impl FnMut(u64) -> u64 + Send + 'static) -> Plan {
    Plan {
        read: Some(Box::new(move |at, honest, _| {
            if at.offset() == offset {
                value(honest)
            } else {
                honest
            }
        })),
        ..Plan::default()
    }
}

/// A device that changes each DMA write for that purpose.
fn writes(why: Purpose, mut change: impl FnMut(&mut Vec<u8>) -> Bend + Send + 'static) -> Plan {
    Plan {
        dma: Some(Box::new(move |_, purpose, bytes| {
            if purpose == why {
                change(bytes)
            } else {
                Bend::Not
            }
        })),
        ..Plan::default()
    }
}

/// A virtio device that says it used that many bytes for the `nth` request, counted from 1.
fn used_length(nth: u32, len: u32) -> Plan {
    let mut count = 0;
    writes(Purpose::Completion, move |element| {
        count += 1;
        if count != nth {
            return Bend::Not;
        }
        element[4..8].copy_from_slice(&len.to_le_bytes());
        Bend::Changed
    })
}

/// A device whose first request fails with an I/O error.
fn first_fails() -> Plan {
    let mut failed = false;
    writes(Purpose::Status, move |status| {
        if failed {
            return Bend::Not;
        }
        failed = true;
        status[0] = 1;
        Bend::Changed
    })
}

/// A device that does nothing for a while once that register was written.
fn sleepy(register: u32, millis: u64) -> Plan {
    Plan {
        sleep: Some((register, Duration::from_millis(millis))),
        ..Plan::default()
    }
}

/// A device whose first write of that purpose is changed.
fn first_write(why: Purpose, change: impl FnOnce(&mut [u8]) + Send + 'static) -> Plan {
    let mut change = Some(change);
    writes(why, move |bytes| match change.take() {
        Some(change) => {
            change(bytes);
            Bend::Changed
        }
        None => Bend::Not,
    })
}

/// A controller that says the `nth` command to complete, counted from 1, was `cid`.
fn completion_id(nth: u32, cid: u16) -> Plan {
    let mut count = 0;
    writes(Purpose::Publish, move |bytes| {
        count += 1;
        if count != nth {
            return Bend::Not;
        }
        bytes[..2].copy_from_slice(&cid.to_le_bytes());
        Bend::Changed
    })
}

/// A device whose first vendor capability reads differently.
fn capability(field: u16, value: u32) -> Plan {
    Plan {
        config: Some(Box::new(move |at, width, space| {
            let first = first_vendor(space)?;
            (at == first + field && width == Width::Four).then_some(value)
        })),
        ..Plan::default()
    }
}

/// Where the first vendor capability is.
fn first_vendor(space: &[u8]) -> Option<u16> {
    let mut at = space[0x34];
    for _ in 0..48 {
        if space[usize::from(at)] == 9 {
            return Some(at.into());
        }
        at = space[usize::from(at) + 1];
    }
    None
}

/// Follows where the driver puts a ring: two halves of an address.
fn follow(place: [u32; 2], offset: u32, value: u64, address: &mut u64) {
    if offset == place[0] {
        *address = *address & !0xffff_ffff | value & 0xffff_ffff;
    } else if offset == place[1] {
        *address = *address & 0xffff_ffff | value << 32;
    }
}

/// A device that, when the driver touches `on`, writes `bytes` at `at` in the ring of `place`.
fn pokes(on: Poke, place: [u32; 2], at: u64, bytes: Vec<u8>) -> Plan {
    let ring = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&ring);
    let copy = bytes.clone();
    let mut acknowledged = 0;
    Plan {
        write: Some(Box::new(move |access, value, hand| {
            let mut address = ring.load(Relaxed);
            follow(place, access.offset(), value, &mut address);
            ring.store(address, Relaxed);
            if on == Poke::Doorbell && access.offset() == virtio::DOORBELL {
                hand.write(Iova(address + at), &bytes);
            }
            true
        })),
        read: Some(Box::new(move |access, honest, hand| {
            acknowledged += u32::from(access.offset() == virtio::ISR);
            if on == Poke::Acknowledge(acknowledged) {
                acknowledged += 1;
                hand.write(Iova(seen.load(Relaxed) + at), &copy);
            }
            honest
        })),
        ..Plan::default()
    }
}

/// When a device writes where it should not.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Poke {
    /// Before it looks at the ring.
    Doorbell,
    /// When its interrupt status is read for the so-many-th time.
    Acknowledge(u32),
}

fn trap(bug: Bug) -> Trap {
    use Step::{Factorial, Identify, Read, RoundTrip, Write};
    let secret = vec![0xa5; 512];
    let trip = [RoundTrip(vec![7; 64]), RoundTrip(vec![8; 64])];
    let two_reads = [Read(0, 512), Read(1, 512)];
    match bug {
        Bug::StatusPoll => {
            let started = Arc::new(AtomicBool::new(false));
            let busy = Arc::clone(&started);
            let mut plan = reads(edu::STATUS, move |value| {
                value | u64::from(busy.load(Relaxed))
            });
            plan.write = Some(Box::new(move |at, _, _| {
                started.fetch_or(at.offset() == edu::FACTORIAL, Relaxed);
                true
            }));
            Trap::new(plan, &[Factorial(5)])
        }
        Bug::InterruptLoop => Trap::new(
            reads(edu::REASONS, |_| edu::FACTORIAL_DONE),
            &[Factorial(5)],
        ),
        Bug::EarlyInterrupt => {
            let mut plan = reads(edu::REASONS, |value| value | edu::FACTORIAL_DONE);
            // The last register write of the probe, before interrupts are on.
            plan.spurious = Some((edu::ACKNOWLEDGE, Duration::from_micros(10)));
            Trap::new(plan, &[Factorial(5)])
        }
        Bug::ScratchCookie => Trap::new(reads(edu::LIVENESS, |_| 0), &[Factorial(5)]),
        Bug::TimeoutUnmap => Trap::new(
            sleepy(edu::DMA_COMMAND, 8),
            &[RoundTrip(vec![7; 64]), Factorial(5)],
        ),
        Bug::SpuriousInterrupt => {
            let plan = Plan {
                spurious: Some((edu::DMA_COMMAND, Duration::from_micros(5))),
                ..Plan::default()
            };
            Trap::new(plan, &trip)
        }
        Bug::TruncatedAddress => Trap {
            plan: Plan::default(),
            config: Config {
                high_memory: true,
                ..Config::default()
            },
            steps: trip.to_vec(),
        },
        Bug::BusMasterLeft => Trap::new(sleepy(edu::DMA_COMMAND, 20), &trip),
        Bug::LeakOnTimeout => Trap::new(sleepy(edu::DMA_COMMAND, 20), &trip),
        Bug::DroppedBuffer => Trap::new(sleepy(edu::DMA_COMMAND, 8), &trip),
        Bug::PaddedTransfer => {
            Trap::new(Plan::default(), &[RoundTrip(secret), RoundTrip(vec![1; 8])])
        }
        Bug::UsedIdIndex => {
            let plan = writes(Purpose::Completion, |element| {
                element[..4].copy_from_slice(&0x4141_u32.to_le_bytes());
                Bend::Changed
            });
            Trap::new(plan, &two_reads)
        }
        Bug::UsedLength => Trap::new(used_length(1, 0x2000), &two_reads),
        Bug::LengthUnderflow => Trap::new(used_length(1, 0), &two_reads),
        Bug::IdentifyLength => Trap::new(used_length(1, 0x100), &[Identify]),
        Bug::IdentifyScan => Trap::new(used_length(1, 0x100), &[Identify]),
        Bug::FabricatedData => {
            let mut payloads = 0;
            let mut elements = 0;
            let plan = Plan {
                dma: Some(Box::new(move |_, why, bytes| match why {
                    Purpose::Payload => {
                        payloads += 1;
                        if payloads == 2 {
                            Bend::Dropped
                        } else {
                            Bend::Not
                        }
                    }
                    Purpose::Completion => {
                        elements += 1;
                        if elements < 3 {
                            return Bend::Not;
                        }
                        bytes[4..8].copy_from_slice(&1_u32.to_le_bytes());
                        Bend::Changed
                    }
                    _ => Bend::Not,
                })),
                ..Plan::default()
            };
            Trap::new(plan, &[Write(0, secret), Read(0, 512), Read(1, 512)])
        }
        Bug::DoubleFetch => Trap::new(
            pokes(
                Poke::Acknowledge(2),
                virtio::USED,
                4 + 4,
                vec![0, 0x20, 0, 0],
            ),
            &[Read(0, 512)],
        ),
        Bug::ZeroCapacity => Trap::new(reads(virtio::CAPACITY, |_| 0), &two_reads),
        Bug::CapacityAllocation => {
            Trap::new(reads(virtio::CAPACITY + 4, |_| 0xffff_ffff), &two_reads)
        }
        Bug::ConfigGeneration => {
            let mut changed = false;
            let plan = reads(virtio::GENERATION, move |generation| {
                let first = !changed;
                changed = true;
                generation + u64::from(first)
            });
            Trap::new(plan, &two_reads)
        }
        Bug::CapabilityLoop => {
            let plan = Plan {
                config: Some(Box::new(|at, width, space| {
                    let first = first_vendor(space)?;
                    let start = usize::from(at);
                    let word = space.get(start..start + 4)?;
                    let word = u32::from_le_bytes(word.try_into().ok()?);
                    let circle = word & !0xff00 | u32::from(first) << 8;
                    (at == first && width == Width::Four).then_some(circle)
                })),
                ..Plan::default()
            };
            Trap::new(plan, &two_reads)
        }
        Bug::CapabilityOverflow => Trap::new(capability(8, 0xffff_fff0), &two_reads),
        Bug::QueueSize => Trap::new(reads(virtio::QUEUE_SIZE, |_| 128), &two_reads),
        Bug::RingWrap => Trap::new(
            used_length(1, 101),
            &[0, 1, 2, 3, 4, 5].map(|sector| Read(sector, 512)),
        ),
        Bug::StaleDescriptor | Bug::RetryDirection => Trap::new(first_fails(), &two_reads),
        Bug::UnmapByLength => Trap::new(used_length(1, 0x1fff), &[Read(0, 2048)]),
        Bug::FreeListInRing => Trap::new(
            pokes(
                Poke::Doorbell,
                virtio::DESCRIPTORS,
                // The link of the second slot's last descriptor.
                16 * 5 + 14,
                vec![0x41, 0x41],
            ),
            &[0; 4].map(|sector| Read(sector, 512)),
        ),
        Bug::ChainCircle => Trap::new(
            // The last descriptor of the chain leads to its first.
            pokes(
                Poke::Acknowledge(1),
                virtio::DESCRIPTORS,
                16 * 2 + 12,
                vec![1, 0, 0, 0],
            ),
            &two_reads,
        ),
        Bug::AssumedVector => Trap {
            plan: Plan::default(),
            config: Config {
                messages: false,
                ..Config::default()
            },
            steps: two_reads.to_vec(),
        },
        // Two admin commands create the queues.
        Bug::CompletionId => Trap::new(completion_id(3, 0x4141), &two_reads),
        Bug::DoubleCompletion => Trap::new(completion_id(4, 0x10), &two_reads),
        Bug::TransferLimit => Trap::new(
            first_write(Purpose::Payload, |controller| controller[77] = 60),
            &two_reads,
        ),
        Bug::LbaSize => Trap::new(
            first_write(Purpose::Payload, |namespace| namespace[130] = 0),
            &two_reads,
        ),
        Bug::QueueCount => Trap::new(
            first_write(Purpose::Completion, |entry| entry[..4].fill(0xff)),
            &two_reads,
        ),
        Bug::ResetIgnored => {
            let mut enabled = false;
            let mut plan = sleepy(nvme::IO_TAIL, 20);
            plan.write = Some(Box::new(move |at, value, _| {
                if at.offset() != nvme::CC {
                    return true;
                }
                enabled |= value & 1 == 1;
                value & 1 == 1 || !enabled
            }));
            Trap::new(plan, &[Read(0, 512)])
        }
        Bug::FailedProbe => Trap::new(sleepy(nvme::ADMIN_TAIL, 20), &two_reads),
    }
}

fn outcome_of(bug: Bug, build: Build) -> Outcome {
    let Trap {
        plan,
        config,
        steps,
    } = trap(bug);
    observe(bug, build, plan, config, &steps)
}

/// An entry of `planted.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: String,
    title: String,
    class: String,
    source: String,
    oracle: String,
    #[serde(default)]
    also: Vec<String>,
    file: String,
    function: String,
    family: Device,
    shows: Shows,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Device {
    Edu,
    Virtio,
    Nvme,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Shows {
    Hostile,
    Always,
    Platform,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Planted {
    bug: Vec<Entry>,
}

fn entries() -> Vec<Entry> {
    let list = include_str!("../planted.toml");
    toml::from_str::<Planted>(list).expect("a list of bugs").bug
}

fn entry(bug: Bug) -> Entry {
    let mut entries = entries().into_iter();
    entries
        .find(|entry| entry.id == bug.id())
        .unwrap_or_else(|| panic!("{bug:?} is not in planted.toml"))
}

/// What a fuzzer can tell.
const ORACLES: [&str; 17] = [
    "panic",
    "crash",
    "memory-error",
    "freed-while-mapped",
    "runaway",
    "dma-out-of-bounds",
    "dma-after-unmap",
    "dma-wrong-direction",
    "dma-unmapped",
    "leaked-bytes",
    "bad-unmap",
    "unbounded-wait",
    "interrupt-misuse",
    "unsent-data",
    "length-beyond-buffer",
    "leaked-mapping",
    "bus-held",
];

#[test]
fn list_and_drivers_are_the_same() {
    let entries = entries();
    assert!(entries.len() >= 24, "{} bugs are too few", entries.len());
    let listed: Vec<_> = entries.iter().map(|entry| entry.id.as_str()).collect();
    let written: Vec<_> = Bug::ALL.iter().map(|bug| bug.id()).collect();
    assert_eq!(listed, written);
    for (entry, bug) in entries.iter().zip(Bug::ALL) {
        assert_eq!(entry.file, bug.file(), "{bug:?}");
        let family = match bug.family() {
            Family::Edu => Device::Edu,
            Family::Virtio => Device::Virtio,
            Family::Nvme => Device::Nvme,
        };
        assert_eq!(entry.family, family, "{bug:?}");
        assert!(ORACLES.contains(&entry.oracle.as_str()), "{}", entry.oracle);
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let source = read_to_string(root.join(&entry.file)).expect("the file is there");
        let (owner, function) = entry.function.split_once("::").expect("type and function");
        assert_eq!(owner, format!("{bug:?}"));
        assert!(
            source.contains(&format!("fn {function}(")),
            "{bug:?}: {function}"
        );
        assert!(source.contains("V::PLANTED"), "{bug:?}: nothing is planted");
        for text in [&entry.title, &entry.class, &entry.source] {
            assert!(!text.is_empty(), "{bug:?}: say more");
        }
    }
}

#[test]
fn every_planted_bug_is_triggered() {
    // One that ends the process has a test of its own, and what one reads beyond its memory takes
    // AddressSanitizer to see.
    let elsewhere = ["crash", "memory-error"];
    let here = |bug: &&Bug| !elsewhere.contains(&entry(**bug).oracle.as_str());
    for bug in Bug::ALL.iter().filter(here) {
        let entry = entry(*bug);
        let outcome = outcome_of(*bug, Build::Planted);
        let mut told: BTreeSet<_> = entry.also.iter().map(String::as_str).collect();
        told.insert(&entry.oracle);
        let oracle = entry.oracle.as_str();
        assert!(outcome.findings.contains(oracle), "{bug:?}: {outcome:?}");
        assert!(outcome.findings.is_subset(&told), "{bug:?}: {outcome:?}");
        if entry.oracle == "panic" {
            let file = outcome.panic.as_deref().unwrap_or_default();
            assert!(file.ends_with(&entry.file), "{bug:?} panicked in {file}");
        }
        let needed = entry.shows == Shows::Hostile;
        assert!(
            outcome.acted > 0 || !needed,
            "{bug:?}: the device was honest"
        );
    }
}

#[test]
fn every_twin_bears_the_same() {
    for bug in Bug::ALL {
        let outcome = outcome_of(*bug, Build::Fixed);
        assert!(outcome.findings.is_empty(), "{bug:?}: {outcome:?}");
        let needed = entry(*bug).shows == Shows::Hostile;
        assert!(
            outcome.acted > 0 || !needed,
            "{bug:?}: the device was honest"
        );
    }
}

/// The process that is to end: this one, started again.
const CHILD: &str = "PLANTED_ALLOCATION";

#[test]
fn allocation_by_capacity_ends_the_process() {
    if env::var_os(CHILD).is_some() {
        let outcome = outcome_of(Bug::CapacityAllocation, Build::Planted);
        panic!("it went on: {outcome:?}");
    }
    let ended = Command::new(env::current_exe().expect("this test has a file"))
        .args(["--exact", "allocation_by_capacity_ends_the_process"])
        .env(CHILD, "1")
        .output()
        .expect("this test can be started again");
    assert_eq!(ended.status.signal(), Some(SIGABRT), "{ended:?}");
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(said.contains("memory allocation of"), "{said}");
}
