//! A ring of descriptors: its five registers ([1] 13.4.25 to 13.4.29, 13.4.37 to 13.4.41).

use crate::spec::DESCRIPTOR;
use cofferdam_seam::Iova;

/// The ring's registers, as the driver left them and the engine moves them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ring {
    pub base: u64,
    /// Bytes, a multiple of 128.
    pub bytes: u32,
    pub head: u16,
    pub tail: u16,
}

impl Ring {
    /// Descriptors in the ring.
    pub fn size(&self) -> u32 {
        self.bytes / 16
    }

    /// Descriptors between head and tail, which are the controller's. None if either lies outside
    /// the ring: what then happens the manual leaves open, and here nothing does.
    pub fn owned(&self) -> u32 {
        let (head, tail, size) = (u32::from(self.head), u32::from(self.tail), self.size());
        if head >= size || tail >= size {
            0
        } else if tail >= head {
            tail - head
        } else {
            tail + size - head
        }
    }

    /// Where the descriptor at the head is.
    pub fn at_head(&self) -> Iova {
        Iova(self.base).offset(DESCRIPTOR * u64::from(self.head))
    }

    /// Done with the descriptor at the head.
    pub fn advance(&mut self) {
        let next = u32::from(self.head) + 1;
        self.head = if next >= self.size() {
            0
        } else {
            self.head.wrapping_add(1)
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(head: u16, tail: u16) -> Ring {
        Ring {
            base: 0x1000,
            bytes: 128,
            head,
            tail,
        }
    }

    #[test]
    fn descriptors_from_head_to_tail_are_the_controllers() {
        assert_eq!(ring(0, 0).owned(), 0);
        assert_eq!(ring(2, 5).owned(), 3);
        assert_eq!(ring(6, 1).owned(), 3);
    }

    #[test]
    fn ring_without_sense_owns_nothing() {
        assert_eq!(ring(8, 0).owned(), 0);
        assert_eq!(ring(0, 8).owned(), 0);
        assert_eq!(Ring::default().owned(), 0);
    }

    #[test]
    fn head_goes_round() {
        let mut ring = ring(7, 0);
        assert_eq!(ring.at_head(), Iova(0x1070));
        ring.advance();
        assert_eq!(ring.head, 0);
    }
}
