//! What the hardware process saw, as a report.

use super::unit::State;
use super::{Hardware, STRAYS};
use crate::newcomer;
use crate::port::Toll;
use crate::trial::{
    By, Corruption, Counts, Detection, DomainEnd, DomainReport, End, Fault, Served, StrayDma,
    TrialReport,
};
use cofferdam_seam::Time;
use std::time::Duration;

impl Hardware {
    pub(super) fn detected(&mut self, by: String, what: String, at: Time) {
        self.note_detection(&by, &what, at);
        let Some(activated) = self.activated_at.filter(|activated| *activated <= at) else {
            return;
        };
        let after_ns = at.0 - activated.0;
        if self
            .detection
            .as_ref()
            .is_none_or(|earlier| after_ns < earlier.after_ns)
        {
            self.detection = Some(Detection { by, what, after_ns });
        }
    }

    /// Reads the machine's log: what happened on the bus since the last look.
    pub(super) fn observe(&mut self) {
        if let Some(at) = self.tally.as_ref().and_then(|tally| tally.first_at()) {
            self.activated_at.get_or_insert(at);
        }
        let by_driver = matches!(
            self.spec.fault,
            Fault::D1 { by: By::Driver, .. }
                | Fault::D2 { .. }
                | Fault::D3 { .. }
                | Fault::D4 { by: By::Driver, .. }
                | Fault::D6 { by: By::Driver, .. }
        );
        for event in self.machine.drain_events() {
            if let Some(reused) = &self.reused
                && event.write
                && reused.contains(&event.iova.0)
            {
                self.marked += 1;
                self.activated_at.get_or_insert(event.at);
            }
            if event.verdict.is_sanctioned() {
                continue;
            }
            if by_driver {
                self.marked += 1;
                self.activated_at.get_or_insert(event.at);
            }
            self.look_for_spoil(&event);
            if self.stray.len() < STRAYS {
                self.stray.push(StrayDma {
                    at_ns: event.at.0,
                    iova: event.iova.0,
                    len: event.len as u64,
                    write: event.write,
                    verdict: event.verdict.to_string(),
                    landed: event.landed(),
                    owner: event.reached.and_then(|at| self.owner_now(at)),
                });
            }
        }
        let disobeyed = u32::try_from(self.machine.counts().disobeyed_resets).unwrap_or(u32::MAX);
        if matches!(self.spec.fault, Fault::C5 { .. }) && disobeyed > self.marked {
            self.marked = disobeyed;
            self.activated_at.get_or_insert(self.machine.now());
        }
        if self
            .detection
            .as_ref()
            .is_none_or(|earlier| earlier.by != "fabric")
            && let Some(activated) = self.activated_at
        {
            let (errors, _) = self.machine.port_errors();
            if let Some(error) = errors.iter().find(|error| error.at >= activated) {
                let (what, at) = (error.to_string(), error.at);
                self.detected("fabric".into(), what, at);
            }
        }
        if self
            .detection
            .as_ref()
            .is_none_or(|earlier| earlier.by != "iommu")
            && let Some(activated) = self.activated_at
        {
            let (faults, _) = self.machine.iommu_faults();
            if let Some(fault) = faults.iter().find(|fault| fault.at >= activated) {
                let (what, at) = (fault.to_string(), fault.at);
                self.detected("iommu".into(), what, at);
            }
        }
        self.note_rest();
    }

    pub(super) fn report(&mut self, end: End) -> TrialReport {
        self.observe();
        if let Some(at) = self.machine.interrupt_cost(self.device).cut_off_at {
            let by = self.placement.domains[self.placement.server()].name.into();
            self.detected(
                by,
                "nobody handles the interrupts: line disabled".into(),
                at,
            );
        }
        let now = self.now();
        let ended = match end {
            End::Horizon => self.horizon(),
            End::Finished | End::SystemLost => now,
        };
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let frozen: Vec<Duration> = self
            .cpus
            .iter()
            .map(|cpu| cpu.frozen + cpu.until.map_or(Duration::ZERO, |_| ended.since(cpu.since)))
            .collect();
        let mut domains = Vec::new();
        let mut io = Vec::new();
        for (index, domain) in self.placement.domains.iter().enumerate() {
            let unit = &self.units[index];
            let (_, stored_gap) = unit.page.beats();
            let to_the_end = nanos(ended.since(self.last_beat(index)));
            domains.push(DomainReport {
                name: domain.name.into(),
                privileged: domain.privileged,
                holds_driver: domain.role.holds_driver(),
                tenant: domain.role.tenant(),
                cpu: domain.cpu,
                end: match unit.state {
                    State::Dead => DomainEnd::Dead,
                    State::Halted => DomainEnd::Halted,
                    _ if self.is_frozen(unit) => DomainEnd::Frozen,
                    _ => DomainEnd::Alive,
                },
                deaths: unit.deaths.clone(),
                restarts: unit.restarts,
                longest_gap_ns: unit.longest_gap.max(stored_gap).max(to_the_end),
                frozen_ns: nanos(frozen[usize::from(domain.cpu)]),
                // The zygote's to fill in: nobody else may look.
                resident_bytes: None,
                interrupt_ns: nanos(self.interrupts_of(domain.cpu.into()).time),
            });
            if let Some(tenant) = domain.role.tenant() {
                io.push(unit.page.io(tenant));
            }
        }
        domains.extend(self.report_newcomer(ended));
        let counts = self.machine.counts();
        let (all, before) = (self.paid_in_all(), self.paid_before);
        let paid = |toll: Toll| all[toll as usize].saturating_sub(before[toll as usize]);
        let doorbells = paid(Toll::Rang);
        // What is a call in the layer that holds the driver crosses a wall where another does.
        let outside = if self.placement.driver_is_privileged() {
            0
        } else {
            2 * self.asked + counts.interrupts
        };
        let served = self.machine.interrupt_cost(self.device);
        let after = |at: Option<Time>| Some(at?.0.saturating_sub(self.activated_at?.0));
        TrialReport {
            activated: self.tally.as_ref().map_or(0, |tally| tally.acted()) + self.marked,
            activated_at_ns: self.activated_at.map(Time::nanos),
            domains,
            io,
            corruption: self
                .machine
                .memory()
                .corruption()
                .into_iter()
                .map(|(owner, bytes)| Corruption { owner, bytes })
                .chain(self.newcomers_loss())
                .collect(),
            stray: std::mem::take(&mut self.stray),
            stray_landed: counts.stray_landed,
            stray_blocked: counts.stray_blocked,
            forged_interrupts: counts.forged_interrupts,
            refused_interrupts: counts.refused_interrupts,
            served: Served {
                taken: served.taken,
                coalesced: served.coalesced,
                spurious: counts.spurious_interrupts,
                cut_off_at_ns: served.cut_off_at.map(Time::nanos),
            },
            balloon: self.balloon,
            stale_window_ns: counts.last_after_unmap.map(nanos),
            detection: self.detection.clone(),
            recovered_after_ns: after(self.recovered_at),
            resets: self.resets,
            reset_wait_ns: self.activated_at.map_or(0, |from| {
                let to = self.recovered_at.unwrap_or(ended);
                nanos(self.reset_waits.within(from, to))
            }),
            longest_reset_ns: nanos(self.reset_waits.longest()),
            machine_check: self.machine_check,
            split_lock: self.units[self.placement.server()].page.price(),
            counts: Counts {
                mmio_reads: counts.mmio_reads,
                mmio_writes: counts.mmio_writes,
                maps: counts.maps,
                unmaps: counts.unmaps,
                invalidations: counts.invalidations,
                doorbells,
                crossings: doorbells + outside,
                copied_bytes: paid(Toll::Copied),
                wakeups: paid(Toll::Woken),
                exits: paid(Toll::Left),
                interrupts: counts.interrupts,
                dma_requests: counts.dma_requests,
                bounced_bytes: counts.bounced_bytes,
                leaked_bytes: counts.leaked_bytes,
            },
            end,
            ended_at_ns: ended.nanos(),
            spoilt: None,
        }
    }

    /// What domains have counted since they were forked.
    pub(super) fn paid_in_all(&self) -> [u64; Toll::COUNT] {
        Toll::ALL.map(|toll| self.units.iter().map(|unit| unit.page.paid(toll)).sum())
    }

    /// How the tenant that was started in mid-trial was, if one was.
    fn report_newcomer(&self, ended: Time) -> Option<DomainReport> {
        let index = self.newcomer();
        let unit = self.units.get(index)?;
        let (_, stored_gap) = unit.page.beats();
        let to_the_end = ended.since(self.last_beat(index)).as_nanos();
        let to_the_end = u64::try_from(to_the_end).unwrap_or(u64::MAX);
        Some(DomainReport {
            name: unit.name.into(),
            privileged: false,
            holds_driver: false,
            // It makes no requests.
            tenant: None,
            cpu: newcomer::CPU,
            end: match unit.state {
                State::Dead => DomainEnd::Dead,
                State::Halted => DomainEnd::Halted,
                _ => DomainEnd::Alive,
            },
            deaths: unit.deaths.clone(),
            restarts: unit.restarts,
            longest_gap_ns: unit.longest_gap.max(stored_gap).max(to_the_end),
            frozen_ns: 0,
            resident_bytes: None,
            interrupt_ns: 0,
        })
    }
}
