//! The few facts of the standards that are the adapter's, not the crate's.
//!
//! References: \[1\] PCI Local Bus 3.0; \[2\] Intel, PCI/PCI-X Family of Gigabit Ethernet Controllers
//! Software Developer's Manual, 317453-006; \[3\] IEEE 802.3-2018.

/// Offset of vendor and device ID in configuration space \[1\] 6.2.1.
pub const IDENTIFIERS: u16 = 0x00;
/// Device status, and its link bit \[2\] 13.4.2.
pub const STATUS: u32 = 0x08;
/// See [`STATUS`].
pub const STATUS_LINK_UP: u32 = 1 << 1;
/// Bytes in the two addresses and the type that begin a frame \[3\] 3.1.1.
pub const HEADER: usize = 14;
/// Bytes in the longest frame, without its check sequence \[3\] 3.2.7.
pub const MAX_FRAME: usize = 1514;
