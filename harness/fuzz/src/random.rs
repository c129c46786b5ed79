//! Random numbers that depend on a seed and on nothing else.

use cofferdam_seam::SplitMix64;

/// A stream of them.
#[derive(Clone, Debug)]
pub struct Random(SplitMix64);

impl Random {
    /// From that seed.
    pub const fn new(seed: u64) -> Self {
        Self(SplitMix64::new(seed))
    }

    /// The next number.
    #[inline]
    pub fn number(&mut self) -> u64 {
        self.0.number()
    }

    /// The next bytes.
    #[inline]
    pub fn bytes<const LEN: usize>(&mut self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        let (words, rest) = bytes.as_chunks_mut();
        for word in words {
            *word = self.number().to_le_bytes();
        }
        if !rest.is_empty() {
            rest.copy_from_slice(&self.number().to_le_bytes()[..rest.len()]);
        }
        bytes
    }

    /// Below `bound`; 0 if that is 0.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "below a bound of 32 bits")]
    pub fn below(&mut self, bound: u32) -> u32 {
        ((u128::from(self.number()) * u128::from(bound)) >> 64) as u32
    }

    /// An index of something that long.
    #[inline]
    pub fn index(&mut self, len: usize) -> usize {
        self.below(u32::try_from(len).unwrap_or(u32::MAX)) as usize
    }

    /// One time in `of`.
    #[inline]
    pub fn once_in(&mut self, of: u32) -> bool {
        self.below(of) == 0
    }

    /// One of them, if there are any.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        of.get(self.index(of.len()))
    }
}
