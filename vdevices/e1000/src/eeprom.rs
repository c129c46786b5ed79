//! The EEPROM: 64 words that the controller reads its address from ([1] 5.6).

use crate::spec::{DEVICE, VENDOR, eeprom_read};

const WORDS: usize = 64;
/// What all words add up to ([1] 5.6.35).
const SUM: u16 = 0xbaba;

#[derive(Debug)]
pub(crate) struct Eeprom([u16; WORDS]);

impl Eeprom {
    /// An EEPROM that holds that station address; the rest of it is as good as empty.
    pub fn new(address: [u8; 6]) -> Self {
        let mut words = [0; WORDS];
        for (word, pair) in words.iter_mut().zip(address.chunks_exact(2)) {
            *word = u16::from_le_bytes([pair[0], pair[1]]);
        }
        // Subsystem and PCI identifiers ([1] 5.6.11 to 5.6.14).
        words[0x0b] = 0x001e;
        words[0x0c] = VENDOR;
        words[0x0d] = DEVICE;
        words[0x0e] = VENDOR;
        let sum = words
            .iter()
            .fold(0, |sum: u16, word| sum.wrapping_add(*word));
        words[WORDS - 1] = SUM.wrapping_sub(sum);
        Self(words)
    }

    /// The station address, as it goes to the first receive address: low and high word.
    pub fn address(&self) -> (u32, u32) {
        let [a, b, c] = [self.0[0], self.0[1], self.0[2]].map(u32::from);
        (a | b << 16, c)
    }

    /// What EERD holds after that was written to it. Reads take no time; words that are not there
    /// read as all ones.
    pub fn read(&self, written: u32) -> u32 {
        let asked = written & 0xff00;
        if written & eeprom_read::START == 0 {
            return asked;
        }
        let word = self.0.get((asked >> 8) as usize).copied();
        u32::from(word.unwrap_or(0xffff)) << 16 | asked | eeprom_read::DONE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_add_up_and_hold_the_address() {
        let eeprom = Eeprom::new([0x52, 0x54, 0x00, 0x12, 0x34, 0x56]);

        let sum = eeprom
            .0
            .iter()
            .fold(0, |sum: u16, word| sum.wrapping_add(*word));

        assert_eq!(sum, SUM);
        assert_eq!(eeprom.address(), (0x1200_5452, 0x5634));
        assert_eq!(eeprom.read(0x0001), 0x5452_0010);
        assert_eq!(eeprom.read(0x0200), 0x0200);
        assert_eq!(eeprom.read(0xff01), 0xffff_ff10);
    }
}
