//! A driver at work on a real device, with or without a fault, and what came of it.
//!
//! The oracles: the memory the faulty access would change (bytes landed), the kernel's log of what
//! the IOMMU refused, and the driver's own answers.

use crate::vfio::addresses::PAGE;
use crate::vfio::device::{OpenError, Pages, VfioDevice};
use crate::vfio::door::Door;
use crate::vfio::fault::{Fault, Faulty, Strike, Struck};
use crate::vfio::host::VfioHost;
use crate::vfio::mapped::Mapped;
use crate::vfio::platform::{Address, IommuFault, KernelLog, Platform};
use cofferdam_machine::Verdict;
use cofferdam_seam::service::{Compute, DriverError};
use cofferdam_seam::{Deadline, Iova, Width};
use serde::Serialize;
use std::cell::RefCell;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::rc::Rc;
use std::time::Duration;

/// How long a refused DMA may take to show in the kernel's log, and one that was under way to
/// happen: QEMU's edu moves its data after 100 ms.
const SETTLE: Duration = Duration::from_millis(500);

/// Pages to choose a victim from.
const VICTIMS: usize = 64;

/// What nobody writes there.
const PATTERN: u8 = 0xc3;

/// Command register and its bus-master bit in sysfs's configuration space (PCI 3.0, 6.2.2).
const COMMAND: u64 = 4;
const BUS_MASTER: u8 = 1 << 2;

/// What the driver is asked to do.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    /// Round trips before the fault, and after it.
    pub requests: u32,
    /// How long each may take.
    pub patience: Duration,
    /// Asked between requests whether to leave out the rest.
    pub stop: fn() -> bool,
}

impl Default for Workload {
    fn default() -> Self {
        Self {
            requests: 3,
            patience: Duration::from_secs(2),
            stop: || false,
        }
    }
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// No fault was asked for, and every answer was right.
    Clean,
    /// No fault was asked for, and answers were wrong or missing.
    Failed,
    /// The fault did not come about: nothing is known.
    NotActivated,
    /// The faulty access reached memory it had no right to.
    Landed,
    /// The faulty access reached nothing.
    Blocked,
    /// Nothing shows whether it reached something, or was tried at all.
    Unclear,
}

/// What stopped a faulty access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wall {
    /// The IOMMU: the kernel has a record of it.
    Iommu,
    /// The kernel had switched the device's bus mastering off.
    BusMastering,
    /// Something: the device ended the request and nothing landed, but there is no record of it.
    /// Records are rate-limited.
    Unrecorded,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The fault, if any.
    pub fault: Option<Fault>,
    /// Which way the device was opened.
    pub door: Door,
    /// How it ended.
    pub outcome: Outcome,
    /// What stopped the faulty access.
    pub wall: Option<Wall>,
    /// Bytes that the faulty access changed and should not have; `None` if that cannot be seen.
    pub bytes_landed: Option<u64>,
    /// The address the device was given, if the fault struck.
    pub address: Option<u64>,
    /// What the ledger said of the access before it was made.
    pub verdict: Option<String>,
    /// The records that the faulty access caused.
    pub records: Vec<IommuFault>,
    /// Other records of this device: accesses that nobody planned.
    pub other_records: Vec<IommuFault>,
    /// Why there may be no records: the log cannot be read.
    pub no_log: Option<String>,
    /// Round trips whose bytes came back as they went out.
    pub right: u32,
    /// Round trips whose bytes came back different, without an error.
    pub wrong: u32,
    /// Errors of the driver.
    pub errors: Vec<String>,
    /// Whether the driver worked again after the fault, started anew where it had failed.
    pub recovered: Option<bool>,
    /// What the kernel refused that it should not have.
    pub failure: Option<String>,
}

impl Report {
    /// Whether something is wrong that no planned fault explains.
    pub fn is_finding(&self) -> bool {
        let expected = match self.fault {
            None => self.outcome == Outcome::Clean,
            // The granule is the page: what shares one is reachable.
            Some(Fault::D4InPage) => self.outcome == Outcome::Landed,
            Some(_) => self.outcome == Outcome::Blocked,
        };
        !expected
            || !self.other_records.is_empty()
            || self.failure.is_some()
            || self.recovered == Some(false)
    }
}

/// Runs a driver's workload on the device that `open` opens, strikes once if there is a fault, and
/// looks at the oracles. The device is closed when it returns.
///
/// # Errors
///
/// If the device cannot be opened.
pub fn run<D: Compute>(
    platform: &Platform,
    address: Address,
    fault: Option<Fault>,
    workload: &Workload,
    open: impl Fn() -> Result<VfioDevice, OpenError>,
    probe: impl Fn(Faulty<VfioHost>) -> Result<D, DriverError>,
) -> Result<Report, OpenError> {
    let (log, no_log) = match KernelLog::follow(platform) {
        Ok(log) => (Some(log), None),
        Err(error) => (None, Some(error.to_string())),
    };
    let device = open()?;
    let mut trial = Trial {
        address,
        log,
        workload,
        seed: 0,
        report: Report {
            fault,
            door: device.door(),
            outcome: Outcome::Clean,
            wall: None,
            bytes_landed: None,
            address: None,
            verdict: None,
            records: Vec::new(),
            other_records: Vec::new(),
            no_log,
            right: 0,
            wrong: 0,
            errors: Vec::new(),
            recovered: None,
            failure: None,
        },
    };
    let started = |device: &VfioDevice, strike: Option<&Rc<Strike>>| {
        probe(Faulty::new(device.host(), strike.map(Rc::clone)))
    };
    match fault {
        None => {
            let mut driver = started(&device, None);
            trial.honest(&device, &mut driver);
        }
        Some(fault) => {
            let victim = (fault == Fault::D1)
                .then(|| Victim::find(&device))
                .flatten();
            let watched = Rc::new(RefCell::new(None));
            let watch = {
                let (device, watched) = (device.clone(), Rc::clone(&watched));
                move |id, struck: Struck| {
                    *watched.borrow_mut() = device.pages(id).map(|pages| Watched {
                        verdict: device.judge(struck.at, struck.len as u64, true),
                        before: pages.bytes(),
                        pages,
                    });
                }
            };
            let wild = match &victim {
                Some(victim) => victim.at,
                None => device.never_mapped().unwrap_or(Iova(0)),
            };
            let strike = Strike::new(fault, wild, watch);
            let mut driver = started(&device, Some(&strike));
            trial.honest(&device, &mut driver);
            strike.arm();
            trial.drain();
            let completed = trial.request(&device, &mut driver, fault.request());
            let alive = if fault == Fault::D12 {
                // A dead driver tidies nothing up.
                std::mem::forget(driver);
                device.close();
                None
            } else {
                Some(driver)
            };
            let seen = Seen {
                struck: strike.struck(),
                watched: watched.take(),
                completed,
                victim,
                mastering: mastering(platform, address),
            };
            trial.judge(fault, &seen);
            let before = trial.report.right;
            match alive {
                Some(driver) => {
                    let mut driver = match driver {
                        // What has failed is started anew.
                        Ok(_) if trial.report.errors.is_empty() => driver,
                        _ => {
                            drop(driver);
                            started(&device, None)
                        }
                    };
                    trial.honest(&device, &mut driver);
                }
                None => {
                    let device = open()?;
                    let mut driver = started(&device, None);
                    trial.honest(&device, &mut driver);
                    trial.look_for_failures(&device);
                }
            }
            trial.report.recovered = Some(trial.report.right == before + workload.requests);
        }
    }
    trial.look_for_failures(&device);
    Ok(trial.finish())
}

struct Trial<'a> {
    address: Address,
    log: Option<KernelLog>,
    workload: &'a Workload,
    seed: u8,
    report: Report,
}

/// The strike as it happened.
struct Watched {
    /// What the ledger says of the access while it is made.
    verdict: Verdict,
    /// The pages of the buffer it is about.
    pages: Pages,
    /// What they held.
    before: Vec<u8>,
}

/// What is known after the strike.
struct Seen {
    struck: Option<Struck>,
    watched: Option<Watched>,
    /// The driver saw the device end the request.
    completed: bool,
    victim: Option<Victim>,
    /// Whether the device may still master the bus.
    mastering: Option<bool>,
}

impl Seen {
    /// Bytes changed that no sanctioned write changed.
    fn landed(&self, fault: Fault) -> Option<u64> {
        if fault == Fault::D1 {
            let victim = self.victim.as_ref()?;
            return Some(victim.changed());
        }
        let struck = self.struck?;
        let watched = self.watched.as_ref()?;
        let offset = usize::try_from(struck.mapped.0).ok()? % PAGE;
        let sanctioned = match fault {
            Fault::D4 | Fault::D4InPage => offset..offset + struck.len,
            _ => 0..0,
        };
        let after = watched.pages.bytes();
        let changed = watched.before.iter().zip(&after).enumerate();
        let changed = changed.filter(|(at, (old, new))| old != new && !sanctioned.contains(at));
        Some(changed.count() as u64)
    }
}

impl Trial<'_> {
    /// Round trips nobody tampers with.
    fn honest<D: Compute>(&mut self, device: &VfioDevice, driver: &mut Result<D, DriverError>) {
        for _ in 0..self.workload.requests {
            if (self.workload.stop)() || !self.request(device, driver, 4096) {
                return;
            }
        }
    }

    /// One round trip; whether the driver can go on.
    fn request<D: Compute>(
        &mut self,
        device: &VfioDevice,
        driver: &mut Result<D, DriverError>,
        len: usize,
    ) -> bool {
        let done = match driver {
            Ok(driver) => {
                let len = len.min(driver.round_trip_limit());
                self.seed = self.seed.wrapping_add(2);
                // Never zero, which is what memory holds before.
                let out: Vec<u8> = (0..=u8::MAX)
                    .map(|byte| (byte ^ self.seed) | 1)
                    .cycle()
                    .take(len)
                    .collect();
                let mut back = vec![0; len];
                let until = Deadline::after(device.now(), self.workload.patience);
                let done = driver.round_trip(&out, &mut back, until);
                done.map(|()| out == back)
            }
            Err(error) => Err(*error),
        };
        match done {
            Ok(true) => self.report.right += 1,
            Ok(false) => self.report.wrong += 1,
            Err(error) => self.report.errors.push(error.to_string()),
        }
        done.is_ok()
    }

    /// Sorts out what was reported so far: nobody planned it.
    fn drain(&mut self) {
        if let Some(log) = &mut self.log {
            let earlier = log.faults();
            let ours = |fault: &IommuFault| fault.requester.same_function(self.address);
            self.report
                .other_records
                .extend(earlier.into_iter().filter(ours));
        }
    }

    fn judge(&mut self, fault: Fault, seen: &Seen) {
        let Some(struck) = seen.struck else {
            self.report.outcome = Outcome::NotActivated;
            return;
        };
        self.report.address = Some(struck.at.0);
        self.report.verdict = match fault {
            // It happens after the device was taken away.
            Fault::D12 => Some("use after unmap".to_owned()),
            _ => seen.watched.as_ref().map(|seen| seen.verdict.to_string()),
        };
        let bytes = struck.at.0..struck.at.0.saturating_add(struck.len as u64);
        let address = self.address;
        let caused = |record: &IommuFault| record.is_of(address, true, &bytes);
        match &mut self.log {
            Some(log) => {
                let found = log.faults_until(caused, SETTLE);
                let (records, others): (Vec<_>, Vec<_>) = found
                    .into_iter()
                    .filter(|record| record.requester.same_function(address))
                    .partition(caused);
                self.report.records = records;
                self.report.other_records.extend(others);
            }
            // The driver has seen the end of every other DMA.
            None if fault == Fault::D12 => std::thread::sleep(SETTLE),
            None => {}
        }
        let landed = seen.landed(fault);
        self.report.bytes_landed = landed;
        let recorded = !self.report.records.is_empty();
        (self.report.outcome, self.report.wall) = match landed {
            Some(1..) => (Outcome::Landed, None),
            _ if recorded => (Outcome::Blocked, Some(Wall::Iommu)),
            // What shows nowhere may not have been tried at all.
            Some(0) if fault == Fault::D12 && seen.mastering == Some(false) => {
                (Outcome::Blocked, Some(Wall::BusMastering))
            }
            Some(0) if fault != Fault::D12 && seen.completed => {
                (Outcome::Blocked, Some(Wall::Unrecorded))
            }
            Some(0) | None => (Outcome::Unclear, None),
        };
    }

    fn look_for_failures(&mut self, device: &VfioDevice) {
        if let Some(failure) = device.failure() {
            self.report.failure = Some(failure.to_string());
        }
    }

    fn finish(mut self) -> Report {
        self.drain();
        let wanted = self.workload.requests;
        let well = self.report.right == wanted && self.report.errors.is_empty();
        if self.report.fault.is_none() && !well {
            self.report.outcome = Outcome::Failed;
        }
        self.report
    }
}

/// A page that is not the driver's.
struct Victim {
    memory: Mapped,
    page: Range<usize>,
    /// Its physical address, at which nothing is ever mapped.
    at: Iova,
}

impl Victim {
    /// The lowest of some pages of this process, for devices that do not reach far. `None` if the
    /// kernel does not tell where they are.
    fn find(device: &VfioDevice) -> Option<Self> {
        let memory = Mapped::anonymous(VICTIMS * PAGE).ok()?;
        let pagemap = File::open("/proc/self/pagemap").ok()?;
        let starts = (0..memory.len()).step_by(PAGE);
        let mut places: Vec<_> = starts
            .filter_map(|start| {
                memory.write(start, &[PATTERN; PAGE]);
                let at = physical(&pagemap, memory.pointer().as_ptr().addr() + start)?;
                Some((Iova(at), start))
            })
            .collect();
        places.sort_unstable();
        let mut places = places.into_iter();
        let (at, start) = places.find(|&(at, _)| device.keep_free(at))?;
        Some(Self {
            memory,
            page: start..start + PAGE,
            at,
        })
    }

    fn changed(&self) -> u64 {
        let changed = self.page.clone().filter(|&at| {
            let byte = self.memory.load(at, Width::One);
            byte != Some(PATTERN.into())
        });
        changed.count() as u64
    }
}

/// Where the page at a virtual address is (Documentation/admin-guide/mm/pagemap.rst): frame number
/// in bits 0 to 54, present in bit 63. Without the privilege the number reads as 0.
fn physical(pagemap: &File, address: usize) -> Option<u64> {
    let mut entry = [0; 8];
    let at = (address / PAGE * 8) as u64;
    pagemap.read_exact_at(&mut entry, at).ok()?;
    let entry = u64::from_le_bytes(entry);
    let frame = entry & ((1 << 55) - 1);
    (entry >> 63 == 1 && frame != 0).then_some(frame * PAGE as u64)
}

/// Whether the device may master the bus, as its configuration space says behind VFIO's back.
fn mastering(platform: &Platform, address: Address) -> Option<bool> {
    let config = File::open(platform.device_path(address).join("config")).ok()?;
    let mut command = [0];
    config.read_exact_at(&mut command, COMMAND).ok()?;
    Some(command[0] & BUS_MASTER != 0)
}
