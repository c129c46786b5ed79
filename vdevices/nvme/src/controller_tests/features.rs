//! Get Features and Set Features.

use super::*;

fn get(id: u32, select: u32, dword11: u32) -> Command {
    let namespace = u32::from(id == 5);
    let mut command = command(0x0a, namespace);
    command.dwords[0].set(id | select << 8);
    command.dwords[1].set(dword11);
    command
}

fn set(id: u32, dword11: u32) -> Command {
    let namespace = u32::from(id == 5);
    let mut command = command(0x09, namespace);
    command.dwords[0].set(id);
    command.dwords[1].set(dword11);
    command
}

#[test]
fn features_that_are_set_read_back_and_defaults_stay() {
    for (id, value, default) in [
        (0x01, 0x0102_0304, 0),
        (0x04, 0x0000_0150, 343),
        (0x04, 0x0010_0100, 0),
        (0x05, 0x0000_0012, 0),
        (0x08, 0x0000_0a05, 0),
        (0x09, 0x0001_0003, 3),
        (0x0a, 0x0000_0001, 0),
        (0x0b, 0x0000_00ff, 0),
    ] {
        let mut driver = Driver::enabled();
        let selector = value & 0x0010_0003;
        assert_eq!(
            driver.admin(get(id, 0, selector)),
            (Status::SUCCESS, default)
        );

        assert_eq!(driver.admin(set(id, value)), (Status::SUCCESS, 0), "{id}");

        // The selector of a threshold is no part of its value.
        let expected = if id == 4 { value & 0xffff } else { value };
        assert_eq!(
            driver.admin(get(id, 0, selector)),
            (Status::SUCCESS, expected)
        );
        for select in [1, 2] {
            let answer = driver.admin(get(id, select, selector));
            assert_eq!(answer, (Status::SUCCESS, default), "{id}");
        }
    }
}

#[test]
fn reserved_bits_are_dropped() {
    let mut driver = Driver::enabled();

    driver.admin(set(1, 0xffff_ffff));
    driver.admin(set(0x0b, 0xffff_ffff));

    assert_eq!(driver.admin(get(1, 0, 0)).1, 0xffff_ff07);
    assert_eq!(driver.admin(get(0x0b, 0, 0)).1, 0xff);
}

#[test]
fn capabilities_of_features_are_told() {
    let mut driver = Driver::enabled();

    assert_eq!(driver.admin(get(1, 3, 0)), (Status::SUCCESS, 4));
    assert_eq!(driver.admin(get(5, 3, 0)), (Status::SUCCESS, 6));
    assert_eq!(driver.admin(get(1, 4, 0)).0, Status::INVALID_FIELD);
}

#[test]
fn features_that_are_not_there_are_refused() {
    let mut driver = Driver::enabled();

    // LBA ranges, volatile write cache (there is none), autonomous power states, host buffer.
    for id in [0x00, 0x03, 0x06, 0x0c, 0x0d, 0xff] {
        assert_eq!(driver.admin(get(id, 0, 0)).0, Status::INVALID_FIELD);
        assert_eq!(driver.admin(set(id, 0)).0, Status::INVALID_FIELD);
    }
}

#[test]
fn values_that_cannot_be_are_refused() {
    let mut driver = Driver::enabled();
    let mut run = |command| driver.admin(command).0;

    assert_eq!(run(set(0x02, 1)), Status::INVALID_FIELD);
    assert_eq!(run(set(0x04, 0x0001_0100)), Status::INVALID_FIELD);
    assert_eq!(run(set(0x04, 0x0020_0100)), Status::INVALID_FIELD);
    assert_eq!(run(get(0x04, 0, 0x000f_0000)), Status::INVALID_FIELD);
    assert_eq!(run(set(0x05, 1 << 16)), Status::INVALID_FIELD);
    assert_eq!(run(set(0x07, 0xffff_0001)), Status::INVALID_FIELD);
    assert_eq!(run(set(0x07, 0x0001_ffff)), Status::INVALID_FIELD);
    assert_eq!(run(set(0x09, 5)), Status::INVALID_FIELD);
    assert_eq!(run(get(0x09, 0, 5)), Status::INVALID_FIELD);
}

#[test]
fn number_of_queues_is_granted_before_any_is_created() {
    let mut driver = Driver::enabled();

    assert_eq!(driver.admin(set(7, 0)), (Status::SUCCESS, 0x0003_0003));
    assert_eq!(driver.admin(set(7, 0x00fe_00fe)).1, 0x0003_0003);
    assert_eq!(driver.admin(get(7, 0, 0)).1, 0x0003_0003);
    driver.create_pair(1);

    assert_eq!(driver.admin(set(7, 0)).0, Status::COMMAND_SEQUENCE);
}

#[test]
fn nothing_can_be_saved() {
    let mut driver = Driver::enabled();
    let mut save = set(1, 0);
    save.dwords[0].set(1 | 1 << 31);

    let answer = driver.admin(save);

    assert_eq!(answer.0, Status::FEATURE_NOT_SAVEABLE);
}

#[test]
fn features_belong_to_the_controller_or_to_the_namespace() {
    let mut driver = Driver::enabled();
    let mut run = |mut command: Command, namespace| {
        command.namespace.set(namespace);
        driver.admin(command).0
    };

    assert_eq!(run(set(1, 0), 1), Status::FEATURE_NOT_NAMESPACE_SPECIFIC);
    assert_eq!(run(set(1, 0), 2), Status::INVALID_NAMESPACE);
    assert_eq!(run(set(1, 0), 0xffff_ffff), Status::SUCCESS);
    assert_eq!(run(set(5, 0), 0), Status::INVALID_NAMESPACE);
    assert_eq!(run(set(5, 0), 0xffff_ffff), Status::SUCCESS);
    assert_eq!(run(get(5, 0, 0), 0xffff_ffff), Status::INVALID_NAMESPACE);
}

#[test]
fn temperature_beyond_a_threshold_is_a_warning_and_an_event() {
    for threshold in [0x0000_0136, 0x0010_0136] {
        let mut driver = Driver::enabled();
        driver.submit(0, command(0x0c, 0));
        driver.testbed.settle();
        assert_eq!(driver.admin(set(0x0b, 0xff)).0, Status::SUCCESS);

        driver.submit(0, set(4, threshold));
        driver.testbed.settle();

        assert_eq!(driver.reap(0).unwrap().id.get(), 0x5509);
        assert_eq!(driver.reap(0).unwrap().result.get(), 0x0002_0101);
        let mut health = command(0x02, 0);
        health.dwords[0].set(2);
        assert_eq!(driver.admin(health).0, Status::SUCCESS);
        assert_eq!(driver.data(1), [2]);
    }
}

#[test]
fn warning_the_host_does_not_want_is_no_event() {
    let mut driver = Driver::enabled();
    driver.submit(0, command(0x0c, 0));
    driver.testbed.settle();

    assert_eq!(driver.admin(set(4, 0x0136)).0, Status::SUCCESS);

    assert!(driver.peek(0).is_none());
}
