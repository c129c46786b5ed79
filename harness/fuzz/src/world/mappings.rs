//! What the device may reach, what it stands for, and what is left of it.

use super::State;
use crate::oracle::Oracle;
use crate::program::Event;
use crate::trace::Step;
use cofferdam_machine::Live;
use cofferdam_seam::{Direction, Iova};
use std::ops::Range;

/// A live or past mapping.
pub struct Map {
    /// Its first byte in the world's memory.
    pub start: usize,
    /// Bytes.
    pub len: usize,
    /// Which way it may be used.
    pub way: Direction,
    /// Whether it is live.
    pub live: bool,
    /// The memory it stands for, if it is a copy of memory of the driver's own.
    pub stands_for: Option<usize>,
    /// Which region it is of.
    pub region: Option<usize>,
    /// The driver's stack when it was made, in a close look.
    frames: Vec<usize>,
}

/// DMA memory that was given out.
pub(super) struct Region {
    len: usize,
    held: bool,
    /// The driver's stack when it was allocated, in a close look.
    frames: Vec<usize>,
}

impl State {
    /// The address devices use for a place in memory.
    pub fn iova(&self, start: usize) -> Iova {
        Iova(self.first_iova + start as u64)
    }

    /// Lets the device reach memory, and names the mapping.
    pub fn map(
        &mut self,
        bytes: Range<usize>,
        way: Direction,
        stands_for: Option<usize>,
        region: Option<usize>,
    ) -> u64 {
        let id = self.maps.len() as u64;
        let first = self.iova(bytes.start).0;
        let live = Live {
            id,
            bytes: first..first + bytes.len() as u64,
            way,
        };
        self.ledger.map(0, live, false);
        let frames = self.stack();
        let (start, len) = (bytes.start, bytes.len());
        self.maps.push(Map {
            start,
            len,
            way,
            live: true,
            stands_for,
            region,
            frames,
        });
        self.progress();
        self.event(Event::Map);
        self.trace.add(self.now, || Step::Mapped {
            id,
            at: Iova(first),
            len,
            way,
        });
        id
    }

    /// Takes a mapping back; whether the driver held it.
    pub fn unmap(&mut self, id: u64) -> bool {
        let Ok(index) = usize::try_from(id) else {
            return false;
        };
        let Some(map) = self.maps.get_mut(index).filter(|map| map.live) else {
            self.sight(Oracle::BadUnmap, "unmap", || {
                format!("mapping {id} is not live")
            });
            return false;
        };
        map.live = false;
        self.ledger.unmap(0, id, self.now);
        self.progress();
        self.event(Event::Unmap);
        self.trace.add(self.now, || Step::Unmapped { id });
        true
    }

    /// Takes a mapping back whose memory goes with it; whether the driver held it.
    pub fn unmap_and_close(&mut self, id: u64) -> bool {
        let map = usize::try_from(id).ok().and_then(|id| self.maps.get(id));
        if let Some(map) = map {
            self.memory.close(&(map.start..map.start + map.len));
        }
        self.unmap(id)
    }

    /// The live mapping that starts at an address.
    pub fn mapping_at(&self, at: Iova) -> Option<u64> {
        let start = usize::try_from(at.0.checked_sub(self.first_iova)?).ok()?;
        let place = self
            .maps
            .iter()
            .rposition(|map| map.live && map.start == start)?;
        Some(place as u64)
    }

    /// The first live mapping that stands for any of those bytes.
    pub fn stands_for(&self, bytes: &Range<usize>) -> Option<usize> {
        let stands = |map: &Map| {
            map.live
                && map
                    .stands_for
                    .is_some_and(|at| at < bytes.end && bytes.start < at + map.len)
        };
        self.maps.iter().position(stands)
    }

    /// Memory of the driver's own is freed, or a stack frame ends: reports live mappings that stand
    /// for any of it.
    pub fn lost(&mut self, bytes: &Range<usize>, oracle: Oracle) {
        let found = self.stands_for(bytes);
        if let Some(index) = found {
            self.sight_map(oracle, index);
        }
    }

    /// Reports a mapping, at the place where the driver made it.
    pub fn sight_map(&mut self, oracle: Oracle, index: usize) {
        let map = &self.maps[index];
        let (len, way, id) = (map.len, map.way, index);
        let place = self.place(map.frames.clone());
        // The buffer's length may be the workload's, and says nothing about the place.
        self.sight_at(oracle, place, &(way, index < 4), || {
            format!("mapping m{id} ({len} bytes, {way:?}) is live")
        });
    }

    /// Gives out DMA memory, and names the region.
    pub fn region(&mut self, len: usize) -> usize {
        let frames = self.stack();
        self.regions.push(Region {
            len,
            held: true,
            frames,
        });
        self.regions.len() - 1
    }

    /// Takes a region back, and its mappings with it. While the device is bus master it may use them to
    /// the last, and beyond: memory is not to be freed then.
    pub fn end_region(&mut self, region: usize, bus_master: bool) {
        if let Some(ended) = self.regions.get_mut(region) {
            ended.held = false;
        }
        for index in 0..self.maps.len() {
            let map = &self.maps[index];
            if map.live && map.region == Some(region) {
                if bus_master {
                    self.sight_map(Oracle::FreedWhileMapped, index);
                }
                self.unmap(index as u64);
            }
        }
    }

    /// The driver was removed: reports what it left.
    pub fn after_removal(&mut self, bus_master: bool) {
        let mapped = self.maps.iter().position(|map| map.live);
        let held = self.regions.iter().find(|region| region.held);
        if let Some(index) = mapped {
            self.sight_map(Oracle::LeakedMapping, index);
        } else if let Some(region) = held {
            let (len, place) = (region.len, self.place(region.frames.clone()));
            self.sight_at(Oracle::LeakedMemory, place, &"region", || {
                format!("a region of {len} bytes is held")
            });
        }
        self.after_refusal(bus_master);
        // A device that lied, or is gone, may do so whatever the driver does.
        if self.pin && !self.removed && !self.lies.any() {
            self.sight(Oracle::InterruptMisuse, "pin", || {
                "the device holds the interrupt pin, and nobody answers".to_owned()
            });
        }
    }
}
