//! What the PCI function says it is, and where its structures lie in BAR 0.

use crate::spec;
use cofferdam_seam::{Bar, BarSpec, Capability, MsixLocation, PciIdentity};

/// The most I/O queue pairs a controller can be built with.
pub const MAX_QUEUES: u16 = 16;
/// The largest doorbell stride (CAP.DSTRD): doorbells 64 bytes apart.
pub const MAX_DOORBELL_STRIDE: u8 = 4;

/// PCI vendor ID: the one QEMU's devices of no vendor have, with a device ID of ours.
pub(crate) const VENDOR: u16 = 0x1b36;
const DEVICE: u16 = 0xcf01;
/// PCI subsystem vendor ID.
pub(crate) const SUBSYSTEM_VENDOR: u16 = 0x1af4;

/// Bytes in BAR 0: registers, doorbells, MSI-X table and pending bits, on a page each.
pub(crate) const BAR_BYTES: u32 = 0x4000;
pub(crate) const TABLE: u32 = 0x2000;
pub(crate) const PENDING: u32 = 0x3000;

/// The MSI-X structures of a controller with that many I/O queue pairs: one vector for each and
/// one for the admin queue.
const fn capabilities(queues: u16) -> [Capability; 2] {
    [
        Capability::PcieEndpoint { flr: true },
        Capability::Msix {
            vectors: 1 + queues,
            table: MsixLocation {
                bar: Bar::ZERO,
                offset: TABLE,
            },
            pba: MsixLocation {
                bar: Bar::ZERO,
                offset: PENDING,
            },
        },
    ]
}

/// By the number of I/O queue pairs, less one: an identity is constant data.
static CAPABILITIES: [[Capability; 2]; MAX_QUEUES as usize] = {
    let mut all = [capabilities(1); MAX_QUEUES as usize];
    let mut queues = 1;
    while queues <= MAX_QUEUES {
        all[queues as usize - 1] = capabilities(queues);
        queues += 1;
    }
    all
};

static BARS: [BarSpec; 1] = [BarSpec {
    bar: Bar::ZERO,
    size: BAR_BYTES as u64,
    wide: true,
    prefetchable: false,
}];

const fn with_queues(queues: u16) -> PciIdentity {
    PciIdentity {
        vendor: VENDOR,
        device: DEVICE,
        revision: 1,
        class: spec::CLASS,
        subsystem: [SUBSYSTEM_VENDOR, 0x1100],
        intx: true,
        bars: &BARS,
        capabilities: &CAPABILITIES[queues as usize - 1],
    }
}

static IDENTITIES: [PciIdentity; MAX_QUEUES as usize] = {
    let mut all = [with_queues(1); MAX_QUEUES as usize];
    let mut queues = 1;
    while queues <= MAX_QUEUES {
        all[queues as usize - 1] = with_queues(queues);
        queues += 1;
    }
    all
};

/// The function of a controller with `queues` I/O queue pairs, 1 to [`MAX_QUEUES`].
pub(crate) fn identity(queues: u16) -> &'static PciIdentity {
    &IDENTITIES[usize::from(queues.clamp(1, MAX_QUEUES)) - 1]
}

/// Doorbells end before the MSI-X table, however far apart they are.
const _: () =
    assert!(spec::DOORBELLS + 2 * (MAX_QUEUES as u32 + 1) * (4 << MAX_DOORBELL_STRIDE) <= TABLE);
