//! Log pages and asynchronous events (\[1\] 5.14.1, 5.2).

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Log page identifier (\[1\] 5.14.1). An open set: unknown codes are values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogId(pub u8);

impl LogId {
    /// Error Information (5.14.1.1).
    pub const ERRORS: Self = Self(0x01);
    /// SMART / Health Information (5.14.1.2).
    pub const HEALTH: Self = Self(0x02);
    /// Firmware Slot Information (5.14.1.3).
    pub const FIRMWARE: Self = Self(0x03);
    /// Commands Supported and Effects (5.14.1.5).
    pub const EFFECTS: Self = Self(0x05);
}

/// Get Log Page, dword 10: RAE, the event that told of the page stays (\[1\] 5.14).
pub const RETAIN_EVENT: u32 = 1 << 15;

/// An entry of the error log (\[1\] 5.14.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ErrorEntry {
    /// Counts errors from 1 over the life of the controller; zero in an entry that tells nothing.
    pub count: U64,
    /// The submission queue of the command.
    pub submission: U16,
    /// The command's identifier; all ones if no command is to blame.
    pub id: U16,
    /// Phase tag and status field, as in the completion.
    pub status: U16,
    /// Which byte of the command is to blame; all ones if none is.
    pub location: U16,
    /// The first logical block that is concerned.
    pub block: U64,
    /// NSID.
    pub namespace: U32,
    /// Vendor specific, transport and reserved.
    pub reserved_28: [u8; 4],
    /// Command specific.
    pub specific: U64,
    /// Transport specific and reserved.
    pub reserved_40: [u8; 24],
}

/// SMART / Health Information (\[1\] 5.14.1.2). 128-bit counters are two words, low first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Health {
    /// Bit 1: the temperature is beyond a threshold.
    pub critical_warning: u8,
    /// Composite temperature, in kelvins; not aligned.
    pub temperature: [u8; 2],
    /// Spare left, in percent.
    pub spare: u8,
    /// Spare below which there is a warning, in percent.
    pub spare_threshold: u8,
    /// Life used, in percent.
    pub used: u8,
    /// Reserved.
    pub reserved_6: [u8; 26],
    /// Thousands of 512-byte units read, rounded up.
    pub data_read: [U64; 2],
    /// Thousands of 512-byte units written, rounded up.
    pub data_written: [U64; 2],
    /// Read and Compare commands.
    pub reads: [U64; 2],
    /// Write commands.
    pub writes: [U64; 2],
    /// Controller busy time, in minutes.
    pub busy: [U64; 2],
    /// Power cycles.
    pub power_cycles: [U64; 2],
    /// Power-on hours.
    pub power_on_hours: [U64; 2],
    /// Unsafe shutdowns.
    pub unsafe_shutdowns: [U64; 2],
    /// Media errors.
    pub media_errors: [U64; 2],
    /// Errors logged over the life of the controller.
    pub errors: [U64; 2],
    /// Temperature times and sensors, thermal management, reserved.
    pub reserved_192: [u8; 320],
}

/// SMART critical warning: the temperature is beyond a threshold (\[1\] 5.14.1.2).
pub const WARNING_TEMPERATURE: u8 = 1 << 1;

/// Firmware Slot Information (\[1\] 5.14.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Firmware {
    /// AFI: the slot in use, from 1.
    pub active: u8,
    /// Reserved.
    pub reserved_1: [u8; 7],
    /// FRS1: the revision in slot 1.
    pub slot_1: [u8; 8],
    /// Other slots and reserved.
    pub reserved_16: [u8; 496],
}

/// Commands Supported and Effects (\[1\] 5.14.1.5).
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Effects {
    /// By opcode, of admin commands: see [`effect`].
    pub admin: [U32; 256],
    /// By opcode, of I/O commands.
    pub io: [U32; 256],
    /// Reserved.
    pub reserved_2048: [u8; 2048],
}

/// Bits of an entry of [`Effects`] (\[1\] 5.14.1.5).
pub mod effect {
    /// CSUPP: the command is supported.
    pub const SUPPORTED: u32 = 1;
    /// LBCC: it may change logical blocks.
    pub const CHANGES_BLOCKS: u32 = 1 << 1;
}

/// An asynchronous event: dword 0 of the completion is its type, its information and the log page
/// that tells more (\[1\] 5.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Bits 2:0: 0 is an error, 1 is health.
    pub kind: u8,
    /// Bits 15:8: what happened, by kind.
    pub information: u8,
    /// Bits 23:16.
    pub log: LogId,
}

impl Event {
    /// Error: a doorbell of a queue that does not exist was written.
    pub const INVALID_DOORBELL: Self = Self::new(0, 0x00, LogId::ERRORS);
    /// Error: an invalid value was written to a doorbell.
    pub const INVALID_DOORBELL_VALUE: Self = Self::new(0, 0x01, LogId::ERRORS);
    /// Health: the temperature is beyond a threshold.
    pub const TEMPERATURE: Self = Self::new(1, 0x01, LogId::HEALTH);

    const fn new(kind: u8, information: u8, log: LogId) -> Self {
        Self {
            kind,
            information,
            log,
        }
    }

    /// Dword 0 of the completion.
    pub const fn dword(self) -> u32 {
        u32::from_le_bytes([self.kind, self.information, self.log.0, 0])
    }
}

const _: () = assert!(size_of::<ErrorEntry>() == 64);
const _: () = assert!(size_of::<Health>() == 512);
const _: () = assert!(size_of::<Firmware>() == 512);
const _: () = assert!(size_of::<Effects>() == 4096);
