//! The internal PHY, as far as MDIC shows it ([1] 13.4.8.1, [2] clause 22).

use crate::spec::mdi;

/// PHY identifier: Marvell M88E1011 ([1] 13.4.8.1).
const IDENTIFIER: [u16; 2] = [0x0141, 0x0c20];
/// Control after reset: negotiate, full duplex, 1000 Mb/s.
const CONTROL: u16 = 0x1140;
/// Control's bits that clear themselves: reset, restart of negotiation.
const SELF_CLEARING: u16 = 1 << 15 | 1 << 9;
/// Status: what it can do, and that it can negotiate and has more registers.
const STATUS: u16 = 0x7949;
/// Status: negotiated, link up.
const STATUS_UP: u16 = 1 << 5 | 1 << 2;
/// Advertisement and the partner's: 10 and 100 Mb/s, both duplexes, IEEE 802.3.
const ABILITIES: u16 = 0x01e1;
/// The partner acknowledged.
const ACKNOWLEDGED: u16 = 1 << 14;
/// 1000BASE-T control and the partner's status: full duplex.
const GIGABIT_CONTROL: u16 = 0x0300;
const GIGABIT_STATUS: u16 = 0x3c00;
/// PHY-specific status: 1000 Mb/s, full duplex, resolved, link up.
const SPECIFIC_UP: u16 = 0xac00;

#[derive(Debug)]
pub(crate) struct Phy {
    control: u16,
    advertisement: u16,
    gigabit: u16,
}

impl Phy {
    pub fn new() -> Self {
        Self {
            control: CONTROL,
            advertisement: ABILITIES,
            gigabit: GIGABIT_CONTROL,
        }
    }

    /// What MDIC holds after that was written to it. Operations take no time.
    pub fn operate(&mut self, written: u32, up: bool) -> u32 {
        let (number, phy) = (written >> 16 & 0x1f, written >> 21 & 0x1f);
        let kept = written & !(mdi::READY | mdi::ERROR) | mdi::READY;
        match written & mdi::OPERATION {
            mdi::READ if phy == mdi::PHY => kept & !0xffff | u32::from(self.read(number, up)),
            mdi::WRITE if phy == mdi::PHY => {
                let [a, b, ..] = written.to_le_bytes();
                self.write(number, u16::from_le_bytes([a, b]));
                kept
            }
            _ => kept | mdi::ERROR,
        }
    }

    fn read(&self, number: u32, up: bool) -> u16 {
        let when_up = |value| if up { value } else { 0 };
        match number {
            0 => self.control,
            1 => STATUS | when_up(STATUS_UP),
            2 => IDENTIFIER[0],
            3 => IDENTIFIER[1],
            4 => self.advertisement,
            5 => when_up(ABILITIES | ACKNOWLEDGED),
            9 => self.gigabit,
            10 => when_up(GIGABIT_STATUS),
            // Extended status: 1000BASE-T full duplex.
            15 => 0x2000,
            17 => when_up(SPECIFIC_UP),
            _ => 0,
        }
    }

    fn write(&mut self, number: u32, value: u16) {
        match number {
            0 if value & 1 << 15 != 0 => *self = Self::new(),
            0 => self.control = value & !SELF_CLEARING,
            4 => self.advertisement = value,
            9 => self.gigabit = value,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(phy: &mut Phy, number: u32, up: bool) -> u32 {
        phy.operate(mdi::READ | mdi::PHY << 21 | number << 16, up) & 0xffff
    }

    #[test]
    fn identifier_and_link_are_shown() {
        let mut phy = Phy::new();

        assert_eq!(read(&mut phy, 2, true), 0x0141);
        assert_eq!(read(&mut phy, 1, true) & 1 << 2, 1 << 2);
        assert_eq!(read(&mut phy, 1, false) & 1 << 2, 0);
    }

    #[test]
    fn other_phys_and_no_operation_are_errors() {
        let mut phy = Phy::new();

        for written in [mdi::READ | 2 << 21, mdi::PHY << 21] {
            assert_eq!(phy.operate(written, true) >> 28, 0b101 | written >> 28);
        }
    }

    #[test]
    fn reset_restores_control_and_clears_itself() {
        let mut phy = Phy::new();
        phy.operate(mdi::WRITE | mdi::PHY << 21 | 4 << 16, true);

        phy.operate(mdi::WRITE | mdi::PHY << 21 | 0x8000, true);

        assert_eq!(read(&mut phy, 0, true), u32::from(CONTROL));
        assert_eq!(read(&mut phy, 4, true), u32::from(ABILITIES));
    }
}
