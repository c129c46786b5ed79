//! The network device (virtio 1.2, 5.1).

use super::{DATA, Driver, common, descriptors, hostile_rings, readable, writable};
use crate::spec::net::{RECEIVE, TRANSMIT};
use crate::{NetConfig, VirtioNet};
use cofferdam_seam::Width;
use proptest::prelude::*;

const BUFFER: u64 = 0x7000;

fn ready() -> Driver {
    Driver::ready(VirtioNet::new(NetConfig::default()), 2)
}

/// Twelve bytes of header, then a frame from 01.. to 02.. with that payload.
fn framed(payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 12];
    bytes.extend([2; 6]);
    bytes.extend([1; 6]);
    bytes.extend([0x88, 0xb5]);
    bytes.extend(payload);
    bytes
}

fn send(driver: &mut Driver, bytes: &[u8]) {
    driver.put(DATA, bytes);
    driver.submit(TRANSMIT, &[readable(DATA, bytes.len())]);
    assert_eq!(driver.used(TRANSMIT), Some(0));
}

#[test]
fn address_and_link_are_in_the_configuration() {
    let mut driver = ready();

    let mac: Vec<u64> = (0..6).map(|at| driver.config(at, Width::One)).collect();

    assert_eq!(mac, [2, 0, 0, 0, 0, 1]);
    assert_eq!(driver.config(6, Width::Two), 1);
    assert_eq!(driver.config(8, Width::Four), 0);
}

#[test]
fn mac_and_status_are_offered() {
    let mut driver = ready();

    let offered = driver
        .testbed
        .value(super::STRUCTURES, common::DEVICE_FEATURE, Width::Four);

    assert_eq!(offered, 1 << 5 | 1 << 16 | 1 << 28);
}

#[test]
fn frame_comes_back_with_its_addresses_swapped() {
    let mut driver = ready();
    driver.offer(RECEIVE, &[writable(BUFFER, 1526)]);

    send(&mut driver, &framed(b"hello"));

    assert_eq!(driver.used(RECEIVE), Some(31));
    let mut expected = vec![0; 10];
    // num_buffers
    expected.extend([1, 0]);
    expected.extend([1; 6]);
    expected.extend([2; 6]);
    expected.extend([0x88, 0xb5]);
    expected.extend(b"hello");
    assert_eq!(driver.get(BUFFER, 31), expected);
}

#[test]
fn frame_waits_for_a_buffer() {
    let mut driver = ready();
    send(&mut driver, &framed(b"hello"));

    driver.submit(RECEIVE, &[writable(BUFFER, 1526)]);

    assert_eq!(driver.used(RECEIVE), Some(31));
}

#[test]
fn buffers_without_frames_stay_where_they_are() {
    let mut driver = ready();

    driver.submit(RECEIVE, &[writable(BUFFER, 1526)]);

    assert_eq!(driver.used(RECEIVE), None);
}

#[test]
fn frames_beyond_the_backlog_are_lost() {
    let mut driver = ready();
    for number in 0..20 {
        send(&mut driver, &framed(&[number]));
    }

    let mut received = Vec::new();
    for _ in 0..20 {
        driver.submit(RECEIVE, &[writable(BUFFER, 1526)]);
        if driver.used(RECEIVE).is_some() {
            received.push(driver.get(BUFFER + 26, 1)[0]);
        }
    }

    assert_eq!(received, (0..16).collect::<Vec<u8>>());
}

#[test]
fn odd_frames_are_lost() {
    let mut driver = ready();
    driver.offer(RECEIVE, &[writable(BUFFER, 1526)]);
    let mut checksummed = framed(b"sum");
    checksummed[0] = 1;

    for bytes in [&framed(&[])[..25], &framed(&[0; 1501]), &checksummed] {
        send(&mut driver, bytes);
    }

    assert_eq!(driver.used(RECEIVE), None);
    assert!(!driver.needs_reset());
}

#[test]
fn frame_without_a_header_needs_a_reset() {
    let mut driver = ready();

    driver.submit(TRANSMIT, &[readable(DATA, 11)]);

    assert!(driver.needs_reset());
}

#[test]
fn buffer_too_short_for_its_frame_needs_a_reset() {
    let mut driver = ready();
    driver.offer(RECEIVE, &[writable(BUFFER, 30)]);

    send(&mut driver, &framed(b"hello"));

    assert!(driver.needs_reset());
    assert_eq!(driver.used(RECEIVE), None);
}

#[test]
fn frames_on_the_wire_do_not_survive_a_reset() {
    let mut driver = ready();
    send(&mut driver, &framed(b"hello"));

    driver.common(common::STATUS, Width::One, 0);
    driver.probe(2);
    driver.submit(RECEIVE, &[writable(BUFFER, 1526)]);

    assert_eq!(driver.used(RECEIVE), None);
}

proptest! {
    #[test]
    fn hostile_rings_end(table in descriptors(), offered in 0u16..20) {
        let device = VirtioNet::new(NetConfig::default());
        hostile_rings(device, 2, &table, offered, &framed(&[7; 30]));
    }
}
