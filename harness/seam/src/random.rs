//! Numbers that look random and depend on a seed and on nothing else: what is made up here is made up
//! the same way every time.

/// SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
#[derive(Clone, Debug)]
pub struct SplitMix64(u64);

impl SplitMix64 {
    /// The stream of a seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    #[inline]
    pub const fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        Self::mix(self.0)
    }

    /// Its finaliser: a bijection that mixes every bit into every other.
    #[inline]
    pub const fn mix(word: u64) -> u64 {
        let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// The next bytes, whole numbers of them.
    pub fn bytes(&mut self, len: usize) -> impl Iterator<Item = u8> {
        core::iter::repeat_with(|| self.number().to_le_bytes())
            .flatten()
            .take(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_is_the_published_one() {
        // The first numbers of seed 1234567 in the generator's reference tests.
        let mut stream = SplitMix64::new(1_234_567);
        let first = [(); 3].map(|()| stream.number());
        assert_eq!(
            first,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423
            ]
        );
    }
}
