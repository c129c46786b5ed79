//! The registers ([1] chapter 13): which there are, and what a driver may do to them.

use crate::spec::{ADDRESSES, MULTICAST_WORDS, cause};

/// A register, 32 bits wide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Register {
    Control,
    Status,
    EepromControl,
    EepromRead,
    Mdi,
    /// Causes: reading clears all of them, writing those written.
    Causes,
    CauseSet,
    MaskSet,
    MaskClear,
    ReceiveControl,
    TransmitControl,
    ReceiveBaseLow,
    ReceiveBaseHigh,
    ReceiveLength,
    ReceiveHead,
    ReceiveTail,
    TransmitBaseLow,
    TransmitBaseHigh,
    TransmitLength,
    TransmitHead,
    TransmitTail,
    /// A statistic, cleared by reading.
    Statistic(Statistic),
    /// The low or high word of a receive address.
    Address(usize, usize),
    Multicast(usize),
    /// Holds what is written, and does nothing with it.
    Held(usize),
}

/// What is counted ([1] 13.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Statistic {
    /// MPC: frames that found no room.
    Missed,
    /// GPRC: good frames received.
    Received,
    /// GPTC: good frames sent.
    Transmitted,
}

/// How many there are.
pub(crate) const STATISTICS: usize = 3;

/// Offset, name, register and writable bits, in order. Registers are accessed as 32 bits ([1] 13.2);
/// whatever is not here reads as zero and ignores writes.
pub(crate) const REGISTERS: [(u32, &str, Register, u32); 24] = [
    (0x0000, "CTRL", Register::Control, !0),
    (0x0008, "STATUS", Register::Status, 0),
    (0x0010, "EECD", Register::EepromControl, 0),
    (0x0014, "EERD", Register::EepromRead, !0),
    (0x0020, "MDIC", Register::Mdi, 0x3fff_ffff),
    (0x00c0, "ICR", Register::Causes, cause::ALL),
    (0x00c8, "ICS", Register::CauseSet, cause::ALL),
    (0x00d0, "IMS", Register::MaskSet, cause::ALL),
    (0x00d8, "IMC", Register::MaskClear, cause::ALL),
    (0x0100, "RCTL", Register::ReceiveControl, 0x07ff_fffe),
    (0x0400, "TCTL", Register::TransmitControl, 0x07ff_fffa),
    (0x2800, "RDBAL", Register::ReceiveBaseLow, !0xf),
    (0x2804, "RDBAH", Register::ReceiveBaseHigh, !0),
    (0x2808, "RDLEN", Register::ReceiveLength, 0x000f_ff80),
    (0x2810, "RDH", Register::ReceiveHead, 0xffff),
    (0x2818, "RDT", Register::ReceiveTail, 0xffff),
    (0x3800, "TDBAL", Register::TransmitBaseLow, !0xf),
    (0x3804, "TDBAH", Register::TransmitBaseHigh, !0),
    (0x3808, "TDLEN", Register::TransmitLength, 0x000f_ff80),
    (0x3810, "TDH", Register::TransmitHead, 0xffff),
    (0x3818, "TDT", Register::TransmitTail, 0xffff),
    (0x4010, "MPC", Register::Statistic(Statistic::Missed), 0),
    (0x4074, "GPRC", Register::Statistic(Statistic::Received), 0),
    (
        0x4080,
        "GPTC",
        Register::Statistic(Statistic::Transmitted),
        0,
    ),
];

/// Registers that are held only: offset, name, value after reset.
pub(crate) const HELD: [(u32, &str, u32); 18] = [
    (0x0018, "CTRL_EXT", 0),
    (0x0028, "FCAL", 0),
    (0x002c, "FCAH", 0),
    (0x0030, "FCT", 0),
    (0x0038, "VET", 0),
    (0x00c4, "ITR", 0),
    (0x0170, "FCTTV", 0),
    (0x0410, "TIPG", 0x0060_2008),
    (0x0e00, "LEDCTL", 0x0706_8302),
    // 48 KiB receive, 16 transmit.
    (0x1000, "PBA", 0x0010_0030),
    (0x2160, "FCRTL", 0),
    (0x2168, "FCRTH", 0),
    (0x2820, "RDTR", 0),
    (0x282c, "RADV", 0),
    (0x3820, "TIDV", 0),
    (0x3828, "TXDCTL", 0),
    (0x382c, "TADV", 0),
    (0x5000, "RXCSUM", 0),
];

const MULTICAST: u32 = 0x5200;
const ADDRESS: u32 = 0x5400;

/// The register at an offset, and the bits of it that can be written.
pub(crate) fn find(offset: u32) -> Option<(Register, u32)> {
    if let Some((_, _, register, writable)) = REGISTERS.iter().find(|(at, ..)| *at == offset) {
        return Some((*register, *writable));
    }
    if let Some(index) = HELD.iter().position(|(at, ..)| *at == offset) {
        return Some((Register::Held(index), !0));
    }
    let word = |first: u32| (offset.checked_sub(first)? / 4).try_into().ok();
    let aligned = offset.is_multiple_of(4);
    match (word(MULTICAST), word(ADDRESS)) {
        (_, Some(word @ ..32)) if aligned => {
            const _: () = assert!(ADDRESSES == 16);
            Some((
                Register::Address(word / 2, word % 2),
                [!0, 0x8003_ffff][word % 2],
            ))
        }
        (Some(word @ ..MULTICAST_WORDS), _) if aligned => Some((Register::Multicast(word), !0)),
        _ => None,
    }
}

/// What the manual calls the register at an offset.
pub(crate) fn name(offset: u32) -> Option<String> {
    let known = REGISTERS.iter().map(|(at, name, ..)| (*at, *name));
    let mut all = known.chain(HELD.iter().map(|(at, name, _)| (*at, *name)));
    if let Some((_, name)) = all.find(|(at, _)| *at == offset) {
        return Some(name.to_owned());
    }
    match find(offset)?.0 {
        Register::Address(index, 0) => Some(format!("RAL{index}")),
        Register::Address(index, _) => Some(format!("RAH{index}")),
        Register::Multicast(word) => Some(format!("MTA{word}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_follow_one_another() {
        for pair in REGISTERS.windows(2) {
            assert!(pair[0].0 < pair[1].0, "{pair:?}");
        }
        for pair in HELD.windows(2) {
            assert!(pair[0].0 < pair[1].0, "{pair:?}");
        }
    }

    #[test]
    fn tables_of_addresses_are_where_the_manual_has_them() {
        assert_eq!(find(0x5400), Some((Register::Address(0, 0), !0)));
        assert_eq!(find(0x547c), Some((Register::Address(15, 1), 0x8003_ffff)));
        assert_eq!(find(0x5480), None);
        assert_eq!(find(0x53fc), Some((Register::Multicast(127), !0)));
        assert_eq!(name(0x5404).as_deref(), Some("RAH0"));
    }
}
