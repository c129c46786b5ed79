//! Registers and descriptors of the 82540EM.
//!
//! References:
//! - \[1\] Intel, PCI/PCI-X Family of Gigabit Ethernet Controllers Software Developer's Manual,
//!   317453-006, revision 4.0
//! - \[2\] IEEE 802.3-2018

use zerocopy::little_endian::{U16, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// PCI vendor ID (\[1\] 4.1.1).
pub const VENDOR: u16 = 0x8086;
/// PCI device ID of the 82540EM-A (\[1\] table 5-1).
pub const DEVICE: u16 = 0x100e;
/// Class code: network controller, Ethernet (\[1\] 4.1.1).
pub const CLASS: [u8; 3] = [0x02, 0x00, 0x00];
/// Bytes in BAR 0 (\[1\] 4.1.1, table 4-2: 128 KiB).
pub const BAR_BYTES: u64 = 0x2_0000;

/// Device control \[1\] 13.4.1.
pub mod control {
    /// Set link up: lets the MAC see the PHY's link.
    pub const SET_LINK_UP: u32 = 1 << 6;
    /// Full duplex.
    pub const FULL_DUPLEX: u32 = 1 << 0;
    /// Device reset; clears itself.
    pub const RESET: u32 = 1 << 26;
    /// PHY reset.
    pub const PHY_RESET: u32 = 1 << 31;
}

/// Device status \[1\] 13.4.2.
pub mod status {
    /// Full duplex.
    pub const FULL_DUPLEX: u32 = 1 << 0;
    /// The link is up.
    pub const LINK_UP: u32 = 1 << 1;
    /// Speed: 1000 Mb/s.
    pub const SPEED_1000: u32 = 0b10 << 6;
}

/// EEPROM control \[1\] 13.4.3.
pub mod eeprom_control {
    /// An EEPROM is present.
    pub const PRESENT: u32 = 1 << 8;
}

/// EEPROM read \[1\] 13.4.4: address in bits 15:8, data in 31:16.
pub mod eeprom_read {
    /// Start a read.
    pub const START: u32 = 1 << 0;
    /// The read is done.
    pub const DONE: u32 = 1 << 4;
}

/// MDI control \[1\] 13.4.8: data in bits 15:0, register in 20:16, PHY in 25:21.
pub mod mdi {
    /// Operation: write.
    pub const WRITE: u32 = 0b01 << 26;
    /// Operation: read.
    pub const READ: u32 = 0b10 << 26;
    /// The operation's bits.
    pub const OPERATION: u32 = 0b11 << 26;
    /// The operation ended.
    pub const READY: u32 = 1 << 28;
    /// Interrupt when it ended.
    pub const INTERRUPT: u32 = 1 << 29;
    /// No such PHY, or no such operation.
    pub const ERROR: u32 = 1 << 30;
    /// The address of the internal PHY.
    pub const PHY: u32 = 1;
}

/// Interrupt causes \[1\] 13.4.17.
pub mod cause {
    /// TXDW: a transmit descriptor was written back.
    pub const TRANSMITTED: u32 = 1 << 0;
    /// TXQE: the transmit ring is empty.
    pub const TRANSMIT_EMPTY: u32 = 1 << 1;
    /// LSC: the link came up or went down.
    pub const LINK: u32 = 1 << 2;
    /// RXDMT0: few receive descriptors are left.
    pub const RECEIVE_LOW: u32 = 1 << 4;
    /// RXO: a frame found no room.
    pub const OVERRUN: u32 = 1 << 6;
    /// RXT0: frames were received.
    pub const RECEIVED: u32 = 1 << 7;
    /// MDAC: an MDI access ended.
    pub const MDI: u32 = 1 << 9;
    /// Every cause there is.
    pub const ALL: u32 = 0x0001_ffff;
}

/// Receive control \[1\] 13.4.22.
pub mod receive_control {
    /// The receiver is on.
    pub const ENABLE: u32 = 1 << 1;
    /// Take frames for any station.
    pub const UNICAST_ALL: u32 = 1 << 3;
    /// Take frames for any group.
    pub const MULTICAST_ALL: u32 = 1 << 4;
    /// Take frames of more than 1522 bytes.
    pub const LONG: u32 = 1 << 5;
    /// Where the threshold of few descriptors is: a half, a quarter, an eighth of the ring.
    pub const THRESHOLD_SHIFT: u32 = 8;
    /// Which bits of a group's address select the filter's bit.
    pub const MULTICAST_OFFSET_SHIFT: u32 = 12;
    /// Take broadcasts.
    pub const BROADCAST: u32 = 1 << 15;
    /// Buffer size: 2048, 1024, 512 or 256 bytes.
    pub const SIZE_SHIFT: u32 = 16;
    /// Buffers are sixteen times as large.
    pub const SIZE_EXTENSION: u32 = 1 << 25;
    /// Strip the frame check sequence.
    pub const STRIP_CRC: u32 = 1 << 26;
}

/// Transmit control \[1\] 13.4.33.
pub mod transmit_control {
    /// The transmitter is on.
    pub const ENABLE: u32 = 1 << 1;
    /// Pad short frames.
    pub const PAD: u32 = 1 << 3;
}

/// Receive address high \[1\] 13.5.3: the address is valid.
pub const ADDRESS_VALID: u32 = 1 << 31;
/// Receive addresses \[1\] 13.5.2.
pub const ADDRESSES: usize = 16;
/// Words of the multicast table array \[1\] 13.5.1.
pub const MULTICAST_WORDS: usize = 128;

/// Bytes in a descriptor \[1\] 3.2.3, 3.3.3.
pub const DESCRIPTOR: u64 = 16;
/// Where in a descriptor the bytes are that tell of its end: status first.
pub const DESCRIPTOR_STATUS: usize = 12;

/// Legacy transmit descriptor \[1\] 3.3.3.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TransmitDescriptor {
    /// Where the data are.
    pub address: U64,
    /// Bytes.
    pub length: U16,
    /// Checksum offset; in the extended formats part of the length and the type.
    pub checksum_offset: u8,
    /// See [`command`].
    pub command: u8,
    /// See [`DONE`]; the upper four bits are reserved.
    pub status: u8,
    /// Checksum start.
    pub checksum_start: u8,
    /// VLAN tag.
    pub special: U16,
}

/// Bits of [`TransmitDescriptor::command`] \[1\] 3.3.3.1.
pub mod command {
    /// EOP: the frame ends here.
    pub const END_OF_PACKET: u8 = 1 << 0;
    /// IFCS: the controller inserts the frame check sequence.
    pub const INSERT_FCS: u8 = 1 << 1;
    /// RS: the controller reports the status.
    pub const REPORT_STATUS: u8 = 1 << 3;
    /// DEXT: an extended format \[1\] 3.3.4.
    pub const EXTENDED: u8 = 1 << 5;
}

/// Legacy receive descriptor \[1\] 3.2.3.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ReceiveDescriptor {
    /// Where the buffer is.
    pub address: U64,
    /// Bytes received into it.
    pub length: U16,
    /// Checksum of the packet.
    pub checksum: U16,
    /// See [`DONE`] and [`END_OF_PACKET`].
    pub status: u8,
    /// Errors.
    pub errors: u8,
    /// VLAN tag.
    pub special: U16,
}

/// DD, in both descriptors' status: the controller has done with it \[1\] 3.2.3.1, 3.3.3.2.
pub const DONE: u8 = 1 << 0;
/// EOP, in a receive descriptor's status: the frame ends here \[1\] 3.2.3.1.
pub const END_OF_PACKET: u8 = 1 << 1;
/// IXSM, in a receive descriptor's status: its checksum indications mean nothing \[1\] 3.2.3.1.
pub const IGNORE_CHECKSUM: u8 = 1 << 2;

/// Bytes in the shortest frame without its check sequence \[2\] 3.2.7.
pub const MIN_FRAME: usize = 60;
/// Bytes in the longest frame that is no long one: 1522 with tag and check sequence \[1\] 13.4.22.
pub const MAX_FRAME: usize = 1518;
/// Bytes in the longest frame the controller sends: 16288 with its check sequence \[1\] 3.3.3.
pub const MAX_TRANSMIT: usize = 16284;
/// Bytes in a frame check sequence \[2\] 3.2.9.
pub const FCS: usize = 4;

const _: () = assert!(size_of::<TransmitDescriptor>() as u64 == DESCRIPTOR);
const _: () = assert!(size_of::<ReceiveDescriptor>() as u64 == DESCRIPTOR);

/// The frame check sequence of a frame, in the order of its bytes on the wire \[2\] 3.2.9.
pub fn check_sequence(frame: &[u8]) -> [u8; FCS] {
    let crc = frame.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 0 {
                crc >> 1
            } else {
                crc >> 1 ^ 0xedb8_8320
            }
        })
    });
    (!crc).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_sequence_is_that_of_the_standard() {
        // The check value of CRC-32: cbf43926.
        assert_eq!(check_sequence(b"123456789"), [0x26, 0x39, 0xf4, 0xcb]);
    }

    #[test]
    fn descriptors_are_laid_out_as_in_the_manual() {
        let transmit = TransmitDescriptor {
            address: 0x0102_0304_0506_0708.into(),
            length: 0x1112.into(),
            checksum_offset: 0x21,
            command: 0x22,
            status: 0x23,
            checksum_start: 0x24,
            special: 0x3132.into(),
        };
        let receive = ReceiveDescriptor {
            address: 0x0102_0304_0506_0708.into(),
            length: 0x1112.into(),
            checksum: 0x2122.into(),
            status: 0x23,
            errors: 0x24,
            special: 0x3132.into(),
        };

        let address = [8, 7, 6, 5, 4, 3, 2, 1];
        let tail = [0x12, 0x11, 0x21, 0x22, 0x23, 0x24, 0x32, 0x31];
        assert_eq!(transmit.as_bytes(), [address, tail].concat());
        let tail = [0x12, 0x11, 0x22, 0x21, 0x23, 0x24, 0x32, 0x31];
        assert_eq!(receive.as_bytes(), [address, tail].concat());
    }
}
