//! Byte vectors, written down from the figures of the standard.

use super::*;
use zerocopy::transmute;

/// Command dwords, as the figures of the standard number them.
fn dwords_of(command: Command) -> [u32; 16] {
    let words: [U32; 16] = transmute!(command);
    words.map(U32::get)
}

const AT: Iova = Iova(0x1122_3344_5566_7000);

#[test]
fn doorbells_are_where_the_standard_has_them() {
    assert_eq!(sq_tail_doorbell(0, 0), 0x1000);
    assert_eq!(cq_head_doorbell(0, 0), 0x1004);
    assert_eq!(sq_tail_doorbell(1, 0), 0x1008);
    assert_eq!(cq_head_doorbell(1, 0), 0x100c);
    assert_eq!(cq_head_doorbell(1, 4), 0x10c0);
    assert_eq!(cq_head_doorbell(1, 15), 0x1000 + 3 * 0x2_0000);
}

#[test]
fn capabilities_are_read_bit_by_bit() {
    // MPSMAX 4, MPSMIN 0, NVM command set, DSTRD 2, TO 15 (7.5 s), CQR, MQES 1023.
    let cap = Capabilities::from_bits(0x0040_0022_0f01_03ff);
    assert_eq!(cap.mqes(), 1023);
    assert!(cap.contiguous_queues_required());
    assert_eq!(cap.timeout(), 15);
    assert_eq!(cap.stride(), 2);
    assert_eq!(cap.command_sets(), NVM_COMMAND_SET);
    assert_eq!((cap.mpsmin(), cap.mpsmax()), (0, 4));
}

#[test]
fn configuration_and_status_have_their_bits() {
    let cc = Configuration::new()
        .with_enable(true)
        .with_iosqes(COMMAND_SHIFT)
        .with_iocqes(COMPLETION_SHIFT);
    assert_eq!(cc.into_bits(), 0x0046_0001);
    assert_eq!(cc.with_shutdown(SHUTDOWN_NORMAL).into_bits(), 0x0046_4001);
    assert!(ControllerStatus::from_bits(1).ready());
    assert!(ControllerStatus::from_bits(2).fatal());
    assert_eq!(
        ControllerStatus::from_bits(0x9).shutdown(),
        SHUTDOWN_COMPLETE
    );
    let aqa = AdminQueues::new().with_submission(15).with_completion(31);
    assert_eq!(aqa.into_bits(), 0x001f_000f);
}

#[test]
fn identify_is_opcode_06_with_its_cns_in_dword_10() {
    let mut command = Command::identify(Cns::Controller, 0, AT);
    command.cid = 0xabcd.into();
    let words = dwords_of(command);
    assert_eq!(words[..2], [0xabcd_0006, 0]);
    assert_eq!(words[6..10], [0x5566_7000, 0x1122_3344, 0, 0]);
    assert_eq!(words[10..], [1, 0, 0, 0, 0, 0]);
    let words = dwords_of(Command::identify(Cns::Namespace, 1, AT));
    assert_eq!((words[1], words[10]), (1, 0));
}

#[test]
fn queues_are_made_with_sizes_less_one() {
    let words = dwords_of(Command::want_one_queue_pair());
    assert_eq!((words[0], words[10], words[11]), (0x09, 0x07, 0));
    // QSIZE 15, QID 1; vector 1, interrupts enabled, contiguous.
    let words = dwords_of(Command::create_completion_queue(1, 16, AT, 1));
    assert_eq!(
        (words[0], words[6], words[7]),
        (0x05, 0x5566_7000, 0x1122_3344)
    );
    assert_eq!(words[10..12], [0x000f_0001, 0x0001_0003]);
    // QSIZE 15, QID 1; completion queue 1, contiguous.
    let words = dwords_of(Command::create_submission_queue(1, 16, AT));
    assert_eq!(
        (words[0], words[6], words[7]),
        (0x01, 0x5566_7000, 0x1122_3344)
    );
    assert_eq!(words[10..12], [0x000f_0001, 0x0001_0001]);
}

#[test]
fn transfers_name_blocks_less_one_and_writes_are_durable() {
    let prp = [AT, Iova(0x9000)];
    let words = dwords_of(Command::read(1, 0x0a_1234_5678, 8, prp));
    assert_eq!(words[..2], [0x02, 1]);
    assert_eq!(words[2..6], [0; 4]);
    assert_eq!(words[6..10], [0x5566_7000, 0x1122_3344, 0x9000, 0]);
    assert_eq!(words[10..], [0x1234_5678, 0x0a, 7, 0, 0, 0]);
    let words = dwords_of(Command::write(1, 3, 1, prp));
    assert_eq!(words[..2], [0x01, 1]);
    assert_eq!(words[10..13], [3, 0, 0x4000_0000]);
}

#[test]
fn completion_is_read_byte_by_byte() {
    let bytes: [u8; 16] = [
        0x01, 0x00, 0x02, 0x00, 0, 0, 0, 0, 0x05, 0x00, 0x01, 0x00, 0x34, 0x12, 0x05, 0x85,
    ];
    let entry: Completion = transmute!(bytes);
    assert_eq!(entry.result.get(), 0x0002_0001);
    assert_eq!((entry.sq_head.get(), entry.sq_id.get()), (5, 1));
    assert_eq!(entry.cid.get(), 0x1234);
    // 8505h: DNR, SCT 2 (media), SC 82h, phase 1.
    let status = entry.status();
    assert!(status.phase() && status.do_not_retry() && !status.more());
    assert_eq!((status.code_type(), status.code()), (2, 0x82));
    assert!(!status.is_success());
    assert!(Status::from_bits(1).is_success());
}

#[test]
fn controller_data_are_at_their_offsets() {
    let mut page = [0; PAGE];
    page[77] = 5;
    page[512..514].copy_from_slice(&[0x66, 0x44]);
    page[516..520].copy_from_slice(&[1, 2, 0, 0]);
    let expected = ControllerData {
        mdts: 5,
        sqes: 0x66,
        cqes: 0x44,
        namespaces: 0x0201,
    };
    assert_eq!(ControllerData::parse(&page), expected);
}

#[test]
fn namespace_data_are_at_their_offsets() {
    let mut page = [0; PAGE];
    page[..8].copy_from_slice(&[0, 0, 0, 1, 0, 0, 0, 0]);
    page[25..27].copy_from_slice(&[1, 0x11]);
    page[132..136].copy_from_slice(&[8, 0, 9, 0]);
    let data = NamespaceData::parse(&page);
    assert_eq!(data.size, 0x0100_0000);
    assert_eq!(data.format, Some((8, 9)));
}

#[test]
fn format_beyond_the_last_is_none() {
    let mut page = [0; PAGE];
    page[26] = 0x0f;
    assert_eq!(NamespaceData::parse(&page).format, None);
}
