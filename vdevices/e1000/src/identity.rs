//! What the PCI function says it is.

use crate::spec;
use cofferdam_seam::{Bar, BarSpec, Capability, PciIdentity};

pub(crate) static IDENTITY: PciIdentity = PciIdentity {
    vendor: spec::VENDOR,
    device: spec::DEVICE,
    revision: 0x02,
    class: spec::CLASS,
    // PRO/1000 MT Desktop.
    subsystem: [spec::VENDOR, 0x001e],
    intx: true,
    bars: &[BarSpec {
        bar: Bar::ZERO,
        size: spec::BAR_BYTES,
        wide: false,
        prefetchable: false,
    }],
    capabilities: &[
        Capability::Msi { log2_vectors: 0 },
        Capability::PcieEndpoint { flr: true },
    ],
};
