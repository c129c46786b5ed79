//! Where a command's data lies: PRP entries and lists (NVMe 1.4, 4.3).

use crate::medium::MAX_TRANSFER_PAGES_LOG2;
use crate::spec::Status;
use cofferdam_seam::{BusPort, DmaFault, Iova, Purpose};
use zerocopy::IntoBytes;
use zerocopy::little_endian::U64;

/// Pages the largest transfer touches: it may begin in the middle of one.
const MAX_PAGES: usize = (1 << MAX_TRANSFER_PAGES_LOG2) + 1;

/// Bytes that lie in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    at: Iova,
    length: usize,
}

/// The pieces of one command's data, in the largest runs its PRPs allow. Kept from command to
/// command, so that none allocates.
pub(crate) struct Pieces {
    pieces: [Piece; MAX_PAGES],
    count: usize,
    /// A PRP list as it was fetched.
    list: [U64; MAX_PAGES],
}

impl Pieces {
    pub fn new() -> Self {
        let nowhere = Piece {
            at: Iova(0),
            length: 0,
        };
        Self {
            pieces: [nowhere; MAX_PAGES],
            count: 0,
            list: [U64::ZERO; MAX_PAGES],
        }
    }

    /// Finds where `length` bytes, at most those of the largest transfer, lie. The first entry may begin inside
    /// its page of `page` bytes; the second is the rest, if that fits one page, or a list. A list
    /// that fills the page it lies in ends with the address of the next (4.3).
    pub fn find(
        &mut self,
        [first, second]: [u64; 2],
        length: usize,
        page: u64,
        bus: &mut BusPort<'_>,
    ) -> Result<(), Status> {
        self.count = 0;
        let room = page - first % page;
        if !first.is_multiple_of(4) {
            return Err(Status::PRP_OFFSET_INVALID);
        }
        let mut rest = length as u64;
        rest -= self.push(first, rest.min(room))?;
        if rest == 0 {
            return Ok(());
        }
        if rest <= page {
            return self.page(second, rest, page).map(|_| ());
        }
        if !second.is_multiple_of(8) {
            return Err(Status::PRP_OFFSET_INVALID);
        }
        let mut list = second;
        // Every turn but the last, of which there are few, uses up at least a page of data or
        // moves to a list that begins a page and holds 511 entries: no list makes this long.
        loop {
            let wanted = rest.div_ceil(page);
            let held = (page - list % page) / 8;
            let data = if wanted > held { held - 1 } else { wanted };
            let fetched = self.fetch(Iova(list), wanted.min(held), bus)?;
            for index in 0..fetched.min(usize::try_from(data).unwrap_or(0)) {
                rest -= self.page(self.list[index].get(), rest.min(page), page)?;
            }
            if rest == 0 {
                return Ok(());
            }
            list = self.list[fetched - 1].get();
            if !list.is_multiple_of(page) {
                return Err(Status::PRP_OFFSET_INVALID);
            }
        }
    }

    /// Fetches `entries` of a list, at least one.
    fn fetch(&mut self, at: Iova, entries: u64, bus: &mut BusPort<'_>) -> Result<usize, Status> {
        let entries = usize::try_from(entries).unwrap_or(MAX_PAGES);
        let list = &mut self.list[..entries.min(MAX_PAGES)];
        bus.dma_read(at, list.as_mut_bytes(), Purpose::Descriptor)
            .map_err(|_| Status::DATA_TRANSFER_ERROR)?;
        Ok(list.len())
    }

    /// Adds what an entry other than the first points to: it begins a page.
    fn page(&mut self, at: u64, length: u64, page: u64) -> Result<u64, Status> {
        if !at.is_multiple_of(page) {
            return Err(Status::PRP_OFFSET_INVALID);
        }
        self.push(at, length)
    }

    fn push(&mut self, at: u64, length: u64) -> Result<u64, Status> {
        let bytes = usize::try_from(length).map_err(|_| Status::INVALID_FIELD)?;
        if let Some(last) = self.pieces[..self.count].last_mut()
            && last.at.0.checked_add(last.length as u64) == Some(at)
        {
            last.length += bytes;
            return Ok(length);
        }
        let piece = self.pieces.get_mut(self.count);
        *piece.ok_or(Status::INVALID_FIELD)? = Piece {
            at: Iova(at),
            length: bytes,
        };
        self.count += 1;
        Ok(length)
    }

    /// Moves `from` to the host. It is as long as was found.
    pub fn write(&self, from: &[u8], bus: &mut BusPort<'_>) -> Result<(), DmaFault> {
        let mut rest = from;
        for piece in &self.pieces[..self.count] {
            let (part, after) = rest.split_at(piece.length.min(rest.len()));
            bus.dma_write(piece.at, part, Purpose::Payload)?;
            rest = after;
        }
        Ok(())
    }

    /// Fills `into` from the host. It is as long as was found.
    pub fn read(&self, into: &mut [u8], bus: &mut BusPort<'_>) -> Result<(), DmaFault> {
        let mut rest = into;
        for piece in &self.pieces[..self.count] {
            let (part, after) = rest.split_at_mut(piece.length.min(rest.len()));
            bus.dma_read(piece.at, part, Purpose::Payload)?;
            rest = after;
        }
        Ok(())
    }
}
