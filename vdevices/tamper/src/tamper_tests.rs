//! Lies over a probe that counts what reaches it, and over the real models.

use crate::{Aim, Lie, Publishing, Tally, Tamper};
use cofferdam_seam::{
    Access, Bar, BarSpec, Budget, BusPort, Capability, Completion, Device, Iova, PciIdentity,
    Progress, Purpose, Reset, Time, Vector, Width,
};
use core::time::Duration;
use std::sync::Arc;
use vdevice_pci::spec::command;
use vdevice_pci::testbed::{REQUESTER, Testbed};

/// Registers of the probe.
mod register {
    /// Reads as the reads that reached the probe, this one included.
    pub const READS: u32 = 0x00;
    /// Writes eight bytes of 0xaa to the address, as payload.
    pub const PAYLOAD_WRITE: u32 = 0x10;
    /// Reads eight bytes from the address, as payload.
    pub const PAYLOAD_READ: u32 = 0x18;
    /// Writes the completion entry 1, 2, 3, 4, 5, 6, 7, 8 to the address.
    pub const COMPLETION: u32 = 0x20;
    /// Writes one byte to the address, as status.
    pub const STATUS: u32 = 0x28;
    /// Writes the two bytes 5, 0 to the address, as what publishes.
    pub const PUBLISH: u32 = 0x30;
    /// Reads a descriptor of 16 bytes from the address.
    pub const DESCRIPTOR: u32 = 0x38;
}

static IDENTITY: PciIdentity = PciIdentity {
    vendor: 1,
    device: 2,
    revision: 3,
    class: [0xff, 0, 0],
    subsystem: [0, 0],
    intx: true,
    bars: &[BarSpec {
        bar: Bar::ZERO,
        size: 4096,
        wide: false,
        prefetchable: false,
    }],
    capabilities: &[Capability::PcieEndpoint { flr: true }],
};

#[derive(Default)]
struct Probe {
    reads: u64,
}

impl Device for Probe {
    fn describe(&self) -> &PciIdentity {
        &IDENTITY
    }

    fn read(&mut self, _at: Access, _bus: &mut BusPort<'_>) -> Completion {
        self.reads += 1;
        Completion::Data(self.reads)
    }

    fn write(&mut self, at: Access, value: u64, bus: &mut BusPort<'_>) {
        let to = Iova(value);
        let _ = match at.offset() {
            register::PAYLOAD_WRITE => bus.dma_write(to, &[0xaa; 8], Purpose::Payload),
            register::PAYLOAD_READ => bus.dma_read(to, &mut [0; 8], Purpose::Payload),
            register::COMPLETION => {
                bus.raise(Vector(0));
                bus.set_intx(true);
                bus.dma_write(to, &[1, 2, 3, 4, 5, 6, 7, 8], Purpose::Completion)
            }
            register::STATUS => bus.dma_write(to, &[0], Purpose::Status),
            register::PUBLISH => bus.dma_write(to, &[5, 0], Purpose::Publish),
            register::DESCRIPTOR => bus.dma_read(to, &mut [0; 16], Purpose::Descriptor),
            _ => Ok(()),
        };
    }

    fn step(&mut self, _budget: Budget, _bus: &mut BusPort<'_>) -> Progress {
        Progress::Idle
    }

    fn reset(&mut self, _kind: Reset) {
        self.reads = 0;
    }
}

fn unarmed(lies: Vec<Lie>) -> (Testbed, Arc<Tally>) {
    let (device, tally) = Tamper::new(Box::new(Probe::default()), lies);
    (Testbed::new(Box::new(device)), tally)
}

fn armed(lies: Vec<Lie>) -> (Testbed, Arc<Tally>) {
    let (testbed, tally) = unarmed(lies);
    tally.arm();
    (testbed, tally)
}

fn read(testbed: &mut Testbed) -> Completion {
    testbed.read(Bar::ZERO, register::READS, Width::Four)
}

fn write(testbed: &mut Testbed, register: u32, value: u64) {
    testbed.write(Bar::ZERO, register, Width::Eight, value);
}

fn wild(nth: u32, aim: Aim) -> Lie {
    Lie::WildWrite {
        nth,
        aim,
        bytes: vec![0xee; 4],
    }
}

fn stale(nth: u32, micros: u64) -> Lie {
    Lie::StaleWrite {
        nth,
        after: Duration::from_micros(micros),
        bytes_seed: 1,
    }
}

#[test]
fn wild_write_follows_the_nth_write_of_payload() {
    let (mut testbed, tally) = armed(vec![wild(2, Aim::Address(Iova(0x800)))]);
    testbed.bus.now = Time(77);

    write(&mut testbed, register::PAYLOAD_WRITE, 0x100);
    assert_eq!(tally.acted(), 0);
    assert_eq!(tally.first_at(), None);
    write(&mut testbed, register::PAYLOAD_READ, 0x200);
    write(&mut testbed, register::PAYLOAD_WRITE, 0x300);

    assert_eq!(tally.acted(), 1);
    assert_eq!(tally.first_at(), Some(Time(77)));
    assert_eq!(testbed.bus.bytes(0x800, 5), [0xee, 0xee, 0xee, 0xee, 0]);
    let order: Vec<u64> = testbed.bus.requests.iter().map(|r| r.at.0).collect();
    assert_eq!(order, [0x100, 0x200, 0x300, 0x800]);
    assert!(testbed.bus.requests.iter().all(|r| r.by == REQUESTER));
}

#[test]
fn renewed_lies_count_anew_and_wait_to_be_armed() {
    let (mut testbed, tally) = armed(vec![wild(1, Aim::Address(Iova(0x800))), stale(1, 5)]);
    write(&mut testbed, register::PAYLOAD_WRITE, 0x100);
    assert_eq!(tally.acted(), 1, "the late one is still to come");

    tally.renew(vec![wild(1, Aim::Address(Iova(0x900)))]);
    write(&mut testbed, register::PAYLOAD_WRITE, 0x200);
    assert_eq!((tally.acted(), tally.first_at()), (0, None));
    tally.arm();
    testbed.bus.now = Time(9_000);
    write(&mut testbed, register::PAYLOAD_WRITE, 0x300);

    assert_eq!((tally.acted(), tally.first_at()), (1, Some(Time(9_000))));
    let order: Vec<u64> = testbed.bus.requests.iter().map(|r| r.at.0).collect();
    assert_eq!(order, [0x100, 0x800, 0x200, 0x300, 0x900]);
}

#[test]
fn write_beside_the_payload_starts_at_its_end() {
    let (mut testbed, tally) = armed(vec![wild(1, Aim::BesideLast { gap: 3 })]);

    write(&mut testbed, register::PAYLOAD_WRITE, 0x100);

    assert_eq!(
        testbed.bus.bytes(0x108, 8),
        [0, 0, 0, 0xee, 0xee, 0xee, 0xee, 0]
    );
    assert_eq!(tally.acted(), 1);
}

#[test]
fn overrun_is_one_longer_request() {
    let (mut testbed, tally) = armed(vec![Lie::Overrun {
        nth: 2,
        extra: vec![0xee; 3],
    }]);

    write(&mut testbed, register::PAYLOAD_WRITE, 0x100);
    assert_eq!(tally.acted(), 0);
    write(&mut testbed, register::PAYLOAD_WRITE, 0x200);
    write(&mut testbed, register::PAYLOAD_WRITE, 0x300);

    assert_eq!(tally.acted(), 1);
    let lengths: Vec<usize> = testbed.bus.requests.iter().map(|r| r.len).collect();
    assert_eq!(lengths, [8, 11, 8]);
    assert_eq!(
        testbed.bus.bytes(0x206, 6),
        [0xaa, 0xaa, 0xee, 0xee, 0xee, 0]
    );
}

#[test]
fn write_back_goes_where_the_payload_was_read() {
    let (mut testbed, tally) = armed(vec![Lie::WriteBack {
        nth: 1,
        bytes_seed: 7,
    }]);

    write(&mut testbed, register::PAYLOAD_WRITE, 0x100);
    assert_eq!(tally.acted(), 0);
    write(&mut testbed, register::PAYLOAD_READ, 0x200);

    assert_eq!(tally.acted(), 1);
    assert_ne!(testbed.bus.bytes(0x200, 8), [0; 8]);
}

#[test]
fn only_payload_is_counted_as_payload() {
    let (mut testbed, tally) = armed(vec![wild(1, Aim::Address(Iova(0x800)))]);

    write(&mut testbed, register::STATUS, 0x100);
    write(&mut testbed, register::COMPLETION, 0x100);

    assert_eq!(tally.acted(), 0);
    write(&mut testbed, register::PAYLOAD_WRITE, 0x100);
    assert_eq!(tally.acted(), 1);
}

#[test]
fn nothing_is_counted_before_arming() {
    let lies = vec![
        wild(1, Aim::Address(Iova(0x800))),
        Lie::NeverCompletes { nth: 1 },
    ];
    let (mut testbed, tally) = unarmed(lies);

    write(&mut testbed, register::PAYLOAD_WRITE, 0x100);
    assert_eq!(read(&mut testbed), Completion::Data(1));
    assert_eq!(tally.acted(), 0);
    tally.arm();
    write(&mut testbed, register::PAYLOAD_WRITE, 0x100);

    assert_eq!(tally.acted(), 1);
    assert_eq!(read(&mut testbed), Completion::Never);
}

#[test]
fn lie_the_fabric_refuses_has_still_happened() {
    let (mut testbed, tally) = armed(vec![wild(1, Aim::Address(Iova(u64::MAX)))]);

    write(&mut testbed, register::PAYLOAD_WRITE, 0x100);

    assert_eq!(tally.acted(), 1);
    assert_eq!(testbed.bus.requests[1].at, Iova(u64::MAX));
}

#[test]
fn lie_stopped_by_the_bus_master_bit_has_not_happened() {
    let (mut testbed, tally) = armed(vec![wild(1, Aim::Address(Iova(0x800)))]);
    testbed.set_command(command::MEMORY);

    write(&mut testbed, register::PAYLOAD_WRITE, 0x100);

    assert_eq!(tally.acted(), 0);
    assert!(testbed.bus.requests.is_empty());
}

#[test]
fn stale_write_repeats_the_range_later() {
    let (mut testbed, tally) = armed(vec![stale(2, 50)]);
    write(&mut testbed, register::PAYLOAD_WRITE, 0x100);
    write(&mut testbed, register::PAYLOAD_WRITE, 0x200);

    testbed.run_until(Time(49_999));
    assert_eq!(tally.acted(), 0);
    testbed.run_until(Time(50_000));

    assert_eq!(tally.acted(), 1);
    assert_eq!(tally.first_at(), Some(Time(50_000)));
    assert_eq!(testbed.bus.requests.len(), 3);
    assert_eq!(testbed.bus.requests[2].at, Iova(0x200));
    // SplitMix64's first output for seed 1.
    let expected = 0x910a_2dec_8902_5cc1_u64.to_le_bytes();
    assert_eq!(testbed.bus.bytes(0x200, 8), expected);
    testbed.settle();
    assert_eq!(testbed.bus.requests.len(), 3);
}

#[test]
fn stale_write_outlives_a_function_level_reset() {
    let (mut testbed, tally) = armed(vec![stale(1, 50)]);
    write(&mut testbed, register::PAYLOAD_WRITE, 0x100);

    testbed.function_level_reset();
    testbed.settle();

    assert_eq!(tally.acted(), 1);
}

#[test]
fn recalled_page_is_written_where_it_was_last_written_and_once() {
    // Arrange
    let lie = Lie::Recall {
        after: Duration::from_micros(5),
        bytes_seed: 1,
    };
    let (mut testbed, tally) = armed(vec![lie]);
    for at in [0x1100, 0x1200, 0x2300] {
        write(&mut testbed, register::PAYLOAD_WRITE, at);
    }
    let before = testbed.bus.requests.len();

    // Act: nobody touches the device meanwhile.
    testbed.run_until(Time(1_000_000));
    tally.recall(Iova(0x1000), Time(1_000_000));
    testbed.run_until(Time(2_000_000));
    tally.recall(Iova(0x2000), Time(2_000_000));
    testbed.run_until(Time(3_000_000));

    // Assert
    let late = &testbed.bus.requests[before..];
    assert_eq!(late.len(), 1);
    assert_eq!(late[0].at, Iova(0x1200));
    assert_eq!(tally.acted(), 1);
}

#[test]
fn page_the_device_was_never_given_is_not_written() {
    let lie = Lie::Recall {
        after: Duration::ZERO,
        bytes_seed: 1,
    };
    let (mut testbed, tally) = armed(vec![lie]);
    write(&mut testbed, register::PAYLOAD_WRITE, 0x1100);

    tally.recall(Iova(0x5000), Time::ZERO);
    testbed.run_until(Time(2_000_000));

    assert_eq!(tally.acted(), 0);
}

#[test]
fn stale_write_does_not_outlive_a_cold_reset() {
    let (mut testbed, tally) = armed(vec![stale(1, 50)]);
    write(&mut testbed, register::PAYLOAD_WRITE, 0x100);

    testbed.function.reset(Reset::Cold);
    testbed.set_command(command::MEMORY | command::BUS_MASTER);
    testbed.settle();

    assert_eq!(tally.acted(), 0);
    assert_eq!(testbed.bus.requests.len(), 1);
}

#[test]
fn spurious_step_does_not_lose_a_stale_write() {
    let (mut testbed, tally) = armed(vec![stale(1, 50)]);
    write(&mut testbed, register::PAYLOAD_WRITE, 0x100);
    testbed.bus.wakes.clear();

    testbed.function.step(Budget(1), &mut testbed.bus);
    testbed.settle();

    assert_eq!(tally.acted(), 1);
}

#[test]
fn only_the_nth_read_never_completes() {
    let (mut testbed, tally) = armed(vec![Lie::NeverCompletes { nth: 2 }]);

    let reads = [(); 3].map(|()| read(&mut testbed));

    let expected = [Completion::Data(1), Completion::Never, Completion::Data(2)];
    assert_eq!(reads, expected);
    assert_eq!(tally.acted(), 1);
}

#[test]
fn reads_are_all_ones_for_the_window() {
    let lie = Lie::AllOnes {
        nth: 2,
        window: Duration::from_nanos(100),
    };
    let (mut testbed, tally) = armed(vec![lie]);
    assert_eq!(read(&mut testbed), Completion::Data(1));

    let first = read(&mut testbed);
    testbed.bus.now = Time(99);
    let narrow = testbed.read(Bar::ZERO, register::READS, Width::Two);
    testbed.bus.now = Time(100);
    let after = read(&mut testbed);

    assert_eq!(first, Completion::Data(0xffff_ffff));
    assert_eq!(narrow, Completion::Data(0xffff));
    assert_eq!(after, Completion::Data(2));
    assert_eq!(tally.acted(), 2);
}

#[test]
fn writes_dma_and_interrupts_pass_while_reads_lie() {
    let lie = Lie::AllOnes {
        nth: 1,
        window: Duration::from_secs(1),
    };
    let (mut testbed, tally) = armed(vec![lie]);
    read(&mut testbed);

    write(&mut testbed, register::COMPLETION, 0x100);

    assert_eq!(testbed.bus.bytes(0x100, 8), [1, 2, 3, 4, 5, 6, 7, 8]);
    assert!(testbed.function.intx_level());
    assert_eq!(tally.acted(), 1);
}

#[test]
fn window_of_no_length_still_lies_once() {
    let lie = Lie::AllOnes {
        nth: 1,
        window: Duration::ZERO,
    };
    let (mut testbed, tally) = armed(vec![lie]);

    let reads = [(); 2].map(|()| read(&mut testbed));

    let expected = [Completion::Data(0xffff_ffff), Completion::Data(1)];
    assert_eq!(reads, expected);
    assert_eq!(tally.acted(), 1);
}

fn completion_field(offset: usize, len: usize, value: u64) -> Lie {
    Lie::CompletionField {
        nth: 2,
        offset,
        len,
        value,
    }
}

#[test]
fn field_of_the_nth_completion_is_overwritten() {
    let (mut testbed, tally) = armed(vec![completion_field(2, 4, 0x1122_3344_5566_7788)]);

    for at in [0x100, 0x200, 0x300] {
        write(&mut testbed, register::COMPLETION, at);
    }

    let honest = [1, 2, 3, 4, 5, 6, 7, 8];
    assert_eq!(testbed.bus.bytes(0x100, 8), honest);
    let forged = [1, 2, 0x88, 0x77, 0x66, 0x55, 7, 8];
    assert_eq!(testbed.bus.bytes(0x200, 8), forged);
    assert_eq!(testbed.bus.bytes(0x300, 8), honest);
    assert_eq!(tally.acted(), 1);
}

#[test]
fn field_beyond_the_entry_is_cut_off() {
    let (mut testbed, tally) = armed(vec![completion_field(6, usize::MAX, 0)]);

    write(&mut testbed, register::COMPLETION, 0x100);
    write(&mut testbed, register::COMPLETION, 0x200);

    assert_eq!(testbed.bus.bytes(0x200, 10), [1, 2, 3, 4, 5, 6, 0, 0, 0, 0]);
    assert_eq!(tally.acted(), 1);
}

#[test]
fn field_that_changes_nothing_is_no_lie() {
    for lie in [
        completion_field(0, 2, 0x0201),
        completion_field(8, 4, 0),
        completion_field(usize::MAX, 8, 0),
    ] {
        let (mut testbed, tally) = armed(vec![lie]);

        write(&mut testbed, register::COMPLETION, 0x100);
        write(&mut testbed, register::COMPLETION, 0x200);

        assert_eq!(testbed.bus.bytes(0x200, 8), [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(tally.acted(), 0);
    }
}

#[test]
fn zeroth_lies_are_never_told() {
    let lies = vec![
        wild(0, Aim::Address(Iova(0x800))),
        stale(0, 0),
        Lie::NeverCompletes { nth: 0 },
    ];
    let (mut testbed, tally) = armed(lies);

    write(&mut testbed, register::PAYLOAD_WRITE, 0x100);
    read(&mut testbed);
    testbed.settle();

    assert_eq!(tally.acted(), 0);
}

#[test]
fn several_lies_act_side_by_side() {
    let lies = vec![
        wild(1, Aim::Address(Iova(0x800))),
        stale(1, 10),
        wild(1, Aim::BesideLast { gap: 0 }),
    ];
    let (mut testbed, tally) = armed(lies);

    write(&mut testbed, register::PAYLOAD_WRITE, 0x100);
    testbed.settle();

    assert_eq!(tally.acted(), 3);
    // The lies themselves are not payload of the device: none of them triggered another.
    assert_eq!(testbed.bus.requests.len(), 4);
}

#[test]
fn honest_device_shows_through() {
    let (mut testbed, tally) = armed(Vec::new());

    write(&mut testbed, register::COMPLETION, 0x100);
    let value = read(&mut testbed);

    assert_eq!(value, Completion::Data(1));
    assert_eq!(testbed.function.identity().device, 2);
    assert!(testbed.function.intx_level());
    assert_eq!(testbed.bus.bytes(0x100, 8), [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(tally.acted(), 0);
}

#[test]
fn edu_overruns_the_buffer_it_was_given() {
    let edu = vdevice_edu::Edu::new(vdevice_edu::EduTiming::default());
    let lie = wild(1, Aim::BesideLast { gap: 0 });
    let (device, tally) = Tamper::new(Box::new(edu), vec![lie]);
    let mut testbed = Testbed::new(Box::new(device));
    tally.arm();

    // Sixteen bytes from the device's buffer to memory.
    for (register, value) in [(0x80, 0x4_0000), (0x88, 0x1000), (0x90, 16), (0x98, 3)] {
        write(&mut testbed, register, value);
    }
    testbed.settle();

    assert_eq!(tally.acted(), 1);
    assert_eq!(tally.first_at(), Some(Time(20_000)));
    assert_eq!(testbed.bus.bytes(0x1010, 4), [0xee; 4]);
}

/// Two completions, at 0x100 and 0x108, each published by an index at 0x200.
fn complete_twice(testbed: &mut Testbed) {
    for at in [0x100, 0x108] {
        write(testbed, register::COMPLETION, at);
        write(testbed, register::PUBLISH, 0x200);
    }
}

const ENTRY: [u8; 8] = [1, 2, 3, 4, 5, 6, 7, 8];

#[test]
fn repeated_completion_fills_the_next_slot_and_counts_on() {
    let repeat = Lie::Repeat {
        nth: 2,
        slot: 8,
        publishing: Publishing::Index,
    };
    let (mut testbed, tally) = armed(vec![repeat]);

    complete_twice(&mut testbed);

    assert_eq!(testbed.bus.bytes(0x110, 8), ENTRY);
    assert_eq!(testbed.bus.bytes(0x118, 8), [0; 8]);
    assert_eq!(testbed.bus.bytes(0x200, 2), [6, 0]);
    assert_eq!(tally.acted(), 1);
}

#[test]
fn repeated_completion_with_a_phase_is_published_in_its_own_slot() {
    let repeat = Lie::Repeat {
        nth: 1,
        slot: 16,
        publishing: Publishing::Phase { byte: 0, mask: 1 },
    };
    let (mut testbed, tally) = armed(vec![repeat]);

    write(&mut testbed, register::COMPLETION, 0x100);
    write(&mut testbed, register::PUBLISH, 0x108);

    assert_eq!(testbed.bus.bytes(0x110, 8), ENTRY);
    assert_eq!(testbed.bus.bytes(0x118, 2), [5, 0]);
    assert_eq!(tally.acted(), 1);
}

#[test]
fn double_fetched_entry_changes_when_its_time_has_come() {
    let lie = Lie::DoubleFetch {
        nth: 1,
        after: Duration::from_nanos(300),
    };
    let (mut testbed, tally) = armed(vec![lie]);

    write(&mut testbed, register::COMPLETION, 0x100);
    write(&mut testbed, register::PUBLISH, 0x200);
    let before = (testbed.bus.bytes(0x100, 8).to_vec(), tally.acted());
    testbed.run_until(Time(300));

    assert_eq!(before, (ENTRY.to_vec(), 0));
    assert_eq!(testbed.bus.bytes(0x100, 8), ENTRY.map(|byte| !byte));
    assert_eq!(tally.acted(), 1);
}

#[test]
fn index_or_phase_of_the_nth_completion_is_wrong() {
    for (publishing, wrong) in [
        (Publishing::Index, [6, 0]),
        (Publishing::Phase { byte: 0, mask: 1 }, [4, 0]),
    ] {
        let (mut testbed, tally) = armed(vec![Lie::Published { nth: 2, publishing }]);

        complete_twice(&mut testbed);

        assert_eq!(testbed.bus.bytes(0x200, 2), wrong);
        assert_eq!(tally.acted(), 1);
    }
}

#[test]
fn field_in_what_publishes_an_entry_is_overwritten() {
    let (mut testbed, tally) = armed(vec![completion_field(8, 2, 0xbeef)]);

    complete_twice(&mut testbed);

    assert_eq!(testbed.bus.bytes(0x108, 8), ENTRY);
    assert_eq!(testbed.bus.bytes(0x200, 2), [0xef, 0xbe]);
    assert_eq!(tally.acted(), 1);
}

#[test]
fn descriptors_are_closed_to_a_circle_after_one_was_read() {
    let lie = Lie::CircularChain { nth: 1, length: 2 };
    let (mut testbed, tally) = armed(vec![lie]);
    testbed.bus.bytes(0x1010, 12).fill(7);

    write(&mut testbed, register::DESCRIPTOR, 0x1010);

    let circle = testbed.bus.bytes(0x1000, 32);
    assert_eq!(circle[12..16], [1, 0, 1, 0]);
    assert_eq!(circle[28..32], [1, 0, 0, 0]);
    assert_eq!(tally.acted(), 1);
}

#[test]
fn virtio_block_returns_a_chain_nobody_offered() {
    let disk = vdevice_virtio::VirtioBlk::new(vdevice_virtio::BlkConfig::default());
    let lie = Lie::CompletionField {
        nth: 1,
        offset: 0,
        len: 4,
        value: 0xffff,
    };
    let (device, tally) = Tamper::new(Box::new(disk), vec![lie]);
    let mut testbed = Testbed::new(Box::new(device));
    tally.arm();
    let structures = Bar::new(4).unwrap();
    // Negotiate VERSION_1, place the rings, start, offer GET_ID without a buffer for it.
    for (offset, width, value) in [
        (0x08, Width::Four, 1),
        (0x0c, Width::Four, 1),
        (0x14, Width::One, 0xb),
        (0x18, Width::Two, 2),
        (0x20, Width::Eight, 0x1000),
        (0x28, Width::Eight, 0x2000),
        (0x30, Width::Eight, 0x3000),
        (0x1c, Width::Two, 1),
        (0x14, Width::One, 0xf),
    ] {
        testbed.write(structures, offset, width, value);
    }
    let header = [0, 0x40, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 1, 0, 1, 0];
    testbed.bus.bytes(0x1000, 16).copy_from_slice(&header);
    let status = [0, 0x50, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0];
    testbed.bus.bytes(0x1010, 16).copy_from_slice(&status);
    testbed.bus.bytes(0x4000, 1)[0] = 8;
    testbed.bus.bytes(0x2002, 1)[0] = 1;

    testbed.write(structures, 0x3000, Width::Two, 0);
    testbed.settle();

    assert_eq!(tally.acted(), 1);
    assert_eq!(testbed.bus.bytes(0x3002, 6), [1, 0, 0xff, 0xff, 0, 0]);
}

#[test]
fn read_beside_the_payload_follows_the_nth_read_of_payload() {
    let (mut testbed, tally) = armed(vec![Lie::ReadBeside {
        nth: 2,
        gap: 4,
        len: 16,
    }]);

    write(&mut testbed, register::PAYLOAD_WRITE, 0x400);
    write(&mut testbed, register::PAYLOAD_READ, 0x100);
    write(&mut testbed, register::PAYLOAD_READ, 0x200);

    assert_eq!(tally.acted(), 1);
    let last = testbed.bus.requests.last().unwrap();
    assert_eq!(last.at, Iova(0x20c));
}

#[test]
fn claims_that_the_fabric_refuses_were_made_all_the_same() {
    let (mut testbed, tally) = armed(vec![
        Lie::TranslatedWrite {
            nth: 1,
            at: Iova(0x800),
            bytes: vec![0xee],
        },
        Lie::BorrowedWrite {
            nth: 1,
            claimed: cofferdam_seam::RequesterId(7),
            at: Iova(0x800),
            bytes: vec![0xee],
        },
    ]);

    write(&mut testbed, register::PAYLOAD_WRITE, 0x100);

    assert_eq!(tally.acted(), 2);
    assert_eq!(testbed.bus.bytes(0x800, 1), [0]);
}

#[test]
fn write_after_a_reset_waits_for_bus_mastering_and_comes_once() {
    let (mut testbed, tally) = armed(vec![Lie::WriteAfterReset {
        after: Duration::from_micros(5),
        bytes_seed: 1,
    }]);
    write(&mut testbed, register::PAYLOAD_WRITE, 0x100);
    write(&mut testbed, register::PAYLOAD_WRITE, 0x300);
    let honest = testbed.bus.bytes(0x300, 8).to_vec();

    for round in 0..2 {
        let start = 1_000_000 * round;
        testbed.function_level_reset();
        testbed.set_command(command::MEMORY);
        read(&mut testbed);
        testbed.run_until(Time(start + 500_000));
        assert_eq!(u64::from(tally.acted()), round);
        testbed.set_command(command::MEMORY | command::BUS_MASTER);
        testbed.run_until(Time(start + 1_000_000));
        assert_eq!(tally.acted(), 1);
    }

    assert_ne!(testbed.bus.bytes(0x300, 8), honest);
}
