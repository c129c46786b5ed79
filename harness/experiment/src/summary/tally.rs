//! What is kept of a cell while its records go by.

use super::pairing::Answers;
use super::{
    CellSummary, Curves, CutOff, Noticed, PlacementSummary, Recovery, Requests, SAMPLED, Stray,
};
use crate::catalogue::{Standing, placement};
use crate::cell::Cell;
use crate::predict::predict;
use crate::record::Record;
use crate::statistics::{Cluster, Distribution, ENOUGH, Flag, proportion};
use crate::verdict::Outcome;
use cofferdam_placement::trial::{Counts, PlacementId, TrialReport};
use std::collections::BTreeMap;

/// The times of trials.
#[derive(Debug, Default)]
pub(super) struct Times {
    stall: Distribution,
    io_stall: Distribution,
    noticed: Distribution,
    recovery: Distribution,
    recovery_net: Distribution,
}

/// Whether the driver had to come back: it was reset or restarted, or died.
fn needed_recovery(report: &TrialReport) -> bool {
    let died = report
        .domains
        .iter()
        .any(|domain| domain.holds_driver && !domain.deaths.is_empty());
    report.resets > 0 || died || report.recovered_after_ns.is_some()
}

impl Times {
    /// Adds the times of an activated trial, or the stalls of a clean one.
    pub(super) fn add(&mut self, record: &Record, boot: Cluster) {
        let (report, verdict) = (&record.report, &record.verdict);
        self.stall.add(verdict.stall_ns, verdict.censored, boot);
        self.io_stall
            .add(verdict.io_stall_ns, verdict.censored, boot);
        let Some(struck) = report.activated_at_ns else {
            return;
        };
        // What had not come by the trial's end takes at least until then.
        let watched = report.ended_at_ns.saturating_sub(struck);
        let noticed = report.detection.as_ref().map(|seen| seen.after_ns);
        self.noticed
            .add(noticed.unwrap_or(watched), noticed.is_none(), boot);
        if needed_recovery(report) {
            let after = report.recovered_after_ns;
            let gross = after.unwrap_or(watched);
            let net = gross.saturating_sub(report.reset_wait_ns);
            self.recovery.add(gross, after.is_none(), boot);
            self.recovery_net.add(net, after.is_none(), boot);
        }
    }

    fn curves(&self) -> Curves {
        Curves {
            stall: self.stall.curve_of_ended(),
            io_stall: self.io_stall.curve_of_ended(),
            noticed: self.noticed.curve_of_ended(),
            recovery: self.recovery.curve_of_ended(),
            recovery_net: self.recovery_net.curve_of_ended(),
        }
    }
}

impl PlacementSummary {
    pub(super) fn of(placement: PlacementId, times: &Times, seed: u64) -> Self {
        Self {
            placement,
            stall: times.stall.spread(seed),
            io_stall: times.io_stall.spread(seed),
            noticed: times.noticed.spread(seed),
            recovery: times.recovery.spread(seed),
            recovery_net: times.recovery_net.spread_of_ended(seed),
            curves: times.curves(),
        }
    }
}

/// One cell so far.
#[derive(Debug, Default)]
pub(super) struct Tally {
    injected: u32,
    activated: u32,
    manifested: u32,
    contained: u32,
    landed: u32,
    outcomes: BTreeMap<Outcome, u32>,
    hurt: BTreeMap<String, u32>,
    corrupted: BTreeMap<String, u32>,
    blast_bytes: u64,
    escaped: proportion::Tally,
    times: Times,
    /// What its pairs are compared by.
    pub(super) answers: Answers,
    censored: u32,
    unpaired: u32,
    frozen_ns: u64,
    noticed_by: BTreeMap<String, u32>,
    recovery_needed: u32,
    recovered: u32,
    longest_reset_ns: u64,
    cut_off: Option<CutOff>,
    requests: Requests,
    stray: Stray,
    costs: Counts,
    samples: BTreeMap<Outcome, Vec<u64>>,
    resident: BTreeMap<String, u64>,
}

fn count(into: &mut BTreeMap<String, u32>, names: &[String]) {
    for name in names {
        *into.entry(name.clone()).or_default() += 1;
    }
}

impl Tally {
    pub(super) fn add(&mut self, cell: &Cell, record: &Record, boot: Cluster) {
        let (report, verdict) = (&record.report, &record.verdict);
        self.injected += 1;
        *self.outcomes.entry(verdict.outcome).or_default() += 1;
        let samples = self.samples.entry(verdict.outcome).or_default();
        if samples.len() < SAMPLED {
            samples.push(record.index);
        }
        self.unpaired += u32::from(!verdict.paired && !cell.is_clean());
        if verdict.outcome == Outcome::NotActivated {
            return;
        }
        self.activated += u32::from(!cell.is_clean());
        self.manifested += u32::from(verdict.manifested);
        self.contained += u32::from(verdict.contained);
        self.landed += u32::from(verdict.landed);
        self.censored += u32::from(verdict.censored);
        count(&mut self.hurt, &verdict.hurt);
        count(&mut self.corrupted, &verdict.corrupted);
        self.blast_bytes = self.blast_bytes.max(verdict.blast_bytes);
        self.times.add(record, boot);
        if !cell.is_clean() {
            self.escaped.add(!verdict.contained, boot);
            self.answers.add(record.number, verdict, boot);
        }
        let frozen = report
            .domains
            .iter()
            .filter(|domain| domain.holds_driver)
            .map(|domain| domain.frozen_ns);
        self.frozen_ns = frozen.fold(self.frozen_ns, u64::max);
        for domain in &report.domains {
            if let Some(bytes) = domain.resident_bytes {
                let most = self.resident.entry(domain.name.clone()).or_default();
                *most = bytes.max(*most);
            }
        }
        if let Some(seen) = &report.detection {
            *self.noticed_by.entry(seen.by.clone()).or_default() += 1;
        }
        if needed_recovery(report) {
            self.recovery_needed += 1;
            self.recovered += u32::from(report.recovered_after_ns.is_some());
        }
        self.longest_reset_ns = self.longest_reset_ns.max(report.longest_reset_ns);
        if report.served.cut_off_at_ns.is_some() {
            let taken = report.served.taken;
            let known = self.cut_off.get_or_insert(CutOff {
                trials: 0,
                fewest: taken,
                most: taken,
            });
            known.trials += 1;
            known.fewest = known.fewest.min(taken);
            known.most = known.most.max(taken);
        }
        for io in &report.io {
            self.requests.completed += u64::from(io.completed);
            self.requests.errors += u64::from(io.errors);
            self.requests.corrupted += u64::from(io.corrupted);
            self.requests.lost += u64::from(io.lost);
            self.requests.duplicated += u64::from(io.duplicated);
        }
        let stray = &mut self.stray;
        stray.landed = stray.landed.saturating_add(report.stray_landed);
        stray.blocked = stray.blocked.saturating_add(report.stray_blocked);
        stray.stale_window_ns = stray.stale_window_ns.max(report.stale_window_ns);
        add_counts(&mut self.costs, &report.counts);
    }

    pub(super) fn close(self, cell: &Cell, seed: u64) -> CellSummary {
        let prediction = predict(cell);
        let standing = placement(cell.placement).standing(cell.iommu);
        let (deployed, deployed_as) = match standing {
            Standing::Deployed(system) => (true, system),
            Standing::Synthetic(why) => (false, why),
        };
        let noticed: u32 = self.noticed_by.values().sum();
        let escaped = self.escaped.close();
        let few = if cell.is_clean() {
            self.injected < ENOUGH
        } else {
            escaped.is_few()
        };
        let flags = [(Flag::Few, few), (Flag::Censored, self.censored > 0)]
            .into_iter()
            .filter_map(|(flag, holds)| holds.then_some(flag))
            .collect();
        let times = &self.times;
        CellSummary {
            id: cell.id(),
            placement: cell.placement,
            platform: cell.platform,
            iommu: cell.iommu,
            fabric: cell.fabric,
            driver: cell.driver,
            fault: cell.case.fault.id().to_owned(),
            case: cell.case.name(),
            prediction: prediction.expect.words(),
            because: prediction.because.to_owned(),
            label: prediction.label,
            deployed,
            deployed_as: deployed_as.to_owned(),
            injected: self.injected,
            activated: self.activated,
            manifested: self.manifested,
            contained: self.contained,
            escaped,
            landed: self.landed,
            outcomes: self.outcomes,
            hurt: self.hurt,
            corrupted: self.corrupted,
            blast_bytes: self.blast_bytes,
            stall: times.stall.spread(seed),
            io_stall: times.io_stall.spread(seed),
            censored: self.censored,
            unpaired: self.unpaired,
            frozen_ns: self.frozen_ns,
            noticed: Noticed {
                trials: noticed,
                by: self.noticed_by,
                after: times.noticed.spread_of_ended(seed),
                latency: times.noticed.spread(seed),
            },
            recovery: Recovery {
                needed: self.recovery_needed,
                recovered: self.recovered,
                after: times.recovery.spread_of_ended(seed),
                latency: times.recovery.spread(seed),
                net: times.recovery_net.spread_of_ended(seed),
                longest_reset_ns: self.longest_reset_ns,
            },
            requests: self.requests,
            stray: self.stray,
            cut_off: self.cut_off,
            costs: cell.is_clean().then_some(self.costs),
            samples: self.samples,
            resident: if cell.is_clean() {
                self.resident
            } else {
                BTreeMap::new()
            },
            flags,
            curves: self.times.curves(),
        }
    }
}

fn add_counts(into: &mut Counts, more: &Counts) {
    for (into, more) in [
        (&mut into.mmio_reads, more.mmio_reads),
        (&mut into.mmio_writes, more.mmio_writes),
        (&mut into.maps, more.maps),
        (&mut into.unmaps, more.unmaps),
        (&mut into.invalidations, more.invalidations),
        (&mut into.doorbells, more.doorbells),
        (&mut into.interrupts, more.interrupts),
        (&mut into.dma_requests, more.dma_requests),
        (&mut into.crossings, more.crossings),
        (&mut into.copied_bytes, more.copied_bytes),
        (&mut into.wakeups, more.wakeups),
        (&mut into.exits, more.exits),
    ] {
        *into = into.saturating_add(more);
    }
}
