//! What the program does when something happens for the nth time.

use super::State;
use crate::program::{Event, Trigger};
use crate::script::Deed;
use crate::trace::Step;
use cofferdam_seam::{Vector, VectorSet};
use std::ops::Range;
use std::time::Duration;

impl State {
    /// Counts an event and does what the program has for it.
    #[inline]
    pub fn event(&mut self, event: Event) {
        let count = &mut self.counts[event as usize];
        *count = count.saturating_add(1);
        if self.script.awaits(event) {
            let nth = *count;
            self.fire(Trigger { event, nth });
        }
    }

    pub(super) fn fire(&mut self, now: Trigger) {
        let mut place = 0;
        while let Some(deed) = self.script.next_deed(&mut place, now) {
            match deed {
                Deed::Poke {
                    mapping,
                    offset,
                    bytes,
                } => self.poke(mapping, offset, bytes),
                Deed::Interrupt(vector) => {
                    self.raised.insert(VectorSet::of(Vector(vector)));
                    self.trace.add(self.now, || Step::Injected { vector });
                    self.acted += 1;
                }
                Deed::Stall(micros) => {
                    let time = Duration::from_micros(micros.into());
                    self.stalled_until = self.stalled_until.max(self.now + time);
                    self.trace.add(self.now, || Step::Stalled { micros });
                    self.acted += 1;
                }
                Deed::Remove => {
                    self.removed = true;
                    self.wakes.clear();
                    self.trace.add(self.now, || Step::Removed);
                    self.acted += 1;
                }
            }
            self.progress();
        }
    }

    pub(super) fn poke(&mut self, mapping: u16, offset: u32, bytes: Range<usize>) {
        let Some(map) = self.maps.get(usize::from(mapping)) else {
            return;
        };
        let skipped = usize::try_from(offset).unwrap_or(usize::MAX);
        let allowed = map.live && map.way.device_writes() && !self.removed;
        if !allowed || skipped >= map.len {
            return;
        }
        let (start, room) = (map.start + skipped, map.len - skipped);
        self.acted += 1;
        self.lies.poked();
        let bytes = self.script.bytes(bytes);
        let bytes = &bytes[..bytes.len().min(room)];
        self.memory.write(start, bytes);
        self.trace.add(self.now, || Step::Poked {
            mapping,
            offset,
            bytes: bytes.to_vec(),
        });
    }
}
