//! The GPU device, without 3D (\[1\] 5.7).

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The queue of commands (\[1\] 5.7.2).
pub const CONTROL: u16 = 0;
/// The queue of cursor commands.
pub const CURSOR: u16 = 1;

/// Feature bit: EDID can be asked for (\[1\] 5.7.3).
pub const EDID: u64 = 1 << 1;

/// Byte offset of the number of scanouts in the configuration, 32 bits (\[1\] 5.7.4).
pub const SCANOUTS: u32 = 8;

/// Commands and responses (\[1\] 5.7.6.7).
pub mod command {
    /// What displays there are.
    pub const GET_DISPLAY_INFO: u32 = 0x100;
    /// Makes a resource.
    pub const RESOURCE_CREATE_2D: u32 = 0x101;
    /// Ends it.
    pub const RESOURCE_UNREF: u32 = 0x102;
    /// Shows a part of a resource.
    pub const SET_SCANOUT: u32 = 0x103;
    /// Brings it to the screen.
    pub const RESOURCE_FLUSH: u32 = 0x104;
    /// Copies from the driver's memory into a resource.
    pub const TRANSFER_TO_HOST_2D: u32 = 0x105;
    /// Tells where that memory is.
    pub const RESOURCE_ATTACH_BACKING: u32 = 0x106;
    /// Takes it back.
    pub const RESOURCE_DETACH_BACKING: u32 = 0x107;
    /// What a display says of itself.
    pub const GET_EDID: u32 = 0x10a;
    /// Shape and place of the cursor.
    pub const UPDATE_CURSOR: u32 = 0x300;
    /// Its place.
    pub const MOVE_CURSOR: u32 = 0x301;

    /// Done.
    pub const OK_NODATA: u32 = 0x1100;
    /// The displays.
    pub const OK_DISPLAY_INFO: u32 = 0x1101;
    /// The EDID.
    pub const OK_EDID: u32 = 0x1104;

    /// No such command, or not now.
    pub const ERR_UNSPEC: u32 = 0x1200;
    /// Not enough memory.
    pub const ERR_OUT_OF_MEMORY: u32 = 0x1201;
    /// No such scanout.
    pub const ERR_INVALID_SCANOUT_ID: u32 = 0x1202;
    /// No such resource, or one too many.
    pub const ERR_INVALID_RESOURCE_ID: u32 = 0x1203;
    /// A parameter that cannot be.
    pub const ERR_INVALID_PARAMETER: u32 = 0x1205;
}

/// Flag: the response repeats the fence (\[1\] 5.7.6.7).
pub const FLAG_FENCE: u32 = 1;

/// Formats of four bytes a pixel (\[1\] 5.7.6.8).
pub const FORMATS: [u32; 8] = [1, 2, 3, 4, 67, 68, 121, 134];

/// How commands and responses begin (\[1\] 5.7.6.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    /// See [`command`].
    pub kind: U32,
    /// See [`FLAG_FENCE`].
    pub flags: U32,
    /// The fence.
    pub fence: U64,
    /// For 3D.
    pub context: U32,
    /// For 3D, and padding.
    pub ring: U32,
}

/// A rectangle (\[1\] 5.7.6.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Rect {
    /// Left edge.
    pub x: U32,
    /// Upper edge.
    pub y: U32,
    /// Pixels in a line.
    pub width: U32,
    /// Lines.
    pub height: U32,
}

/// A stretch of backing memory (\[1\] 5.7.6.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MemoryEntry {
    /// Where.
    pub address: U64,
    /// How many bytes.
    pub length: U32,
    /// Nothing.
    pub padding: U32,
}

/// Displays in a response about them, whether there or not.
pub const MAX_SCANOUTS: usize = 16;
/// Bytes for an EDID in its response.
pub const EDID_BYTES: usize = 1024;

const _: () = assert!(size_of::<Header>() == 24);
const _: () = assert!(size_of::<Rect>() == 16);
const _: () = assert!(size_of::<MemoryEntry>() == 16);
