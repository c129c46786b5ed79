//! The NVM command set, and where its data lies.

use super::*;
use proptest::prelude::*;

const FLUSH: u8 = 0x00;
const WRITE_ZEROES: u8 = 0x08;
const DATASET: u8 = 0x09;

/// Writes a PRP list.
fn list(driver: &mut Driver, at: u64, entries: &[u64]) {
    for (index, entry) in (0..).zip(entries) {
        let bytes = driver.testbed.bus.bytes(at + 8 * index, 8);
        bytes.copy_from_slice(&entry.to_le_bytes());
    }
}

/// Gives every block its number as content.
fn number_blocks(driver: &mut Driver) {
    for block in 0..64 {
        driver.fill(block, u8::try_from(block).unwrap());
    }
}

#[test]
fn written_block_reads_back() {
    let mut driver = Driver::ready();

    driver.fill(3, 0x5a);

    assert_eq!(driver.block(3), [0x5a; 512]);
    assert_eq!(driver.block(2), [0; 512]);
}

#[test]
fn flush_completes_for_one_namespace_and_for_all() {
    let mut driver = Driver::ready();

    assert_eq!(driver.io(command(FLUSH, 1)), Status::SUCCESS);
    assert_eq!(driver.io(command(FLUSH, 0xffff_ffff)), Status::SUCCESS);
    assert_eq!(driver.io(command(FLUSH, 2)), Status::INVALID_NAMESPACE);
}

#[test]
fn commands_need_the_namespace() {
    let mut driver = Driver::ready();

    for opcode in [READ, WRITE, COMPARE, WRITE_ZEROES, DATASET] {
        for namespace in [0, 2, 0xffff_ffff] {
            let mut command = transfer(opcode, 0, 1);
            command.namespace.set(namespace);
            assert_eq!(driver.io(command), Status::INVALID_NAMESPACE);
        }
    }
}

#[test]
fn blocks_beyond_the_medium_are_refused() {
    let mut driver = Driver::ready();

    for opcode in [READ, WRITE, COMPARE, WRITE_ZEROES] {
        for (block, count) in [(64, 1), (63, 2), (u64::MAX, 1), (u64::MAX, 2), (1 << 55, 1)] {
            let status = driver.io(transfer(opcode, block, count));
            assert_eq!(status, Status::LBA_OUT_OF_RANGE, "{opcode} {block} {count}");
        }
    }
    assert_eq!(driver.io(transfer(READ, 63, 1)), Status::SUCCESS);
}

#[test]
fn transfer_beyond_the_limit_is_refused() {
    let mut driver = Driver::with(NvmeConfig::default());
    driver.enable();
    driver.create_pair(1);
    driver.testbed.bus.requests.clear();

    for opcode in [READ, WRITE, COMPARE] {
        assert_eq!(driver.io(transfer(opcode, 0, 257)), Status::INVALID_FIELD);
    }
    // No data moves: the limit does not apply.
    assert_eq!(driver.io(transfer(WRITE_ZEROES, 0, 2048)), Status::SUCCESS);

    assert!(
        !driver
            .purposes()
            .iter()
            .any(|(why, ..)| *why == Purpose::Payload)
    );
}

#[test]
fn largest_transfer_fits_a_list() {
    let mut driver = Driver::with(NvmeConfig::default());
    driver.enable();
    driver.create_pair(1);
    driver.fill(255, 0xab);
    // All pages of the list are the same but the last.
    let mut pages = [DATA + 0x1000; 31];
    pages[30] = DATA + 0x3000;
    list(&mut driver, LIST, &pages);
    let mut read = transfer(READ, 0, 256);
    read.prp2.set(LIST);
    driver.data(0x4000).fill(0xee);

    assert_eq!(driver.io(read), Status::SUCCESS);

    let memory = driver.data(0x4000).to_vec();
    assert_eq!(memory[..0x2000], [0; 0x2000]);
    assert_eq!(memory[0x3000..0x3e00], [0; 0xe00]);
    assert_eq!(memory[0x3e00..], [0xab; 0x200]);
}

#[test]
fn two_pages_take_both_entries() {
    let mut driver = Driver::ready();
    number_blocks(&mut driver);
    let mut read = transfer(READ, 0, 10);
    read.prp1.set(DATA + 0x3000);
    read.prp2.set(DATA);
    driver.testbed.bus.requests.clear();

    assert_eq!(driver.io(read), Status::SUCCESS);

    let memory = driver.data(0x4000).to_vec();
    assert_eq!((memory[0x3000], memory[0x3fff]), (0, 7));
    assert_eq!((memory[0], memory[0x3ff]), (8, 9));
    let moved = driver.purposes();
    assert!(moved.contains(&(Purpose::Payload, true, 4096)));
    assert!(moved.contains(&(Purpose::Payload, true, 1024)));
}

#[test]
fn adjacent_pages_move_as_one() {
    let mut driver = Driver::ready();
    list(
        &mut driver,
        LIST,
        &[DATA + 0x1000, DATA + 0x2000, DATA + 0x4000],
    );
    let mut read = transfer(READ, 0, 32);
    read.prp2.set(LIST);
    driver.testbed.bus.requests.clear();

    assert_eq!(driver.io(read), Status::SUCCESS);

    use Purpose::{Completion, Descriptor, Payload, Publish};
    let expected = [
        (Descriptor, false, 64),
        (Descriptor, false, 24), // the list
        (Payload, true, 0x3000),
        (Payload, true, 0x1000),
        (Completion, true, 12),
        (Publish, true, 4),
    ];
    assert_eq!(driver.purposes(), expected);
}

#[test]
fn list_that_fills_its_page_goes_on_in_another() {
    let mut driver = Driver::ready();
    number_blocks(&mut driver);
    // The first list has room for two entries: a page, and where the next list is.
    list(&mut driver, LIST + 0xff0, &[DATA + 0x2000, DATA + 0x5000]);
    list(&mut driver, DATA + 0x5000, &[DATA + 0x4000, DATA + 0x1000]);
    let mut read = transfer(READ, 0, 32);
    read.prp2.set(LIST + 0xff0);

    assert_eq!(driver.io(read), Status::SUCCESS);

    let memory = driver.data(0x5000).to_vec();
    let firsts = [0, 0x2000, 0x4000, 0x1000].map(|at| memory[at]);
    assert_eq!(firsts, [0, 8, 16, 24]);
}

#[test]
fn entry_that_ends_a_list_page_is_data_if_it_is_the_last() {
    let mut driver = Driver::ready();
    number_blocks(&mut driver);
    list(&mut driver, LIST + 0xff0, &[DATA + 0x2000, DATA + 0x1000]);
    let mut read = transfer(READ, 0, 24);
    read.prp2.set(LIST + 0xff0);

    assert_eq!(driver.io(read), Status::SUCCESS);

    let memory = driver.data(0x3000).to_vec();
    assert_eq!((memory[0x2000], memory[0x1000]), (8, 16));
}

#[test]
fn page_offsets_are_allowed_in_the_first_entry_only() {
    let mut driver = Driver::ready();
    list(&mut driver, LIST, &[DATA + 0x1000, DATA + 0x2200]);
    list(&mut driver, LIST + 0xff8, &[LIST + 8]);
    for (what, prp1, prp2, count) in [
        ("first entry not dword aligned", DATA + 2, 0, 1),
        ("second entry with an offset", DATA, DATA + 0x1200, 16),
        ("list not qword aligned", DATA, LIST + 4, 24),
        ("list entry with an offset", DATA, LIST, 24),
        ("next list with an offset", DATA, LIST + 0xff8, 24),
    ] {
        let mut read = transfer(READ, 0, count);
        read.prp1.set(prp1);
        read.prp2.set(prp2);
        driver.testbed.bus.requests.clear();

        assert_eq!(driver.io(read), Status::PRP_OFFSET_INVALID, "{what}");

        let moved = driver.purposes();
        let payload = moved.iter().any(|(why, ..)| *why == Purpose::Payload);
        assert!(!payload, "{what}");
    }
}

#[test]
fn data_can_begin_anywhere_in_a_larger_page() {
    let mut driver = Driver::ready();
    number_blocks(&mut driver);
    driver.set(register::CC, 0);
    driver.pairs = Default::default();
    driver.testbed.bus.bytes(ADMIN_CQ, 0x1000).fill(0);
    // Pages of 8 KiB; the queues move.
    driver.set(register::ASQ, 0xe000);
    driver.set(register::ACQ, ADMIN_CQ);
    driver.set(register::CC, ENABLED | 1 << 7);
    let mut identify = command(0x06, 1);
    identify.prp1.set(DATA + 0x1000);
    let bytes = identify.as_bytes();
    driver.testbed.bus.bytes(0xe000, 64).copy_from_slice(bytes);

    driver.ring_sq(0, 1);
    driver.testbed.settle();

    // One page of the host's: no second entry is needed.
    assert!(driver.take(0).is_some());
    assert_eq!(driver.data(0x1001)[0x1000], 64);
}

#[test]
fn unreachable_data_is_a_transfer_error() {
    for opcode in [READ, WRITE, COMPARE] {
        let mut driver = Driver::ready();
        driver.testbed.bus.refused.push(DATA..DATA + 1);

        let status = driver.io(transfer(opcode, 0, 1));

        assert_eq!(status, Status::DATA_TRANSFER_ERROR);
        assert!(!driver.is_fatal());
    }
}

#[test]
fn unreachable_list_is_a_transfer_error() {
    let mut driver = Driver::ready();
    let mut read = transfer(READ, 0, 24);
    read.prp2.set(0xffff_0000);

    assert_eq!(driver.io(read), Status::DATA_TRANSFER_ERROR);
}

#[test]
fn write_changes_nothing_unless_all_of_its_data_arrives() {
    let mut driver = Driver::ready();
    number_blocks(&mut driver);
    driver.data(0x1000).fill(0xee);
    let mut write = transfer(WRITE, 0, 16);
    write.prp2.set(DATA + 0x3000);
    driver
        .testbed
        .bus
        .refused
        .push(DATA + 0x3fff..DATA + 0x4000);

    assert_eq!(driver.io(write), Status::DATA_TRANSFER_ERROR);

    driver.testbed.bus.refused.clear();
    for block in 0..16 {
        assert_eq!(driver.block(block), [u8::try_from(block).unwrap(); 512]);
    }
}

#[test]
fn compare_tells_whether_data_differ() {
    let mut driver = Driver::ready();
    driver.fill(2, 7);

    assert_eq!(driver.io(transfer(COMPARE, 2, 1)), Status::SUCCESS);
    driver.data(512)[511] = 8;

    assert_eq!(driver.io(transfer(COMPARE, 2, 1)), Status::COMPARE_FAILURE);
}

#[test]
fn write_zeroes_leaves_the_neighbours() {
    let mut driver = Driver::ready();
    number_blocks(&mut driver);

    assert_eq!(driver.io(transfer(WRITE_ZEROES, 10, 3)), Status::SUCCESS);

    let firsts = [9, 10, 12, 13].map(|block| driver.block(block)[0]);
    assert_eq!(firsts, [9, 0, 0, 13]);
}

fn dataset(driver: &mut Driver, ranges: &[(u32, u64)], attributes: u32) -> Status {
    for (at, (count, start)) in (DATA..).step_by(16).zip(ranges) {
        let bytes = driver.testbed.bus.bytes(at, 16);
        bytes[..4].fill(0);
        bytes[4..8].copy_from_slice(&count.to_le_bytes());
        bytes[8..].copy_from_slice(&start.to_le_bytes());
    }
    let mut command = command(DATASET, 1);
    command.dwords[0].set(u32::try_from(ranges.len() - 1).unwrap());
    command.dwords[1].set(attributes);
    driver.io(command)
}

#[test]
fn deallocated_blocks_read_as_zeros() {
    let mut driver = Driver::ready();
    number_blocks(&mut driver);

    assert_eq!(dataset(&mut driver, &[(2, 5), (1, 63)], 4), Status::SUCCESS);

    let firsts = [4, 5, 6, 7, 62, 63].map(|block| driver.block(block)[0]);
    assert_eq!(firsts, [4, 0, 0, 7, 62, 0]);
}

#[test]
fn hints_other_than_deallocate_change_nothing() {
    let mut driver = Driver::ready();
    driver.fill(5, 5);

    assert_eq!(dataset(&mut driver, &[(1, 5)], 3), Status::SUCCESS);

    assert_eq!(driver.block(5), [5; 512]);
}

#[test]
fn ranges_are_checked_before_any_is_deallocated() {
    let mut driver = Driver::ready();
    driver.fill(5, 5);

    let status = dataset(&mut driver, &[(1, 5), (2, 63)], 4);

    assert_eq!(status, Status::LBA_OUT_OF_RANGE);
    assert_eq!(driver.block(5), [5; 512]);
}

#[test]
fn overlapping_ranges_deallocate_no_more_than_the_medium() {
    let mut driver = Driver::ready();
    number_blocks(&mut driver);
    let ranges = [(64, 0); 256];

    assert_eq!(dataset(&mut driver, &ranges, 4), Status::SUCCESS);

    assert_eq!(driver.block(63), [0; 512]);
}

proptest! {
    /// Whatever the pages, data arrive in the order of the entries.
    #[test]
    fn data_follow_the_entries(
        offset in 0u64..1024,
        order in Just([1u64, 2, 3, 4, 5]).prop_shuffle(),
        blocks in 1u32..=40,
    ) {
        let mut driver = Driver::ready();
        number_blocks(&mut driver);
        let page = |index: u64| DATA + 0x1000 * index;
        list(&mut driver, LIST, &order.map(page));
        let mut read = transfer(READ, 0, blocks);
        read.prp1.set(DATA + 4 * offset);
        let room = 4096 - 4 * offset;
        let rest = u64::from(blocks * 512).saturating_sub(room);
        read.prp2.set(if rest > 4096 { LIST } else { page(order[0]) });

        prop_assert_eq!(driver.io(read), Status::SUCCESS);

        let memory = driver.data(0x6000).to_vec();
        let byte = |at: u64| memory[usize::try_from(at - DATA).unwrap()];
        for at in 0..u64::from(blocks * 512) {
            let place = match at.checked_sub(room) {
                None => DATA + 4 * offset + at,
                Some(later) => {
                    let index = usize::try_from(later / 4096).unwrap();
                    page(order[index]) + later % 4096
                }
            };
            prop_assert_eq!(u64::from(byte(place)), at / 512);
        }
    }
}
