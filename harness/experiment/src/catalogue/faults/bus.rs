//! Reads that do not end well, and buses that lock (B).

use super::{
    Except, Fault, LINKS, PCIE, STRICT, STRICT_FABRICS, STRICT_PCIE, TIMEOUTS, not_on, not_so_on,
};
use crate::catalogue::placement;
use crate::cell::{Case, Cell, micros};
use crate::predict::{Expect, Prediction, by_construction, measured, nanos};
use cofferdam_machine::config::{FabricKind, TimeoutEnds};
use cofferdam_placement::placement::Restart;
use cofferdam_placement::trial::{Fault as Strike, Lock};
use std::time::Duration;

const NO_RETRY: &str = "a memory request on PCI Express is never told to try again";
const NO_GRANT: &str = "a link has nobody to share it with: there is no grant";
const NO_LOCK: &str = "a device on PCI Express cannot send locked requests";
const NO_LINK: &str = "a conventional bus has neither links nor credits";
const NO_POISON: &str = "a conventional bus marks bad data by parity, which is not modelled";
const SHARED_ONLY: &str = "crossed with strict only: no DMA goes astray";

/// Rows for what only a shared bus has.
const fn shared_only(reason: &'static str) -> [Except; 3] {
    [
        not_on(FabricKind::PcieNotimeout, reason),
        not_on(FabricKind::Pcie, reason),
        not_on(FabricKind::PcieDpc, reason),
    ]
}

static RETRIES: [Except; 3] = shared_only(NO_RETRY);
static GRANTS: [Except; 3] = shared_only(NO_GRANT);
static LOCKS: [Except; 3] = shared_only(NO_LOCK);

/// The entries, in the order of the report.
pub(super) static ENTRIES: [Fault; 10] = [
    Fault {
        id: "B1",
        line: "a non-posted register read that never completes",
        by: "device (Tamper)",
        parameters: "every fabric; a timeout ends in all ones or a machine check",
        trigger: "the nth register read",
        oracle: "completion timeout, the driver's deadline, the supervisor's watchdog",
        iommu: STRICT,
        fabrics: &FabricKind::ALL,
        crossing: "no DMA goes astray, so the IOMMU mode cannot matter: crossed with strict only",
        except: &[
            not_so_on(
                FabricKind::Pci,
                "B1.machine-check",
                "without a completion timeout nothing ends in a machine check",
            ),
            not_so_on(
                FabricKind::PcieNotimeout,
                "B1.machine-check",
                "without a completion timeout nothing ends in a machine check",
            ),
            not_so_on(
                FabricKind::PcieDpc,
                "B1.machine-check",
                "the port is contained so that the platform need not stop",
            ),
        ],
    },
    Fault {
        id: "B2",
        line: "a register read that completes late",
        by: "device (Tamper)",
        parameters: "half and one and a half times the completion timeout",
        trigger: "the nth register read",
        oracle: "completion timeout, the driver's deadline",
        iommu: STRICT,
        fabrics: TIMEOUTS,
        crossing: "without a timeout there is nothing to be late for",
        except: &[],
    },
    Fault {
        id: "B3",
        line: "a register read that ends in retry again and again",
        by: "device (Tamper)",
        parameters: "100,000 times (24 ms), for ever",
        trigger: "the nth register read",
        oracle: "the driver's deadline, the supervisor's watchdog",
        iommu: STRICT,
        fabrics: &FabricKind::ALL,
        crossing: SHARED_ONLY,
        except: &RETRIES,
    },
    Fault {
        id: "B4",
        line: "a bus master that does not give its grant back",
        by: "device (Tamper)",
        parameters: "100 ms of clocks, for ever; another tenant's device on the bus",
        trigger: "after the nth payload DMA",
        oracle: "the driver's deadline, the supervisor's watchdog",
        iommu: STRICT,
        fabrics: &FabricKind::ALL,
        crossing: SHARED_ONLY,
        except: &GRANTS,
    },
    Fault {
        id: "B5",
        line: "LOCK# asserted and not released",
        by: "device (Tamper)",
        parameters: "another tenant's device locked for 100 ms; the bus for 100 ms, for good",
        trigger: "after the nth payload DMA",
        oracle: "the driver's deadline, the supervisor's watchdog",
        iommu: STRICT,
        fabrics: &FabricKind::ALL,
        crossing: SHARED_ONLY,
        except: &LOCKS,
    },
    Fault {
        id: "B6",
        line: "flow-control credits are not given back",
        by: "device (Tamper)",
        parameters: "posted, non-posted; 80 ms",
        trigger: "after the nth payload DMA",
        oracle: "a port that looks for it, the driver's deadline",
        iommu: STRICT,
        fabrics: LINKS,
        crossing: STRICT_FABRICS,
        except: &[not_on(FabricKind::Pci, NO_LINK)],
    },
    Fault {
        id: "B7",
        line: "the link goes down by surprise",
        by: "device (Tamper)",
        parameters: "for 10 ms, for good",
        trigger: "after the nth payload DMA",
        oracle: "the port's error log, the driver",
        iommu: STRICT,
        fabrics: LINKS,
        crossing: STRICT_FABRICS,
        except: &[not_on(FabricKind::Pci, NO_LINK)],
    },
    Fault {
        id: "B8",
        line: "a storm of split locks: locked increments across two cache lines, each of which locks \
               the bus against every core",
        by: "driver (Sabotage)",
        parameters: "1000 a second, as fast as it goes; 20 ms",
        trigger: "before the nth request of the tenant on another core",
        oracle: "split-lock detection of kernel or KVM, where the host has it; else nobody",
        iommu: STRICT,
        fabrics: PCIE,
        crossing: STRICT_PCIE,
        except: &[],
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
        id: "B10",
        line: "a completion that carries an error",
        by: "device (Tamper)",
        parameters: "poisoned data, fatal or not; a completer abort",
        trigger: "the nth register read",
        oracle: "the port's error log, the driver",
        iommu: STRICT,
        fabrics: LINKS,
        crossing: STRICT_FABRICS,
        except: &[not_on(FabricKind::Pci, NO_POISON)],
    },
];

const CLOCKS_OF_100_MS: u32 = 3_333_334;
const FOR_EVER_MS: u32 = 3_600_000;

/// A storm of locked increments, at the request that is drawn.
pub(crate) const fn storm(aligned: bool, per_second: u32) -> Strike {
    Strike::B8 {
        aligned,
        per_second,
        ms: 20,
        nth: 0,
    }
}

/// Every case of an entry, in the order of the report.
pub(super) fn cases(id: &str) -> Vec<Case> {
    match id {
        "B1" => {
            let all_ones = Case::of(Strike::B1 { nth: 0 });
            let machine_check = Case {
                timeout_ends: TimeoutEnds::MachineCheck,
                ..all_ones
            };
            vec![all_ones, machine_check]
        }
        "B2" => [500, 1500]
            .map(|permille| Case::of(Strike::B2 { permille, nth: 0 }))
            .to_vec(),
        "B3" => [100_000, u32::MAX]
            .map(|count| Case::of(Strike::B3 { count, nth: 0 }))
            .to_vec(),
        "B4" => [CLOCKS_OF_100_MS, u32::MAX]
            .map(|clocks| Case::of(Strike::B4 { clocks, nth: 0 }))
            .to_vec(),
        "B5" => [
            (Lock::Resource, 100),
            (Lock::Bus, 100),
            (Lock::Bus, FOR_EVER_MS),
        ]
        .map(|(lock, ms)| Case::of(Strike::B5 { lock, ms, nth: 0 }))
        .to_vec(),
        "B6" => [true, false]
            .map(|posted| {
                Case::of(Strike::B6 {
                    posted,
                    ms: 80,
                    nth: 0,
                })
            })
            .to_vec(),
        "B7" => [10, 0]
            .map(|ms| Case::of(Strike::B7 { ms, nth: 0 }))
            .to_vec(),
        "B8" => [1000, 1_000_000]
            .map(|per_second| Case::of(storm(false, per_second)))
            .to_vec(),
        "B9" => [1_000, 100_000]
            .map(|window_us| Case::of(Strike::B9 { nth: 0, window_us }))
            .to_vec(),
        "B10" => [(true, false), (true, true), (false, false)]
            .map(|(poisoned, fatal)| {
                Case::of(Strike::B10 {
                    poisoned,
                    fatal,
                    nth: 0,
                })
            })
            .to_vec(),
        _ => Vec::new(),
    }
}

/// The name of a case.
pub(super) fn name(case: &Case) -> Option<String> {
    Some(match case.fault {
        Strike::B1 { .. } => match case.timeout_ends {
            TimeoutEnds::AllOnes => "B1.all-ones".into(),
            TimeoutEnds::MachineCheck => "B1.machine-check".into(),
        },
        Strike::B2 { permille, .. } => format!("B2.{}.{}x", permille / 1000, permille % 1000 / 100),
        Strike::B3 { count, .. } if count == u32::MAX => "B3.for-ever".into(),
        Strike::B3 { count, .. } => format!("B3.{count}"),
        Strike::B4 { clocks, .. } if clocks == u32::MAX => "B4.for-ever".into(),
        Strike::B4 { clocks, .. } => format!("B4.{}ms", clocks / 33_333),
        Strike::B5 { lock, ms, .. } => {
            let lock = match lock {
                Lock::Resource => "resource",
                Lock::Bus => "bus",
            };
            if ms == FOR_EVER_MS {
                format!("B5.{lock}.for-ever")
            } else {
                format!("B5.{lock}.{ms}ms")
            }
        }
        Strike::B6 { posted: true, .. } => "B6.posted".into(),
        Strike::B6 { posted: false, .. } => "B6.non-posted".into(),
        Strike::B7 { ms: 0, .. } => "B7.gone".into(),
        Strike::B7 { ms, .. } => format!("B7.{ms}ms"),
        Strike::B8 { per_second, .. } if per_second >= 1_000_000 => "B8.full-speed".into(),
        Strike::B8 { per_second, .. } => format!("B8.{per_second}-a-second"),
        Strike::B9 { window_us, .. } => format!("B9.{}", micros(window_us)),
        Strike::B10 {
            poisoned, fatal, ..
        } => {
            let what = if poisoned { "poisoned" } else { "abort" };
            let how = if fatal { ".fatal" } else { "" };
            format!("B10.{what}{how}")
        }
        _ => return None,
    })
}

/// The prediction of a cell.
pub(super) fn predict(cell: &Cell) -> Option<Prediction> {
    let timeout = nanos(cell.platform.config().completion_timeout);
    Some(match cell.case.fault {
        Strike::B1 { .. } => match (cell.fabric, cell.case.timeout_ends) {
            (FabricKind::Pcie, TimeoutEnds::MachineCheck) => by_construction(
                Expect::SystemLost,
                "the completion timeout ends in a machine check",
            ),
            (FabricKind::Pcie | FabricKind::PcieDpc, _) => measured(
                Expect::Freezes(Some(timeout)),
                "the read holds its CPU until the completion timeout",
            ),
            (FabricKind::Pci | FabricKind::PcieNotimeout, _) => measured(
                Expect::Freezes(None),
                "the read holds its CPU and nothing ends it",
            ),
        },
        Strike::B2 { permille, .. } => measured(
            Expect::Freezes(Some(timeout / 1000 * u64::from(permille.min(1000)))),
            "the read holds its CPU until its completion or the timeout",
        ),
        Strike::B3 { count, .. } => measured(
            Expect::Freezes(until_freed(
                cell,
                match count {
                    u32::MAX => Duration::MAX,
                    _ => Duration::from_nanos(240) * count,
                },
            )),
            "the bridge tries again until the device is ready, and the CPU waits for it",
        ),
        Strike::B4 { clocks, .. } => measured(
            Expect::Stops {
                driver: true,
                other: true,
                ns: until_freed(cell, Duration::from_nanos(30) * clocks),
            },
            "nobody else gets the bus, so every CPU that uses it waits",
        ),
        Strike::B5 { lock, ms, .. } => measured(
            Expect::Stops {
                driver: lock == Lock::Bus,
                other: true,
                ns: until_freed(cell, Duration::from_millis(ms.into())),
            },
            match lock {
                Lock::Resource => "the locked device answers its owner only",
                Lock::Bus => "only the owner of the lock uses the bus",
            },
        ),
        Strike::B6 {
            posted: true, ms, ..
        } if cell.fabric == FabricKind::Pcie => measured(
            Expect::Stops {
                driver: true,
                other: false,
                ns: Some(nanos(Duration::from_millis(ms.into()))),
            },
            "what waits for credits was not sent, so no timeout ends it",
        ),
        Strike::B6 { .. } => others_live(
            cell,
            "only who uses the device waits: for credits, or until its port is contained",
        ),
        Strike::B7 { .. } => others_live(
            cell,
            "a device that is away answers nobody and reaches nobody",
        ),
        Strike::B8 { .. } => measured(
            Expect::Open,
            "depends on the processor, and on whether kernel or KVM stops who locks the bus",
        ),
        Strike::B9 { .. } => measured(Expect::Open, "depends on how the driver takes the lie"),
        Strike::B10 { fatal: true, .. } if cell.fabric == FabricKind::Pcie => {
            by_construction(Expect::SystemLost, "the platform stops at a fatal error")
        }
        Strike::B10 { .. } => others_live(
            cell,
            "the read returns all ones; at worst the port is contained",
        ),
        _ => return None,
    })
}

/// Whom the fault spares: everybody but the driver, and with it the layer it is in, if it cannot cope
/// with a device that is gone.
fn others_live(cell: &Cell, because: &'static str) -> Prediction {
    if placement(cell.placement).driver_is_privileged() {
        measured(
            Expect::Open,
            "depends on whether the driver survives reads of all ones",
        )
    } else {
        measured(Expect::OthersLive, because)
    }
}

/// How long a bus stands still that is held for so long; none: to the end of the trial. Where somebody
/// can start the driver's domain again, a supervisor resets the bus when it has seen no life for 100 ms.
fn until_freed(cell: &Cell, held: Duration) -> Option<u64> {
    let watchdog = Duration::from_millis(100);
    if matches!(placement(cell.placement).restart, Restart::After(_)) {
        Some(nanos(held.min(watchdog)))
    } else {
        (held < Duration::from_secs(60)).then(|| nanos(held))
    }
}
