//! Each kind of device as a driver sees it, a file a kind.

mod console;
mod gpu;
mod input;
mod net;
mod p9;
mod rng;
mod socket;
mod sound;

use crate::identity::{COMMON, CONFIG, NOTIFY, STRUCTURES};
use crate::spec::{VERSION_1, descriptor};
use cofferdam_seam::{Device, Width};
use proptest::prelude::*;
use vdevice_pci::testbed::Testbed;

/// Where a test keeps its buffers.
const DATA: u64 = 0x5000;
/// Descriptors a queue.
const SIZE: u16 = 16;

/// Offsets in the common configuration (virtio 1.2, 4.1.4.3).
mod common {
    pub const DEVICE_FEATURE: u32 = 0x04;
    pub const FEATURE_SELECT: u32 = 0x08;
    pub const FEATURE: u32 = 0x0c;
    pub const STATUS: u32 = 0x14;
    pub const QUEUE_SELECT: u32 = 0x16;
    pub const QUEUE_SIZE: u32 = 0x18;
    pub const QUEUE_ENABLE: u32 = 0x1c;
    pub const QUEUE_DESCRIPTORS: u32 = 0x20;
    pub const QUEUE_DRIVER: u32 = 0x28;
    pub const QUEUE_DEVICE: u32 = 0x30;
}

/// A part of a chain: address, length, whether the device writes it.
type Part = (u64, u32, bool);

/// A part the device reads.
fn readable(at: u64, length: usize) -> Part {
    (at, u32::try_from(length).unwrap(), false)
}

/// A part the device writes.
fn writable(at: u64, length: usize) -> Part {
    (at, u32::try_from(length).unwrap(), true)
}

/// A driver that does exactly what a test says.
struct Driver {
    testbed: Testbed,
    queues: Vec<Ring>,
}

/// The driver's side of a queue.
#[derive(Clone, Copy, Default)]
struct Ring {
    descriptors: u64,
    available: u64,
    used: u64,
    /// The available index.
    offered: u16,
    /// Where the next chain's descriptors go.
    next: u16,
    /// How many used elements were seen.
    seen: u16,
}

impl Driver {
    /// A device that is ready, with all its queues.
    fn ready(device: impl Device + 'static, queues: u16) -> Self {
        let mut driver = Self {
            testbed: Testbed::new(Box::new(device)),
            queues: Vec::new(),
        };
        driver.probe(queues);
        driver
    }

    /// The initialisation of 3.1.1. It accepts what it is offered.
    fn probe(&mut self, queues: u16) {
        self.queues.clear();
        self.testbed.bus.bytes(0x1000, 0x4000).fill(0);
        self.common(common::STATUS, Width::One, 3);
        let offered = self
            .testbed
            .value(STRUCTURES, COMMON + common::DEVICE_FEATURE, Width::Four);
        self.common(common::FEATURE_SELECT, Width::Four, 0);
        self.common(common::FEATURE, Width::Four, offered);
        self.common(common::FEATURE_SELECT, Width::Four, 1);
        self.common(common::FEATURE, Width::Four, VERSION_1 >> 32);
        self.common(common::STATUS, Width::One, 0b1011);
        for queue in 0..queues {
            let at = 0x1000 + 0x1000 * u64::from(queue);
            let ring = Ring {
                descriptors: at,
                available: at + 0x400,
                used: at + 0x800,
                ..Ring::default()
            };
            self.common(common::QUEUE_SELECT, Width::Two, queue.into());
            self.common(common::QUEUE_SIZE, Width::Two, SIZE.into());
            self.common(common::QUEUE_DESCRIPTORS, Width::Eight, ring.descriptors);
            self.common(common::QUEUE_DRIVER, Width::Eight, ring.available);
            self.common(common::QUEUE_DEVICE, Width::Eight, ring.used);
            self.common(common::QUEUE_ENABLE, Width::Two, 1);
            self.queues.push(ring);
        }
        self.common(common::STATUS, Width::One, 0b1111);
    }

    fn common(&mut self, offset: u32, width: Width, value: u64) {
        self.testbed
            .write(STRUCTURES, COMMON + offset, width, value);
    }

    fn config(&mut self, offset: u32, width: Width) -> u64 {
        self.testbed.value(STRUCTURES, CONFIG + offset, width)
    }

    fn needs_reset(&mut self) -> bool {
        let at = COMMON + common::STATUS;
        self.testbed.value(STRUCTURES, at, Width::One) & 64 != 0
    }

    fn put(&mut self, at: u64, bytes: &[u8]) {
        self.testbed
            .bus
            .bytes(at, bytes.len())
            .copy_from_slice(bytes);
    }

    fn get(&mut self, at: u64, length: usize) -> Vec<u8> {
        self.testbed.bus.bytes(at, length).to_vec()
    }

    /// Makes a chain available, without a doorbell. Its descriptors are the next ones of the queue.
    fn offer(&mut self, queue: u16, parts: &[Part]) {
        let ring = self.queues[usize::from(queue)];
        let head = ring.next;
        for (index, (at, length, write)) in (0u16..).zip(parts) {
            let this = (head + index) % SIZE;
            let last = usize::from(index) + 1 == parts.len();
            let flags = u16::from(*write) * descriptor::WRITE + u16::from(!last) * descriptor::NEXT;
            let mut entry = at.to_le_bytes().to_vec();
            entry.extend(length.to_le_bytes());
            entry.extend(flags.to_le_bytes());
            entry.extend(((this + 1) % SIZE).to_le_bytes());
            self.put(ring.descriptors + 16 * u64::from(this), &entry);
        }
        let slot = u64::from(ring.offered % SIZE);
        self.put(ring.available + 4 + 2 * slot, &head.to_le_bytes());
        let offered = ring.offered.wrapping_add(1);
        self.put(ring.available + 2, &offered.to_le_bytes());
        let parts = u16::try_from(parts.len()).unwrap();
        let ring = &mut self.queues[usize::from(queue)];
        ring.offered = offered;
        ring.next = (ring.next + parts) % SIZE;
    }

    fn notify(&mut self, queue: u16) {
        let at = NOTIFY + 4 * u32::from(queue);
        self.testbed.write(STRUCTURES, at, Width::Two, queue.into());
    }

    /// Offers a chain, rings, and lets the device work.
    fn submit(&mut self, queue: u16, parts: &[Part]) {
        self.offer(queue, parts);
        self.notify(queue);
        self.testbed.settle();
    }

    /// The length of the next used element of a queue, if there is one.
    fn used(&mut self, queue: u16) -> Option<u32> {
        let ring = self.queues[usize::from(queue)];
        let index = self.get(ring.used + 2, 2);
        if ring.seen.to_le_bytes() == index[..] {
            return None;
        }
        let slot = u64::from(ring.seen % SIZE);
        let element = self.get(ring.used + 4 + 8 * slot + 4, 4);
        self.queues[usize::from(queue)].seen = ring.seen.wrapping_add(1);
        Some(u32::from_le_bytes(element.try_into().unwrap()))
    }
}

/// Descriptors that are often right in part: address, length, flags, next.
fn descriptors() -> impl Strategy<Value = Vec<(u64, u32, u16, u16)>> {
    let address = prop_oneof![Just(DATA), Just(DATA + 0x800), any::<u64>()];
    let length = prop_oneof![
        Just(1),
        Just(8),
        Just(24),
        Just(44),
        Just(64),
        Just(2048),
        any::<u32>()
    ];
    let flags = prop_oneof![8 => 0u16..4, 1 => any::<u16>()];
    proptest::collection::vec((address, length, flags, 0u16..17), 16)
}

/// Puts such descriptors into every queue, makes some available, and lets the device work: it ends
/// whatever they say. `request` is what the readable buffers hold.
fn hostile_rings(
    device: impl Device + 'static,
    queues: u16,
    table: &[(u64, u32, u16, u16)],
    offered: u16,
    request: &[u8],
) {
    let mut driver = Driver::ready(device, queues);
    driver.put(DATA, request);
    for queue in 0..queues {
        let ring = driver.queues[usize::from(queue)];
        for (index, (at, length, flags, next)) in (0u64..).zip(table) {
            let mut entry = at.to_le_bytes().to_vec();
            entry.extend(length.to_le_bytes());
            entry.extend(flags.to_le_bytes());
            entry.extend(next.to_le_bytes());
            driver.put(ring.descriptors + 16 * index, &entry);
        }
        for slot in 0..SIZE {
            driver.put(
                ring.available + 4 + 2 * u64::from(slot),
                &slot.to_le_bytes(),
            );
        }
        driver.put(ring.available + 2, &offered.to_le_bytes());
        driver.notify(queue);
    }
    driver.testbed.settle();
    for ring in driver.queues.clone() {
        let used = driver.get(ring.used + 2, 2);
        assert!(u16::from_le_bytes([used[0], used[1]]) <= SIZE);
    }
}
