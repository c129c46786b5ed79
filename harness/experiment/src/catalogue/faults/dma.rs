//! Wild, late and overlong DMA (D).

use super::ablations::{LONG_DELAY_US, SHORT_DELAY_US, zero_copy};
use super::{ALL_MODES_PCIE, Except, Fault, PCIE};
use crate::cell::{Case, Cell, by_name, micros, target_name};
use crate::predict::{Expect, Prediction, by_construction, measured, nanos};
use cofferdam_machine::config::IommuMode;
use cofferdam_machine::frames::Owner;
use cofferdam_placement::trial::{By, DriverId, Fault as Strike, Target};

/// With nothing in the way, and with what a strict IOMMU maps.
const OPEN_OR_STRICT: &[IommuMode] = &[IommuMode::Off, IommuMode::Strict];

/// Where the rest of a page makes a difference too.
const OPEN_STRICT_OR_BOUNCE: &[IommuMode] = &[IommuMode::Off, IommuMode::Strict, IommuMode::Bounce];

/// Where drivers may choose addresses.
const TRANSLATING: &[IommuMode] = &[IommuMode::Lazy, IommuMode::Strict, IommuMode::Bounce];

/// Where pages are mapped as they are.
const UNBOUNCED: &[IommuMode] = &[
    IommuMode::Off,
    IommuMode::Passthrough,
    IommuMode::Lazy,
    IommuMode::Strict,
];

const BOUNCE_IS_STRICT: &str = "bounce differs from strict only beside a buffer; no request stays \
                                open: crossed with pcie only";
const BESIDE_IS_D5: &str = "bounce differs from strict only beside a buffer, which is D5 there; no \
                            request stays open: crossed with pcie only";

/// Why passthrough and lazy are left out.
const ALIKE: &str = "nothing is unmapped, so passthrough is as off and lazy as strict; no request \
                     stays open: crossed with pcie only";

const QUARANTINE_OF_NOTHING: &str = "nothing lands that a quarantine could keep away from a driver";

/// The entries, in the order of the report.
pub(super) static ENTRIES: [Fault; 13] = [
    Fault {
        id: "D1",
        line: "wild DMA: a transfer to an address that was not mapped for it",
        by: "device (Tamper) or driver (Sabotage)",
        parameters: "by device, driver; target hypervisor, kernel, driver, tenant1, tenant2, free, \
                     neighbour, unbacked; 8 to 512 bytes",
        trigger: "after the nth payload DMA (device), in place of the nth mapping (driver)",
        oracle: "IOMMU fault log, pattern check, tenants' verification",
        iommu: UNBOUNCED,
        fabrics: PCIE,
        crossing: BESIDE_IS_D5,
        except: ALONE_ON_ITS_PAGE,
    },
    Fault {
        id: "D2",
        line: "one bit of an address flips on its way into a descriptor",
        by: "driver (Sabotage)",
        parameters: "bit 3 (the same page), 19 (another owner's frames), 40 (no memory)",
        trigger: "the nth mapping",
        oracle: "IOMMU fault log, pattern check, tenants' verification",
        iommu: OPEN_OR_STRICT,
        fabrics: PCIE,
        crossing: ALIKE,
        except: PAGE_ALIGNED,
    },
    Fault {
        id: "D3",
        line: "an address loses its upper 32 bits on its way into a descriptor",
        by: "driver (Sabotage)",
        parameters: "none; the driver's DMA memory answers above 4 GiB, and so do I/O virtual addresses",
        trigger: "the nth mapping",
        oracle: "IOMMU fault log, pattern check, tenants' verification",
        iommu: OPEN_OR_STRICT,
        fabrics: PCIE,
        crossing: ALIKE,
        except: &[],
    },
    Fault {
        id: "D4",
        line: "length overrun: a transfer that goes on beyond its buffer",
        by: "device (Tamper) or driver (Sabotage)",
        parameters: "by device 63 or 4096 bytes on; by a driver whose address is 64 bytes too far in",
        trigger: "the nth payload write (device), the nth mapping (driver)",
        oracle: "IOMMU fault log, tenants' verification",
        iommu: &IommuMode::ALL,
        fabrics: PCIE,
        crossing: ALL_MODES_PCIE,
        except: PAGE_ALIGNED,
    },
    Fault {
        id: "D5",
        line: "the device touches what lies on a buffer's page beside it",
        by: "device (Tamper)",
        parameters: "a write, a read; right behind the buffer",
        trigger: "after the nth payload write or read",
        oracle: "tenants' verification, bytes the device learnt",
        iommu: OPEN_STRICT_OR_BOUNCE,
        fabrics: PCIE,
        crossing: ALIKE,
        except: &[],
    },
    Fault {
        id: "D6",
        line: "use after unmap: DMA to an address whose mapping was taken back",
        by: "device (Tamper) or driver (Sabotage)",
        parameters: "by device 2 ms or 20 ms late; by a driver that unmaps early",
        trigger: "the nth payload DMA (device), the nth mapping (driver)",
        oracle: "IOMMU fault log, tenants' verification",
        iommu: UNBOUNCED,
        fabrics: PCIE,
        crossing: BOUNCE_IS_STRICT,
        except: &[],
    },
    Fault {
        id: "D7",
        line: "an I/O virtual address is given to another buffer while the device uses it",
        by: "driver (Sabotage)",
        parameters: "none",
        trigger: "the nth mapping",
        oracle: "tenants' verification",
        iommu: TRANSLATING,
        fabrics: PCIE,
        crossing: "only where addresses are translated can one be chosen; no request stays open: crossed with pcie only",
        except: &[],
    },
    Fault {
        id: "D8",
        line: "a write to a buffer that is mapped for reading",
        by: "device (Tamper)",
        parameters: "as long as the read",
        trigger: "after the nth payload read",
        oracle: "IOMMU fault log",
        iommu: UNBOUNCED,
        fabrics: PCIE,
        crossing: BOUNCE_IS_STRICT,
        except: &[],
    },
    Fault {
        id: "D10",
        line: "a write whose address claims to be translated already (ATS)",
        by: "device (Tamper)",
        parameters: "on a platform that trusts the device's ATS, and on one that does not; to tenant1's frames, 64 bytes",
        trigger: "after the nth payload write",
        oracle: "IOMMU fault log, pattern check",
        iommu: &[IommuMode::Off, IommuMode::Passthrough, IommuMode::Strict],
        fabrics: PCIE,
        crossing: "lazy and bounce change nothing of strict here; no request stays open: crossed with pcie only",
        except: &[],
    },
    Fault {
        id: "D11",
        line: "a write to a region that firmware had mapped one to one for the device (RMRR)",
        by: "device (Tamper)",
        parameters: "a frame of the hypervisor's, which is the firmware's; 64 bytes",
        trigger: "after the nth payload write",
        oracle: "pattern check",
        iommu: OPEN_OR_STRICT,
        fabrics: PCIE,
        crossing: "the mapping is there in every mode that translates, so strict stands for all; no request stays open: crossed with pcie only",
        except: &[],
    },
    Fault {
        id: "D12",
        line: "DMA of a device whose driver died or reset it",
        by: "device (Tamper), and the driver (Sabotage) that fails",
        parameters: "driver dies or resets its device; quarantine of its pages on or off; 100 us after the next driver first touches the device, or when that switches bus mastering on",
        trigger: "before the nth request",
        oracle: "IOMMU fault log, tenants' verification",
        iommu: OPEN_OR_STRICT,
        fabrics: PCIE,
        crossing: "all mappings are taken back and invalidated with the reset, in lazy mode too; no request stays open: crossed with pcie only",
        except: &[
            Except {
                driver: None,
                fabric: None,
                iommu: Some(IommuMode::Strict),
                case: Some("D12.reset.quarantine"),
                unprivileged: false,
                privileged: false,
                reason: QUARANTINE_OF_NOTHING,
            },
            Except {
                driver: None,
                fabric: None,
                iommu: Some(IommuMode::Strict),
                case: Some("D12.death.quarantine"),
                unprivileged: false,
                privileged: false,
                reason: QUARANTINE_OF_NOTHING,
            },
            Except {
                driver: None,
                fabric: None,
                iommu: None,
                case: Some("D12.death"),
                unprivileged: false,
                privileged: true,
                reason: "the system is lost with the driver: nobody is left to be hit",
            },
            Except {
                driver: None,
                fabric: None,
                iommu: None,
                case: Some("D12.death.quarantine"),
                unprivileged: false,
                privileged: true,
                reason: "the system is lost with the driver: nobody is left to be hit",
            },
        ],
    },
    Fault {
        id: "D13",
        line: "a write under the requester ID of a tenant's device",
        by: "device (Tamper)",
        parameters: "ports look who sends (ACS source validation), or do not; to a page that tenant2 lent its own device, 64 bytes",
        trigger: "after the nth payload write",
        oracle: "IOMMU fault log, pattern check",
        iommu: OPEN_OR_STRICT,
        fabrics: PCIE,
        crossing: ALIKE,
        except: &[],
    },
    Fault {
        id: "D14",
        line: "DMA to a page that a tenant gave back and a freshly started one got",
        by: "device (Tamper)",
        parameters: "2 ms or, in lazy mode, 20 ms after the new tenant filled the page; the page was lent \
                     for a request (zero-copy)",
        trigger: "tenant1's next request that brings data from its nth on gives its page back",
        oracle: "IOMMU fault log, pattern check",
        iommu: UNBOUNCED,
        fabrics: PCIE,
        crossing: BOUNCE_IS_STRICT,
        except: &[],
    },
];

/// Where nobody is beside a buffer.
const ALONE_ON_ITS_PAGE: &[Except] = &[Except {
    case: Some("D1.driver.neighbour"),
    ..OF_THE_NVME_CRATE
}];

/// Where a driver looks at the address it gives to its device.
const PAGE_ALIGNED: &[Except] = &[
    Except {
        case: Some("D4.driver.64"),
        reason: NOTICED,
        ..OF_THE_NVME_CRATE
    },
    Except {
        case: Some("D2.bit-3"),
        reason: NOTICED,
        ..OF_THE_NVME_CRATE
    },
];

const NOTICED: &str = "the crate refuses an address that is not aligned to a page: the mistake is \
                       noticed before the device hears of it";

/// A corner of the unmodified nvme-driver's.
const OF_THE_NVME_CRATE: Except = Except {
    driver: Some(DriverId::NvmeCrate),
    fabric: None,
    iommu: None,
    case: None,
    unprivileged: false,
    privileged: false,
    reason: "its buffers fill their pages: nobody is beside them",
};

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
        "D4" => [(By::Device, 63), (By::Device, 4096), (By::Driver, 64)]
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
        "D2" => [3, 19, 40]
            .map(|bit| Case::of(Strike::D2 { bit, nth: 0 }))
            .to_vec(),
        "D3" => vec![Case::of(Strike::D3 { nth: 0 })],
        "D5" => [true, false]
            .map(|write| {
                Case::of(Strike::D5 {
                    write,
                    offset: 0,
                    nth: 0,
                })
            })
            .to_vec(),
        "D7" => vec![Case::of(Strike::D7 { nth: 0 })],
        "D10" => [true, false]
            .map(|trusted| {
                Case::of(Strike::D10 {
                    trusted,
                    target: Target::Tenant1,
                    nth: 0,
                })
            })
            .to_vec(),
        "D11" => vec![Case::of(Strike::D11 { nth: 0 })],
        "D12" => [(true, false), (true, true), (false, false), (false, true)]
            .map(|(death, quarantine)| {
                Case::of(Strike::D12 {
                    death,
                    delay_us: 100,
                    quarantine,
                    nth: 0,
                })
            })
            .to_vec(),
        "D13" => [false, true]
            .map(|acs| Case {
                acs,
                ..Case::of(Strike::D13 { nth: 0 })
            })
            .to_vec(),
        "D14" => [SHORT_DELAY_US, LONG_DELAY_US]
            .map(|delay_us| zero_copy(Case::of(Strike::D14 { delay_us, nth: 0 })))
            .to_vec(),
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
        Strike::D2 { bit, .. } => format!("D2.bit-{bit}"),
        Strike::D3 { .. } => "D3".into(),
        Strike::D5 { write: true, .. } => "D5.write".into(),
        Strike::D5 { write: false, .. } => "D5.read".into(),
        Strike::D7 { .. } => "D7".into(),
        Strike::D10 { trusted: true, .. } => "D10.trusted".into(),
        Strike::D10 { trusted: false, .. } => "D10.untrusted".into(),
        Strike::D11 { .. } => "D11".into(),
        Strike::D12 {
            death, quarantine, ..
        } => format!(
            "D12.{}{}",
            if death { "death" } else { "reset" },
            if quarantine { ".quarantine" } else { "" }
        ),
        Strike::D13 { .. } if case.acs => "D13.acs".into(),
        Strike::D13 { .. } => "D13".into(),
        Strike::D14 { delay_us, .. } => format!("D14.{}", micros(delay_us)),
        _ => return None,
    })
}

/// The prediction of a cell.
pub(super) fn predict(cell: &Cell) -> Option<Prediction> {
    let translates = cell.iommu.translates();
    let bounces = cell.iommu == IommuMode::Bounce;
    Some(match cell.case.fault {
        Strike::D1 {
            by: By::Device,
            target: Target::Neighbour,
            ..
        }
        | Strike::D4 { by: By::Device, .. }
        | Strike::D5 { .. }
            if bounces =>
        {
            by_construction(
                Expect::InSlot,
                "what shares the buffer's page is a bounce slot's padding, and nobody's data",
            )
        }
        Strike::D1 { by, target, .. } => wild_dma(by, target, translates),
        Strike::D2 { bit, .. } => flipped_bit(bit, cell),
        Strike::D3 { .. } if translates => measured(
            Expect::Refused(Some(Owner::Tenant1)),
            "no I/O virtual address below 4 GiB is mapped",
        ),
        Strike::D3 { .. } => measured(
            Expect::Lands(Owner::Tenant1),
            "without its upper half the address is one of tenant1's",
        ),
        Strike::D5 { .. } => measured(
            Expect::Unrefused,
            "an IOMMU maps pages: what lies beside the buffer is on a mapped one",
        ),
        Strike::D7 { .. } => measured(
            Expect::OthersLive,
            "the address is mapped, to another buffer of the driver: nobody can object",
        ),
        Strike::D10 {
            trusted, target, ..
        } => translated(trusted, target, cell.iommu),
        Strike::D11 { .. } => by_construction(
            Expect::Lands(Owner::Hypervisor),
            "the region is reachable in every mode, that is what it is for",
        ),
        Strike::D12 { .. } if translates => measured(
            Expect::Blocked,
            "the mapping was taken back with the reset, and its address is not given out again",
        ),
        Strike::D12 { .. } => measured(
            Expect::Unrefused,
            "the device reaches all memory; harm needs a new user of the page",
        ),
        Strike::D13 { .. } if cell.case.acs => by_construction(
            Expect::Refused(Some(Owner::Tenant2)),
            "the port knows that the requester ID is not the sender's",
        ),
        Strike::D13 { .. } => by_construction(
            Expect::Lands(Owner::Tenant2),
            "the IOMMU goes by the requester ID, and that one's domain maps the page",
        ),
        Strike::D4 { .. } => measured(
            Expect::Unrefused,
            "the access begins in a mapped buffer: an IOMMU cuts it at the end of a page, if there",
        ),
        Strike::D6 { .. } => use_after_unmap(cell),
        Strike::D14 { .. } => given_back(cell),
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

/// A driver that flips a bit also breaks its own request: what comes of that is measured.
fn flipped_bit(bit: u8, cell: &Cell) -> Prediction {
    let ours = !matches!(cell.driver, DriverId::Own(_));
    match bit {
        0..12 => measured(Expect::Unrefused, "the address stays on its page"),
        // The driver's first 47 frames of DMA memory and the hypervisor's frames differ in it.
        19 if ours && cell.iommu.translates() => measured(
            Expect::Refused(Some(Owner::Hypervisor)),
            "the device's IOMMU domain does not map it",
        ),
        19 if ours => measured(
            Expect::Lands(Owner::Hypervisor),
            "the device reaches all memory",
        ),
        40.. => measured(
            Expect::Refused(None),
            "nothing is mapped and no memory answers there",
        ),
        _ => measured(Expect::Open, "depends on what lies there"),
    }
}

fn translated(trusted: bool, target: Target, iommu: IommuMode) -> Prediction {
    let Some(owner) = target.owner() else {
        return measured(Expect::Open, "depends on what lies there");
    };
    match (trusted, iommu) {
        (true, _) => by_construction(
            Expect::Lands(owner),
            "an address that a trusted device calls translated is not looked at",
        ),
        (false, IommuMode::Off) => by_construction(
            Expect::Lands(owner),
            "without an IOMMU nothing looks at the claim, and the device reaches all memory",
        ),
        (false, _) => by_construction(
            Expect::Refused(Some(owner)),
            "the IOMMU blocks translated requests of devices without ATS",
        ),
    }
}

fn use_after_unmap(cell: &Cell) -> Prediction {
    match cell.iommu {
        IommuMode::Off | IommuMode::Passthrough => measured(
            Expect::Unrefused,
            "the device reaches all memory; harm needs a new user of the page",
        ),
        IommuMode::Strict | IommuMode::Bounce => measured(
            Expect::StaleFor(0),
            "the translation is gone before the unmapping returns; harm needs the address to be \
             given out again",
        ),
        IommuMode::Lazy => measured(
            Expect::StaleFor(nanos(cell.platform.config().lazy_delay)),
            "a stale IOTLB entry lives until the batch is due, if an earlier DMA primed it",
        ),
    }
}

fn given_back(cell: &Cell) -> Prediction {
    match cell.iommu {
        IommuMode::Off | IommuMode::Passthrough => by_construction(
            Expect::Lands(Owner::Newcomer),
            "the address is the page's, whoever has it",
        ),
        IommuMode::Strict | IommuMode::Bounce => by_construction(
            Expect::Refused(Some(Owner::Newcomer)),
            "the translation was gone before the request was answered, and the page came back later",
        ),
        IommuMode::Lazy => measured(
            Expect::StaleFor(nanos(cell.platform.config().lazy_delay)),
            "a stale IOTLB entry leads to the page until the batch is due, whoever has it by then",
        ),
    }
}
