//! One trial: what is to be done, and what was seen.
//!
//! [`TrialSpec`] is everything needed to rerun a trial; [`TrialReport`] is what the hardware
//! process observed. Neither judges: outcomes are derived by the experiment.

use cofferdam_machine::config::{FabricKind, IommuMode, TimeoutEnds};
use cofferdam_machine::frames::Owner;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A driver under test, with its device.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum DriverId {
    /// Our driver of the edu device.
    Edu,
    /// `VirtIOBlk` of the unmodified crate virtio-drivers, on virtio-blk.
    VirtioBlk,
}

/// Where a driver lives.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum PlacementId {
    /// In the kernel.
    InKernel,
    /// In the hypervisor.
    Hypervisor,
    /// In a root operating system beside the hypervisor.
    RootPartition,
    /// In a process of its own.
    UserProcess,
}

/// Which clock a trial runs by.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum ClockKind {
    /// Device time jumps to the next event; a trial replays.
    Leap,
    /// The host's monotonic clock.
    Wall,
}

/// What a crash of the driver does to the privileged layer it runs in.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Oops {
    /// The layer stops (Linux `oops=panic`).
    Panic,
    /// The layer survives and the driver is gone.
    KillTask,
}

/// Which layer commits the fault.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum By {
    /// `Tamper`: the device lies.
    Device,
    /// `Sabotage`: the driver is buggy.
    Driver,
}

/// What a wild access aims at.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// The hypervisor's frames.
    Hypervisor,
    /// The kernel's frames.
    Kernel,
    /// Frames of the driver's own domain that it did not map.
    Driver,
    /// The first tenant's frames.
    Tenant1,
    /// The second tenant's frames.
    Tenant2,
    /// Nobody's frames.
    Free,
    /// The bytes beside a buffer, on the same mapped page.
    Neighbour,
    /// Addresses no memory answers.
    Unbacked,
}

impl Target {
    /// Every class, in the order of the report.
    pub const ALL: [Self; 8] = [
        Self::Hypervisor,
        Self::Kernel,
        Self::Driver,
        Self::Tenant1,
        Self::Tenant2,
        Self::Free,
        Self::Neighbour,
        Self::Unbacked,
    ];

    /// The owner whose pattern frames it aims at.
    pub const fn owner(self) -> Option<Owner> {
        match self {
            Self::Hypervisor => Some(Owner::Hypervisor),
            Self::Kernel => Some(Owner::Kernel),
            Self::Driver => Some(Owner::Driver),
            Self::Tenant1 => Some(Owner::Tenant1),
            Self::Tenant2 => Some(Owner::Tenant2),
            Self::Free => Some(Owner::Free),
            Self::Neighbour | Self::Unbacked => None,
        }
    }
}

/// A fault with its parameters. `nth` counts from 1: the access, DMA, mapping or request of the
/// running workload at which it strikes, after the driver's start.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(tag = "id")]
pub enum Fault {
    /// No fault: the paired clean trial.
    #[serde(rename = "none")]
    None,
    /// Wild DMA write.
    D1 {
        /// Who commits it.
        by: By,
        /// What it aims at.
        target: Target,
        /// Bytes written.
        len: u32,
        /// Which DMA (device) or mapping (driver).
        nth: u32,
    },
    /// A DMA write that is too long.
    D4 {
        /// Who commits it: a device that writes on, or a driver that gives an address too far in.
        by: By,
        /// Bytes beyond the end of the buffer.
        extra: u32,
        /// Which DMA write (device) or mapping (driver).
        nth: u32,
    },
    /// DMA to an address after it was unmapped.
    D6 {
        /// Who commits it: a device that writes late, or a driver that unmaps early.
        by: By,
        /// How long after the honest write the device writes again, in microseconds.
        delay_us: u32,
        /// Which DMA (device) or mapping (driver).
        nth: u32,
    },
    /// A DMA write through a mapping that is for reading.
    D8 {
        /// After which DMA read.
        nth: u32,
    },
    /// A forged interrupt message, with the vector of another device.
    I4 {
        /// After which DMA write.
        nth: u32,
    },
    /// Wild store by the driver's CPU.
    M1 {
        /// What it aims at.
        target: Target,
        /// Bytes stored.
        len: u32,
        /// Before which request.
        nth: u32,
    },
    /// A register read that never completes.
    B1 {
        /// Which read.
        nth: u32,
    },
    /// Register reads that return all ones.
    B9 {
        /// From which read.
        nth: u32,
        /// For how long, in microseconds.
        window_us: u32,
    },
    /// A completion that names no request.
    R1 {
        /// Which completion.
        nth: u32,
        /// The index it names.
        value: u32,
    },
    /// The driver crashes.
    X1 {
        /// Before which request.
        nth: u32,
    },
    /// The driver spins.
    X2 {
        /// Without yielding, instead of politely.
        raw: bool,
        /// For how long, in milliseconds of device time, when polite.
        ms: u32,
        /// Before which request.
        nth: u32,
    },
}

impl Fault {
    /// The catalogue's identifier: `D1`, or `none`.
    pub const fn id(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::D1 { .. } => "D1",
            Self::D4 { .. } => "D4",
            Self::D6 { .. } => "D6",
            Self::D8 { .. } => "D8",
            Self::I4 { .. } => "I4",
            Self::M1 { .. } => "M1",
            Self::B1 { .. } => "B1",
            Self::B9 { .. } => "B9",
            Self::R1 { .. } => "R1",
            Self::X1 { .. } => "X1",
            Self::X2 { .. } => "X2",
        }
    }
}

/// Everything needed to run a trial, and to run it again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TrialSpec {
    /// Where the driver lives.
    pub placement: PlacementId,
    /// Which driver and device.
    pub driver: DriverId,
    /// The IOMMU mode.
    pub iommu: IommuMode,
    /// Whether interrupts are remapped.
    pub intremap: bool,
    /// The fabric.
    pub fabric: FabricKind,
    /// What a completion timeout does.
    pub timeout_ends: TimeoutEnds,
    /// What a crash does to a privileged layer.
    pub oops: Oops,
    /// The fault.
    pub fault: Fault,
    /// The clock.
    pub clock: ClockKind,
    /// Device time at which the trial ends at the latest, ns.
    pub horizon_ns: u64,
    /// Verified requests each tenant makes.
    pub requests: u32,
    /// Decides request contents, target frames and bytes written.
    pub seed: u64,
}

impl TrialSpec {
    /// A trial under leap on PCI Express with a strict IOMMU: the ground on which to vary one
    /// thing at a time. One second of device time, twelve requests a tenant.
    pub const fn new(placement: PlacementId, driver: DriverId, fault: Fault) -> Self {
        Self {
            placement,
            driver,
            iommu: IommuMode::Strict,
            intremap: false,
            fabric: FabricKind::Pcie,
            timeout_ends: TimeoutEnds::AllOnes,
            oops: Oops::Panic,
            fault,
            clock: ClockKind::Leap,
            horizon_ns: 1_000_000_000,
            requests: 12,
            seed: 1,
        }
    }
}

/// A DMA the ledger did not sanction, as the machine saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StrayDma {
    /// Device time, ns.
    pub at_ns: u64,
    /// The address asked for.
    pub iova: u64,
    /// Bytes asked for.
    pub len: u64,
    /// Whether it was a write.
    pub write: bool,
    /// The ledger's verdict: what should have happened.
    pub verdict: String,
    /// What happened: `landed` or `blocked`.
    pub landed: bool,
    /// Whose memory it reached, where it landed in memory.
    pub owner: Option<Owner>,
}

/// Pattern bytes of one owner that changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Corruption {
    /// The victim.
    pub owner: Owner,
    /// Bytes that differ from the pattern.
    pub bytes: u64,
}

/// How a domain was at the end of a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DomainEnd {
    /// Running or waiting.
    Alive,
    /// Its CPU stands still.
    Frozen,
    /// It died and nobody restarted it.
    Dead,
    /// It stands still because the layer below it stopped.
    Halted,
}

/// One protection domain's share of a trial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DomainReport {
    /// Its name: `kernel`, `driver`, `tenant1`, ...
    pub name: String,
    /// Whether it is the privileged layer.
    pub privileged: bool,
    /// Whether the driver runs in it.
    pub holds_driver: bool,
    /// The tenant it is: 1 or 2.
    pub tenant: Option<u8>,
    /// The modelled CPU it runs on.
    pub cpu: u8,
    /// How it ended.
    pub end: DomainEnd,
    /// Every death, in words: `panic: ...`, `SIGSEGV`, `spun`.
    pub deaths: Vec<String>,
    /// Times it was started again.
    pub restarts: u32,
    /// Longest time between two of its heartbeats, ns; to the end of the trial if it never beat
    /// again.
    pub longest_gap_ns: u64,
    /// How long its CPU stood still, ns.
    pub frozen_ns: u64,
}

/// One tenant's requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TenantIo {
    /// The tenant, 1 or 2.
    pub tenant: u8,
    /// Requests it meant to make.
    pub wanted: u32,
    /// Requests that ended well.
    pub completed: u32,
    /// Requests that were answered with an error (and tried again).
    pub errors: u32,
    /// Answers that said success but carried wrong data.
    pub corrupted: u32,
    /// Writes that were acknowledged and cannot be read back.
    pub lost: u32,
    /// Answers to a request that had been answered.
    pub duplicated: u32,
    /// The longest request, from its first submission to its good answer, ns.
    pub longest_ns: u64,
    /// Whether it finished all it meant to do, the final read-back included.
    pub finished: bool,
}

/// Who noticed the fault first, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Detection {
    /// `iommu`, `fabric`, `driver`, `tenant1`, `supervisor`, ...
    pub by: String,
    /// What was noticed, in words.
    pub what: String,
    /// From the fault to its detection, ns.
    pub after_ns: u64,
}

/// Costs that are true on any host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Counts {
    /// Register reads.
    pub mmio_reads: u64,
    /// Register writes.
    pub mmio_writes: u64,
    /// DMA mappings made.
    pub maps: u64,
    /// DMA mappings taken back.
    pub unmaps: u64,
    /// IOTLB invalidations.
    pub invalidations: u64,
    /// Notifications from one domain to another.
    pub doorbells: u64,
    /// Interrupts delivered to the driver.
    pub interrupts: u64,
    /// DMA requests of the device.
    pub dma_requests: u64,
}

/// Why a trial ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// Both tenants finished.
    Finished,
    /// The horizon was reached: times are "at least".
    Horizon,
    /// The system stopped.
    SystemLost,
}

/// What the hardware process saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TrialReport {
    /// Faulty accesses that really happened.
    pub activated: u32,
    /// Device time of the first, ns.
    pub activated_at_ns: Option<u64>,
    /// The domains, privileged layer first.
    pub domains: Vec<DomainReport>,
    /// The tenants' requests.
    pub io: Vec<TenantIo>,
    /// Pattern bytes that changed, by owner.
    pub corruption: Vec<Corruption>,
    /// The first stray DMAs (at most 16).
    pub stray: Vec<StrayDma>,
    /// All stray DMAs that landed.
    pub stray_landed: u64,
    /// All stray DMAs that were blocked.
    pub stray_blocked: u64,
    /// Interrupts of another device that the device raised.
    pub forged_interrupts: u64,
    /// Interrupt messages that remapping refused.
    pub refused_interrupts: u64,
    /// Last landed use after unmap, ns after the unmapping.
    pub stale_window_ns: Option<u64>,
    /// First detection.
    pub detection: Option<Detection>,
    /// From the fault until the driver served again after a reset or restart, ns.
    pub recovered_after_ns: Option<u64>,
    /// Device resets and driver restarts.
    pub resets: u32,
    /// Whether a machine check stopped the system.
    pub machine_check: bool,
    /// Costs.
    pub counts: Counts,
    /// Why it ended.
    pub end: End,
    /// Device time at the end, ns.
    pub ended_at_ns: u64,
}
