//! The wire format: what host and controller agree on.
//!
//! References:
//! - \[1\] NVM Express Base Specification, revision 1.4
//!
//! How a completion queue entry crosses the bus: its first twelve bytes (command specific result,
//! SQ head pointer, SQ identifier) go out as
//! [`Purpose::Completion`](cofferdam_seam::Purpose::Completion), then its last four (command
//! identifier, then phase tag and status) as [`Purpose::Publish`](cofferdam_seam::Purpose::Publish).
//! A host may look at an entry as soon as its phase tag has turned, so nothing may follow those four
//! bytes. A layer that lies about the SQ head or the result aims at the first write, one that lies
//! about the command identifier, the phase tag or the status at the second: see [`completion`].

use bitfield_struct::bitfield;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub mod features;
pub mod identify;
pub mod log;
mod status;

pub use status::Status;

/// PCI class: mass storage, non-volatile memory, NVM Express (\[1\] 2.1.5).
pub const CLASS: [u8; 3] = [0x01, 0x08, 0x02];

/// Version 1.4 in the form of the version register (\[1\] 3.1.2).
pub const VERSION: u32 = 0x0001_0400;

/// Bytes in the smallest memory page, of which CAP.MPSMIN, CC.MPS and MDTS count (\[1\] 3.1.1).
pub const MIN_PAGE: u64 = 4096;

/// The NSID that stands for every namespace (\[1\] 6.1.2).
pub const BROADCAST: u32 = 0xffff_ffff;

/// Controller capabilities (\[1\] 3.1.1).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Capabilities {
    /// MQES: entries in the largest I/O queue, less one.
    pub max_queue_entries: u16,
    /// CQR: queues must be physically contiguous.
    pub contiguous_queues: bool,
    /// AMS: arbitration mechanisms beside round robin.
    #[bits(2)]
    pub arbitration: u8,
    #[bits(5)]
    __: u8,
    /// TO: how long CSTS.RDY may take to follow CC.EN, in units of 500 ms.
    pub timeout: u8,
    /// DSTRD: doorbells are `4 << DSTRD` bytes apart.
    #[bits(4)]
    pub doorbell_stride: u8,
    /// NSSRS: there is a subsystem reset.
    pub subsystem_reset: bool,
    /// CSS: command sets; bit 0 is the NVM command set.
    pub command_sets: u8,
    /// BPS: there are boot partitions.
    pub boot_partitions: bool,
    #[bits(2)]
    __: u8,
    /// MPSMIN: the smallest memory page is `4096 << MPSMIN` bytes.
    #[bits(4)]
    pub min_page: u8,
    /// MPSMAX: the largest.
    #[bits(4)]
    pub max_page: u8,
    /// PMRS: there is a persistent memory region.
    pub persistent_memory: bool,
    /// CMBS: there is a controller memory buffer.
    pub memory_buffer: bool,
    #[bits(6)]
    __: u8,
}

/// Controller configuration (\[1\] 3.1.5).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Configuration {
    /// EN: the controller processes commands.
    pub enable: bool,
    #[bits(3)]
    __: u8,
    /// CSS: the command set; 0 is NVM.
    #[bits(3)]
    pub command_set: u8,
    /// MPS: memory pages are `4096 << MPS` bytes.
    #[bits(4)]
    pub page: u8,
    /// AMS: the arbitration mechanism; 0 is round robin.
    #[bits(3)]
    pub arbitration: u8,
    /// SHN: shutdown notification; 0 is none, see [`shutdown`].
    #[bits(2)]
    pub shutdown: u8,
    /// IOSQES: log2 of the bytes in an I/O submission queue entry.
    #[bits(4)]
    pub submission_entry: u8,
    /// IOCQES: log2 of the bytes in an I/O completion queue entry.
    #[bits(4)]
    pub completion_entry: u8,
    __: u8,
}

/// Values of CC.SHN and of CSTS.SHST (\[1\] 3.1.5, 3.1.6).
pub mod shutdown {
    /// SHN: a normal shutdown.
    pub const NORMAL: u8 = 1;
    /// SHN: an abrupt shutdown.
    pub const ABRUPT: u8 = 2;
    /// SHST: shutdown processing is complete.
    pub const COMPLETE: u8 = 2;
}

/// Controller status (\[1\] 3.1.6).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct ControllerStatus {
    /// RDY: the controller processes commands.
    pub ready: bool,
    /// CFS: a fatal error; only a reset helps.
    pub fatal: bool,
    /// SHST: see [`shutdown`].
    #[bits(2)]
    pub shutdown: u8,
    /// NSSRO: a subsystem reset occurred.
    pub subsystem_reset: bool,
    /// PP: processing is paused.
    pub paused: bool,
    #[bits(26)]
    __: u32,
}

/// Admin queue attributes (\[1\] 3.1.8). Both sizes are less one.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct AdminQueueAttributes {
    /// ASQS: entries in the admin submission queue, less one.
    #[bits(12)]
    pub submission: u16,
    #[bits(4)]
    __: u8,
    /// ACQS: entries in the admin completion queue, less one.
    #[bits(12)]
    pub completion: u16,
    #[bits(4)]
    __: u8,
}

/// Where the doorbells begin (\[1\] 3.1.25): that of submission queue y's tail is number 2y, that of
/// completion queue y's head number 2y + 1, each `4 << CAP.DSTRD` bytes after the other.
pub const DOORBELLS: u32 = 0x1000;

/// log2 of the bytes in a submission queue entry: CC.IOSQES (\[1\] 4.2).
pub const SUBMISSION_ENTRY: u8 = 6;
/// log2 of the bytes in a completion queue entry: CC.IOCQES (\[1\] 4.6).
pub const COMPLETION_ENTRY: u8 = 4;

/// A submission queue entry (\[1\] 4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Command {
    /// What is asked for: [`AdminOpcode`] or [`IoOpcode`].
    pub opcode: u8,
    /// FUSE in bits 1:0, PSDT in bits 7:6; zero for a command on its own that uses PRPs.
    pub flags: u8,
    /// CID: unique among the commands of a queue that are under way.
    pub id: U16,
    /// NSID.
    pub namespace: U32,
    /// Reserved.
    pub reserved: U64,
    /// MPTR: metadata.
    pub metadata: U64,
    /// PRP entry 1.
    pub prp1: U64,
    /// PRP entry 2.
    pub prp2: U64,
    /// Command dwords 10 to 15.
    pub dwords: [U32; 6],
}

impl Command {
    /// Bits of `flags` that ask for a fused operation or for scatter gather lists (\[1\] 4.2).
    pub const UNSUPPORTED_FLAGS: u8 = 0b1100_0011;

    /// Command dword `number`, 10 to 15.
    ///
    /// # Panics
    ///
    /// If there is no such dword.
    pub const fn dword(&self, number: usize) -> u32 {
        self.dwords[number - 10].get()
    }

    /// The 64 bits of dwords `number` (low) and `number` + 1.
    ///
    /// # Panics
    ///
    /// If there are no such dwords.
    pub const fn qword(&self, number: usize) -> u64 {
        self.dword(number) as u64 | (self.dword(number + 1) as u64) << 32
    }

    /// The halves of dword `number`: low, then high.
    ///
    /// # Panics
    ///
    /// If there is no such dword.
    pub const fn halves(&self, number: usize) -> [u16; 2] {
        let [a, b, c, d] = self.dword(number).to_le_bytes();
        [u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d])]
    }
}

/// Opcode of an admin command (\[1\] 5). An open set: unknown codes are values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdminOpcode(pub u8);

impl AdminOpcode {
    /// Delete I/O Submission Queue (\[1\] 5.6).
    pub const DELETE_SUBMISSION: Self = Self(0x00);
    /// Create I/O Submission Queue (\[1\] 5.4).
    pub const CREATE_SUBMISSION: Self = Self(0x01);
    /// Get Log Page (\[1\] 5.14).
    pub const GET_LOG_PAGE: Self = Self(0x02);
    /// Delete I/O Completion Queue (\[1\] 5.5).
    pub const DELETE_COMPLETION: Self = Self(0x04);
    /// Create I/O Completion Queue (\[1\] 5.3).
    pub const CREATE_COMPLETION: Self = Self(0x05);
    /// Identify (\[1\] 5.15).
    pub const IDENTIFY: Self = Self(0x06);
    /// Abort (\[1\] 5.1).
    pub const ABORT: Self = Self(0x08);
    /// Set Features (\[1\] 5.21).
    pub const SET_FEATURES: Self = Self(0x09);
    /// Get Features (\[1\] 5.13).
    pub const GET_FEATURES: Self = Self(0x0a);
    /// Asynchronous Event Request (\[1\] 5.2).
    pub const ASYNC_EVENT_REQUEST: Self = Self(0x0c);
    /// Keep Alive (\[1\] 5.16); not offered here.
    pub const KEEP_ALIVE: Self = Self(0x18);
}

/// Opcode of a command of the NVM command set (\[1\] 6). An open set: unknown codes are values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoOpcode(pub u8);

impl IoOpcode {
    /// Flush (\[1\] 6.8).
    pub const FLUSH: Self = Self(0x00);
    /// Write (\[1\] 6.15).
    pub const WRITE: Self = Self(0x01);
    /// Read (\[1\] 6.9).
    pub const READ: Self = Self(0x02);
    /// Compare (\[1\] 6.6).
    pub const COMPARE: Self = Self(0x05);
    /// Write Zeroes (\[1\] 6.17).
    pub const WRITE_ZEROES: Self = Self(0x08);
    /// Dataset Management (\[1\] 6.7).
    pub const DATASET_MANAGEMENT: Self = Self(0x09);
}

/// A range of Dataset Management (\[1\] 6.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DatasetRange {
    /// Hints.
    pub attributes: U32,
    /// Logical blocks.
    pub blocks: U32,
    /// The first one.
    pub start: U64,
}

/// Dataset Management, dword 11: AD, deallocate the ranges (\[1\] 6.7).
pub const DEALLOCATE: u32 = 1 << 2;

/// Create I/O queue, dword 11 (\[1\] 5.3, 5.4).
pub mod create {
    /// PC: the queue is physically contiguous.
    pub const CONTIGUOUS: u16 = 1;
    /// IEN, of a completion queue: it interrupts.
    pub const INTERRUPTS: u16 = 1 << 1;
}

/// A completion queue entry (\[1\] 4.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Completion {
    /// DW0: command specific.
    pub result: U32,
    /// DW1: reserved.
    pub reserved: U32,
    /// SQHD: how far the submission queue was fetched.
    pub submission_head: U16,
    /// SQID.
    pub submission: U16,
    /// CID of the command that is done.
    pub id: U16,
    /// The phase tag in bit 0, above it the [`Status`] field.
    pub status: U16,
}

/// How a [`Completion`] is cut into two writes; see the head of this file. Byte offsets.
pub mod completion {
    /// Where the second write, which publishes the entry, begins in the entry.
    pub const PUBLISH: usize = 12;
    /// SQHD in the first write, two bytes.
    pub const SUBMISSION_HEAD: usize = 8;
    /// SQID in the first write, two bytes.
    pub const SUBMISSION: usize = 10;
    /// CID in the second write, two bytes.
    pub const ID: usize = 0;
    /// Phase tag and status in the second write, two bytes; the phase tag is bit 0.
    pub const STATUS: usize = 2;
}

const _: () = assert!(size_of::<Command>() == 1 << SUBMISSION_ENTRY);
const _: () = assert!(size_of::<Completion>() == 1 << COMPLETION_ENTRY);
const _: () = assert!(size_of::<DatasetRange>() == 16);
const _: () = assert!(core::mem::offset_of!(Completion, id) == completion::PUBLISH);

#[cfg(test)]
mod tests;
