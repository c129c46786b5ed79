//! The few facts of the standards that are the adapter's, not the crate's.
//!
//! References: \[1\] NVM Express over PCIe Transport Specification 1.0; \[2\] PCI Local Bus 3.0;
//! \[3\] NVM Express Base Specification 2.0.

/// Offset of revision ID and class code in configuration space \[2\] 6.2.1.
pub const CLASS: u16 = 0x08;
/// Class code, without the revision: mass storage, non-volatile memory, NVM Express I/O controller
/// \[1\] 2.1.4.
pub const CLASS_NVME: u32 = 0x01_08_02;
/// The crate's memory pages: the smallest a controller can have.
pub const PAGE: usize = 4096;
/// Controller configuration, and its enable bit \[3\] 3.1.3.5.
pub const CC: u32 = 0x14;
/// See [`CC`].
pub const CC_EN: u32 = 1;
