//! The PCI Express fabric: one root port a device, the addresses of its BARs, and what a CPU sees
//! of a request that nobody answers.

use crate::config::{Config, FabricKind, TimeoutEnds};
use cofferdam_seam::{Bar, BarSpec, Bus, Capability, RequesterId, Reset, Time, Width};
use std::time::Duration;
use vdevice_pci::{PciFunction, spec};

/// Root ports there are; every one is a bus of its own, from bus 1 on.
pub(crate) const PORTS: usize = 64;

/// Where firmware puts 32-bit BARs: up to the I/O APIC.
const LOW_BARS: std::ops::Range<u64> = 0xc000_0000..0xfec0_0000;

/// Where firmware puts 64-bit BARs: 256 GiB from 256 GiB.
const HIGH_BARS: std::ops::Range<u64> = 0x40_0000_0000..0x80_0000_0000;

/// How a read that a completion timeout cut short ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The CPU reads all ones.
    AllOnes,
    /// The platform reports a fatal error: the system stops.
    MachineCheck,
}

/// What a CPU sees of a non-posted read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// It is done. All ones also where nobody answers at once: no such device or BAR, decoding
    /// switched off, the access misaligned or aborted.
    Done(u64),
    /// No completion came. The CPU that reads stands still.
    Waiting {
        /// Until then; for ever if none.
        until: Option<Time>,
        /// How it ends then.
        then: Ending,
    },
}

/// What happens to requests that stay open.
#[derive(Debug)]
pub(crate) struct Timeouts {
    after: Option<Duration>,
    then: Ending,
}

impl Timeouts {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            after: match config.fabric {
                FabricKind::PcieNotimeout => None,
                FabricKind::Pcie => Some(config.completion_timeout),
            },
            then: match config.timeout_ends {
                TimeoutEnds::AllOnes => Ending::AllOnes,
                TimeoutEnds::MachineCheck => Ending::MachineCheck,
            },
        }
    }

    /// A read begun now that no completion will end.
    pub(crate) fn unanswered(&self, now: Time) -> Read {
        Read::Waiting {
            until: self.after.map(|after| now + after),
            then: self.then,
        }
    }
}

/// What is left of the address space for BARs.
#[derive(Debug)]
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
    fn take(&mut self, size: u64, wide: bool) -> Option<u64> {
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

/// A root port and the function behind it.
pub(crate) struct RootPort {
    pub(crate) function: PciFunction,
    assigned: Vec<Assigned>,
    /// Where the PCI Express capability is, if it has function-level reset.
    flr: Option<u16>,
}

impl RootPort {
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

    /// Resets the function and sets it up again as it was plugged in: by function-level reset if
    /// it has that, else by a hot reset of the port.
    pub(crate) fn reset(&mut self, bus: &mut dyn Bus) {
        match self.flr {
            Some(at) => {
                let control = at + spec::pcie::DEVICE_CONTROL;
                let now = self.function.config_read(control, Width::Two);
                let flr = u32::from(spec::pcie::INITIATE_FLR);
                self.function
                    .config_write(control, Width::Two, now | flr, bus);
            }
            None => self.function.reset(Reset::Cold),
        }
        self.restore(bus);
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

/// The requester in that slot: device 0, function 0 of the port's bus.
pub(crate) fn requester(slot: usize) -> RequesterId {
    let bus = u8::try_from(slot + 1).expect("there are fewer root ports than buses");
    RequesterId::new(bus, 0, 0)
}

/// The slot of a requester; for one behind no root port, a number that no slot has.
#[inline]
pub(crate) fn slot(id: RequesterId) -> usize {
    // The bus becomes the low byte, and a device or function other than 0 makes it too large.
    usize::from(id.0.rotate_right(8)).wrapping_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_and_requesters_match() {
        for nth in 0..PORTS {
            assert_eq!(slot(requester(nth)), nth);
        }
        assert_eq!(requester(0), RequesterId::new(1, 0, 0));
    }

    #[test]
    fn requester_behind_no_port_has_no_slot() {
        for id in [RequesterId::new(0, 0, 0), RequesterId::new(1, 0, 1)] {
            assert!(slot(id) >= PORTS, "{id}");
        }
    }

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

    #[test]
    fn unanswered_read_ends_as_configured() {
        let mut config = Config {
            completion_timeout: Duration::from_micros(50),
            timeout_ends: TimeoutEnds::MachineCheck,
            ..Config::default()
        };
        assert_eq!(
            Timeouts::new(&config).unanswered(Time(1)),
            Read::Waiting {
                until: Some(Time(50_001)),
                then: Ending::MachineCheck
            }
        );
        config.fabric = FabricKind::PcieNotimeout;
        let read = Timeouts::new(&config).unanswered(Time(1));
        assert!(matches!(read, Read::Waiting { until: None, .. }));
    }
}
