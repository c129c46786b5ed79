//! The words that each device has for its registers and descriptors.

use cofferdam_placement::trace::Dma;
use cofferdam_placement::trial::DriverId;
use cofferdam_seam::{Bar, Decode, Iova, Undecoded};
use vdevice_nvme::NvmeConfig;

/// Reads along with a trial.
pub struct Decoder(Box<dyn Decode>);

impl Decoder {
    /// For the device of that driver, as trials build it. Of a user's device nothing is known.
    pub fn of(driver: DriverId) -> Self {
        Self(match driver {
            DriverId::Own(_) => Box::new(Undecoded),
            DriverId::Edu => Box::new(vdevice_edu::Decoder),
            DriverId::VirtioBlk => Box::new(vdevice_virtio::Decoder::default()),
            DriverId::Nvme | DriverId::NvmeCrate => {
                let stride = NvmeConfig::default().doorbell_stride;
                Box::new(vdevice_nvme::Decoder::new(stride))
            }
        })
    }

    /// A register, by name if it has one, and where it is.
    pub fn register(&self, bar: u8, offset: u32) -> String {
        let place = format!("BAR{bar}+{offset:#x}");
        let name = Bar::new(bar).and_then(|bar| self.0.register(bar, offset));
        match name {
            Some(name) => format!("{name} ({place})"),
            None => place,
        }
    }

    /// A register's value, with what its bits say.
    pub fn value(&self, bar: u8, offset: u32, value: u64) -> String {
        let says = Bar::new(bar).and_then(|bar| self.0.value(bar, offset, value));
        match says {
            Some(says) => format!("{value:#x} {says}"),
            None => format!("{value:#x}"),
        }
    }

    /// Takes note of a register write.
    pub fn wrote(&mut self, bar: u8, offset: u32, width: u8, value: u64) {
        if let Some(bar) = Bar::new(bar) {
            self.0.wrote(bar, offset, width, value);
        }
    }

    /// What a memory request carries, if its device knows.
    pub fn dma(&mut self, dma: &Dma) -> Option<String> {
        self.0.dma(Iova(dma.iova), dma.why, &dma.bytes)
    }
}
