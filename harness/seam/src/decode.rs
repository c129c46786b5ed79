//! The words for what driver and device do to each other, for whoever reads a trace.

use crate::{Bar, Iova, Purpose};
use alloc::string::String;

/// Reads along, in the order in which things are said, and believes nothing. The device's model knows
/// the words; what it has none for is left to numbers.
pub trait Decode {
    /// The register at an offset.
    fn register(&self, bar: Bar, offset: u32) -> Option<String> {
        let _ = (bar, offset);
        None
    }

    /// What a register's value says.
    fn value(&self, bar: Bar, offset: u32, value: u64) -> Option<String> {
        let _ = (bar, offset, value);
        None
    }

    /// Takes note of a register write, `width` bytes wide.
    fn wrote(&mut self, bar: Bar, offset: u32, width: u8, value: u64) {
        let _ = (bar, offset, width, value);
    }

    /// What a memory request carries.
    fn dma(&mut self, at: Iova, why: Purpose, bytes: &[u8]) -> Option<String> {
        let _ = (at, why, bytes);
        None
    }
}

/// Has no words for anything.
#[derive(Clone, Copy, Debug, Default)]
pub struct Undecoded;

impl Decode for Undecoded {}
