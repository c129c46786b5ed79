//! Bounce slots: pages of its own for what does not fill pages, and the copying.
//!
//! A device whose IOMMU maps whole pages reaches what lies on them beside a buffer. So the layer
//! that programs the IOMMU maps a slot instead, copies the buffer there, and copies back what the
//! device was to write when the mapping ends. What the device writes beside the buffer's bytes stays
//! in the slot and is gone with it (Linux: `kernel/dma/swiotlb.c`, `swiotlb_tbl_map_single`).

use crate::frames::{FRAME, Owner, Use, run_of};
use crate::ledger::pages_of;
use crate::memory::{Memory, NoMemory, PhysAddr};
use cofferdam_seam::Direction;
use std::collections::BTreeMap;
use std::ops::Range;

/// A buffer that is bounced.
#[derive(Debug)]
struct Slot {
    /// Which frames of the pool.
    frames: Range<usize>,
    /// The buffer.
    buffer: Range<u64>,
    way: Direction,
}

/// The pool's frames, and what is in them.
#[derive(Debug)]
pub(crate) struct Bounce {
    first: u64,
    taken: Vec<bool>,
    /// By name of the mapping.
    slots: BTreeMap<u64, Slot>,
    /// Bytes copied, either way.
    pub(crate) copied: u64,
}

impl Default for Bounce {
    fn default() -> Self {
        let run = run_of(Owner::Driver, Use::Bounce);
        let count = run.and_then(|run| usize::try_from(run.count).ok());
        Self {
            first: run.map_or(0, |run| run.first),
            taken: vec![false; count.unwrap_or(0)],
            slots: BTreeMap::new(),
            copied: 0,
        }
    }
}

impl Bounce {
    /// Whether these bytes share a page with others.
    pub(crate) const fn is_partial(bytes: &Range<u64>) -> bool {
        !(bytes.start.is_multiple_of(FRAME) && bytes.end.is_multiple_of(FRAME))
    }

    /// Gives the buffer of a mapping a slot and copies it there; the slot's first frame, if there
    /// was room. The buffer lies in the slot as it lies on its pages, among zeros.
    ///
    /// It is copied whatever the direction: what a device that was to write leaves out must be what
    /// it was when it is copied back, not what an earlier user left in the slot.
    pub(crate) fn lend(
        &mut self,
        memory: &Memory,
        mapping: u64,
        buffer: Range<u64>,
        way: Direction,
    ) -> Option<u64> {
        let pages = pages_of(&buffer);
        let count = usize::try_from(pages.end - pages.start).ok()?;
        let mut windows = self.taken.windows(count);
        let start = windows.position(|window| window.iter().all(|taken| !taken))?;
        let frame = self.first + start as u64;
        let slot = Slot {
            frames: start..start + count,
            buffer,
            way,
        };
        let mut bytes = vec![0; count * usize::try_from(FRAME).ok()?];
        let within = usize::try_from(slot.buffer.start % FRAME).ok()?;
        let len = usize::try_from(slot.buffer.end - slot.buffer.start).ok()?;
        let part = bytes.get_mut(within..within + len)?;
        memory.read(PhysAddr(slot.buffer.start), part).ok()?;
        memory.write(PhysAddr(frame * FRAME), &bytes).ok()?;
        self.copied += len as u64;
        self.taken[slot.frames.clone()].fill(true);
        self.slots.insert(mapping, slot);
        Some(frame)
    }

    /// A mapping has ended, and its device reaches the slot no longer: copies back what it was to
    /// write.
    pub(crate) fn give_back(&mut self, memory: &Memory, mapping: u64) {
        if let Some(slot) = self.free(mapping)
            && slot.way.device_writes()
            && let Ok(bytes) = self.copy_back(memory, &slot)
        {
            self.copied += bytes;
        }
    }

    /// A mapping has ended because its driver is gone: there is nobody to copy back for.
    pub(crate) fn drop_slot(&mut self, mapping: u64) {
        self.free(mapping);
    }

    fn free(&mut self, mapping: u64) -> Option<Slot> {
        let slot = self.slots.remove(&mapping)?;
        self.taken[slot.frames.clone()].fill(false);
        Some(slot)
    }

    fn copy_back(&self, memory: &Memory, slot: &Slot) -> Result<u64, NoMemory> {
        let from = (self.first + slot.frames.start as u64) * FRAME + slot.buffer.start % FRAME;
        let len = slot.buffer.end - slot.buffer.start;
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        memory.read(PhysAddr(from), &mut bytes)?;
        memory.write(PhysAddr(slot.buffer.start), &bytes)?;
        Ok(len)
    }
}
