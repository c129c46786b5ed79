//! A chain's buffers, and moving bytes through them.

use cofferdam_seam::{BusPort, DmaFault, Iova, Purpose};

/// One buffer of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    pub at: Iova,
    pub length: u32,
}

/// A chain's buffers. What is where inside them does not depend on how they are cut (2.7.4.1).
#[derive(Debug, Default)]
pub struct Chain {
    pub readable: Vec<Segment>,
    pub writable: Vec<Segment>,
}

impl Chain {
    /// Bytes the device may read.
    pub fn readable_len(&self) -> u64 {
        total(&self.readable)
    }

    /// Bytes the device may write.
    pub fn writable_len(&self) -> u64 {
        total(&self.writable)
    }

    /// Fills `into` with what follows the first `skip` readable bytes; what the chain does not have
    /// is left as it was.
    pub fn read(
        &self,
        skip: u64,
        into: &mut [u8],
        why: Purpose,
        bus: &mut BusPort<'_>,
    ) -> Result<(), DmaFault> {
        let mut rest = into;
        for (at, length) in pieces(&self.readable, skip, rest.len() as u64) {
            let (part, after) = rest.split_at_mut(length);
            bus.dma_read(at, part, why)?;
            rest = after;
        }
        Ok(())
    }

    /// Writes `from` behind the first `skip` writable bytes, as far as there is room.
    pub fn write(
        &self,
        skip: u64,
        from: &[u8],
        why: Purpose,
        bus: &mut BusPort<'_>,
    ) -> Result<(), DmaFault> {
        let mut rest = from;
        for (at, length) in pieces(&self.writable, skip, rest.len() as u64) {
            let (part, after) = rest.split_at(length);
            bus.dma_write(at, part, why)?;
            rest = after;
        }
        Ok(())
    }
}

/// Bytes in all of `segments`.
fn total(segments: &[Segment]) -> u64 {
    segments.iter().map(|part| u64::from(part.length)).sum()
}

/// The pieces of memory that hold `length` bytes of `segments`, after the first `skip`.
fn pieces(
    segments: &[Segment],
    mut skip: u64,
    mut length: u64,
) -> impl Iterator<Item = (Iova, usize)> {
    segments.iter().filter_map(move |segment| {
        let skipped = skip.min(segment.length.into());
        skip -= skipped;
        let taken = length.min(u64::from(segment.length) - skipped);
        length -= taken;
        let bytes = usize::try_from(taken).ok().filter(|&bytes| bytes > 0)?;
        Some((segment.at.offset(skipped), bytes))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENTS: [Segment; 3] = [
        Segment {
            at: Iova(0x100),
            length: 4,
        },
        Segment {
            at: Iova(0x200),
            length: 0,
        },
        Segment {
            at: Iova(0x300),
            length: 8,
        },
    ];

    fn cut(skip: u64, length: u64) -> Vec<(u64, usize)> {
        pieces(&SEGMENTS, skip, length)
            .map(|(at, len)| (at.0, len))
            .collect()
    }

    #[test]
    fn pieces_cross_segment_edges() {
        assert_eq!(cut(0, 12), [(0x100, 4), (0x300, 8)]);
        assert_eq!(cut(3, 2), [(0x103, 1), (0x300, 1)]);
        assert_eq!(cut(4, 8), [(0x300, 8)]);
        assert_eq!(cut(11, 1), [(0x307, 1)]);
        assert_eq!(cut(0, 0), []);
    }

    #[test]
    fn pieces_end_with_the_segments() {
        assert_eq!(cut(10, 100), [(0x306, 2)]);
        assert_eq!(cut(100, 1), []);
    }
}
