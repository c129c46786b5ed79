//! Our driver of edu on QEMU's edu, through `/dev/vfio`, behind the guest's IOMMU.

use super::NotPassed;
use cofferdam_backends::conformance;
use cofferdam_backends::vfio::platform::{Address, Function, Platform};
use cofferdam_backends::vfio::{
    Door, Fault, OpenError, Options, Report, VfioDevice, Via, Workload, run,
};
use cofferdam_seam::service::DriverError;
use cofferdam_seam::{Bar, DriverHost, InterruptKind, Mmio, Width};
use driver_edu::Edu;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// QEMU's edu (docs/specs/edu.rst).
const EDU: (u16, u16) = (0x1234, 0x11e8);

/// QEMU's NVMe controller.
const NVME: (u16, u16) = (0x1b36, 0x0010);

/// It moves its data after 100 ms, twice in a round trip, on a machine that may be busy.
const PATIENCE: Duration = Duration::from_secs(5);

/// The suite every driver of a compute device must pass: with mapped BARs and MSI, or, with the
/// argument `plain`, by system calls and INTx. The device is opened by its group, or, with the
/// argument `cdev`, by its own node. Then it is where it was.
pub fn conforms(arguments: &[String]) -> Result<Value, NotPassed> {
    let platform = Platform::here();
    let before = edu(&platform)?;
    let claim = platform.take(before.address, &[])?;
    let plain = arguments.iter().any(|argument| argument == "plain");
    let (via, door) = ways(arguments);
    let (options, expected) = if plain {
        let options = Options {
            via,
            map_bars: false,
            interrupts: &[InterruptKind::Intx],
            ..Options::default()
        };
        (options, InterruptKind::Intx)
    } else {
        let options = Options {
            via,
            ..Options::default()
        };
        (options, InterruptKind::Msi)
    };
    let device = open(&platform, before.address, &options)?;
    let interrupts = device.host().enable_interrupts(1)?;
    let mut driver = Edu::probe(device.host())?;

    let started = Instant::now();
    conformance::compute_within(&mut driver, PATIENCE, || device.now());

    let took = started.elapsed();
    let read = register_read(&device)?;
    drop(driver);
    let left = device.mappings();
    let failure = device.failure().map(|failure| failure.to_string());
    device.close();
    let released = claim.give_back()?;
    let after = edu(&platform)?;
    let detail = json!({
        "device": before, "door": device.door(), "interrupts": format!("{:?}", interrupts.kind), "took_ms": took.as_millis(),
        "register_read_ns": read.as_nanos(), "mappings_left": left, "failure": failure,
        "released": released,
    });
    let restored = before == after && platform.taken().is_empty();
    let as_asked = interrupts.kind == expected && device.door() == door;
    let well = as_asked && left == 0 && failure.is_none() && restored;
    well.then_some(detail.clone())
        .ok_or(NotPassed::Failed(detail))
}

/// One fault of the driver's side, by its name: what the IOMMU makes of it. With `cdev` behind it,
/// the device is opened by its own node, else by its group.
pub fn fault(arguments: &[String]) -> Result<Value, NotPassed> {
    let wanted = arguments.first().map(String::as_str).unwrap_or_default();
    let fault = Fault::ALL.into_iter().find(|fault| fault.id() == wanted);
    let Some(fault) = fault else {
        let detail = json!({ "error": format!("no fault is called `{wanted}`") });
        return Err(NotPassed::Failed(detail));
    };
    let (via, door) = ways(arguments);
    let report = trial(Some(fault), via)?;
    let detail = json!(report);
    if report.is_finding() || report.door != door {
        Err(NotPassed::Failed(detail))
    } else {
        Ok(detail)
    }
}

/// A device is taken from the kernel's own driver, but not while somebody uses it; it has MSI-X, is
/// reset, and goes back.
pub fn takes_from_a_driver(_: &[String]) -> Result<Value, NotPassed> {
    /// The register that tells the version, 1.4 on QEMU's (NVMe 1.4, 3.1.2).
    const VERSION: u32 = 8;
    let platform = Platform::here();
    let before = find(&platform, NVME)?;
    let in_use = std::fs::File::open("/dev/nvme0")?;
    let refused = platform.take(before.address, &[]).map(drop);
    drop(in_use);
    let refused = refused.err().map(|error| error.to_string());

    let claim = platform.take(before.address, &[])?;
    let device = VfioDevice::open(&platform, before.address, &Options::default())?;
    let mut host = device.host();
    let interrupts = host.enable_interrupts(4)?;
    let version = host.map_bar(Bar::ZERO)?.read32(VERSION);
    let reset = device.reset()?;
    let again = host.map_bar(Bar::ZERO)?.read32(VERSION);
    let failure = device.failure().map(|failure| failure.to_string());
    drop(host);
    device.close();
    let released = claim.give_back()?;
    let after = find(&platform, NVME)?;

    let detail = json!({
        "before": before, "refused": refused, "door": device.door(), "interrupts": format!("{interrupts:?}"),
        "version": version, "reset": reset, "after_reset": again, "failure": failure,
        "released": released,
    });
    let well = before.driver.as_deref() == Some("nvme")
        && before == after
        && refused.is_some_and(|why| why.contains("has /dev/nvme0 open"))
        && (interrupts.kind, interrupts.count) == (InterruptKind::Msix, 4)
        && (version, reset, again) == (0x0001_0400, true, 0x0001_0400)
        && failure.is_none();
    well.then_some(detail.clone())
        .ok_or(NotPassed::Failed(detail))
}

/// What belongs to somebody is not taken: each function of the chipset is a bridge or shares a group
/// with one that would come along, and says so.
pub fn refuses(_: &[String]) -> Result<Value, NotPassed> {
    /// The chipset's vendor.
    const INTEL: u16 = 0x8086;
    let platform = Platform::here();
    let edu = edu(&platform)?.address;
    let mut refused = Vec::new();
    let mut taken = Vec::new();
    for function in platform.devices()? {
        if function.vendor != INTEL {
            continue;
        }
        match platform.take(function.address, &[]) {
            Ok(claim) => {
                claim.give_back()?;
                taken.push(function.address);
            }
            Err(error) => refused.push(error.to_string()),
        }
    }
    let mine = platform.obstacles(&platform.device(edu)?);
    let detail = json!({ "refused": refused, "taken": taken, "edu": mine });
    if taken.is_empty() && !refused.is_empty() && mine.is_empty() && platform.taken().is_empty() {
        Ok(detail)
    } else {
        Err(NotPassed::Failed(detail))
    }
}

/// After a process died with the device in its hands, anybody can give it back.
pub fn released_after_a_crash(_: &[String]) -> Result<Value, NotPassed> {
    let platform = Platform::here();
    let before = edu(&platform)?;
    let claim = platform.take(before.address, &[])?;
    let during = platform.device(before.address)?.driver;
    let record = claim.taken().clone();
    // A dead process gives nothing back.
    std::mem::forget(claim);
    let found = platform.taken();
    let released = platform.release(before.address)?;
    let after = edu(&platform)?;
    let detail = json!({ "during": during, "record": record, "released": released });
    let well = during.as_deref() == Some("vfio-pci") && found == [record] && after == before;
    well.then_some(detail.clone())
        .ok_or(NotPassed::Failed(detail))
}

/// How the device is to be opened, and how it must then have been.
fn ways(arguments: &[String]) -> (Via, Door) {
    if arguments.iter().any(|argument| argument == "cdev") {
        (Via::Cdev, Door::Cdev)
    } else {
        (Via::Group, Door::Group)
    }
}

/// A kernel that has no such way to a device is none to check.
fn open(platform: &Platform, address: Address, options: &Options) -> Result<VfioDevice, NotPassed> {
    VfioDevice::open(platform, address, options).map_err(not_passed)
}

fn not_passed(error: OpenError) -> NotPassed {
    match error {
        OpenError::NoCdev { .. } => NotPassed::Skipped(error.to_string()),
        error => error.into(),
    }
}

fn trial(fault: Option<Fault>, via: Via) -> Result<Report, NotPassed> {
    let platform = Platform::here();
    let address = edu(&platform)?.address;
    let claim = platform.take(address, &[])?;
    let workload = Workload {
        patience: PATIENCE,
        ..Workload::default()
    };
    let options = Options {
        via,
        ..Options::default()
    };
    let open = || VfioDevice::open(&platform, address, &options);
    let report = run(&platform, address, fault, &workload, open, Edu::probe);
    let report = report.map_err(not_passed)?;
    claim.give_back()?;
    Ok(report)
}

fn edu(platform: &Platform) -> Result<Function, NotPassed> {
    find(platform, EDU)
}

fn find(platform: &Platform, id: (u16, u16)) -> Result<Function, NotPassed> {
    let mut functions = platform.devices()?.into_iter();
    functions
        .find(|function| (function.vendor, function.device) == id)
        .ok_or_else(|| NotPassed::Skipped(format!("the machine has no {:04x}:{:04x}", id.0, id.1)))
}

/// How long a register read takes.
fn register_read(device: &VfioDevice) -> Result<Duration, DriverError> {
    const READS: u32 = 1000;
    let registers = device.host().map_bar(Bar::ZERO)?;
    let started = Instant::now();
    for _ in 0..READS {
        registers.read(0, Width::Four);
    }
    Ok(started.elapsed() / READS)
}
