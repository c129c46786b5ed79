//! Slots for the buffers of requests in one region, side by side or as far apart as the host wants.

use cofferdam_seam::{Direction, DmaRegion, DriverHost, HostError, Iova, Mapping};

/// Slots start at multiples of this at least, as heap buffers do.
const ALIGN: usize = 16;

/// A region cut into slots; a slot lives, and is mapped, from `share` to `unshare`.
pub struct Arena<D> {
    region: D,
    /// Slots start at multiples of this.
    align: usize,
    /// By address, not overlapping.
    slots: Vec<Slot>,
}

struct Slot {
    start: usize,
    len: usize,
    mapping: Mapping,
}

impl<D: DmaRegion> Arena<D> {
    /// Room for `bytes` in as many `buffers`.
    pub fn new<H: DriverHost<Dma = D>>(
        host: &mut H,
        bytes: usize,
        buffers: usize,
    ) -> Result<Self, HostError> {
        let align = host.dma_alignment().max(ALIGN);
        // Where the host keeps buffers apart, each may leave most of a unit unused before it.
        let apart = if align > ALIGN { buffers * align } else { 0 };
        let region = host.alloc_dma(bytes + apart)?;
        Ok(Self {
            region,
            align,
            slots: Vec::new(),
        })
    }

    /// Copies `bytes` into a free slot and maps it.
    ///
    /// The bytes are copied in for a device that only writes, too: what it leaves out must read as
    /// it did before, not as an older request's data.
    pub fn share<H: DriverHost<Dma = D>>(
        &mut self,
        host: &mut H,
        bytes: &[u8],
        way: Direction,
    ) -> Result<Iova, HostError> {
        let (index, start) = self
            .first_fit(bytes.len())
            .ok_or(HostError::OutOfMemory(bytes.len()))?;
        self.region.write_at(start, bytes);
        let mapping = host.map(&self.region, start..start + bytes.len(), way)?;
        let iova = mapping.iova;
        let slot = Slot {
            start,
            len: bytes.len(),
            mapping,
        };
        self.slots.insert(index, slot);
        Ok(iova)
    }

    /// Unmaps the slot at `iova` and, if the device was to write it, copies it to `back`. The
    /// mapping goes first, so the bytes no longer change under the copy. An address that is not
    /// shared is ignored.
    pub fn unshare<H: DriverHost<Dma = D>>(
        &mut self,
        host: &mut H,
        iova: Iova,
        back: Option<&mut [u8]>,
    ) {
        let Some(index) = self.slots.iter().position(|slot| slot.mapping.iova == iova) else {
            return;
        };
        let slot = self.slots.remove(index);
        host.unmap(slot.mapping);
        if let Some(back) = back {
            let len = back.len().min(slot.len);
            self.region.read_at(slot.start, &mut back[..len]);
        }
    }

    /// The first gap of `len` bytes: where in the list its slot goes, and where it starts.
    fn first_fit(&self, len: usize) -> Option<(usize, usize)> {
        let mut start = 0;
        for (index, slot) in self.slots.iter().enumerate() {
            if slot.start - start >= len {
                return Some((index, start));
            }
            start = (slot.start + slot.len).next_multiple_of(self.align);
        }
        (self.region.len().checked_sub(start)? >= len).then_some((self.slots.len(), start))
    }
}
