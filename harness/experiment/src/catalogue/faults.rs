//! Faults: what strikes, who commits it, where it applies and who should notice.

use crate::catalogue::placement;
use crate::cell::{Case, Cell};
use cofferdam_machine::config::{FabricKind, IommuMode, TimeoutEnds};
use cofferdam_placement::trial::{By, DriverId, Fault as Strike, Oops, Target};
use serde::Serialize;

/// An entry of the fault catalogue.
#[derive(Debug, Serialize)]
pub struct Fault {
    /// The name used on the command line and in records.
    pub id: &'static str,
    /// What happens.
    pub line: &'static str,
    /// Which layer commits it.
    pub by: &'static str,
    /// What is varied.
    pub parameters: &'static str,
    /// When it strikes; `n` is drawn from the trial's seed.
    pub trigger: &'static str,
    /// Who is expected to notice.
    pub oracle: &'static str,
    /// The IOMMU modes it is crossed with.
    pub iommu: &'static [IommuMode],
    /// The fabrics it is crossed with.
    pub fabrics: &'static [FabricKind],
    /// Why the other modes and fabrics are not crossed.
    pub crossing: &'static str,
    /// Where it does not exist at all.
    pub except: &'static [Except],
}

/// A corner of the catalogue where a fault does not exist. A field that is `None` matches all.
#[derive(Debug, Serialize)]
pub struct Except {
    /// The driver.
    pub driver: Option<DriverId>,
    /// The fabric.
    pub fabric: Option<FabricKind>,
    /// The IOMMU mode.
    pub iommu: Option<IommuMode>,
    /// The case, by name.
    pub case: Option<&'static str>,
    /// Only where the driver is outside the privileged layer.
    pub unprivileged: bool,
    /// Why.
    pub reason: &'static str,
}

/// Whether a fault exists for a driver on a fabric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "applies", content = "reason", rename_all = "kebab-case")]
pub enum Applicability {
    /// It is part of the plan.
    Yes,
    /// It exists, but the fabric cannot change what it does.
    NotCrossed(&'static str),
    /// It does not exist there.
    NotApplicable(&'static str),
}

const STRICT: &[IommuMode] = &[IommuMode::Strict];
const PCIE: &[FabricKind] = &[FabricKind::Pcie];
const STRICT_PCIE: &str = "no DMA goes astray and no request stays open, so neither IOMMU mode nor \
                           timeout can matter: crossed with strict on pcie only";
const ALL_MODES_PCIE: &str =
    "no request stays open, so the timeout cannot matter: crossed with pcie only";

/// Every fault, clean trials first.
pub static FAULTS: [Fault; 12] = [
    Fault {
        id: "none",
        line: "no fault: the clean trial every other is paired with",
        by: "nobody",
        parameters: "none",
        trigger: "never",
        oracle: "nobody: an error, a timeout or a stray DMA fails the run",
        iommu: &IommuMode::ALL,
        fabrics: &FabricKind::ALL,
        crossing: "pcie-notimeout with strict only, where B1 needs its pair",
        except: &[],
    },
    Fault {
        id: "D1",
        line: "wild DMA: a transfer to an address that was not mapped for it",
        by: "device (Tamper) or driver (Sabotage)",
        parameters: "by device, driver; target hypervisor, kernel, driver, tenant1, tenant2, free, \
                     neighbour, unbacked; 8 to 512 bytes",
        trigger: "after the nth payload DMA (device), in place of the nth mapping (driver)",
        oracle: "IOMMU fault log, pattern check, tenants' verification",
        iommu: &IommuMode::ALL,
        fabrics: PCIE,
        crossing: ALL_MODES_PCIE,
        except: &[],
    },
    Fault {
        id: "D4",
        line: "length overrun: a transfer that goes on beyond its buffer",
        by: "device (Tamper) or driver (Sabotage)",
        parameters: "by device 63 or 4096 bytes on; by a driver whose address is 63 bytes too far in",
        trigger: "the nth payload write (device), the nth mapping (driver)",
        oracle: "IOMMU fault log, tenants' verification",
        iommu: &IommuMode::ALL,
        fabrics: PCIE,
        crossing: ALL_MODES_PCIE,
        except: &[],
    },
    Fault {
        id: "D6",
        line: "use after unmap: DMA to an address whose mapping was taken back",
        by: "device (Tamper) or driver (Sabotage)",
        parameters: "by device 2 ms or 20 ms late; by a driver that unmaps early",
        trigger: "the nth payload DMA (device), the nth mapping (driver)",
        oracle: "IOMMU fault log, tenants' verification",
        iommu: &IommuMode::ALL,
        fabrics: PCIE,
        crossing: ALL_MODES_PCIE,
        except: &[],
    },
    Fault {
        id: "D8",
        line: "a write to a buffer that is mapped for reading",
        by: "device (Tamper)",
        parameters: "as long as the read",
        trigger: "after the nth payload read",
        oracle: "IOMMU fault log",
        iommu: &IommuMode::ALL,
        fabrics: PCIE,
        crossing: ALL_MODES_PCIE,
        except: &[],
    },
    Fault {
        id: "I4",
        line: "a forged interrupt message, with the vector of another device",
        by: "device (Tamper)",
        parameters: "interrupt remapping off, on",
        trigger: "after the nth payload write",
        oracle: "IOMMU fault log",
        iommu: &IommuMode::ALL,
        fabrics: PCIE,
        crossing: ALL_MODES_PCIE,
        except: &[Except {
            driver: None,
            fabric: None,
            iommu: Some(IommuMode::Off),
            case: Some("I4.remapped"),
            unprivileged: false,
            reason: "interrupt remapping is the IOMMU's: without one there is none",
        }],
    },
    Fault {
        id: "M1",
        line: "wild store by the driver's CPU: the fault that walls decide, not IOMMUs",
        by: "driver (Sabotage)",
        parameters: "target hypervisor, kernel, driver, tenant1, tenant2, free; 8 to 512 bytes",
        trigger: "before the nth request",
        oracle: "page fault of the driver's domain, pattern check",
        iommu: STRICT,
        fabrics: PCIE,
        crossing: STRICT_PCIE,
        except: &[],
    },
    Fault {
        id: "B1",
        line: "a non-posted register read that never completes",
        by: "device (Tamper)",
        parameters: "fabric pcie, pcie-notimeout; a timeout ends in all ones or a machine check",
        trigger: "the nth register read",
        oracle: "completion timeout, the driver's deadline, the supervisor's watchdog",
        iommu: STRICT,
        fabrics: &FabricKind::ALL,
        crossing: "no DMA goes astray, so the IOMMU mode cannot matter: crossed with strict only",
        except: &[Except {
            driver: None,
            fabric: Some(FabricKind::PcieNotimeout),
            iommu: None,
            case: Some("B1.machine-check"),
            unprivileged: false,
            reason: "without a completion timeout nothing ends in a machine check",
        }],
    },
    Fault {
        id: "B9",
        line: "register reads return all ones",
        by: "device (Tamper)",
        parameters: "window 1 ms, 100 ms",
        trigger: "from the nth register read",
        oracle: "the driver",
        iommu: STRICT,
        fabrics: PCIE,
        crossing: STRICT_PCIE,
        except: &[],
    },
    Fault {
        id: "R1",
        line: "a completion that names no request of the driver",
        by: "device (Tamper)",
        parameters: "index 64 (out of range), 7 (in range, not outstanding)",
        trigger: "the nth completion",
        oracle: "the driver",
        iommu: STRICT,
        fabrics: PCIE,
        crossing: STRICT_PCIE,
        except: &[Except {
            driver: Some(DriverId::Edu),
            fabric: None,
            iommu: None,
            case: None,
            unprivileged: false,
            reason: "edu has no completion ring: nothing names a request",
        }],
    },
    Fault {
        id: "X1",
        line: "the driver crashes",
        by: "driver (Sabotage)",
        parameters: "oops panic; kill-task where the driver is in the privileged layer",
        trigger: "before the nth request",
        oracle: "supervisor (death of the domain)",
        iommu: STRICT,
        fabrics: PCIE,
        crossing: STRICT_PCIE,
        except: &[Except {
            driver: None,
            fabric: None,
            iommu: None,
            case: Some("X1.kill-task"),
            unprivileged: true,
            reason: "the driver is outside the privileged layer: a crash ends its own domain, \
                     whatever the layer does with an oops of its own",
        }],
    },
    Fault {
        id: "X2",
        line: "the driver spins",
        by: "driver (Sabotage)",
        parameters: "polite for 5 ms (below the supervisor's watchdog of 100 ms) or 300 ms; raw",
        trigger: "before the nth request",
        oracle: "supervisor (watchdog), or the CPU-time budget when raw",
        iommu: STRICT,
        fabrics: PCIE,
        crossing: STRICT_PCIE,
        except: &[],
    },
];

/// The entry of that name.
pub fn fault_named(id: &str) -> Option<&'static Fault> {
    FAULTS
        .iter()
        .find(|entry| entry.id.eq_ignore_ascii_case(id))
}

/// The values a fault's parameters take in a plan: every case of it, in the order of the report.
pub fn cases(fault: &Fault) -> Vec<Case> {
    let owners = Target::ALL
        .into_iter()
        .filter(|target| target.owner().is_some());
    match fault.id {
        "D1" => [By::Device, By::Driver]
            .into_iter()
            .flat_map(|by| {
                Target::ALL.map(|target| Strike::D1 {
                    by,
                    target,
                    len: 0,
                    nth: 0,
                })
            })
            .map(Case::of)
            .collect(),
        "D4" => [(By::Device, 63), (By::Device, 4096), (By::Driver, 63)]
            .map(|(by, extra)| Case::of(Strike::D4 { by, extra, nth: 0 }))
            .to_vec(),
        "D8" => vec![Case::of(Strike::D8 { nth: 0 })],
        "I4" => {
            let unremapped = Case::of(Strike::I4 { nth: 0 });
            let remapped = Case {
                intremap: true,
                ..unremapped
            };
            vec![unremapped, remapped]
        }
        "D6" => [(By::Device, 2_000), (By::Device, 20_000), (By::Driver, 0)]
            .map(|(by, delay_us)| {
                Case::of(Strike::D6 {
                    by,
                    delay_us,
                    nth: 0,
                })
            })
            .to_vec(),
        "M1" => owners
            .map(|target| {
                Case::of(Strike::M1 {
                    target,
                    len: 0,
                    nth: 0,
                })
            })
            .collect(),
        "B1" => {
            let all_ones = Case::of(Strike::B1 { nth: 0 });
            let machine_check = Case {
                timeout_ends: TimeoutEnds::MachineCheck,
                ..all_ones
            };
            vec![all_ones, machine_check]
        }
        "B9" => [1_000, 100_000]
            .map(|window_us| Case::of(Strike::B9 { nth: 0, window_us }))
            .to_vec(),
        "R1" => [64, 7]
            .map(|value| Case::of(Strike::R1 { nth: 0, value }))
            .to_vec(),
        "X1" => {
            let panic = Case::of(Strike::X1 { nth: 0 });
            let kill_task = Case {
                oops: Oops::KillTask,
                ..panic
            };
            vec![panic, kill_task]
        }
        "X2" => [(false, 5), (false, 300), (true, 0)]
            .map(|(raw, ms)| Case::of(Strike::X2 { raw, ms, nth: 0 }))
            .to_vec(),
        _ => vec![Case::of(Strike::None)],
    }
}

impl Except {
    /// Whether that cell is in the corner.
    pub(crate) fn covers(&self, cell: &Cell) -> bool {
        self.driver.is_none_or(|driver| driver == cell.driver)
            && self.fabric.is_none_or(|fabric| fabric == cell.fabric)
            && self.iommu.is_none_or(|iommu| iommu == cell.iommu)
            && self.case.is_none_or(|case| case == cell.case.name())
            && !(self.unprivileged && placement(cell.placement).driver_is_privileged())
    }
}

/// Why the fault of a cell does not exist there, if it does not.
pub fn why_not(cell: &Cell) -> Option<&'static str> {
    fault_named(cell.case.fault.id())?
        .except
        .iter()
        .find(|except| except.covers(cell))
        .map(|except| except.reason)
}

/// Whether a fault exists for a driver on a fabric, for at least one of its cases.
pub fn applicability(fault: &Fault, driver: DriverId, fabric: FabricKind) -> Applicability {
    let excluded = fault.except.iter().find(|except| {
        except.case.is_none()
            && except.iommu.is_none()
            && except.driver.is_none_or(|of| of == driver)
            && except.fabric.is_none_or(|of| of == fabric)
    });
    match excluded {
        Some(except) => Applicability::NotApplicable(except.reason),
        None if fault.fabrics.contains(&fabric) => Applicability::Yes,
        None => Applicability::NotCrossed(fault.crossing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completion_index_is_not_applicable_to_edu() {
        let fault = fault_named("r1").expect("R1 is in the catalogue");
        for fabric in FabricKind::ALL {
            let answer = applicability(fault, DriverId::Edu, fabric);
            assert!(matches!(answer, Applicability::NotApplicable(_)));
        }
        let answer = applicability(fault, DriverId::VirtioBlk, FabricKind::Pcie);
        assert_eq!(answer, Applicability::Yes);
    }

    #[test]
    fn every_combination_has_an_answer_and_every_refusal_a_reason() {
        for fault in &FAULTS {
            for driver in [DriverId::Edu, DriverId::VirtioBlk] {
                for fabric in FabricKind::ALL {
                    match applicability(fault, driver, fabric) {
                        Applicability::Yes => {}
                        Applicability::NotCrossed(reason)
                        | Applicability::NotApplicable(reason) => assert!(!reason.is_empty()),
                    }
                }
            }
        }
    }

    #[test]
    fn every_case_belongs_to_its_fault() {
        for fault in &FAULTS {
            for case in cases(fault) {
                assert_eq!(case.fault.id(), fault.id);
            }
        }
    }
}
