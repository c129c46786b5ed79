//! NVMe: our driver, and the unmodified nvme-driver crate.

use crate::block::{CALLS, Running, SECTORS};
use cofferdam_fuzz::host::FuzzHost;
use cofferdam_fuzz::target::{CallSpec, Crate, Decode, Driver, Refused, Target};
use cofferdam_fuzz::witness::Witness;
use cofferdam_seam::Device;
use std::time::Duration;
use vdevice_nvme::{Decoder, Nvme, NvmeConfig};

/// Our driver.
pub static OURS: Ours = Ours;

/// The crate nvme-driver, whose registers are trapped.
pub static CRATE: NvmeCrate = NvmeCrate;

/// See [`OURS`].
pub struct Ours;

/// See [`CRATE`].
pub struct NvmeCrate;

fn model() -> Box<dyn Device> {
    Box::new(Nvme::new(NvmeConfig {
        blocks: SECTORS,
        latency: Duration::ZERO,
        ..NvmeConfig::default()
    }))
}

impl Target for Ours {
    fn name(&self) -> &'static str {
        "nvme"
    }

    fn driver(&self) -> Crate {
        Crate {
            name: "driver-nvme",
            version: "0.1.0",
        }
    }

    fn calls(&self) -> &'static [CallSpec] {
        CALLS
    }

    fn device(&self) -> Box<dyn Device> {
        model()
    }

    fn start(&self, host: FuzzHost, _: &mut Witness) -> Result<Box<dyn Driver>, Refused> {
        let driver = driver_nvme::Nvme::probe(host)?;
        Ok(Box::new(Running { driver, host }))
    }

    fn decoder(&self) -> Box<dyn Decode> {
        Box::new(Decoder::default())
    }
}

impl Target for NvmeCrate {
    fn name(&self) -> &'static str {
        "nvme-driver"
    }

    fn driver(&self) -> Crate {
        Crate {
            name: "nvme-driver",
            version: "0.8.2",
        }
    }

    fn calls(&self) -> &'static [CallSpec] {
        CALLS
    }

    fn device(&self) -> Box<dyn Device> {
        model()
    }

    fn start(&self, host: FuzzHost, _: &mut Witness) -> Result<Box<dyn Driver>, Refused> {
        let driver = driver_nvme_crate::NvmeCrate::probe(host)?;
        Ok(Box::new(Running { driver, host }))
    }

    fn decoder(&self) -> Box<dyn Decode> {
        Box::new(Decoder::default())
    }
}
