//! The wire format: what driver and device agree on.
//!
//! References:
//! - \[1\] Virtual I/O Device (VIRTIO) Version 1.2, OASIS Committee Specification 01

pub mod console;
pub mod gpu;
pub mod input;
pub mod net;
pub mod p9;
pub mod socket;
pub mod sound;

use bitfield_struct::bitfield;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// PCI vendor ID of every virtio device (\[1\] 4.1.2).
pub const VENDOR: u16 = 0x1af4;
/// PCI device ID: this plus the virtio device type (\[1\] 4.1.2).
pub const DEVICE: u16 = 0x1040;

/// Virtio device types (\[1\] 5).
pub mod device {
    /// Network device.
    pub const NET: u16 = 1;
    /// Block device.
    pub const BLK: u16 = 2;
    /// Console.
    pub const CONSOLE: u16 = 3;
    /// Entropy source.
    pub const RNG: u16 = 4;
    /// 9P transport.
    pub const P9: u16 = 9;
    /// GPU device.
    pub const GPU: u16 = 16;
    /// Input device.
    pub const INPUT: u16 = 18;
    /// Socket device.
    pub const SOCKET: u16 = 19;
    /// Sound device.
    pub const SOUND: u16 = 25;
}

/// Feature bit: a descriptor may refer to a table of descriptors (\[1\] 6).
pub const INDIRECT_DESC: u64 = 1 << 28;

/// Feature bit: the device follows version 1 of the standard (\[1\] 6).
pub const VERSION_1: u64 = 1 << 32;

/// Which structure a vendor capability tells of: `cfg_type` (\[1\] 4.1.4).
pub mod structure {
    /// Common configuration.
    pub const COMMON: u8 = 1;
    /// Notifications.
    pub const NOTIFY: u8 = 2;
    /// Interrupt status.
    pub const ISR: u8 = 3;
    /// Device-specific configuration.
    pub const DEVICE: u8 = 4;
}

/// The body of a virtio vendor capability, which follows its length (\[1\] 4.1.4): kind, BAR, ID,
/// two bytes of padding, offset and length.
pub const fn capability(kind: u8, bar: u8, offset: u32, length: u32) -> [u8; 13] {
    let [o0, o1, o2, o3] = offset.to_le_bytes();
    let [l0, l1, l2, l3] = length.to_le_bytes();
    [kind, bar, 0, 0, 0, o0, o1, o2, o3, l0, l1, l2, l3]
}

/// The device status register (\[1\] 2.1).
#[bitfield(u8)]
#[derive(PartialEq, Eq)]
pub struct Status {
    /// The driver has noticed the device.
    pub acknowledge: bool,
    /// The driver knows how to drive it.
    pub driver: bool,
    /// The driver is ready.
    pub driver_ok: bool,
    /// Features are negotiated.
    pub features_ok: bool,
    #[bits(2)]
    __: u8,
    /// The device met an error it cannot recover from.
    pub needs_reset: bool,
    /// The driver gave up.
    pub failed: bool,
}

/// "No vector" in a vector register (\[1\] 4.1.5.1.2).
pub const NO_VECTOR: u16 = 0xffff;

/// Interrupt status bits (\[1\] 4.1.4.5).
pub mod isr {
    /// A queue has news.
    pub const QUEUE: u8 = 1;
    /// The configuration changed, or the device needs a reset.
    pub const CONFIG: u8 = 2;
}

/// A descriptor of a split virtqueue (\[1\] 2.7.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Descriptor {
    /// Address of the buffer.
    pub address: U64,
    /// Bytes in the buffer.
    pub length: U32,
    /// See [`descriptor`].
    pub flags: U16,
    /// The next descriptor of the chain.
    pub next: U16,
}

/// Flags of a [`Descriptor`] (\[1\] 2.7.5).
pub mod descriptor {
    /// The chain goes on at `next`.
    pub const NEXT: u16 = 1;
    /// The device writes the buffer; otherwise it reads it.
    pub const WRITE: u16 = 2;
    /// The buffer holds a table of descriptors, if that was negotiated.
    pub const INDIRECT: u16 = 4;
    /// Bytes in a descriptor.
    pub const BYTES: u32 = 16;
}

/// The available ring: flags, index, then one head a slot (\[1\] 2.7.6). Byte offsets.
pub mod available {
    /// Flags, 16 bits.
    pub const FLAGS: u64 = 0;
    /// Index, 16 bits: where the driver would put the next head.
    pub const INDEX: u64 = 2;
    /// The first slot, 16 bits each.
    pub const RING: u64 = 4;
    /// Flag: the driver does not want to be interrupted.
    pub const NO_INTERRUPT: u16 = 1;
}

/// The used ring: flags, index, then one [`UsedElement`] a slot (\[1\] 2.7.8). Byte offsets.
pub mod used {
    /// Index, 16 bits: where the device would put the next element.
    pub const INDEX: u64 = 2;
    /// The first slot.
    pub const RING: u64 = 4;
}

/// An element of the used ring (\[1\] 2.7.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct UsedElement {
    /// Head of the chain that was used.
    pub id: U32,
    /// Bytes written from the start of its writable part.
    pub length: U32,
}

/// How a block request begins (\[1\] 5.2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RequestHeader {
    /// What is asked for: see [`request`].
    pub kind: U32,
    /// Reserved.
    pub reserved: U32,
    /// The first sector.
    pub sector: U64,
}

/// Kinds of block request (\[1\] 5.2.6).
pub mod request {
    /// Read sectors.
    pub const IN: u32 = 0;
    /// Write sectors.
    pub const OUT: u32 = 1;
    /// Read the device's identifier.
    pub const GET_ID: u32 = 8;
    /// Bytes in the identifier, zero padded.
    pub const ID_BYTES: usize = 20;
}

/// The last byte of a block request (\[1\] 5.2.6). An open set: unknown codes are values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestStatus(pub u8);

impl RequestStatus {
    /// Success.
    pub const OK: Self = Self(0);
    /// Device or driver error.
    pub const IO_ERROR: Self = Self(1);
    /// The device does not know this kind of request.
    pub const UNSUPPORTED: Self = Self(2);
}

/// Bytes in a sector, whatever the block size (\[1\] 5.2.4).
pub const SECTOR: u64 = 512;

const _: () = assert!(size_of::<Descriptor>() == 16);
const _: () = assert!(size_of::<UsedElement>() == 8);
const _: () = assert!(size_of::<RequestHeader>() == 16);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptor_has_the_layout_of_the_standard() {
        let descriptor = Descriptor {
            address: 0x0102_0304_0506_0708.into(),
            length: 0x1112_1314.into(),
            flags: (descriptor::NEXT | descriptor::WRITE).into(),
            next: 0x2122.into(),
        };

        let bytes = descriptor.as_bytes();

        #[rustfmt::skip]
        assert_eq!(bytes, [8, 7, 6, 5, 4, 3, 2, 1, 0x14, 0x13, 0x12, 0x11, 3, 0, 0x22, 0x21]);
    }

    #[test]
    fn used_element_has_the_layout_of_the_standard() {
        let element = UsedElement {
            id: 0x0102_0304.into(),
            length: 0x1112_1314.into(),
        };

        let bytes = element.as_bytes();

        assert_eq!(bytes, [4, 3, 2, 1, 0x14, 0x13, 0x12, 0x11]);
    }

    #[test]
    fn request_header_has_the_layout_of_the_standard() {
        let bytes = [8, 0, 0, 0, 0, 0, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1];

        let header = RequestHeader::read_from_bytes(&bytes).unwrap();

        assert_eq!(header.kind.get(), request::GET_ID);
        assert_eq!(header.sector.get(), 0x0102_0304_0506_0708);
    }

    #[test]
    fn status_bits_are_those_of_the_standard() {
        assert_eq!(Status::new().with_acknowledge(true).into_bits(), 1);
        assert_eq!(Status::new().with_driver(true).into_bits(), 2);
        assert_eq!(Status::new().with_driver_ok(true).into_bits(), 4);
        assert_eq!(Status::new().with_features_ok(true).into_bits(), 8);
        assert_eq!(Status::new().with_needs_reset(true).into_bits(), 64);
        assert_eq!(Status::new().with_failed(true).into_bits(), 128);
    }

    #[test]
    fn capability_has_the_layout_of_the_standard() {
        let body = capability(structure::NOTIFY, 4, 0x3000, 0x1000);

        assert_eq!(body, [2, 4, 0, 0, 0, 0, 0x30, 0, 0, 0, 0x10, 0, 0]);
    }
}
