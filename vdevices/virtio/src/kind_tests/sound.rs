//! The sound device (virtio 1.2, 5.14).

use super::{DATA, Driver, descriptors, hostile_rings, readable, writable};
use crate::spec::sound::{CONTROL, TRANSMIT, request, status};
use crate::{SoundConfig, VirtioSound};
use cofferdam_seam::{Time, Width};
use proptest::prelude::*;

const RESPONSE: u64 = 0x7000;
const STATUS: u64 = 0x7800;

/// 16-bit samples, two channels, 48 kHz: 192 bytes are a millisecond.
const PARAMETERS: [u32; 6] = [request::PCM_SET_PARAMS, 0, 384, 192, 0, 0x0007_0502];

fn ready() -> Driver {
    Driver::ready(VirtioSound::new(SoundConfig::default()), 4)
}

/// Status and body of the response.
fn ask(driver: &mut Driver, words: &[u32]) -> (u32, Vec<u8>) {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    driver.put(DATA, &bytes);
    driver.offer(
        CONTROL,
        &[readable(DATA, bytes.len()), writable(RESPONSE, 64)],
    );
    driver.notify(CONTROL);
    let now = driver.testbed.bus.now;
    driver.testbed.run_until(Time(now.0 + 20_000));
    let used = driver.used(CONTROL).expect("a response");
    let response = driver.get(RESPONSE, used.try_into().unwrap());
    let status = u32::from_le_bytes(response[..4].try_into().unwrap());
    (status, response[4..].to_vec())
}

fn all_ok(driver: &mut Driver, codes: &[u32]) {
    for code in codes {
        let words = if *code == request::PCM_SET_PARAMS {
            PARAMETERS.to_vec()
        } else {
            vec![*code, 0]
        };
        assert_eq!(ask(driver, &words), (status::OK, vec![]), "{code:#x}");
    }
}

/// Queues a millisecond of sound.
fn queue(driver: &mut Driver) {
    let parts = [readable(DATA + 0x800, 196), writable(STATUS, 8)];
    driver.offer(TRANSMIT, &parts);
    driver.notify(TRANSMIT);
}

fn played(driver: &mut Driver) -> Option<u32> {
    driver.used(TRANSMIT)?;
    let bytes = driver.get(STATUS, 4);
    Some(u32::from_le_bytes(bytes.try_into().unwrap()))
}

#[test]
fn one_of_each_is_in_the_configuration() {
    let mut driver = ready();

    let counts = [0, 4, 8].map(|at| driver.config(at, Width::Four));

    assert_eq!(counts, [1; 3]);
}

#[test]
fn items_have_the_layout_of_the_standard() {
    let mut driver = ready();

    let (code, jack) = ask(&mut driver, &[request::JACK_INFO, 0, 1, 24]);
    assert_eq!((code, jack.len(), jack[16]), (status::OK, 24, 1));
    let (code, stream) = ask(&mut driver, &[request::PCM_INFO, 0, 1, 32]);
    assert_eq!((code, stream.len()), (status::OK, 32));
    assert_eq!((stream[8], stream[16]), (1 << 5, 1 << 7));
    assert_eq!(stream[24..27], [0, 1, 2]);
    let (code, map) = ask(&mut driver, &[request::CHMAP_INFO, 0, 1, 24]);
    assert_eq!((code, &map[4..9]), (status::OK, &[0, 2, 3, 4, 0][..]));
}

#[test]
fn queries_that_cannot_be_are_bad_messages() {
    let mut driver = ready();
    for query in [
        [request::PCM_INFO, 1, 1, 32],
        [request::PCM_INFO, u32::MAX, 1, 32],
        [request::PCM_INFO, 0, 1, 31],
        [request::PCM_INFO, 0, 1, 61],
        [request::JACK_INFO, 0, 2, 24],
    ] {
        assert_eq!(ask(&mut driver, &query), (status::BAD_MSG, vec![]));
    }
    assert_eq!(ask(&mut driver, &[2, 0]), (status::NOT_SUPP, vec![]));
}

#[test]
fn sound_waits_for_the_start_and_takes_as_long_as_it_is_heard() {
    let mut driver = ready();
    all_ok(
        &mut driver,
        &[request::PCM_SET_PARAMS, request::PCM_PREPARE],
    );
    queue(&mut driver);
    queue(&mut driver);
    driver.testbed.settle();
    assert_eq!(played(&mut driver), None);

    all_ok(&mut driver, &[request::PCM_START]);
    let start = driver.testbed.bus.now.0;
    driver.testbed.run_until(Time(start + 999_999));
    assert_eq!(played(&mut driver), None);
    driver.testbed.run_until(Time(start + 1_000_000));
    assert_eq!(played(&mut driver), Some(status::OK));
    driver.testbed.run_until(Time(start + 2_000_000));
    assert_eq!(played(&mut driver), Some(status::OK));
}

#[test]
fn release_gives_back_what_is_queued_before_it_is_answered() {
    let mut driver = ready();
    let codes = [request::PCM_SET_PARAMS, request::PCM_PREPARE];
    all_ok(&mut driver, &codes);
    for _ in 0..3 {
        queue(&mut driver);
    }

    all_ok(&mut driver, &[request::PCM_RELEASE]);

    for _ in 0..3 {
        assert_eq!(played(&mut driver), Some(status::IO_ERR));
    }
    assert!(!driver.needs_reset());
}

#[test]
fn commands_out_of_order_are_bad_messages() {
    for before in [
        &[][..],
        &[request::PCM_SET_PARAMS],
        &[
            request::PCM_SET_PARAMS,
            request::PCM_PREPARE,
            request::PCM_START,
        ],
    ] {
        let mut driver = ready();
        all_ok(&mut driver, before);
        let wrong = if before.len() == 3 {
            request::PCM_RELEASE
        } else {
            request::PCM_STOP
        };
        assert_eq!(ask(&mut driver, &[wrong, 0]), (status::BAD_MSG, vec![]));
        assert_eq!(ask(&mut driver, &[wrong, 1]), (status::BAD_MSG, vec![]));
    }
}

#[test]
fn parameters_that_are_not_supported_are_refused() {
    for (word, value, error) in [
        (2, 383, status::BAD_MSG),
        (2, 0, status::BAD_MSG),
        (3, 0, status::BAD_MSG),
        (2, 192 << 16, status::NOT_SUPP),
        (4, 1, status::NOT_SUPP),
        (5, 0x0007_0503, status::NOT_SUPP),
        (5, 0x0006_0502, status::NOT_SUPP),
        (5, 0x0007_0402, status::NOT_SUPP),
    ] {
        let mut driver = ready();
        let mut words = PARAMETERS;
        words[word] = value;
        assert_eq!(ask(&mut driver, &words), (error, vec![]), "{word} {value}");
    }
}

#[test]
fn chain_without_room_needs_a_reset() {
    let mut driver = ready();
    driver.submit(CONTROL, &[readable(DATA, 8), writable(RESPONSE, 3)]);
    assert!(driver.needs_reset());

    let mut driver = ready();
    driver.submit(TRANSMIT, &[readable(DATA, 8), writable(RESPONSE, 7)]);
    assert!(driver.needs_reset());
}

proptest! {
    #[test]
    fn hostile_rings_end(table in descriptors(), offered in 0u16..20, state in 0usize..5) {
        let requests = [[1, 0, 1, 24], [0x101, 0, 4, 4], [0x102, 0, 0, 0], [0x103, 0, 0, 0], [0x104, 0, 0, 0]];
        let bytes: Vec<u8> = requests[state].iter().flat_map(|word: &u32| word.to_le_bytes()).collect();
        let device = VirtioSound::new(SoundConfig::default());
        hostile_rings(device, 4, &table, offered, &bytes);
    }
}
