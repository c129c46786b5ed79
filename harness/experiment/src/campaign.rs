//! A campaign: a run that was asked for so many faults, and what it has to show for itself at its end.
//!
//! It is accounted for by its records alone, read again from the file: every planned trial has exactly
//! one, and how many faults were injected, how many acted and how long that took is what they say.
//! What is left behind is asked of the host.

use crate::plan::Plan;
use crate::record::GUEST;
use cofferdam_placement::trial::Fault;
use cofferdam_placement::zygote;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::time::Duration;

/// Faults of the largest campaign that is known to us: Herder and others, "Fault isolation for device
/// drivers", DSN 2009, injected 3,400,000 into drivers of MINIX 3.
pub const MINIX_3: u64 = 3_400_000;

/// Of a hundred injected faults so many act, at least, over the whole plan. Where fewer do, the
/// account says so.
const ACT: u64 = 85;

/// How long what dies with its zygote may take to be gone.
const GONE: Duration = Duration::from_secs(5);

/// Trials a cell, so that of the faults injected into so many cells that many should act.
pub fn trials(faults: u64, cells: u64) -> Option<u32> {
    let injected = faults.checked_mul(100)?.div_ceil(ACT);
    let trials = injected.checked_add(cells)?.checked_sub(1)? / cells.max(1);
    u32::try_from(trials.max(1)).ok().filter(|_| cells > 0)
}

/// The account of a campaign.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Campaign {
    /// Faults that were asked for.
    pub wanted: u64,
    /// Faults injected.
    pub injected: u64,
    /// Faults that acted.
    pub activated: u64,
    /// Trials that the harness could not run.
    pub infrastructure_failures: u64,
    /// Trials of the plan without a record, other than those.
    pub lost: u64,
    /// Records beyond the one that each trial has.
    pub surplus: u64,
    /// Processes of its trials that outlived them, with the memory they share. `None` if the host
    /// does not tell.
    pub left_behind: Option<u64>,
    /// Time in which at least one trial ran, us.
    pub busy_us: u64,
    /// Boots of the trials that may share one, if there are such.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boots: Option<Boots>,
}

/// The boots of trials that may share one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Boots {
    /// How many there were.
    pub all: u64,
    /// Trials that took place in them.
    pub trials: u64,
    /// Trials that left something behind which could not be put back: no other followed in their boot.
    pub spoilt: u64,
}

impl Campaign {
    /// Accounts for the records of a plan in a file.
    pub(crate) fn of(wanted: u64, plan: &Plan, failures: u64, records: &Path) -> io::Result<Self> {
        let mut account = Self {
            wanted,
            injected: 0,
            activated: 0,
            infrastructure_failures: failures,
            lost: 0,
            surplus: 0,
            left_behind: zygote::left_behind(GONE).ok().map(|pids| pids.len() as u64),
            busy_us: 0,
            boots: None,
        };
        let mut seen = Seen::of(plan);
        let mut until = 0;
        for line in BufReader::new(File::open(records)?).split(b'\n') {
            let Ok(brief) = serde_json::from_slice::<Brief>(&line?) else {
                // What the guest said, or no record: it stands for no trial.
                continue;
            };
            if brief.mechanism == GUEST {
                continue;
            }
            match plan.place(brief.index) {
                Some(place) if seen.first(place) => {}
                _ => {
                    account.surplus += 1;
                    continue;
                }
            }
            let clean = matches!(brief.spec.fault, Fault::None);
            account.injected += u64::from(!clean);
            account.activated += u64::from(!clean && brief.report.activated > 0);
            if let Some(boot) = brief.boot {
                let boots = account.boots.get_or_insert_default();
                boots.all += u64::from(boot == brief.index);
                boots.trials += 1;
                boots.spoilt += u64::from(brief.report.spoilt.is_some());
            }
            // Trials side by side share their time, and between two sessions none runs.
            let times = brief.times;
            let begun = times.started_us.max(until);
            account.busy_us += times.finished_us.saturating_sub(begun);
            until = until.max(times.finished_us);
        }
        account.lost = plan.len().saturating_sub(seen.count + failures);
        Ok(account)
    }

    /// Whether nothing is missing, too much, or left behind.
    pub fn is_whole(&self) -> bool {
        self.infrastructure_failures == 0
            && self.lost == 0
            && self.surplus == 0
            && self.left_behind == Some(0)
    }

    /// Faults that acted in an hour. `None` if no time passed.
    pub fn per_hour(&self) -> Option<u64> {
        let hours = u128::from(self.activated) * 3_600_000_000;
        let rate = hours.checked_div(u128::from(self.busy_us))?;
        u64::try_from(rate).ok()
    }

    /// How long [`MINIX_3`] faults would take at this rate, s.
    pub fn minix_3_s(&self) -> Option<u64> {
        let all = u128::from(self.busy_us) * u128::from(MINIX_3);
        let us = all.checked_div(u128::from(self.activated))?;
        u64::try_from(us / 1_000_000).ok()
    }
}

/// What is read of a record.
#[derive(Deserialize)]
struct Brief {
    mechanism: String,
    index: u64,
    #[serde(default)]
    boot: Option<u64>,
    spec: BriefSpec,
    report: BriefReport,
    times: crate::record::Times,
}

#[derive(Deserialize)]
struct BriefSpec {
    fault: Fault,
}

#[derive(Deserialize)]
struct BriefReport {
    activated: u32,
    #[serde(default)]
    spoilt: Option<String>,
}

/// Trials that were seen, a bit each.
struct Seen {
    words: Vec<u64>,
    count: u64,
}

impl Seen {
    fn of(plan: &Plan) -> Self {
        let words = usize::try_from(plan.len().div_ceil(64)).unwrap_or(usize::MAX);
        Self {
            words: vec![0; words],
            count: 0,
        }
    }

    /// Whether the trial at that place is seen for the first time.
    fn first(&mut self, place: u64) -> bool {
        let at = usize::try_from(place / 64).ok();
        let Some(word) = at.and_then(|at| self.words.get_mut(at)) else {
            return false;
        };
        let bit = 1 << (place % 64);
        let first = *word & bit == 0;
        *word |= bit;
        self.count += u64::from(first);
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trials_a_cell_leave_room_for_faults_that_do_not_act() {
        assert_eq!(trials(100_000, 6_000), Some(20));
        assert_eq!(trials(1, 6_000), Some(1));
        assert_eq!(trials(85, 10), Some(10));
        assert_eq!(trials(5, 0), None);
        assert_eq!(trials(u64::MAX, 1), None);
    }

    #[test]
    fn rate_and_extrapolation_are_those_of_the_busy_time() {
        let account = Campaign {
            wanted: 100,
            injected: 120,
            activated: 100,
            infrastructure_failures: 0,
            lost: 0,
            surplus: 0,
            left_behind: Some(0),
            busy_us: 1_000_000,
            boots: None,
        };
        assert_eq!(account.per_hour(), Some(360_000));
        assert_eq!(account.minix_3_s(), Some(34_000));
        assert!(account.is_whole());

        let idle = Campaign {
            activated: 0,
            busy_us: 0,
            ..account
        };
        assert_eq!((idle.per_hour(), idle.minix_3_s()), (None, None));
    }
}
