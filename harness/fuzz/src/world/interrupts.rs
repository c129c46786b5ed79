//! Vectors: given, raised, taken.

use super::State;
use crate::oracle::Oracle;
use crate::trace::Step;
use cofferdam_seam::{Interrupts, Vector, VectorSet};

impl State {
    /// How many vectors there are for a driver that wants so many.
    pub fn vectors(&mut self, wanted: u16) -> u16 {
        let given = self
            .script
            .vectors()
            .map_or(wanted, |most| most.min(wanted));
        self.acted += u32::from(given < wanted);
        given
    }

    /// Gives the driver interrupts of that sort.
    pub fn enable_interrupts(&mut self, given: Interrupts) {
        self.interrupts = Some(given);
    }

    /// The driver waits for vectors: reports those it was not given.
    pub fn awaits(&mut self, wanted: VectorSet) {
        let given = self.interrupts.map_or(0, |given| given.count);
        let mut own = VectorSet::EMPTY;
        for vector in 0..given {
            own.insert(VectorSet::of(Vector(vector)));
        }
        let mut wanted = wanted;
        wanted.take(own);
        if !wanted.is_empty() {
            self.sight(Oracle::InterruptMisuse, "wait", || {
                format!("{wanted:?} of {given} vectors")
            });
        }
    }

    /// Takes those of `wanted` that were raised. The pin counts as raised while it is up.
    pub fn take_interrupts(&mut self, wanted: VectorSet) -> VectorSet {
        if self.pin {
            self.raised.insert(VectorSet::of(Vector(0)));
        }
        let taken = self.raised.take(wanted);
        if !taken.is_empty() {
            self.progress();
            self.trace.add(self.now, || Step::Taken { vectors: taken });
        }
        taken
    }

    pub(super) fn message(&mut self, vector: u16) {
        self.messages = self.messages.saturating_add(1);
        let lost = self.script.loses(self.messages);
        if lost {
            self.acted += 1;
        } else {
            self.raised.insert(VectorSet::of(Vector(vector)));
        }
        self.trace.add(self.now, || Step::Message { vector, lost });
    }
}
