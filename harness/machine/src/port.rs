//! A port with the function behind it, and the addresses that firmware gives its BARs.

use crate::topology::Window;
use cofferdam_seam::{Bar, BarSpec, Bus, Capability, Reset, Width};
use vdevice_pci::{PciFunction, spec};

/// Where firmware puts 32-bit BARs: up to the I/O APIC.
pub(crate) const LOW_BARS: std::ops::Range<u64> = 0xc000_0000..0xfec0_0000;

/// Where firmware puts 64-bit BARs: 256 GiB from 256 GiB.
pub(crate) const HIGH_BARS: std::ops::Range<u64> = 0x40_0000_0000..0x80_0000_0000;

/// What is left of the address space for BARs.
#[derive(Clone, Debug)]
pub(crate) struct BarSpace {
    low: u64,
    high: u64,
}

impl Default for BarSpace {
    fn default() -> Self {
        Self {
            low: LOW_BARS.start,
            high: HIGH_BARS.start,
        }
    }
}

impl BarSpace {
    /// An address for a BAR of `size` bytes, a multiple of its size.
    pub(crate) fn take(&mut self, size: u64, wide: bool) -> Option<u64> {
        let (next, end) = if wide {
            (&mut self.high, HIGH_BARS.end)
        } else {
            (&mut self.low, LOW_BARS.end)
        };
        let at = next.checked_next_multiple_of(size)?;
        let after = at.checked_add(size).filter(|&after| after <= end)?;
        *next = after;
        Some(at)
    }
}

/// A BAR that firmware gave an address.
#[derive(Debug)]
struct Assigned {
    bar: Bar,
    address: u64,
    wide: bool,
}

/// A port and the function behind it.
pub(crate) struct Port {
    pub(crate) function: PciFunction,
    assigned: Vec<Assigned>,
    /// Where the PCI Express capability is, if it has function-level reset.
    flr: Option<u16>,
}

impl Port {
    /// Puts the function behind a port and lets firmware set it up: BARs assigned, memory decoding
    /// on, bus mastering and the INTx pin off.
    ///
    /// # Panics
    ///
    /// If a BAR finds no room.
    pub(crate) fn plug(mut function: PciFunction, space: &mut BarSpace, bus: &mut dyn Bus) -> Self {
        let assign = |bar: &BarSpec| Assigned {
            bar: bar.bar,
            address: space
                .take(bar.size, bar.wide)
                .unwrap_or_else(|| panic!("no room for a BAR of {:#x} bytes", bar.size)),
            wide: bar.wide,
        };
        let assigned = function.identity().bars.iter().map(assign).collect();
        let capabilities = function.identity().capabilities;
        let resets = |c: &Capability| matches!(c, Capability::PcieEndpoint { flr: true });
        let flr = if capabilities.iter().any(resets) {
            find_capability(&mut function, spec::capability::PCIE)
        } else {
            None
        };
        let mut port = Self {
            function,
            assigned,
            flr,
        };
        port.restore(bus);
        port
    }

    /// Whether the function has function-level reset.
    pub(crate) fn has_flr(&self) -> bool {
        self.flr.is_some()
    }

    /// Resets the function by function-level reset, if it has that, and sets it up again as it was
    /// plugged in.
    pub(crate) fn reset_function(&mut self, bus: &mut dyn Bus) {
        if let Some(at) = self.flr {
            let control = at + spec::pcie::DEVICE_CONTROL;
            let now = self.function.config_read(control, Width::Two);
            let flr = u32::from(spec::pcie::INITIATE_FLR);
            self.function
                .config_write(control, Width::Two, now | flr, bus);
        }
        self.restore(bus);
    }

    /// The same after a reset of the bus it is on.
    pub(crate) fn reset_bus(&mut self, bus: &mut dyn Bus) {
        self.function.reset(Reset::Cold);
        self.restore(bus);
    }

    /// What firmware gave its BARs.
    pub(crate) fn windows(&self) -> Vec<Window> {
        let of = |assigned: &Assigned| Window {
            bar: assigned.bar,
            start: assigned.address,
            size: self.function.bar_size(assigned.bar).unwrap_or(0),
            decoded: assigned.address,
        };
        self.assigned.iter().map(of).collect()
    }

    /// Whether that write to configuration space starts a function-level reset.
    pub(crate) fn starts_reset(&self, offset: u16, width: Width, value: u32) -> bool {
        let Some(at) = self.flr else {
            return false;
        };
        let aligned = u32::from(offset).is_multiple_of(width.bytes());
        // The bit is in the register's upper byte.
        let [_, flr] = spec::pcie::INITIATE_FLR.to_le_bytes();
        let byte = (at + spec::pcie::DEVICE_CONTROL + 1).checked_sub(offset);
        let byte = byte.filter(|&byte| aligned && u32::from(byte) < width.bytes().min(4));
        byte.is_some_and(|byte| value.to_le_bytes()[usize::from(byte)] & flr != 0)
    }

    fn restore(&mut self, bus: &mut dyn Bus) {
        for assigned in &self.assigned {
            let register = spec::BARS[assigned.bar.index()];
            let [low, high] = halves(assigned.address);
            self.function.config_write(register, Width::Four, low, bus);
            if assigned.wide {
                self.function
                    .config_write(register + 4, Width::Four, high, bus);
            }
        }
        let command = spec::command::MEMORY | spec::command::INTX_DISABLE;
        self.function
            .config_write(spec::COMMAND, Width::Two, command.into(), bus);
    }
}

/// Where in configuration space the capability of that ID is.
pub(crate) fn find_capability(function: &mut PciFunction, id: u8) -> Option<u16> {
    let mut at = function.config_read(spec::CAPABILITIES, Width::One);
    // The list has room for no more; a loop in it ends here.
    for _ in 0..48 {
        let offset = u16::try_from(at & 0xfc).ok().filter(|&at| at >= 0x40)?;
        let header = function.config_read(offset, Width::Two);
        if header & 0xff == u32::from(id) {
            return Some(offset);
        }
        at = header >> 8;
    }
    None
}

/// The low and the high half.
fn halves(address: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = address.to_le_bytes();
    [
        u32::from_le_bytes([a, b, c, d]),
        u32::from_le_bytes([e, f, g, h]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_aligned_and_do_not_overlap() {
        let mut space = BarSpace::default();
        let first = space.take(0x1000, false).unwrap();
        let second = space.take(0x10_0000, false).unwrap();
        let third = space.take(0x1000, false).unwrap();
        assert_eq!(
            [first, second, third],
            [0xc000_0000, 0xc010_0000, 0xc020_0000]
        );
        assert_eq!(space.take(0x4000, true), Some(0x40_0000_0000));
    }

    #[test]
    fn bar_that_finds_no_room_gets_no_address() {
        let mut space = BarSpace::default();
        assert_eq!(space.take(1 << 31, false), None);
        assert_eq!(space.take(1 << 63, true), None);
        assert_eq!(space.take(0x1000, false), Some(LOW_BARS.start));
    }
}
