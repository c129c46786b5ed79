//! One trial: what is to be done, and what was seen.
//!
//! [`TrialSpec`] is everything needed to rerun a trial; [`TrialReport`] is what the hardware
//! process observed. Neither judges: outcomes are derived by the experiment.

pub use crate::data::{DataPath, Packing};
pub use crate::fault::{By, Fault, Lock, Route, Target};
use crate::own::{Driver, Layout, Own, PlatformId, Unknown};
use crate::storm::Price;
use cofferdam_machine::config::{FabricKind, IommuMode, TimeoutEnds};
use cofferdam_machine::frames::Owner;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A driver under test, with its device.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "String", into = "String")]
pub enum DriverId {
    /// Our driver of the edu device.
    Edu,
    /// `VirtIOBlk` of the unmodified crate virtio-drivers, on virtio-blk.
    VirtioBlk,
    /// Our driver of NVM Express controllers.
    Nvme,
    /// The unmodified crate nvme-driver, on the same controller.
    NvmeCrate,
    /// A user's.
    Own(Own<Driver>),
}

impl DriverId {
    /// Every driver of ours, in the order of the report.
    pub const ALL: [Self; 4] = [Self::Edu, Self::VirtioBlk, Self::Nvme, Self::NvmeCrate];

    /// Whether it drives a block device; else one that computes.
    pub const fn is_block(self) -> bool {
        match self {
            Self::Edu => false,
            Self::VirtioBlk | Self::Nvme | Self::NvmeCrate => true,
            Self::Own(own) => own.get().is_block(),
        }
    }

    /// Its name on command lines and in records.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Edu => "edu",
            Self::VirtioBlk => "virtio-blk",
            Self::Nvme => "nvme",
            Self::NvmeCrate => "nvme-crate",
            Self::Own(own) => own.get().id,
        }
    }
}

impl From<DriverId> for String {
    fn from(id: DriverId) -> Self {
        id.key().to_owned()
    }
}

impl TryFrom<String> for DriverId {
    type Error = Unknown;

    fn try_from(key: String) -> Result<Self, Unknown> {
        match Self::ALL.into_iter().find(|ours| ours.key() == key) {
            Some(ours) => Ok(ours),
            None => Own::of_key(&key).map(Self::Own),
        }
    }
}

/// Where a driver lives.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "String", into = "String")]
pub enum PlacementId {
    /// In the kernel.
    InKernel,
    /// In the hypervisor.
    Hypervisor,
    /// In a root operating system beside the hypervisor.
    RootPartition,
    /// In a process of its own.
    UserProcess,
    /// In a server that a kernel passes messages to.
    Microkernel,
    /// In a host's kernel, behind a second device that a VMM emulates.
    Hosted,
    /// In the kernel, behind an unwinding boundary.
    SafeLanguage,
    /// In a virtual machine of its own.
    DriverVm,
    /// In the virtual machine of the tenant that has its device.
    Passthrough,
    /// In the application, which is alone in a virtual machine.
    LibraryOs,
    /// In the hypervisor, whose tenants are in virtual machines.
    HypervisorKvm,
    /// In a root operating system, beside tenants in virtual machines.
    RootPartitionKvm,
    /// Where a user's file says.
    Own(Own<Layout>),
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

/// Everything needed to run a trial, and to run it again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TrialSpec {
    /// Where the driver lives.
    pub placement: PlacementId,
    /// Which driver and device.
    pub driver: DriverId,
    /// The machine's parameters.
    #[serde(default, skip_serializing_if = "PlatformId::is_usual")]
    pub platform: PlatformId,
    /// The IOMMU mode.
    pub iommu: IommuMode,
    /// Whether interrupts are remapped.
    pub intremap: bool,
    /// Whether switches and ports check what passes them (Access Control Services).
    #[serde(default)]
    pub acs: bool,
    /// Who carries requests' data.
    #[serde(default, skip_serializing_if = "DataPath::is_usual")]
    pub data: DataPath,
    /// How the driver's buffers lie.
    #[serde(default, skip_serializing_if = "Packing::is_usual")]
    pub packing: Packing,
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
    /// Whether each tenant makes a request before the trial begins, so that the driver's start is no
    /// part of it. So it is in plans whose trials share boots: the first of a boot is like the others.
    #[serde(default, skip_serializing_if = "is_cold")]
    pub warm: bool,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde asks with a reference"
)]
const fn is_cold(warm: &bool) -> bool {
    !*warm
}

impl TrialSpec {
    /// Whether a trial may follow this one in its boot: nothing differs but the seed and what follows
    /// from it, and the faults of both leave everything as it was.
    pub fn may_be_followed_by(&self, next: &Self) -> bool {
        let alike = Self {
            fault: self.fault,
            seed: self.seed,
            ..next.clone()
        };
        self.warm
            && self.clock == ClockKind::Leap
            && *self == alike
            && self.fault.open() == next.fault.open()
            && next.fault.stateless().is_some()
    }

    /// A trial under leap on PCI Express with a strict IOMMU: the ground on which to vary one
    /// thing at a time. One second of device time, twelve requests a tenant.
    pub const fn new(placement: PlacementId, driver: DriverId, fault: Fault) -> Self {
        Self {
            placement,
            driver,
            platform: PlatformId::Usual,
            iommu: IommuMode::Strict,
            intremap: false,
            acs: false,
            data: DataPath::Copy,
            packing: Packing::Packed,
            fabric: FabricKind::Pcie,
            timeout_ends: TimeoutEnds::AllOnes,
            oops: Oops::Panic,
            fault,
            clock: ClockKind::Leap,
            horizon_ns: 1_000_000_000,
            requests: 12,
            seed: 1,
            warm: false,
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
    /// Bytes that only its process kept in memory at the end of the trial, the machine's memory and
    /// the program aside. The host's figure: it does not replay. `None` if the domain had died, or the
    /// host does not let us look.
    pub resident_bytes: Option<u64>,
    /// How long its CPU was in interrupt handlers instead, ns.
    #[serde(default)]
    pub interrupt_ns: u64,
}

/// What reading memory of its own took a bystander: medians.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reading {
    /// 64 cache lines (4 KiB) in order, ns.
    pub in_order_ns: u64,
    /// 64 lines, each at an address that what was read before it decides, ns.
    pub scattered_ns: u64,
    /// How often each was timed.
    pub samples: u32,
}

/// What a bystander on another core noticed of the memory it shares with the driver's CPU. The host's
/// figures: they do not replay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SharedMemory {
    /// Before the request at which the fault strikes.
    pub quiet: Reading,
    /// While that request was open.
    pub during: Reading,
}

impl SharedMemory {
    /// How many times as long reading took, in tenths: of the kind that was slowed more.
    pub fn slowed_tenths(&self) -> Option<u64> {
        let (quiet, during) = (self.quiet, self.during);
        let of = |during: u64, quiet: u64| during.saturating_mul(10).checked_div(quiet);
        let in_order = of(during.in_order_ns, quiet.in_order_ns)?;
        let scattered = of(during.scattered_ns, quiet.scattered_ns)?;
        (during.samples > 0).then_some(in_order.max(scattered))
    }
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
    /// Registers of its own device that it found changed by somebody else.
    #[serde(default)]
    pub device_changed: u32,
    /// Times it found its own device gone or reset.
    #[serde(default)]
    pub device_lost: u32,
    /// What it noticed of its memory, where it looked (B8).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<SharedMemory>,
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
    /// Bytes copied to and from bounce slots.
    #[serde(default)]
    pub bounced_bytes: u64,
    /// Bytes other than zero that stray reads brought to the device.
    #[serde(default)]
    pub leaked_bytes: u64,
    /// Times control passed through a wall: requests handed on, answers handed back, and where the
    /// driver is not in the privileged layer, interrupts delivered to it and its calls to that layer
    /// (mappings, configuration), there and back. A call inside one process is none.
    pub crossings: u64,
    /// Bytes of requests and answers that a domain copied between a tenant's memory and the driver:
    /// data, and where messages are copied, their headers. The driver's own copies into and out of
    /// its DMA memory are the same everywhere and not among them.
    pub copied_bytes: u64,
    /// Sleeps of a domain that a doorbell or an interrupt ended.
    pub wakeups: u64,
    /// Times a guest was left, where the driver or the tenants are in one: registers, hypercalls, finished
    /// calls.
    #[serde(default)]
    pub exits: u64,
}

/// A page that a tenant gave back in mid-trial, and got a new owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Balloon {
    /// The tenant that gave it back.
    pub from: u8,
    /// Its physical address.
    pub page: u64,
    /// Device time at which it was given back, ns.
    pub given_at_ns: u64,
    /// Device time at which its new owner had filled it, ns.
    pub filled_at_ns: Option<u64>,
    /// Bytes of the machine's memory that the tenant's process had resident before. The host's figure:
    /// it does not replay.
    pub resident_before: Option<u64>,
    /// And after.
    pub resident_after: Option<u64>,
}

/// What the device's interrupts came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Served {
    /// Interrupts the driver's CPU took.
    pub taken: u64,
    /// Messages that coalesced with one that waited already.
    pub coalesced: u64,
    /// Messages with a vector that nobody had.
    pub spurious: u64,
    /// Device time at which the kernel disabled a line that nobody served, ns.
    pub cut_off_at_ns: Option<u64>,
}

/// Why a trial ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// Both tenants finished, or died.
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
    /// What the device's own interrupts came to.
    #[serde(default)]
    pub served: Served,
    /// The page that changed hands, where one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balloon: Option<Balloon>,
    /// Last landed use after unmap, ns after the unmapping.
    pub stale_window_ns: Option<u64>,
    /// First detection.
    pub detection: Option<Detection>,
    /// From the fault until the driver served again after a reset or restart, ns.
    pub recovered_after_ns: Option<u64>,
    /// Device resets and driver restarts.
    pub resets: u32,
    /// Of that time, or of the time to the trial's end if the driver never served again: how long
    /// software waited for resets of the device, ns. The standards demand these waits (PCI Express
    /// Base 6.0, 6.6.2), wherever the driver lives.
    #[serde(default)]
    pub reset_wait_ns: u64,
    /// The longest of all these waits that ended, ns.
    #[serde(default)]
    pub longest_reset_ns: u64,
    /// Whether a machine check stopped the system.
    pub machine_check: bool,
    /// Costs.
    pub counts: Counts,
    /// What a locked increment cost the driver's CPU, where it made split ones (B8). The host's figure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split_lock: Option<Price>,
    /// Why it ended.
    pub end: End,
    /// Device time at the end, ns.
    pub ended_at_ns: u64,
    /// Why no trial can follow it in its boot, where one might have: what its fault left behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spoilt: Option<String>,
}

impl TrialReport {
    /// The report without what only the host decides: what replays under leap.
    pub fn replayed(mut self) -> Self {
        for domain in &mut self.domains {
            domain.resident_bytes = None;
        }
        if let Some(balloon) = &mut self.balloon {
            balloon.resident_before = None;
            balloon.resident_after = None;
        }
        self
    }
}
