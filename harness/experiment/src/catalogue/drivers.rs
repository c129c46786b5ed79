//! Drivers under test, and the devices they drive.

use cofferdam_placement::own::{self, Known, Own};
use cofferdam_placement::trial::DriverId;
use serde::Serialize;
use std::sync::LazyLock;

/// A driver under test.
#[derive(Debug, Serialize)]
pub struct Driver {
    /// The name used on the command line and in records.
    pub id: &'static str,
    /// The driver.
    #[serde(skip)]
    pub driver: DriverId,
    /// What it is.
    pub line: &'static str,
    /// The device it drives, an id of [`DEVICES`].
    pub device: &'static str,
    /// The service it offers its tenants.
    pub service: &'static str,
    /// Whether it is ours or somebody else's, and under which licence.
    pub origin: &'static str,
}

/// A device model.
#[derive(Debug, Serialize)]
pub struct Device {
    /// Its name.
    pub id: &'static str,
    /// What it is.
    pub line: &'static str,
    /// What it was built from.
    pub source: &'static str,
}

/// Every driver: ours, then those of users.
pub static DRIVERS: LazyLock<Vec<Driver>> = LazyLock::new(|| {
    let own = own::Driver::table().list().into_iter().map(entry);
    OURS.into_iter().chain(own).collect()
});

/// The entry of a user's driver.
fn entry(own: Own<own::Driver>) -> Driver {
    let driver = own.get();
    Driver {
        id: driver.id,
        driver: DriverId::Own(own),
        line: driver.line,
        device: driver.device,
        service: if driver.is_block() {
            "block: reads and durable writes of 512-byte sectors"
        } else {
            "compute: factorials and DMA round trips"
        },
        origin: driver.origin,
    }
}

const OURS: [Driver; 4] = [
    Driver {
        id: "edu",
        driver: DriverId::Edu,
        line: "our driver of the edu device: every wait bounded, no PCIe or MSI-X needed",
        device: "edu",
        service: "compute: factorials and DMA round trips",
        origin: "this project",
    },
    Driver {
        id: "virtio-blk",
        driver: DriverId::VirtioBlk,
        line: "VirtIOBlk of virtio-drivers 0.13.0, unmodified, behind an adapter",
        device: "virtio-blk",
        service: "block: reads and durable writes of 512-byte sectors",
        origin: "crates.io, rCore-OS (MIT)",
    },
    Driver {
        id: "nvme",
        driver: DriverId::Nvme,
        line: "our driver of NVM Express controllers: every wait bounded by CAP.TO or a deadline",
        device: "nvme",
        service: "block: reads and durable writes of 512-byte sectors",
        origin: "this project",
    },
    Driver {
        id: "nvme-crate",
        driver: DriverId::NvmeCrate,
        line: "nvme-driver 0.8.2, unmodified, its registers behind trapped memory",
        device: "nvme",
        service: "block: reads, and writes followed by a flush, of 512-byte sectors",
        origin: "crates.io, rCore-OS (MIT)",
    },
];

/// Every device.
pub static DEVICES: [Device; 3] = [
    Device {
        id: "edu",
        line: "QEMU's educational device: factorials, a DMA engine with a 4 KiB buffer, MSI or INTx",
        source: "QEMU docs/specs/edu, with a PCI Express capability added for FLR",
    },
    Device {
        id: "virtio-blk",
        line: "virtio block device: modern PCI transport, one split queue, MSI-X or INTx",
        source: "virtio 1.2, 4.1 and 5.2; no VIRTIO_BLK_F_FLUSH: completed means durable",
    },
    Device {
        id: "nvme",
        line: "NVM Express controller: admin and I/O queues, PRP lists, MSI-X, one namespace",
        source: "NVM Express 1.4; no volatile write cache: completed means durable",
    },
];

/// The entry of a driver.
pub fn driver(id: DriverId) -> &'static Driver {
    match id {
        DriverId::Edu => &DRIVERS[0],
        DriverId::VirtioBlk => &DRIVERS[1],
        DriverId::Nvme => &DRIVERS[2],
        DriverId::NvmeCrate => &DRIVERS[3],
        // Whoever has the id has added its driver, and that before any list was made.
        DriverId::Own(_) => {
            let mut drivers = DRIVERS.iter();
            let own = drivers.find(|entry| entry.driver == id);
            own.unwrap_or(&DRIVERS[0])
        }
    }
}

/// The driver of that name.
pub fn driver_named(id: &str) -> Option<DriverId> {
    DRIVERS
        .iter()
        .find(|entry| entry.id.eq_ignore_ascii_case(id))
        .map(|entry| entry.driver)
}
