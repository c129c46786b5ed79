//! The unmodified crate nvme-driver.

use cofferdam_fuzz::host::FuzzHost;
use cofferdam_fuzz::target::{Argument, Call, CallSpec, Crate, Decode, Driver, Refused, Target};
use cofferdam_fuzz::witness::Witness;
use cofferdam_seam::service::{Block, SECTOR};
use cofferdam_seam::{Bar, Deadline, Device, DriverHost, Iova, Purpose};
use driver_nvme_crate::NvmeCrate;
use std::time::Duration;
use vdevice_nvme::{Decoder, Nvme, NvmeConfig};

/// How long a call may wait.
const PATIENCE: Duration = Duration::from_millis(1);

/// Blocks on the honest device.
const BLOCKS: u64 = 64;

const TRANSFER: &[Argument] = &[
    Argument {
        name: "sector",
        least: 0,
        most: BLOCKS,
    },
    Argument {
        name: "sectors",
        least: 1,
        most: 40,
    },
];

const CALLS: &[CallSpec] = &[
    CallSpec {
        name: "read",
        arguments: TRANSFER,
    },
    CallSpec {
        name: "write",
        arguments: TRANSFER,
    },
];

/// nvme-driver with our model of a controller.
#[derive(Debug)]
pub struct NvmeCrateTarget;

/// The one of it.
pub static NVME_CRATE: NvmeCrateTarget = NvmeCrateTarget;

impl Target for NvmeCrateTarget {
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
        Box::new(Nvme::new(NvmeConfig {
            blocks: BLOCKS,
            latency: Duration::from_micros(1),
            queues: 1,
            max_queue_entries: 4,
            ..NvmeConfig::default()
        }))
    }

    fn start(&self, host: FuzzHost, _: &mut Witness) -> Result<Box<dyn Driver>, Refused> {
        let blk = NvmeCrate::probe(host)?;
        Ok(Box::new(Running { blk, host }))
    }

    fn decoder(&self) -> Box<dyn Decode> {
        Box::new(Words(Decoder::new(0)))
    }
}

struct Running {
    blk: NvmeCrate<FuzzHost>,
    host: FuzzHost,
}

impl Driver for Running {
    fn call(&mut self, call: Call<'_>, witness: &mut Witness) -> Result<(), Refused> {
        let until = Deadline::after(self.host.now(), PATIENCE);
        let mut data = vec![0x5a; call.size(1) * SECTOR];
        if call.name() == "write" {
            self.blk.write(call.argument(0), &data, until)?;
        } else {
            witness.mark(&mut data);
            self.blk.read(call.argument(0), &mut data, until)?;
            witness.received("sectors", &data);
        }
        Ok(())
    }
}

/// The model's words.
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
