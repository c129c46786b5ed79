//! What the device says it is, and where its structures lie.

use crate::spec::{self, structure};
use cofferdam_seam::{Bar, BarSpec, Capability, MsixLocation, PciIdentity};

/// The BAR of the virtio structures, each on a page of its own.
pub(crate) const STRUCTURES: Bar = bar(4);
/// The BAR of the MSI-X table and pending bits.
const MESSAGES: Bar = bar(1);

/// Common configuration.
pub(crate) const COMMON: u32 = 0x0000;
/// Interrupt status.
pub(crate) const ISR: u32 = 0x1000;
/// Device configuration.
pub(crate) const CONFIG: u32 = 0x2000;
/// Notifications.
pub(crate) const NOTIFY: u32 = 0x3000;
/// Bytes each structure takes.
pub(crate) const PAGE: u32 = 0x1000;

const fn bar(index: u8) -> Bar {
    match Bar::new(index) {
        Some(bar) => bar,
        None => panic!("a type 0 header has BARs 0 to 5"),
    }
}

const fn vendor(kind: u8, offset: u32) -> [u8; 13] {
    spec::capability(kind, 4, offset, PAGE)
}

static COMMON_CAPABILITY: [u8; 13] = vendor(structure::COMMON, COMMON);
static ISR_CAPABILITY: [u8; 13] = vendor(structure::ISR, ISR);
static CONFIG_CAPABILITY: [u8; 13] = vendor(structure::DEVICE, CONFIG);
/// A notification capability ends with the distance between two queues' notification addresses
/// (virtio 1.2, 4.1.4.4).
static NOTIFY_CAPABILITY: [u8; 17] = {
    let mut body = [0; 17];
    let head = vendor(structure::NOTIFY, NOTIFY);
    body.split_at_mut(head.len()).0.copy_from_slice(&head);
    body[13] = 4;
    body
};

/// The capabilities of a device with that many MSI-X vectors.
struct Capabilities<const VECTORS: u16>;

impl<const VECTORS: u16> Capabilities<VECTORS> {
    const LIST: &'static [Capability] = &[
        Capability::Msix {
            vectors: VECTORS,
            table: MsixLocation {
                bar: MESSAGES,
                offset: 0,
            },
            pba: MsixLocation {
                bar: MESSAGES,
                offset: 0x800,
            },
        },
        Capability::Vendor(&COMMON_CAPABILITY),
        Capability::Vendor(&NOTIFY_CAPABILITY),
        Capability::Vendor(&ISR_CAPABILITY),
        Capability::Vendor(&CONFIG_CAPABILITY),
        Capability::PcieEndpoint { flr: true },
    ];
}

/// A modern virtio device of that type (virtio 1.2, 5) and PCI class, with one MSI-X vector for the
/// configuration and one a queue.
pub(crate) const fn identity<const VECTORS: u16>(kind: u16, class: [u8; 3]) -> PciIdentity {
    PciIdentity {
        vendor: spec::VENDOR,
        device: spec::DEVICE + kind,
        revision: 1,
        class,
        // A subsystem ID of 0x40 or more keeps legacy drivers away (virtio 1.2, 4.1.2.1).
        subsystem: [spec::VENDOR, 0x1100],
        intx: true,
        bars: BARS,
        capabilities: Capabilities::<VECTORS>::LIST,
    }
}

const BARS: &[BarSpec] = &[
    BarSpec {
        bar: MESSAGES,
        size: 0x1000,
        wide: false,
        prefetchable: false,
    },
    // Reading the interrupt status clears it: not prefetchable.
    BarSpec {
        bar: STRUCTURES,
        size: 0x4000,
        wide: true,
        prefetchable: false,
    },
];
