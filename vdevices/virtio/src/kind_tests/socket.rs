//! The socket device (virtio 1.2, 5.10).

use super::{DATA, Driver, descriptors, hostile_rings, readable, writable};
use crate::spec::socket::{Header, RECEIVE, SHUTDOWN_BOTH, TRANSMIT, op};
use crate::{SocketConfig, VirtioSocket};
use cofferdam_seam::Width;
use proptest::prelude::*;
use zerocopy::{FromBytes, IntoBytes};

const BUFFER: u64 = 0x7000;

fn ready() -> Driver {
    Driver::ready(VirtioSocket::new(SocketConfig::default()), 3)
}

/// A packet of the driver's from port 100 to port 7.
fn header(op: u16, length: u32) -> Header {
    Header {
        src_cid: 3.into(),
        dst_cid: 2.into(),
        src_port: 100.into(),
        dst_port: 7.into(),
        length: length.into(),
        kind: 1.into(),
        op: op.into(),
        flags: SHUTDOWN_BOTH.into(),
        buf_alloc: 64.into(),
        fwd_cnt: 0.into(),
    }
}

fn send(driver: &mut Driver, header: Header, bytes: &[u8]) {
    driver.put(DATA, header.as_bytes());
    driver.put(DATA + 44, bytes);
    driver.submit(
        TRANSMIT,
        &[readable(DATA, 44), readable(DATA + 44, bytes.len())],
    );
}

/// The next packet to the driver: its operation and data.
fn receive(driver: &mut Driver) -> Option<(u16, Vec<u8>)> {
    driver.submit(RECEIVE, &[writable(BUFFER, 100)]);
    let used = usize::try_from(driver.used(RECEIVE)?).unwrap();
    let bytes = driver.get(BUFFER, used);
    let (header, data) = Header::read_from_prefix(&bytes).unwrap();
    assert_eq!((header.src_cid.get(), header.dst_cid.get()), (2, 3));
    assert_eq!((header.src_port.get(), header.dst_port.get()), (7, 100));
    assert_eq!(header.length.get() as usize, data.len());
    Some((header.op.get(), data.to_vec()))
}

fn connected() -> Driver {
    let mut driver = ready();
    send(&mut driver, header(op::REQUEST, 0), &[]);
    assert_eq!(receive(&mut driver), Some((op::RESPONSE, vec![])));
    driver
}

#[test]
fn context_is_in_the_configuration() {
    let mut driver = ready();

    assert_eq!(driver.config(0, Width::Four), 3);
    assert_eq!(driver.config(4, Width::Four), 0);
}

#[test]
fn bytes_are_sent_back() {
    let mut driver = connected();

    send(&mut driver, header(op::RW, 5), b"hello");

    assert_eq!(receive(&mut driver), Some((op::RW, b"hello".to_vec())));
}

#[test]
fn no_more_is_sent_than_there_is_credit_for() {
    let mut driver = connected();
    send(&mut driver, header(op::RW, 100), &[7; 100]);
    // A buffer has room for 56 bytes of data, the driver's socket for 64.
    assert_eq!(receive(&mut driver), Some((op::RW, vec![7; 56])));
    assert_eq!(receive(&mut driver), Some((op::RW, vec![7; 8])));
    driver.submit(RECEIVE, &[writable(BUFFER, 100)]);
    assert_eq!(driver.used(RECEIVE), None);

    let update = Header {
        fwd_cnt: 64.into(),
        ..header(op::CREDIT_UPDATE, 0)
    };
    send(&mut driver, update, &[]);

    assert_eq!(driver.used(RECEIVE), Some(44 + 36));
}

#[test]
fn credit_is_told_when_asked_for() {
    let mut driver = connected();

    send(&mut driver, header(op::CREDIT_REQUEST, 0), &[]);

    assert_eq!(receive(&mut driver), Some((op::CREDIT_UPDATE, vec![])));
}

#[test]
fn more_than_the_credit_ends_the_connection() {
    let mut driver = connected();
    let header = Header {
        buf_alloc: 0.into(),
        ..header(op::RW, 2048)
    };
    for _ in 0..3 {
        send(&mut driver, header, &[0; 2048]);
    }

    assert_eq!(receive(&mut driver), Some((op::RST, vec![])));
}

#[test]
fn what_belongs_to_no_connection_is_refused() {
    for op in [
        op::RESPONSE,
        op::SHUTDOWN,
        op::RW,
        op::CREDIT_REQUEST,
        0,
        99,
    ] {
        let mut driver = ready();
        send(&mut driver, header(op, 0), &[]);
        assert_eq!(receive(&mut driver), Some((op::RST, vec![])), "{op}");
    }
    let mut driver = ready();
    let elsewhere = Header {
        dst_cid: 9.into(),
        ..header(op::REQUEST, 0)
    };
    send(&mut driver, elsewhere, &[]);
    assert_eq!(receive(&mut driver), Some((op::RST, vec![])));
}

#[test]
fn shutdown_of_both_directions_is_answered() {
    let mut driver = connected();

    send(&mut driver, header(op::SHUTDOWN, 0), &[]);

    assert_eq!(receive(&mut driver), Some((op::RST, vec![])));
}

#[test]
fn driver_that_takes_no_answers_is_not_listened_to() {
    let mut driver = connected();
    let mut taken = 0;
    for _ in 0..80 {
        send(&mut driver, header(op::CREDIT_REQUEST, 0), &[]);
        if driver.used(TRANSMIT).is_none() {
            break;
        }
        taken += 1;
    }
    // One was the request for the connection.
    assert_eq!(taken, 65);

    assert_eq!(receive(&mut driver), Some((op::CREDIT_UPDATE, vec![])));

    assert_eq!(driver.used(TRANSMIT), Some(0));
}

#[test]
fn packet_shorter_than_it_says_needs_a_reset() {
    let mut driver = connected();

    send(&mut driver, header(op::RW, 6), b"hello");

    assert!(driver.needs_reset());
}

proptest! {
    #[test]
    fn hostile_rings_end(table in descriptors(), offered in 0u16..20, op in 0u16..9) {
        let device = VirtioSocket::new(SocketConfig::default());
        hostile_rings(device, 3, &table, offered, header(op, 3).as_bytes());
    }
}
