//! The device as its specification has it.
//!
//! 1. QEMU, `docs/specs/edu.rst`, "Command line switches" to "MMIO area spec".

/// Vendor 1234h and device 11e8h, as the first word of configuration space has them [1].
pub const PCI_ID: u32 = 0x11e8_1234;

/// Bytes of BAR 0 the registers take; the BAR has 1 MiB [1].
pub const REGISTERS: u64 = 0xa0;

/// Identification: major and minor version, then [`IDENTIFIER`] in the low half [1].
pub const IDENTIFICATION: u32 = 0x00;
/// Low half of [`IDENTIFICATION`] [1].
pub const IDENTIFIER: u32 = 0x00ed;

/// Reads as the inverse of what was written last [1].
pub const LIVENESS: u32 = 0x04;

/// Operand, then result [1].
pub const FACTORIAL: u32 = 0x08;

/// Status of the factorial engine [1].
pub const STATUS: u32 = 0x20;
/// [`STATUS`]: a factorial is being computed (read only).
pub const COMPUTING: u32 = 0x01;
/// [`STATUS`]: raise an interrupt when it is done.
pub const RAISE_WHEN_DONE: u32 = 0x80;

/// Reasons of the pending interrupt [1].
pub const INTERRUPT_STATUS: u32 = 0x24;
/// Clears the reasons written to it [1].
pub const INTERRUPT_ACKNOWLEDGE: u32 = 0x64;
/// Interrupt reason: a factorial is done [1].
pub const FACTORIAL_DONE: u32 = 0x001;
/// Interrupt reason: a DMA is done [1].
pub const DMA_DONE: u32 = 0x100;

/// Address to copy from: RAM's or the device's [1].
pub const DMA_SOURCE: u32 = 0x80;
/// Address to copy to [1].
pub const DMA_DESTINATION: u32 = 0x88;
/// Bytes to copy [1].
pub const DMA_COUNT: u32 = 0x90;
/// Starts a copy [1].
pub const DMA_COMMAND: u32 = 0x98;
/// [`DMA_COMMAND`]: start; reads as set until the copy is done.
pub const DMA_START: u32 = 0x01;
/// [`DMA_COMMAND`]: from the device to RAM.
pub const DMA_TO_RAM: u32 = 0x02;
/// [`DMA_COMMAND`]: raise an interrupt when it is done.
pub const DMA_RAISE: u32 = 0x04;

/// The buffer's address inside the device [1].
pub const BUFFER: u64 = 0x4_0000;
/// Bytes in the buffer [1].
pub const BUFFER_LEN: usize = 4096;
