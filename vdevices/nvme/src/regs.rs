//! The controller registers (NVMe 1.4, 3.1): which there are, and what a host may do to them.

use crate::spec::{
    self, AdminQueueAttributes, Capabilities, Configuration, ControllerStatus, shutdown,
};
use cofferdam_seam::Iova;

/// A register, or half of a 64-bit one: hosts may access those in halves (3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Register {
    CapabilitiesLow,
    CapabilitiesHigh,
    Version,
    MaskSet,
    MaskClear,
    Configuration,
    Status,
    AdminQueueAttributes,
    AdminSubmissionLow,
    AdminSubmissionHigh,
    AdminCompletionLow,
    AdminCompletionHigh,
}

/// Bits of CC that a host may change; the command set, the page size and arbitration only while the
/// controller is disabled (3.1.5).
const CONFIGURATION: u32 = 0x00ff_fff1;
const CONFIGURATION_WHILE_ENABLED: u32 = 0x00ff_c001;
/// Bits of AQA.
const ATTRIBUTES: u32 = 0x0fff_0fff;
/// Address bits of the lower half of ASQ and ACQ: queues begin on a page.
const PAGE_ADDRESS: u32 = 0xffff_f000;

/// Offset, register and writable bits, in order. Registers are 32 bits wide; all are zero after a
/// reset but for CAP and VS, which are constant. Whatever is not here, the registers of features
/// that are not offered included, reads as zero and ignores writes.
pub(crate) const REGISTERS: [(u32, Register, u32); 12] = [
    (0x00, Register::CapabilitiesLow, 0),
    (0x04, Register::CapabilitiesHigh, 0),
    (0x08, Register::Version, 0),
    (0x0c, Register::MaskSet, !0),
    (0x10, Register::MaskClear, !0),
    (0x14, Register::Configuration, CONFIGURATION),
    (0x1c, Register::Status, 0),
    // 0x20 is NSSR: there is no subsystem reset (CAP.NSSRS).
    (0x24, Register::AdminQueueAttributes, ATTRIBUTES),
    (0x28, Register::AdminSubmissionLow, PAGE_ADDRESS),
    (0x2c, Register::AdminSubmissionHigh, !0),
    (0x30, Register::AdminCompletionLow, PAGE_ADDRESS),
    (0x34, Register::AdminCompletionHigh, !0),
];

/// The largest memory page is 64 KiB (CAP.MPSMAX).
const MAX_PAGE: u8 = 4;

/// What a write asks of the rest of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing.
    None,
    /// CC.EN went from 0 to 1.
    Enable,
    /// CC.EN went from 1 to 0: a controller reset (7.3.2).
    Disable,
    /// The host shuts the controller down (7.6.2).
    Shutdown,
    /// The interrupt mask changed.
    Mask,
}

/// The registers.
#[derive(Debug)]
pub(crate) struct Registers {
    pub capabilities: Capabilities,
    pub configuration: Configuration,
    pub status: ControllerStatus,
    /// INTMS and INTMC: vectors that do not reach the pin (3.1.3).
    pub mask: u32,
    pub attributes: AdminQueueAttributes,
    pub admin_submission: Iova,
    pub admin_completion: Iova,
}

impl Registers {
    /// As after power-on. `max_queue_entries` is CAP.MQES, one less than the entries.
    pub fn new(max_queue_entries: u16, doorbell_stride: u8) -> Self {
        Self {
            capabilities: Capabilities::new()
                .with_max_queue_entries(max_queue_entries)
                .with_contiguous_queues(true)
                // 5 s, though it takes none: hosts wait twice as long on slow emulators anyway.
                .with_timeout(10)
                .with_doorbell_stride(doorbell_stride)
                .with_command_sets(1)
                .with_max_page(MAX_PAGE),
            configuration: Configuration::new(),
            status: ControllerStatus::new(),
            mask: 0,
            attributes: AdminQueueAttributes::new(),
            admin_submission: Iova(0),
            admin_completion: Iova(0),
        }
    }

    /// What a controller reset clears: all but the admin queues' attributes and addresses (7.3.2).
    pub fn reset_controller(&mut self) {
        self.configuration = Configuration::new();
        self.status = ControllerStatus::new();
        self.mask = 0;
    }

    /// What any other reset clears.
    pub fn reset_all(&mut self) {
        self.reset_controller();
        self.attributes = AdminQueueAttributes::new();
        self.admin_submission = Iova(0);
        self.admin_completion = Iova(0);
    }

    /// Whether the controller processes commands: enabled, healthy and not shut down.
    pub fn running(&self) -> bool {
        self.status.ready() && !self.status.fatal() && self.status.shutdown() == 0
    }

    /// Bytes in a memory page (3.1.5).
    pub fn page(&self) -> u64 {
        spec::MIN_PAGE << self.configuration.page()
    }

    /// Whether the controller can work as CC and AQA say. Entry sizes matter when an I/O queue is
    /// created, not before (3.1.5).
    pub fn acceptable(&self) -> bool {
        self.configuration.command_set() == 0
            && self.configuration.arbitration() == 0
            && self.configuration.page() <= MAX_PAGE
            // An admin queue has at least two entries (3.1.8).
            && self.attributes.submission() > 0
            && self.attributes.completion() > 0
            && self.admin_submission.0.is_multiple_of(self.page())
            && self.admin_completion.0.is_multiple_of(self.page())
    }

    /// Reads the 32 bits at `offset`, a multiple of four.
    pub fn read(&self, offset: u32) -> u32 {
        let Some((_, register, _)) = REGISTERS.iter().find(|(at, ..)| *at == offset) else {
            return 0;
        };
        let low = |value: u64| u32::try_from(value & 0xffff_ffff).unwrap_or(0);
        match register {
            Register::CapabilitiesLow => low(self.capabilities.into_bits()),
            Register::CapabilitiesHigh => low(self.capabilities.into_bits() >> 32),
            Register::Version => spec::VERSION,
            Register::MaskSet | Register::MaskClear => self.mask,
            Register::Configuration => self.configuration.into_bits(),
            Register::Status => self.status.into_bits(),
            Register::AdminQueueAttributes => self.attributes.into_bits(),
            Register::AdminSubmissionLow => low(self.admin_submission.0),
            Register::AdminSubmissionHigh => low(self.admin_submission.0 >> 32),
            Register::AdminCompletionLow => low(self.admin_completion.0),
            Register::AdminCompletionHigh => low(self.admin_completion.0 >> 32),
        }
    }

    /// Writes the 32 bits at `offset`, as far as a host may.
    pub fn write(&mut self, offset: u32, value: u32) -> Effect {
        let Some((_, register, writable)) = REGISTERS.iter().find(|(at, ..)| *at == offset) else {
            return Effect::None;
        };
        let value = value & writable;
        match register {
            Register::MaskSet => {
                self.mask |= value;
                return Effect::Mask;
            }
            Register::MaskClear => {
                self.mask &= !value;
                return Effect::Mask;
            }
            Register::Configuration => return self.configure(value),
            // The admin queues stay where they are while they are in use (3.1.8).
            _ if self.configuration.enable() => {}
            Register::AdminQueueAttributes => {
                self.attributes = AdminQueueAttributes::from_bits(value);
            }
            Register::AdminSubmissionLow => set_low(&mut self.admin_submission, value),
            Register::AdminSubmissionHigh => set_high(&mut self.admin_submission, value),
            Register::AdminCompletionLow => set_low(&mut self.admin_completion, value),
            Register::AdminCompletionHigh => set_high(&mut self.admin_completion, value),
            Register::CapabilitiesLow
            | Register::CapabilitiesHigh
            | Register::Version
            | Register::Status => {}
        }
        Effect::None
    }

    fn configure(&mut self, value: u32) -> Effect {
        let before = self.configuration;
        let asked = if before.enable() {
            let kept = before.into_bits() & !CONFIGURATION_WHILE_ENABLED;
            Configuration::from_bits(value & CONFIGURATION_WHILE_ENABLED | kept)
        } else {
            Configuration::from_bits(value)
        };
        if before.enable() && !asked.enable() {
            return Effect::Disable;
        }
        self.configuration = asked;
        let shut_down = matches!(asked.shutdown(), shutdown::NORMAL | shutdown::ABRUPT);
        if !before.enable() && asked.enable() {
            Effect::Enable
        } else if shut_down && asked.shutdown() != before.shutdown() {
            Effect::Shutdown
        } else {
            Effect::None
        }
    }
}

fn set_low(address: &mut Iova, to: u32) {
    address.0 = address.0 & !0xffff_ffff | u64::from(to);
}

fn set_high(address: &mut Iova, to: u32) {
    address.0 = address.0 & 0xffff_ffff | u64::from(to) << 32;
}

#[cfg(test)]
mod tests {
    use super::*;

    const CC: u32 = 0x14;

    fn registers() -> Registers {
        Registers::new(63, 0)
    }

    #[test]
    fn registers_follow_one_another() {
        for pair in REGISTERS.windows(2) {
            assert!(pair[0].0 < pair[1].0, "{pair:?}");
        }
    }

    #[test]
    fn capabilities_have_the_bits_of_the_standard() {
        let registers = Registers::new(63, 2);

        // MQES 63, CQR, TO 10; DSTRD 2, CSS NVM, MPSMAX 4.
        assert_eq!(registers.read(0), 0x0a01_003f);
        assert_eq!(registers.read(4), 0x0040_0022);
        assert_eq!(registers.read(8), 0x0001_0400);
    }

    #[test]
    fn constants_ignore_writes() {
        let mut registers = registers();
        let before = [0, 4, 8, 0x1c, 0x20].map(|offset| registers.read(offset));

        for offset in [0, 4, 8, 0x1c, 0x20] {
            registers.write(offset, !0);
        }

        let after = [0, 4, 8, 0x1c, 0x20].map(|offset| registers.read(offset));
        assert_eq!(before, after);
    }

    #[test]
    fn reserved_bits_stay_zero() {
        let mut registers = registers();

        registers.write(0x24, !0);
        registers.write(0x28, !0);
        registers.write(0x30, !0);
        registers.write(CC, !1);

        assert_eq!(registers.read(0x24), 0x0fff_0fff);
        assert_eq!(registers.read(0x28), 0xffff_f000);
        assert_eq!(registers.read(0x30), 0xffff_f000);
        assert_eq!(registers.read(CC), 0x00ff_fff0);
    }

    #[test]
    fn mask_is_set_and_cleared_bit_by_bit() {
        let mut registers = registers();

        registers.write(0x0c, 0b111);
        let effect = registers.write(0x10, 0b010);

        assert_eq!(effect, Effect::Mask);
        assert_eq!(registers.read(0x0c), 0b101);
        assert_eq!(registers.read(0x10), 0b101);
    }

    #[test]
    fn enabled_controller_keeps_page_size_and_admin_queues() {
        let mut registers = registers();
        registers.write(0x28, 0x1000);
        assert_eq!(registers.write(CC, 1), Effect::Enable);

        registers.write(CC, 0x0046_0081 | 1 << 4);
        registers.write(0x28, 0x2000);
        registers.write(0x24, 0x0001_0001);

        assert_eq!(registers.read(CC), 0x0046_0001);
        assert_eq!(registers.read(0x28), 0x1000);
        assert_eq!(registers.read(0x24), 0);
    }

    #[test]
    fn shutdown_is_announced_once() {
        let mut registers = registers();
        registers.write(CC, 1);

        assert_eq!(registers.write(CC, 1 | 1 << 14), Effect::Shutdown);
        assert_eq!(registers.write(CC, 1 | 1 << 14), Effect::None);
        assert_eq!(registers.write(CC, 0), Effect::Disable);
    }
}
