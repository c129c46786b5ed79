//! Registers of a type 0 configuration space: where they are and what their bits mean.
//!
//! References:
//! - \[1\] PCI Local Bus Specification 3.0, chapter 6
//! - \[2\] PCI Express Base Specification 6.0, 7.5

/// Bytes of configuration space a PCI Express function has (\[2\] 7.2.2).
pub const CONFIG_SPACE: u16 = 4096;

/// Vendor ID, 16 bits (\[1\] 6.2.1).
pub const VENDOR: u16 = 0x00;
/// Device ID, 16 bits (\[1\] 6.2.1).
pub const DEVICE: u16 = 0x02;
/// Command, 16 bits (\[1\] 6.2.2).
pub const COMMAND: u16 = 0x04;
/// Status, 16 bits (\[1\] 6.2.3).
pub const STATUS: u16 = 0x06;
/// Revision ID, 8 bits (\[1\] 6.2.1).
pub const REVISION: u16 = 0x08;
/// Class code: programming interface, subclass, base class (\[1\] 6.2.1).
pub const CLASS: u16 = 0x09;
/// Cache line size, 8 bits (\[1\] 6.2.4); it does nothing on PCI Express (\[2\] 7.5.1.1.7).
pub const CACHE_LINE: u16 = 0x0c;
/// The six base address registers, by index (\[1\] 6.2.5).
pub const BARS: [u16; 6] = [0x10, 0x14, 0x18, 0x1c, 0x20, 0x24];
/// Subsystem vendor ID and subsystem ID, 16 bits each (\[1\] 6.2.4).
pub const SUBSYSTEM: u16 = 0x2c;
/// Offset of the first capability, 8 bits (\[1\] 6.2.4).
pub const CAPABILITIES: u16 = 0x34;
/// Interrupt line, 8 bits: software's scratch pad (\[1\] 6.2.4).
pub const INTERRUPT_LINE: u16 = 0x3c;
/// Interrupt pin, 8 bits: 1 is INTA# (\[1\] 6.2.4).
pub const INTERRUPT_PIN: u16 = 0x3d;
/// Where capabilities may begin (\[1\] 6.7).
pub const FIRST_CAPABILITY: u16 = 0x40;
/// Where capabilities must end: what lies beyond is extended configuration space (\[2\] 7.2.2).
pub const CAPABILITIES_END: u16 = 0x100;

/// Bits of [`COMMAND`] (\[1\] 6.2.2).
pub mod command {
    /// The function decodes its memory BARs.
    pub const MEMORY: u16 = 1 << 1;
    /// The function may send memory requests, messages included.
    pub const BUS_MASTER: u16 = 1 << 2;
    /// Parity error response; it does nothing here.
    pub const PARITY: u16 = 1 << 6;
    /// SERR# enable; it does nothing here.
    pub const SERR: u16 = 1 << 8;
    /// The function keeps its INTx pin released.
    pub const INTX_DISABLE: u16 = 1 << 10;
}

/// Bits of [`STATUS`] (\[1\] 6.2.3).
pub mod status {
    /// An INTx interrupt is pending inside the function, whether disabled or not.
    pub const INTERRUPT: u16 = 1 << 3;
    /// There is a capability list.
    pub const CAPABILITIES: u16 = 1 << 4;
}

/// Low bits of a memory BAR (\[1\] 6.2.5.1).
pub mod bar {
    /// 64-bit decoding: the next register holds the upper half.
    pub const WIDE: u32 = 0b10 << 1;
    /// Prefetchable.
    pub const PREFETCHABLE: u32 = 1 << 3;
    /// Bits that are not address.
    pub const FLAGS: u32 = 0xf;
}

/// Capability identifiers (\[1\] appendix H; \[2\] 7.5.3.1).
pub mod capability {
    /// Message signalled interrupts.
    pub const MSI: u8 = 0x05;
    /// Vendor specific.
    pub const VENDOR: u8 = 0x09;
    /// PCI Express.
    pub const PCIE: u8 = 0x10;
    /// MSI-X.
    pub const MSIX: u8 = 0x11;
}

/// The MSI capability with a 64-bit address and no mask bits (\[1\] 6.8.1). Offsets are from its
/// first byte.
pub mod msi {
    /// Message control, 16 bits.
    pub const CONTROL: u16 = 0x02;
    /// Message address, lower half; bits 0 and 1 are zero.
    pub const ADDRESS: u16 = 0x04;
    /// Message address, upper half.
    pub const ADDRESS_HIGH: u16 = 0x08;
    /// Message data, 16 bits.
    pub const DATA: u16 = 0x0c;
    /// Bytes in the capability.
    pub const LENGTH: u16 = 0x0e;

    /// Control: MSI enable.
    pub const ENABLE: u16 = 1;
    /// Control: log2 of the vectors asked for, 3 bits, shifted by this.
    pub const CAPABLE_SHIFT: u16 = 1;
    /// Control: log2 of the vectors granted, 3 bits, shifted by this.
    pub const ENABLED_SHIFT: u16 = 4;
    /// Control: the address has 64 bits.
    pub const WIDE: u16 = 1 << 7;
}

/// The MSI-X capability and its table (\[1\] 6.8.2). Offsets are from the capability's first byte.
pub mod msix {
    /// Message control, 16 bits: the low 11 are the table's size less one.
    pub const CONTROL: u16 = 0x02;
    /// Where the table is: offset, with the BAR's index in the low 3 bits.
    pub const TABLE: u16 = 0x04;
    /// Where the pending bits are, in the same form.
    pub const PBA: u16 = 0x08;
    /// Bytes in the capability.
    pub const LENGTH: u16 = 0x0c;

    /// Control: the table's size less one.
    pub const SIZE: u16 = 0x7ff;
    /// Control: every vector is masked.
    pub const FUNCTION_MASK: u16 = 1 << 14;
    /// Control: MSI-X enable.
    pub const ENABLE: u16 = 1 << 15;

    /// Bytes in a table entry: address, address high, data, vector control.
    pub const ENTRY: u32 = 16;
    /// Vector control: this vector is masked.
    pub const MASKED: u32 = 1;
}

/// The PCI Express capability of an endpoint, version 2 (\[2\] 7.5.3). Offsets are from its first
/// byte.
pub mod pcie {
    /// PCI Express capabilities, 16 bits (7.5.3.2).
    pub const CAPABILITIES: u16 = 0x02;
    /// Device capabilities, 32 bits (7.5.3.3).
    pub const DEVICE_CAPABILITIES: u16 = 0x04;
    /// Device control, 16 bits (7.5.3.4).
    pub const DEVICE_CONTROL: u16 = 0x08;
    /// Device status, 16 bits (7.5.3.5).
    pub const DEVICE_STATUS: u16 = 0x0a;
    /// Link capabilities, 32 bits (7.5.3.6).
    pub const LINK_CAPABILITIES: u16 = 0x0c;
    /// Link control, 16 bits (7.5.3.7).
    pub const LINK_CONTROL: u16 = 0x10;
    /// Link status, 16 bits (7.5.3.8).
    pub const LINK_STATUS: u16 = 0x12;
    /// Link capabilities 2, 32 bits (7.5.3.18).
    pub const LINK_CAPABILITIES_2: u16 = 0x2c;
    /// Link control 2, 16 bits (7.5.3.19).
    pub const LINK_CONTROL_2: u16 = 0x30;
    /// Bytes in the capability.
    pub const LENGTH: u16 = 0x3c;

    /// Capabilities: version 2, device type 0 (endpoint).
    pub const VERSION_2_ENDPOINT: u16 = 0x0002;
    /// Device capabilities: role-based error reporting, which is mandatory.
    pub const ROLE_BASED_ERRORS: u32 = 1 << 15;
    /// Device capabilities: function-level reset works.
    pub const FLR_CAPABLE: u32 = 1 << 28;
    /// Device control: starts a function-level reset; reads as zero.
    pub const INITIATE_FLR: u16 = 1 << 15;
    /// Device control: maximum payload size, which survives a function-level reset.
    pub const MAX_PAYLOAD: u16 = 0b111 << 5;
}
