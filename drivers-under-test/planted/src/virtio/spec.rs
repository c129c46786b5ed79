//! Virtio over PCI, as the standard has it.
//!
//! 1. Virtual I/O Device (VIRTIO) 1.2, 4.1.4 "Virtio Structure PCI Capabilities".
//! 2. the same, 4.1.4.3 "Common configuration structure layout".
//! 3. the same, 2.1 "Device Status Field".
//! 4. the same, 2.7 "Split Virtqueues".
//! 5. the same, 5.2 "Block Device".

/// Vendor 1af4h, and a modern block device [1].
pub const PCI_ID: u32 = 0x1042_1af4;
/// Pointer to the first capability.
pub const PCI_CAPABILITIES: u16 = 0x34;
/// Capability ID of vendor-specific ones.
pub const PCI_CAP_VENDOR: u8 = 0x09;
/// What fits in a configuration space; more is a circle.
pub const PCI_MAX_CAPABILITIES: usize = 48;

/// Offsets in the common configuration [2].
pub mod common {
    pub const DRIVER_FEATURE_SELECT: u32 = 0x08;
    pub const DRIVER_FEATURE: u32 = 0x0c;
    pub const DEVICE_STATUS: u32 = 0x14;
    pub const CONFIG_GENERATION: u32 = 0x15;
    pub const QUEUE_SELECT: u32 = 0x16;
    pub const QUEUE_SIZE: u32 = 0x18;
    pub const QUEUE_MSIX_VECTOR: u32 = 0x1a;
    pub const QUEUE_ENABLE: u32 = 0x1c;
    /// Address of the descriptor table, two halves; those of the two rings follow.
    pub const QUEUE_DESC: u32 = 0x20;
    pub const QUEUE_DRIVER: u32 = 0x28;
    pub const QUEUE_DEVICE: u32 = 0x30;
}

/// Device status: acknowledge, driver [3].
pub const DRIVER: u8 = 1 | 2;
/// Device status: the driver is ready [3].
pub const DRIVER_OK: u8 = 4;
/// Device status: the features are accepted [3].
pub const FEATURES_OK: u8 = 8;

/// Descriptor flag: the chain goes on [4].
pub const NEXT: u16 = 1;
/// Descriptor flag: the device writes the buffer [4].
pub const WRITE: u16 = 2;
/// Bytes of a descriptor, and of an element of the used ring [4].
pub const DESCRIPTOR: usize = 16;
pub const ELEMENT: usize = 8;

/// Kinds of block request [5].
pub const IN: u32 = 0;
pub const OUT: u32 = 1;
pub const GET_ID: u32 = 8;
/// Bytes of the device's identifier [5].
pub const ID_BYTES: usize = 20;
/// Status of a request that succeeded [5].
pub const OK: u8 = 0;
