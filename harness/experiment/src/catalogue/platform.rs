//! The axes of the platform: IOMMU modes, fabrics and clocks.

use cofferdam_machine::config::{FabricKind, IommuMode};
use cofferdam_placement::trial::ClockKind;
use serde::Serialize;

/// One value of an axis.
#[derive(Debug, Serialize)]
pub struct Item<T> {
    /// The name used on the command line and in records.
    pub id: &'static str,
    /// The value.
    #[serde(skip)]
    pub value: T,
    /// What it is.
    pub line: &'static str,
}

/// The IOMMU modes, weakest first.
pub static IOMMU_MODES: [Item<IommuMode>; 5] = [
    Item {
        id: "off",
        value: IommuMode::Off,
        line: "no IOMMU: a device reaches every physical address",
    },
    Item {
        id: "passthrough",
        value: IommuMode::Passthrough,
        line: "an IOMMU that maps all memory one to one",
    },
    Item {
        id: "lazy",
        value: IommuMode::Lazy,
        line: "translation; invalidation waits for 256 unmappings or 10 ms",
    },
    Item {
        id: "strict",
        value: IommuMode::Strict,
        line: "translation; invalidation before an unmapping returns",
    },
    Item {
        id: "bounce",
        value: IommuMode::Bounce,
        line: "strict, and what shares a page with others is copied through pages of its own",
    },
];

/// The fabrics, weakest first.
pub static FABRICS: [Item<FabricKind>; 4] = [
    Item {
        id: "pci",
        value: FabricKind::Pci,
        line: "one conventional bus for all: LOCK#, grants and retries, no timeout",
    },
    Item {
        id: "pcie-notimeout",
        value: FabricKind::PcieNotimeout,
        line: "PCI Express, completion timeout disabled",
    },
    Item {
        id: "pcie",
        value: FabricKind::Pcie,
        line: "PCI Express, completion timeout of 50 ms",
    },
    Item {
        id: "pcie-dpc",
        value: FabricKind::PcieDpc,
        line: "the same, and a port that saw an error is contained until it is released",
    },
];

/// The clocks.
pub static CLOCKS: [Item<ClockKind>; 2] = [
    Item {
        id: "leap",
        value: ClockKind::Leap,
        line: "device time jumps to the next event: fast, and a trial replays",
    },
    Item {
        id: "wall",
        value: ClockKind::Wall,
        line: "the host's monotonic clock: real concurrency, no replay",
    },
];

fn name_of<T: PartialEq>(items: &'static [Item<T>], value: &T) -> &'static str {
    items
        .iter()
        .find(|item| item.value == *value)
        .map_or("?", |item| item.id)
}

fn named<T: Copy>(items: &[Item<T>], id: &str) -> Option<T> {
    items
        .iter()
        .find(|item| item.id.eq_ignore_ascii_case(id))
        .map(|item| item.value)
}

/// The name of a mode.
pub fn iommu_name(mode: IommuMode) -> &'static str {
    name_of(&IOMMU_MODES, &mode)
}

/// The mode of that name.
pub fn iommu_named(id: &str) -> Option<IommuMode> {
    named(&IOMMU_MODES, id)
}

/// The name of a fabric.
pub fn fabric_name(fabric: FabricKind) -> &'static str {
    name_of(&FABRICS, &fabric)
}

/// The fabric of that name.
pub fn fabric_named(id: &str) -> Option<FabricKind> {
    named(&FABRICS, id)
}

/// The name of a clock.
pub fn clock_name(clock: ClockKind) -> &'static str {
    name_of(&CLOCKS, &clock)
}

/// The clock of that name.
pub fn clock_named(id: &str) -> Option<ClockKind> {
    named(&CLOCKS, id)
}
