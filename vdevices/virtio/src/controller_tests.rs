//! The device as a driver sees it, through its registers and its queue.

use crate::identity::{COMMON, CONFIG, ISR, NOTIFY, STRUCTURES};
use crate::spec::{INDIRECT_DESC, descriptor, request};
use crate::{BlkConfig, VirtioBlk};
use cofferdam_seam::{Budget, Iova, Progress, Purpose, Time, Width};
use proptest::prelude::*;
use vdevice_pci::spec::{capability, command};
use vdevice_pci::testbed::{MESSAGES, Testbed};

const DESCRIPTORS: u64 = 0x1000;
const AVAILABLE: u64 = 0x2000;
const USED: u64 = 0x3000;
const HEADER: u64 = 0x4000;
const STATUS: u64 = 0x4800;
const DATA: u64 = 0x5000;
const TABLE: u64 = 0x7000;

/// Longer than a request takes.
const SOON: u64 = 21_000;

/// Offsets in the common configuration (virtio 1.2, 4.1.4.3).
mod common {
    pub const FEATURE_SELECT: u32 = 0x08;
    pub const FEATURE: u32 = 0x0c;
    pub const CONFIG_VECTOR: u32 = 0x10;
    pub const STATUS: u32 = 0x14;
    pub const QUEUE_SIZE: u32 = 0x18;
    pub const QUEUE_VECTOR: u32 = 0x1a;
    pub const QUEUE_ENABLE: u32 = 0x1c;
    pub const QUEUE_DESCRIPTORS: u32 = 0x20;
    pub const QUEUE_DRIVER: u32 = 0x28;
    pub const QUEUE_DEVICE: u32 = 0x30;
}

/// A driver that does exactly what a test says.
struct Driver {
    testbed: Testbed,
    available: u16,
    size: u16,
    /// What the driver accepts of the low 32 feature bits.
    features: u64,
}

impl Driver {
    /// A device that nobody has touched.
    fn before_probe() -> Self {
        let config = BlkConfig {
            sectors: 16,
            seed: 7,
            ..BlkConfig::default()
        };
        Self {
            testbed: Testbed::new(Box::new(VirtioBlk::new(config))),
            available: 0,
            size: 8,
            features: 0,
        }
    }

    /// A device ready for requests, with eight descriptors.
    fn ready() -> Self {
        let mut driver = Self::before_probe();
        driver.probe();
        driver
    }

    /// The initialisation of 3.1.1.
    fn probe(&mut self) {
        self.available = 0;
        self.testbed.bus.bytes(AVAILABLE, 4).fill(0);
        self.testbed.bus.bytes(USED, 4).fill(0);
        self.common(common::STATUS, Width::One, 3);
        self.common(common::FEATURE_SELECT, Width::Four, 0);
        self.common(common::FEATURE, Width::Four, self.features);
        self.common(common::FEATURE_SELECT, Width::Four, 1);
        self.common(common::FEATURE, Width::Four, 1);
        self.common(common::STATUS, Width::One, 0b1011);
        self.common(common::QUEUE_SIZE, Width::Two, self.size.into());
        self.common(common::CONFIG_VECTOR, Width::Two, 0);
        self.common(common::QUEUE_VECTOR, Width::Two, 1);
        self.common(common::QUEUE_DESCRIPTORS, Width::Four, DESCRIPTORS);
        self.common(common::QUEUE_DRIVER, Width::Four, AVAILABLE);
        self.common(common::QUEUE_DEVICE, Width::Eight, USED);
        self.common(common::QUEUE_ENABLE, Width::Two, 1);
        self.common(common::STATUS, Width::One, 0b1111);
    }

    fn common(&mut self, offset: u32, width: Width, value: u64) {
        self.testbed
            .write(STRUCTURES, COMMON + offset, width, value);
    }

    fn status(&mut self) -> u64 {
        self.testbed
            .value(STRUCTURES, COMMON + common::STATUS, Width::One)
    }

    fn needs_reset(&mut self) -> bool {
        self.status() & 64 != 0
    }

    fn describe(&mut self, index: u64, address: u64, length: u32, flags: u16, next: u16) {
        let entry = self.testbed.bus.bytes(DESCRIPTORS + 16 * index, 16);
        entry[..8].copy_from_slice(&address.to_le_bytes());
        entry[8..12].copy_from_slice(&length.to_le_bytes());
        entry[12..14].copy_from_slice(&flags.to_le_bytes());
        entry[14..].copy_from_slice(&next.to_le_bytes());
    }

    fn header(&mut self, kind: u32, sector: u64) {
        let header = self.testbed.bus.bytes(HEADER, 16);
        header[..4].copy_from_slice(&kind.to_le_bytes());
        header[4..8].fill(0);
        header[8..].copy_from_slice(&sector.to_le_bytes());
    }

    /// Descriptors 0 to 2: header, data, status.
    fn request(&mut self, kind: u32, sector: u64, length: u32) {
        self.header(kind, sector);
        let direction = match kind {
            request::OUT => 0,
            _ => descriptor::WRITE,
        };
        self.describe(0, HEADER, 16, descriptor::NEXT, 1);
        self.describe(1, DATA, length, descriptor::NEXT | direction, 2);
        self.describe(2, STATUS, 1, descriptor::WRITE, 0);
        self.testbed.bus.bytes(STATUS, 1)[0] = 0xee;
    }

    fn offer(&mut self, head: u16) {
        let slot = u64::from(self.available % self.size);
        self.available = self.available.wrapping_add(1);
        let index = self.available;
        let bus = &mut self.testbed.bus;
        bus.bytes(AVAILABLE + 4 + 2 * slot, 2)
            .copy_from_slice(&head.to_le_bytes());
        bus.bytes(AVAILABLE + 2, 2)
            .copy_from_slice(&index.to_le_bytes());
    }

    fn notify(&mut self) {
        self.testbed.write(STRUCTURES, NOTIFY, Width::Two, 0);
    }

    /// Offers descriptor 0 and lets the device work.
    fn submit(&mut self) {
        self.offer(0);
        self.notify();
        self.testbed.settle();
    }

    fn used_index(&mut self) -> u16 {
        let bytes = self.testbed.bus.bytes(USED + 2, 2);
        u16::from_le_bytes([bytes[0], bytes[1]])
    }

    /// Head and length of the used element in `slot`.
    fn used(&mut self, slot: u64) -> (u8, u16) {
        let bytes = self.testbed.bus.bytes(USED + 4 + 8 * slot, 8);
        (bytes[0], u16::from_le_bytes([bytes[4], bytes[5]]))
    }

    fn result(&mut self) -> u8 {
        self.testbed.bus.bytes(STATUS, 1)[0]
    }

    fn data(&mut self, length: usize) -> &mut [u8] {
        self.testbed.bus.bytes(DATA, length)
    }

    fn write_sector(&mut self, sector: u64, fill: u8) {
        self.data(512).fill(fill);
        self.request(request::OUT, sector, 512);
        self.submit();
        assert_eq!(self.result(), 0);
    }

    fn read_sector(&mut self, sector: u64) -> Vec<u8> {
        self.data(512).fill(0xcc);
        self.request(request::IN, sector, 512);
        self.submit();
        assert_eq!(self.result(), 0);
        self.data(512).to_vec()
    }

    fn purposes(&self) -> Vec<(Purpose, bool, usize)> {
        let requests = self.testbed.bus.requests.iter();
        requests.map(|r| (r.why, r.write, r.len)).collect()
    }
}

#[test]
fn vendor_capabilities_have_the_bytes_of_the_standard() {
    let mut driver = Driver::before_probe();
    let start = driver.testbed.capability(capability::VENDOR);
    assert_eq!(start, 0x4c);

    let bytes: Vec<u8> = (start..start + 68)
        .map(|at| driver.testbed.function.config_read(at, Width::One))
        .map(|byte| byte.to_le_bytes()[0])
        .collect();

    #[rustfmt::skip]
    let expected = [
        // common configuration, BAR 4 at 0
        0x09, 0x5c, 0x10, 0x01, 0x04, 0, 0, 0, 0x00, 0x00, 0, 0, 0x00, 0x10, 0, 0,
        // notifications, BAR 4 at 0x3000, multiplier 4
        0x09, 0x70, 0x14, 0x02, 0x04, 0, 0, 0, 0x00, 0x30, 0, 0, 0x00, 0x10, 0, 0, 4, 0, 0, 0,
        // interrupt status, BAR 4 at 0x1000
        0x09, 0x80, 0x10, 0x03, 0x04, 0, 0, 0, 0x00, 0x10, 0, 0, 0x00, 0x10, 0, 0,
        // device configuration, BAR 4 at 0x2000
        0x09, 0x90, 0x10, 0x04, 0x04, 0, 0, 0, 0x00, 0x20, 0, 0, 0x00, 0x10, 0, 0,
    ];
    assert_eq!(bytes, expected);
}

#[test]
fn identity_is_that_of_a_modern_block_device() {
    let mut driver = Driver::before_probe();

    let ids = driver.testbed.function.config_read(0, Width::Four);
    let revision = driver.testbed.function.config_read(8, Width::One);

    assert_eq!(ids, 0x1042_1af4);
    assert_eq!(revision, 1);
}

#[test]
fn capacity_is_readable_at_every_width() {
    let mut driver = Driver::before_probe();

    let widths = [Width::One, Width::Two, Width::Four, Width::Eight];
    let values = widths.map(|width| driver.testbed.value(STRUCTURES, CONFIG, width));
    let beyond = driver.testbed.value(STRUCTURES, CONFIG + 8, Width::Four);

    assert_eq!(values, [16; 4]);
    assert_eq!(beyond, 0);
}

#[test]
fn addresses_read_back_as_two_halves_and_as_one() {
    let mut driver = Driver::before_probe();
    let at = COMMON + common::QUEUE_DRIVER;

    driver.common(common::QUEUE_DRIVER, Width::Four, 0x5566_7788);
    driver.common(common::QUEUE_DRIVER + 4, Width::Four, 0x1122_3344);

    let whole = driver.testbed.value(STRUCTURES, at, Width::Eight);
    let high = driver.testbed.value(STRUCTURES, at + 4, Width::Four);
    assert_eq!(whole, 0x1122_3344_5566_7788);
    assert_eq!(high, 0x1122_3344);
}

#[test]
fn access_of_the_wrong_width_reads_zero_and_writes_nothing() {
    let mut driver = Driver::ready();

    driver.common(common::STATUS, Width::Four, 0);
    let wide = driver
        .testbed
        .value(STRUCTURES, COMMON + common::STATUS, Width::Four);

    assert_eq!(wide, 0);
    assert_eq!(driver.status(), 0b1111);
}

#[test]
fn written_sector_reads_back() {
    let mut driver = Driver::ready();

    driver.write_sector(3, 0x5a);

    assert_eq!(driver.read_sector(3), [0x5a; 512]);
    assert_eq!(driver.read_sector(2), [0; 512]);
    assert_eq!(driver.used_index(), 3);
}

#[test]
fn read_returns_data_and_status_in_the_used_length() {
    let mut driver = Driver::ready();

    driver.read_sector(15);

    assert_eq!(driver.used(0), (0, 513));
}

#[test]
fn write_returns_only_the_status_in_the_used_length() {
    let mut driver = Driver::ready();

    driver.write_sector(15, 1);

    assert_eq!(driver.used(0), (0, 1));
}

#[test]
fn every_dma_tells_its_purpose_in_the_order_of_the_standard() {
    let mut driver = Driver::ready();
    driver.request(request::IN, 0, 512);
    driver.offer(0);
    driver.notify();
    driver.testbed.bus.requests.clear();

    driver.testbed.settle();

    use Purpose::*;
    let expected = [
        (Descriptor, false, 2),  // head
        (Descriptor, false, 16), // descriptors
        (Descriptor, false, 16),
        (Descriptor, false, 16),
        (Descriptor, false, 16), // request header
        (Payload, true, 512),
        (Status, true, 1),
        (Completion, true, 8),  // used element
        (Publish, true, 2),     // used index
        (Descriptor, false, 2), // available flags
        (Descriptor, false, 2), // available index
    ];
    assert_eq!(driver.purposes(), expected);
}

#[test]
fn nothing_happens_before_the_latency_has_passed() {
    let mut driver = Driver::ready();
    driver.request(request::IN, 0, 512);
    driver.offer(0);
    driver.notify();

    driver.testbed.run_until(Time(19_999));
    let progress = driver
        .testbed
        .function
        .step(Budget(8), &mut driver.testbed.bus);

    assert_eq!(progress, Progress::Idle);
    assert_eq!(driver.result(), 0xee);
    driver.testbed.run_until(Time(20_000));
    assert_eq!(driver.result(), 0);
}

#[test]
fn requests_are_served_one_after_the_other() {
    let mut driver = Driver::ready();
    driver.request(request::IN, 0, 512);
    driver.offer(0);
    driver.offer(0);
    driver.notify();

    driver.testbed.run_until(Time(39_999));
    assert_eq!(driver.used_index(), 1);
    driver.testbed.run_until(Time(40_000));

    assert_eq!(driver.used_index(), 2);
}

#[test]
fn request_offered_while_another_runs_takes_its_own_time() {
    let mut driver = Driver::ready();
    driver.request(request::IN, 0, 512);
    driver.submit();
    driver.testbed.run_until(Time(39_000));
    driver.offer(0);
    driver.notify();

    driver.testbed.run_until(Time(58_999));
    assert_eq!(driver.used_index(), 1);
    driver.testbed.run_until(Time(59_000));

    assert_eq!(driver.used_index(), 2);
}

#[test]
fn doorbell_while_a_request_runs_does_not_delay_it() {
    let mut driver = Driver::ready();
    driver.request(request::IN, 0, 512);
    driver.offer(0);
    driver.notify();
    driver.testbed.run_until(Time(19_000));

    driver.notify();
    driver.testbed.run_until(Time(20_000));

    assert_eq!(driver.used_index(), 1);
}

#[test]
fn request_in_flight_is_dropped_when_driver_ok_is_cleared() {
    let mut driver = Driver::ready();
    driver.request(request::IN, 0, 512);
    driver.offer(0);
    driver.notify();
    driver.testbed.bus.requests.clear();

    driver.common(common::STATUS, Width::One, 0b1011);
    driver.testbed.settle();

    assert!(driver.testbed.bus.requests.is_empty());
    assert_eq!(driver.used_index(), 0);
}

#[test]
fn budget_limits_the_requests_of_a_step() {
    let config = BlkConfig {
        sectors: 16,
        latency: core::time::Duration::ZERO,
        seed: 0,
        indirect: false,
    };
    let mut driver = Driver {
        testbed: Testbed::new(Box::new(VirtioBlk::new(config))),
        available: 0,
        size: 8,
        features: 0,
    };
    driver.probe();
    driver.request(request::IN, 0, 512);
    for _ in 0..3 {
        driver.offer(0);
    }
    driver.notify();

    let mut step = |budget| {
        let testbed = &mut driver.testbed;
        testbed.function.step(Budget(budget), &mut testbed.bus)
    };

    assert_eq!(step(0), Progress::More);
    assert_eq!(step(2), Progress::More);
    assert_eq!(step(2), Progress::Idle);
    assert_eq!(driver.used_index(), 3);
}

#[test]
fn rings_wrap_around() {
    let mut driver = Driver::ready();

    for _ in 0..20 {
        driver.request(request::IN, 0, 512);
        driver.submit();
        assert_eq!(driver.result(), 0);
    }

    assert_eq!(driver.used_index(), 20);
    assert!(!driver.needs_reset());
}

#[test]
fn doorbell_before_driver_ok_is_ignored() {
    let mut driver = Driver::ready();
    driver.common(common::STATUS, Width::One, 0b1011);
    driver.request(request::IN, 0, 512);

    driver.submit();

    assert_eq!(driver.used_index(), 0);
    assert!(driver.testbed.bus.requests.is_empty());
}

#[test]
fn doorbell_without_accepted_features_is_ignored() {
    let mut driver = Driver::before_probe();
    driver.common(common::QUEUE_ENABLE, Width::Two, 1);
    driver.common(common::STATUS, Width::One, 0b1111);

    driver.submit();

    assert!(driver.testbed.bus.requests.is_empty());
}

#[test]
fn doorbell_of_another_queue_is_ignored() {
    let mut driver = Driver::ready();
    driver.request(request::IN, 0, 512);
    driver.offer(0);

    driver.testbed.write(STRUCTURES, NOTIFY, Width::Two, 1);
    driver.testbed.write(STRUCTURES, NOTIFY + 4, Width::Two, 0);

    assert!(driver.testbed.bus.requests.is_empty());
}

#[test]
fn identifier_is_the_disks_own() {
    let mut driver = Driver::ready();
    driver.request(request::GET_ID, 0, 20);

    driver.submit();

    assert_eq!(driver.result(), 0);
    assert_eq!(driver.data(20), b"cfd0000000000000007\0");
    assert_eq!(driver.used(0), (0, 21));
}

#[test]
fn unknown_request_is_unsupported() {
    let mut driver = Driver::ready();
    for kind in [4, 9, 11, 13, u32::MAX] {
        driver.request(kind, 0, 512);

        driver.submit();

        assert_eq!(driver.result(), 2);
    }
    assert!(!driver.needs_reset());
}

#[test]
fn range_beyond_the_disk_is_an_io_error() {
    let mut driver = Driver::ready();
    for (kind, sector, length) in [
        (request::IN, 16, 512),
        (request::IN, 15, 1024),
        (request::OUT, 16, 512),
        (request::OUT, u64::MAX, 512),
        (request::IN, u64::MAX / 512, 512),
        (request::IN, 0, 511),
        (request::OUT, 0, 513),
    ] {
        driver.request(kind, sector, length);

        driver.submit();

        assert_eq!(driver.result(), 1, "{kind} at {sector}, {length} bytes");
    }
    assert!(!driver.needs_reset());
}

#[test]
fn framing_does_not_matter() {
    let mut driver = Driver::ready();
    let mut content: Vec<u8> = (0..=255).collect();
    content.extend_from_within(..);
    driver.data(512).copy_from_slice(&content);
    driver.header(request::OUT, 1);
    let next = descriptor::NEXT;
    // Header in two parts, the second with the first data; the rest of the data in two.
    driver
        .testbed
        .bus
        .memory
        .copy_within(0x5000..0x5064, 0x4010);
    driver.describe(5, HEADER, 10, next, 3);
    driver.describe(3, HEADER + 10, 6 + 100, next, 0);
    driver.describe(0, DATA + 100, 0, next, 7);
    driver.describe(7, DATA + 100, 300, next, 6);
    driver.describe(6, DATA + 400, 112, next, 2);
    driver.describe(2, STATUS, 1, descriptor::WRITE, 0);
    driver.offer(5);
    driver.notify();
    driver.testbed.settle();

    // Read it back with the status in the same descriptor as the data.
    driver.header(request::IN, 1);
    driver.describe(0, HEADER, 16, next, 1);
    driver.describe(1, DATA, 513, descriptor::WRITE, 0);
    driver.data(513).fill(0xcc);
    driver.submit();

    assert_eq!(driver.used(1), (0, 513));
    assert_eq!(driver.data(512), content);
    assert_eq!(driver.data(513)[512], 0);
}

#[test]
fn refused_payload_is_an_io_error_and_changes_no_sector() {
    let mut driver = Driver::ready();
    driver.write_sector(1, 0x11);
    // Two sectors, of which the second cannot be read.
    driver.data(1024).fill(0x22);
    driver.header(request::OUT, 0);
    driver.describe(0, HEADER, 16, descriptor::NEXT, 1);
    driver.describe(1, DATA, 512, descriptor::NEXT, 3);
    driver.describe(3, DATA + 512, 512, descriptor::NEXT, 2);
    driver.testbed.bus.refused.push(DATA + 512..DATA + 1024);

    driver.submit();

    assert_eq!(driver.result(), 1);
    assert!(!driver.needs_reset());
    assert_eq!(driver.read_sector(0), [0; 512]);
    assert_eq!(driver.read_sector(1), [0x11; 512]);
}

#[test]
fn refused_read_buffer_is_an_io_error() {
    let mut driver = Driver::ready();
    driver.request(request::IN, 0, 512);
    driver.testbed.bus.refused.push(DATA..DATA + 1);

    driver.submit();

    assert_eq!(driver.result(), 1);
    assert_eq!(driver.used(0), (0, 0));
    assert!(!driver.needs_reset());
}

#[test]
fn refused_status_or_ring_needs_a_reset() {
    for refused in [
        DESCRIPTORS,
        AVAILABLE + 4,
        HEADER,
        STATUS,
        USED + 4,
        USED + 2,
    ] {
        let mut driver = Driver::ready();
        driver.request(request::IN, 0, 512);
        driver.testbed.bus.refused.push(refused..refused + 1);

        driver.submit();

        assert!(driver.needs_reset(), "{refused:#x}");
        assert_eq!(driver.used_index(), 0);
    }
}

#[test]
fn without_bus_mastering_the_device_needs_a_reset() {
    let mut driver = Driver::ready();
    driver.testbed.set_command(command::MEMORY);

    driver.submit();

    assert!(driver.needs_reset());
}

/// Chains a device must not follow, and what is wrong with them.
fn broken_chain(what: &str) -> Driver {
    let mut driver = Driver::ready();
    driver.request(request::IN, 0, 512);
    // What lies behind the table would do as the end of a chain.
    driver.describe(8, STATUS, 1, descriptor::WRITE, 0);
    let (next, write) = (descriptor::NEXT, descriptor::WRITE);
    match what {
        "loops" => driver.describe(2, STATUS, 1, write | next, 1),
        "points to itself" => driver.describe(0, HEADER, 16, next, 0),
        "leaves the queue" => driver.describe(1, DATA, 512, write | next, 8),
        "is indirect" => driver.describe(0, HEADER, 16, descriptor::INDIRECT, 0),
        "is readable after writable" => driver.describe(2, STATUS, 1, 0, 0),
        "has a short header" => driver.describe(0, HEADER, 15, next, 1),
        "has no status" => driver.describe(0, HEADER, 16, 0, 0),
        "has an empty status" => driver.describe(0, HEADER, 16, next, 2),
        other => panic!("no chain {other}"),
    }
    if what == "has an empty status" {
        driver.describe(2, STATUS, 0, write, 0);
    }
    driver
}

#[test]
fn broken_chain_needs_a_reset_and_stops_the_device() {
    for what in [
        "loops",
        "points to itself",
        "leaves the queue",
        "is indirect",
        "is readable after writable",
        "has a short header",
        "has no status",
        "has an empty status",
    ] {
        let mut driver = broken_chain(what);
        driver.submit();
        assert!(driver.needs_reset(), "a chain that {what}");
        let before = driver.testbed.bus.requests.len();

        driver.submit();

        assert_eq!(driver.testbed.bus.requests.len(), before, "{what}");
        assert_eq!(driver.used_index(), 0, "{what}");
    }
}

/// A driver that negotiated indirect descriptors. Its header is in descriptor 0; descriptor 1
/// refers to `entries` of a table at `TABLE`: data and status.
fn indirect(entries: u32) -> Driver {
    let mut driver = Driver::before_probe();
    driver.features = INDIRECT_DESC;
    driver.probe();
    driver.request(request::IN, 3, 512);
    for (at, from) in [(TABLE, 1), (TABLE + 16, 2)] {
        let entry = driver
            .testbed
            .bus
            .bytes(DESCRIPTORS + 16 * from, 16)
            .to_vec();
        driver.testbed.bus.bytes(at, 16).copy_from_slice(&entry);
    }
    // In the table the status is entry 1.
    driver
        .testbed
        .bus
        .bytes(TABLE + 14, 2)
        .copy_from_slice(&[1, 0]);
    driver.describe(1, TABLE, 16 * entries, descriptor::INDIRECT, 0);
    driver
}

#[test]
fn chain_goes_on_in_an_indirect_table() {
    let mut driver = indirect(2);
    driver.data(512).fill(0xcc);

    driver.submit();

    assert_eq!((driver.result(), driver.used_index()), (0, 1));
    assert_eq!(driver.used(0), (0, 513));
    assert!(driver.data(512).iter().all(|byte| *byte == 0));
}

#[test]
fn table_may_be_as_long_as_the_queue() {
    let mut driver = indirect(2);
    driver.common(common::STATUS, Width::One, 0);
    driver.size = 2;
    driver.probe();
    // A header and a status: a read of no sectors.
    driver.describe(0, HEADER, 16, descriptor::NEXT, 1);
    driver.describe(1, STATUS, 1, descriptor::WRITE, 0);
    let table = driver.testbed.bus.bytes(DESCRIPTORS, 32).to_vec();
    driver.testbed.bus.bytes(TABLE, 32).copy_from_slice(&table);
    driver.describe(0, TABLE, 32, descriptor::INDIRECT, 0);
    driver.header(request::IN, 0);

    driver.submit();

    assert_eq!((driver.result(), driver.used_index()), (0, 1));
}

#[test]
fn table_marked_writable_is_read_all_the_same() {
    let mut driver = indirect(2);
    driver.describe(1, TABLE, 32, descriptor::INDIRECT | descriptor::WRITE, 0);

    driver.submit();

    assert_eq!((driver.result(), driver.used_index()), (0, 1));
}

#[test]
fn broken_table_needs_a_reset() {
    let chained = descriptor::INDIRECT | descriptor::NEXT;
    for (what, address, length, flags) in [
        ("is empty", TABLE, 0, descriptor::INDIRECT),
        ("ends inside a descriptor", TABLE, 40, descriptor::INDIRECT),
        ("is shorter than its chain", TABLE, 16, descriptor::INDIRECT),
        ("is chained on", TABLE, 32, chained),
        ("cannot be reached", u64::MAX - 64, 32, descriptor::INDIRECT),
    ] {
        let mut driver = indirect(2);
        driver.describe(1, address, length, flags, 2);
        driver.submit();
        assert!(driver.needs_reset(), "a table that {what}");
    }
}

#[test]
fn table_within_a_table_needs_a_reset() {
    let mut driver = indirect(2);
    let inner = descriptor::INDIRECT.to_le_bytes();
    driver
        .testbed
        .bus
        .bytes(TABLE + 12, 2)
        .copy_from_slice(&inner);

    driver.submit();

    assert!(driver.needs_reset());
}

#[test]
fn loop_in_a_table_is_noticed() {
    let mut driver = indirect(2);
    driver
        .testbed
        .bus
        .bytes(TABLE + 14, 2)
        .copy_from_slice(&[0, 0]);

    driver.submit();

    assert!(driver.needs_reset());
}

#[test]
fn loop_is_noticed_after_as_many_descriptors_as_the_queue_has() {
    let mut driver = broken_chain("loops");

    driver.submit();

    let read = driver.purposes();
    let descriptors = read.iter().filter(|(_, _, len)| *len == 16);
    assert_eq!(descriptors.count(), 8);
}

#[test]
fn head_beyond_the_queue_needs_a_reset() {
    let mut driver = Driver::ready();
    driver.request(request::IN, 0, 512);
    driver.describe(8, HEADER, 16, descriptor::NEXT, 1);
    driver.offer(8);

    driver.notify();
    driver.testbed.settle();

    assert!(driver.needs_reset());
}

#[test]
fn more_chains_than_descriptors_need_a_reset() {
    let mut driver = Driver::ready();
    driver.request(request::IN, 0, 512);
    for _ in 0..9 {
        driver.offer(0);
    }

    driver.notify();

    assert!(driver.needs_reset());
}

#[test]
fn misaligned_ring_needs_a_reset() {
    for register in [
        common::QUEUE_DESCRIPTORS,
        common::QUEUE_DRIVER,
        common::QUEUE_DEVICE,
    ] {
        let mut driver = Driver::before_probe();
        driver.common(register, Width::Four, 0x1001);

        driver.common(common::QUEUE_ENABLE, Width::Two, 1);

        assert!(driver.needs_reset());
    }
}

#[test]
fn protocol_error_is_announced_as_a_configuration_change() {
    let mut driver = broken_chain("loops");
    driver.testbed.enable_msix();

    driver.submit();

    assert_eq!(driver.testbed.bus.messages, [(Iova(MESSAGES), 0)]);
    assert_eq!(driver.testbed.value(STRUCTURES, ISR, Width::One), 2);
}

#[test]
fn driver_cannot_clear_needs_reset_but_by_a_reset() {
    let mut driver = broken_chain("loops");
    driver.submit();

    driver.common(common::STATUS, Width::One, 0b1111);
    assert!(driver.needs_reset());
    driver.common(common::STATUS, Width::One, 0);
    assert_eq!(driver.status(), 0);
    driver.probe();

    driver.write_sector(0, 9);
}

#[test]
fn used_chain_sends_the_queues_vector() {
    let mut driver = Driver::ready();
    driver.testbed.enable_msix();

    driver.write_sector(0, 1);

    assert_eq!(driver.testbed.bus.messages, [(Iova(MESSAGES), 1)]);
    assert!(!driver.testbed.function.intx_level());
}

#[test]
fn queue_without_a_vector_sends_nothing() {
    let mut driver = Driver::ready();
    driver.testbed.enable_msix();
    driver.common(common::QUEUE_VECTOR, Width::Two, 0xffff);

    driver.write_sector(0, 1);

    assert!(driver.testbed.bus.messages.is_empty());
}

#[test]
fn without_msix_the_pin_is_held_until_the_interrupt_status_is_read() {
    let mut driver = Driver::ready();

    driver.write_sector(0, 1);

    assert!(driver.testbed.function.intx_level());
    assert_eq!(driver.testbed.value(STRUCTURES, ISR, Width::One), 1);
    assert!(!driver.testbed.function.intx_level());
    assert_eq!(driver.testbed.value(STRUCTURES, ISR, Width::One), 0);
}

#[test]
fn driver_that_wants_no_interrupt_gets_none() {
    let mut driver = Driver::ready();
    driver.testbed.enable_msix();
    driver.testbed.bus.bytes(AVAILABLE, 1)[0] = 1;

    driver.write_sector(0, 1);

    assert!(driver.testbed.bus.messages.is_empty());
    assert_eq!(driver.testbed.value(STRUCTURES, ISR, Width::One), 0);
}

#[test]
fn request_in_flight_is_dropped_by_a_status_reset() {
    let mut driver = Driver::ready();
    driver.data(512).fill(0x77);
    driver.request(request::OUT, 0, 512);
    driver.offer(0);
    driver.notify();

    driver.common(common::STATUS, Width::One, 0);
    driver.testbed.bus.requests.clear();
    driver.testbed.run_until(Time(SOON));

    assert!(driver.testbed.bus.requests.is_empty());
    driver.probe();
    assert_eq!(driver.read_sector(0), [0; 512]);
}

#[test]
fn disk_survives_resets_and_registers_do_not() {
    let mut driver = Driver::ready();
    driver.write_sector(4, 0x44);

    driver.testbed.function_level_reset();
    assert_eq!(driver.status(), 0);
    driver.probe();
    assert_eq!(driver.read_sector(4), [0x44; 512]);
    driver.common(common::STATUS, Width::One, 0);
    driver.probe();

    assert_eq!(driver.read_sector(4), [0x44; 512]);
}

#[test]
fn function_level_reset_drops_the_request_in_flight() {
    let mut driver = Driver::ready();
    driver.data(512).fill(0x77);
    driver.request(request::OUT, 0, 512);
    driver.offer(0);
    driver.notify();
    let before = driver.testbed.bus.requests.len();

    driver.testbed.function_level_reset();
    driver.testbed.run_until(Time(SOON));

    assert_eq!(driver.testbed.bus.requests.len(), before);
}

#[test]
fn status_reset_releases_the_pin() {
    let mut driver = Driver::ready();
    driver.write_sector(0, 1);

    driver.common(common::STATUS, Width::One, 0);

    assert!(!driver.testbed.function.intx_level());
}

#[test]
fn oversized_disk_is_cut_down() {
    let config = BlkConfig {
        sectors: u64::MAX,
        ..BlkConfig::default()
    };
    let mut testbed = Testbed::new(Box::new(VirtioBlk::new(config)));

    let capacity = testbed.value(STRUCTURES, CONFIG, Width::Eight);

    assert_eq!(capacity, crate::MAX_SECTORS);
}

/// Descriptors that are often right in part.
fn descriptor_strategy() -> impl Strategy<Value = (u64, u32, u16, u16)> {
    let address = prop_oneof![Just(HEADER), Just(DATA), Just(DESCRIPTORS), any::<u64>()];
    let length = prop_oneof![Just(1), Just(16), Just(512), Just(513), any::<u32>()];
    let flags = prop_oneof![8 => 0u16..4, 1 => any::<u16>()];
    (address, length, flags, 0u16..9)
}

proptest! {
    /// Whatever lies in the rings, the device ends.
    #[test]
    fn hostile_rings_end(
        table in proptest::collection::vec(descriptor_strategy(), 8),
        ring in proptest::collection::vec(0u8..10, 20),
        kind in 0u32..12,
        offered in 0u16..12,
    ) {
        let mut driver = Driver::ready();
        driver.header(kind, 0);
        for (index, (address, length, flags, next)) in (0..).zip(table) {
            driver.describe(index, address, length, flags, next);
        }
        driver.testbed.bus.bytes(AVAILABLE + 4, 20).copy_from_slice(&ring);
        driver.testbed.bus.bytes(AVAILABLE + 2, 2).copy_from_slice(&offered.to_le_bytes());

        driver.notify();
        driver.testbed.settle();

        prop_assert!(driver.used_index() <= 8);
    }

    /// Whatever is written to the registers, the device ends and answers.
    #[test]
    fn hostile_registers_end(
        writes in proptest::collection::vec((0u32..0x1000, 0u8..4, any::<u64>()), 0..64),
    ) {
        let mut driver = Driver::ready();
        driver.request(request::OUT, 0, 512);
        driver.offer(0);
        for (offset, log2, value) in writes {
            let width = Width::from_bytes(1 << log2).unwrap();
            // Mostly the common configuration, at times anything else.
            let page = [COMMON, COMMON, COMMON, NOTIFY][(value % 4) as usize];
            let offset = (offset % 0x40) & !(width.bytes() - 1);
            driver.testbed.write(STRUCTURES, page + offset, width, value);
            let _ = driver.testbed.read(STRUCTURES, page + offset, width);
        }

        driver.notify();
        driver.testbed.settle();

        let status = driver.status();
        prop_assert_eq!(status & 0b0011_0000, 0);
    }
}
