//! NVM Express over PCI, as the standard has it.
//!
//! 1. NVM Express Base Specification 1.4, 2.1 "PCI Header".
//! 2. the same, 3.1 "Register Definition".
//! 3. the same, 4.2 "Submission Queue Entry - Command Format".
//! 4. the same, 4.3 "Physical Region Page Entry and List".
//! 5. the same, 4.6 "Completion Queue Entry".
//! 6. the same, 5.3 and 5.4 "Create I/O Completion Queue", "Create I/O Submission Queue".
//! 7. the same, 5.15 "Identify command".
//! 8. the same, 5.21.1.7 "Number of Queues".
//! 9. the same, 6.9 and 6.15 "Read command", "Write command".
//! 10. the same, 7.6 "Controller Initialization and Shutdown Processing".

use bitfield_struct::bitfield;
use cofferdam_seam::Iova;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Word of configuration space with the class code in its upper three bytes [1].
pub const PCI_CLASS: u16 = 0x08;
/// Mass storage, non-volatile memory, NVM Express [1].
pub const CLASS: u32 = 0x01_08_02;

/// Controller capabilities, 64 bits: [`Capabilities`] [2].
pub const CAP: u32 = 0x00;
/// Interrupt mask set; not to be touched with MSI-X [2].
pub const INTMS: u32 = 0x0c;
/// Interrupt mask clear; not to be touched with MSI-X [2].
pub const INTMC: u32 = 0x10;
/// Controller configuration: [`Configuration`] [2].
pub const CC: u32 = 0x14;
/// Controller status: [`ControllerStatus`] [2].
pub const CSTS: u32 = 0x1c;
/// Admin queue attributes: [`AdminQueues`] [2].
pub const AQA: u32 = 0x24;
/// Admin submission queue base address, 64 bits [2].
pub const ASQ: u32 = 0x28;
/// Admin completion queue base address, 64 bits [2].
pub const ACQ: u32 = 0x30;

/// Where the tail doorbell of that submission queue is, `stride` being `CAP.DSTRD` [2].
pub const fn sq_tail_doorbell(queue: u16, stride: u8) -> u32 {
    doorbell(2 * queue as u32, stride)
}

/// Where the head doorbell of that completion queue is [2].
pub const fn cq_head_doorbell(queue: u16, stride: u8) -> u32 {
    doorbell(2 * queue as u32 + 1, stride)
}

const fn doorbell(nth: u32, stride: u8) -> u32 {
    0x1000 + nth * (4 << (stride & 0xf))
}

/// [`CAP`] [2].
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Capabilities {
    /// Most entries of an I/O queue, less one; at least 1.
    pub mqes: u16,
    pub contiguous_queues_required: bool,
    #[bits(2)]
    pub arbitration: u8,
    #[bits(5)]
    __: u8,
    /// Longest wait for `CSTS.RDY`, in 500 ms.
    pub timeout: u8,
    /// Doorbells are `4 << stride` bytes apart.
    #[bits(4)]
    pub stride: u8,
    pub subsystem_reset: bool,
    /// Bit 0: the NVM command set.
    pub command_sets: u8,
    pub boot_partitions: bool,
    #[bits(2)]
    __: u8,
    /// Smallest memory page: `4096 << mpsmin` bytes.
    #[bits(4)]
    pub mpsmin: u8,
    #[bits(4)]
    pub mpsmax: u8,
    __: u8,
}

/// [`Capabilities::command_sets`]: the NVM command set [2].
pub const NVM_COMMAND_SET: u8 = 1;

/// Bytes in a memory page, with `CC.MPS` 0 [2].
pub const PAGE: usize = 4096;

/// [`CC`] [2].
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Configuration {
    /// EN.
    pub enable: bool,
    #[bits(3)]
    __: u8,
    #[bits(3)]
    pub command_set: u8,
    /// Memory pages have `4096 << mps` bytes.
    #[bits(4)]
    pub mps: u8,
    #[bits(3)]
    pub arbitration: u8,
    /// SHN: 0 none, 1 normal shutdown, 2 abrupt.
    #[bits(2)]
    pub shutdown: u8,
    /// log2 of the bytes of an I/O command.
    #[bits(4)]
    pub iosqes: u8,
    /// log2 of the bytes of an I/O completion.
    #[bits(4)]
    pub iocqes: u8,
    __: u8,
}

/// [`Configuration::shutdown`]: normal shutdown [2].
pub const SHUTDOWN_NORMAL: u8 = 1;
/// [`ControllerStatus::shutdown`]: shutdown is complete [2].
pub const SHUTDOWN_COMPLETE: u8 = 2;

/// [`CSTS`] [2].
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct ControllerStatus {
    /// RDY.
    pub ready: bool,
    /// CFS.
    pub fatal: bool,
    /// SHST.
    #[bits(2)]
    pub shutdown: u8,
    pub subsystem_reset: bool,
    pub paused: bool,
    #[bits(26)]
    __: u32,
}

/// [`AQA`]: entries of the two admin queues, less one [2].
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct AdminQueues {
    #[bits(12)]
    pub submission: u16,
    #[bits(4)]
    __: u8,
    #[bits(12)]
    pub completion: u16,
    #[bits(4)]
    __: u8,
}

/// A submission queue entry [3].
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Command {
    pub opcode: u8,
    /// FUSE and PSDT: 0 is a command of its own, with PRPs.
    pub flags: u8,
    /// Command identifier.
    pub cid: U16,
    /// Namespace identifier.
    pub nsid: U32,
    pub reserved: U64,
    pub metadata: U64,
    /// PRP entry 1, and entry 2 or the list [4].
    pub prp: [U64; 2],
    /// Command dwords 10 to 15.
    pub dwords: [U32; 6],
}

/// log2 of the bytes of a [`Command`] [3].
pub const COMMAND_SHIFT: u8 = 6;
/// log2 of the bytes of a [`Completion`] [5].
pub const COMPLETION_SHIFT: u8 = 4;

const _: () = assert!(size_of::<Command>() == 1 << COMMAND_SHIFT);
const _: () = assert!(size_of::<Completion>() == 1 << COMPLETION_SHIFT);

/// Bytes of a PRP entry [4].
pub const PRP_ENTRY: usize = 8;

/// What [`Command::identify`] asks for: CNS [7].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cns {
    /// The namespace.
    Namespace = 0x00,
    /// The controller.
    Controller = 0x01,
}

impl Command {
    /// Fills a page with what the controller or namespace is [7].
    pub fn identify(what: Cns, nsid: u32, page: Iova) -> Self {
        Self {
            opcode: 0x06,
            nsid: nsid.into(),
            prp: [page.0.into(), U64::ZERO],
            dwords: dwords([what as u32, 0, 0]),
            ..Self::default()
        }
    }

    /// Set Features, number of queues: one of each kind [8].
    pub fn want_one_queue_pair() -> Self {
        Self {
            opcode: 0x09,
            dwords: dwords([0x07, 0, 0]),
            ..Self::default()
        }
    }

    /// Creates a contiguous completion queue that interrupts by `vector` [6].
    pub fn create_completion_queue(id: u16, entries: u16, at: Iova, vector: u16) -> Self {
        Self {
            opcode: 0x05,
            prp: [at.0.into(), U64::ZERO],
            dwords: dwords([
                halves(entries.saturating_sub(1), id),
                halves(vector, 0b11),
                0,
            ]),
            ..Self::default()
        }
    }

    /// Creates a contiguous submission queue whose completions go to the queue of the same number
    /// [6].
    pub fn create_submission_queue(id: u16, entries: u16, at: Iova) -> Self {
        Self {
            opcode: 0x01,
            prp: [at.0.into(), U64::ZERO],
            dwords: dwords([halves(entries.saturating_sub(1), id), halves(id, 0b1), 0]),
            ..Self::default()
        }
    }

    /// Reads `blocks` blocks from `lba` on [9].
    pub fn read(nsid: u32, lba: u64, blocks: u16, prp: [Iova; 2]) -> Self {
        Self::transfer(0x02, nsid, lba, blocks.saturating_sub(1).into(), prp)
    }

    /// Writes them, to the medium itself: FUA [9].
    pub fn write(nsid: u32, lba: u64, blocks: u16, prp: [Iova; 2]) -> Self {
        let count = u32::from(blocks.saturating_sub(1));
        Self::transfer(0x01, nsid, lba, 1 << 30 | count, prp)
    }

    fn transfer(opcode: u8, nsid: u32, lba: u64, dword12: u32, prp: [Iova; 2]) -> Self {
        let [l0, l1, l2, l3, h0, h1, h2, h3] = lba.to_le_bytes();
        Self {
            opcode,
            nsid: nsid.into(),
            prp: prp.map(|entry| entry.0.into()),
            dwords: dwords([
                u32::from_le_bytes([l0, l1, l2, l3]),
                u32::from_le_bytes([h0, h1, h2, h3]),
                dword12,
            ]),
            ..Self::default()
        }
    }
}

/// Dwords 10 to 12; the others are 0.
fn dwords(first: [u32; 3]) -> [U32; 6] {
    let [ten, eleven, twelve] = first.map(U32::new);
    [ten, eleven, twelve, U32::ZERO, U32::ZERO, U32::ZERO]
}

fn halves(upper: u16, lower: u16) -> u32 {
    u32::from(upper) << 16 | u32::from(lower)
}

/// A completion queue entry [5].
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Completion {
    /// What the command returns.
    pub result: U32,
    pub reserved: U32,
    /// SQHD: up to where the submission queue was read.
    pub sq_head: U16,
    /// SQID: the submission queue.
    pub sq_id: U16,
    /// Command identifier.
    pub cid: U16,
    /// Phase tag and status field: [`Status`].
    pub status: U16,
}

/// Where [`Completion::status`] is in its entry [5].
pub const COMPLETION_STATUS: usize = 14;

impl Completion {
    pub fn status(&self) -> Status {
        Status::from_bits(self.status.get())
    }
}

/// Phase tag and status field [5].
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct Status {
    /// Inverted each time round the queue.
    pub phase: bool,
    /// SC.
    pub code: u8,
    /// SCT.
    #[bits(3)]
    pub code_type: u8,
    #[bits(2)]
    pub retry_delay: u8,
    pub more: bool,
    pub do_not_retry: bool,
}

impl Status {
    /// Successful completion: generic status 0 [5].
    pub const fn is_success(self) -> bool {
        self.code() == 0 && self.code_type() == 0
    }
}

/// What the driver wants to know of the controller [7].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControllerData {
    /// Longest transfer: `1 << mdts` pages of the smallest size; 0 for no limit.
    pub mdts: u8,
    /// log2 of the bytes of a command: smallest in the low half, largest in the high one.
    pub sqes: u8,
    /// The same of a completion.
    pub cqes: u8,
    /// Highest namespace identifier.
    pub namespaces: u32,
}

impl ControllerData {
    pub fn parse(page: &[u8; PAGE]) -> Self {
        Self {
            mdts: page[77],
            sqes: page[512],
            cqes: page[513],
            namespaces: u32::from_le_bytes([page[516], page[517], page[518], page[519]]),
        }
    }
}

/// What the driver wants to know of the namespace [7].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamespaceData {
    /// NSZE: blocks; 0 if there is no such namespace.
    pub size: u64,
    /// MS and LBADS of the format in use: bytes of metadata a block, and log2 of the bytes of a
    /// block. None if FLBAS names a format beyond NLBAF.
    pub format: Option<(u16, u8)>,
}

impl NamespaceData {
    pub fn parse(page: &[u8; PAGE]) -> Self {
        let [formats, flbas] = [page[25], page[26]];
        let index = flbas & 0x0f;
        let at = 128 + 4 * usize::from(index);
        let format = (u16::from_le_bytes([page[at], page[at + 1]]), page[at + 2]);
        let mut size = [0; 8];
        size.copy_from_slice(&page[..8]);
        Self {
            size: u64::from_le_bytes(size),
            format: (index <= formats).then_some(format),
        }
    }
}

#[cfg(test)]
#[path = "spec_tests.rs"]
mod tests;
