//! Interrupts: messages that functions write to the window of the interrupt controller, and the
//! levels of their pins.
//!
//! Without interrupt remapping a message names its target in its data, and any function that may
//! write memory can name any target, in every IOMMU mode. With it the sender is validated: a function
//! reaches its own vectors only (VT-d 4.0, chapter 5).

use cofferdam_seam::{InterruptKind, Vector, VectorSet};
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

/// The interrupt controller.
#[derive(Debug, Default)]
pub(crate) struct Controller {
    lines: Vec<Line>,
    remaps: bool,
}

impl Controller {
    /// A controller without lines, with or without remapping.
    pub(crate) fn new(remaps: bool) -> Self {
        Self {
            lines: Vec::new(),
            remaps,
        }
    }

    /// Gives the next slot a line, with no vectors.
    pub(crate) fn attach(&mut self) {
        self.lines.push(Line::default());
    }

    /// Gives the function in `slot` vectors 0 to `count` - 1. What was raised before is forgotten.
    pub(crate) fn enable(&mut self, slot: usize, kind: InterruptKind, count: u16) {
        self.lines[slot] = Line {
            kind: Some(kind),
            count: count.min(VECTORS),
            raised: VectorSet::EMPTY,
        };
    }

    /// Takes all vectors away, with what was raised.
    pub(crate) fn disable(&mut self, slot: usize) {
        self.lines[slot] = Line::default();
    }

    /// The message data that raises vector 0 of `slot`; the vector goes into the low bits.
    pub(crate) fn data(slot: usize) -> u16 {
        u16::try_from(slot)
            .unwrap_or(u16::MAX)
            .saturating_mul(VECTORS)
    }

    /// Takes a message that the function in `from` sent.
    pub(crate) fn message(&mut self, from: usize, data: u32) -> Delivery {
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
                line.raised.insert(VectorSet::of(Vector(vector)));
                if slot == from {
                    Delivery::Own
                } else {
                    Delivery::Forged
                }
            }
            _ => Delivery::Spurious,
        }
    }

    /// What is raised; `pin` is the level of the function's pin.
    pub(crate) fn pending(&self, slot: usize, pin: bool) -> VectorSet {
        let line = &self.lines[slot];
        match line.kind {
            Some(InterruptKind::Intx) if pin => VectorSet::of(Vector(0)),
            _ => line.raised,
        }
    }

    /// Acknowledges what is raised of `wanted`. A pin stays raised until the device releases it.
    pub(crate) fn take(&mut self, slot: usize, pin: bool, wanted: VectorSet) -> VectorSet {
        let raised = self.pending(slot, pin);
        self.lines[slot].raised.take(wanted);
        VectorSet(raised.0 & wanted.0)
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
        let mut controller = Controller::default();
        controller.attach();
        controller.attach();
        controller.enable(0, InterruptKind::Msix, 2);
        controller.enable(1, InterruptKind::Msi, 1);
        controller
    }

    #[test]
    fn message_raises_the_vector_it_names_until_taken() {
        let mut controller = two_functions();
        let delivery = controller.message(0, u32::from(Controller::data(0)) + 1);
        assert_eq!(delivery, Delivery::Own);
        let all = VectorSet(u64::MAX);
        assert_eq!(controller.take(0, false, all), VectorSet::of(Vector(1)));
        assert_eq!(controller.take(0, false, all), VectorSet::EMPTY);
    }

    #[test]
    fn taking_one_vector_leaves_the_others() {
        let mut controller = two_functions();
        controller.message(0, 0);
        controller.message(0, 1);
        let one = VectorSet::of(Vector(0));
        assert_eq!(controller.take(0, false, one), one);
        assert_eq!(controller.pending(0, false), VectorSet::of(Vector(1)));
    }

    #[test]
    fn forged_message_reaches_its_victim_and_is_told_apart() {
        let mut controller = two_functions();
        let delivery = controller.message(0, Controller::data(1).into());
        assert_eq!(delivery, Delivery::Forged);
        assert_eq!(controller.pending(1, false), VectorSet::of(Vector(0)));
    }

    #[test]
    fn remapping_refuses_what_is_not_the_senders() {
        let mut controller = two_functions();
        controller.remaps = true;
        let forged = controller.message(0, Controller::data(1).into());
        let own = controller.message(1, Controller::data(1).into());
        assert_eq!((forged, own), (Delivery::Refused, Delivery::Own));
        assert_eq!(controller.message(0, 0xffff), Delivery::Refused);
    }

    #[test]
    fn message_to_a_vector_nobody_has_is_spurious() {
        let mut controller = two_functions();
        for data in [2, 63, 65, 128, 0xffff, 0x1_0002] {
            assert_eq!(controller.message(0, data), Delivery::Spurious, "{data:#x}");
        }
        assert!(controller.pending(0, false).is_empty());
        assert!(controller.pending(1, false).is_empty());
    }

    #[test]
    fn pin_stays_raised_while_the_device_holds_it() {
        let mut controller = two_functions();
        controller.enable(1, InterruptKind::Intx, 1);
        let zero = VectorSet::of(Vector(0));
        assert_eq!(controller.take(1, true, zero), zero);
        assert_eq!(controller.take(1, true, zero), zero);
        assert_eq!(controller.take(1, false, zero), VectorSet::EMPTY);
    }

    #[test]
    fn pin_is_nobodys_business_once_messages_are_given() {
        let controller = two_functions();
        assert!(controller.pending(0, true).is_empty());
    }
}
