//! The GPU (virtio 1.2, 5.7).

use super::{DATA, Driver, descriptors, hostile_rings, readable, writable};
use crate::spec::gpu::{CONTROL, CURSOR, command};
use crate::{GpuConfig, VirtioGpu};
use cofferdam_seam::{Purpose, Width};
use proptest::prelude::*;

const RESPONSE: u64 = 0x7000;
const IMAGE: u64 = 0x9000;

fn ready() -> Driver {
    Driver::ready(VirtioGpu::new(GpuConfig::default()), 2)
}

/// A command with a fence, and its fields as words.
fn request(kind: u32, words: &[u32]) -> Vec<u8> {
    let header = [kind, 1, 0x55, 0, 0, 0];
    let words = header.iter().chain(words);
    words.flat_map(|word| word.to_le_bytes()).collect()
}

/// Kind and body of the response.
fn ask(driver: &mut Driver, kind: u32, words: &[u32]) -> (u32, Vec<u8>) {
    let request = request(kind, words);
    driver.put(DATA, &request);
    let parts = [readable(DATA, request.len()), writable(RESPONSE, 1100)];
    driver.submit(CONTROL, &parts);
    let used = driver.used(CONTROL).expect("a response");
    let response = driver.get(RESPONSE, used.try_into().unwrap());
    // The fence comes back.
    assert_eq!(response[4..16], [1, 0, 0, 0, 0x55, 0, 0, 0, 0, 0, 0, 0]);
    let kind = u32::from_le_bytes(response[..4].try_into().unwrap());
    (kind, response[24..].to_vec())
}

fn ok(driver: &mut Driver, kind: u32, words: &[u32]) {
    assert_eq!(ask(driver, kind, words), (command::OK_NODATA, vec![]));
}

/// A resource 5 of 8 by 4 pixels with backing memory.
fn with_resource() -> Driver {
    let mut driver = ready();
    ok(&mut driver, command::RESOURCE_CREATE_2D, &[5, 1, 8, 4]);
    let entry = [5, 1, 0x9000, 0, 128, 0];
    ok(&mut driver, command::RESOURCE_ATTACH_BACKING, &entry);
    driver
}

#[test]
fn one_display_is_enabled() {
    let mut driver = ready();

    let (kind, body) = ask(&mut driver, command::GET_DISPLAY_INFO, &[]);

    assert_eq!((kind, body.len()), (command::OK_DISPLAY_INFO, 384));
    assert_eq!(body[8..20], [64, 0, 0, 0, 48, 0, 0, 0, 1, 0, 0, 0]);
    assert!(body[24..].iter().all(|byte| *byte == 0));
    assert_eq!(driver.config(8, Width::Four), 1);
}

#[test]
fn edid_has_a_checksum_and_the_displays_size() {
    let mut driver = ready();

    let (kind, body) = ask(&mut driver, command::GET_EDID, &[0, 0]);

    assert_eq!((kind, body.len()), (command::OK_EDID, 1032));
    assert_eq!(body[..4], [128, 0, 0, 0]);
    let block = &body[8..136];
    assert_eq!(
        block.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)),
        0
    );
    assert_eq!((block[56], block[59]), (64, 48));
}

#[test]
fn image_is_read_from_its_backing() {
    let mut driver = with_resource();
    driver.testbed.bus.requests.clear();

    ok(
        &mut driver,
        command::TRANSFER_TO_HOST_2D,
        &[0, 0, 8, 4, 0, 0, 5, 0],
    );
    // Two pixels of lines 1 and 2.
    ok(
        &mut driver,
        command::TRANSFER_TO_HOST_2D,
        &[3, 1, 2, 2, 44, 0, 5, 0],
    );
    ok(&mut driver, command::SET_SCANOUT, &[0, 0, 8, 4, 0, 5]);
    ok(&mut driver, command::RESOURCE_FLUSH, &[0, 0, 8, 4, 5, 0]);

    let requests = driver.testbed.bus.requests.iter();
    let payload = requests.filter(|one| one.why == Purpose::Payload && !one.write);
    let read: Vec<(u64, usize)> = payload.map(|one| (one.at.0, one.len)).collect();
    assert_eq!(read, [(IMAGE, 128), (IMAGE + 44, 8), (IMAGE + 76, 8)]);
}

#[test]
fn commands_that_cannot_be_are_errors() {
    let (id, parameter) = (
        command::ERR_INVALID_RESOURCE_ID,
        command::ERR_INVALID_PARAMETER,
    );
    for (kind, words, error) in [
        (command::RESOURCE_CREATE_2D, &[0, 1, 8, 4][..], id),
        (command::RESOURCE_CREATE_2D, &[5, 1, 8, 4], id),
        (command::RESOURCE_CREATE_2D, &[6, 5, 8, 4], parameter),
        (command::RESOURCE_CREATE_2D, &[6, 1, 0, 4], parameter),
        (
            command::RESOURCE_CREATE_2D,
            &[6, 1, u32::MAX, u32::MAX],
            command::ERR_OUT_OF_MEMORY,
        ),
        (command::RESOURCE_UNREF, &[6, 0], id),
        (
            command::SET_SCANOUT,
            &[0, 0, 8, 4, 1, 5],
            command::ERR_INVALID_SCANOUT_ID,
        ),
        (command::SET_SCANOUT, &[1, 0, 8, 4, 0, 5], parameter),
        (command::SET_SCANOUT, &[u32::MAX, 0, 8, 4, 0, 5], parameter),
        (command::RESOURCE_FLUSH, &[0, 0, 8, 5, 5, 0], parameter),
        (command::RESOURCE_FLUSH, &[0, 0], parameter),
        (
            command::TRANSFER_TO_HOST_2D,
            &[0, 0, 8, 4, 1, 0, 5, 0],
            parameter,
        ),
        (
            command::TRANSFER_TO_HOST_2D,
            &[0, 0, 8, 4, u32::MAX, u32::MAX, 5, 0],
            parameter,
        ),
        (
            command::RESOURCE_ATTACH_BACKING,
            &[5, 1, 0, 0, 8, 0],
            command::ERR_UNSPEC,
        ),
        (
            command::RESOURCE_ATTACH_BACKING,
            &[5, 257, 0, 0, 8, 0],
            command::ERR_OUT_OF_MEMORY,
        ),
        (command::GET_EDID, &[1, 0], command::ERR_INVALID_SCANOUT_ID),
        (0x108, &[], command::ERR_UNSPEC),
    ] {
        let mut driver = with_resource();
        let (answer, body) = ask(&mut driver, kind, words);
        assert_eq!((answer, body), (error, vec![]), "{kind:#x} {words:x?}");
        assert!(!driver.needs_reset());
    }
}

#[test]
fn detached_backing_is_not_read() {
    let mut driver = with_resource();
    ok(&mut driver, command::RESOURCE_DETACH_BACKING, &[5, 0]);

    let (kind, _) = ask(
        &mut driver,
        command::TRANSFER_TO_HOST_2D,
        &[0, 0, 8, 4, 0, 0, 5, 0],
    );

    assert_eq!(kind, command::ERR_INVALID_PARAMETER);
}

#[test]
fn memory_is_bounded() {
    let mut driver = ready();
    let mut made = 0;
    for id in 1..100 {
        let words = [id, 1, 256, 256];
        if ask(&mut driver, command::RESOURCE_CREATE_2D, &words).0 == command::OK_NODATA {
            made += 1;
        }
    }
    assert_eq!(made, 4);

    ok(&mut driver, command::RESOURCE_UNREF, &[1, 0]);
    ok(&mut driver, command::RESOURCE_CREATE_2D, &[1, 1, 256, 256]);
}

#[test]
fn cursor_commands_are_taken_without_a_response() {
    let mut driver = with_resource();
    let request = request(command::UPDATE_CURSOR, &[0, 1, 1, 0, 5, 0, 0, 0]);
    driver.put(DATA, &request);

    driver.submit(CURSOR, &[readable(DATA, request.len())]);

    assert_eq!(driver.used(CURSOR), Some(0));
}

#[test]
fn command_without_room_for_a_response_needs_a_reset() {
    for (request, response) in [(23, 24), (24, 23)] {
        let mut driver = ready();
        let parts = [readable(DATA, request), writable(RESPONSE, response)];
        driver.submit(CONTROL, &parts);
        assert!(driver.needs_reset());
    }
}

proptest! {
    #[test]
    fn hostile_rings_end(table in descriptors(), offered in 0u16..20, kind in 0u32..0x10c) {
        let device = VirtioGpu::new(GpuConfig::default());
        hostile_rings(device, 2, &table, offered, &request(kind, &[5, 1, 8, 4, 0, 5]));
    }

    #[test]
    fn hostile_commands_end(
        kind in 0x100u32..0x10b,
        words in proptest::collection::vec(prop_oneof![0u32..9, any::<u32>()], 0..9),
    ) {
        let mut driver = with_resource();
        ask(&mut driver, kind, &words);
        prop_assert!(!driver.needs_reset());
    }
}
