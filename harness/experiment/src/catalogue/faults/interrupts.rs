//! Interrupts that storm, vanish or are forged (I).

use super::{ALL_MODES_PCIE, Except, Fault, PCIE, STRICT, STRICT_PCIE};
use crate::catalogue::placement;
use crate::cell::{Case, Cell, micros};
use crate::predict::{Expect, Prediction, by_construction, measured};
use cofferdam_machine::config::{InterruptHandler, IommuMode};
use cofferdam_placement::trial::Fault as Strike;

/// The entries, in the order of the report.
pub(super) static ENTRIES: [Fault; 5] = [
    Fault {
        id: "I1",
        line: "an interrupt storm",
        by: "device (Tamper)",
        parameters: "10^4, 10^6, 10^7 a second for 20 ms; 10^6 a second for 150 ms",
        trigger: "after the nth payload write",
        oracle: "the kernel's count of unhandled interrupts, the supervisor's watchdog",
        iommu: STRICT,
        fabrics: PCIE,
        crossing: STRICT_PCIE,
        except: &[],
    },
    Fault {
        id: "I2",
        line: "lost interrupts",
        by: "device (Tamper)",
        parameters: "1 or 3 in a row",
        trigger: "the nth interrupt",
        oracle: "the driver's deadline",
        iommu: STRICT,
        fabrics: PCIE,
        crossing: STRICT_PCIE,
        except: &[],
    },
    Fault {
        id: "I3",
        line: "a stuck INTx line, on a platform without message interrupts",
        by: "device (Tamper)",
        parameters: "none",
        trigger: "after the nth payload write, for good",
        oracle: "the kernel's count of unhandled interrupts, the supervisor's watchdog",
        iommu: STRICT,
        fabrics: PCIE,
        crossing: STRICT_PCIE,
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
            privileged: false,
            reason: "interrupt remapping is the IOMMU's: without one there is none",
        }],
    },
    Fault {
        id: "I5",
        line: "an interrupt after the driver reset its device",
        by: "device (Tamper)",
        parameters: "at once (nobody has the vector yet), 120 ms later (the driver serves again)",
        trigger: "the driver starts over before the nth request",
        oracle: "nobody: a spurious interrupt",
        iommu: STRICT,
        fabrics: PCIE,
        crossing: STRICT_PCIE,
        except: &[],
    },
];

/// Every case of an entry, in the order of the report.
pub(super) fn cases(id: &str) -> Vec<Case> {
    match id {
        "I1" => [
            (10_000, 20),
            (1_000_000, 20),
            (10_000_000, 20),
            (1_000_000, 150),
        ]
        .map(|(per_second, ms)| {
            Case::of(Strike::I1 {
                per_second,
                ms,
                nth: 0,
            })
        })
        .to_vec(),
        "I2" => [1, 3]
            .map(|burst| Case::of(Strike::I2 { burst, nth: 0 }))
            .to_vec(),
        "I3" => vec![Case::of(Strike::I3 { nth: 0 })],
        "I4" => {
            let unremapped = Case::of(Strike::I4 { nth: 0 });
            let remapped = Case {
                intremap: true,
                ..unremapped
            };
            vec![unremapped, remapped]
        }
        "I5" => [0, 120_000]
            .map(|delay_us| Case::of(Strike::I5 { delay_us, nth: 0 }))
            .to_vec(),
        _ => Vec::new(),
    }
}

/// The name of a case.
pub(super) fn name(case: &Case) -> Option<String> {
    Some(match case.fault {
        Strike::I1 { per_second, ms, .. } => format!("I1.{}k.{ms}ms", per_second / 1000),
        Strike::I2 { burst, .. } => format!("I2.{burst}"),
        Strike::I4 { .. } if case.intremap => "I4.remapped".into(),
        Strike::I4 { .. } => "I4.unremapped".into(),
        Strike::I5 { delay_us, .. } => format!("I5.{}", micros(delay_us)),
        _ => return None,
    })
}

/// The prediction of a cell.
pub(super) fn predict(cell: &Cell) -> Option<Prediction> {
    let vfio = placement(cell.placement).placement.placement().interrupts == InterruptHandler::Vfio;
    Some(match cell.case.fault {
        Strike::I1 {
            per_second: 0..1_000_000,
            ..
        } => measured(
            // A hundredth of the five milliseconds that a trial goes on for at least.
            interrupted(45, 3_000),
            "every interrupt holds the driver's CPU for a microsecond",
        ),
        Strike::I1 { ms: 0..100, .. } => measured(
            interrupted(19_000, 24_000),
            "what exceeds one interrupt a microsecond coalesces: the CPU is saturated while it storms",
        ),
        Strike::I1 { .. } => measured(
            interrupted(90_000, 155_000),
            "the CPU is saturated until the line is cut off, the watchdog strikes or the storm ends",
        ),
        Strike::I2 { .. } => measured(
            Expect::OthersLive,
            "the driver's deadline ends the wait, and what was not acknowledged is tried again",
        ),
        Strike::I3 { .. } if vfio => measured(
            interrupted(0, 20_000),
            "VFIO masks the line at every interrupt, so the driver's own pace bounds them",
        ),
        Strike::I3 { .. } => measured(
            Expect::Open,
            "the line storms whenever the driver does not wait for it; who acts first, kernel or \
             watchdog, depends on when that is",
        ),
        Strike::I4 { .. } if cell.case.intremap => by_construction(
            Expect::Forges(false),
            "remapping lets a function raise its own interrupts only",
        ),
        Strike::I4 { .. } => by_construction(
            Expect::Forges(true),
            "without remapping a message names any vector, whatever the IOMMU mode",
        ),
        Strike::I5 { .. } => measured(
            Expect::OthersLive,
            "an interrupt without a cause is nobody's, or one the driver looks into and forgets",
        ),
        _ => return None,
    })
}

/// That many microseconds of interrupts on the driver's CPU.
const fn interrupted(at_least_us: u64, at_most_us: u64) -> Expect {
    Expect::Interrupted {
        at_least: at_least_us * 1000,
        at_most: at_most_us * 1000,
    }
}
