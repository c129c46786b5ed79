//! The wire format of vfio-user 0.1.
//!
//! 1. "vfio-user Protocol Specification", version 0.9.2, QEMU's `docs/interop/vfio-user.rst`.
//! 2. Linux user-space API, `include/uapi/linux/vfio.h`, whose structures the messages carry.
//!
//! All numbers are in the host's byte order (\[1\] "Protocol Specification").

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The only major version there is (\[1\] `VFIO_USER_VERSION`).
pub const MAJOR: u16 = 0;
/// The newest minor version we know.
pub const MINOR: u16 = 1;

/// The most bytes one message moves here; what we announce as `max_data_xfer_size`.
pub const MAX_TRANSFER: usize = 64 << 10;
/// The most descriptors one message carries here; what we announce as `max_msg_fds`.
pub const MAX_FDS: usize = 16;
/// The most ranges of memory lent at a time; what we announce as `max_dma_maps`.
pub const MAX_DMA_MAPS: usize = 65_535;
/// The only page size announced.
pub const PAGE: u64 = 4096;
/// The longest message: a transfer with its headers.
pub const MAX_MESSAGE: usize = size_of::<Header>() + size_of::<RegionAccess>() + MAX_TRANSFER;
/// What a peer that announces no `max_data_xfer_size` takes.
pub const DEFAULT_TRANSFER: usize = 1 << 20;

/// What a message asks for (\[1\] Commands). Unknown ones are values too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Command(pub u16);

impl Command {
    /// Agrees on a version; must come first.
    pub const VERSION: Self = Self(1);
    /// Lends memory.
    pub const DMA_MAP: Self = Self(2);
    /// Takes memory back.
    pub const DMA_UNMAP: Self = Self(3);
    /// What kind of device it is.
    pub const DEVICE_GET_INFO: Self = Self(4);
    /// How large a region is.
    pub const DEVICE_GET_REGION_INFO: Self = Self(5);
    /// How many interrupts of a kind there are.
    pub const DEVICE_GET_IRQ_INFO: Self = Self(7);
    /// Where interrupts go.
    pub const DEVICE_SET_IRQS: Self = Self(8);
    /// Reads a region.
    pub const REGION_READ: Self = Self(9);
    /// Writes a region.
    pub const REGION_WRITE: Self = Self(10);
    /// The server reads the client's memory.
    pub const DMA_READ: Self = Self(11);
    /// The server writes the client's memory.
    pub const DMA_WRITE: Self = Self(12);
    /// Resets the device.
    pub const DEVICE_RESET: Self = Self(13);
}

/// Bits of [`Header::flags`] (\[1\] Header).
pub mod flags {
    /// The bits that say what the message is.
    pub const TYPE: u32 = 0xf;
    /// A command.
    pub const COMMAND: u32 = 0;
    /// The answer to one.
    pub const REPLY: u32 = 1;
    /// In a command: no answer is wanted.
    pub const NO_REPLY: u32 = 1 << 4;
    /// In an answer: `error` says why not.
    pub const ERROR: u32 = 1 << 5;
}

/// What every message begins with (\[1\] Header).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    /// The sender's name for it, echoed in the answer.
    pub id: u16,
    /// What it asks for.
    pub command: Command,
    /// Bytes, these included.
    pub size: u32,
    /// See [`flags`].
    pub flags: u32,
    /// A Unix error number, in an answer.
    pub error: u32,
}

/// What `VERSION` begins with; JSON with a NUL follows.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Version {
    /// See [`MAJOR`].
    pub major: u16,
    /// See [`MINOR`].
    pub minor: u16,
}

/// `DMA_MAP`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DmaMap {
    /// Bytes of this structure.
    pub argsz: u32,
    /// See [`dma`].
    pub flags: u32,
    /// Where in the file that comes with it.
    pub offset: u64,
    /// The first DMA address.
    pub address: u64,
    /// Bytes.
    pub size: u64,
}

/// `DMA_UNMAP`, and its answer.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DmaUnmap {
    /// Bytes of this structure.
    pub argsz: u32,
    /// See [`dma`].
    pub flags: u32,
    /// The first DMA address.
    pub address: u64,
    /// Bytes.
    pub size: u64,
}

/// Flags of `DMA_MAP` and `DMA_UNMAP`.
pub mod dma {
    /// The device may read it.
    pub const READ: u32 = 1;
    /// The device may write it.
    pub const WRITE: u32 = 1 << 1;
    /// Of an unmapping: a bitmap is wanted, which is not supported.
    pub const DIRTY_BITMAP: u32 = 1;
    /// Of an unmapping: everything (\[2\] `VFIO_DMA_UNMAP_FLAG_ALL`).
    pub const ALL: u32 = 1 << 1;
}

/// `DEVICE_GET_INFO`, and its answer.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DeviceInfo {
    /// Bytes of this structure.
    pub argsz: u32,
    /// See [`device`].
    pub flags: u32,
    /// Regions.
    pub regions: u32,
    /// Kinds of interrupts.
    pub irqs: u32,
}

/// Flags of [`DeviceInfo`] (\[2\] `VFIO_DEVICE_FLAGS_*`).
pub mod device {
    /// It can be reset.
    pub const RESET: u32 = 1;
    /// It is a PCI function.
    pub const PCI: u32 = 1 << 1;
}

/// Regions of a PCI function (\[2\] `VFIO_PCI_*_REGION_INDEX`): 0 to 5 are the BARs.
pub mod region {
    /// Configuration space.
    pub const CONFIG: u32 = 7;
    /// How many indices there are.
    pub const COUNT: u32 = 9;
    /// It can be read.
    pub const READ: u32 = 1;
    /// It can be written.
    pub const WRITE: u32 = 1 << 1;
    /// It can be mapped, where its capabilities say so.
    pub const MMAP: u32 = 1 << 2;
    /// Capabilities follow.
    pub const CAPS: u32 = 1 << 3;
    /// The capability that says which parts can be mapped, in its first version.
    pub const SPARSE_MMAP: u16 = 1;
}

/// What follows [`RegionInfo`] if one part of the region can be mapped
/// (\[2\] `vfio_region_info_cap_sparse_mmap`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SparseMmap {
    /// [`region::SPARSE_MMAP`].
    pub id: u16,
    /// 1.
    pub version: u16,
    /// Where the next capability is; zero: there is none.
    pub next: u32,
    /// Parts: 1.
    pub areas: u32,
    /// Nothing.
    pub reserved: u32,
    /// Where in the region the part begins.
    pub offset: u64,
    /// Its bytes.
    pub size: u64,
}

/// `DEVICE_GET_REGION_INFO`, and its answer.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RegionInfo {
    /// Bytes of this structure.
    pub argsz: u32,
    /// See [`region`].
    pub flags: u32,
    /// Which.
    pub index: u32,
    /// Where capabilities are; zero: there are none.
    pub capabilities: u32,
    /// Bytes; zero if there is no such region.
    pub size: u64,
    /// Where the region begins in the file that comes with the answer, if one does.
    pub offset: u64,
}

/// Kinds of interrupts (\[2\] `VFIO_PCI_*_IRQ_INDEX`), and what can be done with them.
pub mod irq {
    /// The INTx pin.
    pub const INTX: u32 = 0;
    /// MSI.
    pub const MSI: u32 = 1;
    /// MSI-X.
    pub const MSIX: u32 = 2;
    /// How many indices there are.
    pub const COUNT: u32 = 5;

    /// Of a kind: signalled by eventfd.
    pub const EVENTFD: u32 = 1;
    /// Of a kind: can be masked.
    pub const MASKABLE: u32 = 1 << 1;
    /// Of a kind: masks itself when it is signalled.
    pub const AUTOMASKED: u32 = 1 << 2;
    /// Of a kind: set up all at once.
    pub const NORESIZE: u32 = 1 << 3;

    /// Of a setting: nothing comes with it.
    pub const DATA_NONE: u32 = 1;
    /// Of a setting: a byte an interrupt comes with it.
    pub const DATA_BOOL: u32 = 1 << 1;
    /// Of a setting: descriptors come with it.
    pub const DATA_EVENTFD: u32 = 1 << 2;
    /// Of a setting: masks.
    pub const MASK: u32 = 1 << 3;
    /// Of a setting: unmasks.
    pub const UNMASK: u32 = 1 << 4;
    /// Of a setting: raises, or says where to raise.
    pub const TRIGGER: u32 = 1 << 5;
}

/// `DEVICE_GET_IRQ_INFO`, and its answer.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct IrqInfo {
    /// Bytes of this structure.
    pub argsz: u32,
    /// See [`irq`].
    pub flags: u32,
    /// Which kind.
    pub index: u32,
    /// How many of it.
    pub count: u32,
}

/// `DEVICE_SET_IRQS`; booleans may follow.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct IrqSet {
    /// Bytes of this structure and what follows.
    pub argsz: u32,
    /// See [`irq`].
    pub flags: u32,
    /// Which kind.
    pub index: u32,
    /// The first of them.
    pub start: u32,
    /// How many.
    pub count: u32,
}

/// `REGION_READ`, `REGION_WRITE` and their answers; data may follow.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RegionAccess {
    /// Where in the region.
    pub offset: u64,
    /// Which region.
    pub region: u32,
    /// Bytes of data.
    pub count: u32,
}

/// `DMA_READ`, `DMA_WRITE` and their answers; data may follow.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DmaAccess {
    /// The DMA address.
    pub address: u64,
    /// Bytes of data.
    pub count: u64,
}

const _: () = {
    assert!(size_of::<Header>() == 16);
    assert!(size_of::<DmaMap>() == 32);
    assert!(size_of::<DmaUnmap>() == 24);
    assert!(size_of::<RegionInfo>() == 32);
    assert!(size_of::<SparseMmap>() == 32);
    assert!(size_of::<IrqSet>() == 20);
    assert!(size_of::<RegionAccess>() == 16);
};

/// Unix error numbers that answers carry (Linux, `asm-generic/errno-base.h`, `errno.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Errno(pub u32);

impl Errno {
    /// No such range.
    pub const NOENT: Self = Self(2);
    /// The device did not do it.
    pub const IO: Self = Self(5);
    /// Too long.
    pub const TOO_BIG: Self = Self(7);
    /// No such address.
    pub const FAULT: Self = Self(14);
    /// There already.
    pub const EXIST: Self = Self(17);
    /// What was asked makes no sense.
    pub const INVALID: Self = Self(22);
    /// Too many.
    pub const NO_SPACE: Self = Self(28);
    /// Not supported.
    pub const NOT_SUPPORTED: Self = Self(95);
}
