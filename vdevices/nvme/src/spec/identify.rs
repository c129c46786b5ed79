//! Data structures of Identify (\[1\] 5.15.2).

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes in every data structure of Identify (\[1\] 5.15).
pub const BYTES: usize = 4096;

/// Which data structure: CNS (\[1\] 5.15.1). An open set: unknown codes are values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cns(pub u8);

impl Cns {
    /// Identify Namespace.
    pub const NAMESPACE: Self = Self(0x00);
    /// Identify Controller.
    pub const CONTROLLER: Self = Self(0x01);
    /// Active Namespace ID list.
    pub const ACTIVE_NAMESPACES: Self = Self(0x02);
    /// Namespace Identification Descriptor list.
    pub const DESCRIPTORS: Self = Self(0x03);
}

/// Identify Controller (\[1\] 5.15.2.2). Fields nobody here uses are reserved bytes, which are zero.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Controller {
    /// VID: PCI vendor.
    pub vendor: U16,
    /// SSVID: PCI subsystem vendor.
    pub subsystem_vendor: U16,
    /// SN: ASCII, padded with spaces.
    pub serial: [u8; 20],
    /// MN: ASCII, padded with spaces.
    pub model: [u8; 40],
    /// FR: ASCII, padded with spaces.
    pub firmware: [u8; 8],
    /// RAB: recommended arbitration burst.
    pub burst: u8,
    /// IEEE: the OUI, least significant byte first.
    pub oui: [u8; 3],
    /// CMIC.
    pub multipath: u8,
    /// MDTS: log2 of the largest transfer in units of the smallest page.
    pub max_transfer: u8,
    /// CNTLID.
    pub id: U16,
    /// VER: as the version register.
    pub version: U32,
    /// RTD3R and RTD3E: microseconds to wake and to sleep.
    pub runtime_d3: [U32; 2],
    /// OAES: optional asynchronous events.
    pub events: U32,
    /// CTRATT.
    pub attributes: U32,
    /// RRLS and reserved.
    pub reserved_100: [u8; 11],
    /// CNTRLTYPE: 1 is an I/O controller.
    pub kind: u8,
    /// FGUID, CRDT1 to CRDT3 and reserved.
    pub reserved_112: [u8; 144],
    /// OACS: optional admin commands.
    pub admin_commands: U16,
    /// ACL: Abort commands at a time, less one.
    pub abort_limit: u8,
    /// AERL: Asynchronous Event Requests at a time, less one.
    pub event_request_limit: u8,
    /// FRMW: bit 0, the first slot is read-only; bits 3:1, slots.
    pub firmware_updates: u8,
    /// LPA: bit 1, there is the effects log; bit 2, Get Log Page takes offsets and long lengths.
    pub log_attributes: u8,
    /// ELPE: entries in the error log, less one.
    pub error_entries: u8,
    /// NPSS: power states, less one.
    pub power_states: u8,
    /// AVSCC and APSTA.
    pub reserved_264: [u8; 2],
    /// WCTEMP: warning temperature, in kelvins.
    pub warning_temperature: U16,
    /// CCTEMP: critical temperature, in kelvins.
    pub critical_temperature: U16,
    /// MTFA to reserved.
    pub reserved_270: [u8; 242],
    /// SQES: log2 of required (bits 3:0) and largest (7:4) submission queue entry.
    pub submission_entry: u8,
    /// CQES: the same of completion queue entries.
    pub completion_entry: u8,
    /// MAXCMD.
    pub max_commands: U16,
    /// NN: the largest NSID.
    pub namespaces: U32,
    /// ONCS: see [`optional`].
    pub io_commands: U16,
    /// FUSES.
    pub fused: U16,
    /// FNA.
    pub format: u8,
    /// VWC: bit 0, there is a volatile write cache; bits 2:1, whether Flush takes the broadcast
    /// NSID: 11b, it does.
    pub write_cache: u8,
    /// AWUN: logical blocks written atomically, less one.
    pub atomic_write: U16,
    /// AWUPF: the same across a power failure.
    pub atomic_write_power_fail: U16,
    /// NVSCC to reserved, SGLS in it.
    pub reserved_530: [u8; 238],
    /// SUBNQN: UTF-8, ended and padded with zeros.
    pub subsystem_name: [u8; 256],
    /// Reserved, fabrics included.
    pub reserved_1024: [u8; 1024],
    /// PSD0: power state 0; its first two bytes are the maximum power, in units of 10 mW.
    pub power_state_0: [u8; 32],
    /// Other power states and vendor specific bytes.
    pub reserved_2080: [u8; 2016],
}

/// Bits of ONCS (\[1\] 5.15.2.2).
pub mod optional {
    /// Compare.
    pub const COMPARE: u16 = 1;
    /// Dataset Management.
    pub const DATASET_MANAGEMENT: u16 = 1 << 2;
    /// Write Zeroes.
    pub const WRITE_ZEROES: u16 = 1 << 3;
    /// The save field of Set Features and the select field of Get Features.
    pub const SELECT: u16 = 1 << 4;
}

/// Identify Namespace (\[1\] 5.15.2.1). Fields nobody here uses are reserved bytes, which are zero.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Namespace {
    /// NSZE: logical blocks.
    pub size: U64,
    /// NCAP: logical blocks that can be allocated.
    pub capacity: U64,
    /// NUSE: logical blocks that are allocated.
    pub used: U64,
    /// NSFEAT.
    pub features: u8,
    /// NLBAF: formats, less one.
    pub formats: u8,
    /// FLBAS: the format in use.
    pub format: u8,
    /// MC, DPC, DPS, NMIC, RESCAP and FPI.
    pub reserved_27: [u8; 6],
    /// DLFEAT: bits 2:0, deallocated blocks read as 1, zeros; bit 3, Write Zeroes can deallocate.
    pub deallocated: u8,
    /// NAWUN to reserved.
    pub reserved_34: [u8; 70],
    /// NGUID.
    pub nguid: [u8; 16],
    /// EUI64.
    pub eui64: [u8; 8],
    /// LBAF0: metadata bytes (16 bits), log2 of the block size, relative performance.
    pub format_0: [u8; 4],
    /// Other formats and vendor specific bytes.
    pub reserved_132: [u8; 3964],
}

/// Namespace identifier types of a descriptor (\[1\] 5.15.2.4).
pub mod descriptor {
    /// IEEE Extended Unique Identifier, eight bytes.
    pub const EUI64: u8 = 1;
    /// Namespace Globally Unique Identifier, 16 bytes.
    pub const NGUID: u8 = 2;
    /// Bytes before the identifier: type, length, reserved.
    pub const HEAD: usize = 4;
}

const _: () = assert!(size_of::<Controller>() == BYTES);
const _: () = assert!(size_of::<Namespace>() == BYTES);
