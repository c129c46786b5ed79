//! The wire format against bytes written down from the standard.

use super::identify::{Controller, Namespace};
use super::log::{ErrorEntry, Event, Health};
use super::*;
use core::mem::offset_of;

#[test]
fn command_has_the_layout_of_the_standard() {
    let mut bytes = [0; 64];
    for (index, byte) in (0..).zip(&mut bytes) {
        *byte = index;
    }

    let command = Command::read_from_bytes(&bytes).unwrap();

    assert_eq!((command.opcode, command.flags), (0, 1));
    assert_eq!(command.id.get(), 0x0302);
    assert_eq!(command.namespace.get(), 0x0706_0504);
    assert_eq!(command.prp1.get(), 0x1f1e_1d1c_1b1a_1918);
    assert_eq!(command.prp2.get(), 0x2726_2524_2322_2120);
    assert_eq!(command.dword(10), 0x2b2a_2928);
    assert_eq!(command.dword(15), 0x3f3e_3d3c);
    assert_eq!(command.qword(10), 0x2f2e_2d2c_2b2a_2928);
    assert_eq!(command.halves(12), [0x3130, 0x3332]);
}

#[test]
fn completion_has_the_layout_of_the_standard() {
    let entry = Completion {
        result: 0x0102_0304.into(),
        reserved: 0.into(),
        submission_head: 0x1112.into(),
        submission: 0x2122.into(),
        id: 0x3132.into(),
        status: Status::LBA_OUT_OF_RANGE.with_phase(true).into(),
    };

    let bytes = entry.as_bytes();

    // DNR and M, SCT 0, SC 80h, phase 1.
    #[rustfmt::skip]
    assert_eq!(bytes, [
        4, 3, 2, 1, 0, 0, 0, 0, 0x12, 0x11, 0x22, 0x21, 0x32, 0x31, 0x01, 0xc1,
    ]);
    assert_eq!(bytes[completion::SUBMISSION_HEAD], 0x12);
    assert_eq!(bytes[completion::SUBMISSION], 0x22);
    let published = &bytes[completion::PUBLISH..];
    assert_eq!(published[completion::ID], 0x32);
    assert_eq!(published[completion::STATUS] & 1, 1);
}

#[test]
fn status_field_holds_type_and_code() {
    assert_eq!(Status::SUCCESS.with_phase(false), 0);
    assert_eq!(Status::SUCCESS.with_phase(true), 1);
    // A transfer error may pass: no DNR. Compare Failure is a media error: SCT 2, SC 85h.
    assert_eq!(Status::DATA_TRANSFER_ERROR.with_phase(false), 0x4008);
    assert_eq!(Status::COMPARE_FAILURE.with_phase(false), 0xc50a);
    assert_eq!(Status::of(0xc50b), Status::COMPARE_FAILURE);
}

#[test]
fn capabilities_have_the_bits_of_the_standard() {
    let bit = |value: Capabilities| value.into_bits();

    assert_eq!(
        bit(Capabilities::new().with_contiguous_queues(true)),
        1 << 16
    );
    assert_eq!(bit(Capabilities::new().with_arbitration(1)), 1 << 17);
    assert_eq!(bit(Capabilities::new().with_timeout(1)), 1 << 24);
    assert_eq!(bit(Capabilities::new().with_doorbell_stride(1)), 1 << 32);
    assert_eq!(bit(Capabilities::new().with_subsystem_reset(true)), 1 << 36);
    assert_eq!(bit(Capabilities::new().with_command_sets(1)), 1 << 37);
    assert_eq!(bit(Capabilities::new().with_boot_partitions(true)), 1 << 45);
    assert_eq!(bit(Capabilities::new().with_min_page(1)), 1 << 48);
    assert_eq!(bit(Capabilities::new().with_max_page(1)), 1 << 52);
    assert_eq!(
        bit(Capabilities::new().with_persistent_memory(true)),
        1 << 56
    );
    assert_eq!(bit(Capabilities::new().with_memory_buffer(true)), 1 << 57);
}

#[test]
fn configuration_has_the_bits_of_the_standard() {
    // IOCQES 4, IOSQES 6, SHN normal, AMS 1, MPS 2, CSS 0, EN.
    let configuration = Configuration::from_bits(0x0046_4901);

    assert!(configuration.enable());
    assert_eq!(configuration.command_set(), 0);
    assert_eq!(configuration.page(), 2);
    assert_eq!(configuration.arbitration(), 1);
    assert_eq!(configuration.shutdown(), shutdown::NORMAL);
    assert_eq!(configuration.submission_entry(), 6);
    assert_eq!(configuration.completion_entry(), 4);
}

#[test]
fn controller_status_has_the_bits_of_the_standard() {
    let bit = |value: ControllerStatus| value.into_bits();

    assert_eq!(bit(ControllerStatus::new().with_ready(true)), 1);
    assert_eq!(bit(ControllerStatus::new().with_fatal(true)), 2);
    assert_eq!(
        bit(ControllerStatus::new().with_shutdown(shutdown::COMPLETE)),
        8
    );
    assert_eq!(bit(ControllerStatus::new().with_subsystem_reset(true)), 16);
    assert_eq!(bit(ControllerStatus::new().with_paused(true)), 32);
}

#[test]
fn admin_queue_attributes_have_the_bits_of_the_standard() {
    let attributes = AdminQueueAttributes::from_bits(0x001f_003f);

    assert_eq!((attributes.submission(), attributes.completion()), (63, 31));
}

#[test]
fn identify_controller_has_the_offsets_of_the_standard() {
    assert_eq!(offset_of!(Controller, serial), 4);
    assert_eq!(offset_of!(Controller, model), 24);
    assert_eq!(offset_of!(Controller, firmware), 64);
    assert_eq!(offset_of!(Controller, max_transfer), 77);
    assert_eq!(offset_of!(Controller, version), 80);
    assert_eq!(offset_of!(Controller, kind), 111);
    assert_eq!(offset_of!(Controller, admin_commands), 256);
    assert_eq!(offset_of!(Controller, log_attributes), 261);
    assert_eq!(offset_of!(Controller, warning_temperature), 266);
    assert_eq!(offset_of!(Controller, submission_entry), 512);
    assert_eq!(offset_of!(Controller, namespaces), 516);
    assert_eq!(offset_of!(Controller, io_commands), 520);
    assert_eq!(offset_of!(Controller, write_cache), 525);
    assert_eq!(offset_of!(Controller, atomic_write), 526);
    assert_eq!(offset_of!(Controller, subsystem_name), 768);
    assert_eq!(offset_of!(Controller, power_state_0), 2048);
}

#[test]
fn identify_namespace_has_the_offsets_of_the_standard() {
    assert_eq!(offset_of!(Namespace, features), 24);
    assert_eq!(offset_of!(Namespace, format), 26);
    assert_eq!(offset_of!(Namespace, deallocated), 33);
    assert_eq!(offset_of!(Namespace, nguid), 104);
    assert_eq!(offset_of!(Namespace, eui64), 120);
    assert_eq!(offset_of!(Namespace, format_0), 128);
}

#[test]
fn log_pages_have_the_offsets_of_the_standard() {
    assert_eq!(offset_of!(ErrorEntry, submission), 8);
    assert_eq!(offset_of!(ErrorEntry, status), 12);
    assert_eq!(offset_of!(ErrorEntry, block), 16);
    assert_eq!(offset_of!(ErrorEntry, namespace), 24);
    assert_eq!(offset_of!(Health, temperature), 1);
    assert_eq!(offset_of!(Health, data_read), 32);
    assert_eq!(offset_of!(Health, reads), 64);
    assert_eq!(offset_of!(Health, power_cycles), 112);
    assert_eq!(offset_of!(Health, errors), 176);
}

#[test]
fn event_dword_names_type_information_and_page() {
    assert_eq!(Event::INVALID_DOORBELL_VALUE.dword(), 0x0001_0100);
    assert_eq!(Event::TEMPERATURE.dword(), 0x0002_0101);
}
