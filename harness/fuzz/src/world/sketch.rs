//! What the executions of a target had in common: what mutators aim at.

use super::{Map, State};
use crate::program::{CARRIED, EVENTS, Register};

/// Places in memory that are remembered.
const PLACES: usize = 128;

/// What the executions of a target had in common: what mutators aim at.
#[derive(Clone, Debug, Default)]
pub struct Sketch {
    /// Registers that were read.
    pub registers: Vec<Register>,
    /// Offsets of configuration space that were read.
    pub configs: Vec<u16>,
    /// Most events of each kind in an execution.
    pub counts: [u32; EVENTS.len()],
    /// Most DMA writes of each kind in an execution.
    pub carried: [u32; CARRIED.len()],
    /// Most mappings in an execution.
    pub maps: u32,
    /// Where in mapped memory the driver looked, or the device wrote: of two that fall into one slot
    /// the later.
    pub places: Places,
}

/// A mapping, in the order in which they were made, and bytes from its start.
pub type Spot = (u16, u32);

/// Places in mapped memory, in a table of fixed size.
#[derive(Clone, Debug)]
pub struct Places([Option<Spot>; PLACES]);

impl Default for Places {
    fn default() -> Self {
        Self([None; PLACES])
    }
}

impl Places {
    pub(super) fn note(&mut self, spot: Spot) {
        let key = u64::from(spot.0) << 32 | u64::from(spot.1);
        let slot = key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 57;
        self.0[usize::try_from(slot).unwrap_or(0) % PLACES] = Some(spot);
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = Spot> {
        self.0.iter().copied().flatten()
    }
}

impl State {
    pub(super) fn learn(&mut self) {
        let sketch = &mut self.sketch;
        for (most, count) in sketch.counts.iter_mut().zip(self.counts) {
            *most = (*most).max(count);
        }
        for (most, count) in sketch.carried.iter_mut().zip(self.carried) {
            *most = (*most).max(count);
        }
        sketch.maps = sketch
            .maps
            .max(u32::try_from(self.maps.len()).unwrap_or(u32::MAX));
    }

    /// What the executions so far had in common.
    pub fn sketch(&self) -> &Sketch {
        &self.sketch
    }

    /// Forgets it, for another target.
    pub fn forget(&mut self) {
        self.sketch = Sketch::default();
        self.noting = 0;
        self.idle_limit = super::patience::IDLE;
    }

    /// Bytes of [`Self::memory`] were looked at by the driver, or written by the device.
    #[inline]
    pub fn touched(&mut self, at: usize) {
        if self.noting > 0 {
            return;
        }
        let of = |map: &Map| map.live && (map.start..map.start + map.len).contains(&at);
        if let Some(index) = self.maps.iter().position(of)
            && let Ok(mapping) = u16::try_from(index)
            && let Ok(offset) = u32::try_from(at - self.maps[index].start)
        {
            self.sketch.places.note((mapping, offset));
        }
    }
}
