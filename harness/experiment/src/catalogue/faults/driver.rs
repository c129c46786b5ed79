//! What the driver does wrong by itself: stores, crashes, hangs, leaks (M, X).

use super::{Except, Fault, PCIE, STRICT, STRICT_PCIE};
use crate::catalogue::placement;
use crate::cell::{Case, Cell, target_name};
use crate::predict::{Expect, Prediction, by_construction, measured};
use cofferdam_placement::trial::{Fault as Strike, Oops, Target};

/// The entries, in the order of the report.
pub(super) static ENTRIES: [Fault; 7] = [
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
        id: "X1",
        line: "the driver crashes",
        by: "driver (Sabotage)",
        parameters: "oops panic; kill-task where a crash reaches the privileged layer",
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
            privileged: false,
            reason: "a crash of the driver ends before it reaches the privileged layer, whatever \
                     that does with an oops of its own",
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
    Fault {
        id: "X3",
        line: "the driver waits for ever with a ring held",
        by: "driver (Sabotage)",
        parameters: "none",
        trigger: "at the nth request",
        oracle: "supervisor (watchdog)",
        iommu: STRICT,
        fabrics: PCIE,
        crossing: STRICT_PCIE,
        except: &[],
    },
    Fault {
        id: "X4",
        line: "the driver leaks mappings until it gets no more",
        by: "driver (Sabotage)",
        parameters: "1 or 512 leaked for each one it needs",
        trigger: "from the nth mapping",
        oracle: "the ledger (mappings that live on), the host's refusal",
        iommu: STRICT,
        fabrics: PCIE,
        crossing: STRICT_PCIE,
        except: &[],
    },
    Fault {
        id: "X5",
        line: "the driver crashes, and again while it recovers",
        by: "driver (Sabotage)",
        parameters: "before it touches the device once; before it serves, once or three times",
        trigger: "before the nth request, then at a step of its start",
        oracle: "supervisor (death of the domain)",
        iommu: STRICT,
        fabrics: PCIE,
        crossing: STRICT_PCIE,
        except: &[],
    },
    Fault {
        id: "X6",
        line: "the driver's domain dies in the middle of an answer",
        by: "driver (Sabotage)",
        parameters: "after 0 or 100 bytes of the answer's data",
        trigger: "the nth answer",
        oracle: "supervisor (death of the domain), tenants' verification",
        iommu: STRICT,
        fabrics: PCIE,
        crossing: STRICT_PCIE,
        except: &[],
    },
];

/// Every case of an entry, in the order of the report.
pub(super) fn cases(id: &str) -> Vec<Case> {
    match id {
        "M1" => Target::ALL
            .into_iter()
            .filter(|target| target.owner().is_some())
            .map(|target| {
                Case::of(Strike::M1 {
                    target,
                    len: 0,
                    nth: 0,
                })
            })
            .collect(),
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
        "X3" => vec![Case::of(Strike::X3 { nth: 0 })],
        "X4" => [1, 512]
            .map(|pins| Case::of(Strike::X4 { pins, nth: 0 }))
            .to_vec(),
        "X5" => [(0, 1), (1, 1), (1, 3)]
            .map(|(step, repeats)| {
                Case::of(Strike::X5 {
                    step,
                    repeats,
                    nth: 0,
                })
            })
            .to_vec(),
        "X6" => [0, 100]
            .map(|byte| Case::of(Strike::X6 { byte, nth: 0 }))
            .to_vec(),
        _ => Vec::new(),
    }
}

/// The name of a case.
pub(super) fn name(case: &Case) -> Option<String> {
    Some(match case.fault {
        Strike::M1 { target, .. } => format!("M1.{}", target_name(target)),
        Strike::X1 { .. } => match case.oops {
            Oops::Panic => "X1.panic".into(),
            Oops::KillTask => "X1.kill-task".into(),
        },
        Strike::X2 { raw: true, .. } => "X2.raw".into(),
        Strike::X2 { ms, .. } => format!("X2.polite-{ms}ms"),
        Strike::X4 { pins, .. } => format!("X4.{pins}-pins"),
        Strike::X5 { step, repeats, .. } => format!("X5.step-{step}.{repeats}x"),
        Strike::X6 { byte, .. } => format!("X6.byte-{byte}"),
        _ => return None,
    })
}

/// The prediction of a cell.
pub(super) fn predict(cell: &Cell) -> Option<Prediction> {
    Some(match cell.case.fault {
        Strike::M1 { target, .. } => match target.owner() {
            Some(owner) if placement(cell.placement).driver_maps(owner) => by_construction(
                Expect::Lands(owner),
                "the driver's domain maps these frames",
            ),
            owner => by_construction(
                Expect::Refused(owner),
                "the driver's domain does not map these frames",
            ),
        },
        Strike::X1 { .. } | Strike::X5 { .. } | Strike::X6 { .. } => crash(cell),
        Strike::X4 { .. } => measured(
            Expect::Open,
            "depends on how many mappings the host allows, and what the driver does without",
        ),
        Strike::X2 { .. } | Strike::X3 { .. } => {
            measured(Expect::Open, "depends on the supervisor's watchdog")
        }
        _ => return None,
    })
}

fn crash(cell: &Cell) -> Prediction {
    match (placement(cell.placement).panic_ends_layer(), cell.case.oops) {
        (true, Oops::Panic) => by_construction(
            Expect::SystemLost,
            "the privileged layer panics with the driver in it",
        ),
        (true, Oops::KillTask) => measured(Expect::Open, "depends on what the layer can clean up"),
        (false, _) => measured(
            Expect::OthersLive,
            "a crash ends the driver or its domain, and no other",
        ),
    }
}
