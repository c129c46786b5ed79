//! The outcome of a trial, from what was observed.
//!
//! injected, then **activated** (the faulty access happened), then **manifested** (somebody's
//! state or time differed), then **contained** (only the driver's own domain). A fault that
//! reached nobody at all (`masked`) is contained too; one that was not activated never is.

use cofferdam_machine::frames::Owner;
use cofferdam_placement::trial::{DomainEnd, DomainReport, End, Fault, TenantIo, TrialReport};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// By how much a bystander's heartbeat or request may be late before it counts, ns: over the paired
/// clean trial, or over nothing where there is none.
pub const STALL_NS: u64 = 5_000_000;

/// How many times as long a bystander's reads of its own memory must take before that counts, in
/// tenths.
pub const SLOWED_TENTHS: u64 = 20;

/// What came of a trial, from harmless to worst; the worst that is true counts.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Nothing was injected.
    Clean,
    /// Injected, but the faulty access never happened.
    NotActivated,
    /// It happened, and nobody's state or time differed. A write into nobody's frames is this.
    Masked,
    /// Only the driver's own domain differed: its memory, its life, its device's reset.
    Contained,
    /// A bystander was late by more than [`STALL_NS`], or read its memory at half the speed or less, or
    /// was answered with an error or twice, and lost nothing.
    Disturbed,
    /// A tenant died, stands still or could not finish its requests.
    TenantLost,
    /// Somebody else's memory changed, or a tenant was given wrong data, or lost an acknowledged
    /// write, and was told of success.
    SilentCorruption,
    /// The privileged layer stopped or stands still.
    SystemLost,
}

impl Outcome {
    /// Every outcome, harmless first.
    pub const ALL: [Self; 8] = [
        Self::Clean,
        Self::NotActivated,
        Self::Masked,
        Self::Contained,
        Self::Disturbed,
        Self::TenantLost,
        Self::SilentCorruption,
        Self::SystemLost,
    ];

    /// The name used in records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::NotActivated => "not-activated",
            Self::Masked => "masked",
            Self::Contained => "contained",
            Self::Disturbed => "disturbed",
            Self::TenantLost => "tenant-lost",
            Self::SilentCorruption => "silent-corruption",
            Self::SystemLost => "system-lost",
        }
    }
}

/// What a clean trial was like: what its faulty pair is measured against.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Baseline {
    gaps: BTreeMap<String, u64>,
    requests: BTreeMap<u8, u64>,
    errors: u64,
    mapped: u64,
}

impl Baseline {
    /// The baseline of a clean trial's report.
    pub fn of(report: &TrialReport) -> Self {
        Self {
            gaps: report
                .domains
                .iter()
                .map(|domain| (domain.name.clone(), domain.longest_gap_ns))
                .collect(),
            requests: report
                .io
                .iter()
                .map(|io| (io.tenant, io.longest_ns))
                .collect(),
            errors: errors(report),
            mapped: mapped(report),
        }
    }

    fn excess(&self, domain: &DomainReport) -> u64 {
        let usual = self.gaps.get(&domain.name).copied().unwrap_or(0);
        domain.longest_gap_ns.saturating_sub(usual)
    }

    fn request_excess(&self, io: &TenantIo) -> u64 {
        let usual = self.requests.get(&io.tenant).copied().unwrap_or(0);
        io.longest_ns.saturating_sub(usual)
    }
}

/// DMA mappings that live at the end of a trial.
fn mapped(report: &TrialReport) -> u64 {
    report.counts.maps.saturating_sub(report.counts.unmaps)
}

fn errors(report: &TrialReport) -> u64 {
    report.io.iter().map(|io| u64::from(io.errors)).sum()
}

/// The judgement of one trial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Verdict {
    /// The outcome.
    pub outcome: Outcome,
    /// Whether somebody's state or time differed.
    pub manifested: bool,
    /// Whether it was activated and nothing outside the driver's own domain differed.
    pub contained: bool,
    /// Tenants lost.
    pub tenants_lost: u8,
    /// Who was hurt: bystander domains that died, stand still, were late or were answered wrongly.
    pub hurt: Vec<String>,
    /// Whose state was corrupted: owners of changed memory, and `tenant1's data`.
    pub corrupted: Vec<String>,
    /// Bytes changed outside the driver's own frames, nobody's frames included.
    pub blast_bytes: u64,
    /// Whether a faulty access reached memory.
    pub landed: bool,
    /// Longest stall of a bystander beyond that of the paired clean trial, ns.
    pub stall_ns: u64,
    /// By how much a tenant's longest request exceeds that of the paired clean trial, ns.
    pub io_stall_ns: u64,
    /// Whether times are "at least": a tenant or the system never came back.
    pub censored: bool,
    /// Whether there was a clean trial to compare with.
    pub paired: bool,
}

/// Whether that is somebody else's memory than the driver's.
const fn is_victim(owner: Owner) -> bool {
    !matches!(owner, Owner::Driver | Owner::Free)
}

/// Judges a trial by its report, and its paired clean trial if there is one.
pub fn judge(fault: &Fault, report: &TrialReport, clean: Option<&Baseline>) -> Verdict {
    let unpaired = Baseline::default();
    let baseline = clean.unwrap_or(&unpaired);

    let corrupted = corrupted(report);
    let lost_tenants = lost_tenants(report);
    let stall_ns = bystanders(report)
        .map(|domain| baseline.excess(domain))
        .max()
        .unwrap_or(0);
    let io_stall_ns = report
        .io
        .iter()
        .map(|io| baseline.request_excess(io))
        .max()
        .unwrap_or(0);
    let duplicated = report.io.iter().any(|io| io.duplicated > 0);
    let answered_wrongly = errors(report) > baseline.errors || duplicated;

    let system_lost = report.end == End::SystemLost
        || report.machine_check
        || report
            .domains
            .iter()
            .any(|domain| domain.privileged && domain.end != DomainEnd::Alive);
    let slowed = |io: &TenantIo| {
        let tenths = io.memory.and_then(|memory| memory.slowed_tenths());
        tenths.is_some_and(|tenths| tenths >= SLOWED_TENTHS)
    };
    let disturbed = stall_ns > STALL_NS
        || report.io.iter().any(slowed)
        || io_stall_ns > STALL_NS
        || answered_wrongly
        || report.forged_interrupts > 0
        || report.io.iter().any(|io| io.device_lost > 0)
        || bystanders(report).any(|domain| domain.restarts > 0 || !domain.deaths.is_empty());
    let own = driver_differs(report, baseline);

    let worst = if system_lost {
        Outcome::SystemLost
    } else if !corrupted.is_empty() {
        Outcome::SilentCorruption
    } else if !lost_tenants.is_empty() {
        Outcome::TenantLost
    } else if disturbed {
        Outcome::Disturbed
    } else if own {
        Outcome::Contained
    } else {
        Outcome::Masked
    };
    let outcome = match fault {
        Fault::None => Outcome::Clean,
        _ if report.activated == 0 => Outcome::NotActivated,
        _ => worst,
    };
    let activated = outcome >= Outcome::Masked;

    let mut hurt: BTreeSet<&str> = lost_tenants.iter().copied().collect();
    for domain in bystanders(report) {
        let io_hurt = report.io.iter().any(|io| {
            Some(io.tenant) == domain.tenant
                && (io.errors > 0
                    || io.duplicated > 0
                    || io.corrupted > 0
                    || io.lost > 0
                    || io.device_changed > 0
                    || io.device_lost > 0
                    || slowed(io)
                    || baseline.request_excess(io) > STALL_NS)
        });
        let slow = baseline.excess(domain) > STALL_NS;
        if domain.end != DomainEnd::Alive || !domain.deaths.is_empty() || slow || io_hurt {
            hurt.insert(&domain.name);
        }
    }
    if report.forged_interrupts > 0 {
        hurt.insert("another device's interrupt");
    }
    if system_lost {
        hurt.extend(
            report
                .domains
                .iter()
                .filter(|domain| domain.privileged)
                .map(|domain| domain.name.as_str()),
        );
    }

    Verdict {
        outcome,
        manifested: activated && outcome > Outcome::Masked,
        contained: matches!(outcome, Outcome::Masked | Outcome::Contained),
        tenants_lost: u8::try_from(lost_tenants.len()).unwrap_or(u8::MAX),
        hurt: hurt.into_iter().map(str::to_owned).collect(),
        censored: system_lost || !lost_tenants.is_empty(),
        corrupted,
        blast_bytes: report
            .corruption
            .iter()
            .filter(|corruption| corruption.owner != Owner::Driver)
            .fold(0, |sum, corruption| sum.saturating_add(corruption.bytes)),
        landed: report.stray_landed > 0
            || report
                .corruption
                .iter()
                .any(|corruption| corruption.bytes > 0),
        stall_ns,
        io_stall_ns,
        paired: clean.is_some(),
    }
}

fn bystanders(report: &TrialReport) -> impl Iterator<Item = &DomainReport> {
    report.domains.iter().filter(|domain| !domain.holds_driver)
}

fn corrupted(report: &TrialReport) -> Vec<String> {
    let patterns = report
        .corruption
        .iter()
        .filter(|corruption| corruption.bytes > 0)
        .map(|corruption| corruption.owner);
    let strays = report
        .stray
        .iter()
        .filter(|stray| stray.landed && stray.write)
        .filter_map(|stray| stray.owner);
    let owners: BTreeSet<Owner> = patterns
        .chain(strays)
        .filter(|&owner| is_victim(owner))
        .collect();
    let data = report
        .io
        .iter()
        .filter(|io| io.corrupted > 0 || io.lost > 0)
        .map(|io| format!("tenant{}'s data", io.tenant));
    let devices = report
        .io
        .iter()
        .filter(|io| io.device_changed > 0)
        .map(|io| format!("tenant{}'s device", io.tenant));
    owners
        .into_iter()
        .map(|owner| owner.name().to_owned())
        .chain(data)
        .chain(devices)
        .collect()
}

fn lost_tenants(report: &TrialReport) -> Vec<&str> {
    report
        .domains
        .iter()
        .filter(|domain| {
            domain.tenant.is_some_and(|tenant| {
                let finished = report
                    .io
                    .iter()
                    .any(|io| io.tenant == tenant && io.finished);
                domain.end != DomainEnd::Alive || !finished
            })
        })
        .map(|domain| domain.name.as_str())
        .collect()
}

/// Whether the driver's own domain, memory or device differs from a clean trial's.
fn driver_differs(report: &TrialReport, baseline: &Baseline) -> bool {
    let memory = report
        .corruption
        .iter()
        .any(|corruption| corruption.owner == Owner::Driver && corruption.bytes > 0)
        || report
            .stray
            .iter()
            .any(|stray| stray.landed && stray.write && stray.owner == Some(Owner::Driver));
    let life = report
        .domains
        .iter()
        .filter(|domain| domain.holds_driver)
        .any(|domain| {
            domain.end != DomainEnd::Alive
                || !domain.deaths.is_empty()
                || domain.restarts > 0
                || baseline.excess(domain) > STALL_NS
        });
    // Its secrets are its state too.
    let leaked = report.counts.leaked_bytes > 0;
    memory || life || leaked || report.resets > 0 || mapped(report) > baseline.mapped
}

/// What is wrong with a trial in which no fault acted: an error, a timeout, a stray DMA. Nothing
/// may be.
pub fn trouble(report: &TrialReport) -> Option<String> {
    if report.end != End::Finished {
        return Some(format!(
            "ended by {:?} at {} ns instead of finishing",
            report.end, report.ended_at_ns
        ));
    }
    for domain in &report.domains {
        if let Some(death) = domain.deaths.first() {
            return Some(format!("{} died: {death}", domain.name));
        }
        if domain.end != DomainEnd::Alive {
            return Some(format!("{} ended {:?}", domain.name, domain.end));
        }
    }
    for io in &report.io {
        let wrong = [io.errors, io.corrupted, io.lost, io.duplicated];
        if wrong.iter().any(|&count| count > 0) || !io.finished {
            return Some(format!(
                "tenant{}: {} errors, {} corrupted, {} lost, {} duplicated, finished: {}",
                io.tenant, io.errors, io.corrupted, io.lost, io.duplicated, io.finished
            ));
        }
    }
    if let Some(corruption) = report.corruption.iter().find(|found| found.bytes > 0) {
        return Some(format!(
            "{} bytes of {} changed",
            corruption.bytes, corruption.owner
        ));
    }
    if report.stray_landed > 0 || report.stray_blocked > 0 {
        return Some(format!(
            "{} stray DMAs landed, {} were blocked",
            report.stray_landed, report.stray_blocked
        ));
    }
    if report.resets > 0 {
        return Some(format!("{} resets or restarts", report.resets));
    }
    report
        .detection
        .as_ref()
        .map(|seen| format!("{} noticed: {}", seen.by, seen.what))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use cofferdam_placement::trial::{
        By, Corruption, Counts, Detection, Reading, Served, SharedMemory, StrayDma, Target,
    };

    fn domain(name: &str, tenant: Option<u8>) -> DomainReport {
        DomainReport {
            name: name.into(),
            privileged: name == "kernel",
            holds_driver: name == "driver",
            tenant,
            cpu: u8::from(name == "tenant2" || name == "kernel"),
            end: DomainEnd::Alive,
            deaths: Vec::new(),
            restarts: 0,
            longest_gap_ns: 200_000,
            frozen_ns: 0,
            resident_bytes: None,
            interrupt_ns: 0,
        }
    }

    fn io(tenant: u8) -> TenantIo {
        TenantIo {
            tenant,
            wanted: 12,
            completed: 12,
            longest_ns: 90_000,
            finished: true,
            ..TenantIo::default()
        }
    }

    /// Of an activated trial in which nothing came of it.
    pub(crate) fn good() -> TrialReport {
        TrialReport {
            activated: 1,
            activated_at_ns: Some(1_000_000),
            domains: vec![
                domain("kernel", None),
                domain("driver", None),
                domain("tenant1", Some(1)),
                domain("tenant2", Some(2)),
            ],
            io: vec![io(1), io(2)],
            corruption: Vec::new(),
            stray: Vec::new(),
            stray_landed: 0,
            stray_blocked: 0,
            forged_interrupts: 0,
            refused_interrupts: 0,
            served: Served::default(),
            balloon: None,
            stale_window_ns: None,
            detection: None,
            recovered_after_ns: None,
            resets: 0,
            reset_wait_ns: 0,
            longest_reset_ns: 0,
            machine_check: false,
            split_lock: None,
            counts: Counts::default(),
            end: End::Finished,
            ended_at_ns: 4_000_000,
            spoilt: None,
        }
    }

    #[test]
    fn bystander_that_reads_at_half_the_speed_is_disturbed() {
        let of = |times: u64| Reading {
            in_order_ns: 240 * times,
            scattered_ns: 6000,
            samples: 50,
        };
        for (times, expected) in [(1, Outcome::Masked), (2, Outcome::Disturbed)] {
            let mut report = good();
            report.io[1].memory = Some(SharedMemory {
                quiet: of(1),
                during: of(times),
            });
            let verdict = judge(&FAULT, &report, None);
            assert_eq!(verdict.outcome, expected);
            let hurt = expected == Outcome::Disturbed;
            assert_eq!(verdict.hurt.contains(&"tenant2".to_owned()), hurt);
        }
    }

    const FAULT: Fault = Fault::D1 {
        by: By::Device,
        target: Target::Tenant2,
        len: 8,
        nth: 3,
    };

    fn outcome(report: &TrialReport) -> Outcome {
        judge(&FAULT, report, Some(&Baseline::of(&good()))).outcome
    }

    #[test]
    fn nothing_differs_is_masked_and_contained() {
        let verdict = judge(&FAULT, &good(), None);
        assert_eq!(verdict.outcome, Outcome::Masked);
        assert!(verdict.contained && !verdict.manifested);
    }

    #[test]
    fn not_activated_is_never_contained() {
        let report = TrialReport {
            activated: 0,
            ..good()
        };
        let verdict = judge(&FAULT, &report, None);
        assert_eq!(verdict.outcome, Outcome::NotActivated);
        assert!(!verdict.contained && !verdict.manifested);
    }

    #[test]
    fn clean_trial_is_clean() {
        assert_eq!(judge(&Fault::None, &good(), None).outcome, Outcome::Clean);
    }

    #[test]
    fn stray_write_into_the_drivers_own_memory_is_contained() {
        let mut report = good();
        report.corruption.push(Corruption {
            owner: Owner::Driver,
            bytes: 64,
        });
        report.stray_landed = 1;
        let verdict = judge(&FAULT, &report, None);
        assert_eq!(verdict.outcome, Outcome::Contained);
        assert_eq!(verdict.blast_bytes, 0);
        assert!(verdict.landed);
    }

    #[test]
    fn write_into_nobodys_frames_hurts_nobody_but_is_counted() {
        let mut report = good();
        report.corruption.push(Corruption {
            owner: Owner::Free,
            bytes: 64,
        });
        let verdict = judge(&FAULT, &report, None);
        assert_eq!(verdict.outcome, Outcome::Masked);
        assert_eq!(verdict.blast_bytes, 64);
    }

    #[test]
    fn victims_pattern_is_silent_corruption_with_its_name() {
        let mut report = good();
        report.corruption.push(Corruption {
            owner: Owner::Tenant2,
            bytes: 8,
        });
        let verdict = judge(&FAULT, &report, None);
        assert_eq!(verdict.outcome, Outcome::SilentCorruption);
        assert_eq!(verdict.corrupted, ["tenant2"]);
    }

    #[test]
    fn stray_write_into_a_tenants_ring_is_silent_corruption() {
        let mut report = good();
        report.stray.push(StrayDma {
            at_ns: 1,
            iova: 312 * 4096,
            len: 8,
            write: true,
            verdict: "foreign".into(),
            landed: true,
            owner: Some(Owner::Tenant1),
        });
        report.stray_landed = 1;
        assert_eq!(outcome(&report), Outcome::SilentCorruption);
    }

    #[test]
    fn wrong_data_with_success_and_lost_writes_are_silent_corruption() {
        let mut wrong = good();
        wrong.io[0].corrupted = 1;
        assert_eq!(outcome(&wrong), Outcome::SilentCorruption);

        let mut lost = good();
        lost.io[1].lost = 1;
        let verdict = judge(&FAULT, &lost, None);
        assert_eq!(verdict.corrupted, ["tenant2's data"]);
    }

    #[test]
    fn device_of_somebody_else_counts_as_corrupted_or_disturbed() {
        let mut changed = good();
        changed.io[1].device_changed = 1;
        let verdict = judge(&FAULT, &changed, None);
        assert_eq!(verdict.outcome, Outcome::SilentCorruption);
        assert_eq!(verdict.corrupted, ["tenant2's device"]);

        let mut lost = good();
        lost.io[1].device_lost = 1;
        let verdict = judge(&FAULT, &lost, Some(&Baseline::of(&good())));
        assert_eq!(verdict.outcome, Outcome::Disturbed);
        assert_eq!(verdict.hurt, ["tenant2"]);
    }

    #[test]
    fn stall_counts_only_beyond_the_paired_clean_trial() {
        // Arrange: a tenant that is slow even without a fault.
        let mut clean = good();
        clean.domains[2].longest_gap_ns = 40_000_000;
        let mut report = good();
        report.domains[2].longest_gap_ns = 44_000_000;

        // Act
        let paired = judge(&FAULT, &report, Some(&Baseline::of(&clean)));
        let unpaired = judge(&FAULT, &report, None);

        // Assert
        assert_eq!(paired.outcome, Outcome::Masked);
        assert_eq!(paired.stall_ns, 4_000_000);
        assert_eq!(unpaired.outcome, Outcome::Disturbed);
        assert!(paired.paired && !unpaired.paired);
    }

    #[test]
    fn request_that_took_longer_than_its_clean_pair_disturbs() {
        let mut report = good();
        report.io[0].longest_ns += 86_000_000;
        let verdict = judge(&FAULT, &report, Some(&Baseline::of(&good())));
        assert_eq!(verdict.outcome, Outcome::Disturbed);
        assert_eq!(verdict.io_stall_ns, 86_000_000);
        assert_eq!(verdict.hurt, ["tenant1"]);
    }

    #[test]
    fn error_that_was_retried_disturbs() {
        let mut report = good();
        report.io[1].errors = 1;
        let verdict = judge(&FAULT, &report, Some(&Baseline::of(&good())));
        assert_eq!(verdict.outcome, Outcome::Disturbed);
        assert_eq!(verdict.hurt, ["tenant2"]);
    }

    #[test]
    fn driver_that_was_restarted_in_time_is_contained() {
        let mut report = good();
        report.domains[1].deaths.push("panic: injected".into());
        report.domains[1].restarts = 1;
        report.resets = 1;
        assert_eq!(outcome(&report), Outcome::Contained);
    }

    #[test]
    fn tenants_that_cannot_finish_are_lost_and_counted() {
        let mut report = good();
        report.end = End::Horizon;
        report.io[0].finished = false;
        report.io[1].finished = false;
        let verdict = judge(&FAULT, &report, None);
        assert_eq!(verdict.outcome, Outcome::TenantLost);
        assert_eq!(verdict.tenants_lost, 2);
        assert!(verdict.censored);
    }

    #[test]
    fn privileged_layer_that_stands_still_is_a_lost_system() {
        let mut report = good();
        report.domains[0].end = DomainEnd::Frozen;
        report.end = End::Horizon;
        let verdict = judge(&FAULT, &report, None);
        assert_eq!(verdict.outcome, Outcome::SystemLost);
        assert_eq!(verdict.hurt, ["kernel"]);
    }

    #[test]
    fn missing_requests_count_as_a_lost_tenant() {
        let report = TrialReport {
            io: Vec::new(),
            ..good()
        };
        assert_eq!(judge(&FAULT, &report, None).tenants_lost, 2);
    }

    #[test]
    fn trouble_names_what_a_clean_trial_may_not_show() {
        assert_eq!(trouble(&good()), None);

        let mut noticed = good();
        noticed.detection = Some(Detection {
            by: "driver".into(),
            what: "timed out".into(),
            after_ns: 1,
        });
        assert!(trouble(&noticed).is_some_and(|what| what.contains("timed out")));

        let mut error = good();
        error.io[0].errors = 1;
        assert!(trouble(&error).is_some_and(|what| what.contains("1 errors")));
    }
}
