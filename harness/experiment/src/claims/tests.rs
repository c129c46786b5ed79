//! Judgements of made-up summaries.

use super::*;
use crate::cell::{Case, Cell};
use crate::environment::Environment;
use crate::plan::{Filter, Plan, Settings};
use crate::predict::Label;
use crate::statistics::Proportion;
use crate::summary::{CellSummary, Collector, State};
use crate::verdict::Outcome;
use cofferdam_machine::config::{FabricKind, IommuMode};
use cofferdam_placement::own::PlatformId;
use cofferdam_placement::trial::{By, ClockKind, DriverId, Fault, PlacementId, Target};
use std::collections::BTreeMap;

/// A summary without cells.
fn empty() -> Summary {
    let filter = Filter {
        faults: vec!["X1".into()],
        ..Filter::default()
    };
    let plan = Plan::new(Settings::QUICK, filter).expect("X1 is in the catalogue");
    let environment = Environment::probe(ClockKind::Leap, Vec::new(), Vec::new());
    Collector::default().close(&plan, environment, State::Complete)
}

/// A struck cell with these outcomes, as a run would have summed it up.
fn cell(
    placement: PlacementId,
    iommu: IommuMode,
    fabric: FabricKind,
    fault: Fault,
    outcomes: &[(Outcome, u32)],
) -> CellSummary {
    let case = Case::of(fault);
    let of = Cell {
        placement,
        platform: PlatformId::Usual,
        iommu,
        fabric,
        driver: DriverId::Edu,
        case,
    };
    let times = |keep: fn(Outcome) -> bool| {
        let kept = outcomes.iter().filter(|(outcome, _)| keep(*outcome));
        kept.map(|(_, times)| times).sum::<u32>()
    };
    let activated = times(|_| true);
    let contained = times(|outcome| outcome <= Outcome::Contained);
    let corrupted = times(|outcome| outcome == Outcome::SilentCorruption);
    let lost = times(|outcome| matches!(outcome, Outcome::TenantLost | Outcome::SystemLost));
    let nobody = BTreeMap::new;
    CellSummary {
        id: of.id(),
        placement,
        platform: PlatformId::Usual,
        iommu,
        fabric,
        driver: of.driver,
        fault: fault.id().to_owned(),
        case: case.name(),
        prediction: String::new(),
        because: String::new(),
        label: Label::Measured,
        deployed: true,
        deployed_as: String::new(),
        injected: activated,
        activated,
        manifested: activated - contained,
        contained,
        escaped: Proportion::new(activated - contained, activated),
        landed: corrupted,
        outcomes: outcomes.iter().copied().collect(),
        hurt: if lost > 0 {
            [("tenant1".to_owned(), lost), ("tenant2".to_owned(), lost)].into()
        } else {
            nobody()
        },
        corrupted: if corrupted > 0 {
            [("tenant1".to_owned(), corrupted)].into()
        } else {
            nobody()
        },
        blast_bytes: 0,
        stall: None,
        io_stall: None,
        censored: 0,
        unpaired: 0,
        frozen_ns: 0,
        noticed: crate::summary::Noticed {
            trials: 0,
            by: nobody(),
            after: None,
            latency: None,
        },
        recovery: crate::summary::Recovery {
            needed: 0,
            recovered: 0,
            after: None,
            latency: None,
            net: None,
            longest_reset_ns: 0,
        },
        requests: crate::summary::Requests::default(),
        stray: crate::summary::Stray::default(),
        cut_off: None,
        costs: None,
        samples: BTreeMap::new(),
        resident: BTreeMap::new(),
        flags: Vec::new(),
        curves: crate::summary::Curves::default(),
    }
}

fn crash(placement: PlacementId, outcome: Outcome, times: u32) -> CellSummary {
    let fault = Fault::X1 { nth: 0 };
    let ends = [(outcome, times)];
    cell(placement, IommuMode::Strict, FabricKind::Pcie, fault, &ends)
}

fn hang(placement: PlacementId, fabric: FabricKind, outcome: Outcome) -> CellSummary {
    let fault = Fault::B1 { nth: 0 };
    cell(placement, IommuMode::Strict, fabric, fault, &[(outcome, 3)])
}

fn wild(iommu: IommuMode, outcome: Outcome) -> CellSummary {
    let fault = Fault::D1 {
        by: By::Device,
        target: Target::Tenant1,
        len: 0,
        nth: 0,
    };
    let ends = [(outcome, 3)];
    cell(
        PlacementId::UserProcess,
        iommu,
        FabricKind::Pcie,
        fault,
        &ends,
    )
}

fn judged(id: &str, cells: Vec<CellSummary>) -> Judgement {
    let summary = Summary { cells, ..empty() };
    let claim = CLAIMS.iter().find(|claim| claim.id == id);
    claim.expect("a claim of that name").judge(&summary)
}

use Outcome::{Contained, Disturbed, SilentCorruption, SystemLost, TenantLost};
use PlacementId::{Hypervisor, InKernel, RootPartition, UserProcess};

#[test]
fn nothing_is_decided_without_cells() {
    let summary = empty();
    for claim in &CLAIMS {
        let judgement = claim.judge(&summary);
        assert_eq!(judgement.holding, Holding::Undecided, "{}", claim.id);
        assert!(!judgement.because.is_empty());
    }
}

#[test]
fn hypervisor_is_the_last_place_where_a_crash_costs_more_there() {
    let judgement = judged(
        "last-place",
        vec![
            crash(Hypervisor, SystemLost, 3),
            crash(UserProcess, Contained, 3),
        ],
    );
    assert_eq!(judgement.holding, Holding::Holds);
    assert!(judgement.is_few());
    assert!(judgement.because.contains("3 of 3") && judgement.because.contains("0 of 3"));
}

#[test]
fn hypervisor_is_not_the_last_place_where_a_crash_costs_less_there() {
    let judgement = judged(
        "last-place",
        vec![
            crash(Hypervisor, Contained, 40),
            crash(UserProcess, TenantLost, 40),
        ],
    );
    assert_eq!(judgement.holding, Holding::DoesNotHold);
    assert!(!judgement.is_few());
}

#[test]
fn overlapping_intervals_tell_no_difference() {
    let mixed = |placement, lost| {
        let fault = Fault::X1 { nth: 0 };
        let ends = [(SystemLost, lost), (Contained, 40 - lost)];
        cell(placement, IommuMode::Strict, FabricKind::Pcie, fault, &ends)
    };
    let judgement = judged(
        "last-place",
        vec![mixed(Hypervisor, 20), mixed(UserProcess, 18)],
    );
    assert_eq!(judgement.holding, Holding::Undecided);
}

#[test]
fn faults_of_one_side_only_are_not_compared() {
    let judgement = judged("last-place", vec![crash(Hypervisor, SystemLost, 3)]);
    assert_eq!(judgement.holding, Holding::Undecided);
}

#[test]
fn wild_dma_is_game_over_only_without_translation() {
    let judgement = judged(
        "wild-dma",
        vec![
            wild(IommuMode::Off, SilentCorruption),
            wild(IommuMode::Strict, Contained),
        ],
    );
    assert_eq!(
        judgement.holding,
        Holding::OnlyIf("if the IOMMU is off".into())
    );
    assert_eq!(judgement.evidence.len(), 2);
    assert_eq!(judgement.evidence[0].share.events, 3);
}

#[test]
fn wild_dma_that_a_strict_iommu_lets_through_is_game_over() {
    let judgement = judged("wild-dma", vec![wild(IommuMode::Strict, SilentCorruption)]);
    assert_eq!(judgement.holding, Holding::Holds);
}

#[test]
fn locked_bus_is_game_over_only_where_nothing_ends_the_wait() {
    let judgement = judged(
        "locked-bus",
        vec![
            hang(InKernel, FabricKind::PcieNotimeout, SystemLost),
            hang(UserProcess, FabricKind::PcieNotimeout, TenantLost),
            hang(InKernel, FabricKind::Pcie, Disturbed),
            hang(UserProcess, FabricKind::Pcie, Disturbed),
        ],
    );
    let condition = "if the fabric is pcie-notimeout".into();
    assert_eq!(judgement.holding, Holding::OnlyIf(condition));
    assert!(judgement.because.contains("Not part of this run"));
}

#[test]
fn placement_that_lives_through_a_locked_bus_refutes_the_claim() {
    let judgement = judged(
        "locked-bus",
        vec![
            hang(InKernel, FabricKind::PcieNotimeout, SystemLost),
            hang(UserProcess, FabricKind::PcieNotimeout, Disturbed),
        ],
    );
    assert_eq!(judgement.holding, Holding::DoesNotHold);
}

#[test]
fn hypervisor_that_locks_everybody_refutes_that_it_cannot() {
    let judgement = judged(
        "root-locks-all",
        vec![
            crash(RootPartition, Disturbed, 3),
            crash(Hypervisor, SystemLost, 3),
        ],
    );
    assert_eq!(judgement.holding, Holding::DoesNotHold);
    assert!(judgement.because.contains("3 of 3"));
}

#[test]
fn root_that_locks_everybody_alone_proves_it() {
    let judgement = judged(
        "root-locks-all",
        vec![
            crash(RootPartition, TenantLost, 3),
            crash(Hypervisor, Contained, 3),
        ],
    );
    assert_eq!(judgement.holding, Holding::Holds);
}

#[test]
fn layers_that_help_against_some_faults_refute_the_claim_for_these() {
    let judgement = judged(
        "no-stability",
        vec![
            crash(InKernel, SystemLost, 3),
            crash(UserProcess, Contained, 3),
            hang(InKernel, FabricKind::Pcie, Disturbed),
            hang(UserProcess, FabricKind::Pcie, Disturbed),
        ],
    );
    assert_eq!(judgement.holding, Holding::OnlyIf("for B1".into()));
}
