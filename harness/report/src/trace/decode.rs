//! The words that each device has for its registers and descriptors.

use cofferdam_placement::trace::Dma;
use cofferdam_placement::trial::DriverId;
use cofferdam_seam::{Bar, Iova, Purpose};
use vdevice_nvme::NvmeConfig;

/// Reads along with a trial.
pub enum Decoder {
    Edu(vdevice_edu::Decoder),
    Virtio(vdevice_virtio::Decoder),
    Nvme(vdevice_nvme::Decoder),
    /// A user's device: nothing is known of it.
    Own(Unknown),
}

/// The same call on whichever device it is.
macro_rules! of {
    ($self:expr, $decoder:ident => $call:expr) => {
        match $self {
            Self::Edu($decoder) => $call,
            Self::Virtio($decoder) => $call,
            Self::Nvme($decoder) => $call,
            Self::Own($decoder) => $call,
        }
    };
}

/// Has no words for anything.
pub struct Unknown;

impl Unknown {
    fn register(&self, _: Bar, _: u32) -> Option<String> {
        None
    }

    fn value(&self, _: Bar, _: u32, _: u64) -> Option<String> {
        None
    }

    fn wrote(&mut self, _: Bar, _: u32, _: u8, _: u64) {}

    fn dma(&mut self, _: Iova, _: Purpose, _: &[u8]) -> Option<String> {
        None
    }
}

impl Decoder {
    /// For the device of that driver, as trials build it.
    pub fn of(driver: DriverId) -> Self {
        match driver {
            DriverId::Own(_) => Self::Own(Unknown),
            DriverId::Edu => Self::Edu(vdevice_edu::Decoder),
            DriverId::VirtioBlk => Self::Virtio(vdevice_virtio::Decoder::default()),
            DriverId::Nvme | DriverId::NvmeCrate => {
                let stride = NvmeConfig::default().doorbell_stride;
                Self::Nvme(vdevice_nvme::Decoder::new(stride))
            }
        }
    }

    /// A register, by name if it has one, and where it is.
    pub fn register(&self, bar: u8, offset: u32) -> String {
        let place = format!("BAR{bar}+{offset:#x}");
        let name =
            Bar::new(bar).and_then(|bar| of!(self, decoder => decoder.register(bar, offset)));
        match name {
            Some(name) => format!("{name} ({place})"),
            None => place,
        }
    }

    /// A register's value, with what its bits say.
    pub fn value(&self, bar: u8, offset: u32, value: u64) -> String {
        let says =
            Bar::new(bar).and_then(|bar| of!(self, decoder => decoder.value(bar, offset, value)));
        match says {
            Some(says) => format!("{value:#x} {says}"),
            None => format!("{value:#x}"),
        }
    }

    /// Takes note of a register write.
    pub fn wrote(&mut self, bar: u8, offset: u32, width: u8, value: u64) {
        if let Some(bar) = Bar::new(bar) {
            of!(self, decoder => decoder.wrote(bar, offset, width, value));
        }
    }

    /// What a memory request carries, if its device knows.
    pub fn dma(&mut self, dma: &Dma) -> Option<String> {
        of!(self, decoder => decoder.dma(Iova(dma.iova), dma.why, &dma.bytes))
    }
}
