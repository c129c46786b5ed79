//! The choices that make one machine differ from another: the axes of every comparison.

use core::time::Duration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What stands between a device and memory.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
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
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum FabricKind {
    /// One conventional bus that all functions and the CPUs share: no completion timeout.
    Pci,
    /// PCI Express with the completion timeout switched off.
    PcieNotimeout,
    /// PCI Express with a completion timeout.
    Pcie,
    /// The same, and a port that saw an uncorrectable error is contained until software releases it
    /// (Downstream Port Containment, PCI Express Base 6.0, 6.2.11).
    PcieDpc,
}

impl FabricKind {
    /// Every fabric, weakest first.
    pub const ALL: [Self; 4] = [Self::Pci, Self::PcieNotimeout, Self::Pcie, Self::PcieDpc];

    /// Whether a request that nobody completes ends by itself.
    pub const fn times_out(self) -> bool {
        matches!(self, Self::Pcie | Self::PcieDpc)
    }

    /// Whether it has links with credits, and ports that report errors.
    pub const fn is_express(self) -> bool {
        !matches!(self, Self::Pci)
    }
}

/// What a completion timeout does to the CPU that waited.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum TimeoutEnds {
    /// The read returns all ones.
    AllOnes,
    /// The platform reports a fatal error and the system stops.
    MachineCheck,
}

/// Whose handler an interrupt calls on its CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InterruptHandler {
    /// The driver's own, which knows whether its device meant it. Linux disables a line whose
    /// handlers keep denying it (kernel/irq/spurious.c).
    Driver,
    /// VFIO's (drivers/vfio/pci/vfio_pci_intrs.c): it masks a pin at every interrupt, until user
    /// space unmasks it, and passes a message on as an event. It never denies one.
    Vfio,
}

/// What an interrupt costs the CPU that takes it: the way in and out, and a handler that reads a
/// register of its device, which alone is about that long on PCI Express. A parameter, not a
/// measurement.
pub const INTERRUPT_TIME: Duration = Duration::from_micros(1);

/// A machine's parameters. [`Config::default`] has the figures of real platforms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// The IOMMU mode.
    pub iommu: IommuMode,
    /// The fabric.
    pub fabric: FabricKind,
    /// How long a non-posted request may stay open where it times out. 50 us to 50 ms by
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
    /// Whether functions may send messages; else they have their pins.
    pub messages: bool,
    /// Whose handlers interrupts call.
    pub interrupt_handler: InterruptHandler,
    /// How long a handler holds its CPU. Zero, where nobody models CPUs: a pin that is held is then
    /// raised again when its driver waits for it, and not before.
    pub interrupt_time: Duration,
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
    /// Whether switches redirect requests from device to device upstream instead of delivering them
    /// (Access Control Services, P2P request redirect, PCI Express Base 6.0, 6.12.1.1).
    pub acs: bool,
    /// Whether the root complex forwards requests from one root port to another, which it need not
    /// (PCI Express Base 6.0, 1.3.1). Those that do are many enough for a list in Linux
    /// (`drivers/pci/p2pdma.c`).
    pub peer_to_peer: bool,
    /// Whether the platform makes a poisoned or aborted completion fatal (AER severity, PCI Express
    /// Base 6.0, 7.8.4.4).
    pub errors_are_fatal: bool,
    /// Error records the ports can hold before they drop them.
    pub error_log: usize,
    /// How long software waits after a reset before it looks at the function (PCI Express Base 6.0,
    /// 6.6.1 and 6.6.2).
    pub reset_wait: Duration,
    /// How long it waits then for a function that is not ready (Linux, `PCIE_RESET_READY_POLL_MS`).
    pub reset_limit: Duration,
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
            messages: true,
            interrupt_handler: InterruptHandler::Driver,
            interrupt_time: Duration::ZERO,
            fault_log: 16,
            ats: false,
            reserved: None,
            source_validation: false,
            high_memory: false,
            acs: false,
            peer_to_peer: true,
            errors_are_fatal: false,
            error_log: 16,
            reset_wait: Duration::from_millis(100),
            reset_limit: Duration::from_secs(60),
        }
    }
}
