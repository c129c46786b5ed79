//! The list of all planted bugs, and one way to run each.

use crate::call::{Driver, Serve};
use crate::variant::{Fixed, Planted};
use crate::{edu, nvme, virtio};
use cofferdam_seam::DriverHost;
use cofferdam_seam::service::DriverError;

/// Which of two twins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Build {
    /// With the defect.
    Planted,
    /// Without it.
    Fixed,
}

impl Build {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Planted, Self::Fixed];
}

/// The device a driver is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// QEMU's edu.
    Edu,
    /// A virtio disk.
    Virtio,
    /// An NVMe controller.
    Nvme,
}

/// Probes the driver, lets it serve, and removes it.
fn drive<H: DriverHost, D: Driver<H>>(
    host: H,
    serve: impl FnOnce(&mut dyn Serve),
) -> Result<(), DriverError> {
    let mut driver = D::probe(host)?;
    serve(&mut driver);
    Ok(())
}

macro_rules! bugs {
    ($($(#[$doc:meta])* $bug:ident: $id:literal, $family:ident, $module:ident::$file:ident;)*) => {
        /// A planted bug: the driver that has it, and the twin that does not.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Bug {
            $($(#[$doc])* $bug,)*
        }

        impl Bug {
            /// Every bug there is.
            pub const ALL: &[Self] = &[$(Self::$bug,)*];

            /// Its name here and in `planted.toml`.
            pub const fn id(self) -> &'static str {
                match self { $(Self::$bug => $id,)* }
            }

            /// What one of its two builds is called: the twin's name ends in `-fixed`.
            pub const fn name(self, build: Build) -> &'static str {
                match (self, build) {
                    $(
                        (Self::$bug, Build::Planted) => $id,
                        (Self::$bug, Build::Fixed) => concat!($id, "-fixed"),
                    )*
                }
            }

            /// The device its driver is for.
            pub const fn family(self) -> Family {
                match self { $(Self::$bug => Family::$family,)* }
            }

            /// The file it is in, from the crate's root.
            pub const fn file(self) -> &'static str {
                match self {
                    $(Self::$bug => {
                        concat!("src/", stringify!($module), "/", stringify!($file), ".rs")
                    })*
                }
            }

            /// Probes the driver on `host`, lets it `serve`, and removes it.
            ///
            /// # Errors
            ///
            /// Those of the probe.
            pub fn run<H: DriverHost>(
                self,
                build: Build,
                host: H,
                serve: impl FnOnce(&mut dyn Serve),
            ) -> Result<(), DriverError> {
                match (self, build) {
                    $(
                        (Self::$bug, Build::Planted) => {
                            drive::<H, $module::$file::$bug<H, Planted>>(host, serve)
                        }
                        (Self::$bug, Build::Fixed) => {
                            drive::<H, $module::$file::$bug<H, Fixed>>(host, serve)
                        }
                    )*
                }
            }

            /// The same driver in service, for callers that keep it. Dropping it removes it.
            ///
            /// # Errors
            ///
            /// Those of the probe.
            pub fn probe<'a, H: DriverHost + 'a>(
                self,
                build: Build,
                host: H,
            ) -> Result<alloc::boxed::Box<dyn Serve + 'a>, DriverError>
            where
                H::Mmio: 'a,
                H::Dma: 'a,
            {
                Ok(match (self, build) {
                    $(
                        (Self::$bug, Build::Planted) => alloc::boxed::Box::new(
                            $module::$file::$bug::<H, Planted>::probe(host)?,
                        ),
                        (Self::$bug, Build::Fixed) => alloc::boxed::Box::new(
                            $module::$file::$bug::<H, Fixed>::probe(host)?,
                        ),
                    )*
                })
            }
        }
    };
}

bugs! {
    /// Polls a status bit without a deadline.
    StatusPoll: "edu-status-poll", Edu, edu::status_poll;
    /// Handles interrupts while there are any.
    InterruptLoop: "edu-interrupt-loop", Edu, edu::interrupt_loop;
    /// Handles an interrupt before there is a request.
    EarlyInterrupt: "edu-early-interrupt", Edu, edu::early_interrupt;
    /// Keeps an index in a register of the device.
    ScratchCookie: "edu-scratch-cookie", Edu, edu::scratch_cookie;
    /// Unmaps at the deadline what the device still copies.
    TimeoutUnmap: "edu-timeout-unmap", Edu, edu::timeout_unmap;
    /// Takes any interrupt for the end of a copy.
    SpuriousInterrupt: "edu-spurious-interrupt", Edu, edu::spurious_interrupt;
    /// Cuts addresses off at 32 bits.
    TruncatedAddress: "edu-truncated-address", Edu, edu::truncated_address;
    /// Leaves bus mastering on.
    BusMasterLeft: "edu-bus-master-left", Edu, edu::bus_master_left;
    /// Leaks a buffer and its mapping.
    LeakOnTimeout: "edu-leak-on-timeout", Edu, edu::leak_on_timeout;
    /// Frees a buffer that the device still copies to.
    DroppedBuffer: "edu-dropped-buffer", Edu, edu::dropped_buffer;
    /// Sends stale bytes as padding.
    PaddedTransfer: "edu-padded-transfer", Edu, edu::padded_transfer;
    /// Indexes by the used identifier.
    UsedIdIndex: "virtio-used-id-index", Virtio, virtio::used_id_index;
    /// Slices by the used length.
    UsedLength: "virtio-used-length", Virtio, virtio::used_length;
    /// Subtracts from a used length of zero.
    LengthUnderflow: "virtio-length-underflow", Virtio, virtio::length_underflow;
    /// Returns the used length.
    IdentifyLength: "virtio-identify-length", Virtio, virtio::identify_length;
    /// Scans as many bytes as the device says.
    IdentifyScan: "virtio-identify-scan", Virtio, virtio::identify_scan;
    /// Returns what the device never wrote.
    FabricatedData: "virtio-fabricated-data", Virtio, virtio::fabricated_data;
    /// Fetches a used length twice.
    DoubleFetch: "virtio-double-fetch", Virtio, virtio::double_fetch;
    /// Divides by a capacity of zero.
    ZeroCapacity: "virtio-zero-capacity", Virtio, virtio::zero_capacity;
    /// Allocates by capacity.
    CapacityAllocation: "virtio-capacity-allocation", Virtio, virtio::capacity_allocation;
    /// Waits for a configuration that never settles.
    ConfigGeneration: "virtio-config-generation", Virtio, virtio::config_generation;
    /// Follows a circle of capabilities.
    CapabilityLoop: "virtio-capability-loop", Virtio, virtio::capability_loop;
    /// Adds up a capability's offset and length.
    CapabilityOverflow: "virtio-capability-overflow", Virtio, virtio::capability_overflow;
    /// Believes the queue size.
    QueueSize: "virtio-queue-size", Virtio, virtio::queue_size;
    /// Runs over the end of its receive ring.
    RingWrap: "virtio-ring-wrap", Virtio, virtio::ring_wrap;
    /// Publishes descriptors of a buffer that is gone.
    StaleDescriptor: "virtio-stale-descriptor", Virtio, virtio::stale_descriptor;
    /// Maps a retried read the wrong way round.
    RetryDirection: "virtio-retry-direction", Virtio, virtio::retry_direction;
    /// Unmaps another request's page.
    UnmapByLength: "virtio-unmap-by-length", Virtio, virtio::unmap_by_length;
    /// Keeps a free list in the descriptor table.
    FreeListInRing: "virtio-free-list-in-ring", Virtio, virtio::free_list_in_ring;
    /// Follows a chain in the descriptor table.
    ChainCircle: "virtio-chain-circle", Virtio, virtio::chain_circle;
    /// Waits for a vector it was not given.
    AssumedVector: "virtio-assumed-vector", Virtio, virtio::assumed_vector;
    /// Indexes by command identifier.
    CompletionId: "nvme-completion-id", Nvme, nvme::completion_id;
    /// Unmaps a page each time its command completes.
    DoubleCompletion: "nvme-double-completion", Nvme, nvme::double_completion;
    /// Shifts by MDTS.
    TransferLimit: "nvme-transfer-limit", Nvme, nvme::transfer_limit;
    /// Divides by the block size.
    LbaSize: "nvme-lba-size", Nvme, nvme::lba_size;
    /// Adds one to the number of queues.
    QueueCount: "nvme-queue-count", Nvme, nvme::queue_count;
    /// Leaves a controller the bus that does not come to rest.
    ResetIgnored: "nvme-reset-ignored", Nvme, nvme::reset_ignored;
    /// Leaves a controller enabled that it does not take.
    FailedProbe: "nvme-failed-probe", Nvme, nvme::failed_probe;
}
