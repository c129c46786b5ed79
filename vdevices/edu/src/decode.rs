//! The words for what driver and device do to each other, for whoever reads a trace.

use crate::spec::{Register, dma, interrupt, status};
use cofferdam_seam::{Bar, Decode};

/// Reads along. edu has no memory that it shares with a driver, so there is nothing to remember, and
/// all that it moves is payload.
#[derive(Debug, Default)]
pub struct Decoder;

impl Decode for Decoder {
    fn register(&self, bar: Bar, offset: u32) -> Option<String> {
        Some(
            match find(bar, offset)? {
                Register::Identification => "identification",
                Register::Liveness => "liveness check",
                Register::Factorial => "factorial",
                Register::Status => "status",
                Register::InterruptStatus => "interrupt status",
                Register::InterruptRaise => "interrupt raise",
                Register::InterruptAcknowledge => "interrupt acknowledge",
                Register::DmaSource => "DMA source",
                Register::DmaDestination => "DMA destination",
                Register::DmaCount => "DMA count",
                Register::DmaCommand => "DMA command",
            }
            .to_owned(),
        )
    }

    fn value(&self, bar: Bar, offset: u32, value: u64) -> Option<String> {
        let bits: &[(u64, &str)] = match find(bar, offset)? {
            Register::Status => &[
                (status::COMPUTING as u64, "computing"),
                (status::INTERRUPT as u64, "interrupt when done"),
            ],
            Register::InterruptStatus
            | Register::InterruptRaise
            | Register::InterruptAcknowledge => &[
                (interrupt::FACTORIAL as u64, "factorial"),
                (interrupt::DMA as u64, "DMA"),
            ],
            Register::DmaCommand => &[
                (dma::START, "start"),
                (dma::TO_MEMORY, "to memory"),
                (dma::INTERRUPT, "interrupt when done"),
            ],
            _ => return None,
        };
        let set = bits.iter().filter(|(bit, _)| value & bit != 0);
        let words: Vec<&str> = set.map(|(_, word)| *word).collect();
        (!words.is_empty()).then(|| words.join(", "))
    }
}

fn find(bar: Bar, offset: u32) -> Option<Register> {
    let mut all = Register::ALL.iter().filter(|_| bar == Bar::ZERO);
    all.find(|(at, _)| *at == offset).map(|(_, found)| *found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_register_has_a_name_and_its_bits_have_words() {
        let decoder = Decoder;

        for (offset, _) in Register::ALL {
            assert!(decoder.register(Bar::ZERO, offset).is_some(), "{offset:#x}");
        }
        assert_eq!(decoder.register(Bar::ZERO, 0x0c), None);
        let words = decoder.value(Bar::ZERO, 0x98, 0b011);
        assert_eq!(words.as_deref(), Some("start, to memory"));
    }
}
