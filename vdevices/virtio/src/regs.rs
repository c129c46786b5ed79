//! The common configuration structure (virtio 1.2, 4.1.4.3): which fields there are, and what a
//! driver may do to them.

use crate::queue::{MAX_SIZE, Queue};
use crate::spec::{self, NO_VECTOR, Status};
use cofferdam_seam::{Iova, Width};

/// A field of the structure. A 64-bit address is two fields: drivers must write its halves one by
/// one (4.1.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    DeviceFeatureSelect,
    DeviceFeature,
    DriverFeatureSelect,
    DriverFeature,
    ConfigVector,
    QueueCount,
    DeviceStatus,
    ConfigGeneration,
    QueueSelect,
    QueueSize,
    QueueVector,
    QueueEnable,
    QueueNotifyOffset,
    QueueDescriptorsLow,
    QueueDescriptorsHigh,
    QueueDriverLow,
    QueueDriverHigh,
    QueueDeviceLow,
    QueueDeviceHigh,
}

/// Offset, width and field, in order. Whatever is not here, the fields of features that are not
/// offered included, reads as zero and ignores writes, and so does an access of another width.
pub(crate) const FIELDS: [(u32, Width, Field); 19] = [
    (0x00, Width::Four, Field::DeviceFeatureSelect),
    (0x04, Width::Four, Field::DeviceFeature),
    (0x08, Width::Four, Field::DriverFeatureSelect),
    (0x0c, Width::Four, Field::DriverFeature),
    (0x10, Width::Two, Field::ConfigVector),
    (0x12, Width::Two, Field::QueueCount),
    (0x14, Width::One, Field::DeviceStatus),
    (0x15, Width::One, Field::ConfigGeneration),
    (0x16, Width::Two, Field::QueueSelect),
    (0x18, Width::Two, Field::QueueSize),
    (0x1a, Width::Two, Field::QueueVector),
    (0x1c, Width::Two, Field::QueueEnable),
    (0x1e, Width::Two, Field::QueueNotifyOffset),
    (0x20, Width::Four, Field::QueueDescriptorsLow),
    (0x24, Width::Four, Field::QueueDescriptorsHigh),
    (0x28, Width::Four, Field::QueueDriverLow),
    (0x2c, Width::Four, Field::QueueDriverHigh),
    (0x30, Width::Four, Field::QueueDeviceLow),
    (0x34, Width::Four, Field::QueueDeviceHigh),
];

/// The field at `offset`, if the access is as wide as it.
pub(crate) fn field(offset: u32, width: Width) -> Option<Field> {
    FIELDS
        .iter()
        .find(|(at, wide, _)| *at == offset && *wide == width)
        .map(|&(_, _, field)| field)
}

/// What a write asks of the rest of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing.
    None,
    /// Zero was written to the device status.
    Reset,
    /// The driver became ready.
    DriverOk,
    /// That queue was enabled.
    QueueEnabled(u16),
}

/// The registers behind the structure, but for those of the queues.
#[derive(Debug)]
pub(crate) struct Registers {
    pub status: Status,
    pub config_vector: u16,
    device_feature_select: u32,
    driver_feature_select: u32,
    driver_features: u64,
    queue_select: u16,
    /// What the device offers: constant over its life.
    offered: u64,
    /// How many vectors it has: constant too.
    vectors: u16,
}

impl Registers {
    /// As after a reset of a device that offers version 1 and those `features`.
    pub fn new(features: u64, vectors: u16) -> Self {
        Self {
            offered: spec::VERSION_1 | features,
            vectors,
            status: Status::new(),
            config_vector: NO_VECTOR,
            device_feature_select: 0,
            driver_feature_select: 0,
            driver_features: 0,
            queue_select: 0,
        }
    }

    /// Whether the driver may make the device work: it is ready, features are settled and nothing
    /// is broken.
    pub fn running(&self) -> bool {
        self.status.driver_ok() && self.status.features_ok() && !self.status.needs_reset()
    }

    /// Back to the state after a reset.
    pub fn reset(&mut self) {
        *self = Self::new(self.offered, self.vectors);
    }

    /// Whether the driver settled on that feature.
    pub fn negotiated(&self, feature: u64) -> bool {
        self.status.features_ok() && self.driver_features & feature != 0
    }

    /// The value of a field.
    pub fn read(&self, field: Field, queues: &[Queue]) -> u32 {
        match field {
            Field::DeviceFeatureSelect => self.device_feature_select,
            Field::DeviceFeature => half(self.offered, self.device_feature_select),
            Field::DriverFeatureSelect => self.driver_feature_select,
            Field::DriverFeature => half(self.driver_features, self.driver_feature_select),
            Field::ConfigVector => self.config_vector.into(),
            Field::QueueCount => u32::try_from(queues.len()).unwrap_or(0),
            Field::DeviceStatus => self.status.into_bits().into(),
            // No field of the configuration changes but by the driver's own write.
            Field::ConfigGeneration => 0,
            Field::QueueSelect => self.queue_select.into(),
            // A queue that is not there has size zero (4.1.4.3.1).
            _ => queues
                .get(usize::from(self.queue_select))
                .map_or(0, |queue| self.read_queue(field, queue)),
        }
    }

    /// A field of the selected queue.
    fn read_queue(&self, field: Field, queue: &Queue) -> u32 {
        match field {
            Field::QueueSize => queue.size.into(),
            Field::QueueVector => queue.vector.into(),
            Field::QueueEnable => queue.enabled.into(),
            // Each queue has a place of its own for its doorbell.
            Field::QueueNotifyOffset => self.queue_select.into(),
            Field::QueueDescriptorsLow => half(queue.descriptors.0, 0),
            Field::QueueDescriptorsHigh => half(queue.descriptors.0, 1),
            Field::QueueDriverLow => half(queue.available.0, 0),
            Field::QueueDriverHigh => half(queue.available.0, 1),
            Field::QueueDeviceLow => half(queue.used.0, 0),
            Field::QueueDeviceHigh => half(queue.used.0, 1),
            _ => 0,
        }
    }

    /// Writes a field, as far as a driver may. `value` is as wide as the field.
    pub fn write(&mut self, field: Field, value: u32, queues: &mut [Queue]) -> Effect {
        let [low, high, ..] = value.to_le_bytes();
        let word = u16::from_le_bytes([low, high]);
        match field {
            Field::DeviceFeatureSelect => self.device_feature_select = value,
            Field::DriverFeatureSelect => self.driver_feature_select = value,
            // Settled features stay as they are (3.1.1, step 5).
            Field::DriverFeature if !self.status.features_ok() => {
                set_half(&mut self.driver_features, self.driver_feature_select, value);
            }
            Field::ConfigVector => self.config_vector = self.vector(word),
            Field::DeviceStatus => return self.set_status(low),
            Field::QueueSelect => self.queue_select = word,
            _ => {
                let vector = self.vector(word);
                let select = self.queue_select;
                match queues.get_mut(usize::from(select)) {
                    Some(queue) if field == Field::QueueVector => queue.vector = vector,
                    Some(queue) if !queue.enabled => {
                        write_queue(field, value, word, queue);
                        if queue.enabled {
                            return Effect::QueueEnabled(select);
                        }
                    }
                    _ => {}
                }
            }
        }
        Effect::None
    }

    /// A vector the device does not have reads back as none (4.1.5.1.2.1).
    fn vector(&self, asked: u16) -> u16 {
        if asked < self.vectors {
            asked
        } else {
            NO_VECTOR
        }
    }

    fn set_status(&mut self, value: u8) -> Effect {
        if value == 0 {
            return Effect::Reset;
        }
        // Reserved bits stay zero; only the device sets DEVICE_NEEDS_RESET, only a reset clears it.
        let asked = Status::from_bits(value & 0b1000_1111);
        let before = self.running();
        self.status = asked
            .with_features_ok(asked.features_ok() && self.features_acceptable())
            .with_needs_reset(self.status.needs_reset());
        match self.running() && !before {
            true => Effect::DriverOk,
            false => Effect::None,
        }
    }

    /// The driver took nothing that was not offered, and agrees to version 1 (2.2.2, 6.2).
    fn features_acceptable(&self) -> bool {
        let agrees = self.driver_features & spec::VERSION_1 != 0;
        agrees && self.driver_features & !self.offered == 0
    }
}

/// Writes a field of a queue that is not enabled yet; the driver must not change one that is
/// (4.1.4.3.2).
fn write_queue(field: Field, value: u32, word: u16, queue: &mut Queue) {
    match field {
        Field::QueueSize if word.is_power_of_two() && word <= MAX_SIZE => queue.size = word,
        Field::QueueEnable if word == 1 => queue.enabled = true,
        Field::QueueDescriptorsLow => set_address(&mut queue.descriptors, 0, value),
        Field::QueueDescriptorsHigh => set_address(&mut queue.descriptors, 1, value),
        Field::QueueDriverLow => set_address(&mut queue.available, 0, value),
        Field::QueueDriverHigh => set_address(&mut queue.available, 1, value),
        Field::QueueDeviceLow => set_address(&mut queue.used, 0, value),
        Field::QueueDeviceHigh => set_address(&mut queue.used, 1, value),
        _ => {}
    }
}

/// The low or high half of `value`; zero beyond, as for feature bits nobody offers.
fn half(value: u64, select: u32) -> u32 {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    match select {
        0 => u32::from_le_bytes([a, b, c, d]),
        1 => u32::from_le_bytes([e, f, g, h]),
        _ => 0,
    }
}

fn set_half(value: &mut u64, select: u32, to: u32) {
    match select {
        0 => *value = *value & !0xffff_ffff | u64::from(to),
        1 => *value = *value & 0xffff_ffff | u64::from(to) << 32,
        _ => {}
    }
}

fn set_address(address: &mut Iova, select: u32, to: u32) {
    set_half(&mut address.0, select, to);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As many vectors as a device with one queue has.
    const VECTORS: u16 = 2;

    #[test]
    fn fields_follow_one_another_without_gaps() {
        let mut next = 0;
        for (offset, width, field) in FIELDS {
            assert_eq!(offset, next, "{field:?}");
            next = offset + width.bytes();
        }
        // queue_notify_data and queue_reset belong to features that are not offered.
        assert_eq!(next, 0x38);
    }

    #[test]
    fn features_beyond_the_offer_are_not_accepted() {
        let mut registers = Registers::new(0, VECTORS);
        let mut queues = [Queue::new()];
        registers.write(Field::DriverFeature, 1 << 9, &mut queues);
        registers.write(Field::DriverFeatureSelect, 1, &mut queues);
        registers.write(Field::DriverFeature, 1, &mut queues);

        registers.write(Field::DeviceStatus, 0b1011, &mut queues);

        assert_eq!(registers.read(Field::DeviceStatus, &queues), 0b0011);
    }

    #[test]
    fn features_without_version_1_are_not_accepted() {
        let mut registers = Registers::new(0, VECTORS);
        let mut queues = [Queue::new()];

        registers.write(Field::DeviceStatus, 0b1011, &mut queues);

        assert_eq!(registers.read(Field::DeviceStatus, &queues), 0b0011);
    }

    #[test]
    fn settled_features_cannot_be_changed() {
        let mut registers = Registers::new(0, VECTORS);
        let mut queues = [Queue::new()];
        registers.write(Field::DriverFeatureSelect, 1, &mut queues);
        registers.write(Field::DriverFeature, 1, &mut queues);
        registers.write(Field::DeviceStatus, 0b1011, &mut queues);

        registers.write(Field::DriverFeature, 0, &mut queues);

        assert_eq!(registers.read(Field::DeviceStatus, &queues), 0b1011);
        assert_eq!(registers.read(Field::DriverFeature, &queues), 1);
        assert!(registers.negotiated(spec::VERSION_1));
        assert!(!registers.negotiated(spec::INDIRECT_DESC));
    }

    #[test]
    fn features_the_device_has_are_offered_with_version_1() {
        let mut registers = Registers::new(spec::INDIRECT_DESC, VECTORS);
        let mut queues = [Queue::new()];

        let offered = [0, 1, 2, u32::MAX].map(|select| {
            registers.write(Field::DeviceFeatureSelect, select, &mut queues);
            registers.read(Field::DeviceFeature, &queues)
        });

        assert_eq!(offered, [1 << 28, 1, 0, 0]);
    }

    #[test]
    fn vector_the_device_lacks_reads_back_as_none() {
        let mut registers = Registers::new(0, VECTORS);
        let mut queues = [Queue::new()];

        registers.write(Field::QueueVector, VECTORS.into(), &mut queues);
        registers.write(Field::ConfigVector, 1, &mut queues);

        let none = registers.read(Field::QueueVector, &queues);
        assert_eq!(none, u32::from(NO_VECTOR));
        assert_eq!(registers.read(Field::ConfigVector, &queues), 1);
    }

    #[test]
    fn queue_that_is_not_there_has_no_size_and_takes_no_address() {
        let mut registers = Registers::new(0, VECTORS);
        let mut queues = [Queue::new()];
        registers.write(Field::QueueSelect, 1, &mut queues);

        registers.write(Field::QueueDeviceLow, 0x1000, &mut queues);
        registers.write(Field::QueueEnable, 1, &mut queues);

        assert_eq!(registers.read(Field::QueueSize, &queues), 0);
        assert!(!queues[0].enabled);
        assert_eq!(queues[0].used, Iova(0));
    }

    #[test]
    fn odd_queue_sizes_are_ignored() {
        let mut registers = Registers::new(0, VECTORS);
        let mut queues = [Queue::new()];

        for size in [0, 3, 63, 65, 128, 0xffff] {
            registers.write(Field::QueueSize, size, &mut queues);
            assert_eq!(registers.read(Field::QueueSize, &queues), 64);
        }
        registers.write(Field::QueueSize, 8, &mut queues);

        assert_eq!(registers.read(Field::QueueSize, &queues), 8);
    }

    #[test]
    fn enabled_queue_cannot_be_changed() {
        let mut registers = Registers::new(0, VECTORS);
        let mut queues = [Queue::new()];
        let effect = registers.write(Field::QueueEnable, 1, &mut queues);

        registers.write(Field::QueueSize, 8, &mut queues);
        registers.write(Field::QueueDriverHigh, 8, &mut queues);
        registers.write(Field::QueueEnable, 0, &mut queues);

        assert_eq!(effect, Effect::QueueEnabled(0));
        assert_eq!((queues[0].size, queues[0].available), (64, Iova(0)));
        assert!(queues[0].enabled);
    }
}
