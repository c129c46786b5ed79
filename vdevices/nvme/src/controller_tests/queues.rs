//! Queues: creation, deletion, phase, arbitration, full queues, interrupts, faults.

use super::*;
use cofferdam_seam::Iova;
use proptest::prelude::*;
use vdevice_pci::testbed::MESSAGES;

#[test]
fn completion_queue_creation_names_what_is_wrong() {
    let mut driver = Driver::enabled();
    let mut create = |id, size, at, flags, vector| driver.create_cq(id, size, at, flags, vector);

    assert_eq!(create(0, 8, CQ, 3, 1), Status::INVALID_QUEUE_IDENTIFIER);
    assert_eq!(create(5, 8, CQ, 3, 1), Status::INVALID_QUEUE_IDENTIFIER);
    assert_eq!(create(1, 1, CQ, 3, 1), Status::INVALID_QUEUE_SIZE);
    assert_eq!(create(1, 65, CQ, 3, 1), Status::INVALID_QUEUE_SIZE);
    assert_eq!(create(1, 8, CQ, 2, 1), Status::INVALID_FIELD);
    assert_eq!(create(1, 8, CQ + 64, 3, 1), Status::PRP_OFFSET_INVALID);
    assert_eq!(create(1, 8, CQ, 3, 5), Status::INVALID_INTERRUPT_VECTOR);
    assert_eq!(create(1, 64, CQ, 3, 4), Status::SUCCESS);
    assert_eq!(create(1, 8, CQ, 3, 1), Status::INVALID_QUEUE_IDENTIFIER);
    // Without interrupts the vector does not matter.
    assert_eq!(create(2, 8, CQ, 1, 99), Status::SUCCESS);
}

#[test]
fn submission_queue_creation_names_what_is_wrong() {
    let mut driver = Driver::enabled();
    assert_eq!(driver.create_cq(1, 8, CQ, 3, 1), Status::SUCCESS);
    let mut create = |id, size, at, flags, cq| driver.create_sq(id, size, at, flags, cq);

    assert_eq!(create(0, 8, SQ, 1, 1), Status::INVALID_QUEUE_IDENTIFIER);
    assert_eq!(create(5, 8, SQ, 1, 1), Status::INVALID_QUEUE_IDENTIFIER);
    assert_eq!(create(1, 8, SQ, 1, 0), Status::INVALID_QUEUE_IDENTIFIER);
    assert_eq!(create(1, 8, SQ, 1, 5), Status::INVALID_QUEUE_IDENTIFIER);
    assert_eq!(create(1, 8, SQ, 1, 2), Status::COMPLETION_QUEUE_INVALID);
    assert_eq!(create(1, 1, SQ, 1, 1), Status::INVALID_QUEUE_SIZE);
    assert_eq!(create(1, 65, SQ, 1, 1), Status::INVALID_QUEUE_SIZE);
    assert_eq!(create(1, 8, SQ, 0, 1), Status::INVALID_FIELD);
    assert_eq!(create(1, 8, SQ + 8, 1, 1), Status::PRP_OFFSET_INVALID);
    assert_eq!(create(1, 8, SQ, 1, 1), Status::SUCCESS);
    assert_eq!(create(1, 8, SQ, 1, 1), Status::INVALID_QUEUE_IDENTIFIER);
}

#[test]
fn queues_need_the_entry_sizes_in_the_configuration() {
    let mut driver = Driver::enabled();

    driver.set(register::CC, 1);

    assert_eq!(driver.create_cq(1, 8, CQ, 3, 1), Status::INVALID_QUEUE_SIZE);
    driver.set(register::CC, 0x0040_0001);
    assert_eq!(driver.create_cq(1, 8, CQ, 3, 1), Status::SUCCESS);
    assert_eq!(driver.create_sq(1, 8, SQ, 1, 1), Status::INVALID_QUEUE_SIZE);
    driver.set(register::CC, ENABLED);
    assert_eq!(driver.create_sq(1, 8, SQ, 1, 1), Status::SUCCESS);
}

fn delete(opcode: u8, id: u32) -> Command {
    let mut command = command(opcode, 0);
    command.dwords[0].set(id);
    command
}

#[test]
fn deletion_wants_submission_queues_gone_first() {
    let mut driver = Driver::ready();
    let mut run = |opcode, id| driver.admin(delete(opcode, id)).0;

    assert_eq!(run(0x04, 1), Status::INVALID_QUEUE_DELETION);
    for id in [0, 2, 99] {
        assert_eq!(run(0x00, id), Status::INVALID_QUEUE_IDENTIFIER);
        assert_eq!(run(0x04, id), Status::INVALID_QUEUE_IDENTIFIER);
    }
    assert_eq!(run(0x00, 1), Status::SUCCESS);
    assert_eq!(run(0x00, 1), Status::INVALID_QUEUE_IDENTIFIER);
    assert_eq!(run(0x04, 1), Status::SUCCESS);
    assert_eq!(run(0x04, 1), Status::INVALID_QUEUE_IDENTIFIER);

    driver.create_pair(1);
    driver.fill(0, 1);
}

#[test]
fn commands_of_a_deleted_queue_are_forgotten() {
    let mut driver = Driver::ready();
    driver.data(512).fill(0x77);
    for _ in 0..3 {
        driver.submit(1, transfer(WRITE, 0, 1));
    }

    assert_eq!(driver.admin(delete(0x00, 1)).0, Status::SUCCESS);
    driver.testbed.settle();

    // The one whose time had begun may be served before the deletion is; the others are gone.
    assert!(driver.take(1).is_some());
    assert!(driver.take(1).is_none());
}

#[test]
fn phase_turns_with_every_lap() {
    let mut driver = Driver::ready();

    for lap in 0..3 {
        for _ in 0..ENTRIES {
            driver.submit(1, transfer(READ, 0, 1));
            driver.testbed.settle();
            let entry = driver.reap(1).expect("a completion");
            assert_eq!(entry.status.get() & 1, 1 - lap % 2);
        }
    }
}

#[test]
fn completion_tells_queue_head_and_command() {
    let mut driver = Driver::ready();
    driver.create_pair(2);
    driver.submit(2, transfer(READ, 0, 1));
    driver.testbed.settle();
    driver.reap(2);
    let mut read = transfer(READ, 0, 1);
    read.id.set(0xabcd);

    driver.submit(2, read);
    driver.testbed.settle();

    let entry = driver.take(2).expect("a completion");
    assert_eq!(entry.submission_head.get(), 2);
    assert_eq!(entry.submission.get(), 2);
    assert_eq!(entry.id.get(), 0xabcd);
}

#[test]
fn every_dma_tells_its_purpose_and_the_phase_goes_last() {
    let mut driver = Driver::ready();
    driver.testbed.bus.requests.clear();

    driver.submit(1, transfer(READ, 0, 1));
    driver.testbed.settle();

    use Purpose::*;
    let expected = [
        (Descriptor, false, 64), // command
        (Payload, true, 512),
        (Completion, true, 12), // result, SQ head and identifier
        (Publish, true, 4),     // command identifier, phase and status
    ];
    assert_eq!(driver.purposes(), expected);
    assert_eq!(driver.testbed.bus.requests[3].at, Iova(CQ + 12));
}

#[test]
fn full_completion_queue_holds_commands_back() {
    let mut driver = Driver::ready();
    for _ in 0..ENTRIES - 1 {
        driver.submit(1, transfer(READ, 0, 1));
    }
    driver.testbed.settle();
    for _ in 0..3 {
        driver.submit(1, transfer(READ, 0, 1));
    }
    driver.testbed.bus.requests.clear();

    driver.testbed.settle();

    assert!(driver.testbed.bus.requests.is_empty());
    let mut done = 0;
    while driver.reap(1).is_some() {
        done += 1;
        driver.testbed.settle();
    }
    assert_eq!(done, ENTRIES + 2);
}

#[test]
fn full_completion_queue_does_not_hold_other_queues_back() {
    let mut driver = Driver::ready();
    driver.create_pair(2);
    for _ in 0..ENTRIES - 1 {
        driver.submit(1, transfer(READ, 0, 1));
    }
    driver.testbed.settle();
    driver.submit(1, transfer(READ, 0, 1));

    driver.submit(2, transfer(READ, 0, 1));
    driver.testbed.settle();

    assert!(driver.take(2).is_some());
}

#[test]
fn several_submission_queues_share_a_completion_queue() {
    let mut driver = Driver::ready();
    let created = driver.create_sq(2, ENTRIES, LIST, 1, 1);
    assert_eq!(created, Status::SUCCESS);
    let read = transfer(READ, 0, 1);
    let slot = driver.testbed.bus.bytes(LIST, 64);
    slot.copy_from_slice(read.as_bytes());

    driver.submit(1, transfer(READ, 0, 1));
    driver.ring_sq(2, 1);
    driver.testbed.settle();

    let queues = [(); 2].map(|()| driver.take(1).map(|entry| entry.submission.get()));
    assert_eq!(queues, [Some(1), Some(2)]);
}

#[test]
fn submission_queues_take_turns() {
    let mut driver = Driver::with(NvmeConfig {
        latency: core::time::Duration::ZERO,
        ..NvmeConfig::default()
    });
    driver.enable();
    for id in 1..=3 {
        driver.create_pair(id);
    }
    for id in 1..=3 {
        driver.place(id, transfer(READ, 0, 1));
        driver.place(id, transfer(READ, 0, 1));
        driver.ring_sq(id, 2);
    }
    driver.testbed.bus.requests.clear();

    driver.step(6);

    let requests = driver.testbed.bus.requests.iter();
    let fetched: Vec<u64> = requests
        .filter(|request| request.why == Purpose::Descriptor)
        .map(|request| request.at.0)
        .collect();
    let [first, second, third] = [1, 2, 3].map(|id| Driver::bases(id).0);
    let expected = [first, second, third, first + 64, second + 64, third + 64];
    assert_eq!(fetched, expected);
}

#[test]
fn commands_are_served_one_after_the_other() {
    let mut driver = Driver::ready();
    let start = driver.testbed.bus.now.0;
    driver.submit(1, transfer(READ, 0, 1));
    driver.submit(1, transfer(READ, 0, 1));

    driver.testbed.run_until(Time(start + 19_999));
    assert!(driver.take(1).is_none());
    driver.testbed.run_until(Time(start + 39_999));
    assert!(driver.take(1).is_some());
    assert!(driver.take(1).is_none());
    driver.testbed.run_until(Time(start + 40_000));

    assert!(driver.take(1).is_some());
}

#[test]
fn budget_limits_the_commands_of_a_step() {
    let mut driver = Driver::with(NvmeConfig {
        latency: core::time::Duration::ZERO,
        ..NvmeConfig::default()
    });
    driver.enable();
    driver.create_pair(1);
    for _ in 0..5 {
        driver.submit(1, transfer(READ, 0, 1));
    }

    assert_eq!(driver.step(2), Progress::More);
    assert_eq!(
        [driver.take(1), driver.take(1)].map(|e| e.is_some()),
        [true; 2]
    );
    assert!(driver.take(1).is_none());
    assert_eq!(driver.step(8), Progress::Idle);

    assert_eq!(
        [driver.take(1), driver.take(1)].map(|e| e.is_some()),
        [true; 2]
    );
}

#[test]
fn queue_with_interrupts_sends_its_vector() {
    let mut driver = Driver::ready();
    driver.testbed.enable_msix();

    driver.submit(1, transfer(READ, 0, 1));
    driver.testbed.settle();

    assert_eq!(driver.testbed.bus.messages, [(Iova(MESSAGES), 1)]);
    assert!(!driver.testbed.function.intx_level());
}

#[test]
fn message_follows_the_phase_tag() {
    let mut driver = Driver::ready();
    driver.testbed.enable_msix();
    driver.submit(1, transfer(READ, 0, 1));
    let due = driver.testbed.bus.wakes.iter().copied().min().unwrap();

    driver.testbed.run_until(due);

    assert!(driver.peek(1).is_some());
    assert_eq!(driver.testbed.bus.messages.len(), 1);
}

#[test]
fn queue_without_interrupts_sends_nothing() {
    let mut driver = Driver::enabled();
    assert_eq!(driver.create_cq(1, ENTRIES, CQ, 1, 1), Status::SUCCESS);
    assert_eq!(driver.create_sq(1, ENTRIES, SQ, 1, 1), Status::SUCCESS);
    driver.testbed.enable_msix();

    driver.submit(1, transfer(READ, 0, 1));
    driver.testbed.settle();

    assert!(driver.take(1).is_some());
    assert!(driver.testbed.bus.messages.is_empty());
}

#[test]
fn pin_is_held_until_the_head_doorbell_catches_up() {
    let mut driver = Driver::ready();
    driver.submit(1, transfer(READ, 0, 1));
    driver.submit(1, transfer(READ, 0, 1));
    assert!(!driver.testbed.function.intx_level());

    driver.testbed.settle();

    assert!(driver.testbed.function.intx_level());
    driver.reap(1);
    assert!(driver.testbed.function.intx_level());
    driver.reap(1);
    assert!(!driver.testbed.function.intx_level());
}

#[test]
fn masked_vector_does_not_reach_the_pin() {
    let mut driver = Driver::ready();
    driver.set(register::MASK_SET, 0b10);

    driver.submit(1, transfer(READ, 0, 1));
    driver.testbed.settle();

    assert!(!driver.testbed.function.intx_level());
    driver.set(register::MASK_CLEAR, 0b10);
    assert!(driver.testbed.function.intx_level());
    driver.set(register::MASK_SET, 0b10);
    assert!(!driver.testbed.function.intx_level());
}

#[test]
fn resets_release_the_pin() {
    for function_level in [false, true] {
        let mut driver = Driver::ready();
        driver.submit(1, transfer(READ, 0, 1));
        driver.testbed.settle();
        assert!(driver.testbed.function.intx_level());

        if function_level {
            driver.testbed.function_level_reset();
        } else {
            driver.set(register::CC, 0);
        }

        assert!(!driver.testbed.function.intx_level());
    }
}

#[test]
fn command_that_cannot_be_fetched_is_fatal() {
    let mut driver = Driver::ready();
    driver.testbed.bus.refused.push(SQ..SQ + 64);

    driver.submit(1, transfer(READ, 0, 1));
    driver.testbed.settle();

    assert!(driver.is_fatal());
    driver.testbed.bus.requests.clear();
    driver.submit(0, command(0x06, 1));
    driver.testbed.settle();
    assert!(driver.testbed.bus.requests.is_empty());
    driver.testbed.bus.refused.clear();
    driver.set(register::CC, 0);
    driver.enable();
}

#[test]
fn completion_that_cannot_be_written_is_fatal() {
    for refused in [CQ..CQ + 1, CQ + 15..CQ + 16] {
        let mut driver = Driver::ready();
        driver.testbed.bus.refused.push(refused);

        driver.submit(1, transfer(READ, 0, 1));
        driver.testbed.settle();

        assert!(driver.is_fatal());
        assert!(driver.testbed.bus.messages.is_empty());
    }
}

#[test]
fn queue_outside_of_memory_is_fatal_only_when_used() {
    let mut driver = Driver::enabled();
    let far = 0xffff_ffff_ffff_f000;
    assert_eq!(driver.create_cq(1, 8, far, 3, 1), Status::SUCCESS);
    assert_eq!(driver.create_sq(1, 8, far, 1, 1), Status::SUCCESS);
    assert!(!driver.is_fatal());

    driver.ring_sq(1, 1);
    driver.testbed.settle();

    assert!(driver.is_fatal());
}

proptest! {
    /// However a driver interleaves submitting, waiting and reaping, every command completes once,
    /// in order.
    #[test]
    fn every_command_completes_once_and_in_order(plan in proptest::collection::vec(0u8..3, 1..120)) {
        let mut driver = Driver::ready();
        let (mut submitted, mut done) = (0u16, 0u16);
        for act in plan {
            match act {
                // A submission queue holds one command less than it has entries.
                0 if submitted - done < 7 => {
                    let mut read = transfer(READ, 0, 1);
                    read.id.set(submitted);
                    driver.submit(1, read);
                    submitted += 1;
                }
                1 => driver.testbed.settle(),
                _ => if let Some(entry) = driver.reap(1) {
                    prop_assert_eq!(entry.id.get(), done);
                    done += 1;
                }
            }
        }
        driver.testbed.settle();
        while let Some(entry) = driver.reap(1) {
            prop_assert_eq!(entry.id.get(), done);
            done += 1;
            driver.testbed.settle();
        }
        prop_assert_eq!(done, submitted);
        prop_assert!(!driver.is_fatal());
    }
}
