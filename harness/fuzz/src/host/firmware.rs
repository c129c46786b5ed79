//! What firmware did before a driver came: it gave the device's BARs addresses.

use super::{FuzzHost, set_command};
use crate::world::{World, with};
use cofferdam_seam::{Bar, Mmio, Width};
use vdevice_pci::spec;

/// The first address that firmware gives away.
const FIRST: u64 = 0xe000_0000;

/// All BARs of the device in one range of addresses, as drivers that find them by themselves see them.
/// Between them nobody answers.
#[derive(Clone, Debug)]
pub struct FuzzAddresses {
    /// Each with its place in the range and its size.
    bars: Vec<(Bar, u64, u64)>,
    len: u64,
}

impl FuzzHost {
    /// Gives each BAR an address, as firmware does, and lets the device answer there and be bus master.
    /// The program has no say in it.
    #[inline(never)]
    pub fn place_bars(&self) -> FuzzAddresses {
        with(|world| {
            let addresses = FuzzAddresses::of(world);
            for (bar, place, _) in &addresses.bars {
                write(world, *bar, FIRST + place);
            }
            set_command(world, spec::command::MEMORY, true);
            set_command(world, spec::command::BUS_MASTER, true);
            addresses
        })
    }
}

impl FuzzAddresses {
    fn of(world: &mut World) -> Self {
        let mut bars = Vec::new();
        let mut len = 0_u64;
        if let Some((function, _)) = world.function() {
            for spec in function.identity().bars {
                let place = len.next_multiple_of(spec.size);
                bars.push((spec.bar, place, spec.size));
                len = place + spec.size;
            }
        }
        Self { bars, len }
    }

    /// The first address of the range.
    pub const fn first(&self) -> u64 {
        FIRST
    }

    /// The registers that firmware placed at an address, if so many bytes follow there: their BAR, and
    /// the offset in it.
    pub fn registers(&self, address: u64, bytes: u64) -> Option<(Bar, u32)> {
        let offset = address.checked_sub(FIRST)?;
        let end = offset.checked_add(bytes)?;
        let start = u32::try_from(offset).ok().filter(|_| end <= self.len)?;
        self.at(start)
    }

    /// The BAR that answers there, and the offset in it.
    fn at(&self, offset: u32) -> Option<(Bar, u32)> {
        let inside = |&(bar, place, size): &(Bar, u64, u64)| {
            let offset = u64::from(offset).checked_sub(place)?;
            let offset = u32::try_from(offset).ok()?;
            (u64::from(offset) < size).then_some((bar, offset))
        };
        self.bars.iter().find_map(inside)
    }
}

fn write(world: &mut World, bar: Bar, address: u64) {
    let Some((function, state)) = world.function() else {
        return;
    };
    let wide = |spec: &cofferdam_seam::BarSpec| spec.bar == bar && spec.wide;
    let wide = function.identity().bars.iter().any(wide);
    let [low, high] = [address, address >> 32].map(|half| u32::try_from(half & 0xffff_ffff));
    let at = spec::BARS[bar.index()];
    function.config_write(at, Width::Four, low.unwrap_or(0), state);
    if wide {
        function.config_write(at + 4, Width::Four, high.unwrap_or(0), state);
    }
}

impl Mmio for FuzzAddresses {
    #[inline(never)]
    fn read(&self, offset: u32, width: Width) -> u64 {
        match self.at(offset) {
            Some((bar, offset)) => FuzzHost::new().read(bar, offset, width),
            None => width.all_ones(),
        }
    }

    #[inline(never)]
    fn write(&self, offset: u32, width: Width, value: u64) {
        if let Some((bar, offset)) = self.at(offset) {
            FuzzHost::new().write(bar, offset, width, value);
        }
    }

    fn len(&self) -> u64 {
        self.len
    }
}
