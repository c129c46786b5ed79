//! What must happen, in closed form: from the owner table, the IOMMU mode and what the driver's
//! domain maps.
//!
//! Much of a verdict about wild DMA follows from these, so a cell carries its prediction and says
//! whether the outcome is settled by construction or had to be measured. A prediction that is
//! given is checked in every activated trial; where nothing follows, none is given.

use crate::catalogue;
use crate::cell::Cell;
use crate::verdict::Verdict;
use cofferdam_machine::frames::Owner;
use cofferdam_placement::trial::{By, DomainEnd, DomainReport, End, Fault, TenantIo, TrialReport};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;
use std::time::Duration;

/// How the outcome of a cell comes about.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Label {
    /// It follows from the topology and the IOMMU mode.
    ByConstruction,
    /// It depends on what the driver, the tenants and the supervisor do.
    Measured,
}

/// What is certain about a cell before it is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Nothing goes wrong.
    Clean,
    /// The access reaches that owner's memory.
    Lands(Owner),
    /// The access does not reach that owner's memory; `None`: it reaches no memory.
    Refused(Option<Owner>),
    /// Nothing refuses the access: a page of the driver's own is mapped there.
    Unrefused,
    /// Nothing refuses the access, and it ends in a bounce slot: nobody's data change, and the device
    /// learns nothing.
    InSlot,
    /// No stray DMA reaches memory.
    Blocked,
    /// An interrupt of another device is raised, or none is.
    Forges(bool),
    /// A use after unmap lands at most this long after the unmapping, ns; 0: never.
    StaleFor(u64),
    /// Every domain on the driver's CPU stands still for this long, ns, and nobody else; `None`: to
    /// the end of the trial.
    Freezes(Option<u64>),
    /// The driver's CPU spends between so long and so long in interrupt handlers, ns, and no other
    /// CPU does.
    Interrupted {
        /// At least.
        at_least: u64,
        /// At most.
        at_most: u64,
    },
    /// For this long, ns (`None`: to the end of the trial), the driver's CPU stands still whenever
    /// `driver` says so, and that of the other tenant whenever `other` does; else they never do.
    Stops {
        /// The driver's.
        driver: bool,
        /// The other.
        other: bool,
        /// How long.
        ns: Option<u64>,
    },
    /// What a tenant finds of its own device.
    Sibling(Effect),
    /// The system is lost.
    SystemLost,
    /// The privileged layer and the tenants live, and no acknowledged write is lost.
    OthersLive,
    /// Nothing is certain.
    Open,
}

/// What happens to a device of somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// Its registers change.
    Changed,
    /// It is gone, or was reset.
    Lost,
}

/// A cell's prediction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prediction {
    /// What is certain.
    pub expect: Expect,
    /// Whether that settles the outcome.
    pub label: Label,
    /// From what it follows.
    pub because: &'static str,
}

/// Domains on a CPU that stands still are late by as much; clocks of the others may differ a
/// little from the device's when the wall clock runs.
const SLACK_NS: u64 = 1_000_000;

pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

pub(crate) const fn by_construction(expect: Expect, because: &'static str) -> Prediction {
    Prediction {
        expect,
        label: Label::ByConstruction,
        because,
    }
}

pub(crate) const fn measured(expect: Expect, because: &'static str) -> Prediction {
    Prediction {
        expect,
        label: Label::Measured,
        because,
    }
}

/// The prediction of a cell.
pub fn predict(cell: &Cell) -> Prediction {
    catalogue::prediction(cell).unwrap_or(measured(Expect::Clean, "nothing was injected"))
}

impl Expect {
    /// What is expected, in a few words.
    pub fn words(&self) -> String {
        match self {
            Self::Clean => "no error, no stray DMA".into(),
            Self::Lands(owner) => format!("lands in {owner}'s memory"),
            Self::Refused(Some(owner)) => format!("never lands in {owner}'s memory"),
            Self::Refused(None) => "reaches no memory".into(),
            Self::Unrefused => "is not refused".into(),
            Self::InSlot => "stays in its bounce slot".into(),
            Self::Blocked => "reaches no memory".into(),
            Self::Forges(true) => "raises another device's interrupt".into(),
            Self::Forges(false) => "raises nobody else's interrupt".into(),
            Self::StaleFor(0) => "never lands after the unmapping".into(),
            Self::StaleFor(ns) => {
                format!("lands at most {} ms after the unmapping", ns / 1_000_000)
            }
            Self::Freezes(Some(ns)) => {
                format!("freezes the driver's CPU for {} ms", ns / 1_000_000)
            }
            Self::Freezes(None) => "freezes the driver's CPU for good".into(),
            Self::Interrupted { at_least, at_most } => format!(
                "interrupts hold the driver's CPU for {} to {} us",
                at_least / 1000,
                at_most / 1000
            ),
            Self::Stops { driver, other, ns } => {
                let whose = match (driver, other) {
                    (true, true) => "every CPU that uses the bus",
                    (true, false) => "the driver's CPU",
                    (false, true) => "the other tenant's CPU",
                    (false, false) => "no CPU",
                };
                match ns {
                    Some(ns) => format!("stops {whose} for {} ms", ns / 1_000_000),
                    None => format!("stops {whose} for good"),
                }
            }
            Self::Sibling(Effect::None) => "leaves the other tenant's device alone".into(),
            Self::Sibling(Effect::Changed) => "changes the other tenant's device".into(),
            Self::Sibling(Effect::Lost) => "takes the other tenant's device along".into(),
            Self::SystemLost => "the system is lost".into(),
            Self::OthersLive => "everybody else lives, no acknowledged write is lost".into(),
            Self::Open => "open".into(),
        }
    }

    /// How an activated trial disagrees with this, if it does.
    pub fn disagreement(&self, report: &TrialReport, verdict: &Verdict) -> Option<String> {
        let says = |wrong: bool, what: String| wrong.then_some(what);
        match *self {
            Self::Clean | Self::Open => None,
            Self::Lands(owner) => says(
                !reached(report, Some(owner)),
                format!("did not land in {owner}'s memory"),
            ),
            Self::Refused(None) => says(
                reached(report, None),
                "landed where no memory answers".into(),
            ),
            Self::Refused(Some(owner)) => says(
                reached(report, Some(owner)),
                format!("landed in {owner}'s memory"),
            ),
            Self::Unrefused => {
                let first = report.stray.first();
                says(
                    first.is_some_and(|stray| !stray.landed),
                    "was refused".into(),
                )
            }
            Self::InSlot => {
                let refused = report.stray.first().is_some_and(|stray| !stray.landed);
                let data = report.io.iter().any(|io| io.corrupted > 0 || io.lost > 0);
                if refused || data || !report.corruption.is_empty() {
                    return Some("did not stay in its bounce slot".into());
                }
                let learnt = report.counts.leaked_bytes;
                says(learnt > 0, format!("the device learnt {learnt} bytes"))
            }
            Self::Blocked => says(
                report.stray_landed > 0,
                format!("{} stray DMAs landed", report.stray_landed),
            ),
            Self::Forges(forges) => says(
                forges != (report.forged_interrupts > 0),
                format!(
                    "{} interrupts of another device were raised",
                    report.forged_interrupts
                ),
            ),
            Self::StaleFor(limit) => {
                let window = report.stale_window_ns?;
                says(
                    limit == 0 || window > limit + SLACK_NS,
                    format!("landed {window} ns after the unmapping"),
                )
            }
            Self::Freezes(at_least) => unfrozen(report, at_least),
            Self::Interrupted { at_least, at_most } => uninterrupted(report, at_least..=at_most),
            Self::Stops { driver, other, ns } => unstopped(report, driver, other, ns),
            Self::Sibling(effect) => {
                let count = |of: fn(&TenantIo) -> u32| report.io.iter().map(of).sum::<u32>();
                let changed = count(|io| io.device_changed);
                let lost = count(|io| io.device_lost);
                let right = match effect {
                    Effect::None => changed == 0 && lost == 0,
                    Effect::Changed => changed > 0,
                    Effect::Lost => lost > 0,
                };
                says(
                    !right,
                    format!(
                        "another's device was found changed {changed} times, lost {lost} times"
                    ),
                )
            }
            Self::SystemLost => {
                let lost = report.end == End::SystemLost
                    || report.machine_check
                    || report
                        .domains
                        .iter()
                        .any(|domain| domain.privileged && domain.end != DomainEnd::Alive);
                says(
                    !lost,
                    format!("the system lives: {}", verdict.outcome.name()),
                )
            }
            Self::OthersLive => {
                let dead = report
                    .domains
                    .iter()
                    .find(|domain| !domain.holds_driver && domain.end != DomainEnd::Alive);
                if let Some(domain) = dead {
                    return Some(format!("{} ended {:?}", domain.name, domain.end));
                }
                let lost: u64 = report.io.iter().map(|io| u64::from(io.lost)).sum();
                says(lost > 0, format!("{lost} acknowledged writes were lost"))
            }
        }
    }
}

/// Whether a faulty access reached memory of that owner. The driver's own DMA memory is reached all
/// the time, so of the driver's frames only the patterned ones tell.
fn reached(report: &TrialReport, owner: Option<Owner>) -> bool {
    let pattern = report
        .corruption
        .iter()
        .any(|corruption| Some(corruption.owner) == owner && corruption.bytes > 0);
    let stray = owner != Some(Owner::Driver)
        && report
            .stray
            .iter()
            .any(|stray| stray.landed && stray.owner == owner);
    pattern || stray
}

fn unfrozen(report: &TrialReport, at_least: Option<u64>) -> Option<String> {
    let cpu = report
        .domains
        .iter()
        .find(|domain| domain.holds_driver)
        .map(|domain| domain.cpu)?;
    let since_fault = report
        .ended_at_ns
        .saturating_sub(report.activated_at_ns.unwrap_or(0));
    let stood_still = |domain: &DomainReport| match at_least {
        Some(ns) => domain.frozen_ns.saturating_add(SLACK_NS) >= ns,
        None => {
            domain.end == DomainEnd::Frozen
                || domain.frozen_ns.saturating_add(SLACK_NS) >= since_fault
        }
    };
    let wrong = report.domains.iter().find(|domain| {
        if domain.cpu == cpu {
            !stood_still(domain)
        } else {
            domain.frozen_ns > SLACK_NS
        }
    })?;
    Some(format!(
        "{} on CPU {} stood still for {} ns",
        wrong.name, wrong.cpu, wrong.frozen_ns
    ))
}

/// How the time in interrupt handlers is other than that, on the driver's CPU or any other.
fn uninterrupted(report: &TrialReport, range: RangeInclusive<u64>) -> Option<String> {
    let cpu = report
        .domains
        .iter()
        .find(|domain| domain.holds_driver)
        .map(|domain| domain.cpu)?;
    let wrong = report.domains.iter().find(|domain| {
        if domain.cpu == cpu {
            !range.contains(&domain.interrupt_ns)
        } else {
            domain.interrupt_ns > 0
        }
    })?;
    Some(format!(
        "interrupts held CPU {} for {} ns",
        wrong.cpu, wrong.interrupt_ns
    ))
}

/// By how much a CPU may come later to a bus that stands still: a tenant looks after its device once
/// a heartbeat and once a request.
const LATE_NS: u64 = 10_000_000;

fn unstopped(
    report: &TrialReport,
    driver: bool,
    other: bool,
    at_least: Option<u64>,
) -> Option<String> {
    let cpu = report
        .domains
        .iter()
        .find(|domain| domain.holds_driver)
        .map(|domain| domain.cpu)?;
    let to_the_end = report
        .ended_at_ns
        .saturating_sub(report.activated_at_ns.unwrap_or(0));
    let least = at_least.unwrap_or(to_the_end).min(to_the_end);
    let stops = |domain: &DomainReport| if domain.cpu == cpu { driver } else { other };
    let stood = |domain: &DomainReport| domain.frozen_ns.saturating_add(LATE_NS) >= least;
    // A CPU that asks nothing of the bus meanwhile does not notice: one that did is enough.
    let noticed = report
        .domains
        .iter()
        .any(|domain| stops(domain) && stood(domain));
    let wrong = report.domains.iter().find(|domain| {
        if stops(domain) {
            !noticed
        } else {
            domain.frozen_ns > SLACK_NS
        }
    })?;
    Some(format!(
        "{} on CPU {} stood still for {} ns",
        wrong.name, wrong.cpu, wrong.frozen_ns
    ))
}

/// The victim of a cell of the negative control: a wild write by the device into somebody else's
/// frame with nothing in its way. It must land, or the injector is broken.
pub fn negative_control(cell: &Cell) -> Option<Owner> {
    match cell.case.fault {
        Fault::D1 {
            by: By::Device,
            target,
            ..
        } if !cell.iommu.translates() => target
            .owner()
            .filter(|owner| !matches!(owner, Owner::Driver | Owner::Free)),
        _ => None,
    }
}

/// Whether a trial of the negative control escaped into its victim's memory.
pub fn escaped(report: &TrialReport, victim: Owner) -> bool {
    reached(report, Some(victim))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::{DRIVERS, PLACEMENTS};
    use crate::plan::{Filter, Plan, Settings};
    use cofferdam_placement::trial::{PlacementId, Target};

    fn cells(keep: impl Fn(&Cell) -> bool) -> Vec<Cell> {
        let plan = Plan::new(Settings::QUICK, Filter::default()).expect("the full plan");
        let cells: Vec<Cell> = plan.cells().filter(|cell| keep(cell)).copied().collect();
        assert!(!cells.is_empty());
        cells
    }

    #[test]
    fn wild_dma_by_the_device_is_settled_by_the_iommu_and_not_by_the_placement() {
        for cell in cells(|cell| {
            matches!(
                cell.case.fault,
                Fault::D1 {
                    by: By::Device,
                    target: Target::Tenant1,
                    ..
                }
            )
        }) {
            let prediction = predict(&cell);
            assert_eq!(prediction.label, Label::ByConstruction);
            let lands = prediction.expect == Expect::Lands(Owner::Tenant1);
            assert_eq!(lands, !cell.iommu.translates(), "{}", cell.id());
        }
    }

    #[test]
    fn wild_store_lands_exactly_in_what_the_drivers_domain_maps() {
        let lands = |placement: PlacementId| -> Vec<Owner> {
            cells(|cell| cell.placement == placement && cell.case.fault.id() == "M1")
                .iter()
                .filter(|cell| cell.driver == cofferdam_placement::trial::DriverId::Edu)
                .filter_map(|cell| match predict(cell).expect {
                    Expect::Lands(owner) => Some(owner),
                    _ => None,
                })
                .collect()
        };
        assert_eq!(lands(PlacementId::InKernel), Owner::ALL);
        assert_eq!(lands(PlacementId::Hypervisor), Owner::ALL);
        assert_eq!(
            lands(PlacementId::RootPartition),
            [Owner::Kernel, Owner::Driver]
        );
        assert_eq!(lands(PlacementId::UserProcess), [Owner::Driver]);
        assert_eq!(lands(PlacementId::DriverVm), [Owner::Driver]);
        let in_tenant = cells(|cell| cell.placement == PlacementId::Passthrough);
        let in_tenant = in_tenant.iter().filter(|cell| cell.case.fault.id() == "M1");
        let victims: Vec<Owner> = in_tenant
            .filter_map(|cell| match predict(cell).expect {
                Expect::Lands(owner) => Some(owner),
                _ => None,
            })
            .collect();
        assert_eq!(victims, [Owner::Driver, Owner::Tenant1]);
    }

    #[test]
    fn negative_control_is_a_victims_frame_without_a_translating_iommu() {
        let control = cells(|cell| negative_control(cell).is_some());
        // Four victims, two modes that do not translate.
        let guests = || PLACEMENTS.iter().filter(|entry| entry.needs_kvm());
        let processes = PLACEMENTS.len() - guests().count();
        // One of the two, and the drivers that can be there.
        let drivers = guests().map(|entry| match entry.has_tenant_in_guest() {
            // Where application and driver are one program it is not tried again.
            true => usize::from(entry.copies),
            false => DRIVERS.len() - 1,
        });
        let in_guests = 4 * drivers.sum::<usize>();
        assert_eq!(control.len(), 4 * 2 * DRIVERS.len() * processes + in_guests);
        for cell in control {
            assert!(matches!(predict(&cell).expect, Expect::Lands(_)));
        }
    }

    #[test]
    fn every_cell_of_the_plan_has_a_prediction_with_a_reason() {
        for cell in cells(|_| true) {
            let prediction = predict(&cell);
            assert!(!prediction.because.is_empty());
            assert!(!prediction.expect.words().is_empty());
        }
    }
}
