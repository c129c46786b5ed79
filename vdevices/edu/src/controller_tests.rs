//! The device as a driver sees it. Offsets and values are literals of QEMU's docs/specs/edu.rst.

use crate::{Edu, EduTiming};
use cofferdam_seam::{Bar, Budget, Iova, Progress, Purpose, Time, Width};
use proptest::prelude::*;
use vdevice_pci::spec::{capability, command, msi};
use vdevice_pci::testbed::{MESSAGES, Testbed};

const DMA_DONE: Time = Time(20_000);

fn edu() -> Testbed {
    Testbed::new(Box::new(Edu::new(EduTiming::default())))
}

fn read(edu: &mut Testbed, offset: u32) -> u64 {
    edu.value(Bar::ZERO, offset, Width::Four)
}

fn write(edu: &mut Testbed, offset: u32, value: u64) {
    edu.write(Bar::ZERO, offset, Width::Four, value);
}

/// Starts a transfer and waits for its end.
fn transfer(edu: &mut Testbed, from: u64, to: u64, count: u64, command: u64) {
    edu.write(Bar::ZERO, 0x80, Width::Eight, from);
    edu.write(Bar::ZERO, 0x88, Width::Eight, to);
    edu.write(Bar::ZERO, 0x90, Width::Eight, count);
    edu.write(Bar::ZERO, 0x98, Width::Eight, command);
    edu.settle();
}

fn factorial(edu: &mut Testbed, n: u64) -> u64 {
    write(edu, 0x08, n);
    edu.settle();
    read(edu, 0x08)
}

fn enable_msi(edu: &mut Testbed) {
    let at = edu.capability(capability::MSI);
    edu.config_write(at + msi::ADDRESS, Width::Four, 0xfee0_0000);
    edu.config_write(at + msi::DATA, Width::Two, 0x31);
    edu.config_write(at + msi::CONTROL, Width::Two, msi::ENABLE.into());
}

#[test]
fn identity_is_that_of_qemus_edu() {
    let mut edu = edu();

    let ids = edu.function.config_read(0x00, Width::Four);
    let class = edu.function.config_read(0x08, Width::Four);

    assert_eq!(ids, 0x11e8_1234);
    assert_eq!(class, 0x00ff_0010);
    assert_eq!(edu.function.bar_size(Bar::ZERO), Some(0x10_0000));
    assert_eq!(read(&mut edu, 0x00), 0x0100_00ed);
}

#[test]
fn liveness_reads_back_inverted() {
    let mut edu = edu();

    write(&mut edu, 0x04, 0x1234_5678);

    assert_eq!(read(&mut edu, 0x04), 0xedcb_a987);
}

#[test]
fn factorials_are_taken_modulo_two_to_the_32() {
    let mut edu = edu();

    let results = [0, 1, 5, 12, 13, 33, 34, 0xffff_ffff].map(|n| factorial(&mut edu, n));

    let expected = [1, 1, 120, 479_001_600, 1_932_053_504, 0x8000_0000, 0, 0];
    assert_eq!(results, expected);
}

#[test]
fn factorial_computes_for_the_time_it_was_told() {
    let mut edu = edu();
    write(&mut edu, 0x08, 5);

    edu.run_until(Time(9_999));
    assert_eq!((read(&mut edu, 0x20), read(&mut edu, 0x08)), (1, 5));
    edu.run_until(Time(10_000));

    assert_eq!((read(&mut edu, 0x20), read(&mut edu, 0x08)), (0, 120));
}

#[test]
fn factorial_under_way_cannot_be_changed() {
    let mut edu = edu();
    write(&mut edu, 0x08, 5);

    write(&mut edu, 0x08, 3);
    edu.settle();

    assert_eq!(read(&mut edu, 0x08), 120);
}

#[test]
fn computing_bit_is_read_only() {
    let mut edu = edu();

    write(&mut edu, 0x20, 0xffff_ffff);
    assert_eq!(read(&mut edu, 0x20), 0x80);
    write(&mut edu, 0x08, 1);
    write(&mut edu, 0x20, 0);

    assert_eq!(read(&mut edu, 0x20), 1);
}

#[test]
fn factorial_interrupts_only_where_asked_to() {
    let mut edu = edu();

    factorial(&mut edu, 4);
    assert_eq!(read(&mut edu, 0x24), 0);
    write(&mut edu, 0x20, 0x80);
    factorial(&mut edu, 4);

    assert_eq!(read(&mut edu, 0x24), 1);
    assert!(edu.function.intx_level());
}

#[test]
fn raised_bits_hold_the_pin_until_all_are_acknowledged() {
    let mut edu = edu();

    write(&mut edu, 0x60, 0x30);
    assert_eq!(read(&mut edu, 0x24), 0x30);
    write(&mut edu, 0x64, 0x10);
    assert!(edu.function.intx_level());
    write(&mut edu, 0x64, 0x20);

    assert!(!edu.function.intx_level());
    assert_eq!(read(&mut edu, 0x24), 0);
}

#[test]
fn raising_nothing_raises_nothing() {
    let mut edu = edu();
    enable_msi(&mut edu);

    write(&mut edu, 0x60, 0);

    assert!(edu.bus.messages.is_empty());
}

#[test]
fn interrupt_is_one_message_where_msi_is_enabled() {
    let mut edu = edu();
    enable_msi(&mut edu);

    write(&mut edu, 0x60, 1);

    assert_eq!(edu.bus.messages, [(Iova(MESSAGES), 0x31)]);
    assert!(!edu.function.intx_level());
}

#[test]
fn bytes_go_to_the_device_and_back() {
    let mut edu = edu();
    let content: Vec<u8> = (0..16).collect();
    edu.bus.bytes(0x1000, 16).copy_from_slice(&content);

    transfer(&mut edu, 0x1000, 0x4_0100, 16, 1);
    transfer(&mut edu, 0x4_0100, 0x2000, 16, 3);

    assert_eq!(edu.bus.bytes(0x2000, 16), content);
    assert_eq!(read(&mut edu, 0x24), 0);
    let purposes: Vec<_> = edu.bus.requests.iter().map(|r| (r.why, r.write)).collect();
    assert_eq!(
        purposes,
        [(Purpose::Payload, false), (Purpose::Payload, true)]
    );
}

#[test]
fn whole_buffer_can_be_moved() {
    let mut edu = edu();
    edu.bus.bytes(0x1000, 4096).fill(0x5a);

    transfer(&mut edu, 0x1000, 0x4_0000, 4096, 1);
    transfer(&mut edu, 0x4_0000, 0x3000, 4096, 3);

    assert_eq!(edu.bus.bytes(0x3000, 4096), [0x5a; 4096]);
}

#[test]
fn transfer_takes_its_time_and_then_interrupts() {
    let mut edu = edu();
    edu.write(Bar::ZERO, 0x80, Width::Eight, 0x1000);
    edu.write(Bar::ZERO, 0x88, Width::Eight, 0x4_0000);
    edu.write(Bar::ZERO, 0x90, Width::Eight, 8);
    edu.write(Bar::ZERO, 0x98, Width::Eight, 5);

    edu.run_until(Time(DMA_DONE.0 - 1));
    assert!(edu.bus.requests.is_empty());
    assert_eq!(read(&mut edu, 0x98), 5);
    edu.run_until(DMA_DONE);

    assert_eq!(read(&mut edu, 0x98), 4);
    assert_eq!(read(&mut edu, 0x24), 0x100);
    assert_eq!(edu.bus.requests.len(), 1);
}

#[test]
fn transfer_under_way_cannot_be_changed() {
    let mut edu = edu();
    edu.bus.bytes(0x1000, 8).fill(0x11);
    edu.write(Bar::ZERO, 0x80, Width::Eight, 0x1000);
    edu.write(Bar::ZERO, 0x88, Width::Eight, 0x4_0000);
    edu.write(Bar::ZERO, 0x90, Width::Eight, 8);
    edu.write(Bar::ZERO, 0x98, Width::Eight, 1);

    for register in [0x80, 0x88, 0x90, 0x98] {
        edu.write(Bar::ZERO, register, Width::Eight, 3);
    }
    edu.settle();

    assert_eq!(edu.bus.requests.len(), 1);
    assert_eq!(edu.bus.requests[0].at, Iova(0x1000));
    assert_eq!(edu.bus.requests[0].len, 8);
}

#[test]
fn command_without_the_start_bit_does_nothing() {
    let mut edu = edu();

    transfer(&mut edu, 0x1000, 0x4_0000, 8, 6);

    assert!(edu.bus.requests.is_empty());
    assert_eq!(read(&mut edu, 0x98), 0);
    assert_eq!(read(&mut edu, 0x24), 0);
}

#[test]
fn transfer_outside_the_buffer_is_not_carried_out() {
    for (address, count) in [
        (0x3_ffff, 1),
        (0x4_1000, 1),
        (0x4_0fff, 2),
        (0x4_0000, 0),
        (0x4_0000, 4097),
        (0x4_0001, u64::MAX),
        (u64::MAX, 1),
    ] {
        for (from, to, command) in [(0x1000, address, 5), (address, 0x1000, 7)] {
            let mut edu = edu();

            transfer(&mut edu, from, to, count, command);

            assert!(edu.bus.requests.is_empty(), "{address:#x} {count}");
            assert_eq!(read(&mut edu, 0x98), command & !1);
            assert_eq!(read(&mut edu, 0x24), 0x100);
        }
    }
}

#[test]
fn refused_transfer_ends_like_any_other_and_keeps_the_buffer() {
    let mut edu = edu();
    edu.bus.bytes(0x1000, 8).fill(0x11);
    transfer(&mut edu, 0x1000, 0x4_0000, 8, 1);
    edu.bus.refused.push(0x1004..0x1005);

    transfer(&mut edu, 0x1000, 0x4_0000, 8, 5);

    assert_eq!(edu.bus.requests.len(), 2);
    assert_eq!(read(&mut edu, 0x98), 4);
    assert_eq!(read(&mut edu, 0x24), 0x100);
    transfer(&mut edu, 0x4_0000, 0x2000, 8, 3);
    assert_eq!(edu.bus.bytes(0x2000, 8), [0x11; 8]);
}

#[test]
fn transfer_without_bus_mastering_ends_without_dma() {
    let mut edu = edu();
    edu.set_command(command::MEMORY);

    transfer(&mut edu, 0x1000, 0x4_0000, 8, 5);

    assert!(edu.bus.requests.is_empty());
    assert_eq!(read(&mut edu, 0x24), 0x100);
}

#[test]
fn addresses_keep_all_64_bits() {
    let mut edu = edu();

    transfer(&mut edu, 0xfedc_ba98_7654_3210, 0x4_0000, 1, 1);

    assert_eq!(edu.bus.requests[0].at, Iova(0xfedc_ba98_7654_3210));
    let source = edu.value(Bar::ZERO, 0x80, Width::Eight);
    assert_eq!(source, 0xfedc_ba98_7654_3210);
    assert_eq!(read(&mut edu, 0x80), 0x7654_3210);
}

#[test]
fn access_of_the_wrong_width_reads_all_ones_and_writes_nothing() {
    let mut edu = edu();

    edu.write(Bar::ZERO, 0x08, Width::Eight, 5);
    edu.write(Bar::ZERO, 0x60, Width::Two, 5);
    edu.write(Bar::ZERO, 0x80, Width::One, 5);

    assert_eq!(edu.value(Bar::ZERO, 0x00, Width::Eight), u64::MAX);
    assert_eq!(edu.value(Bar::ZERO, 0x00, Width::One), 0xff);
    assert_eq!(edu.value(Bar::ZERO, 0x80, Width::Two), 0xffff);
    assert_eq!(read(&mut edu, 0x20), 0);
    assert_eq!(read(&mut edu, 0x24), 0);
    assert_eq!(read(&mut edu, 0x80), 0);
}

#[test]
fn offsets_without_a_register_read_all_ones() {
    let mut edu = edu();

    for offset in [0x0c, 0x60, 0x64, 0x84, 0xa0, 0xf_fffc] {
        assert_eq!(read(&mut edu, offset), 0xffff_ffff, "{offset:#x}");
    }
}

#[test]
fn work_of_both_kinds_goes_on_at_once() {
    let mut edu = edu();
    edu.write(Bar::ZERO, 0x88, Width::Eight, 0x4_0000);
    edu.write(Bar::ZERO, 0x90, Width::Eight, 8);
    edu.write(Bar::ZERO, 0x98, Width::Eight, 5);
    write(&mut edu, 0x20, 0x80);
    write(&mut edu, 0x08, 3);

    edu.run_until(Time(10_000));
    assert_eq!(read(&mut edu, 0x24), 0x001);
    edu.run_until(DMA_DONE);

    assert_eq!(read(&mut edu, 0x24), 0x101);
}

#[test]
fn budget_limits_the_work_of_a_late_step() {
    let mut edu = edu();
    edu.write(Bar::ZERO, 0x88, Width::Eight, 0x4_0000);
    edu.write(Bar::ZERO, 0x90, Width::Eight, 8);
    edu.write(Bar::ZERO, 0x98, Width::Eight, 1);
    write(&mut edu, 0x08, 3);
    edu.bus.now = DMA_DONE;

    let steps = [0, 1, 1].map(|units| edu.function.step(Budget(units), &mut edu.bus));

    assert_eq!(steps, [Progress::More, Progress::More, Progress::Idle]);
    assert_eq!(read(&mut edu, 0x08), 6);
    assert_eq!(edu.bus.requests.len(), 1);
}

#[test]
fn spurious_step_does_nothing_and_asks_again() {
    let mut edu = edu();
    write(&mut edu, 0x08, 3);
    edu.bus.wakes.clear();

    let progress = edu.function.step(Budget(1), &mut edu.bus);

    assert_eq!(progress, Progress::Idle);
    assert_eq!(read(&mut edu, 0x20), 1);
    assert_eq!(edu.bus.wakes, [Time(10_000)]);
}

#[test]
fn reset_drops_work_and_forgets_everything() {
    let mut edu = edu();
    edu.bus.bytes(0x1000, 8).fill(0x11);
    transfer(&mut edu, 0x1000, 0x4_0000, 8, 1);
    write(&mut edu, 0x04, 0);
    write(&mut edu, 0x60, 1);
    edu.write(Bar::ZERO, 0x98, Width::Eight, 1);
    write(&mut edu, 0x08, 5);
    let before = edu.bus.requests.len();

    edu.function_level_reset();
    edu.settle();

    assert_eq!(edu.bus.requests.len(), before);
    assert!(!edu.function.intx_level());
    for (offset, value) in [(0x04, 0), (0x08, 0), (0x20, 0), (0x24, 0), (0x98, 0)] {
        assert_eq!(read(&mut edu, offset), value, "{offset:#x}");
    }
    transfer(&mut edu, 0x4_0000, 0x2000, 8, 3);
    assert_eq!(edu.bus.bytes(0x2000, 8), [0; 8]);
}

proptest! {
    /// Whatever is written, the device ends, and no transfer is longer than its buffer.
    #[test]
    fn hostile_writes_end(
        writes in proptest::collection::vec((0u32..0x100, 0u8..4, any::<u64>()), 0..64),
    ) {
        let mut edu = edu();
        for (offset, log2, value) in writes {
            let width = Width::from_bytes(1 << log2).unwrap();
            let offset = offset & !(width.bytes() - 1);
            edu.write(Bar::ZERO, offset, width, value);
            let _ = edu.read(Bar::ZERO, offset, width);
        }

        edu.settle();

        prop_assert!(edu.bus.requests.iter().all(|r| r.len <= 4096));
        prop_assert_eq!(read(&mut edu, 0x20) & 1, 0);
    }
}
