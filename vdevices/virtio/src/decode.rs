//! The words for what driver and device do to each other, for whoever reads a trace.

use crate::identity::{COMMON, CONFIG, ISR, NOTIFY, STRUCTURES};
use crate::queue::MAX_SIZE;
use crate::regs::{FIELDS, Field};
use crate::spec::{
    Descriptor, RequestHeader, RequestStatus, Status, UsedElement, available, descriptor, isr,
    request, used,
};
use cofferdam_seam::{Bar, Decode, Iova, Purpose};
use core::ops::Range;
use zerocopy::FromBytes;

/// Reads along: where the queue lies it learns from what the driver writes. It believes nothing
/// and remembers little, so a driver or device that lies gets words that are wrong.
#[derive(Debug, Default)]
pub struct Decoder {
    descriptors: u64,
    available: u64,
    used: u64,
    /// The table that was referred to last.
    table: Range<u64>,
}

impl Decode for Decoder {
    fn register(&self, bar: Bar, offset: u32) -> Option<String> {
        if bar != STRUCTURES {
            return None;
        }
        if offset >= NOTIFY {
            return Some(format!("queue {} notify", (offset - NOTIFY) / 4));
        }
        let name = match (offset, field(offset)) {
            (ISR, _) => "ISR status",
            (CONFIG, _) => "block capacity",
            (_, None) => return None,
            (_, Some(field)) => name(field),
        };
        Some(name.to_owned())
    }

    fn value(&self, bar: Bar, offset: u32, value: u64) -> Option<String> {
        if bar != STRUCTURES {
            return None;
        }
        let byte = u8::try_from(value & 0xff).unwrap_or(0);
        let bits: &[(bool, &str)] = if offset == ISR {
            &[
                (byte & isr::QUEUE != 0, "queue"),
                (byte & isr::CONFIG != 0, "configuration"),
            ]
        } else if field(offset) == Some(Field::DeviceStatus) {
            let status = Status::from_bits(byte);
            &[
                (status.acknowledge(), "ACKNOWLEDGE"),
                (status.driver(), "DRIVER"),
                (status.features_ok(), "FEATURES_OK"),
                (status.driver_ok(), "DRIVER_OK"),
                (status.needs_reset(), "DEVICE_NEEDS_RESET"),
                (status.failed(), "FAILED"),
            ]
        } else {
            return None;
        };
        let set = bits.iter().filter(|(set, _)| *set);
        let words: Vec<&str> = set.map(|(_, word)| *word).collect();
        (!words.is_empty()).then(|| words.join(", "))
    }

    fn wrote(&mut self, bar: Bar, offset: u32, width: u8, value: u64) {
        if bar != STRUCTURES {
            return;
        }
        let (address, high) = match field(offset) {
            Some(Field::QueueDescriptorsLow) => (&mut self.descriptors, false),
            Some(Field::QueueDescriptorsHigh) => (&mut self.descriptors, true),
            Some(Field::QueueDriverLow) => (&mut self.available, false),
            Some(Field::QueueDriverHigh) => (&mut self.available, true),
            Some(Field::QueueDeviceLow) => (&mut self.used, false),
            Some(Field::QueueDeviceHigh) => (&mut self.used, true),
            _ => return,
        };
        let low = 0xffff_ffff;
        *address = match (high, width) {
            (false, 8) => value,
            (false, _) => *address & !low | value & low,
            (true, _) => *address & low | value << 32,
        };
    }

    fn dma(&mut self, at: Iova, why: Purpose, bytes: &[u8]) -> Option<String> {
        match why {
            Purpose::Descriptor => self.descriptor(at.0, bytes),
            Purpose::Completion => {
                let element = UsedElement::read_from_bytes(bytes).ok()?;
                let slot = at.0.checked_sub(self.used.wrapping_add(used::RING))? / 8;
                let (id, length) = (element.id.get(), element.length.get());
                Some(format!("used[{slot}]: chain {id}, {length} B written"))
            }
            Purpose::Publish => {
                let index = u16::from_le_bytes(bytes.try_into().ok()?);
                Some(format!("used index {index}"))
            }
            Purpose::Status => Some(match RequestStatus(*bytes.first()?) {
                RequestStatus::OK => "status OK".to_owned(),
                RequestStatus::IO_ERROR => "status IOERR".to_owned(),
                RequestStatus::UNSUPPORTED => "status UNSUPP".to_owned(),
                RequestStatus(other) => format!("status {other:#x}"),
            }),
            Purpose::Payload => None,
        }
    }
}

impl Decoder {
    fn descriptor(&mut self, at: u64, bytes: &[u8]) -> Option<String> {
        if let Ok(word) = <[u8; 2]>::try_from(bytes) {
            let word = u16::from_le_bytes(word);
            return Some(match at.checked_sub(self.available)? {
                available::FLAGS => format!("available flags {word:#x}"),
                available::INDEX => format!("available index {word}"),
                within => {
                    let slot = within.checked_sub(available::RING)? / 2;
                    format!("available[{slot}]: chain {word}")
                }
            });
        }
        let entry = u64::from(descriptor::BYTES);
        let whole = self.descriptors..self.descriptors.saturating_add(entry * u64::from(MAX_SIZE));
        let (kind, start) = if whole.contains(&at) {
            ("descriptor", whole.start)
        } else if self.table.contains(&at) {
            ("indirect descriptor", self.table.start)
        } else {
            return header(bytes);
        };
        let found = Descriptor::read_from_bytes(bytes).ok()?;
        let (address, length) = (found.address.get(), found.length.get());
        let flags = found.flags.get();
        let mut words = format!(
            "{kind} {}: {length} B at {address:#x}",
            (at - start) / entry
        );
        if flags & descriptor::INDIRECT != 0 {
            self.table = address..address.saturating_add(length.into());
            words += ", a table";
        } else if flags & descriptor::WRITE != 0 {
            words += ", the device writes";
        } else {
            words += ", the device reads";
        }
        if flags & descriptor::NEXT != 0 {
            words += &format!(", next {}", found.next.get());
        }
        Some(words)
    }
}

fn header(bytes: &[u8]) -> Option<String> {
    let header = RequestHeader::read_from_bytes(bytes).ok()?;
    let sector = header.sector.get();
    Some(match header.kind.get() {
        request::IN => format!("request: read sector {sector}"),
        request::OUT => format!("request: write sector {sector}"),
        request::GET_ID => "request: get ID".to_owned(),
        other => format!("request: kind {other:#x}"),
    })
}

fn field(offset: u32) -> Option<Field> {
    let offset = offset.checked_sub(COMMON)?;
    let mut fields = FIELDS.iter();
    fields.find(|(at, ..)| *at == offset).map(|found| found.2)
}

/// Names of the standard (virtio 1.2, 4.1.4.3).
const fn name(field: Field) -> &'static str {
    match field {
        Field::DeviceFeatureSelect => "device_feature_select",
        Field::DeviceFeature => "device_feature",
        Field::DriverFeatureSelect => "driver_feature_select",
        Field::DriverFeature => "driver_feature",
        Field::ConfigVector => "config_msix_vector",
        Field::QueueCount => "num_queues",
        Field::DeviceStatus => "device_status",
        Field::ConfigGeneration => "config_generation",
        Field::QueueSelect => "queue_select",
        Field::QueueSize => "queue_size",
        Field::QueueVector => "queue_msix_vector",
        Field::QueueEnable => "queue_enable",
        Field::QueueNotifyOffset => "queue_notify_off",
        Field::QueueDescriptorsLow => "queue_desc",
        Field::QueueDescriptorsHigh => "queue_desc (high)",
        Field::QueueDriverLow => "queue_driver",
        Field::QueueDriverHigh => "queue_driver (high)",
        Field::QueueDeviceLow => "queue_device",
        Field::QueueDeviceHigh => "queue_device (high)",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A decoder that saw the driver place its queue.
    fn placed() -> Decoder {
        let mut decoder = Decoder::default();
        for (offset, value) in [(0x20, 0x1000), (0x28, 0x2000), (0x30, 0x3000)] {
            decoder.wrote(STRUCTURES, offset, 4, value);
            decoder.wrote(STRUCTURES, offset + 4, 4, 1);
        }
        decoder
    }

    const HIGH: u64 = 1 << 32;

    fn said(decoder: &mut Decoder, at: u64, why: Purpose, bytes: &[u8]) -> String {
        decoder.dma(Iova(at), why, bytes).unwrap_or_default()
    }

    #[test]
    fn registers_have_the_names_of_the_standard() {
        let decoder = Decoder::default();

        for (offset, name) in [
            (0x14, "device_status"),
            (ISR, "ISR status"),
            (NOTIFY, "queue 0 notify"),
        ] {
            assert_eq!(decoder.register(STRUCTURES, offset).as_deref(), Some(name));
        }
        assert_eq!(decoder.register(Bar::ZERO, 0x14), None);
        let words = decoder.value(STRUCTURES, 0x14, 0b1011);
        assert_eq!(words.as_deref(), Some("ACKNOWLEDGE, DRIVER, FEATURES_OK"));
    }

    #[test]
    fn ring_entries_are_told_apart_by_where_they_are() {
        let mut decoder = placed();
        #[rustfmt::skip]
        let table = [0, 0x50, 0, 0, 0, 0, 0, 0, 32, 0, 0, 0, 4, 0, 0, 0];
        #[rustfmt::skip]
        let buffer = [0, 0x60, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 2, 0, 0, 0];

        let told = [
            said(&mut decoder, HIGH | 0x2002, Purpose::Descriptor, &[5, 0]),
            said(&mut decoder, HIGH | 0x2006, Purpose::Descriptor, &[3, 0]),
            said(&mut decoder, HIGH | 0x1030, Purpose::Descriptor, &table),
            said(&mut decoder, 0x5010, Purpose::Descriptor, &buffer),
            said(&mut decoder, 0x7000, Purpose::Descriptor, &[0; 16]),
            said(
                &mut decoder,
                HIGH | 0x300c,
                Purpose::Completion,
                &[3, 0, 0, 0, 1, 2, 0, 0],
            ),
        ];

        assert_eq!(
            told,
            [
                "available index 5",
                "available[1]: chain 3",
                "descriptor 3: 32 B at 0x5000, a table",
                "indirect descriptor 1: 512 B at 0x6000, the device writes",
                "request: read sector 0",
                "used[1]: chain 3, 513 B written",
            ]
        );
    }

    #[test]
    fn odd_lengths_and_addresses_are_not_decoded() {
        let mut decoder = placed();
        for at in [0, 1, HIGH | 0x1001, HIGH | 0x2001, u64::MAX] {
            for len in [0, 1, 2, 3, 8, 15, 16, 17, 64] {
                for why in [Purpose::Descriptor, Purpose::Completion, Purpose::Publish] {
                    let _ = decoder.dma(Iova(at), why, &vec![0xff; len]);
                }
            }
        }
        assert_eq!(decoder.dma(Iova(0), Purpose::Descriptor, &[0; 3]), None);
    }
}
