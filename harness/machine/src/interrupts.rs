//! Interrupts: messages that functions write to the window of the interrupt controller, and the
//! levels of their pins.
//!
//! Without interrupt remapping a message names its target in its data, and any function that may
//! write memory can name any target, in every IOMMU mode. With it the sender is validated: a function
//! reaches its own vectors only (VT-d 4.0, chapter 5).

use crate::config::Config;
use crate::service::{InterruptCost, Rules, Service};
use cofferdam_seam::{InterruptKind, Time, Vector, VectorSet};
use std::ops::Range;

/// Where a write of four bytes is a message and no memory access (Intel SDM 3A, 11.11.1). It is
/// decoded before the IOMMU.
pub const MESSAGES: Range<u64> = 0xfee0_0000..0xfef0_0000;

/// Vectors each slot has room for: the data of a message is the slot and, in this many values, the
/// vector.
const VECTORS: u16 = 64;

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// It raised a vector of its sender.
    Own,
    /// It raised a vector of somebody else.
    Forged,
    /// It named a vector that nobody was given.
    Spurious,
    /// Remapping refused it: the vector is not its sender's.
    Refused,
}

/// One function's interrupts, as the privileged layer set them up.
#[derive(Debug, Default)]
struct Line {
    kind: Option<InterruptKind>,
    count: u16,
    raised: VectorSet,
}

/// The interrupt controller, and the CPUs behind it.
#[derive(Debug)]
pub(crate) struct Controller {
    lines: Vec<Line>,
    services: Vec<Service>,
    remaps: bool,
    rules: Rules,
}

impl Controller {
    /// A controller without lines.
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            lines: Vec::new(),
            services: Vec::new(),
            remaps: config.interrupt_remapping,
            rules: Rules {
                handler: config.interrupt_handler,
                time: config.interrupt_time,
            },
        }
    }

    /// Gives the next slot a line, with no vectors.
    pub(crate) fn attach(&mut self) {
        self.lines.push(Line::default());
        self.services.push(Service::default());
    }

    /// Gives the function in `slot` vectors 0 to `count` - 1. What was raised before is forgotten.
    pub(crate) fn enable(&mut self, slot: usize, kind: InterruptKind, count: u16) {
        self.lines[slot] = Line {
            kind: Some(kind),
            count: count.min(VECTORS),
            raised: VectorSet::EMPTY,
        };
        self.services[slot].restart(count.min(VECTORS));
    }

    /// Takes all vectors away, with what was raised.
    pub(crate) fn disable(&mut self, slot: usize) {
        self.lines[slot] = Line::default();
        self.services[slot].restart(0);
    }

    /// The message data that raises vector 0 of `slot`; the vector goes into the low bits.
    pub(crate) fn data(slot: usize) -> u16 {
        u16::try_from(slot)
            .unwrap_or(u16::MAX)
            .saturating_mul(VECTORS)
    }

    /// Takes a message that the function in `from` sends now.
    pub(crate) fn message(&mut self, from: usize, data: u32, now: Time) -> Delivery {
        // The data register has 16 bits that count (Intel SDM 3A, 11.11.2).
        let bytes = data.to_le_bytes();
        let data = u16::from_le_bytes([bytes[0], bytes[1]]);
        let slot = usize::from(data / VECTORS);
        let vector = data % VECTORS;
        if self.remaps && slot != from {
            return Delivery::Refused;
        }
        match self.lines.get_mut(slot) {
            Some(line) if line.takes(vector) => {
                let service = &mut self.services[slot];
                service.message(Vector(vector), &mut line.raised, self.rules, now);
                if slot == from {
                    Delivery::Own
                } else {
                    Delivery::Forged
                }
            }
            _ => Delivery::Spurious,
        }
    }

    /// The function's pin goes up or down (Assert_INTx, Deassert_INTx).
    pub(crate) fn pin(&mut self, slot: usize, level: bool, now: Time) {
        if self.is_pin(slot) {
            let raised = &mut self.lines[slot].raised;
            self.services[slot].pin(level, raised, self.rules, now);
        }
    }

    /// What interrupts cost from now on is counted from zero.
    pub(crate) fn forget(&mut self) {
        for service in &mut self.services {
            service.cost = InterruptCost::default();
        }
    }

    /// What is raised.
    pub(crate) fn pending(&self, slot: usize) -> VectorSet {
        self.lines[slot].raised
    }

    /// Acknowledges what is raised of `wanted`, for a driver that waits for it. A pin that is still
    /// up when its driver waits the next time is raised again.
    pub(crate) fn take(&mut self, slot: usize, wanted: VectorSet, now: Time) -> VectorSet {
        let pin = self.is_pin(slot) && wanted.contains(Vector(0));
        let (line, service) = (&mut self.lines[slot], &mut self.services[slot]);
        let mut taken = line.raised.take(wanted);
        if pin {
            if taken.is_empty() {
                service.unmask_pin(&mut line.raised, self.rules, now);
                taken = line.raised.take(wanted);
            }
            if !taken.is_empty() {
                service.mask_pin();
            }
        }
        taken
    }

    /// The driver has nothing more to do.
    pub(crate) fn rest(&mut self, slot: usize, now: Time) {
        let raised = &mut self.lines[slot].raised;
        self.services[slot].rest(raised, self.rules, now);
    }

    /// The driver takes up work.
    pub(crate) fn rouse(&mut self, slot: usize) {
        self.services[slot].rouse();
    }

    /// What the function's interrupts cost their CPU so far.
    pub(crate) fn cost(&self, slot: usize) -> InterruptCost {
        self.services[slot].cost
    }

    /// Until when the CPU that takes the function's interrupts is in a handler.
    pub(crate) fn busy_until(&self, slot: usize) -> Option<Time> {
        self.services[slot].busy_until()
    }

    /// The next time a CPU has something to do by itself, and the slot.
    pub(crate) fn next(&self) -> Option<(Time, usize)> {
        let next = |(slot, service): (usize, &Service)| Some((service.next()?, slot));
        self.services.iter().enumerate().filter_map(next).min()
    }

    /// Lets the CPU of that slot do what is due.
    pub(crate) fn advance(&mut self, slot: usize, now: Time) {
        let raised = &mut self.lines[slot].raised;
        self.services[slot].advance(raised, self.rules, now);
    }

    /// Whether the function in `slot` was given its pin.
    pub(crate) fn is_pin(&self, slot: usize) -> bool {
        self.lines[slot].kind == Some(InterruptKind::Intx)
    }
}

impl Line {
    fn takes(&self, vector: u16) -> bool {
        let messages = matches!(self.kind, Some(InterruptKind::Msi | InterruptKind::Msix));
        messages && vector < self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_functions() -> Controller {
        let mut controller = Controller::new(&Config::default());
        controller.attach();
        controller.attach();
        controller.enable(0, InterruptKind::Msix, 2);
        controller.enable(1, InterruptKind::Msi, 1);
        controller
    }

    #[test]
    fn message_raises_the_vector_it_names_until_taken() {
        let mut controller = two_functions();
        let delivery = controller.message(0, u32::from(Controller::data(0)) + 1, Time::ZERO);
        assert_eq!(delivery, Delivery::Own);
        let all = VectorSet(u64::MAX);
        assert_eq!(
            controller.take(0, all, Time::ZERO),
            VectorSet::of(Vector(1))
        );
        assert_eq!(controller.take(0, all, Time::ZERO), VectorSet::EMPTY);
    }

    #[test]
    fn taking_one_vector_leaves_the_others() {
        let mut controller = two_functions();
        controller.message(0, 0, Time::ZERO);
        controller.message(0, 1, Time::ZERO);
        let one = VectorSet::of(Vector(0));
        assert_eq!(controller.take(0, one, Time::ZERO), one);
        assert_eq!(controller.pending(0), VectorSet::of(Vector(1)));
    }

    #[test]
    fn forged_message_reaches_its_victim_and_is_told_apart() {
        let mut controller = two_functions();
        let delivery = controller.message(0, Controller::data(1).into(), Time::ZERO);
        assert_eq!(delivery, Delivery::Forged);
        assert_eq!(controller.pending(1), VectorSet::of(Vector(0)));
    }

    #[test]
    fn remapping_refuses_what_is_not_the_senders() {
        let mut controller = two_functions();
        controller.remaps = true;
        let forged = controller.message(0, Controller::data(1).into(), Time::ZERO);
        let own = controller.message(1, Controller::data(1).into(), Time::ZERO);
        assert_eq!((forged, own), (Delivery::Refused, Delivery::Own));
        assert_eq!(controller.message(0, 0xffff, Time::ZERO), Delivery::Refused);
    }

    #[test]
    fn message_to_a_vector_nobody_has_is_spurious() {
        let mut controller = two_functions();
        for data in [2, 63, 65, 128, 0xffff, 0x1_0002] {
            assert_eq!(
                controller.message(0, data, Time::ZERO),
                Delivery::Spurious,
                "{data:#x}"
            );
        }
        assert!(controller.pending(0).is_empty());
        assert!(controller.pending(1).is_empty());
    }

    #[test]
    fn pin_stays_raised_while_the_device_holds_it() {
        let mut controller = two_functions();
        controller.enable(1, InterruptKind::Intx, 1);
        let zero = VectorSet::of(Vector(0));
        controller.pin(1, true, Time::ZERO);
        assert_eq!(controller.take(1, zero, Time::ZERO), zero);
        assert_eq!(controller.take(1, zero, Time::ZERO), zero);
        controller.pin(1, false, Time::ZERO);
        assert_eq!(controller.take(1, zero, Time::ZERO), VectorSet::EMPTY);
    }

    #[test]
    fn pin_is_nobodys_business_once_messages_are_given() {
        let mut controller = two_functions();
        controller.pin(0, true, Time::ZERO);
        assert!(controller.pending(0).is_empty());
    }
}
