//! Linux's own drivers, unmodified, on devices that we serve over vfio-user.

use cofferdam_experiment::catalogue::lies;
use cofferdam_guest::message::{Check, Task, Verdict};
use cofferdam_guest::{Boot, Guest, Iommu, Machine, Module, Outcome};
use cofferdam_placement::trial::DriverId;
use cofferdam_seam::Device;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use vdevice_nvme::{Nvme, NvmeConfig};
use vdevice_server::{Dma, Door, Options, Server};
use vdevice_tamper::{Tally, Tamper};
use vdevice_virtio::{BlkConfig, VirtioBlk};

/// MiB of a disk, and of the file on it.
const DISK: u64 = 128;
const FILE: u64 = 64;

/// Where the first device is plugged in.
const FIRST_SLOT: usize = 4;

/// Devices, each served by a thread of its own.
struct Served {
    place: tempfile::TempDir,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<std::io::Result<()>>>,
}

impl Served {
    fn new() -> Self {
        Self {
            place: tempfile::tempdir().expect("a directory"),
            stop: Arc::default(),
            threads: Vec::new(),
        }
    }

    /// Serves a device; QEMU's argument that plugs it in.
    fn add(&mut self, device: Box<dyn Device>, options: Options) -> String {
        let number = self.threads.len();
        let path = self.place.path().join(format!("{number}.sock"));
        let door = Door::open(&path).expect("a door");
        let stop = Arc::clone(&self.stop);
        let mut server = Server::new(device, options);
        let serve = move || server.serve_at(&door, &stop, |_| false);
        self.threads.push(std::thread::spawn(serve));
        plugged(&path, number)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let ended = thread.join();
            if !std::thread::panicking() {
                ended.expect("no panic").expect("no failure");
            }
        }
    }
}

fn plugged(path: &Path, number: usize) -> String {
    let path = path.display();
    let slot = FIRST_SLOT + number;
    format!(
        r#"{{"driver":"vfio-user-pci","addr":"{slot:x}.0","rombar":0,"socket":{{"type":"unix","path":"{path}"}}}}"#
    )
}

fn nvme(number: usize) -> Box<dyn Device> {
    Box::new(Nvme::new(NvmeConfig {
        blocks: DISK << 11,
        latency: Duration::ZERO,
        seed: number as u64,
        max_queue_entries: 1024,
        ..NvmeConfig::default()
    }))
}

fn virtio() -> Box<dyn Device> {
    Box::new(VirtioBlk::new(BlkConfig {
        sectors: DISK << 11,
        latency: Duration::ZERO,
        ..BlkConfig::default()
    }))
}

fn with_files(machine: Machine, tasks: Vec<Task>) -> Boot {
    let mut boot = Boot::new(machine, tasks);
    for module in ["vfat", "nls_cp437", "nls_ascii"] {
        boot.modules.push(Module::named(module));
    }
    boot
}

fn disk(name: &str) -> Task {
    let mut task = Task::with("disk", &[name, &FILE.to_string()]);
    task.deadline = Duration::from_secs(90);
    task
}

fn strict() -> Iommu {
    Iommu::Intel {
        caching_mode: true,
        interrupt_remapping: true,
    }
}

#[test]
fn linux_keeps_a_file_system_on_served_disks() {
    let Some(guest) = Guest::or_skip() else {
        return;
    };
    let tasks = vec![disk("nvme0n1"), disk("vda")];
    let mut boot = with_files(Machine::new(Iommu::None), tasks);
    boot.modules.push(Module::named("virtio_blk"));
    boot.deadline = Duration::from_secs(240);
    let mut served = Served::new();
    for device in [nvme(0), virtio()] {
        boot.devices.push(served.add(device, Options::default()));
    }

    let outcome = guest.run(&boot).expect("a life");

    assert_eq!(outcome.complaint(), None);
    assert_eq!(outcome.checks.len(), 2);
    for check in &outcome.checks {
        println!("{} {}", check.arguments[0], check.detail);
        assert_eq!(check.verdict, Verdict::Passed);
        assert_eq!(check.detail["mib"], FILE);
        assert_eq!(check.detail["sectors"], DISK << 11);
    }
}

#[test]
fn linux_keeps_a_file_system_on_a_served_disk_behind_an_iommu() {
    let Some(guest) = Guest::or_skip() else {
        return;
    };
    let mut boot = with_files(Machine::new(strict()), vec![disk("nvme0n1")]);
    boot.deadline = Duration::from_secs(240);
    let mut served = Served::new();
    boot.devices.push(served.add(nvme(0), Options::default()));

    let outcome = guest.run(&boot).expect("a life");

    assert_eq!(outcome.complaint(), None);
    println!("{}", outcome.checks[0].detail);
    let stray = |text: &str| text.contains("DMAR: [DMA");
    assert!(!outcome.records().any(|record| stray(&record.text)));
}

/// The faults, each of a controller of its own.
const FAULTS: [&str; 12] = [
    "D1.device.unbacked",
    "D4",
    "D6",
    "B1",
    "B2",
    "B9",
    "I1",
    "I2",
    "R1",
    "R2",
    "R4",
    "C2",
];

/// A served controller that begins to lie when the guest tells it to.
fn liar(served: &mut Served, fault: &str) -> (String, Arc<Tally>) {
    let number = served.threads.len();
    let all = lies(DriverId::Nvme);
    let is = |name: &str| name == fault;
    let lying = all.iter().find(|one| is(&one.name) || is(one.fault));
    let lying = lying.unwrap_or_else(|| panic!("no NVMe controller commits {fault}"));
    let lie = lying.lie(DriverId::Nvme, 1, 1).expect("a lie");
    let (tamper, tally) = Tamper::new(nvme(number), vec![lie]);
    let armed = Arc::clone(&tally);
    let options = Options {
        dma: Dma::Judged,
        trace: Some(Box::new(move |line| {
            if line.to_string().starts_with("write 7 0x3c 1 = [a5]") {
                armed.arm();
            }
        })),
    };
    (served.add(Box::new(tamper), options), tally)
}

/// What the guest's own words come to.
fn told(check: Option<&Check>) -> &'static str {
    let Some(check) = check else {
        return "system lost";
    };
    let logged = |texts: &[&str]| {
        let mut log = check.log.iter();
        log.any(|record| texts.iter().any(|text| record.text.contains(text)))
    };
    let count = |field: &str| check.detail[field].as_u64().unwrap_or(0);
    if logged(&["BUG:", "Oops", "general protection"]) {
        "oops"
    } else if check.verdict == Verdict::Failed {
        "hung"
    } else if count("mismatches") > 0 {
        "silent corruption"
    } else if count("errors") > 0 {
        "I/O error"
    } else if logged(&[
        "timeout",
        "resetting controller",
        "controller is down",
        "Abort",
    ]) {
        "reset"
    } else {
        "clean"
    }
}

fn meet_liars(guest: &Guest, iommu: Iommu) -> (Outcome, Vec<u32>) {
    let mut served = Served::new();
    let mut boot = Boot::new(Machine::new(iommu), Vec::new());
    boot.kernel_arguments.push(
        "nvme_core.io_timeout=2 nvme_core.admin_timeout=2 nvme_core.max_retries=1".to_owned(),
    );
    boot.deadline = Duration::from_secs(400);
    let mut tallies = Vec::new();
    for (number, fault) in FAULTS.iter().enumerate() {
        let (device, tally) = liar(&mut served, fault);
        boot.devices.push(device);
        tallies.push(tally);
        let address = format!("0000:00:{:02x}.0", FIRST_SLOT + number);
        let mut task = Task::with("lying-disk", &[&address]);
        task.deadline = Duration::from_secs(40);
        boot.tasks.push(task);
    }
    let outcome = guest.run(&boot).expect("a life");
    let acted = tallies.iter().map(|tally| tally.acted()).collect();
    (outcome, acted)
}

/// Twelve controllers in one guest, each with a fault of its own, behind a strict IOMMU; with
/// `COFFERDAM_GUEST_WHOLE=1` without one, too.
#[test]
fn linux_meets_controllers_that_lie() {
    let Some(guest) = Guest::or_skip() else {
        return;
    };
    let mut iommus = vec![strict()];
    if std::env::var_os("COFFERDAM_GUEST_WHOLE").is_some_and(|value| value == "1") {
        iommus.push(Iommu::None);
    }
    for iommu in iommus {
        let (outcome, acted) = meet_liars(&guest, iommu);

        println!("{iommu:?}: {:?}", outcome.ending);
        for (place, (fault, acted)) in FAULTS.iter().zip(&acted).enumerate() {
            let check = outcome.checks.get(place);
            println!(
                "{fault:20} acted {acted:3} {:18} {}",
                told(check),
                check.map_or(String::new(), |check| check.detail.to_string())
            );
            for record in check.into_iter().flat_map(|check| &check.log) {
                println!("    {}", record.text);
            }
        }
        assert_eq!(outcome.complaint(), None);
        assert!(acted.iter().all(|&acted| acted > 0), "{acted:?}");
        for (fault, check) in FAULTS.iter().zip(&outcome.checks) {
            let blocked = check
                .log
                .iter()
                .any(|record| record.text.contains("DMAR: [DMA Write"));
            let strays = ["D1.device.unbacked", "D4"].contains(fault);
            let walled = iommu != Iommu::None;
            assert!(!blocked || strays && walled, "{fault}: {check:?}");
            // The first stray is always told; the kernel limits how many it tells.
            assert!(blocked || *fault != FAULTS[0] || !walled, "{check:?}");
            // What a completion queue tells wrongly is noticed by the driver.
            let noticed = ["reset", "I/O error"].contains(&told(Some(check)));
            let lied = ["I2", "R1", "R2", "R4"].contains(fault);
            assert!(noticed || !lied, "{fault}: {check:?}");
        }
    }
}
