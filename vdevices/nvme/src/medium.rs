//! The medium: logical blocks in memory. It survives every reset.

use crate::spec::Status;
use core::ops::Range;

/// Bytes in a logical block.
pub(crate) const BLOCK: u64 = 512;

/// Blocks of the largest medium: 256 MiB.
pub const MAX_BLOCKS: u64 = (256 << 20) / BLOCK;

/// log2 of the pages of 4 KiB in the largest transfer (MDTS).
pub(crate) const MAX_TRANSFER_PAGES_LOG2: u8 = 5;
/// Bytes in the largest transfer: 128 KiB.
pub(crate) const MAX_TRANSFER: usize = 4096 << MAX_TRANSFER_PAGES_LOG2;

/// The blocks. Only a command that completed has changed them.
pub(crate) struct Medium {
    bytes: Vec<u8>,
}

impl Medium {
    /// Zeroed blocks, at least one and at most [`MAX_BLOCKS`].
    pub fn new(blocks: u64) -> Self {
        let bytes = usize::try_from(blocks.clamp(1, MAX_BLOCKS) * BLOCK).unwrap_or(0);
        Self {
            bytes: vec![0; bytes],
        }
    }

    /// Blocks on it.
    pub fn blocks(&self) -> u64 {
        self.bytes.len() as u64 / BLOCK
    }

    /// Where `count` blocks from `start` on lie, if all are on the medium.
    pub fn locate(&self, start: u64, count: u64) -> Result<Range<usize>, Status> {
        let end = start.checked_add(count).filter(|&end| end <= self.blocks());
        let end = end.ok_or(Status::LBA_OUT_OF_RANGE)? * BLOCK;
        match (usize::try_from(start * BLOCK), usize::try_from(end)) {
            (Ok(start), Ok(end)) => Ok(start..end),
            _ => Err(Status::LBA_OUT_OF_RANGE),
        }
    }

    /// The bytes that [`Self::locate`] found.
    pub fn bytes(&self, range: Range<usize>) -> &[u8] {
        &self.bytes[range]
    }

    /// The same, to be written.
    pub fn bytes_mut(&mut self, range: Range<usize>) -> &mut [u8] {
        &mut self.bytes[range]
    }
}
