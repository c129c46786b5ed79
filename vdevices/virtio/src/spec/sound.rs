//! The sound device (\[1\] 5.14).

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The queue of control requests (\[1\] 5.14.2).
pub const CONTROL: u16 = 0;
/// The queue in which the driver leaves buffers for events.
pub const EVENT: u16 = 1;
/// The queue in which it sends sound to play.
pub const TRANSMIT: u16 = 2;
/// The queue in which it leaves buffers for recorded sound.
pub const RECEIVE: u16 = 3;

/// Requests (\[1\] 5.14.6).
pub mod request {
    /// About jacks.
    pub const JACK_INFO: u32 = 1;
    /// About streams.
    pub const PCM_INFO: u32 = 0x100;
    /// Sets a stream's parameters.
    pub const PCM_SET_PARAMS: u32 = 0x101;
    /// Prepares a stream.
    pub const PCM_PREPARE: u32 = 0x102;
    /// Releases its resources.
    pub const PCM_RELEASE: u32 = 0x103;
    /// Starts it.
    pub const PCM_START: u32 = 0x104;
    /// Stops it.
    pub const PCM_STOP: u32 = 0x105;
    /// About channel maps.
    pub const CHMAP_INFO: u32 = 0x200;
}

/// Statuses (\[1\] 5.14.6).
pub mod status {
    /// Done.
    pub const OK: u32 = 0x8000;
    /// The message is malformed, or not for now.
    pub const BAD_MSG: u32 = 0x8001;
    /// Not supported.
    pub const NOT_SUPP: u32 = 0x8002;
    /// It failed.
    pub const IO_ERR: u32 = 0x8003;
}

/// Direction of a stream: it plays (\[1\] 5.14.6).
pub const OUTPUT: u8 = 0;

/// Sample format: signed, 16 bits (\[1\] 5.14.6.6.2).
pub const S16: u8 = 5;
/// Frame rate: 48 kHz (\[1\] 5.14.6.6.2).
pub const RATE_48000: u8 = 7;

/// Asks about items (\[1\] 5.14.6.1).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct QueryInfo {
    /// See [`request`].
    pub code: U32,
    /// The first.
    pub start: U32,
    /// How many.
    pub count: U32,
    /// Bytes the driver expects of each.
    pub size: U32,
}

/// A jack (\[1\] 5.14.6.4.1).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct JackInfo {
    /// Its node in HDA's graph.
    pub node: U32,
    /// Whether it can be remapped.
    pub features: U32,
    /// HDA's default configuration.
    pub configuration: U32,
    /// HDA's pin capabilities.
    pub capabilities: U32,
    /// Whether something is plugged in.
    pub connected: u8,
    /// Nothing.
    pub padding: [u8; 7],
}

/// A stream (\[1\] 5.14.6.6.2).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PcmInfo {
    /// Its node in HDA's graph.
    pub node: U32,
    /// Features, a bit each.
    pub features: U32,
    /// Sample formats, a bit each.
    pub formats: U64,
    /// Frame rates, a bit each.
    pub rates: U64,
    /// Plays or records.
    pub direction: u8,
    /// Channels at least.
    pub channels_min: u8,
    /// Channels at most.
    pub channels_max: u8,
    /// Nothing.
    pub padding: [u8; 5],
}

/// A channel map (\[1\] 5.14.6.9.1).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ChmapInfo {
    /// Its node in HDA's graph.
    pub node: U32,
    /// Plays or records.
    pub direction: u8,
    /// Channels.
    pub channels: u8,
    /// Where each is heard.
    pub positions: [u8; 18],
}

/// Parameters of a stream (\[1\] 5.14.6.6.3).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SetParams {
    /// See [`request`].
    pub code: U32,
    /// Which stream.
    pub stream: U32,
    /// Bytes of its buffer.
    pub buffer_bytes: U32,
    /// Bytes of a period of it.
    pub period_bytes: U32,
    /// Features.
    pub features: U32,
    /// Channels.
    pub channels: u8,
    /// Sample format.
    pub format: u8,
    /// Frame rate.
    pub rate: u8,
    /// Nothing.
    pub padding: u8,
}

/// How sound was played (\[1\] 5.14.6.8).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PcmStatus {
    /// See [`status`].
    pub status: U32,
    /// Bytes that are still to be heard.
    pub latency: U32,
}

const _: () = assert!(size_of::<QueryInfo>() == 16);
const _: () = assert!(size_of::<JackInfo>() == 24);
const _: () = assert!(size_of::<PcmInfo>() == 32);
const _: () = assert!(size_of::<ChmapInfo>() == 24);
const _: () = assert!(size_of::<SetParams>() == 24);
