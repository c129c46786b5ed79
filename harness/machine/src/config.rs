//! The choices that make one machine differ from another: the axes of every comparison.

use core::time::Duration;
use serde::{Deserialize, Serialize};

/// What stands between a device and memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IommuMode {
    /// No IOMMU: an IOVA is a physical address.
    Off,
    /// An IOMMU that maps all memory one to one (`iommu.passthrough=1`).
    Passthrough,
    /// Translation with batched invalidation: an entry may outlive its mapping in the IOTLB until
    /// 256 unmappings or 10 ms have gathered (Linux's default DMA-FQ domains).
    Lazy,
    /// Translation with invalidation before `unmap` returns.
    Strict,
    /// Strict, and what does not fill its pages is copied through pages of its own, so that a device
    /// reaches nothing beside it (Linux's swiotlb for untrusted devices, `drivers/iommu/dma-iommu.c`).
    Bounce,
}

impl IommuMode {
    /// Every mode, weakest first.
    pub const ALL: [Self; 5] = [
        Self::Off,
        Self::Passthrough,
        Self::Lazy,
        Self::Strict,
        Self::Bounce,
    ];

    /// Whether addresses are translated, so that an unmapped one can be refused.
    pub const fn translates(self) -> bool {
        matches!(self, Self::Lazy | Self::Strict | Self::Bounce)
    }
}

/// The fabric between root ports, devices and CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FabricKind {
    /// PCI Express with the completion timeout switched off.
    PcieNotimeout,
    /// PCI Express with a completion timeout.
    Pcie,
}

impl FabricKind {
    /// Every fabric, weakest first.
    pub const ALL: [Self; 2] = [Self::PcieNotimeout, Self::Pcie];
}

/// What a completion timeout does to the CPU that waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TimeoutEnds {
    /// The read returns all ones.
    AllOnes,
    /// The platform reports a fatal error and the system stops.
    MachineCheck,
}

/// A machine's parameters. [`Config::default`] has the figures of real platforms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// The IOMMU mode.
    pub iommu: IommuMode,
    /// The fabric.
    pub fabric: FabricKind,
    /// How long a non-posted request may stay open on [`FabricKind::Pcie`]. 50 us to 50 ms by
    /// default in the standard (PCI Express Base 6.0, 7.5.3.16).
    pub completion_timeout: Duration,
    /// How such a timeout ends.
    pub timeout_ends: TimeoutEnds,
    /// IOTLB entries; the oldest gives way.
    pub iotlb_entries: usize,
    /// Unmappings that a lazy IOMMU gathers before it invalidates.
    pub lazy_entries: usize,
    /// How long a lazy IOMMU may wait before it invalidates.
    pub lazy_delay: Duration,
    /// Whether interrupts are remapped, so that a function reaches its own vectors only.
    pub interrupt_remapping: bool,
    /// Fault records the IOMMU can hold before it drops them.
    pub fault_log: usize,
    /// Whether requests that say their address is translated are believed (ATS, PCI Express Base
    /// 6.0, 10.1). Without an IOMMU nothing looks at that field and they pass as all others do.
    pub ats: bool,
    /// A frame that firmware had mapped one to one for every device, for good (VT-d's reserved
    /// memory regions, Intel VT-d 4.0, 8.4).
    pub reserved: Option<u64>,
    /// Whether ports refuse requests under another function's requester ID (ACS source validation,
    /// PCI Express Base 6.0, 6.12.1.1).
    pub source_validation: bool,
    /// Whether the driver's DMA memory answers above 4 GiB, see
    /// [`HIGH_BANK`](crate::frames::HIGH_BANK), and IOVAs are handed out there too.
    pub high_memory: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            iommu: IommuMode::Strict,
            fabric: FabricKind::Pcie,
            completion_timeout: Duration::from_millis(50),
            timeout_ends: TimeoutEnds::AllOnes,
            iotlb_entries: 64,
            lazy_entries: 256,
            lazy_delay: Duration::from_millis(10),
            interrupt_remapping: false,
            fault_log: 16,
            ats: false,
            reserved: None,
            source_validation: false,
            high_memory: false,
        }
    }
}
