//! Our driver of NVMe on QEMU's controller, through `/dev/vfio`, behind the guest's IOMMU.

use super::NotPassed;
use cofferdam_backends::conformance;
use cofferdam_backends::vfio::platform::Platform;
use cofferdam_backends::vfio::{Options, VfioDevice};
use cofferdam_seam::service::{Block, DriverError, SECTOR};
use cofferdam_seam::{Deadline, DriverHost, InterruptKind};
use driver_nvme::Nvme;
use serde_json::{Value, json};
use std::time::Duration;

/// QEMU's controller.
const NVME: (u16, u16) = (0x1b36, 0x0010);

/// One request, on a machine that may be busy.
const PATIENCE: Duration = Duration::from_secs(5);

/// The suite every driver of a block device must pass, and a full queue: with mapped BARs and MSI-X,
/// or, with the argument `plain`, by system calls and INTx. Each instance leaves the controller so
/// that the next can start.
pub fn conforms(arguments: &[String]) -> Result<Value, NotPassed> {
    let plain = arguments.iter().any(|argument| argument == "plain");
    let (options, expected) = if plain {
        let options = Options {
            map_bars: false,
            interrupts: &[InterruptKind::Intx],
            ..Options::default()
        };
        (options, InterruptKind::Intx)
    } else {
        (Options::default(), InterruptKind::Msix)
    };
    let platform = Platform::here();
    let mut functions = platform.devices()?.into_iter();
    let found = functions.find(|function| (function.vendor, function.device) == NVME);
    let Some(function) = found else {
        return Err(NotPassed::Skipped("the machine has no NVMe".to_owned()));
    };
    let claim = platform.take(function.address, &[])?;
    let device = VfioDevice::open(&platform, function.address, &options)?;
    let interrupts = device.host().enable_interrupts(1)?;

    let mut driver = Nvme::probe(device.host())?;
    conformance::block_within(&mut driver, PATIENCE, || device.now());
    drop(driver);
    let mut driver = Nvme::probe(device.host())?;
    let deep = serves_a_full_queue(&mut driver, || Deadline::after(device.now(), PATIENCE))?;
    let (capacity, depth) = (driver.capacity(), driver.depth());
    drop(driver);

    let left = device.mappings();
    let failure = device.failure().map(|failure| failure.to_string());
    device.close();
    let released = claim.give_back()?;
    let detail = json!({
        "interrupts": format!("{:?}", interrupts.kind), "sectors": capacity, "depth": depth,
        "full_queue_differs": !deep, "mappings_left": left, "failure": failure,
        "released": released,
    });
    let well = interrupts.kind == expected && deep && left == 0 && failure.is_none();
    well.then_some(detail.clone())
        .ok_or(NotPassed::Failed(detail))
}

/// Writes and reads with as many commands in flight as there can be. Whether each sector came back
/// as it was written.
fn serves_a_full_queue<H: DriverHost>(
    driver: &mut Nvme<H>,
    until: impl Fn() -> Deadline,
) -> Result<bool, DriverError> {
    let sectors = (0_u8..).take(driver.depth());
    let mut tags = Vec::new();
    for sector in sectors.clone() {
        tags.push(driver.submit_write(sector.into(), &[!sector; SECTOR])?);
    }
    for tag in tags {
        driver.complete(tag, &mut [], until())?;
    }
    let mut tags = Vec::new();
    for sector in sectors {
        tags.push((sector, driver.submit_read(sector.into(), SECTOR)?));
    }
    let mut same = true;
    for (sector, tag) in tags {
        let mut bytes = [0; SECTOR];
        driver.complete(tag, &mut bytes, until())?;
        same &= bytes == [!sector; SECTOR];
    }
    Ok(same)
}
