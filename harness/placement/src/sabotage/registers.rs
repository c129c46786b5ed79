//! A driver that writes where it should not in its own device's registers.

use crate::call::Call;
use crate::link::Link;
use cofferdam_seam::Width;

/// Offsets in configuration space (PCI Local Bus 3.0, 6.1, 6.8.2).
const COMMAND: u16 = 0x04;
const BUS_MASTER: u32 = 1 << 2;
const CAPABILITIES: u16 = 0x34;
const MSIX: u32 = 0x11;
/// In the MSI-X capability: message control, whose low bits are the last entry's number, and the
/// table's place, whose low bits are its BAR.
const MSIX_CONTROL: u16 = 2;
const MSIX_TABLE: u16 = 4;
/// Capabilities there is room for.
const MOST: usize = 48;

fn config(link: &Link, offset: u16, width: Width) -> u32 {
    let answer = link.call(Call::ConfigRead { offset, width });
    u32::try_from(answer.values[0]).unwrap_or(u32::MAX)
}

/// Switches the device's bus mastering off.
pub(super) fn bus_master_off(link: &Link) {
    let value = config(link, COMMAND, Width::Two) & !BUS_MASTER;
    link.call(Call::ConfigWrite {
        offset: COMMAND,
        width: Width::Two,
        value,
    });
}

/// Overwrites a double word of every entry of the MSI-X table, which is in a BAR that the driver
/// maps (VFIO lets a process map it since Linux 4.16). Whether there is a table.
pub(super) fn write_msix_table(link: &Link, field: u8, value: u32) -> bool {
    let mut at = config(link, CAPABILITIES, Width::One);
    for _ in 0..MOST {
        let Some(here) = u16::try_from(at & 0xfc).ok().filter(|&here| here != 0) else {
            break;
        };
        let header = config(link, here, Width::Two);
        if header & 0xff != MSIX {
            at = header >> 8;
            continue;
        }
        let last = config(link, here + MSIX_CONTROL, Width::Two) & 0x7ff;
        let place = config(link, here + MSIX_TABLE, Width::Four);
        let bar = u8::try_from(place & 0b111).unwrap_or(u8::MAX);
        for entry in 0..=last {
            link.call(Call::MmioWrite {
                bar,
                offset: (place & !0b111) + 16 * entry + 4 * u32::from(field),
                width: Width::Four,
                value: value.into(),
            });
        }
        return true;
    }
    false
}
