//! Several trials of one boot, one after the other.
//!
//! Booting takes longer than most trials. Where a fault leaves hardware and domains as they were, the
//! next trial of its cell can begin at once: frames get their patterns again, logs are emptied, the
//! device gets its next lie and the tenants their next seed. Whether everything *is* as it was is
//! looked at after every trial, and not believed of the fault: what cannot be put back ends the boot.

use super::unit::State;
use super::{BYSTANDER, Hardware, Infrastructure, ToZygote, leap, resets, told, wall};
use crate::trial::{ClockKind, End, Fault, TrialReport, TrialSpec};
use cofferdam_machine::DmaEvent;
use cofferdam_machine::frames::{FRAME, Use, run_at};

/// The bell by which a tenant that has finished hears of the next trial of its boot.
pub const NEXT_BELL: u64 = 1 << 62;

impl Hardware {
    /// Runs the boot's first trial and, while nothing is left of the last one, `others`; all but the
    /// last of those that were run are reported on the way.
    pub(super) fn boot(&mut self, others: &[TrialSpec]) -> Result<TrialReport, Infrastructure> {
        if self.spec.clock == ClockKind::Wall {
            let end = wall::run(self)?;
            return Ok(self.report(end));
        }
        self.assemble()?;
        if self.warming {
            let end = leap::run(self)?;
            if end != End::Finished {
                // It never got to its trial: that is what there is to report.
                return Ok(self.report(end));
            }
            self.begin();
        }
        let mut end = leap::run(self)?;
        for next in others {
            let report = self.report_of_boot(end);
            if report.spoilt.is_some() {
                return Ok(report);
            }
            self.zygote.send(&ToZygote::Next(Box::new(report)))?;
            self.put_back();
            self.renew(next);
            self.begin();
            end = leap::run(self)?;
        }
        Ok(self.report_of_boot(end))
    }

    /// The report of a trial, with what keeps others from following, where they may.
    fn report_of_boot(&mut self, end: End) -> TrialReport {
        let mut report = self.report(end);
        if self.spec.warm && self.spec.fault.stateless().is_some() {
            report.spoilt = self.left_behind(&report);
        }
        report
    }

    /// A DMA that nobody sanctioned: what a write did to anything but a pattern cannot be undone.
    pub(super) fn look_for_spoil(&mut self, event: &DmaEvent) {
        if !event.write || !event.landed() {
            return;
        }
        let in_pattern = event.reached.is_some_and(|at| {
            let end = at.0.saturating_add(event.moved as u64);
            let contiguous = !self.spec.iommu.translates() || at.0 / FRAME == (end - 1) / FRAME;
            contiguous
                && run_at(at.0)
                    .is_some_and(|run| run.purpose == Use::Pattern && end <= run.bytes().end)
        });
        if !in_pattern {
            let whose = event.reached.and_then(|at| self.owner_now(at));
            let whose = whose.map_or("a device's registers".to_owned(), |owner| {
                format!("memory that {owner} uses")
            });
            self.spoilt
                .get_or_insert_with(|| format!("a stray write landed in {whose}"));
        }
    }

    /// What is not as it was before the trial.
    fn left_behind(&self, report: &TrialReport) -> Option<String> {
        if report.end != End::Finished {
            return Some("the tenants did not finish".to_owned());
        }
        let changed = self.units.iter().find(|unit| {
            !matches!(
                unit.state,
                State::Running | State::Waiting { .. } | State::Ready(_)
            ) || !unit.deaths.is_empty()
                || unit.restarts > 0
        });
        if let Some(unit) = changed {
            return Some(format!("{} died or stood still", unit.name));
        }
        let server = &self.units[self.placement.server()];
        if report.resets > 0 || self.recovering || !server.serving {
            return Some("the device was reset".to_owned());
        }
        if report.domains.iter().any(|domain| domain.frozen_ns > 0) {
            return Some("a CPU stood still".to_owned());
        }
        let well = report.io.iter().all(|io| {
            let wrong = io.errors + io.corrupted + io.lost + io.duplicated;
            io.finished && wrong + io.device_changed + io.device_lost == 0
        });
        if !well {
            return Some("a request failed".to_owned());
        }
        if report.served.cut_off_at_ns.is_some() {
            return Some("an interrupt line was switched off".to_owned());
        }
        if self.machine.mappings(self.device) != self.mapped_before {
            return Some("the device has other mappings".to_owned());
        }
        self.spoilt.clone()
    }

    /// Puts back what the trial may have changed.
    fn put_back(&mut self) {
        let memory = self.machine.memory();
        if !memory.corruption().is_empty() {
            memory.fill_pattern();
        }
        if matches!(self.spec.fault, Fault::I4 { .. }) {
            // Its owner acknowledges what was forged.
            let pending = self.machine.pending_interrupts(BYSTANDER);
            self.machine.take_interrupts(BYSTANDER, pending);
        }
    }

    /// The next trial's fault and seed.
    fn renew(&mut self, next: &TrialSpec) {
        self.spec = next.clone();
        if let Some(tally) = &self.tally {
            let lie = told(&self.machine, next, &self.neighbour);
            tally.renew(lie.into_iter().collect());
        }
    }

    /// Begins a trial in a boot that goes on: counts from zero and lets the tenants loose.
    fn begin(&mut self) {
        self.machine.forget();
        self.begun = self.now();
        self.warming = false;
        self.marked = 0;
        self.activated_at = None;
        self.stray.clear();
        self.detection = None;
        self.recovered_at = None;
        self.reset_waits = resets::Waits::default();
        self.asked = 0;
        self.finished_at = None;
        self.spoilt = None;
        self.paid_before = self.paid_in_all();
        self.mapped_before = self.machine.mappings(self.device);
        for index in 0..self.units.len() {
            let is_tenant = self.tenant_at(index).is_some();
            let unit = &mut self.units[index];
            unit.longest_gap = 0;
            unit.finished = false;
            if is_tenant {
                unit.bells |= NEXT_BELL;
            }
        }
        if self.units[self.placement.server()].serving {
            self.arm();
        }
        self.wake();
    }

    /// Lets the device's lies begin, unless their trial is still to come.
    pub(super) fn arm(&self) {
        if let Some(tally) = self.tally.as_ref().filter(|_| !self.warming) {
            tally.arm();
        }
    }

    /// The tenant that a domain is.
    pub(super) fn tenant_at(&self, index: usize) -> Option<u8> {
        self.placement.domains.get(index)?.role.tenant()
    }
}
