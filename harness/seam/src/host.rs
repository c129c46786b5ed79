//! All a driver may ask of the world.

use crate::{Bar, Deadline, Direction, Iova, Time, Vector, VectorSet, Width};
use core::ops::Range;
use core::ptr::NonNull;
use thiserror::Error;

/// Why the host could not do what the driver asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HostError {
    /// The device has no such BAR.
    #[error("the device has no BAR {0}")]
    NoSuchBar(usize),
    /// The host has no DMA memory of that length left.
    #[error("no DMA memory left for {0} bytes")]
    OutOfMemory(usize),
    /// The range to map lies outside the region.
    #[error("bytes {start}..{end} are outside a region of {len}")]
    OutOfRegion {
        /// First byte.
        start: usize,
        /// One past the last byte.
        end: usize,
        /// The region's length.
        len: usize,
    },
    /// The layer that owns the IOMMU refused the mapping or the request.
    #[error("the host refused the request")]
    Refused,
    /// More vectors than the device or this host has.
    #[error("{0} interrupt vectors are not available")]
    NoVectors(u16),
    /// The machine stops here: its horizon was reached, or the CPU is frozen for good.
    #[error("the machine stopped")]
    Stopped,
    /// The harness itself failed; never a finding.
    #[error("infrastructure failure, code {0}")]
    Infrastructure(u32),
}

impl HostError {
    /// What is to be said of `bytes` that are not all in a region of `len`.
    pub const fn unless_within(bytes: &Range<usize>, len: usize) -> Result<(), Self> {
        let &Range { start, end } = bytes;
        if start > end || end > len {
            return Err(Self::OutOfRegion { start, end, len });
        }
        Ok(())
    }
}

/// A mapping of DMA memory for a device. Give it back with [`DriverHost::unmap`]; a region that is
/// dropped takes its mappings with it.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "an unused mapping stays live until its region is dropped"]
pub struct Mapping {
    /// The address to give to the device.
    pub iova: Iova,
    /// Bytes mapped.
    pub len: usize,
    /// The host's name for it.
    pub id: u64,
}

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// These of the awaited vectors had been raised; they are acknowledged by this call.
    Interrupt(VectorSet),
    /// The deadline passed first.
    TimedOut,
}

/// What sort of interrupts the device was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InterruptKind {
    /// MSI-X: the vector is the table index.
    Msix,
    /// MSI.
    Msi,
    /// The INTx pin, as vector 0. The driver must make the device release it.
    Intx,
}

/// The interrupts a driver was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupts {
    /// Their kind.
    pub kind: InterruptKind,
    /// Vectors 0 to `count` - 1.
    pub count: u16,
}

/// A mapped BAR. Accesses outside it, or misaligned ones, read as all ones and write nowhere, as
/// an address no device decodes does.
#[expect(
    clippy::cast_possible_truncation,
    reason = "a read of a width has no bits above it"
)]
pub trait Mmio {
    /// A non-posted read. All ones when nobody answers.
    fn read(&self, offset: u32, width: Width) -> u64;
    /// A posted write.
    fn write(&self, offset: u32, width: Width, value: u64);
    /// Bytes in the BAR.
    fn len(&self) -> u64;
    /// Whether the BAR has no bytes; it always has.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads a byte.
    fn read8(&self, offset: u32) -> u8 {
        self.read(offset, Width::One) as u8
    }
    /// Reads a 16-bit register.
    fn read16(&self, offset: u32) -> u16 {
        self.read(offset, Width::Two) as u16
    }
    /// Reads a 32-bit register.
    fn read32(&self, offset: u32) -> u32 {
        self.read(offset, Width::Four) as u32
    }
    /// Writes a byte.
    fn write8(&self, offset: u32, value: u8) {
        self.write(offset, Width::One, value.into());
    }
    /// Writes a 16-bit register.
    fn write16(&self, offset: u32, value: u16) {
        self.write(offset, Width::Two, value.into());
    }
    /// Writes a 32-bit register.
    fn write32(&self, offset: u32, value: u32) {
        self.write(offset, Width::Four, value.into());
    }
    /// Writes a 64-bit register.
    fn write64(&self, offset: u32, value: u64) {
        self.write(offset, Width::Eight, value);
    }
}

/// Memory a device can be given. It is copied in and out: nobody holds a reference to bytes a
/// device may change. Dropping it unmaps and frees it.
pub trait DmaRegion {
    /// Bytes.
    fn len(&self) -> usize;
    /// Whether it has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Copies bytes from `at` out of the region. Bytes beyond its end read as zero.
    fn read_at(&self, at: usize, into: &mut [u8]);
    /// Copies bytes into the region at `at`. Bytes beyond its end are dropped.
    fn write_at(&self, at: usize, from: &[u8]);
}

/// All a driver may ask of the world. Memory is reachable by the device only while it is mapped.
pub trait DriverHost {
    /// A mapped BAR.
    type Mmio: Mmio;
    /// DMA memory.
    type Dma: DmaRegion;

    /// Maps a memory BAR and enables memory decoding.
    fn map_bar(&mut self, bar: Bar) -> Result<Self::Mmio, HostError>;

    /// Reads the device's configuration space; all ones where nothing answers. `offset` is
    /// aligned to `width`, which is at most four bytes.
    fn config_read(&mut self, offset: u16, width: Width) -> Result<u32, HostError>;

    /// Writes the device's configuration space.
    fn config_write(&mut self, offset: u16, width: Width, value: u32) -> Result<(), HostError>;

    /// Sets the bus-master enable bit of the command register.
    fn set_bus_master(&mut self, on: bool) -> Result<(), HostError>;

    /// Gives the device up to `wanted` vectors of the best kind it has, and enables them. At least
    /// one is given.
    fn enable_interrupts(&mut self, wanted: u16) -> Result<Interrupts, HostError>;

    /// Zeroed memory, page aligned, that no device can reach yet.
    fn alloc_dma(&mut self, len: usize) -> Result<Self::Dma, HostError>;

    /// Lets the device reach `bytes` of `region`.
    fn map(
        &mut self,
        region: &Self::Dma,
        bytes: Range<usize>,
        way: Direction,
    ) -> Result<Mapping, HostError>;

    /// What buffers that are lent to a device one by one have to be apart: a power of two. Each starts
    /// at a multiple of it in its region, and nothing else lies before the next multiple. 1: no wish; a
    /// page: whoever maps a buffer opens nothing else (Linux: `dma_get_cache_alignment`).
    fn dma_alignment(&self) -> usize {
        1
    }

    /// Takes a mapping back.
    fn unmap(&mut self, mapping: Mapping);

    /// Waits until one of `vectors` is raised, or was since the last wait for it.
    fn wait_any(&mut self, vectors: &[Vector], until: Deadline) -> Result<Wake, HostError>;

    /// To be called in every poll loop: lets the device run and the clock advance.
    fn relax(&mut self) -> Result<(), HostError>;

    /// Device time.
    fn now(&self) -> Time;
}

/// A host that can also tell where a region's bytes are. Only adapters of third-party drivers,
/// which want a pointer, may ask for it.
pub trait RawDma: DriverHost {
    /// The first byte of the region, valid for its length while the region lives.
    fn pointer(&self, region: &Self::Dma) -> NonNull<u8>;
}
