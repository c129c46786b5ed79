//! How each claim is judged.

use super::evidence::{Evidence, lost, lost_or_corrupted, memory_hit};
use super::{Holding, Judgement};
use crate::catalogue::{FABRICS, FAULTS, IOMMU_MODES, PLACEMENTS, cases, placement};
use crate::predict::Label;
use crate::summary::{CellSummary, Summary};
use crate::verdict::Outcome;
use cofferdam_machine::frames::Owner;
use cofferdam_placement::trial::{Fault, PlacementId};
use std::collections::{BTreeMap, BTreeSet};

fn struck(summary: &Summary) -> impl Iterator<Item = &CellSummary> + Clone {
    summary
        .cells
        .iter()
        .filter(|cell| cell.platform.is_usual() && !cell.is_clean() && cell.activated > 0)
}

/// The name a cell shares with the same cell of other placements.
fn peers(cell: &CellSummary) -> &str {
    cell.id.split_once('/').map_or("", |(_, peers)| peers)
}

fn privileged(cell: &CellSummary) -> bool {
    placement(cell.placement).driver_is_privileged()
}

/// Cells of both kinds of placements, of faults that were struck in both.
fn both_sides<'a>(
    cells: impl Iterator<Item = &'a CellSummary> + Clone,
) -> (Vec<&'a CellSummary>, Vec<&'a CellSummary>) {
    let names = |side: bool| -> BTreeSet<&str> {
        let cells = cells.clone().filter(|cell| privileged(cell) == side);
        cells.map(peers).collect()
    };
    let (inside, outside) = (names(true), names(false));
    cells
        .filter(|cell| inside.contains(peers(cell)) && outside.contains(peers(cell)))
        .partition(|cell| privileged(cell))
}

/// Whether the driver itself commits every case of that fault.
fn by_driver(fault: &str) -> bool {
    FAULTS
        .iter()
        .any(|entry| entry.id == fault && entry.by.starts_with("driver"))
}

pub(super) fn last_place(summary: &Summary) -> Judgement {
    let (inside, outside) = both_sides(struck(summary).filter(|cell| by_driver(&cell.fault)));
    let inside = Evidence::count(
        "driver inside the privileged layer: lost or corrupted",
        inside.into_iter(),
        lost_or_corrupted,
    );
    let outside = Evidence::count(
        "driver outside it: lost or corrupted",
        outside.into_iter(),
        lost_or_corrupted,
    );
    let because = |what: &str| {
        format!(
            "{what}: {} of the same strikes by the driver itself ended with a loss or silent \
             corruption inside the privileged layer, {} outside. How many bugs drivers have is \
             not measured: faults are injected here.",
            inside.counts(),
            outside.counts()
        )
    };
    if inside.is_empty() || outside.is_empty() {
        return Judgement::undecided("this run has no such faults on both sides", Vec::new());
    }
    let (holding, because) = if inside.exceeds(&outside) {
        (Holding::Holds, because("a bug costs more there"))
    } else if outside.exceeds(&inside) {
        (Holding::DoesNotHold, because("a bug costs less there"))
    } else {
        (Holding::Undecided, because("no difference can be told"))
    };
    Judgement {
        holding,
        because,
        evidence: vec![inside, outside],
    }
}

pub(super) fn layer_costs(summary: &Summary) -> Judgement {
    let per_placement: Vec<String> = PLACEMENTS
        .iter()
        .filter_map(|entry| {
            let (mut crossings, mut copied, mut requests) = (0_u64, 0_u64, 0_u64);
            for cell in summary
                .cells
                .iter()
                .filter(|cell| cell.placement == entry.placement)
            {
                if let Some(costs) = &cell.costs {
                    crossings = crossings.saturating_add(costs.crossings);
                    copied = copied.saturating_add(costs.copied_bytes);
                    requests = requests.saturating_add(cell.requests.completed);
                }
            }
            let tenths = crossings.saturating_mul(10).checked_div(requests)?;
            let copied = copied.checked_div(requests)?;
            Some(format!(
                "{} {}.{} and {copied} bytes",
                entry.id,
                tenths / 10,
                tenths % 10
            ))
        })
        .collect();
    let counts = if per_placement.is_empty() {
        "This run has no clean cells.".to_owned()
    } else {
        format!(
            "Crossings and copied bytes for each request: {}.",
            per_placement.join("; ")
        )
    };
    Judgement::undecided(
        format!(
            "{counts} What they cost in time is not part of this run: every wall is a process \
             boundary, so no trap, exit or nested page walk was paid for by anybody."
        ),
        Vec::new(),
    )
}

/// Whether a stray access of that fault is meant for somebody else's memory.
fn aims_at_a_victim(fault: &Fault) -> bool {
    matches!(
        fault,
        Fault::D1 { target, .. }
            if target.owner().is_some_and(|owner| !matches!(owner, Owner::Driver | Owner::Free))
    )
}

pub(super) fn wild_dma(summary: &Summary) -> Judgement {
    let aimed: BTreeSet<String> = FAULTS
        .iter()
        .flat_map(|fault| cases(fault))
        .filter(|case| aims_at_a_victim(&case.fault))
        .map(|case| case.name())
        .collect();
    let cells = struck(summary).filter(|cell| aimed.contains(&cell.case));
    let mut evidence = Vec::new();
    let mut open: Vec<&str> = Vec::new();
    let mut closed: Vec<&str> = Vec::new();
    for mode in &IOMMU_MODES {
        let of = cells.clone().filter(|cell| cell.iommu == mode.value);
        let hit = Evidence::count(
            format!("IOMMU {}: somebody else's memory corrupted", mode.id),
            of,
            memory_hit,
        );
        if hit.is_empty() {
            continue;
        }
        if hit.never() {
            closed.push(mode.id);
        } else {
            open.push(mode.id);
        }
        evidence.push(hit);
    }
    let (holding, because) = match (open.is_empty(), closed.is_empty()) {
        (true, true) => {
            return Judgement::undecided("this run has no wild DMA at somebody's frame", evidence);
        }
        (false, false) => (
            Holding::OnlyIf(format!("if the IOMMU is {}", open.join(" or "))),
            format!(
                "it is the IOMMU that decides, and no placement: a wild DMA reached its victim with \
                 {}, and never with {}",
                open.join(", "),
                closed.join(", ")
            ),
        ),
        (false, true) => (
            Holding::Holds,
            "it reached its victim in every IOMMU mode of this run".to_owned(),
        ),
        (true, false) => (
            Holding::DoesNotHold,
            "it reached nobody in any IOMMU mode of this run".to_owned(),
        ),
    };
    Judgement {
        holding,
        because,
        evidence,
    }
}

/// Faults by which a device keeps a bus, a link or a processor to itself.
const LOCKS: [&str; 5] = ["B1", "B3", "B4", "B5", "B6"];

pub(super) fn locked_bus(summary: &Summary) -> Judgement {
    // That a timeout is made to end in a machine check is a choice of the platform's, not the bus's.
    let cells = struck(summary)
        .filter(|cell| LOCKS.contains(&cell.fault.as_str()) && cell.label == Label::Measured);
    let mut evidence = Vec::new();
    let mut over: Vec<&str> = Vec::new();
    let mut survived: Vec<&str> = Vec::new();
    for fabric in &FABRICS {
        let of = cells.clone().filter(|cell| cell.fabric == fabric.value);
        let fatal = Evidence::count(
            format!("fabric {}: a tenant or the system lost", fabric.id),
            of.clone(),
            lost,
        );
        if fatal.is_empty() {
            continue;
        }
        let spared = PLACEMENTS.iter().any(|entry| {
            let own = of.clone().filter(|cell| cell.placement == entry.placement);
            let own = Evidence::count("", own, lost);
            !own.is_empty() && own.never()
        });
        if fatal.never() || spared {
            survived.push(fabric.id);
        } else {
            over.push(fabric.id);
        }
        evidence.push(fatal);
    }
    let missing: Vec<&str> = LOCKS
        .into_iter()
        .filter(|id| !cells.clone().any(|cell| cell.fault == *id))
        .collect();
    let rest = if missing.is_empty() {
        String::new()
    } else {
        format!(" Not part of this run: {}.", missing.join(", "))
    };
    let (holding, because) = match (over.is_empty(), survived.is_empty()) {
        (true, true) => {
            return Judgement::undecided(format!("no such fault was struck.{rest}"), evidence);
        }
        (false, true) => (
            Holding::Holds,
            format!("every placement lost somebody on every fabric of this run.{rest}"),
        ),
        (false, false) => (
            Holding::OnlyIf(format!("if the fabric is {}", over.join(" or "))),
            format!(
                "on {} every placement lost a tenant or the system, and no wall helped; on {} some \
                 or all lived.{rest}",
                over.join(", "),
                survived.join(", ")
            ),
        ),
        (true, false) => (
            Holding::DoesNotHold,
            format!("on every fabric of this run some placement lost nobody.{rest}"),
        ),
    };
    Judgement {
        holding,
        because,
        evidence,
    }
}

/// Trials that lost every tenant: those who were lost each time, or the system.
fn all_lost(cell: &CellSummary) -> u32 {
    let system = cell
        .outcomes
        .get(&Outcome::SystemLost)
        .copied()
        .unwrap_or(0);
    let tenants = placement(cell.placement)
        .domains
        .iter()
        .filter(|domain| domain.role.tenant().is_some());
    // A trial that lost both tenants counts in both names, so the rarer name bounds their number.
    let both = tenants
        .map(|domain| cell.hurt.get(domain.name).copied().unwrap_or(0))
        .min()
        .unwrap_or(0);
    let lost = cell
        .outcomes
        .get(&Outcome::TenantLost)
        .copied()
        .unwrap_or(0);
    system.saturating_add(both.min(lost))
}

pub(super) fn root_locks_all(summary: &Summary) -> Judgement {
    let of = |id: PlacementId| -> BTreeMap<&str, &CellSummary> {
        let cells = struck(summary).filter(|cell| cell.placement == id);
        cells.map(|cell| (peers(cell), cell)).collect()
    };
    let root = of(PlacementId::RootPartition);
    let hypervisor = of(PlacementId::Hypervisor);
    let common = |one: &BTreeMap<&str, &'_ CellSummary>, other: &BTreeMap<&str, &CellSummary>| {
        let both = one.iter().filter(|(name, _)| other.contains_key(*name));
        both.map(|(_, cell)| cell.id.clone())
            .collect::<BTreeSet<_>>()
    };
    let (in_root, in_hypervisor) = (common(&root, &hypervisor), common(&hypervisor, &root));
    let root = Evidence::count(
        "driver in the root: every tenant or the system lost",
        root.into_values().filter(|cell| in_root.contains(&cell.id)),
        all_lost,
    );
    let hypervisor = Evidence::count(
        "driver in the hypervisor: every tenant or the system lost",
        hypervisor
            .into_values()
            .filter(|cell| in_hypervisor.contains(&cell.id)),
        all_lost,
    );
    if root.is_empty() || hypervisor.is_empty() {
        return Judgement::undecided("this run lacks one of the two placements", Vec::new());
    }
    let counts = format!(
        "the same strikes lost everybody {} times with the driver in the root, {} with the driver \
         in the hypervisor",
        root.counts(),
        hypervisor.counts()
    );
    let (holding, because) = match (root.never(), hypervisor.never()) {
        (false, true) => (Holding::Holds, counts),
        (true, true) => (Holding::DoesNotHold, format!("neither ever did: {counts}")),
        (_, false) => (
            Holding::DoesNotHold,
            format!("in the hypervisor it can: {counts}"),
        ),
    };
    Judgement {
        holding,
        because,
        evidence: vec![root, hypervisor],
    }
}

pub(super) fn no_stability(summary: &Summary) -> Judgement {
    // A cell is compared wherever one of its peers is measured: what is certain for a privileged
    // layer may be open elsewhere.
    let open: BTreeSet<&str> = struck(summary)
        .filter(|cell| cell.label == Label::Measured)
        .map(peers)
        .collect();
    let (inside, outside) = both_sides(struck(summary).filter(|cell| open.contains(peers(cell))));
    let contained = |cell: &CellSummary| cell.contained;
    let one = Evidence::count(
        "driver inside the privileged layer: contained",
        inside.iter().copied(),
        contained,
    );
    let other = Evidence::count(
        "driver outside it: contained",
        outside.iter().copied(),
        contained,
    );
    if one.is_empty() || other.is_empty() {
        return Judgement::undecided("this run has no measured fault on both sides", Vec::new());
    }
    let (mut better, mut same) = (Vec::new(), Vec::new());
    for fault in &one.faults {
        let of = |cells: &[&CellSummary]| {
            let own = cells.iter().copied().filter(|cell| cell.fault == *fault);
            Evidence::count("", own, contained)
        };
        let (inside, outside) = (of(&inside), of(&outside));
        if outside.exceeds(&inside) {
            better.push(fault.as_str());
        } else {
            same.push(fault.as_str());
        }
    }
    let counts = format!(
        "{} of the same strikes stayed contained inside the privileged layer, {} outside",
        one.counts(),
        other.counts()
    );
    let holding = match (better.is_empty(), same.is_empty()) {
        (true, _) => Holding::Holds,
        (false, true) => Holding::DoesNotHold,
        (false, false) => Holding::OnlyIf(format!("for {}", same.join(", "))),
    };
    let because = if better.is_empty() {
        format!("no fault was contained more often behind a wall; {counts}")
    } else {
        format!(
            "behind a wall {} stayed contained more often; {counts}",
            better.join(", ")
        )
    };
    Judgement {
        holding,
        because,
        evidence: vec![one, other],
    }
}

pub(super) fn halved_memory(summary: &Summary) -> Judgement {
    let totals: Vec<String> = PLACEMENTS
        .iter()
        .filter_map(|entry| {
            let cells = summary
                .cells
                .iter()
                .filter(|cell| cell.placement == entry.placement && !cell.resident.is_empty());
            let sum = |cell: &CellSummary| {
                let bytes = cell.resident.values();
                bytes.fold(0_u64, |sum, bytes| sum.saturating_add(*bytes))
            };
            let most = cells.map(sum).max()?;
            Some(format!("{} {} KiB", entry.id, most / 1024))
        })
        .collect();
    let counts = if totals.is_empty() {
        "No record says what a domain keeps resident.".to_owned()
    } else {
        format!("All domains together keep resident: {}.", totals.join(", "))
    };
    Judgement::undecided(
        format!(
            "{counts} Domains are processes, not images of an operating system: what a second \
             image takes for itself, and whether sharing would use it better, is in no record."
        ),
        Vec::new(),
    )
}
