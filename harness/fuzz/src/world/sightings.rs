//! What the oracles notice.

use super::State;
use crate::fault::Fault;
use crate::frames;
use crate::oracle::{Oracle, Place, Sighting};
use crate::trace::Step;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Sightings of one execution.
const SIGHTINGS: usize = 8;

impl State {
    /// The driver's stack, in a close look.
    pub(super) fn stack(&self) -> Vec<usize> {
        if self.is_close() {
            frames::capture()
        } else {
            Vec::new()
        }
    }

    /// A place that a stack tells, in a close look.
    pub(super) fn place(&self, frames: Vec<usize>) -> Place {
        if self.is_close() {
            Place::Frames(frames)
        } else {
            Place::Call
        }
    }

    /// Reports something.
    pub fn sight(&mut self, oracle: Oracle, label: &'static str, words: impl FnOnce() -> String) {
        let place = self.place(self.stack());
        self.sight_at(oracle, place, &label, words);
    }

    pub(super) fn sight_at(
        &mut self,
        oracle: Oracle,
        place: Place,
        key: &impl Hash,
        words: impl FnOnce() -> String,
    ) {
        let mut hash = DefaultHasher::new();
        (oracle.name(), key, self.during).hash(&mut hash);
        let words = if self.is_close() {
            words()
        } else {
            String::new()
        };
        self.push(Sighting {
            oracle,
            place,
            key: hash.finish(),
            during: self.during,
            words,
            evident: false,
        });
    }

    /// Reports a panic.
    pub fn panicked(&mut self, file: &'static str, line: u32, frames: Vec<usize>, words: String) {
        let place = if frames.is_empty() {
            Place::Source { file, line }
        } else {
            Place::Frames(frames)
        };
        self.sight_at(Oracle::Panic, place, &(file, line), || words);
    }

    /// Reports that the driver did what the processor or the system does not go on after.
    pub(crate) fn cannot_go_on(&mut self, fault: Fault) {
        let place = if fault.frames.is_empty() {
            Place::Call
        } else {
            Place::Frames(fault.frames)
        };
        self.sight_at(fault.oracle, place, &fault.key, || fault.words);
    }

    pub(super) fn push(&mut self, sighting: Sighting) {
        self.trace.add(self.now, || Step::Sighted {
            oracle: sighting.oracle,
            words: sighting.words.clone(),
        });
        let known = self.sightings.iter().any(|known| known.key == sighting.key);
        if !known && self.sightings.len() < SIGHTINGS {
            self.sightings.push(sighting);
        }
    }

    /// Whether a driver that returns `len` bytes, some of which are missing, should have known.
    pub fn may_miss_data(&self, len: usize) -> bool {
        self.lies.leave_blame_for_missing(len)
    }

    /// The data with those marks are of a request that is over.
    pub fn over(&mut self, secret: u32) {
        self.over = self.over.max(secret);
    }

    /// The driver did not take the device: reports what it left.
    pub fn after_refusal(&mut self, bus_master: bool) {
        if bus_master {
            self.sight(Oracle::BusHeld, "bus master", || {
                "the bus-master enable bit is set".to_owned()
            });
        }
    }
}
