//! The application and its driver are one program in a virtual machine of their own: BEA's LiquidVM,
//! unikernels.
//!
//! As in `passthrough`, but that no kernel copies the application's data: it calls its driver.

use super::Standing::{Deployed, Synthetic};
use super::{Placement, passthrough};
use crate::trial::PlacementId;

pub(super) const PLACEMENT: Placement = Placement {
    id: "library-os",
    placement: PlacementId::LibraryOs,
    line: "the driver is in the application, alone in a virtual machine with its device",
    stands_for: "BEA LiquidVM, unikernels (Unikraft, IncludeOS) with a device of their own",
    crossing: "a function call of the application",
    copies: false,
    deployed: [
        Synthetic("no unikernel we know of was given a device without an IOMMU"),
        Synthetic("a guest is never given all memory"),
        Synthetic("Xen and VFIO invalidate before an unmapping returns"),
        Deployed("unikernels on KVM with VFIO, with a virtual IOMMU"),
        Synthetic("VFIO maps the guest's pages themselves"),
    ],
    ..passthrough::PLACEMENT
};
