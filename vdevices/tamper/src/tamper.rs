//! The device that wraps a device.

use crate::script::{Answer, LyingBus, Script};
use crate::{Lie, Tally, Trigger};
use cofferdam_seam::{Access, Budget, BusPort, Completion, Device, PciIdentity, Progress, Reset};
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
        let mut lying = LyingBus { bus, script };
        let mut port = BusPort::new(&mut lying, requester, pending);
        call(&mut *self.inner, &mut port)
    }
}

impl Device for Tamper {
    fn describe(&self) -> &PciIdentity {
        self.inner.describe()
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

    /// Stale writes that are due go first; they cost no budget, there is at most one for each lie.
    fn step(&mut self, budget: Budget, bus: &mut BusPort<'_>) -> Progress {
        let (fabric, requester, _) = bus.parts();
        self.script.send_stale(requester, fabric);
        self.lend(bus, |device, port| device.step(budget, port))
    }

    /// Resets the model. A function-level reset leaves stale writes and windows of all ones
    /// pending, for a device that lies ignores it; only a cold reset forgets them. Counts, and the
    /// lies still to come, survive both.
    fn reset(&mut self, kind: Reset) {
        self.inner.reset(kind);
        if kind == Reset::Cold {
            self.script.cancel();
        }
    }
}
