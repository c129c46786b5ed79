//! Who is joined to whom: root ports, a switch, a conventional bus, and the addresses that lead to
//! each function.
//!
//! On PCI Express a function is behind a root port of its own or behind one switch, at a downstream
//! port of its own there; a link has one function. On conventional PCI all functions share a bus,
//! wherever they were plugged in. Requester IDs are the same in every topology, so the IOMMU tells
//! apart what is on the shared bus; behind a real bridge it could not (PCI Express to PCI/PCI-X
//! Bridge 1.0, 2.3).

use crate::config::{Config, FabricKind};
use crate::port::{HIGH_BARS, LOW_BARS};
use cofferdam_seam::{Access, Bar, Width};

/// Where a device is plugged in. On a conventional bus there is only one place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Place {
    /// A root port of its own.
    #[default]
    RootPort,
    /// A downstream port of the machine's switch, which has a root port of its own.
    Switch,
}

/// A BAR, as the fabric routes it and as the function decodes it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) bar: Bar,
    /// Its first address, as firmware gave it.
    pub(crate) start: u64,
    pub(crate) size: u64,
    /// Its first address, as the function sees it.
    pub(crate) decoded: u64,
}

impl Window {
    fn offset(start: u64, size: u64, at: u64) -> Option<u32> {
        let offset = at.checked_sub(start).filter(|&offset| offset < size)?;
        u32::try_from(offset).ok()
    }
}

/// How a request gets from one function to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Below the root complex, which never sees it.
    Direct,
    /// Up to the root complex and down again.
    Upstream,
}

/// The register behind an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) slot: usize,
    pub(crate) bar: Bar,
    pub(crate) offset: u32,
}

#[derive(Debug)]
struct Function {
    place: Place,
    windows: Vec<Window>,
}

/// The functions of a machine, by slot.
#[derive(Debug)]
pub(crate) struct Topology {
    kind: FabricKind,
    acs: bool,
    functions: Vec<Function>,
    moved: bool,
}

impl Topology {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            kind: config.fabric,
            acs: config.acs,
            functions: Vec::new(),
            moved: false,
        }
    }

    pub(crate) fn attach(&mut self, place: Place, windows: Vec<Window>) {
        self.functions.push(Function { place, windows });
    }

    pub(crate) fn slots(&self) -> std::ops::Range<usize> {
        0..self.functions.len()
    }

    /// Whether two functions are behind the same root port.
    pub(crate) fn share_root_port(&self, one: usize, other: usize) -> bool {
        let behind_switch = |slot: usize| self.functions[slot].place == Place::Switch;
        one == other || self.share_bus(one, other) || (behind_switch(one) && behind_switch(other))
    }

    /// Whether two functions are on the same secondary bus, so that a reset of it reaches both.
    pub(crate) fn share_bus(&self, one: usize, other: usize) -> bool {
        one == other || self.kind == FabricKind::Pci
    }

    /// The way of a request from one function to another.
    pub(crate) fn way(&self, from: usize, to: usize) -> Way {
        let near = self.share_root_port(from, to);
        // There is no access control between functions on one bus.
        let redirected = self.acs && self.kind.is_express();
        if near && !redirected {
            Way::Direct
        } else {
            Way::Upstream
        }
    }

    /// Whether an address may be a BAR's: memory and messages are not.
    #[inline]
    pub(crate) fn may_be_bar(at: u64) -> bool {
        (LOW_BARS.start..HIGH_BARS.end).contains(&at)
    }

    /// The function another one reaches at that address.
    pub(crate) fn target(&self, from: usize, at: u64) -> Option<Target> {
        self.slots()
            .filter(|&slot| slot != from)
            .find_map(|slot| self.claim(slot, at))
    }

    /// What a function makes of an address that is put before it: on a link only what is routed
    /// there, on a bus everything.
    pub(crate) fn claim(&self, slot: usize, at: u64) -> Option<Target> {
        self.functions[slot].windows.iter().find_map(|window| {
            let routed = Window::offset(window.start, window.size, at).is_some();
            let offset = Window::offset(window.decoded, window.size, at)?;
            (routed || self.kind == FabricKind::Pci).then_some(Target {
                slot,
                bar: window.bar,
                offset,
            })
        })
    }

    /// The address of a register, as firmware gave it.
    pub(crate) fn address(&self, slot: usize, bar: Bar, offset: u32) -> Option<u64> {
        let windows = &self.functions.get(slot)?.windows;
        let window = windows.iter().find(|window| window.bar == bar)?;
        Some(window.start + u64::from(offset))
    }

    /// Lets a function decode a BAR elsewhere; whether it has that BAR and it is elsewhere.
    pub(crate) fn move_bar(&mut self, slot: usize, bar: Bar, to: u64) -> bool {
        let windows = &mut self.functions[slot].windows;
        let window = windows.iter_mut().find(|window| window.bar == bar);
        let Some(window) = window.filter(|window| window.start != to) else {
            return false;
        };
        window.decoded = to;
        self.moved = true;
        true
    }

    /// A reset function decodes what software then puts into its BARs.
    pub(crate) fn put_back(&mut self, slot: usize) {
        for window in &mut self.functions[slot].windows {
            window.decoded = window.start;
        }
        let in_place = |window: &Window| window.decoded == window.start;
        self.moved = !self
            .functions
            .iter()
            .all(|function| function.windows.iter().all(in_place));
    }

    /// Whether any function decodes what it should not.
    pub(crate) fn moved(&self) -> bool {
        self.moved
    }
}

/// The widest naturally aligned access at the start of `len` bytes from `offset` of a BAR.
pub(crate) fn first_access(bar: Bar, offset: u32, len: usize) -> Option<Access> {
    [Width::Eight, Width::Four, Width::Two, Width::One]
        .into_iter()
        .filter(|width| width.bytes() as usize <= len)
        .find_map(|width| Access::new(bar, offset, width, u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: u64 = 0xc000_0000;
    const SECOND: u64 = 0xc010_0000;

    fn two(kind: FabricKind, places: [Place; 2], acs: bool) -> Topology {
        let config = Config {
            fabric: kind,
            acs,
            ..Config::default()
        };
        let mut topology = Topology::new(&config);
        for (place, start) in places.into_iter().zip([FIRST, SECOND]) {
            let window = Window {
                bar: Bar::ZERO,
                start,
                size: 0x1000,
                decoded: start,
            };
            topology.attach(place, vec![window]);
        }
        topology
    }

    #[test]
    fn functions_of_one_switch_reach_each_other_directly_unless_redirected() {
        let near = [Place::Switch, Place::Switch];
        let far = [Place::Switch, Place::RootPort];
        for (kind, places, acs, way) in [
            (FabricKind::Pcie, near, false, Way::Direct),
            (FabricKind::Pcie, near, true, Way::Upstream),
            (FabricKind::Pcie, far, false, Way::Upstream),
            (FabricKind::Pcie, [Place::RootPort; 2], false, Way::Upstream),
            (FabricKind::Pci, far, true, Way::Direct),
        ] {
            assert_eq!(two(kind, places, acs).way(0, 1), way, "{kind:?} {places:?}");
        }
    }

    #[test]
    fn address_leads_to_the_register_of_another_function() {
        let topology = two(FabricKind::Pcie, [Place::RootPort; 2], false);
        let target = topology.target(0, SECOND + 8).expect("a BAR");
        assert_eq!((target.slot, target.offset), (1, 8));
        assert_eq!(topology.target(0, FIRST), None);
        assert_eq!(topology.target(0, SECOND + 0x1000), None);
    }

    #[test]
    fn moved_bar_answers_nobody_on_a_link_and_everybody_on_a_bus() {
        for (kind, reached) in [(FabricKind::Pcie, false), (FabricKind::Pci, true)] {
            let mut topology = two(kind, [Place::Switch; 2], false);
            assert!(topology.move_bar(0, Bar::ZERO, SECOND));
            assert_eq!(topology.claim(0, SECOND).is_some(), reached);
            assert_eq!(topology.claim(0, FIRST), None);
            topology.put_back(0);
            assert!(topology.claim(0, FIRST).is_some() && !topology.moved());
        }
    }

    #[test]
    fn accesses_are_as_wide_as_alignment_and_length_allow() {
        let width = |offset, len| first_access(Bar::ZERO, offset, len).map(Access::width);
        assert_eq!(width(8, 64), Some(Width::Eight));
        assert_eq!(width(4, 64), Some(Width::Four));
        assert_eq!(width(8, 3), Some(Width::Two));
        assert_eq!(width(1, 64), Some(Width::One));
        assert_eq!(width(0, 0), None);
    }
}
