//! Admin commands that have no file of their own.

use super::*;

#[test]
fn unknown_opcodes_are_refused() {
    let mut driver = Driver::ready();

    // Keep Alive, Namespace Management, Format NVM, vendor specific.
    for opcode in [0x18, 0x0d, 0x80, 0xff] {
        let answer = driver.admin(command(opcode, 0));
        assert_eq!(answer.0, Status::INVALID_OPCODE, "{opcode:#x}");
    }
    // Write Uncorrectable, Verify.
    for opcode in [0x04, 0x0c] {
        let answer = driver.io(command(opcode, 1));
        assert_eq!(answer, Status::INVALID_OPCODE, "{opcode:#x}");
    }
}

#[test]
fn fused_commands_and_scatter_gather_lists_are_refused() {
    let mut driver = Driver::ready();

    for flags in [0x01, 0x02, 0x40, 0x80] {
        let mut identify = command(0x06, 1);
        identify.flags = flags;
        assert_eq!(driver.admin(identify).0, Status::INVALID_FIELD);
        let mut read = transfer(READ, 0, 1);
        read.flags = flags;
        assert_eq!(driver.io(read), Status::INVALID_FIELD);
    }
}

#[test]
fn errors_say_whether_a_retry_helps_and_that_the_log_tells_more() {
    let mut driver = Driver::ready();

    driver.submit(1, transfer(READ, 64, 1));
    driver.testbed.settle();
    let status = driver.reap(1).unwrap().status.get();

    assert_eq!(status & 0xc000, 0xc000);
}

#[test]
fn admin_commands_take_no_time() {
    let mut driver = Driver::enabled();
    let before = driver.testbed.bus.now;

    assert_eq!(driver.admin(command(0x06, 1)).0, Status::SUCCESS);

    assert_eq!(driver.testbed.bus.now, before);
}

fn abort(queue: u16, id: u16) -> Command {
    let mut abort = command(0x08, 0);
    abort.dwords[0].set(u32::from(queue) | u32::from(id) << 16);
    abort
}

#[test]
fn abort_of_what_is_not_under_way_aborts_nothing() {
    let mut driver = Driver::ready();
    driver.submit(1, transfer(READ, 0, 1));

    assert_eq!(driver.admin(abort(1, 0x5502)), (Status::SUCCESS, 1));
    assert_eq!(driver.admin(abort(0, 0x1234)), (Status::SUCCESS, 1));

    driver.testbed.settle();
    let read = driver.take(1).expect("the command completes all the same");
    assert_eq!(Status::of(read.status.get()), Status::SUCCESS);
}

#[test]
fn aborted_event_request_completes_before_the_abort() {
    let mut driver = Driver::enabled();
    let request = command(0x0c, 0);
    driver.submit(0, request);
    driver.testbed.settle();
    assert!(driver.peek(0).is_none());

    driver.submit(0, abort(0, request.id.get()));
    driver.testbed.settle();

    let aborted = driver.reap(0).unwrap();
    assert_eq!(aborted.id, request.id);
    assert_eq!(Status::of(aborted.status.get()), Status::ABORT_REQUESTED);
    let done = driver.reap(0).unwrap();
    assert_eq!((done.id.get(), done.result.get()), (0x5508, 0));
    // Nothing is left to abort.
    assert_eq!(driver.admin(abort(0, request.id.get())).1, 1);
}

fn log_page(id: u8, dwords: u32, offset: u64) -> Command {
    let mut command = command(0x02, 0xffff_ffff);
    let less_one = dwords - 1;
    command.dwords[0].set(u32::from(id) | less_one << 16);
    command.dwords[1].set(less_one >> 16);
    let [a, b, c, d, e, f, g, h] = offset.to_le_bytes();
    command.dwords[2].set(u32::from_le_bytes([a, b, c, d]));
    command.dwords[3].set(u32::from_le_bytes([e, f, g, h]));
    command
}

#[test]
fn error_log_has_the_newest_failure_first() {
    let mut driver = Driver::ready();
    driver.io(transfer(READ, 64, 1));
    driver.io(transfer(WRITE, 1000, 2));

    let answer = driver.admin(log_page(1, 64, 0));

    assert_eq!(answer.0, Status::SUCCESS);
    let log = driver.data(256).to_vec();
    // Count 2, queue 1, the command's identifier, LBA Out of Range with DNR and M, LBA 1000, NSID 1.
    assert_eq!(
        log[..16],
        [2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0x55, 0, 0xc1, 0xff, 0xff]
    );
    assert_eq!(log[16..28], [0xe8, 3, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
    assert_eq!((log[64], log[80]), (1, 64));
    assert_eq!(log[128..], [0; 128]);
}

#[test]
fn health_log_counts_what_was_done() {
    let mut driver = Driver::ready();
    driver.fill(0, 1);
    driver.block(0);
    driver.block(0);
    driver.io(transfer(READ, 64, 1));

    assert_eq!(driver.admin(log_page(2, 128, 0)).0, Status::SUCCESS);

    let log = driver.data(512).to_vec();
    // No warning, 310 K, all spare left.
    assert_eq!(log[..6], [0, 0x36, 0x01, 100, 10, 0]);
    // Thousands of blocks rounded up; commands; power cycles; errors.
    assert_eq!((log[32], log[48], log[64], log[80]), (1, 1, 2, 1));
    assert_eq!((log[112], log[176]), (1, 1));
}

#[test]
fn firmware_log_has_one_slot() {
    let mut driver = Driver::enabled();

    assert_eq!(driver.admin(log_page(3, 128, 0)).0, Status::SUCCESS);

    assert_eq!(
        driver.data(24),
        *b"\x01\0\0\0\0\0\0\x001.0     \0\0\0\0\0\0\0\0"
    );
}

#[test]
fn effects_log_names_the_commands() {
    let mut driver = Driver::enabled();

    assert_eq!(driver.admin(log_page(5, 1024, 0)).0, Status::SUCCESS);

    let log = driver.data(4096).to_vec();
    assert_eq!(log[4 * 0x06], 1);
    assert_eq!(log[4 * 0x18], 0);
    assert_eq!(log[1024 + 4], 3);
    assert_eq!(log[1024 + 4 * 0x02], 1);
    assert_eq!(log[1024 + 4 * 0x04], 0);
}

#[test]
fn log_page_can_be_read_from_an_offset() {
    let mut driver = Driver::enabled();
    driver.data(32).fill(0xee);

    assert_eq!(driver.admin(log_page(3, 4, 8)).0, Status::SUCCESS);

    assert_eq!(
        driver.data(20),
        *b"1.0     \0\0\0\0\0\0\0\0\xee\xee\xee\xee"
    );
}

#[test]
fn log_page_beyond_its_end_is_zeros() {
    let mut driver = Driver::enabled();
    driver.data(64).fill(0xee);

    assert_eq!(driver.admin(log_page(3, 8, 504)).0, Status::SUCCESS);

    assert_eq!(driver.data(32), [0; 32]);
    assert_eq!(driver.data(33)[32], 0xee);
}

#[test]
fn log_page_that_cannot_be_is_refused() {
    let mut driver = Driver::enabled();
    let mut run = |command| driver.admin(command).0;

    assert_eq!(run(log_page(0, 1, 0)), Status::INVALID_LOG_PAGE);
    assert_eq!(run(log_page(0x80, 1, 0)), Status::INVALID_LOG_PAGE);
    assert_eq!(run(log_page(2, 1, 2)), Status::INVALID_FIELD);
    assert_eq!(run(log_page(2, 1, 516)), Status::INVALID_FIELD);
    assert_eq!(run(log_page(2, 1, u64::MAX - 3)), Status::INVALID_FIELD);
    // One dword more than MDTS allows, and all there could be.
    assert_eq!(run(log_page(2, 0x8001, 0)), Status::INVALID_FIELD);
    assert_eq!(run(log_page(2, u32::MAX, 0)), Status::INVALID_FIELD);
    let mut of_namespace = log_page(2, 1, 0);
    of_namespace.namespace.set(1);
    assert_eq!(run(of_namespace), Status::INVALID_FIELD);
}
