//! Registers of edu: where they are and what their bits mean.
//!
//! References:
//! - \[1\] QEMU, docs/specs/edu.rst

use cofferdam_seam::Width;

/// PCI vendor ID (\[1\] "PCI specs").
pub const VENDOR: u16 = 0x1234;
/// PCI device ID (\[1\] "PCI specs").
pub const DEVICE: u16 = 0x11e8;
/// Bytes in BAR 0 (\[1\] "PCI specs").
pub const BAR_BYTES: u64 = 1 << 20;

/// What [`Register::Identification`] reads as: version 1.0, then `edu` (\[1\] 0x00).
pub const IDENTIFICATION: u32 = 0x0100_00ed;

/// Bits of [`Register::Status`] (\[1\] 0x20).
pub mod status {
    /// A factorial is being computed; read-only.
    pub const COMPUTING: u32 = 0x01;
    /// Raise an interrupt when the factorial is done.
    pub const INTERRUPT: u32 = 0x80;
}

/// Bits of [`Register::InterruptStatus`] that the device itself sets.
pub mod interrupt {
    /// A factorial is done (QEMU's value; the specification names none).
    pub const FACTORIAL: u32 = 0x001;
    /// A transfer is done (\[1\] 0x98).
    pub const DMA: u32 = 0x100;
}

/// Bits of [`Register::DmaCommand`] (\[1\] 0x98).
pub mod dma {
    /// Start; reads as one until the transfer ended.
    pub const START: u64 = 0x01;
    /// Direction: clear from memory to the device, set from the device to memory.
    pub const TO_MEMORY: u64 = 0x02;
    /// Raise [`interrupt::DMA`](super::interrupt::DMA) at the end.
    pub const INTERRUPT: u64 = 0x04;
}

/// Where the device's buffer is in its own addresses (\[1\] "DMA controller").
pub const BUFFER: u64 = 0x4_0000;
/// Bytes in the buffer (\[1\] "DMA controller").
pub const BUFFER_BYTES: usize = 4096;

/// Registers below this are accessed four bytes at a time; from here on four or eight (\[1\] "MMIO
/// area spec").
pub const WIDE_REGISTERS: u32 = 0x80;

/// A register in BAR 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// Reads as [`IDENTIFICATION`].
    Identification,
    /// Reads as the inverse of what was written.
    Liveness,
    /// A number in, later its factorial out.
    Factorial,
    /// See [`status`].
    Status,
    /// Why the interrupt is raised; read-only.
    InterruptStatus,
    /// Sets bits of the interrupt status; write-only.
    InterruptRaise,
    /// Clears bits of the interrupt status; write-only.
    InterruptAcknowledge,
    /// Where to copy from.
    DmaSource,
    /// Where to copy to.
    DmaDestination,
    /// Bytes to copy.
    DmaCount,
    /// See [`dma`].
    DmaCommand,
}

impl Register {
    /// Every register with its offset.
    pub const ALL: [(u32, Self); 11] = [
        (0x00, Self::Identification),
        (0x04, Self::Liveness),
        (0x08, Self::Factorial),
        (0x20, Self::Status),
        (0x24, Self::InterruptStatus),
        (0x60, Self::InterruptRaise),
        (0x64, Self::InterruptAcknowledge),
        (0x80, Self::DmaSource),
        (0x88, Self::DmaDestination),
        (0x90, Self::DmaCount),
        (0x98, Self::DmaCommand),
    ];

    /// The register that an access reaches, if there is one and it may be accessed so.
    #[inline]
    pub fn at(offset: u32, width: Width) -> Option<Self> {
        let allowed = match width {
            Width::Four => true,
            Width::Eight => offset >= WIDE_REGISTERS,
            Width::One | Width::Two => false,
        };
        let (_, register) = Self::ALL.iter().find(|(at, _)| *at == offset)?;
        allowed.then_some(*register)
    }
}
