//! What becomes of DMA that goes astray, by QEMU's edu, in a domain of the kernel's own.
//!
//! Nothing is judged here: the host holds what is seen against the model. D1 needs no driver: the
//! device is left unbound and told an address that nobody mapped. The others need something mapped
//! and go through the guest's kernel module.

use super::NotPassed;
use super::dma_module::{BUFFER, Bound, PAGE, edu, number, read, write};
use cofferdam_backends::vfio::Mapped;
use cofferdam_seam::Width;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// What victims hold; edu's own buffer holds zeros unless it was filled.
const FILL: u8 = 0x5a;
/// edu moves its data so long after the command (hw/misc/edu.c of QEMU).
const LATENCY: Duration = Duration::from_millis(100);
/// And no sooner than this: it counts whole milliseconds and drops what is beyond.
const SOONEST: Duration = Duration::from_millis(99);
/// When a transfer that has not ended is given up.
const PATIENCE: Duration = Duration::from_secs(5);
/// Linux's vector for "look at your run queue" (arch/x86/include/asm/irq_vectors.h). With one CPU
/// nobody honest sends it, and `/proc/interrupts` counts it.
const RESCHEDULE: u32 = 0xfd;
/// Where a write is an interrupt message to the first CPU (Intel SDM 3A, 11.11.1).
const MESSAGE: u64 = 0xfee0_0000;
/// How long before the device's second transfer its page is taken away.
const LEADS_MS: [u64; 6] = [2, 5, 8, 12, 16, 30];
/// How often a transfer is tried whose page was taken away too late.
const ATTEMPTS: u32 = 4;

/// One fault, by its name, in a domain of that type (as in the group's `type`; `off` without an
/// IOMMU).
pub fn run(arguments: &[String]) -> Result<Value, NotPassed> {
    let [fault, mode] = arguments else {
        return Err(NotPassed::Failed(json!({ "error": "usage: FAULT MODE" })));
    };
    let device = edu()?;
    let kind = device.join("iommu_group/type");
    if mode != "off" {
        write(&kind, mode)?;
    }
    let kind = read(&kind).map_or_else(|_| "off".to_owned(), |kind| kind.trim_end().to_owned());
    if kind != *mode {
        return Err(NotPassed::Failed(json!({ "wanted": mode, "type": kind })));
    }
    let seen = match fault.as_str() {
        "D1" => unmapped_page(&device),
        "D4.in-page" => overrun(&device, 0),
        "D4.cross" => overrun(&device, PAGE - 64),
        "D6" => after_unmap(&device),
        "D8" => read_only(&device),
        "I4" => forged_interrupt(&device),
        _ => Err(NotPassed::Failed(
            json!({ "error": format!("no fault `{fault}`") }),
        )),
    }?;
    Ok(json!({ "fault": fault, "mode": kind, "seen": seen }))
}

/// edu's registers, through the file of its BAR.
struct Registers(Mapped);

impl Registers {
    fn open(device: &Path) -> Result<Self, NotPassed> {
        let bar = OpenOptions::new()
            .read(true)
            .write(true)
            .open(device.join("resource0"))?;
        Ok(Self(Mapped::file(&bar, 0, 4096)?))
    }

    /// Starts moving `count` bytes between edu's buffer and an address.
    fn start(&self, address: u64, count: u64, to_memory: bool) {
        const BUFFER: u64 = 0x4_0000;
        let (source, destination) = if to_memory {
            (BUFFER, address)
        } else {
            (address, BUFFER)
        };
        self.0.store(0x80, Width::Eight, source);
        self.0.store(0x88, Width::Eight, destination);
        self.0.store(0x90, Width::Eight, count);
        self.0
            .store(0x98, Width::Eight, 1 | u64::from(to_memory) << 1);
    }

    /// Waits until the transfer has ended.
    fn finish(&self) -> Result<(), NotPassed> {
        let until = Instant::now() + PATIENCE;
        while self
            .0
            .load(0x98, Width::Eight)
            .is_none_or(|command| command & 1 != 0)
        {
            if Instant::now() > until {
                return Err(NotPassed::Failed(
                    json!({ "error": "edu's DMA does not end" }),
                ));
            }
            sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn transfer(&self, address: u64, count: u64, to_memory: bool) -> Result<(), NotPassed> {
        self.start(address, count, to_memory);
        self.finish()
    }
}

/// D1: an address that nobody mapped, by a device that nobody drives.
fn unmapped_page(device: &Path) -> Result<Value, NotPassed> {
    let page = Mapped::anonymous(4096)?;
    page.write(0, &[FILL; 4096]);
    let physical = physical(&page)?;
    enable(device)?;
    let registers = Registers::open(device)?;

    registers.transfer(physical, 64, true)?;

    let mut now = [0; 4096];
    page.read(0, &mut now);
    Ok(json!({ "landed": changed(&now) }))
}

/// D4: 63 bytes more than the 64 that are mapped, `offset` bytes into a page.
fn overrun(device: &Path, offset: u64) -> Result<Value, NotPassed> {
    let bound = Bound::new(device)?;
    let buffer = victim()?;
    let at = map(&bound, offset, 64, "from-device")?;

    Registers::open(device)?.transfer(at, 64 + 63, true)?;

    let now = content(&buffer)?;
    let end = usize::try_from(offset).map_err(io::Error::other)? + 64;
    Ok(json!({ "landed": changed(&now[end..]), "inside": changed(&now[..end]) }))
}

/// D6: the page is taken away shortly before the device's second transfer to it.
fn after_unmap(device: &Path) -> Result<Value, NotPassed> {
    let mut tries = Vec::new();
    for lead in LEADS_MS.map(Duration::from_millis) {
        for _ in 0..ATTEMPTS {
            if let Some((after_ns, landed)) = late_transfer(device, lead)? {
                tries.push(json!({ "after_ns": after_ns, "landed": landed }));
                break;
            }
        }
    }
    if tries.is_empty() {
        let error = "every unmapping came after its transfer: the host is too busy";
        return Err(NotPassed::Failed(json!({ "error": error })));
    }
    let landed: u64 = tries.iter().filter_map(|one| one["landed"].as_u64()).sum();
    Ok(json!({ "landed": landed, "tries": tries }))
}

/// Unmaps a page `lead` before it is written: how long before at the least, ns, and the bytes that
/// landed all the same. Nothing is learned where the host was busy and the unmapping came too late.
fn late_transfer(device: &Path, lead: Duration) -> Result<Option<(u64, usize)>, NotPassed> {
    let registers = Registers::open(device)?;
    let bound = Bound::new(device)?;
    let buffer = victim()?;
    let at = map(&bound, 0, 4096, "from-device")?;
    // The first transfer primes the IOTLB.
    registers.transfer(at, 64, true)?;
    buffer.write_all_at(&[FILL; 4096], 0)?;
    // Taken before the command, so edu moves its data then or later.
    let due = monotonic() + nanos(SOONEST);
    registers.start(at, 64, true);
    sleep(LATENCY - lead);
    bound.write("unmap", "0")?;
    let unmapped: u64 = bound.read("unmap")?.trim_end().parse()?;
    registers.finish()?;
    if unmapped >= due {
        return Ok(None);
    }
    Ok(Some((due - unmapped, changed(&content(&buffer)?))))
}

/// D8: a write to what is mapped for reading.
fn read_only(device: &Path) -> Result<Value, NotPassed> {
    let bound = Bound::new(device)?;
    let buffer = victim()?;
    let at = map(&bound, 0, 64, "to-device")?;

    Registers::open(device)?.transfer(at, 32, true)?;

    Ok(json!({ "landed": changed(&content(&buffer)?) }))
}

/// I4: an interrupt message that is none of the device's.
fn forged_interrupt(device: &Path) -> Result<Value, NotPassed> {
    let bound = Bound::new(device)?;
    let buffer = victim()?;
    buffer.write_all_at(&RESCHEDULE.to_le_bytes(), 0)?;
    let at = map(&bound, 0, 64, "to-device")?;
    let registers = Registers::open(device)?;
    registers.transfer(at, 4, false)?;
    let before = rescheduled()?;

    registers.transfer(MESSAGE, 4, true)?;

    let raised = rescheduled()?.saturating_sub(before);
    Ok(json!({ "landed": raised }))
}

/// Maps a part of the module's buffer in slot 0 and says where the device finds it.
fn map(bound: &Bound<'_>, offset: u64, len: u64, way: &str) -> Result<u64, NotPassed> {
    bound.write("map", &format!("0 {offset} {len} {way}"))?;
    let listed = bound.read("map")?;
    number(listed.split(' ').nth(1).unwrap_or_default())
}

/// The module's buffer, two pages of it filled.
fn victim() -> io::Result<File> {
    let buffer = OpenOptions::new().read(true).write(true).open(BUFFER)?;
    buffer.write_all_at(&[FILL; 8192], 0)?;
    Ok(buffer)
}

fn content(buffer: &File) -> io::Result<[u8; 8192]> {
    let mut now = [0; 8192];
    buffer.read_exact_at(&mut now, 0)?;
    Ok(now)
}

fn changed(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte != FILL).count()
}

/// Where the page behind a mapping is (Documentation/admin-guide/mm/pagemap.rst).
fn physical(page: &Mapped) -> Result<u64, NotPassed> {
    let number = page.pointer().addr().get() as u64 / PAGE;
    let mut entry = [0; 8];
    File::open("/proc/self/pagemap")?.read_exact_at(&mut entry, number * 8)?;
    let entry = u64::from_le_bytes(entry);
    let frame = entry & ((1 << 55) - 1);
    if entry >> 63 == 0 || frame == 0 {
        return Err(NotPassed::Skipped(
            "the kernel does not say where a page is".to_owned(),
        ));
    }
    Ok(frame * PAGE)
}

/// Memory decoding and bus mastering on, as a driver would (PCI 3.0, 6.2.2).
fn enable(device: &Path) -> Result<(), NotPassed> {
    let config = OpenOptions::new()
        .read(true)
        .write(true)
        .open(device.join("config"))?;
    let mut command = [0; 2];
    config.read_exact_at(&mut command, 4)?;
    command[0] |= 0b110;
    config.write_all_at(&command, 4)?;
    Ok(())
}

/// How often the first CPU was told to look at its run queue.
fn rescheduled() -> Result<u64, NotPassed> {
    let text = read(Path::new("/proc/interrupts"))?;
    let line = text
        .lines()
        .find_map(|line| line.trim_start().strip_prefix("RES:"));
    let count = line.and_then(|line| line.split_whitespace().next());
    Ok(count.unwrap_or("0").parse()?)
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// The clock of the module's time stamps.
fn monotonic() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}
