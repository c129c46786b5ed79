//! Virtio over PCI, as the standard has it.
//!
//! 1. Virtual I/O Device (VIRTIO) 1.2, 4.1.2 "PCI Device Discovery".
//! 2. the same, 4.1.4 "Virtio Structure PCI Capabilities".
//! 3. the same, 4.1.4.3 "Common configuration structure layout".
//! 4. the same, 4.1.4.5 "ISR status capability".
//! 5. the same, 2.1 "Device Status Field".
//! 6. the same, 6 "Reserved Feature Bits".
//! 7. PCI Local Bus 3.0, 6.1 and 6.7 (header, capabilities list).

use cofferdam_seam::service::DriverError;

/// Virtio's vendor, and a modern device of that type: 1040h plus the type [1].
pub const fn pci_id(kind: u8) -> u32 {
    0x1040_1af4 + ((kind as u32) << 16)
}

/// Status register; bit 4 says that there is a capabilities list [7].
pub const PCI_STATUS: u16 = 0x06;
/// [`PCI_STATUS`]: capabilities list.
pub const PCI_HAS_CAPABILITIES: u32 = 1 << 4;
/// Pointer to the first capability [7].
pub const PCI_CAPABILITIES: u16 = 0x34;
/// Capabilities start behind the header [7].
pub const PCI_FIRST_CAPABILITY: u16 = 0x40;
/// What fits between header and end, at 4 bytes each: more means a loop [7].
pub const PCI_MAX_CAPABILITIES: usize = 48;
/// Capability ID of vendor-specific ones [7].
pub const PCI_CAP_VENDOR: u8 = 0x09;

/// Offsets in `virtio_pci_cap` [2].
pub mod cap {
    /// Bytes without a doorbell multiplier.
    pub const LEN: u8 = 16;
    /// Bytes with one.
    pub const NOTIFY_LEN: u8 = 20;
    /// Index of the BAR; 6 and up are reserved.
    pub const BAR: u16 = 4;
    /// Where in the BAR.
    pub const OFFSET: u16 = 8;
    /// How long.
    pub const LENGTH: u16 = 12;
    /// `notify_off_multiplier`.
    pub const MULTIPLIER: u16 = 16;

    /// `cfg_type`: common configuration.
    pub const COMMON: u8 = 1;
    /// `cfg_type`: notifications.
    pub const NOTIFY: u8 = 2;
    /// `cfg_type`: ISR status.
    pub const ISR: u8 = 3;
    /// `cfg_type`: device-specific configuration.
    pub const DEVICE: u8 = 4;
}

/// Offsets in the common configuration [3].
pub mod common {
    /// Which half of the device's features shows, 32 bits.
    pub const DEVICE_FEATURE_SELECT: u32 = 0x00;
    /// That half, 32 bits.
    pub const DEVICE_FEATURE: u32 = 0x04;
    /// Which half of the driver's features shows, 32 bits.
    pub const DRIVER_FEATURE_SELECT: u32 = 0x08;
    /// That half, 32 bits.
    pub const DRIVER_FEATURE: u32 = 0x0c;
    /// Vector for configuration changes, 16 bits.
    pub const CONFIG_MSIX_VECTOR: u32 = 0x10;
    /// Device status, 8 bits.
    pub const DEVICE_STATUS: u32 = 0x14;
    /// Changes with the device's configuration, 8 bits.
    pub const CONFIG_GENERATION: u32 = 0x15;
    /// Which queue the rest shows, 16 bits.
    pub const QUEUE_SELECT: u32 = 0x16;
    /// Entries, 16 bits.
    pub const QUEUE_SIZE: u32 = 0x18;
    /// The queue's vector, 16 bits.
    pub const QUEUE_MSIX_VECTOR: u32 = 0x1a;
    /// Whether the queue runs, 16 bits.
    pub const QUEUE_ENABLE: u32 = 0x1c;
    /// Where its doorbell is, in units of the multiplier, 16 bits.
    pub const QUEUE_NOTIFY_OFF: u32 = 0x1e;
    /// Address of the descriptor table, two halves of 32 bits.
    pub const QUEUE_DESC: u32 = 0x20;
    /// Address of the available ring.
    pub const QUEUE_DRIVER: u32 = 0x28;
    /// Address of the used ring.
    pub const QUEUE_DEVICE: u32 = 0x30;
    /// Bytes.
    pub const LEN: u32 = 0x38;
}

/// Reads back where a device could not assign the vector [3].
pub const NO_VECTOR: u16 = 0xffff;

/// Bytes of ISR status; reading it clears it and releases INTx [4].
pub const ISR_LEN: u32 = 1;

/// Device status: the driver's features are accepted [5].
pub const FEATURES_OK: u8 = 8;
/// Device status: the device has failed [5].
pub const DEVICE_NEEDS_RESET: u8 = 64;

/// Feature bit: not a legacy device [6].
pub const VERSION_1: u64 = 1 << 32;

/// Feature bit: notifications are suppressed by index [6].
pub const EVENT_IDX: u64 = 1 << 29;

/// An error if that device status says that the device has failed.
pub fn check_status(status: u8) -> Result<(), DriverError> {
    if status & DEVICE_NEEDS_RESET == 0 {
        Ok(())
    } else {
        Err(DriverError::Protocol("DEVICE_NEEDS_RESET is set"))
    }
}
