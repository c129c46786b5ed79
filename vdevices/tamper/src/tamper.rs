//! The device that wraps a device.

use crate::script::{Answer, LyingBus, Script};
use crate::{Lie, Tally, Trigger};
use cofferdam_seam::{
    Access, Budget, BusPort, Completion, Device, Doorbells, PciIdentity, Pending, Progress, Reset,
    Time, Width,
};
use std::sync::Arc;

/// A device model that tells the truth but for the lies it was given.
pub struct Tamper {
    inner: Box<dyn Device>,
    script: Script,
}

impl Tamper {
    /// Wraps `inner`. It is honest until the returned tally is armed.
    pub fn new(inner: Box<dyn Device>, lies: Vec<Lie>) -> (Self, Arc<Tally>) {
        let tally = Arc::new(Tally::new());
        let script = Script::new(lies, Arc::clone(&tally));
        (Self { inner, script }, tally)
    }

    /// Calls the model, with the lying bus in between once the lies have begun.
    fn lend<R>(
        &mut self,
        port: &mut BusPort<'_>,
        call: impl FnOnce(&mut dyn Device, &mut BusPort<'_>) -> R,
    ) -> R {
        if !self.script.armed() {
            return call(&mut *self.inner, port);
        }
        let (bus, requester, pending) = port.parts();
        let script = &mut self.script;
        script.attend(requester, bus);
        let mut asked = Pending::default();
        let mut lying = LyingBus { bus, script };
        let mut port = BusPort::new(&mut lying, requester, &mut asked);
        let result = call(&mut *self.inner, &mut port);
        script.pervert(bus.now(), &mut asked);
        pending.raised.insert(asked.raised);
        pending.intx = asked.intx.or(pending.intx);
        pending.meddling = asked.meddling.or(pending.meddling);
        result
    }
}

impl Device for Tamper {
    fn describe(&self) -> &PciIdentity {
        self.inner.describe()
    }

    fn answer_config(&mut self, at: u16, width: Width, space: &[u8], now: Time) -> Option<u32> {
        self.script.answer_config(at, width, space, now)
    }

    #[inline]
    fn read(&mut self, at: Access, bus: &mut BusPort<'_>) -> Completion {
        if self.script.armed() {
            let answer = self.script.answer(bus.now());
            let (fabric, requester, _) = bus.parts();
            self.script.violate(Trigger::Read, requester, fabric);
            match answer {
                Answer::Honest => {}
                Answer::Instead(completion) => return completion,
                Answer::AllOnes => return Completion::Data(at.width().all_ones()),
                Answer::Late(delay) => {
                    return match self.lend(bus, |device, port| device.read(at, port)) {
                        Completion::Data(value) => Completion::After { delay, value },
                        other => other,
                    };
                }
            }
        }
        self.lend(bus, |device, port| device.read(at, port))
    }

    fn write(&mut self, at: Access, value: u64, bus: &mut BusPort<'_>) {
        self.lend(bus, |device, port| device.write(at, value, port));
    }

    /// Late writes that are due go first; they cost no budget, there is at most one for each lie.
    fn step(&mut self, budget: Budget, bus: &mut BusPort<'_>) -> Progress {
        let (fabric, requester, pending) = bus.parts();
        self.script.send_late(requester, fabric);
        if self.script.armed() {
            self.script.interrupt(requester, fabric, pending);
        }
        self.lend(bus, |device, port| device.step(budget, port))
    }

    /// Resets the model. A function-level reset leaves late writes, storms and windows of all ones
    /// pending, for a device that lies ignores it; only a cold reset forgets them. Counts, and the
    /// lies still to come, survive both.
    fn reset(&mut self, kind: Reset) {
        self.inner.reset(kind);
        match kind {
            Reset::Cold => self.script.cancel(),
            Reset::FunctionLevel => self.script.survive(),
        }
    }

    fn doorbells(&self) -> Option<Doorbells> {
        self.inner.doorbells()
    }
}
