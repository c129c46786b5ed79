//! The console (virtio 1.2, 5.3).

use super::{CONFIG, DATA, Driver, STRUCTURES, descriptors, hostile_rings, readable, writable};
use crate::spec::console::{RECEIVE, TRANSMIT, config};
use crate::{ConsoleConfig, VirtioConsole};
use cofferdam_seam::Width;
use proptest::prelude::*;

const BUFFER: u64 = 0x7000;

fn ready() -> Driver {
    Driver::ready(VirtioConsole::new(ConsoleConfig::default()), 2)
}

#[test]
fn size_is_in_the_configuration() {
    let mut driver = ready();

    assert_eq!(driver.config(config::COLUMNS, Width::Two), 80);
    assert_eq!(driver.config(config::ROWS, Width::Two), 25);
    assert_eq!(driver.config(config::PORTS, Width::Four), 1);
}

#[test]
fn output_is_echoed_in_pieces_as_long_as_the_buffers() {
    let mut driver = ready();
    driver.offer(RECEIVE, &[writable(BUFFER, 3)]);
    driver.offer(RECEIVE, &[writable(BUFFER + 16, 16)]);
    driver.put(DATA, b"hello");

    driver.submit(TRANSMIT, &[readable(DATA, 2), readable(DATA + 2, 3)]);

    assert_eq!(driver.used(TRANSMIT), Some(0));
    assert_eq!(driver.used(RECEIVE), Some(3));
    assert_eq!(driver.used(RECEIVE), Some(2));
    assert_eq!(driver.get(BUFFER, 3), b"hel");
    assert_eq!(driver.get(BUFFER + 16, 2), b"lo");
}

#[test]
fn emergency_output_needs_no_queue() {
    let mut driver = ready();
    let at = CONFIG + config::EMERG_WR;
    driver
        .testbed
        .write(STRUCTURES, at, Width::Four, b'!'.into());

    driver.submit(RECEIVE, &[writable(BUFFER, 16)]);

    assert_eq!(driver.used(RECEIVE), Some(1));
    assert_eq!(driver.get(BUFFER, 1), b"!");
}

#[test]
fn output_beyond_the_backlog_is_not_echoed() {
    let mut driver = ready();
    for _ in 0..3 {
        driver.submit(TRANSMIT, &[readable(DATA, 2000)]);
    }

    driver.submit(RECEIVE, &[writable(BUFFER, 6000)]);

    assert_eq!(driver.used(RECEIVE), Some(4096));
}

#[test]
fn buffer_without_room_needs_a_reset() {
    let mut driver = ready();
    driver.submit(TRANSMIT, &[readable(DATA, 1)]);

    driver.submit(RECEIVE, &[readable(BUFFER, 16)]);

    assert!(driver.needs_reset());
}

proptest! {
    #[test]
    fn hostile_rings_end(table in descriptors(), offered in 0u16..20) {
        let device = VirtioConsole::new(ConsoleConfig::default());
        hostile_rings(device, 2, &table, offered, b"hello");
    }
}
