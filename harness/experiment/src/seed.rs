//! Seeds: the same trial gets the same seed in every placement, every subset and every run.

use cofferdam_seam::SplitMix64;

/// FNV-1a, 64 bits: order of parts matters, their borders too.
pub fn digest<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut mix = |byte: u8| hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    for part in parts {
        part.iter().copied().for_each(&mut mix);
        // 0xff never occurs in UTF-8, so "ab" + "c" and "a" + "bc" differ.
        mix(0xff);
    }
    hash
}

/// The seed of a trial: the run's seed, what the trial shares with its peers, and its number.
pub fn derive(run: u64, shared: &[&str], number: u32) -> u64 {
    let run = run.to_le_bytes();
    let number = number.to_le_bytes();
    let head = [&run[..], &number[..]];
    let hash = digest(
        head.into_iter()
            .chain(shared.iter().map(|part| part.as_bytes())),
    );
    Draw::new(hash).next()
}

/// A stream of pseudo-random numbers.
#[derive(Clone, Debug)]
pub struct Draw(SplitMix64);

impl Draw {
    /// The stream of a seed.
    pub const fn new(seed: u64) -> Self {
        Self(SplitMix64::new(seed))
    }

    /// The next number.
    pub const fn next(&mut self) -> u64 {
        self.0.number()
    }

    /// A number from `low` to `high`, both included; `low` if the range is empty.
    pub const fn between(&mut self, low: u32, high: u32) -> u32 {
        let span = high.saturating_sub(low) as u64 + 1;
        low + (((self.next() >> 32) * span) >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_is_fnv_1a() {
        // Arrange: the published vector of FNV-1a for "foobar", and our separator after it.
        let foobar = 0x8594_4171_f739_67e8_u64;

        // Act and assert.
        let with_separator = (foobar ^ 0xff).wrapping_mul(0x0000_0100_0000_01b3);
        assert_eq!(digest([&b"foobar"[..]]), with_separator);
    }

    #[test]
    fn draw_is_splitmix64() {
        // The published first outputs for seed 1234567.
        let mut draw = Draw::new(1_234_567);
        assert_eq!(draw.next(), 6_457_827_717_110_365_317);
        assert_eq!(draw.next(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn borders_between_parts_count() {
        assert_ne!(derive(1, &["ab", "c"], 0), derive(1, &["a", "bc"], 0));
        assert_ne!(derive(1, &["a"], 0), derive(1, &["a"], 1));
        assert_ne!(derive(1, &["a"], 0), derive(2, &["a"], 0));
    }

    #[test]
    fn between_stays_inside() {
        let mut draw = Draw::new(7);
        let drawn: Vec<u32> = (0..1000).map(|_| draw.between(2, 8)).collect();
        assert_eq!(drawn.iter().min(), Some(&2));
        assert_eq!(drawn.iter().max(), Some(&8));
        assert_eq!(draw.between(5, 5), 5);
        assert_eq!(draw.between(5, 1), 5);
    }
}
