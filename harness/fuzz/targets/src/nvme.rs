//! NVMe: our driver, and the unmodified nvme-driver crate.

use crate::block::{CALLS, Running, SECTORS};
use cofferdam_fuzz::host::FuzzHost;
use cofferdam_fuzz::target::{CallSpec, Crate, Decode, Driver, Refused, Target};
use cofferdam_fuzz::witness::Witness;
use cofferdam_seam::{Bar, Device, Iova, Purpose};
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
        Box::new(Words(Decoder::default()))
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
        Box::new(Words(Decoder::default()))
    }
}

/// The words of the model's decoder.
struct Words(Decoder);

impl Decode for Words {
    fn register(&self, bar: Bar, offset: u32) -> Option<String> {
        self.0.register(bar, offset)
    }

    fn value(&self, bar: Bar, offset: u32, value: u64) -> Option<String> {
        self.0.value(bar, offset, value)
    }

    fn wrote(&mut self, bar: Bar, offset: u32, width: u8, value: u64) {
        self.0.wrote(bar, offset, width, value);
    }

    fn dma(&mut self, at: Iova, why: Purpose, bytes: &[u8]) -> Option<String> {
        self.0.dma(at, why, bytes)
    }
}
