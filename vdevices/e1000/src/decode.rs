//! The words for what driver and controller do to each other, for whoever reads a trace.

use crate::regs;
use crate::spec::{
    DESCRIPTOR, DONE, END_OF_PACKET, ReceiveDescriptor, TransmitDescriptor, cause, command,
    control, receive_control, status, transmit_control,
};
use cofferdam_seam::{Bar, Decode, Iova, Purpose};
use core::ops::Range;
use zerocopy::FromBytes;

/// Reads along: where the rings lie it learns from the registers. It believes nothing, so a driver or
/// a controller that lies gets words that are wrong.
#[derive(Debug, Default)]
pub struct Decoder {
    receive: Place,
    transmit: Place,
}

/// Where a ring lies.
#[derive(Debug, Default)]
struct Place {
    base: u64,
    bytes: u32,
}

impl Place {
    fn range(&self) -> Range<u64> {
        self.base..self.base.saturating_add(self.bytes.into())
    }

    /// The number of the descriptor at an address.
    fn index(&self, at: Iova) -> Option<u64> {
        let range = self.range();
        range
            .contains(&at.0)
            .then(|| (at.0 - range.start) / DESCRIPTOR)
    }
}

impl Decode for Decoder {
    fn register(&self, bar: Bar, offset: u32) -> Option<String> {
        (bar == Bar::ZERO).then(|| regs::name(offset))?
    }

    fn value(&self, bar: Bar, offset: u32, value: u64) -> Option<String> {
        let bits: &[(u32, &str)] = match self.register(bar, offset)?.as_str() {
            "CTRL" => &[
                (control::SET_LINK_UP, "SLU"),
                (control::RESET, "RST"),
                (control::PHY_RESET, "PHY_RST"),
            ],
            "STATUS" => &[(status::LINK_UP, "LU")],
            "ICR" | "ICS" | "IMS" | "IMC" => &[
                (cause::TRANSMITTED, "TXDW"),
                (cause::TRANSMIT_EMPTY, "TXQE"),
                (cause::LINK, "LSC"),
                (cause::RECEIVE_LOW, "RXDMT0"),
                (cause::OVERRUN, "RXO"),
                (cause::RECEIVED, "RXT0"),
                (cause::MDI, "MDAC"),
            ],
            "RCTL" => &[
                (receive_control::ENABLE, "EN"),
                (receive_control::UNICAST_ALL, "UPE"),
                (receive_control::MULTICAST_ALL, "MPE"),
                (receive_control::LONG, "LPE"),
                (receive_control::BROADCAST, "BAM"),
                (receive_control::STRIP_CRC, "SECRC"),
            ],
            "TCTL" => &[
                (transmit_control::ENABLE, "EN"),
                (transmit_control::PAD, "PSP"),
            ],
            _ => return None,
        };
        let set = bits.iter().filter(|(bit, _)| value & u64::from(*bit) != 0);
        let words: Vec<&str> = set.map(|(_, word)| *word).collect();
        (!words.is_empty()).then(|| words.join(", "))
    }

    fn wrote(&mut self, bar: Bar, offset: u32, _: u8, value: u64) {
        let Some(name) = self.register(bar, offset) else {
            return;
        };
        let low = u32::try_from(value & 0xffff_ffff).unwrap_or(0);
        let place = if name.starts_with("RD") {
            &mut self.receive
        } else {
            &mut self.transmit
        };
        match name.as_str() {
            "RDBAL" | "TDBAL" => place.base = place.base & !0xffff_ffff | u64::from(low),
            "RDBAH" | "TDBAH" => place.base = place.base & 0xffff_ffff | u64::from(low) << 32,
            "RDLEN" | "TDLEN" => place.bytes = low & 0x000f_ff80,
            _ => {}
        }
    }

    fn dma(&mut self, at: Iova, why: Purpose, bytes: &[u8]) -> Option<String> {
        if let Some(index) = self.transmit.index(at) {
            let Ok((descriptor, _)) = TransmitDescriptor::read_from_prefix(bytes) else {
                return Some(format!(
                    "transmit descriptor {index}: {}",
                    done(why, bytes)?
                ));
            };
            let end = if descriptor.command & command::END_OF_PACKET != 0 {
                ", EOP"
            } else {
                ""
            };
            let (address, length) = (descriptor.address.get(), descriptor.length.get());
            return Some(format!(
                "transmit descriptor {index}: {length} bytes at {address:#x}{end}"
            ));
        }
        let index = self.receive.index(at)?;
        if let Ok((descriptor, _)) = ReceiveDescriptor::read_from_prefix(bytes) {
            let address = descriptor.address.get();
            return Some(format!(
                "receive descriptor {index}: buffer at {address:#x}"
            ));
        }
        let words = match (why, bytes) {
            (Purpose::Completion, [low, high, ..]) => {
                format!("{} bytes", u16::from_le_bytes([*low, *high]))
            }
            _ => done(why, bytes)?,
        };
        Some(format!("receive descriptor {index}: {words}"))
    }
}

/// What a status byte says that was written.
fn done(why: Purpose, bytes: &[u8]) -> Option<String> {
    let status = bytes.first().filter(|_| why == Purpose::Publish)?;
    let mut words = if status & DONE == 0 {
        "not done"
    } else {
        "done"
    }
    .to_owned();
    if status & END_OF_PACKET != 0 {
        words += ", EOP";
    }
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_and_descriptors_have_words() {
        let mut decoder = Decoder::default();
        decoder.wrote(Bar::ZERO, 0x3800, 4, 0x1000);
        decoder.wrote(Bar::ZERO, 0x3808, 4, 128);
        let mut descriptor = [0; 16];
        descriptor[1] = 0x20;
        descriptor[8] = 60;
        descriptor[11] = 1;

        let read = decoder.dma(Iova(0x1010), Purpose::Descriptor, &descriptor);
        let written = decoder.dma(Iova(0x101c), Purpose::Publish, &[1, 0, 0, 0]);

        let expected = "transmit descriptor 1: 60 bytes at 0x2000, EOP";
        assert_eq!(read.as_deref(), Some(expected));
        assert_eq!(written.as_deref(), Some("transmit descriptor 1: done"));
        assert_eq!(decoder.dma(Iova(0x2000), Purpose::Payload, &[0]), None);
        assert_eq!(decoder.register(Bar::ZERO, 0x3818).as_deref(), Some("TDT"));
        let words = decoder.value(Bar::ZERO, 0xc0, 0x81);
        assert_eq!(words.as_deref(), Some("TXDW, RXT0"));
    }
}
