//! Addresses as devices see them, and who uses them.

use core::fmt;

/// An address in a DMA request: an I/O virtual address where an IOMMU translates, a physical one
/// where none does. Never a pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Iova(pub u64);

impl Iova {
    /// The address `bytes` further on, wrapping as an adder in hardware does.
    pub const fn offset(self, bytes: u64) -> Self {
        Self(self.0.wrapping_add(bytes))
    }
}

impl fmt::Display for Iova {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// Which way a DMA mapping may be used, seen from the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The driver fills it, the device reads it.
    ToDevice,
    /// The device fills it.
    FromDevice,
    /// Both read and write: rings.
    Both,
}

impl Direction {
    /// Whether a device may read what is mapped so.
    pub const fn device_reads(self) -> bool {
        matches!(self, Self::ToDevice | Self::Both)
    }

    /// Whether a device may write what is mapped so.
    pub const fn device_writes(self) -> bool {
        matches!(self, Self::FromDevice | Self::Both)
    }
}

/// Bus, device and function of whoever sends a request (PCI Express Base 6.0, 2.2.6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequesterId(pub u16);

impl RequesterId {
    /// The requester at `bus:device.function`; bits beyond 5 and 3 are dropped.
    pub const fn new(bus: u8, device: u8, function: u8) -> Self {
        Self(((bus as u16) << 8) | (((device & 0x1f) as u16) << 3) | ((function & 7) as u16))
    }
}

impl fmt::Display for RequesterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:02x}:{:02x}.{}",
            self.0 >> 8,
            (self.0 >> 3) & 0x1f,
            self.0 & 7
        )
    }
}
