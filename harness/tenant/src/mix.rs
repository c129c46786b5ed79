//! What decides what is made up.

use alloc::vec::Vec;
use cofferdam_seam::SplitMix64;

/// A generator of well-mixed words.
#[derive(Clone, Debug)]
pub struct Mix(SplitMix64);

impl Mix {
    /// That of a seed.
    pub const fn new(seed: u64) -> Self {
        Self(SplitMix64::new(seed))
    }

    /// The next word.
    pub fn word(&mut self) -> u64 {
        self.0.number()
    }

    /// A number below `bound` (which is not 0).
    pub fn below(&mut self, bound: u64) -> u64 {
        self.word() % bound.max(1)
    }

    /// Decides what a tenant asks for.
    pub const fn of_tenant(seed: u64, tenant: u8) -> Self {
        Self::new(seed ^ ((tenant as u64) << 32))
    }

    /// That many bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        self.0.bytes(len).collect()
    }
}
