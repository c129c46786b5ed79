//! The function as a driver sees it: sizing, capabilities, gates, messages, reset.

use crate::spec::{self, command, msix, pcie};
use crate::testbed::{MESSAGES, REQUESTER, Testbed};
use cofferdam_seam::{
    Access, Bar, BarSpec, Budget, BusPort, Capability, Completion, Device, DmaFault, Iova,
    MsixLocation, PciIdentity, Progress, Purpose, Reset, Vector, Width,
};

const TABLE: u32 = 0x800;
const PBA: u32 = 0xc00;
const BAR4: Bar = Bar::new(4).unwrap();

/// Registers of the test device: reading one gives its offset, writing one acts.
mod register {
    pub const DMA: u32 = 0x10;
    pub const RAISE: u32 = 0x20;
    pub const PIN: u32 = 0x28;
}

static IDENTITY: PciIdentity = PciIdentity {
    vendor: 0x1af4,
    device: 0x1042,
    revision: 1,
    class: [0x01, 0x80, 0x02],
    subsystem: [0x1af4, 0x0002],
    intx: true,
    bars: &[
        BarSpec {
            bar: Bar::ZERO,
            size: 4096,
            wide: false,
            prefetchable: false,
        },
        BarSpec {
            bar: BAR4,
            size: 1 << 33,
            wide: true,
            prefetchable: true,
        },
    ],
    capabilities: &[
        Capability::Msix {
            vectors: 3,
            table: MsixLocation {
                bar: Bar::ZERO,
                offset: TABLE,
            },
            pba: MsixLocation {
                bar: Bar::ZERO,
                offset: PBA,
            },
        },
        Capability::Vendor(&[1, 2, 3]),
        Capability::Msi { log2_vectors: 2 },
        Capability::PcieEndpoint { flr: true },
    ],
};

#[derive(Default)]
struct Probe {
    resets: u64,
    last_dma: Option<DmaFault>,
}

impl Device for Probe {
    fn describe(&self) -> &PciIdentity {
        &IDENTITY
    }

    fn read(&mut self, at: Access, _bus: &mut BusPort<'_>) -> Completion {
        match at.offset() {
            0 => Completion::Data(self.resets),
            register::DMA => Completion::Data(self.last_dma.is_some().into()),
            other => Completion::Data(other.into()),
        }
    }

    fn write(&mut self, at: Access, value: u64, bus: &mut BusPort<'_>) {
        match at.offset() {
            register::DMA => {
                let result = bus.dma_write(Iova(value), &[0xaa; 4], Purpose::Payload);
                self.last_dma = result.err();
            }
            register::RAISE => {
                bus.raise(Vector(value.to_le_bytes()[0].into()));
                let _ = bus.dma_write(Iova(0x100), &[0xbb], Purpose::Completion);
            }
            register::PIN => bus.set_intx(value != 0),
            _ => {}
        }
    }

    fn step(&mut self, _budget: Budget, _bus: &mut BusPort<'_>) -> Progress {
        Progress::Idle
    }

    fn reset(&mut self, _kind: Reset) {
        self.resets += 1;
    }
}

fn testbed() -> Testbed {
    Testbed::new(Box::new(Probe::default()))
}

fn config(testbed: &mut Testbed, offset: u16, width: Width) -> u32 {
    testbed.function.config_read(offset, width)
}

fn raise(testbed: &mut Testbed, vector: u64) {
    testbed.write(Bar::ZERO, register::RAISE, Width::Four, vector);
}

fn enable_msi(testbed: &mut Testbed, granted: u16) {
    let at = testbed.capability(spec::capability::MSI);
    testbed.config_write(at + spec::msi::ADDRESS, Width::Four, 0xfee0_1003);
    testbed.config_write(at + spec::msi::DATA, Width::Two, 0x4047);
    let control = spec::msi::ENABLE | granted << spec::msi::ENABLED_SHIFT;
    testbed.config_write(at + spec::msi::CONTROL, Width::Two, control.into());
}

#[test]
fn header_has_the_bytes_of_the_standard() {
    let mut testbed = testbed();
    testbed.set_command(0);

    let bytes: Vec<u8> = (0..0x40)
        .map(|at| config(&mut testbed, at, Width::One).to_le_bytes()[0])
        .collect();

    #[rustfmt::skip]
    let expected = [
        0xf4, 0x1a, 0x42, 0x10, 0x00, 0x00, 0x10, 0x00, // IDs, command, status (capabilities)
        0x01, 0x02, 0x80, 0x01, 0x00, 0x00, 0x00, 0x00, // revision, class, header type 0
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, // BAR 0 (32 bits)
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x0c, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, // BAR 4 (64 bits, prefetchable)
        0x00, 0x00, 0x00, 0x00, 0xf4, 0x1a, 0x02, 0x00, // subsystem
        0x00, 0x00, 0x00, 0x00, 0x40, 0x00, 0x00, 0x00, // first capability
        0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, // INTA#
    ];
    assert_eq!(bytes, expected);
}

#[test]
fn capabilities_have_the_bytes_of_the_standard() {
    let mut testbed = testbed();

    let bytes: Vec<u8> = (0x40..0x80)
        .map(|at| config(&mut testbed, at, Width::One).to_le_bytes()[0])
        .collect();

    #[rustfmt::skip]
    let expected = [
        0x11, 0x4c, 0x02, 0x00, 0x00, 0x08, 0x00, 0x00, 0x00, 0x0c, 0x00, 0x00, // MSI-X, 3 vectors
        0x09, 0x54, 0x06, 0x01, 0x02, 0x03, 0x00, 0x00, // vendor, length 6
        0x05, 0x64, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00, // MSI, 64 bits, 4 vectors
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x10, 0x00, 0x02, 0x00, 0x00, 0x80, 0x00, 0x10, // PCIe endpoint v2, role-based errors, FLR
        0x10, 0x28, 0x00, 0x00, 0x11, 0x00, 0x00, 0x00, // device control default, 2.5 GT/s x1
        0x00, 0x00, 0x11, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00,
    ];
    assert_eq!(bytes, expected);
}

#[test]
fn all_ones_in_a_bar_read_back_as_its_size() {
    let mut testbed = testbed();

    for register in spec::BARS {
        testbed.config_write(register, Width::Four, u32::MAX);
    }

    let sized = spec::BARS.map(|register| config(&mut testbed, register, Width::Four));
    assert_eq!(sized, [0xffff_f000, 0, 0, 0, 0x0000_000c, 0xffff_fffe]);
}

#[test]
fn bar_holds_the_address_software_wrote() {
    let mut testbed = testbed();

    testbed.config_write(0x10, Width::Four, 0xc000_0fff);
    testbed.config_write(0x24, Width::Four, 0x40);

    assert_eq!(testbed.function.bar_address(Bar::ZERO), Some(0xc000_0000));
    assert_eq!(testbed.function.bar_address(BAR4), Some(0x40_0000_0000));
    assert_eq!(testbed.function.bar_size(BAR4), Some(1 << 33));
    let upper_half = Bar::new(5).unwrap();
    assert_eq!(testbed.function.bar_address(upper_half), None);
    assert_eq!(testbed.function.bar_size(upper_half), None);
}

#[test]
fn read_only_registers_keep_their_value() {
    let mut testbed = testbed();

    for offset in (0..0x100).step_by(4) {
        let flr = testbed.capability(spec::capability::PCIE) + pcie::DEVICE_CONTROL;
        if offset != flr {
            testbed.config_write(offset, Width::Four, u32::MAX);
        }
    }

    assert_eq!(config(&mut testbed, 0, Width::Four), 0x1042_1af4);
    assert_eq!(config(&mut testbed, spec::COMMAND, Width::Two), 0x0546);
    assert_eq!(config(&mut testbed, spec::STATUS, Width::Two), 0x0010);
    assert_eq!(config(&mut testbed, spec::CAPABILITIES, Width::One), 0x40);
}

#[test]
fn misshapen_config_accesses_read_all_ones_and_write_nothing() {
    let mut testbed = testbed();

    testbed.config_write(0x11, Width::Four, u32::MAX);
    testbed.config_write(0x10, Width::Eight, u32::MAX);
    testbed.config_write(4096, Width::Four, u32::MAX);

    assert_eq!(config(&mut testbed, 0x10, Width::Four), 0);
    assert_eq!(config(&mut testbed, 1, Width::Two), 0xffff);
    assert_eq!(config(&mut testbed, 0, Width::Eight), u32::MAX);
    assert_eq!(config(&mut testbed, 4096, Width::One), 0xff);
    assert_eq!(config(&mut testbed, u16::MAX, Width::One), 0xff);
}

#[test]
fn extended_space_has_no_capability() {
    let mut testbed = testbed();

    testbed.config_write(0x100, Width::Four, u32::MAX);

    assert_eq!(config(&mut testbed, 0x100, Width::Four), 0);
    assert_eq!(config(&mut testbed, 0xffc, Width::Four), 0);
}

#[test]
fn register_read_without_memory_decoding_is_unsupported() {
    let mut testbed = testbed();
    testbed.set_command(command::BUS_MASTER);

    testbed.write(Bar::ZERO, register::DMA, Width::Four, 0x200);
    let read = testbed.read(Bar::ZERO, 0x40, Width::Four);

    assert_eq!(read, Completion::Unsupported);
    assert!(testbed.bus.requests.is_empty());
}

#[test]
fn register_access_reaches_the_model_with_its_value_cut_to_width() {
    let mut testbed = testbed();

    testbed.write(Bar::ZERO, register::DMA, Width::Two, 0xffff_0200);

    assert_eq!(testbed.bus.bytes(0x200, 4), [0xaa; 4]);
    assert_eq!(testbed.value(Bar::ZERO, 0x44, Width::Four), 0x44);
}

#[test]
fn access_beyond_the_bar_is_unsupported() {
    let mut testbed = testbed();
    let outside = Access::new(Bar::ZERO, 4096, Width::Four, 1 << 20).unwrap();
    let no_bar = Access::new(Bar::new(2).unwrap(), 0, Width::One, 16).unwrap();

    let first = testbed.function.read(outside, &mut testbed.bus);
    let second = testbed.function.read(no_bar, &mut testbed.bus);

    assert_eq!(first, Completion::Unsupported);
    assert_eq!(second, Completion::Unsupported);
}

#[test]
fn dma_without_bus_mastering_is_refused() {
    let mut testbed = testbed();
    testbed.set_command(command::MEMORY);

    testbed.write(Bar::ZERO, register::DMA, Width::Four, 0x200);

    assert_eq!(testbed.value(Bar::ZERO, register::DMA, Width::Four), 1);
    assert!(testbed.bus.requests.is_empty());
    assert_eq!(testbed.bus.bytes(0x200, 4), [0; 4]);
}

#[test]
fn dma_goes_out_under_the_functions_requester_id() {
    let mut testbed = testbed();

    testbed.write(Bar::ZERO, register::DMA, Width::Four, 0x200);

    assert_eq!(testbed.bus.requests[0].by, REQUESTER);
    assert_eq!(testbed.value(Bar::ZERO, register::DMA, Width::Four), 0);
}

#[test]
fn msix_vector_sends_its_entry_after_the_calls_dma() {
    let mut testbed = testbed();
    testbed.enable_msix();

    raise(&mut testbed, 2);

    assert_eq!(testbed.bus.messages, [(Iova(MESSAGES), 2)]);
    assert_eq!(testbed.bus.bytes(0x100, 1), [0xbb]);
}

#[test]
fn msix_table_reads_back_what_software_wrote() {
    let mut testbed = testbed();

    testbed.write(Bar::ZERO, TABLE + 16, Width::Four, 0xfee0_0003);
    testbed.write(Bar::ZERO, TABLE + 20, Width::Four, 0x1);
    testbed.write(Bar::ZERO, TABLE + 24, Width::Eight, 0xffff_fffe_0000_4242);

    let at = |testbed: &mut Testbed, offset, width| testbed.value(Bar::ZERO, offset, width);
    assert_eq!(at(&mut testbed, TABLE + 16, Width::Eight), 0x1_fee0_0000);
    assert_eq!(at(&mut testbed, TABLE + 24, Width::Eight), 0x4242);
    assert_eq!(at(&mut testbed, TABLE + 25, Width::One), 0x42);
    // Untouched entries are masked.
    assert_eq!(at(&mut testbed, TABLE + 12, Width::Four), 1);
    assert_eq!(at(&mut testbed, TABLE + 44, Width::Four), 1);
    // Beyond the table the model answers.
    assert_eq!(at(&mut testbed, TABLE + 48, Width::Four), 0x830);
}

#[test]
fn narrow_write_to_the_msix_table_does_nothing() {
    let mut testbed = testbed();

    testbed.write(Bar::ZERO, TABLE + 8, Width::Two, 0x1234);

    assert_eq!(testbed.value(Bar::ZERO, TABLE + 8, Width::Four), 0);
}

#[test]
fn masked_vector_is_pending_until_it_is_unmasked() {
    let mut testbed = testbed();
    testbed.enable_msix();
    testbed.write(Bar::ZERO, TABLE + 16 + 12, Width::Four, 1);

    raise(&mut testbed, 1);
    raise(&mut testbed, 1);

    assert!(testbed.bus.messages.is_empty());
    assert_eq!(testbed.value(Bar::ZERO, PBA, Width::Eight), 0b10);
    testbed.write(Bar::ZERO, PBA, Width::Eight, 0);
    testbed.write(Bar::ZERO, TABLE + 16 + 12, Width::Four, 0);
    assert_eq!(testbed.bus.messages, [(Iova(MESSAGES), 1)]);
    assert_eq!(testbed.value(Bar::ZERO, PBA, Width::Eight), 0);
}

#[test]
fn function_mask_holds_every_vector_back() {
    let mut testbed = testbed();
    testbed.enable_msix();
    let control = testbed.capability(spec::capability::MSIX) + msix::CONTROL;
    let masked = msix::ENABLE | msix::FUNCTION_MASK;
    testbed.config_write(control, Width::Two, masked.into());

    raise(&mut testbed, 0);
    raise(&mut testbed, 2);

    assert!(testbed.bus.messages.is_empty());
    testbed.config_write(control, Width::Two, msix::ENABLE.into());
    let data: Vec<u32> = testbed.bus.messages.iter().map(|m| m.1).collect();
    assert_eq!(data, [0, 2]);
}

#[test]
fn vector_beyond_the_table_is_ignored() {
    let mut testbed = testbed();
    testbed.enable_msix();

    raise(&mut testbed, 3);
    raise(&mut testbed, 255);

    assert!(testbed.bus.messages.is_empty());
    assert_eq!(testbed.value(Bar::ZERO, PBA, Width::Eight), 0);
}

#[test]
fn message_without_bus_mastering_is_not_sent() {
    let mut testbed = testbed();
    testbed.enable_msix();
    testbed.set_command(command::MEMORY);

    raise(&mut testbed, 0);

    assert!(testbed.bus.messages.is_empty());
}

#[test]
fn msi_message_carries_the_vector_in_its_low_bits() {
    let mut testbed = testbed();
    enable_msi(&mut testbed, 2);

    raise(&mut testbed, 2);
    raise(&mut testbed, 4);

    assert_eq!(testbed.bus.messages, [(Iova(0xfee0_1000), 0x4046)]);
}

#[test]
fn msi_grant_beyond_what_was_asked_is_cut_down() {
    let mut testbed = testbed();
    enable_msi(&mut testbed, 7);

    raise(&mut testbed, 3);
    raise(&mut testbed, 4);

    assert_eq!(testbed.bus.messages, [(Iova(0xfee0_1000), 0x4047)]);
}

#[test]
fn raised_vector_without_enabled_messages_is_ignored() {
    let mut testbed = testbed();

    raise(&mut testbed, 0);
    testbed.enable_msix();

    assert!(testbed.bus.messages.is_empty());
    assert!(!testbed.function.intx_level());
}

#[test]
fn intx_follows_the_model_and_shows_in_status() {
    let mut testbed = testbed();

    testbed.write(Bar::ZERO, register::PIN, Width::Four, 1);

    assert!(testbed.function.intx_level());
    assert_eq!(config(&mut testbed, spec::STATUS, Width::Two), 0x0018);
    assert_eq!(config(&mut testbed, spec::COMMAND, Width::Four) >> 16, 0x18);
    testbed.write(Bar::ZERO, register::PIN, Width::Four, 0);
    assert!(!testbed.function.intx_level());
    assert_eq!(config(&mut testbed, spec::STATUS, Width::Two), 0x0010);
}

#[test]
fn disabled_intx_is_pending_but_not_asserted() {
    let mut testbed = testbed();
    testbed.set_command(command::MEMORY | command::INTX_DISABLE);

    testbed.write(Bar::ZERO, register::PIN, Width::Four, 1);

    assert!(!testbed.function.intx_level());
    assert_eq!(config(&mut testbed, spec::STATUS, Width::Two), 0x0018);
    testbed.set_command(command::MEMORY);
    assert!(testbed.function.intx_level());
}

#[test]
fn enabled_messages_silence_intx() {
    let mut testbed = testbed();
    testbed.write(Bar::ZERO, register::PIN, Width::Four, 1);

    enable_msi(&mut testbed, 0);

    assert!(!testbed.function.intx_level());
    assert_eq!(config(&mut testbed, spec::STATUS, Width::Two), 0x0010);
}

#[test]
fn function_level_reset_puts_registers_back() {
    let mut testbed = testbed();
    testbed.enable_msix();
    testbed.config_write(0x10, Width::Four, 0xc000_0000);
    testbed.write(Bar::ZERO, register::PIN, Width::Four, 1);
    let control = testbed.capability(spec::capability::PCIE) + pcie::DEVICE_CONTROL;

    testbed.config_write(control + 1, Width::One, 0x80);

    assert_eq!(config(&mut testbed, spec::COMMAND, Width::Two), 0);
    assert_eq!(testbed.function.bar_address(Bar::ZERO), Some(0));
    assert!(!testbed.function.memory_enabled());
    assert!(!testbed.function.bus_master());
    testbed.set_command(command::MEMORY);
    assert_eq!(testbed.value(Bar::ZERO, 0, Width::Four), 1);
    assert_eq!(testbed.value(Bar::ZERO, TABLE + 12, Width::Four), 1);
    assert!(!testbed.function.intx_level());
    assert_eq!(config(&mut testbed, control, Width::Two), 0x2810);
}

#[test]
fn function_level_reset_keeps_the_payload_size() {
    let mut testbed = testbed();
    let control = testbed.capability(spec::capability::PCIE) + pcie::DEVICE_CONTROL;
    testbed.config_write(control, Width::Two, 0x003f);

    testbed.config_write(control, Width::Two, 0x8000 | 0x003f);

    assert_eq!(config(&mut testbed, control, Width::Two), 0x2830);
}

#[test]
fn cold_reset_puts_everything_back() {
    let mut testbed = testbed();
    let control = testbed.capability(spec::capability::PCIE) + pcie::DEVICE_CONTROL;
    testbed.config_write(control, Width::Two, 0x003f);

    testbed.function.reset(Reset::Cold);

    assert_eq!(config(&mut testbed, control, Width::Two), 0x2810);
    assert_eq!(config(&mut testbed, spec::COMMAND, Width::Two), 0);
}

#[test]
fn reset_bit_in_a_neighbouring_byte_starts_nothing() {
    let mut testbed = testbed();
    let control = testbed.capability(spec::capability::PCIE) + pcie::DEVICE_CONTROL;

    testbed.config_write(control, Width::One, 0x80);
    testbed.config_write(control + 2, Width::Two, 0x8000);

    assert!(testbed.function.memory_enabled());
    assert_eq!(testbed.value(Bar::ZERO, 0, Width::Four), 0);
}

#[test]
fn replaced_model_is_as_after_power_on() {
    let mut testbed = testbed();
    testbed.set_command(command::MEMORY | command::BUS_MASTER);
    testbed.write(Bar::ZERO, TABLE, Width::Four, 0xfee0_1000);
    testbed.write(Bar::ZERO, register::PIN, Width::Four, 1);
    assert!(testbed.function.intx_level());

    testbed.function.replace(Box::new(Probe::default()));

    assert!(!testbed.function.intx_level());
    assert!(!testbed.function.bus_master());
    assert_eq!(config(&mut testbed, spec::COMMAND, Width::Two), 0);
    testbed.set_command(command::MEMORY);
    assert_eq!(
        testbed.read(Bar::ZERO, TABLE, Width::Four),
        Completion::Data(0)
    );
    assert_eq!(testbed.read(Bar::ZERO, 0, Width::Four), Completion::Data(0));
}
