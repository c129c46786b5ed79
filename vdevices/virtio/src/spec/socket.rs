//! The socket device (\[1\] 5.10).

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The queue in which the driver leaves buffers for packets (\[1\] 5.10.2).
pub const RECEIVE: u16 = 0;
/// The queue in which it sends packets.
pub const TRANSMIT: u16 = 1;
/// The queue in which it leaves buffers for events.
pub const EVENT: u16 = 2;

/// The context ID of the host (\[1\] 5.10.4).
pub const HOST: u64 = 2;
/// A socket of streams (\[1\] 5.10.6).
pub const STREAM: u16 = 1;

/// What a packet is for (\[1\] 5.10.6).
pub mod op {
    /// Opens a connection.
    pub const REQUEST: u16 = 1;
    /// Accepts one.
    pub const RESPONSE: u16 = 2;
    /// Ends or refuses one.
    pub const RST: u16 = 3;
    /// Says that no more is sent (2) or received (1): flags.
    pub const SHUTDOWN: u16 = 4;
    /// Carries bytes.
    pub const RW: u16 = 5;
    /// Tells about room for bytes.
    pub const CREDIT_UPDATE: u16 = 6;
    /// Asks about it.
    pub const CREDIT_REQUEST: u16 = 7;
}

/// Flags of a shutdown that leaves nothing (\[1\] 5.10.6.5).
pub const SHUTDOWN_BOTH: u32 = 3;

/// How a packet begins (\[1\] 5.10.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    /// Who sends it.
    pub src_cid: U64,
    /// To whom.
    pub dst_cid: U64,
    /// The sender's port.
    pub src_port: U32,
    /// The receiver's port.
    pub dst_port: U32,
    /// Bytes behind the header.
    pub length: U32,
    /// The type of socket.
    pub kind: U16,
    /// See [`op`].
    pub op: U16,
    /// Of a shutdown.
    pub flags: U32,
    /// Bytes of room the sender has in all.
    pub buf_alloc: U32,
    /// Bytes it has taken out of there so far, modulo 2^32.
    pub fwd_cnt: U32,
}

const _: () = assert!(size_of::<Header>() == 44);
