//! The device as a driver sees it. Offsets and values are literals of Intel's manual.

use crate::spec::check_sequence;
use crate::{E1000, E1000Config, Peer};
use cofferdam_seam::{Bar, Purpose, Time, Width};
use core::time::Duration;
use proptest::prelude::*;
use vdevice_pci::spec::{capability, msi};
use vdevice_pci::testbed::Testbed;

const OWN: [u8; 6] = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];

const CTRL: u32 = 0x0000;
const STATUS: u32 = 0x0008;
const ICR: u32 = 0x00c0;
const ICS: u32 = 0x00c8;
const IMS: u32 = 0x00d0;
const IMC: u32 = 0x00d8;
const RCTL: u32 = 0x0100;
const TCTL: u32 = 0x0400;
const RDT: u32 = 0x2818;
const TDH: u32 = 0x3810;
const TDT: u32 = 0x3818;

/// RCTL: on, broadcasts, check sequence stripped. TCTL: on, short frames padded.
const RECEIVE: u32 = 1 << 1 | 1 << 15 | 1 << 26;
const TRANSMIT: u32 = 1 << 1 | 1 << 3;

/// Rings of eight, and buffers, at these addresses.
const TRANSMIT_RING: u64 = 0x1000;
const RECEIVE_RING: u64 = 0x2000;
const FRAME: u64 = 0x3000;
const BUFFERS: u64 = 0x4000;
const BUFFER: u64 = 0x800;

fn testbed(config: E1000Config) -> Testbed {
    Testbed::new(Box::new(E1000::new(config)))
}

fn read(bed: &mut Testbed, offset: u32) -> u32 {
    u32::try_from(bed.value(Bar::ZERO, offset, Width::Four)).expect("32 bits")
}

fn write(bed: &mut Testbed, offset: u32, value: u32) {
    bed.write(Bar::ZERO, offset, Width::Four, value.into());
}

fn ring(bed: &mut Testbed, first: u32, base: u64) {
    write(bed, first, u32::try_from(base).expect("32 bits"));
    write(bed, first + 4, 0);
    write(bed, first + 8, 8 * 16);
    write(bed, first + 0x10, 0);
    write(bed, first + 0x18, 0);
}

/// A device in service with its link up, `buffers` receive buffers and no interrupts.
fn running_with(config: E1000Config, buffers: u16) -> Testbed {
    let mut bed = testbed(config);
    write(&mut bed, CTRL, 1 << 6);
    ring(&mut bed, 0x3800, TRANSMIT_RING);
    write(&mut bed, TCTL, TRANSMIT);
    ring(&mut bed, 0x2800, RECEIVE_RING);
    write(&mut bed, RCTL, RECEIVE);
    for index in 0..u64::from(buffers) {
        let at = BUFFERS + BUFFER * index;
        bed.bus
            .bytes(RECEIVE_RING + 16 * index, 8)
            .copy_from_slice(&at.to_le_bytes());
    }
    write(&mut bed, RDT, buffers.into());
    bed.settle();
    read(&mut bed, ICR);
    bed
}

fn running() -> Testbed {
    running_with(E1000Config::default(), 7)
}

/// A frame to ourselves through the echo: it comes back with its addresses exchanged.
fn frame(len: usize) -> Vec<u8> {
    let addresses = [[0x02, 0, 0, 0, 0, 0x09], OWN].concat();
    let data = (0..=250).cycle().take(len - 12);
    addresses.into_iter().chain(data).collect()
}

/// Puts a descriptor into the transmit ring.
fn describe(bed: &mut Testbed, index: u64, at: u64, len: usize, command: u8) {
    let [low, high, ..] = len.to_le_bytes();
    let mut descriptor = [0; 16];
    descriptor[..8].copy_from_slice(&at.to_le_bytes());
    descriptor[8..12].copy_from_slice(&[low, high, 0, command]);
    bed.bus
        .bytes(TRANSMIT_RING + 16 * index, 16)
        .copy_from_slice(&descriptor);
}

/// Sends one frame by the first descriptor: EOP, IFCS, RS.
fn send(bed: &mut Testbed, frame: &[u8]) {
    bed.bus.bytes(FRAME, frame.len()).copy_from_slice(frame);
    describe(bed, 0, FRAME, frame.len(), 0b1011);
    write(bed, TDT, 1);
    bed.settle();
}

/// Length, status and errors of a receive descriptor.
fn received(bed: &mut Testbed, index: u64) -> (usize, u8, u8) {
    let bytes = bed.bus.bytes(RECEIVE_RING + 16 * index, 16);
    (
        u16::from_le_bytes([bytes[8], bytes[9]]).into(),
        bytes[12],
        bytes[13],
    )
}

#[test]
fn identity_is_that_of_the_82540em() {
    let mut bed = testbed(E1000Config::default());

    assert_eq!(bed.function.config_read(0x00, Width::Four), 0x100e_8086);
    assert_eq!(bed.function.config_read(0x08, Width::Four) >> 8, 0x02_0000);
    assert_eq!(bed.function.bar_size(Bar::ZERO), Some(0x2_0000));
    assert_eq!(read(&mut bed, 0x5400), 0x1200_5452);
    assert_eq!(read(&mut bed, 0x5404), 0x8000_5634);
}

#[test]
fn eeprom_and_phy_answer_through_their_registers() {
    let mut bed = testbed(E1000Config::default());

    write(&mut bed, 0x14, 0x0001);
    write(&mut bed, 0x20, 0b10 << 26 | 1 << 21 | 2 << 16);

    assert_eq!(read(&mut bed, 0x14), 0x5452_0010);
    assert_eq!(read(&mut bed, 0x20) & 0x1000_ffff, 0x1000_0141);
}

#[test]
fn reset_takes_a_microsecond_and_clears_the_registers() {
    let mut bed = running();

    write(&mut bed, CTRL, 1 << 26);
    let during = read(&mut bed, CTRL);
    write(&mut bed, TCTL, TRANSMIT);
    bed.bus.now = Time(bed.bus.now.0 + 1000);

    assert_eq!(during >> 26 & 1, 1);
    assert_eq!(read(&mut bed, CTRL) >> 26 & 1, 0);
    assert_eq!(
        [TCTL, RCTL, 0x3800, 0x2808].map(|at| read(&mut bed, at)),
        [0; 4]
    );
    assert_eq!(read(&mut bed, 0x5400), 0x1200_5452);
}

#[test]
fn link_comes_up_when_it_is_asked_for_and_tells() {
    let mut bed = testbed(E1000Config::default());
    assert_eq!(read(&mut bed, STATUS) & 2, 0);

    write(&mut bed, CTRL, 1 << 6);
    bed.run_until(Time(99_999));
    assert_eq!(read(&mut bed, STATUS) & 2, 0);
    bed.settle();

    assert_eq!(read(&mut bed, STATUS) & 2, 2);
    assert_eq!(read(&mut bed, ICR), 1 << 2);
}

#[test]
fn frame_goes_out_and_comes_back() {
    let mut bed = running();
    let frame = frame(100);

    send(&mut bed, &frame);

    assert_eq!(bed.bus.bytes(TRANSMIT_RING + 12, 1), [1]);
    assert_eq!(read(&mut bed, TDH), 1);
    assert_eq!(received(&mut bed, 0), (100, 0b111, 0));
    let back = bed.bus.bytes(BUFFERS, 100).to_vec();
    assert_eq!(back, [&frame[6..12], &frame[..6], &frame[12..]].concat());
    // TXDW, TXQE, RXT0.
    assert_eq!(read(&mut bed, ICR), 0b1000_0011);
    assert_eq!(read(&mut bed, ICR), 0);
    assert_eq!([0x4074, 0x4080].map(|at| read(&mut bed, at)), [1, 1]);
}

#[test]
fn payload_is_written_before_the_status_that_tells_of_it() {
    let mut bed = running();

    send(&mut bed, &frame(100));

    let writes = bed.bus.requests.iter().filter(|request| request.write);
    let purposes: Vec<Purpose> = writes.map(|request| request.why).collect();
    let expected = [
        Purpose::Publish,
        Purpose::Payload,
        Purpose::Completion,
        Purpose::Publish,
    ];
    assert_eq!(purposes, expected);
}

#[test]
fn frame_of_several_descriptors_is_one_frame() {
    let mut bed = running();
    let frame = frame(90);
    bed.bus.bytes(FRAME, 90).copy_from_slice(&frame);

    describe(&mut bed, 0, FRAME, 40, 0);
    describe(&mut bed, 1, FRAME + 40, 50, 0b1011);
    write(&mut bed, TDT, 2);
    bed.settle();

    assert_eq!(received(&mut bed, 0).0, 90);
    assert_eq!(
        bed.bus.bytes(TRANSMIT_RING + 12, 1),
        [0],
        "no status asked for"
    );
}

#[test]
fn short_frame_is_padded_and_a_runt_is_lost() {
    let mut bed = running();
    send(&mut bed, &frame(20));
    assert_eq!(received(&mut bed, 0).0, 60);

    let mut bed = running();
    write(&mut bed, TCTL, 1 << 1);
    send(&mut bed, &frame(20));
    assert_eq!(received(&mut bed, 0).0, 0);
}

#[test]
fn check_sequence_of_the_driver_must_be_right() {
    let good = [frame(60), check_sequence(&frame(60)).to_vec()].concat();
    let bad = [frame(60), vec![0; 4]].concat();
    for (frame, expected) in [(good, 60), (bad, 0)] {
        let mut bed = running();
        bed.bus.bytes(FRAME, 64).copy_from_slice(&frame);
        // EOP and RS alone.
        describe(&mut bed, 0, FRAME, 64, 0b1001);
        write(&mut bed, TDT, 1);
        bed.settle();
        assert_eq!(received(&mut bed, 0).0, expected);
    }
}

#[test]
fn check_sequence_is_kept_unless_it_is_stripped() {
    let mut bed = running();
    write(&mut bed, RCTL, RECEIVE & !(1 << 26));

    send(&mut bed, &frame(60));

    assert_eq!(received(&mut bed, 0).0, 64);
    let back = bed.bus.bytes(BUFFERS, 64).to_vec();
    assert_eq!(back[60..], check_sequence(&back[..60]));
}

#[test]
fn frame_longer_than_a_buffer_fills_several() {
    let mut bed = running();
    // 1024-byte buffers.
    write(&mut bed, RCTL, RECEIVE | 1 << 16);

    send(&mut bed, &frame(1500));

    assert_eq!(received(&mut bed, 0), (1024, 0b101, 0));
    assert_eq!(received(&mut bed, 1), (476, 0b111, 0));
}

#[test]
fn long_frame_is_taken_only_if_asked_for() {
    for (rctl, expected) in [(RECEIVE, 0), (RECEIVE | 1 << 5, 1600)] {
        let mut bed = running();
        write(&mut bed, RCTL, rctl);
        send(&mut bed, &frame(1600));
        assert_eq!(received(&mut bed, 0).0, expected);
    }
}

#[test]
fn frame_waits_for_a_descriptor() {
    let mut bed = running_with(E1000Config::default(), 0);
    bed.bus
        .bytes(RECEIVE_RING, 8)
        .copy_from_slice(&BUFFERS.to_le_bytes());

    send(&mut bed, &frame(60));
    assert_eq!(received(&mut bed, 0).1, 0);
    write(&mut bed, RDT, 1);
    bed.settle();

    assert_eq!(received(&mut bed, 0).1, 0b111);
}

#[test]
fn packet_buffer_runs_over_and_tells() {
    let mut bed = running_with(E1000Config::default(), 0);
    bed.bus.bytes(FRAME, 1500).copy_from_slice(&frame(1500));
    for index in 0..8 {
        describe(&mut bed, index, FRAME, 1500, 0b1011);
    }

    // 32 frames of 1500 bytes fit into 48 KiB; 33 to 35 do not.
    for _ in 0..5 {
        write(&mut bed, TDH, 0);
        write(&mut bed, TDT, 7);
        bed.settle();
    }

    assert_eq!(read(&mut bed, ICR) >> 6 & 1, 1);
    assert_eq!(read(&mut bed, 0x4010), 3);
}

#[test]
fn last_descriptors_are_announced() {
    let mut bed = running_with(E1000Config::default(), 5);
    send(&mut bed, &frame(60));
    // Four of eight are left.
    assert_eq!(read(&mut bed, ICR) >> 4 & 1, 1);
}

#[test]
fn frames_for_others_are_ignored() {
    let mut bed = running();
    let mut other = frame(60);
    other[11] ^= 1;
    send(&mut bed, &other);
    assert_eq!(received(&mut bed, 0).0, 0);
}

#[test]
fn nothing_is_sent_while_the_link_is_down() {
    let config = E1000Config {
        negotiation: None,
        ..E1000Config::default()
    };
    let mut bed = running_with(config, 7);

    send(&mut bed, &frame(60));

    assert_eq!(read(&mut bed, TDH), 0);
    assert_eq!(bed.bus.requests, []);
}

#[test]
fn quiet_partner_answers_nothing() {
    let config = E1000Config {
        peer: Peer::Quiet,
        ..E1000Config::default()
    };
    let mut bed = running_with(config, 7);

    send(&mut bed, &frame(60));

    assert_eq!(read(&mut bed, TDH), 1);
    assert_eq!(received(&mut bed, 0).0, 0);
}

#[test]
fn pin_follows_causes_and_mask() {
    let mut bed = testbed(E1000Config::default());

    write(&mut bed, ICS, 1 << 7);
    assert!(!bed.function.intx_level());
    write(&mut bed, IMS, 1 << 7);
    assert!(bed.function.intx_level());
    write(&mut bed, IMC, 1 << 7);
    assert!(!bed.function.intx_level());
    write(&mut bed, IMS, 1 << 7);
    read(&mut bed, ICR);
    assert!(!bed.function.intx_level());
}

#[test]
fn message_is_sent_when_causes_appear() {
    let mut bed = running();
    let at = bed.capability(capability::MSI);
    bed.config_write(at + msi::ADDRESS, Width::Four, 0xfee0_0000);
    bed.config_write(at + msi::DATA, Width::Two, 0x31);
    bed.config_write(at + msi::CONTROL, Width::Two, msi::ENABLE.into());
    write(&mut bed, IMS, 1 << 7);

    send(&mut bed, &frame(60));
    assert_eq!(bed.bus.messages.len(), 1);
    read(&mut bed, ICR);
    write(&mut bed, ICS, 1 << 7);

    assert_eq!(bed.bus.messages.len(), 2);
    assert_eq!(bed.bus.messages[0].1, 0x31);
}

#[test]
fn ring_that_cannot_be_read_stops_until_a_reset() {
    let mut bed = running();
    bed.bus.refused.push(TRANSMIT_RING..TRANSMIT_RING + 128);

    send(&mut bed, &frame(60));
    bed.bus.refused.clear();
    write(&mut bed, TDT, 2);
    bed.settle();

    assert_eq!(read(&mut bed, TDH), 0);
    assert_eq!(read(&mut bed, ICR), 0);
}

#[test]
fn tail_outside_the_ring_does_nothing() {
    let mut bed = running();
    write(&mut bed, TDT, 8);
    bed.settle();
    assert_eq!(bed.bus.requests, []);
}

#[test]
fn endless_frame_is_not_gathered_and_the_next_one_goes() {
    let mut bed = running();
    for index in 0..6 {
        describe(&mut bed, index, FRAME, 8000, 0);
    }
    describe(&mut bed, 6, FRAME, 8000, 0b1011);
    write(&mut bed, TDT, 7);
    bed.settle();
    assert_eq!(received(&mut bed, 0).0, 0);

    bed.bus.bytes(FRAME, 60).copy_from_slice(&frame(60));
    describe(&mut bed, 7, FRAME, 60, 0b1011);
    write(&mut bed, TDT, 0);
    bed.settle();

    assert_eq!(received(&mut bed, 0).0, 60);
}

#[test]
fn function_level_reset_ends_all_work() {
    let mut bed = running();
    bed.bus.bytes(FRAME, 60).copy_from_slice(&frame(60));
    describe(&mut bed, 0, FRAME, 60, 0b1011);
    write(&mut bed, TDT, 1);

    bed.function_level_reset();
    bed.settle();

    assert_eq!(bed.bus.requests, []);
    assert_eq!(read(&mut bed, TCTL), 0);
}

proptest! {
    /// Whatever a driver writes where, the device takes no more than a few steps for each write, and
    /// still answers.
    #[test]
    fn hostile_driver_neither_panics_the_device_nor_keeps_it_busy(
        writes in prop::collection::vec((0u32..0x1800, any::<u32>()), 0..80),
        memory in any::<u8>(),
        wire in 0u64..20,
    ) {
        let config = E1000Config {
            wire: Duration::from_micros(wire),
            ..E1000Config::default()
        };
        let mut bed = running_with(config, 7);
        bed.bus.memory.fill(memory);
        for (place, value) in writes {
            // Registers lie in 6 KiB here and there: the first, and those of the rings.
            let offset = match place {
                0..0x400 => place * 4 % 0x420,
                0x400..0x800 => 0x2800 + place % 8 * 4,
                0x800..0x1000 => 0x3800 + place % 8 * 4,
                _ => place * 4 % 0x6000,
            };
            write(&mut bed, offset & !3, value);
            let later = Time(bed.bus.now.0 + 100_000);
            bed.run_until(later);
        }
        bed.function_level_reset();
        prop_assert_eq!(read(&mut bed, 0x5400), 0x1200_5452);
    }
}
