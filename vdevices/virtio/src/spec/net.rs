//! The network device (\[1\] 5.1).

use zerocopy::little_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The queue in which the driver leaves buffers for frames (\[1\] 5.1.2).
pub const RECEIVE: u16 = 0;
/// The queue in which it sends frames.
pub const TRANSMIT: u16 = 1;

/// Feature bit: the device has a MAC address (\[1\] 5.1.3).
pub const MAC: u64 = 1 << 5;
/// Feature bit: the configuration has a status.
pub const STATUS: u64 = 1 << 16;

/// Status: the link is up (\[1\] 5.1.4).
pub const LINK_UP: u16 = 1;

/// What precedes each frame (\[1\] 5.1.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    /// Which of the fields below count: none without offloads.
    pub flags: u8,
    /// Segmentation: 0 for none.
    pub gso_type: u8,
    /// Bytes of headers, for segmentation.
    pub hdr_len: U16,
    /// Bytes a segment.
    pub gso_size: U16,
    /// Where the checksum begins.
    pub csum_start: U16,
    /// Where it goes.
    pub csum_offset: U16,
    /// Buffers the frame was spread over; 1 on receipt.
    pub num_buffers: U16,
}

/// Bytes of the two addresses of a frame.
pub const ETHERNET_ADDRESSES: usize = 12;
/// The shortest frame a driver can mean: addresses and type.
pub const SHORTEST: usize = 14;
/// The longest frame without offloads: addresses, type and 1500 bytes (\[1\] 5.1.6.3.1).
pub const LONGEST: usize = 1514;

const _: () = assert!(size_of::<Header>() == 12);
