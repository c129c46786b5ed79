//! The input device (\[1\] 5.8).

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The queue in which the driver leaves buffers for events (\[1\] 5.8.2).
pub const EVENT: u16 = 0;
/// The queue in which it sends status, such as lights.
pub const STATUS: u16 = 1;

/// Byte offsets in the configuration (\[1\] 5.8.4).
pub mod config {
    /// What is asked for: see [`super::select`].
    pub const SELECT: u32 = 0;
    /// Of what.
    pub const SUBSEL: u32 = 1;
    /// Bytes of answer; zero if there is none.
    pub const SIZE: u32 = 2;
    /// The answer, up to 128 bytes.
    pub const ANSWER: u32 = 8;
    /// Bytes of the longest answer.
    pub const MOST: usize = 128;
}

/// What can be asked of the configuration (\[1\] 5.8.4).
pub mod select {
    /// The device's name.
    pub const NAME: u8 = 1;
    /// Its serial number.
    pub const SERIAL: u8 = 2;
    /// Bus type, vendor, product and version, 16 bits each.
    pub const DEVICE_IDS: u8 = 3;
    /// A bitmap of the codes of the event type in `subsel`.
    pub const EVENT_BITS: u8 = 0x11;
}

/// Event types and codes of Linux (`input-event-codes.h`), to which \[1\] 5.8.6 refers.
pub mod event {
    /// Type: end of a packet of events.
    pub const SYN: u16 = 0;
    /// Type: a key was pressed (1) or released (0).
    pub const KEY: u16 = 1;
    /// Type: a light.
    pub const LED: u16 = 0x11;
}

/// An event (\[1\] 5.8.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Event {
    /// See [`event`].
    pub kind: U16,
    /// Which key or light.
    pub code: U16,
    /// Its state.
    pub value: U32,
}

const _: () = assert!(size_of::<Event>() == 8);
