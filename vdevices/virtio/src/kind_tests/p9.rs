//! The 9P transport and its server.

use super::{DATA, Driver, descriptors, hostile_rings, readable, writable};
use crate::spec::p9::{errno, message};
use crate::{P9Config, Virtio9p};
use cofferdam_seam::Width;
use proptest::prelude::*;

const REPLY: u64 = 0x7000;

fn ready() -> Driver {
    Driver::ready(Virtio9p::new(P9Config::default()), 1)
}

/// A message with tag 5.
fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let size = u32::try_from(7 + body.len()).unwrap();
    let mut bytes = size.to_le_bytes().to_vec();
    bytes.extend([kind, 5, 0]);
    bytes.extend(body);
    bytes
}

/// Type and body of the reply.
fn ask(driver: &mut Driver, kind: u8, body: &[u8]) -> (u8, Vec<u8>) {
    let request = message(kind, body);
    driver.put(DATA, &request);
    driver.submit(0, &[readable(DATA, request.len()), writable(REPLY, 1024)]);
    let used = driver.used(0).expect("a reply");
    let reply = driver.get(REPLY, used.try_into().unwrap());
    assert_eq!(reply[..4], used.to_le_bytes());
    assert_eq!(reply[5..7], [5, 0]);
    (reply[4], reply[7..].to_vec())
}

/// Size and version, as in a version request.
fn version(most: u32, version: &str) -> Vec<u8> {
    let mut body = most.to_le_bytes().to_vec();
    body.extend(u16::try_from(version.len()).unwrap().to_le_bytes());
    body.extend(version.as_bytes());
    body
}

fn attach(fid: u8) -> Vec<u8> {
    let mut body = vec![fid, 0, 0, 0, 0xff, 0xff, 0xff, 0xff];
    body.extend([0; 8]);
    body
}

/// A walk from one file to another by one name.
fn walk(from: u8, to: u8, name: &str) -> Vec<u8> {
    let mut body = vec![from, 0, 0, 0, to, 0, 0, 0, 1, 0];
    body.extend(u16::try_from(name.len()).unwrap().to_le_bytes());
    body.extend(name.as_bytes());
    body
}

#[test]
fn mount_tag_is_in_the_configuration() {
    let mut driver = ready();

    assert_eq!(driver.config(0, Width::Two), 9);
    let tag: Vec<u64> = (2..11).map(|at| driver.config(at, Width::One)).collect();
    assert_eq!(tag, b"cofferdam".map(u64::from));
}

#[test]
fn file_is_found_and_read() {
    let mut driver = ready();

    let agreed = ask(
        &mut driver,
        message::TVERSION,
        &version(0x10000, "9P2000.L"),
    );
    assert_eq!(agreed, (101, version(8192, "9P2000.L")));
    let (kind, root) = ask(&mut driver, message::TATTACH, &attach(1));
    assert_eq!((kind, root[0]), (105, 0x80));
    let (kind, walked) = ask(&mut driver, message::TWALK, &walk(1, 2, "hello"));
    assert_eq!((kind, &walked[..3]), (111, &[1, 0, 0][..]));
    let (kind, _) = ask(&mut driver, message::TLOPEN, &[2, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(kind, 13);
    let (kind, attributes) = ask(&mut driver, message::TGETATTR, &[2, 0, 0, 0]);
    assert_eq!((kind, attributes.len()), (25, 153));
    let mut read = vec![2, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0];
    read.extend(4u32.to_le_bytes());
    let (kind, bytes) = ask(&mut driver, message::TREAD, &read);
    assert_eq!((kind, &bytes[..]), (117, &b"\x04\0\0\0from"[..]));
    let (kind, _) = ask(&mut driver, message::TCLUNK, &[2, 0, 0, 0]);
    assert_eq!(kind, 121);
}

#[test]
fn errors_are_numbers_of_linux() {
    let mut driver = ready();
    ask(&mut driver, message::TATTACH, &attach(1));
    ask(&mut driver, message::TWALK, &walk(1, 2, "hello"));

    for (kind, body, error) in [
        (message::TWALK, walk(1, 3, "nothing"), errno::ENOENT),
        (message::TWALK, walk(2, 3, "hello"), errno::ENOTDIR),
        (message::TWALK, walk(9, 3, "hello"), errno::EBADF),
        (message::TCLUNK, vec![9, 0, 0, 0], errno::EBADF),
        (message::TCLUNK, vec![9, 0], errno::EINVAL),
        (message::TLOPEN, vec![2, 0, 0, 0, 1, 0, 0, 0], errno::EROFS),
        (0xff, vec![], errno::EOPNOTSUPP),
    ] {
        let reply = ask(&mut driver, kind, &body);
        assert_eq!(reply, (message::RLERROR, error.to_le_bytes().to_vec()));
    }
    assert!(!driver.needs_reset());
}

#[test]
fn files_are_bounded() {
    let mut driver = ready();
    for fid in 0..32 {
        assert_eq!(ask(&mut driver, message::TATTACH, &attach(fid)).0, 105);
    }

    let (kind, body) = ask(&mut driver, message::TATTACH, &attach(32));

    assert_eq!((kind, body[0]), (message::RLERROR, 24));
}

#[test]
fn another_version_is_unknown() {
    let mut driver = ready();

    let (_, agreed) = ask(&mut driver, message::TVERSION, &version(100, "9P2000.u"));

    assert_eq!(agreed, version(100, "unknown"));
}

#[test]
fn request_that_cannot_be_answered_needs_a_reset() {
    for (request, reply) in [(6, 64), (7, 10), (9000, 64)] {
        let mut driver = ready();
        driver.submit(0, &[readable(DATA, request), writable(REPLY, reply)]);
        assert!(driver.needs_reset(), "{request} and {reply} bytes");
    }
}

#[test]
fn size_beyond_the_message_is_invalid() {
    let mut driver = ready();
    let mut request = message(message::TCLUNK, &[1, 0, 0, 0]);
    request[0] = 200;
    driver.put(DATA, &request);

    driver.submit(0, &[readable(DATA, request.len()), writable(REPLY, 64)]);

    assert_eq!(driver.used(0), Some(11));
    assert_eq!(driver.get(REPLY + 4, 4), [message::RLERROR, 5, 0, 22]);
}

proptest! {
    #[test]
    fn hostile_messages_end(kind in any::<u8>(), body in proptest::collection::vec(any::<u8>(), 0..64)) {
        let mut driver = ready();
        ask(&mut driver, message::TATTACH, &attach(0));
        for kind in [kind, message::TWALK, message::TREAD, message::TVERSION] {
            ask(&mut driver, kind, &body);
        }
        prop_assert!(!driver.needs_reset());
    }

    #[test]
    fn hostile_rings_end(table in descriptors(), offered in 0u16..20) {
        let device = Virtio9p::new(P9Config::default());
        hostile_rings(device, 1, &table, offered, &message(message::TVERSION, &version(99, "x")));
    }
}
