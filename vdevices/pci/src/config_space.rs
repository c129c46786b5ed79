//! The 256 bytes of conventional configuration space: reset values, and which bits software may
//! change.

use crate::{msi, msix, spec};
use cofferdam_seam::{BarSpec, Capability, PciIdentity, Width};

/// Bytes that hold anything. The extended space beyond them reads as zero: no capability there.
const SIZE: usize = spec::CAPABILITIES_END as usize;

/// One register's policy.
pub(crate) struct Register {
    /// Offset from the start of the space or of the capability.
    pub at: u16,
    /// How wide.
    pub width: Width,
    /// Value after reset.
    pub reset: u32,
    /// Bits software may change; the others are read-only.
    pub writable: u32,
    /// Writable bits that survive a function-level reset (PCI Express Base 6.0, 6.6.2).
    pub kept: u32,
}

/// A register of `width` with those reset value and writable bits, none of which survives a reset.
pub(crate) const fn register(at: u16, width: Width, reset: u32, writable: u32) -> Register {
    Register {
        at,
        width,
        reset,
        writable,
        kept: 0,
    }
}

/// Writable bits of the command register; I/O space is wired to zero as there are no I/O BARs.
const COMMAND_WRITABLE: u16 = spec::command::MEMORY
    | spec::command::BUS_MASTER
    | spec::command::PARITY
    | spec::command::SERR
    | spec::command::INTX_DISABLE;

/// The registers of the header that software may change, BARs apart.
const HEADER: [Register; 3] = [
    register(spec::COMMAND, Width::Two, 0, COMMAND_WRITABLE as u32),
    register(spec::CACHE_LINE, Width::One, 0, 0xff),
    register(spec::INTERRUPT_LINE, Width::One, 0, 0xff),
];

/// The PCI Express capability of an endpoint on a 2.5 GT/s x1 link (7.5.3). Device capabilities
/// are laid apart: they depend on the model.
const PCIE: [Register; 7] = {
    use spec::pcie::*;
    [
        register(CAPABILITIES, Width::Two, VERSION_2_ENDPOINT as u32, 0),
        // Relaxed ordering and no-snoop on, 512-byte read requests: the defaults of 7.5.3.4.
        Register {
            at: DEVICE_CONTROL,
            width: Width::Two,
            reset: 0x2810,
            writable: 0x78ff,
            kept: MAX_PAYLOAD as u32,
        },
        register(LINK_CAPABILITIES, Width::Four, 0x11, 0),
        // ASPM, read completion boundary, common clock, extended synch.
        Register {
            at: LINK_CONTROL,
            width: Width::Two,
            reset: 0,
            writable: 0x00cb,
            kept: 0x00cb,
        },
        register(LINK_STATUS, Width::Two, 0x11, 0),
        register(LINK_CAPABILITIES_2, Width::Four, 0b10, 0),
        register(LINK_CONTROL_2, Width::Two, 1, 0),
    ]
};

/// Where the capabilities with a behaviour ended up.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Layout {
    /// The MSI capability.
    pub msi: Option<u16>,
    /// The MSI-X capability.
    pub msix: Option<u16>,
    /// The PCI Express capability, if it can reset the function.
    pub flr: Option<u16>,
}

/// The values, and for each bit what may become of it.
pub(crate) struct ConfigSpace {
    value: [u8; SIZE],
    reset: [u8; SIZE],
    writable: [u8; SIZE],
    kept: [u8; SIZE],
}

impl ConfigSpace {
    /// The space that tells `identity`.
    ///
    /// # Panics
    ///
    /// If the identity contradicts itself: a defect of the model, see
    /// [`PciFunction::new`](crate::PciFunction::new).
    pub fn new(identity: &PciIdentity) -> (Self, Layout) {
        let mut space = Self {
            value: [0; SIZE],
            reset: [0; SIZE],
            writable: [0; SIZE],
            kept: [0; SIZE],
        };
        space.lay(0, &HEADER);
        let [base, sub, interface] = identity.class;
        let [subsystem_vendor, subsystem] = identity.subsystem;
        space.constant(spec::VENDOR, &identity.vendor.to_le_bytes());
        space.constant(spec::DEVICE, &identity.device.to_le_bytes());
        space.constant(spec::REVISION, &[identity.revision]);
        space.constant(spec::CLASS, &[interface, sub, base]);
        space.constant(spec::SUBSYSTEM, &subsystem_vendor.to_le_bytes());
        space.constant(spec::SUBSYSTEM + 2, &subsystem.to_le_bytes());
        space.constant(spec::INTERRUPT_PIN, &[identity.intx.into()]);
        for bar in identity.bars {
            space.lay_bar(bar);
        }
        let layout = space.lay_capabilities(identity.capabilities);
        space.value = space.reset;
        (space, layout)
    }

    fn lay(&mut self, base: u16, registers: &[Register]) {
        for register in registers {
            let at = usize::from(base + register.at);
            for byte in 0..register.width.bytes() as usize {
                let part = |word: u32| word.to_le_bytes()[byte];
                self.reset[at + byte] = part(register.reset);
                self.writable[at + byte] = part(register.writable);
                self.kept[at + byte] = part(register.kept);
            }
        }
    }

    /// Read-only bytes.
    fn constant(&mut self, at: u16, bytes: &[u8]) {
        self.reset[usize::from(at)..][..bytes.len()].copy_from_slice(bytes);
    }

    /// A BAR's address bits above its size are writable, so that all ones read back as its size
    /// ([1] 6.2.5.1).
    fn lay_bar(&mut self, bar: &BarSpec) {
        assert!(
            bar.size.is_power_of_two() && bar.size >= 16,
            "BAR {} has {} bytes, not a power of two of at least 16",
            bar.bar.index(),
            bar.size
        );
        let low = spec::BARS[bar.bar.index()];
        let mask = (!(bar.size - 1)).to_le_bytes();
        let flags = u32::from(bar.wide) * spec::bar::WIDE
            + u32::from(bar.prefetchable) * spec::bar::PREFETCHABLE;
        assert!(
            self.writable[usize::from(low)..][..4] == [0; 4],
            "BAR {} is described twice",
            bar.bar.index()
        );
        self.constant(low, &flags.to_le_bytes());
        let registers = if bar.wide {
            assert!(
                bar.bar.index() < 5,
                "BAR 5 has no register for its upper half"
            );
            8
        } else {
            assert!(bar.size <= 1 << 31, "a 32-bit BAR of {} bytes", bar.size);
            4
        };
        self.writable[usize::from(low)..][..registers].copy_from_slice(&mask[..registers]);
    }

    fn lay_capabilities(&mut self, capabilities: &[Capability]) -> Layout {
        let mut layout = Layout::default();
        let mut link = spec::CAPABILITIES;
        let mut at = spec::FIRST_CAPABILITY;
        if !capabilities.is_empty() {
            self.constant(spec::STATUS, &spec::status::CAPABILITIES.to_le_bytes());
        }
        for capability in capabilities {
            let length = length(capability);
            assert!(
                at + length <= spec::CAPABILITIES_END,
                "the capabilities need more than the 192 bytes there are"
            );
            self.constant(link, &[at.to_le_bytes()[0]]);
            link = at + 1;
            match *capability {
                Capability::Msi { log2_vectors } => {
                    assert!(
                        log2_vectors <= 5,
                        "2^{log2_vectors} MSI vectors, not up to 32"
                    );
                    self.constant(at, &[spec::capability::MSI]);
                    self.lay(at, &msi::registers(log2_vectors));
                    layout.msi = Some(at);
                }
                Capability::Msix {
                    vectors,
                    table,
                    pba,
                } => {
                    self.constant(at, &[spec::capability::MSIX]);
                    self.lay(at, &msix::registers(vectors, table, pba));
                    layout.msix = Some(at);
                }
                Capability::PcieEndpoint { flr } => {
                    self.constant(at, &[spec::capability::PCIE]);
                    self.lay(at, &PCIE);
                    let capabilities =
                        spec::pcie::ROLE_BASED_ERRORS + u32::from(flr) * spec::pcie::FLR_CAPABLE;
                    let register = at + spec::pcie::DEVICE_CAPABILITIES;
                    self.constant(register, &capabilities.to_le_bytes());
                    layout.flr = flr.then_some(at);
                }
                Capability::Vendor(bytes) => {
                    self.constant(at, &[spec::capability::VENDOR]);
                    self.constant(at + 2, &[length.to_le_bytes()[0]]);
                    self.constant(at + 3, bytes);
                }
            }
            at = (at + length).next_multiple_of(4);
        }
        layout
    }

    /// Whether an access of that shape reaches a register: naturally aligned, at most four bytes
    /// wide, inside the 4 KiB of a PCI Express function.
    pub fn reaches(offset: u16, width: Width) -> bool {
        let bytes = width.bytes();
        bytes <= 4 && u32::from(offset) % bytes == 0 && offset < spec::CONFIG_SPACE
    }

    /// Reads what [`Self::reaches`] says can be read.
    pub fn read(&self, offset: u16, width: Width) -> u32 {
        let mut word = [0; 4];
        let bytes = width.bytes() as usize;
        if let Some(value) = self
            .value
            .get(usize::from(offset)..usize::from(offset) + bytes)
        {
            word[..bytes].copy_from_slice(value);
        }
        u32::from_le_bytes(word)
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.value
    }

    /// Sets bits, or clears them, whatever software may change.
    pub fn set(&mut self, at: u16, bits: u16, on: bool) {
        let old = self.word(at);
        let new = if on { old | bits } else { old & !bits };
        self.value[usize::from(at)..][..2].copy_from_slice(&new.to_le_bytes());
    }

    /// Writes the writable bits.
    pub fn write(&mut self, offset: u16, width: Width, value: u32) {
        let bytes = value.to_le_bytes();
        for (byte, new) in bytes.iter().take(width.bytes() as usize).enumerate() {
            let at = usize::from(offset) + byte;
            if at < SIZE {
                let mask = self.writable[at];
                self.value[at] = (self.value[at] & !mask) | (new & mask);
            }
        }
    }

    /// A 16-bit register.
    pub fn word(&self, at: u16) -> u16 {
        let [low, high, ..] = self.read(at, Width::Two).to_le_bytes();
        u16::from_le_bytes([low, high])
    }

    /// A 32-bit register.
    pub fn dword(&self, at: u16) -> u32 {
        self.read(at, Width::Four)
    }

    /// Everything back to its reset value.
    pub fn reset_all(&mut self) {
        self.value = self.reset;
    }

    /// Everything back to its reset value but what a function-level reset leaves alone.
    pub fn reset_function(&mut self) {
        for at in 0..SIZE {
            let kept = self.kept[at];
            self.value[at] = (self.reset[at] & !kept) | (self.value[at] & kept);
        }
    }
}

fn length(capability: &Capability) -> u16 {
    match capability {
        Capability::Msi { .. } => spec::msi::LENGTH,
        Capability::Msix { .. } => spec::msix::LENGTH,
        Capability::PcieEndpoint { .. } => spec::pcie::LENGTH,
        // Longer than any that fits, so that one too long is told.
        Capability::Vendor(bytes) => u16::try_from(bytes.len() + 3).map_or(256, |len| len.min(256)),
    }
}
