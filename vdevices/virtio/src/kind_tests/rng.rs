//! The entropy device (virtio 1.2, 5.4).

use super::{DATA, Driver, descriptors, hostile_rings, readable, writable};
use crate::{RngConfig, VirtioRng};
use proptest::prelude::*;

fn ready(seed: u64) -> Driver {
    let config = RngConfig {
        seed,
        ..RngConfig::default()
    };
    Driver::ready(VirtioRng::new(config), 1)
}

/// The first bytes of a device's stream.
fn first(seed: u64) -> Vec<u8> {
    let mut driver = ready(seed);
    driver.submit(0, &[writable(DATA, 33)]);
    assert_eq!(driver.used(0), Some(33));
    driver.get(DATA, 33)
}

#[test]
fn bytes_depend_on_the_seed_alone() {
    assert_eq!(first(1), first(1));
    assert_ne!(first(1), first(2));
}

#[test]
fn stream_goes_on_after_a_reset() {
    let mut driver = ready(1);
    driver.submit(0, &[writable(DATA, 33)]);
    let before = driver.get(DATA, 33);

    driver.common(super::common::STATUS, cofferdam_seam::Width::One, 0);
    driver.probe(1);
    driver.submit(0, &[writable(DATA, 33)]);

    assert_ne!(driver.get(DATA, 33), before);
}

#[test]
fn long_buffer_is_filled_in_part() {
    let mut driver = ready(1);

    driver.submit(0, &[writable(DATA, 6000)]);

    assert_eq!(driver.used(0), Some(4096));
}

#[test]
fn buffer_that_cannot_be_written_needs_a_reset() {
    let mut driver = ready(1);

    driver.submit(0, &[readable(DATA, 8)]);

    assert!(driver.needs_reset());
    assert_eq!(driver.used(0), None);
}

proptest! {
    #[test]
    fn hostile_rings_end(table in descriptors(), offered in 0u16..20) {
        hostile_rings(VirtioRng::new(RngConfig::default()), 1, &table, offered, &[]);
    }
}
