//! Wild, late and overlong DMA (D).

use super::{ALL_MODES_PCIE, Fault, PCIE};
use crate::cell::{Case, Cell, by_name, micros, target_name};
use crate::predict::{Expect, Prediction, by_construction, measured, nanos};
use cofferdam_machine::config::{Config, IommuMode};
use cofferdam_placement::trial::{By, Fault as Strike, Target};

/// The entries, in the order of the report.
pub(super) static ENTRIES: [Fault; 4] = [
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
];

/// Every case of an entry, in the order of the report.
pub(super) fn cases(id: &str) -> Vec<Case> {
    match id {
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
        "D6" => [(By::Device, 2_000), (By::Device, 20_000), (By::Driver, 0)]
            .map(|(by, delay_us)| {
                Case::of(Strike::D6 {
                    by,
                    delay_us,
                    nth: 0,
                })
            })
            .to_vec(),
        "D8" => vec![Case::of(Strike::D8 { nth: 0 })],
        _ => Vec::new(),
    }
}

/// The name of a case.
pub(super) fn name(case: &Case) -> Option<String> {
    Some(match case.fault {
        Strike::D1 { by, target, .. } => format!("D1.{}.{}", by_name(by), target_name(target)),
        Strike::D4 { by, extra, .. } => format!("D4.{}.{extra}", by_name(by)),
        Strike::D6 {
            by: By::Device,
            delay_us,
            ..
        } => format!("D6.device.{}", micros(delay_us)),
        Strike::D6 { by: By::Driver, .. } => "D6.driver.early".into(),
        Strike::D8 { .. } => "D8".into(),
        _ => return None,
    })
}

/// The prediction of a cell.
pub(super) fn predict(cell: &Cell) -> Option<Prediction> {
    let translates = cell.iommu.translates();
    Some(match cell.case.fault {
        Strike::D1 { by, target, .. } => wild_dma(by, target, translates),
        Strike::D4 { .. } => measured(
            Expect::Unrefused,
            "the access begins in a mapped buffer: an IOMMU cuts it at the end of a page, if there",
        ),
        Strike::D6 { .. } => use_after_unmap(cell.iommu),
        Strike::D8 { .. } if translates => {
            by_construction(Expect::Blocked, "the page is mapped for reading only")
        }
        Strike::D8 { .. } => measured(
            Expect::Unrefused,
            "without translation nothing knows what a buffer is for",
        ),
        _ => return None,
    })
}

fn wild_dma(by: By, target: Target, translates: bool) -> Prediction {
    // A driver that gives its device a wrong address also breaks its own request: what comes of
    // that is measured. A device's extra transfer breaks nothing else.
    let labelled = |expect, because| match by {
        By::Device => by_construction(expect, because),
        By::Driver => measured(expect, because),
    };
    match target {
        Target::Neighbour => measured(
            Expect::Unrefused,
            "an IOMMU maps pages: the neighbour's bytes are on a mapped one",
        ),
        Target::Unbacked => labelled(Expect::Refused(None), "no memory answers there"),
        Target::Hypervisor
        | Target::Kernel
        | Target::Driver
        | Target::Tenant1
        | Target::Tenant2
        | Target::Free => match target.owner() {
            Some(owner) if !translates => {
                labelled(Expect::Lands(owner), "the device reaches all memory")
            }
            owner => labelled(
                Expect::Refused(owner),
                "the device's IOMMU domain does not map it",
            ),
        },
    }
}

fn use_after_unmap(iommu: IommuMode) -> Prediction {
    match iommu {
        IommuMode::Off | IommuMode::Passthrough => measured(
            Expect::Unrefused,
            "the device reaches all memory; harm needs a new user of the page",
        ),
        IommuMode::Strict => measured(
            Expect::StaleFor(0),
            "the translation is gone before the unmapping returns; harm needs the address to be \
             given out again",
        ),
        IommuMode::Lazy => measured(
            Expect::StaleFor(nanos(Config::default().lazy_delay)),
            "a stale IOTLB entry lives for 10 ms at most, if an earlier DMA primed it",
        ),
    }
}
