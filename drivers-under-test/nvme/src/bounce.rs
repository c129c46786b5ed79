//! Bounce buffers: where the data of commands in flight are.

use crate::queue::SLOTS;
use crate::spec::{PAGE, PRP_ENTRY};
use cofferdam_seam::{Direction, DmaRegion, DriverHost, HostError, Iova, Mapping};

/// Most bytes of data in one command.
pub const CHUNK: usize = 4 * PAGE;

/// Each slot has pages of its own, so that a mapping of one never opens another: data, then the
/// PRP list.
const STRIDE: usize = CHUNK + PAGE;

/// What the driver fills a buffer with that is to be read: a transfer that is refused leaves no
/// trace, and must not return an older command's bytes.
const BLANK: [u8; CHUNK] = [0; CHUNK];

/// A buffer for each command in flight.
#[derive(Debug)]
pub struct BounceBuffers<D> {
    region: D,
    loans: [Option<Loan>; SLOTS],
}

/// A buffer that the device may reach. It stays so until it is taken back, or the region goes.
#[derive(Debug)]
struct Loan {
    data: Mapping,
    list: Option<Mapping>,
    /// Bytes the device is to fill.
    fills: usize,
}

impl<D: DmaRegion> BounceBuffers<D> {
    pub fn new<H: DriverHost<Dma = D>>(host: &mut H) -> Result<Self, HostError> {
        Ok(Self {
            region: host.alloc_dma(SLOTS * STRIDE)?,
            loans: [const { None }; SLOTS],
        })
    }

    /// Lends the buffer of `slot` with a copy of `bytes`, at most [`CHUNK`], for the device to read.
    /// What comes back are the command's PRP entries.
    pub fn lend_to_read<H: DriverHost<Dma = D>>(
        &mut self,
        host: &mut H,
        slot: usize,
        bytes: &[u8],
    ) -> Result<[Iova; 2], HostError> {
        self.region.write_at(slot * STRIDE, bytes);
        self.lend(host, slot, bytes.len(), Direction::ToDevice)
    }

    /// Lends `len` bytes of it, at most [`CHUNK`], for the device to fill.
    pub fn lend_to_fill<H: DriverHost<Dma = D>>(
        &mut self,
        host: &mut H,
        slot: usize,
        len: usize,
    ) -> Result<[Iova; 2], HostError> {
        self.region.write_at(slot * STRIDE, &BLANK[..len]);
        self.lend(host, slot, len, Direction::FromDevice)
    }

    fn lend<H: DriverHost<Dma = D>>(
        &mut self,
        host: &mut H,
        slot: usize,
        len: usize,
        way: Direction,
    ) -> Result<[Iova; 2], HostError> {
        let start = slot * STRIDE;
        let data = host.map(&self.region, start..start + len, way)?;
        let (first, pages) = (data.iova, len.div_ceil(PAGE));
        let list = if pages > 2 {
            Some(self.list(host, start + CHUNK, first, pages)?)
        } else {
            None
        };
        let second = match &list {
            Some(list) => list.iova,
            None if pages == 2 => page(first, 1),
            None => Iova(0),
        };
        self.loans[slot] = Some(Loan {
            data,
            list,
            fills: if way.device_writes() { len } else { 0 },
        });
        Ok([first, second])
    }

    /// Writes the list of all pages but the first, which the command itself names [4], and maps it.
    fn list<H: DriverHost<Dma = D>>(
        &mut self,
        host: &mut H,
        at: usize,
        first: Iova,
        pages: usize,
    ) -> Result<Mapping, HostError> {
        for nth in 1..pages {
            let entry = page(first, nth).0.to_le_bytes();
            self.region.write_at(at + (nth - 1) * PRP_ENTRY, &entry);
        }
        let end = at + (pages - 1) * PRP_ENTRY;
        host.map(&self.region, at..end, Direction::ToDevice)
    }

    /// How many bytes the device is to fill of that slot's buffer.
    pub fn fills(&self, slot: usize) -> usize {
        let loan = self.loans.get(slot).and_then(Option::as_ref);
        loan.map_or(0, |loan| loan.fills)
    }

    /// Takes a buffer back and copies what the device filled. The mappings go first, so the bytes
    /// no longer change under the copy.
    pub fn take_back<H: DriverHost<Dma = D>>(
        &mut self,
        host: &mut H,
        slot: usize,
        into: &mut [u8],
    ) {
        if let Some(loan) = self.loans.get_mut(slot).and_then(Option::take) {
            host.unmap(loan.data);
            if let Some(list) = loan.list {
                host.unmap(list);
            }
            let len = into.len().min(loan.fills);
            self.region.read_at(slot * STRIDE, &mut into[..len]);
        }
    }
}

/// Regions and their mappings start at a page, so each further page is an entry without an offset.
fn page(first: Iova, nth: usize) -> Iova {
    first.offset((nth * PAGE) as u64)
}
