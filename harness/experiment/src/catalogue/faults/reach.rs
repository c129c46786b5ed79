//! Devices that reach others, hide from their driver or outlive its resets (C1, C5, D9).

use super::{Fault, STRICT, not_so_on};
use crate::cell::{Case, Cell};
use crate::predict::{Effect, Expect, Prediction, by_construction, measured};
use cofferdam_machine::config::{FabricKind, IommuMode};
use cofferdam_placement::trial::{Fault as Strike, Route};

const LINK_OR_BUS: &[FabricKind] = &[FabricKind::Pci, FabricKind::Pcie];
/// With translation and without: the other modes do as these.
const WITH_AND_WITHOUT: &[IommuMode] = &[IommuMode::Off, IommuMode::Strict];
const ON_LINKS: &str = "all links do as pcie; no DMA goes astray: crossed with strict only";

/// The entries, in the order of the report.
pub(super) static ENTRIES: [Fault; 3] = [
    Fault {
        id: "D9",
        line: "peer-to-peer: a write to the registers of another tenant's device",
        by: "device (Tamper)",
        parameters: "behind one switch or on one bus, ACS off and on; behind another root port",
        trigger: "after the nth payload DMA",
        oracle: "IOMMU fault log, the other device's owner",
        iommu: WITH_AND_WITHOUT,
        fabrics: LINK_OR_BUS,
        crossing: "passthrough does as off and lazy as strict; all links do as pcie",
        except: &[
            not_so_on(
                FabricKind::Pci,
                "D9.near.acs",
                "a shared bus has nobody to control access",
            ),
            not_so_on(
                FabricKind::Pci,
                "D9.far",
                "all functions are on the one bus",
            ),
        ],
    },
    Fault {
        id: "C1",
        line: "the device decodes other addresses than its BAR was given",
        by: "device (Tamper)",
        parameters: "nobody's, those of another tenant's device",
        trigger: "from the nth register read",
        oracle: "the driver, the other device's owner",
        iommu: STRICT,
        fabrics: LINK_OR_BUS,
        crossing: ON_LINKS,
        except: &[],
    },
    Fault {
        id: "C5",
        line: "the driver fails, and the function-level reset that follows does not do its work",
        by: "device (Tamper), driver (Sabotage)",
        parameters: "ignored; takes 300 ms, 60 s",
        trigger: "before the nth request",
        oracle: "the layer that resets the device",
        iommu: STRICT,
        fabrics: LINK_OR_BUS,
        crossing: ON_LINKS,
        except: &[],
    },
];

/// Every case of an entry, in the order of the report.
pub(super) fn cases(id: &str) -> Vec<Case> {
    match id {
        "D9" => [
            (Route::Near, false),
            (Route::Near, true),
            (Route::Far, false),
        ]
        .map(|(route, acs)| Case {
            acs,
            ..Case::of(Strike::D9 { route, nth: 0 })
        })
        .to_vec(),
        "C1" => [false, true]
            .map(|overlap| Case::of(Strike::C1 { overlap, nth: 0 }))
            .to_vec(),
        "C5" => [(true, 0), (false, 300), (false, 60_000)]
            .map(|(ignored, ms)| {
                Case::of(Strike::C5 {
                    ignored,
                    ms,
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
        Strike::D9 { route, .. } => match (route, case.acs) {
            (Route::Near, false) => "D9.near".into(),
            (Route::Near, true) => "D9.near.acs".into(),
            (Route::Far, false) => "D9.far".into(),
            (Route::Far, true) => "D9.far.acs".into(),
        },
        Strike::C1 { overlap: true, .. } => "C1.overlap".into(),
        Strike::C1 { overlap: false, .. } => "C1.nobody".into(),
        Strike::C5 { ignored: true, .. } => "C5.ignored".into(),
        Strike::C5 { ms, .. } => format!("C5.{ms}ms"),
        _ => return None,
    })
}

/// The prediction of a cell.
pub(super) fn predict(cell: &Cell) -> Option<Prediction> {
    let bus = cell.fabric == FabricKind::Pci;
    Some(match cell.case.fault {
        Strike::D9 { route, .. } => {
            let direct = bus || (route == Route::Near && !cell.case.acs);
            if direct {
                by_construction(
                    Expect::Sibling(Effect::Changed),
                    "the request never comes to the IOMMU",
                )
            } else if cell.iommu.translates() {
                by_construction(
                    Expect::Sibling(Effect::None),
                    "the root complex asks the IOMMU, which maps no device's registers",
                )
            } else {
                by_construction(
                    Expect::Sibling(Effect::Changed),
                    "the root complex forwards it and nothing translates",
                )
            }
        }
        Strike::C1 { overlap: true, .. } if bus => {
            measured(Expect::Open, "two devices answer at once")
        }
        Strike::C1 { .. } => measured(
            Expect::Sibling(Effect::None),
            "no request for another device's registers is routed there",
        ),
        Strike::C5 { ignored: true, .. } if bus => measured(
            Expect::Sibling(Effect::Lost),
            "the bus is reset instead, with everybody on it",
        ),
        Strike::C5 { .. } => measured(
            Expect::Sibling(Effect::None),
            "what is reset in the end has nobody else on it",
        ),
        _ => return None,
    })
}
