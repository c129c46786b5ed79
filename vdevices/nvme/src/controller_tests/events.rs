//! Asynchronous events of doorbells that were written wrongly.

use super::*;

fn request(id: u16) -> Command {
    let mut request = command(0x0c, 0);
    request.id.set(id);
    request
}

/// Get Log Page of the error log, one dword.
fn read_errors(retain: bool) -> Command {
    let mut read = command(0x02, 0);
    read.dwords[0].set(1 | u32::from(retain) << 15);
    read
}

fn waiting() -> Driver {
    let mut driver = Driver::ready();
    for id in 1..=2 {
        driver.submit(0, request(id));
    }
    driver.testbed.settle();
    assert!(driver.peek(0).is_none());
    driver
}

#[test]
fn doorbell_of_a_queue_that_does_not_exist_is_an_event() {
    let rings: [fn(&mut Driver); 4] = [
        |driver| driver.ring_sq(2, 1),
        |driver| driver.ring_cq(2, 1),
        |driver| driver.ring_sq(5, 1),
        |driver| driver.ring_cq(99, 1),
    ];
    for ring in rings {
        let mut driver = waiting();

        ring(&mut driver);

        let told = driver.reap(0).unwrap();
        assert_eq!((told.id.get(), told.result.get()), (1, 0x0001_0000));
        assert_eq!(Status::of(told.status.get()), Status::SUCCESS);
    }
}

#[test]
fn doorbell_value_that_cannot_be_is_an_event() {
    let rings: [fn(&mut Driver); 3] = [
        |driver| driver.ring_sq(1, ENTRIES),
        |driver| driver.ring_cq(1, ENTRIES),
        // Nothing was posted.
        |driver| driver.ring_cq(1, 1),
    ];
    for ring in rings {
        let mut driver = waiting();

        ring(&mut driver);

        assert_eq!(driver.reap(0).unwrap().result.get(), 0x0001_0100);
    }
}

#[test]
fn doorbell_that_overfills_a_queue_is_an_event_and_stops_the_queue() {
    let mut driver = waiting();
    for _ in 0..7 {
        driver.place(1, transfer(READ, 0, 1));
    }
    driver.ring_sq(1, 7);
    driver.testbed.bus.requests.clear();

    driver.ring_sq(1, 0);
    driver.testbed.settle();

    assert_eq!(driver.reap(0).unwrap().result.get(), 0x0001_0100);
    assert!(driver.take(1).is_none());
}

#[test]
fn event_is_masked_until_its_log_is_read() {
    let mut driver = waiting();
    driver.ring_sq(9, 1);
    assert_eq!(driver.reap(0).unwrap().id.get(), 1);

    driver.ring_sq(9, 1);
    assert!(driver.peek(0).is_none());
    assert_eq!(driver.admin(read_errors(true)).0, Status::SUCCESS);
    driver.ring_sq(9, 1);
    assert!(driver.peek(0).is_none());
    assert_eq!(driver.admin(read_errors(false)).0, Status::SUCCESS);
    driver.ring_sq(9, 1);

    assert_eq!(driver.reap(0).unwrap().id.get(), 2);
}

#[test]
fn event_waits_for_a_request() {
    let mut driver = Driver::ready();
    driver.ring_sq(9, 1);
    assert!(driver.peek(0).is_none());

    driver.submit(0, request(3));
    driver.testbed.settle();

    let told = driver.reap(0).unwrap();
    assert_eq!((told.id.get(), told.result.get()), (3, 0x0001_0000));
}

#[test]
fn event_waits_for_room_in_the_completion_queue() {
    let mut driver = waiting();
    for _ in 0..ENTRIES - 1 {
        driver.submit(0, command(0x18, 0));
        driver.testbed.settle();
    }
    driver.ring_sq(9, 1);
    for _ in 0..ENTRIES - 1 {
        assert_eq!(driver.take(0).unwrap().id.get(), 0x5518);
    }
    assert!(driver.peek(0).is_none());

    driver.ring_cq(0, driver.pairs[0].head);

    assert_eq!(driver.take(0).unwrap().id.get(), 1);
}

#[test]
fn event_interrupts_by_the_admin_vector() {
    let mut driver = waiting();
    driver.testbed.enable_msix();

    driver.ring_sq(9, 1);

    let vectors: Vec<u32> = driver.testbed.bus.messages.iter().map(|m| m.1).collect();
    assert_eq!(vectors, [0]);
}

#[test]
fn requests_beyond_the_limit_are_refused() {
    let mut driver = Driver::enabled();
    for id in 0..4 {
        driver.submit(0, request(id));
    }
    driver.testbed.settle();

    let answer = driver.admin(request(4));

    assert_eq!(answer.0, Status::EVENT_REQUEST_LIMIT);
}

#[test]
fn reset_forgets_requests_and_events() {
    let mut driver = waiting();
    driver.ring_sq(9, 1);
    driver.ring_sq(9, 1);

    driver.set(register::CC, 0);
    driver.enable();
    driver.submit(0, request(7));
    driver.testbed.settle();

    assert!(driver.peek(0).is_none());
}

#[test]
fn wrong_doorbell_is_in_the_error_log() {
    let mut driver = Driver::enabled();
    driver.ring_sq(9, 1);
    let mut read = read_errors(false);
    read.dwords[0].set(1 | 3 << 16);

    assert_eq!(driver.admin(read).0, Status::SUCCESS);

    let log = driver.data(16).to_vec();
    assert_eq!(
        log,
        [1, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0xff, 0xff, 0, 0, 0xff, 0xff]
    );
}
