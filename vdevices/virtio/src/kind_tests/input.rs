//! The input device (virtio 1.2, 5.8).

use super::{CONFIG, DATA, Driver, STRUCTURES, descriptors, hostile_rings, readable, writable};
use crate::spec::input::{EVENT, STATUS, config, event, select};
use crate::{InputConfig, VirtioInput};
use cofferdam_seam::Width;
use proptest::prelude::*;

fn ready(strokes: u32) -> Driver {
    let config = InputConfig {
        strokes,
        ..InputConfig::default()
    };
    Driver::ready(VirtioInput::new(config), 2)
}

fn ask(driver: &mut Driver, select: u8, subsel: u8) -> Vec<u8> {
    for (at, value) in [(config::SELECT, select), (config::SUBSEL, subsel)] {
        let at = CONFIG + at;
        driver
            .testbed
            .write(STRUCTURES, at, Width::One, value.into());
    }
    let size = driver.config(config::SIZE, Width::One);
    let bytes = (0..u32::try_from(size).unwrap())
        .map(|at| driver.config(config::ANSWER + at, Width::One))
        .map(|byte| u8::try_from(byte).unwrap());
    bytes.collect()
}

/// The next event: type, code, value.
fn next(driver: &mut Driver) -> Option<(u16, u16, u32)> {
    driver.submit(EVENT, &[writable(DATA, 8)]);
    if driver.used(EVENT)? != 8 {
        return None;
    }
    let bytes = driver.get(DATA, 8);
    let kind = u16::from_le_bytes([bytes[0], bytes[1]]);
    let code = u16::from_le_bytes([bytes[2], bytes[3]]);
    let value = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
    Some((kind, code, value))
}

#[test]
fn name_is_selected() {
    let mut driver = ready(0);

    let name = ask(&mut driver, select::NAME, 0);

    assert_eq!(name, b"Cofferdam keyboard 0000000000000000");
    assert_eq!(ask(&mut driver, select::SERIAL, 0), b"1");
    assert_eq!(ask(&mut driver, select::DEVICE_IDS, 0).len(), 8);
}

#[test]
fn what_there_is_none_of_has_no_size() {
    let mut driver = ready(0);

    for (select, subsel) in [
        (0, 0),
        (select::NAME, 1),
        (0x12, 0),
        (0x11, 3),
        (0xff, 0xff),
    ] {
        assert_eq!(ask(&mut driver, select, subsel), []);
        assert_eq!(driver.config(config::ANSWER, Width::Eight), 0);
    }
}

#[test]
fn keys_are_struck_and_released_in_packets() {
    let mut driver = ready(2);

    let keys = ask(&mut driver, select::EVENT_BITS, 1);
    for _ in 0..2 {
        let (kind, code, value) = next(&mut driver).unwrap();
        assert_eq!((kind, value), (event::KEY, 1));
        assert_ne!(keys[usize::from(code / 8)] & 1 << (code % 8), 0);
        assert_eq!(next(&mut driver), Some((event::SYN, 0, 0)));
        assert_eq!(next(&mut driver), Some((event::KEY, code, 0)));
        assert_eq!(next(&mut driver), Some((event::SYN, 0, 0)));
    }

    assert_eq!(next(&mut driver), None);
    assert!(!driver.needs_reset());
}

#[test]
fn buffers_left_before_driver_ok_are_found_without_a_doorbell() {
    let mut driver = ready(1);
    driver.common(super::common::STATUS, Width::One, 0b1011);
    driver.offer(EVENT, &[writable(DATA, 8)]);
    driver.notify(EVENT);
    driver.testbed.settle();
    assert_eq!(driver.used(EVENT), None);

    driver.common(super::common::STATUS, Width::One, 0b1111);
    driver.testbed.settle();

    assert_eq!(driver.used(EVENT), Some(8));
}

#[test]
fn status_is_taken() {
    let mut driver = ready(0);

    driver.submit(STATUS, &[readable(DATA, 8)]);

    assert_eq!(driver.used(STATUS), Some(0));
}

#[test]
fn short_buffers_need_a_reset() {
    for (queue, part) in [(EVENT, writable(DATA, 7)), (STATUS, readable(DATA, 7))] {
        let mut driver = ready(1);
        driver.submit(queue, &[part]);
        assert!(driver.needs_reset());
    }
}

proptest! {
    #[test]
    fn hostile_rings_end(table in descriptors(), offered in 0u16..20) {
        let device = VirtioInput::new(InputConfig::default());
        hostile_rings(device, 2, &table, offered, &[1, 0, 2, 0, 3, 0, 0, 0]);
    }
}
