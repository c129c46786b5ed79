//! Cells: everything that is fixed over the trials of one cell of the matrix.

use crate::catalogue;
use crate::seed::Draw;
use cofferdam_machine::config::{FabricKind, IommuMode, TimeoutEnds};
use cofferdam_placement::own::PlatformId;
use cofferdam_placement::trial::{
    By, DataPath, DriverId, Fault, Oops, Packing, PlacementId, Target, TrialSpec,
};

/// A fault with everything fixed but what each trial draws: which access it strikes (`nth`) and
/// how long it is (`len`). Both are 0 here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Case {
    /// The fault, `nth` and `len` 0.
    pub fault: Fault,
    /// How a completion timeout ends.
    pub timeout_ends: TimeoutEnds,
    /// What a crash does to a privileged layer.
    pub oops: Oops,
    /// Whether interrupts are remapped.
    pub intremap: bool,
    /// Whether switches check what passes them (Access Control Services).
    pub acs: bool,
    /// Who carries requests' data.
    pub data: DataPath,
    /// How the driver's buffers lie.
    pub packing: Packing,
}

/// A target's name in cell ids and on the report.
pub const fn target_name(target: Target) -> &'static str {
    match target {
        Target::Hypervisor => "hypervisor",
        Target::Kernel => "kernel",
        Target::Driver => "driver",
        Target::Tenant1 => "tenant1",
        Target::Tenant2 => "tenant2",
        Target::Free => "free",
        Target::Neighbour => "neighbour",
        Target::Unbacked => "unbacked",
    }
}

/// Who commits it, in a case's name.
pub(crate) const fn by_name(by: By) -> &'static str {
    match by {
        By::Device => "device",
        By::Driver => "driver",
    }
}

/// A time in a case's name.
pub(crate) fn micros(us: u32) -> String {
    if us >= 1000 && us.is_multiple_of(1000) {
        format!("{}ms", us / 1000)
    } else {
        format!("{us}us")
    }
}

impl Case {
    /// The case with the usual platform: a timeout ends in all ones, an oops in a panic, interrupts
    /// are not remapped, switches let everything pass, data are copied, buffers packed.
    pub const fn of(fault: Fault) -> Self {
        Self {
            fault,
            timeout_ends: TimeoutEnds::AllOnes,
            oops: Oops::Panic,
            intremap: false,
            acs: false,
            data: DataPath::Copy,
            packing: Packing::Packed,
        }
    }

    /// The clean case.
    pub const CLEAN: Self = Self::of(Fault::None);

    /// Whether data get to the device in another way than usual.
    pub const fn is_ablation(&self) -> bool {
        !(self.data.is_usual() && self.packing.is_usual())
    }

    /// Its name: the fault's id and the parameters that make it this case, `D1.device.tenant1`.
    pub fn name(&self) -> String {
        catalogue::case_name(self)
    }

    /// The fault of one trial: what the case leaves open is drawn. `nth` stays within two thirds of
    /// one tenant's requests, so that two tenants reach it whatever their mix of requests.
    pub fn strike(&self, draw: &mut Draw, requests: u32) -> Fault {
        let nth = draw.between(2, (requests / 3).saturating_mul(2).max(2));
        let len = [8, 64, 512][draw.between(0, 2) as usize];
        let mut fault = self.fault;
        if let Some(bytes) = fault.len_mut() {
            *bytes = len;
        }
        if let Fault::D1 {
            target: Target::Neighbour,
            len,
            ..
        } = &mut fault
        {
            // Beside a buffer there may be no more than its page's last bytes.
            *len = 8;
        }
        if let Some(at) = fault.nth_mut() {
            *at = nth;
        }
        fault
    }
}

/// A cell: trials that differ in nothing but their seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cell {
    /// Where the driver lives.
    pub placement: PlacementId,
    /// The machine's parameters.
    pub platform: PlatformId,
    /// The IOMMU mode.
    pub iommu: IommuMode,
    /// The fabric.
    pub fabric: FabricKind,
    /// The driver.
    pub driver: DriverId,
    /// The fault.
    pub case: Case,
}

impl Cell {
    /// The cell a trial belongs to.
    pub fn of(spec: &TrialSpec) -> Self {
        Self {
            placement: spec.placement,
            platform: spec.platform,
            iommu: spec.iommu,
            fabric: spec.fabric,
            driver: spec.driver,
            case: Case {
                fault: spec.fault.open(),
                timeout_ends: spec.timeout_ends,
                oops: spec.oops,
                intremap: spec.intremap,
                acs: spec.acs,
                data: spec.data,
                packing: spec.packing,
            },
        }
    }

    /// Its name: `in-kernel/strict/pcie/edu/D1.device.tenant1`.
    pub fn id(&self) -> String {
        format!(
            "{}/{}",
            catalogue::placement(self.placement).id,
            self.peers()
        )
    }

    /// The name it shares with the same cell of the other placements; `pcie@mine` is the fabric pcie
    /// with the parameters of a user's platform.
    pub fn peers(&self) -> String {
        let platform = match self.platform {
            PlatformId::Usual => String::new(),
            own => format!("@{}", own.id()),
        };
        format!(
            "{}/{}{platform}/{}/{}",
            catalogue::iommu_name(self.iommu),
            catalogue::fabric_name(self.fabric),
            catalogue::driver(self.driver).id,
            self.case.name()
        )
    }

    /// The clean cell it is paired with: data go the same way there.
    pub const fn clean(&self) -> Self {
        Self {
            case: Case {
                data: self.case.data,
                packing: self.case.packing,
                ..Case::CLEAN
            },
            ..*self
        }
    }

    /// Whether it is a clean cell.
    pub const fn is_clean(&self) -> bool {
        matches!(self.case.fault, Fault::None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbour_writes_are_short() {
        let case = Case::of(Fault::D1 {
            by: By::Device,
            target: Target::Neighbour,
            len: 0,
            nth: 0,
        });
        for seed in 0..50 {
            let Fault::D1 { len, nth, .. } = case.strike(&mut Draw::new(seed), 12) else {
                panic!("a case strikes with its own fault");
            };
            assert_eq!(len, 8);
            assert!((2..=8).contains(&nth));
        }
    }

    #[test]
    fn same_seed_strikes_at_the_same_place_whatever_the_fault() {
        let crash = Case::of(Fault::X1 { nth: 0 }).strike(&mut Draw::new(9), 24);
        let hang = Case::of(Fault::B1 { nth: 0 }).strike(&mut Draw::new(9), 24);
        let (Fault::X1 { nth: one }, Fault::B1 { nth: two }) = (crash, hang) else {
            panic!("a case strikes with its own fault");
        };
        assert_eq!(one, two);
    }
}
