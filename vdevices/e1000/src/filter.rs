//! Which frames the receiver takes ([1] 3.2.1).

use crate::spec::{ADDRESS_VALID, ADDRESSES, MULTICAST_WORDS, receive_control as control};

/// The receive addresses and the multicast table array.
#[derive(Debug)]
pub(crate) struct Filter {
    /// Low and high word of each address.
    pub addresses: [[u32; 2]; ADDRESSES],
    pub multicast: [u32; MULTICAST_WORDS],
}

impl Filter {
    /// The first address is the EEPROM's.
    pub fn new((low, high): (u32, u32)) -> Self {
        let mut addresses = [[0; 2]; ADDRESSES];
        addresses[0] = [low, high | ADDRESS_VALID];
        Self {
            addresses,
            multicast: [0; MULTICAST_WORDS],
        }
    }

    /// Whether a frame to `station` is taken with that receive control.
    pub fn takes(&self, station: [u8; 6], rctl: u32) -> bool {
        if station == [0xff; 6] && rctl & control::BROADCAST != 0 {
            return true;
        }
        let [a, b, c, d, e, f] = station.map(u32::from);
        let (low, high) = (a | b << 8 | c << 16 | d << 24, e | f << 8);
        let exact = self.addresses.iter().any(|[known, rest]| {
            // Any other address select than destination matches nothing here.
            *known == low && rest & 0x3_ffff == high && rest & ADDRESS_VALID != 0
        });
        if a & 1 == 0 {
            return exact || rctl & control::UNICAST_ALL != 0;
        }
        // The upper two bytes, from bit 4, 3, 2 or 0 on, select one bit of 4096 ([1] 13.5.1).
        let shift = [4, 3, 2, 0][(rctl >> control::MULTICAST_OFFSET_SHIFT & 3) as usize];
        let bit = (high >> shift) & 0xfff;
        let listed = self.multicast[(bit >> 5) as usize] >> (bit & 31) & 1 == 1;
        exact || listed || rctl & control::MULTICAST_ALL != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

    fn filter() -> Filter {
        Filter::new((0x1200_5452, 0x5634))
    }

    #[test]
    fn own_address_is_taken_and_no_other() {
        let filter = filter();

        assert!(filter.takes(OWN, 0));
        assert!(!filter.takes([0x52, 0x54, 0, 0x12, 0x34, 0x57], 0));
        assert!(filter.takes([2; 6], control::UNICAST_ALL));
    }

    #[test]
    fn broadcast_and_groups_are_taken_if_asked_for() {
        let mut filter = filter();
        let group = [0x01, 0, 0x5e, 0, 0x12, 0xab];

        assert!(!filter.takes([0xff; 6], 0));
        assert!(filter.takes([0xff; 6], control::BROADCAST));
        assert!(!filter.takes(group, 0));
        assert!(filter.takes(group, control::MULTICAST_ALL));
        // Bits 47:36 of the address: ab1.
        filter.multicast[0xab1 >> 5] |= 1 << (0xab1 & 31);
        assert!(filter.takes(group, 0));
    }

    #[test]
    fn address_that_is_not_valid_matches_nothing() {
        let mut filter = filter();
        filter.addresses[0][1] &= !ADDRESS_VALID;
        assert!(!filter.takes(OWN, 0));
    }
}
