//! Linux's own drivers, unmodified, on devices that we serve over vfio-user.

use cofferdam_guest::message::{Task, Verdict};
use cofferdam_guest::{Boot, Guest, Iommu, Machine, Module};
use cofferdam_seam::Device;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;
use vdevice_nvme::{Nvme, NvmeConfig};
use vdevice_server::{Door, Options, Server};
use vdevice_virtio::{BlkConfig, VirtioBlk};

/// MiB of a disk, and of the file on it.
const DISK: u64 = 128;
const FILE: u64 = 64;

/// Where the first device is plugged in.
const FIRST_SLOT: usize = 4;

/// Devices, each served by a thread of its own.
pub struct Served {
    place: tempfile::TempDir,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<std::io::Result<()>>>,
    ended: Arc<Mutex<Vec<String>>>,
}

impl Served {
    pub fn new() -> Self {
        Self {
            place: tempfile::tempdir().expect("a directory"),
            stop: Arc::default(),
            threads: Vec::new(),
            ended: Arc::default(),
        }
    }

    /// How sessions of clients ended so far.
    pub fn ended(&self) -> Vec<String> {
        self.ended.lock().expect("no panic").clone()
    }

    /// Serves a device; QEMU's argument that plugs it in.
    pub fn add(&mut self, device: Box<dyn Device>, options: Options) -> String {
        let slot = FIRST_SLOT + self.threads.len();
        plugged(&self.serve(device, options), &format!("{slot:x}.0"))
    }

    /// Serves a device; where.
    pub fn serve(&mut self, device: Box<dyn Device>, options: Options) -> PathBuf {
        let number = self.threads.len();
        let path = self.place.path().join(format!("{number}.sock"));
        let door = Door::open(&path).expect("a door");
        let stop = Arc::clone(&self.stop);
        let mut server = Server::new(device, options);
        let ended = Arc::clone(&self.ended);
        let serve = move || {
            server.serve_at(&door, &stop, |how| {
                ended.lock().expect("no panic").push(how.to_string());
                false
            })
        };
        self.threads.push(std::thread::spawn(serve));
        path
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

fn plugged(path: &Path, address: &str) -> String {
    let path = path.display();
    format!(
        r#"{{"driver":"vfio-user-pci","addr":"{address}","rombar":0,"socket":{{"type":"unix","path":"{path}"}}}}"#
    )
}

pub fn nvme(number: usize) -> Box<dyn Device> {
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

pub fn with_files(machine: Machine, tasks: Vec<Task>) -> Boot {
    let mut boot = Boot::new(machine, tasks);
    for module in ["vfat", "nls_cp437", "nls_ascii"] {
        boot.modules.push(Module::named(module));
    }
    boot
}

pub fn disk(name: &str) -> Task {
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

/// Prints what a served disk does beside QEMU's own, and how many messages that takes. Times are the
/// host's and are not judged.
#[test]
fn linux_uses_a_served_disk_and_qemus_own_side_by_side() {
    let Some(guest) = Guest::or_skip() else {
        return;
    };
    let mut medium = tempfile::NamedTempFile::new().expect("a disk");
    medium.write_all(&vec![0; 16 << 20]).expect("a disk");
    // Served, served with mapped doorbells, QEMU's own on a file, and on nothing.
    let addresses = [
        "0000:00:04.0",
        "0000:00:05.0",
        "0000:00:08.0",
        "0000:00:09.0",
    ];
    let mut boot = Boot::new(Machine::new(Iommu::None), Vec::new());
    let mut task = Task::with("iops", &addresses);
    task.deadline = Duration::from_secs(90);
    boot.tasks.push(task);
    boot.media.push(format!(
        "driver=file,node-name=file,filename={}",
        medium.path().display()
    ));
    boot.media
        .push("driver=null-co,node-name=null,size=16777216,read-zeroes=on".to_owned());
    for (slot, medium) in [(8, "file"), (9, "null")] {
        boot.devices
            .push(format!("nvme,addr={slot}.0,serial={medium},drive={medium}"));
    }
    let counts: Arc<[AtomicU64; 3]> = Arc::default();
    let counted = Arc::clone(&counts);
    let mut served = Served::new();
    let options = Options {
        trace: Some(Box::new(move |line| {
            let kinds = ["read ", "write ", "raise "];
            let line = line.to_string();
            let kind = kinds.iter().position(|kind| line.starts_with(kind));
            if let Some(kind) = kind {
                counted[kind].fetch_add(1, Ordering::Relaxed);
            }
        })),
        ..Options::default()
    };
    boot.devices.push(served.add(nvme(0), options));
    let rings = Arc::new(AtomicU64::new(0));
    let rung = Arc::clone(&rings);
    let options = Options {
        map_doorbells: true,
        trace: Some(Box::new(move |line| {
            // Doorbells are on the second page of BAR 0. Before a driver sets MSI-X up the firmware uses the
            // disk: its first completion raises the pin, whereupon QEMU switches all mappings off, for 1.1 s
            // unless told (`vfio_intx_interrupt`, `x-intx-mmap-timeout-ms`), and the firmware's other rings, 7
            // of 8, come as messages. MSI-X ends that.
            let line = line.to_string();
            if line.starts_with("set-irqs 2 ") {
                rung.store(0, Ordering::Relaxed);
            }
            let to = line.strip_prefix("write 0 0x").unwrap_or_default();
            let to = to.split(' ').next().unwrap_or_default();
            if u32::from_str_radix(to, 16).is_ok_and(|at| (0x1000..0x2000).contains(&at)) {
                rung.fetch_add(1, Ordering::Relaxed);
            }
        })),
        ..Options::default()
    };
    boot.devices.push(served.add(nvme(1), options));

    let outcome = guest.run(&boot).expect("a life");

    assert_eq!(outcome.complaint(), None);
    assert_eq!(
        rings.load(Ordering::Relaxed),
        0,
        "rings by message under MSI-X"
    );
    let detail = &outcome.checks[0].detail;
    println!("requests of 4 KiB a second: {detail:#}");
    println!("register reads, writes, interrupts of the served disk: {counts:?}");
    for address in addresses {
        let rates = detail[address].as_object().expect("rates");
        assert!(
            rates.values().all(|rate| rate.as_f64() > Some(0.0)),
            "{rates:?}"
        );
    }
}
