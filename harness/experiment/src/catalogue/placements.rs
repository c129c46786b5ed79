//! Placements: where a driver can live, and who really runs one there.
//!
//! The topology itself (processes, mappings, crossings) is the placement crate's; here is what the
//! prediction and the report need to know about it.

use cofferdam_machine::config::IommuMode;
use cofferdam_machine::frames::Owner;
use cofferdam_placement::trial::PlacementId;
use serde::Serialize;

/// A placement.
#[derive(Debug, Serialize)]
pub struct Placement {
    /// The name used on the command line and in records.
    pub id: &'static str,
    /// The placement.
    #[serde(skip)]
    pub placement: PlacementId,
    /// What it is.
    pub line: &'static str,
    /// The systems it stands for.
    pub stands_for: &'static str,
    /// The protection domain that holds the driver.
    pub driver_in: &'static str,
    /// How a tenant's request reaches the driver.
    pub crossing: &'static str,
    /// Whether that domain is the privileged layer itself.
    pub driver_is_privileged: bool,
    /// Whose frames that domain maps, rings and granted pages aside: where a wild store lands.
    pub maps: &'static [Owner],
    /// Who runs so, in each IOMMU mode.
    pub deployed: [Deployment; 4],
}

/// Whether a placement with an IOMMU mode exists outside this experiment.
#[derive(Debug, Serialize)]
pub struct Deployment {
    /// The mode.
    pub iommu: IommuMode,
    /// Whether, and who.
    #[serde(flatten)]
    pub standing: Standing,
}

/// Deployed or synthetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "standing", content = "note", rename_all = "kebab-case")]
pub enum Standing {
    /// That system runs so.
    Deployed(&'static str),
    /// Nobody we know of does, for that reason.
    Synthetic(&'static str),
}

const fn modes(of: [Standing; 4]) -> [Deployment; 4] {
    [
        Deployment {
            iommu: IommuMode::Off,
            standing: of[0],
        },
        Deployment {
            iommu: IommuMode::Passthrough,
            standing: of[1],
        },
        Deployment {
            iommu: IommuMode::Lazy,
            standing: of[2],
        },
        Deployment {
            iommu: IommuMode::Strict,
            standing: of[3],
        },
    ]
}

use Standing::{Deployed, Synthetic};

/// Every placement, in the order of the report.
pub static PLACEMENTS: [Placement; 4] = [
    Placement {
        id: "in-kernel",
        placement: PlacementId::InKernel,
        line: "the driver is part of the kernel",
        stands_for: "Linux and every monolithic operating system",
        driver_in: "kernel",
        crossing: "call ring and doorbell into the kernel",
        driver_is_privileged: true,
        maps: &Owner::ALL,
        deployed: modes([
            Deployed("Linux with intel_iommu=off, or on a machine without an IOMMU"),
            Deployed("Linux with iommu=pt (IOMMU_DEFAULT_PASSTHROUGH)"),
            Deployed("Linux on x86 as built by default (IOMMU_DEFAULT_DMA_LAZY)"),
            Deployed("Linux with iommu.strict=1 (IOMMU_DEFAULT_DMA_STRICT)"),
        ]),
    },
    Placement {
        id: "hypervisor",
        placement: PlacementId::Hypervisor,
        line: "the driver is part of the hypervisor; until tenants run in KVM, the A/A control of in-kernel",
        stands_for: "VMware ESX",
        driver_in: "hypervisor",
        crossing: "hypercall (here: call ring and doorbell, as in-kernel)",
        driver_is_privileged: true,
        maps: &Owner::ALL,
        deployed: modes([
            Deployed("VMware ESX on hosts without VT-d"),
            Synthetic("we know of no documentation of a one-to-one domain for VMkernel drivers"),
            Synthetic("no hypervisor is known to batch invalidations for its own drivers"),
            Synthetic("we know of no documentation that VMkernel drivers run so"),
        ]),
    },
    Placement {
        id: "root-partition",
        placement: PlacementId::RootPartition,
        line: "the driver is part of a root operating system beside the hypervisor",
        stands_for: "Xen dom0, the root partition of Viridian and Hyper-V",
        driver_in: "root operating system",
        crossing: "shared ring and event",
        driver_is_privileged: false,
        maps: &[Owner::Kernel, Owner::Driver],
        deployed: modes([
            Deployed("Xen dom0 with iommu=off, the first Hyper-V hosts"),
            Deployed("Xen dom0 with dom0-iommu=passthrough"),
            Synthetic("Xen maps dom0's memory statically, Windows does not document batching"),
            Deployed("Windows with Hyper-V and drivers that opt in to DMA remapping"),
        ]),
    },
    Placement {
        id: "user-process",
        placement: PlacementId::UserProcess,
        line: "the driver is an unprivileged process of its own",
        stands_for: "VFIO user space, SUD, DPDK and SPDK",
        driver_in: "driver process",
        crossing: "shared ring and event",
        driver_is_privileged: false,
        maps: &[Owner::Driver],
        deployed: modes([
            Deployed("DPDK over uio_pci_generic with the IOMMU disabled"),
            Deployed("DPDK over uio_pci_generic with iommu=pt"),
            Synthetic("VFIO and iommufd invalidate before an unmapping returns"),
            Deployed("DPDK and SPDK over VFIO"),
        ]),
    },
];

impl Placement {
    /// Who runs so in that mode.
    pub fn standing(&self, iommu: IommuMode) -> Standing {
        self.deployed
            .iter()
            .find(|deployment| deployment.iommu == iommu)
            .map_or(Synthetic("not in the catalogue"), |deployment| {
                deployment.standing
            })
    }
}

/// The entry of a placement.
pub fn placement(id: PlacementId) -> &'static Placement {
    match id {
        PlacementId::InKernel => &PLACEMENTS[0],
        PlacementId::Hypervisor => &PLACEMENTS[1],
        PlacementId::RootPartition => &PLACEMENTS[2],
        PlacementId::UserProcess => &PLACEMENTS[3],
    }
}

/// The placement of that name.
pub fn placement_named(id: &str) -> Option<PlacementId> {
    PLACEMENTS
        .iter()
        .find(|entry| entry.id.eq_ignore_ascii_case(id))
        .map(|entry| entry.placement)
}
