//! A trial of Linux's own driver of NVMe, and what the guest's own words come to.

use cofferdam_experiment::catalogue::iommu_name;
use cofferdam_experiment::record::{GUEST, SCHEMA};
use cofferdam_guest::message::{Check, Record, Verdict};
use cofferdam_guest::{Answer, Ending, Outcome as Life};
use cofferdam_machine::config::IommuMode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The driver, as records name it.
pub const DRIVER: &str = "linux-nvme";

/// Lines of the kernel's log that go with a trial.
const EVIDENCE: usize = 6;

/// What became of Linux, from harmless to fatal. Who is asked is the guest: its programs, and its kernel's
/// log.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The controller did not come to lie.
    NotActivated,
    /// Every request was right, and the kernel did nothing about it.
    Clean,
    /// Every request was right in the end; the kernel saw an error and tried again.
    Retried,
    /// Every request was right in the end; the driver gave one up or reset its controller.
    Reset,
    /// A program got an error.
    IoError,
    /// A program got data that are not its own, and was told that they are.
    SilentCorruption,
    /// A program did not come back, or the kernel told of a task that stood still.
    HungTask,
    /// The kernel found itself broken, and went on.
    Oops,
    /// The guest ended or never came up: the kernel panicked, or its machine failed or stands still itself.
    SystemLost,
}

impl Outcome {
    /// Its name for readers.
    pub const fn words(self) -> &'static str {
        match self {
            Self::NotActivated => "not activated",
            Self::Clean => "clean",
            Self::Retried => "tried again",
            Self::Reset => "reset",
            Self::IoError => "I/O error",
            Self::SilentCorruption => "silent corruption",
            Self::HungTask => "hung task",
            Self::Oops => "oops",
            Self::SystemLost => "system lost",
        }
    }

    /// What a check that ended came to.
    fn of(check: &Check) -> Self {
        let logged = |texts: &[&str]| check.log.iter().any(|record| says(&record.text, texts));
        let count = |field: &str| check.detail[field].as_u64().unwrap_or(0);
        if logged(&OOPS) {
            Self::Oops
        } else if check.verdict == Verdict::Failed || logged(&HUNG) {
            Self::HungTask
        } else if count("mismatches") > 0 {
            Self::SilentCorruption
        } else if count("errors") > 0 {
            Self::IoError
        } else if logged(&RESET) {
            Self::Reset
        } else if logged(&RETRIED) {
            Self::Retried
        } else {
            Self::Clean
        }
    }
}

const OOPS: [&str; 4] = ["BUG:", "Oops", "general protection", "KASAN"];
const HUNG: [&str; 2] = ["blocked for more than", "soft lockup"];
const RESET: [&str; 4] = [
    "timeout",
    "resetting controller",
    "controller is down",
    "Abort",
];
const RETRIED: [&str; 2] = ["I/O Error", "I/O error"];

fn says(text: &str, any: &[&str]) -> bool {
    any.iter().any(|word| text.contains(word))
}

/// Linux's own driver of NVMe, unmodified, and a controller that lied to it. A line of `trials.jsonl`
/// with the mechanism `linux-guest`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Trial {
    /// Version of this form: that of the process records beside it.
    pub schema: u32,
    /// Always `linux-guest`.
    pub mechanism: String,
    /// Its name: the case, the driver, the IOMMU mode.
    pub cell: String,
    /// Always `linux-nvme`.
    pub driver: String,
    /// The fault's id.
    pub fault: String,
    /// The case, as in the catalogue.
    pub case: String,
    /// The guest's IOMMU.
    pub iommu: IommuMode,
    /// What else is not as usual: the guest's CPUs, and how long its machine waits for a device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// Lies that were acted out.
    pub acted: u32,
    /// What became of Linux.
    pub outcome: Outcome,
    /// What the program that used the disk tells: errors, mismatches, how long it took, for how long
    /// nobody was let run (on another CPU, where there is one: `stall_ms`), and the longest read of
    /// disks that were honest (`others`).
    pub told: Value,
    /// What the guest's kernel said meanwhile, or the machine when it ended.
    pub evidence: Vec<String>,
    /// The guest's kernel.
    pub kernel: String,
}

impl Trial {
    /// Judges what a life of the guest says of its task number `place`. `None`: it did not come so far.
    pub fn judge(
        life: &Life,
        place: usize,
        (fault, case): (&str, &str),
        iommu: IommuMode,
        acted: u32,
    ) -> Option<Self> {
        let (outcome, told, evidence) = match life.checks.get(place) {
            Some(check) => {
                let of_interest = |record: &&Record| {
                    let words = ["nvme", "DMAR", "I/O error", "irq "];
                    let text = &record.text;
                    says(text, &words) || says(text, &OOPS) || says(text, &HUNG)
                };
                let log = check.log.iter().filter(of_interest);
                let log = log.map(|record| record.text.clone()).take(EVIDENCE);
                (Outcome::of(check), check.detail.clone(), log.collect())
            }
            // The task at which the guest ended.
            None if place == life.checks.len() && life.ending != Ending::Finished => {
                let outcome = match (&life.ending, &life.state) {
                    (Ending::Deadline, Some(Answer::Silent(_))) => Outcome::SystemLost,
                    (Ending::Deadline, _) if life.release.is_some() => Outcome::HungTask,
                    _ => Outcome::SystemLost,
                };
                (outcome, Value::Null, last_words(life))
            }
            None => return None,
        };
        // What ended the guest did something, whatever the liar counted.
        let quiet = acted == 0 && outcome < Outcome::Oops;
        Some(Self {
            schema: SCHEMA,
            mechanism: GUEST.to_owned(),
            cell: format!("{case}/{DRIVER}/{}", iommu_name(iommu)),
            driver: DRIVER.to_owned(),
            fault: fault.to_owned(),
            case: case.to_owned(),
            iommu,
            machine: None,
            acted,
            outcome: if quiet {
                Outcome::NotActivated
            } else {
                outcome
            },
            told,
            evidence,
            kernel: life.release.clone().unwrap_or_default(),
        })
    }
}

/// What was last heard of a guest that ended.
fn last_words(life: &Life) -> Vec<String> {
    let mut words: Vec<String> = match &life.ending {
        Ending::Died(why) | Ending::Broken(why) => vec![why.clone()],
        Ending::Deadline if life.release.is_none() => {
            vec!["its machine did not bring it up before its deadline".to_owned()]
        }
        Ending::Deadline => vec!["killed at its deadline".to_owned()],
        Ending::Finished => Vec::new(),
    };
    match &life.state {
        Some(Answer::Silent(why)) => words.push(format!(
            "QEMU itself stands still: its monitor does not answer ({why})"
        )),
        Some(Answer::Done(state)) => {
            words.push(format!("QEMU is well, its guest {}", state["status"]))
        }
        Some(Answer::Refused(why)) => words.push(format!("QEMU refuses to tell its state: {why}")),
        None => {}
    }
    let lines = || {
        life.console
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
    };
    let telling = lines().filter(|line| {
        says(line, &OOPS) || says(line, &HUNG) || line.contains("panic") || line.contains("RIP:")
    });
    let mut heard: Vec<&str> = telling.take(EVIDENCE - words.len()).collect();
    if heard.is_empty() {
        heard = lines().collect();
        heard.drain(..heard.len().saturating_sub(EVIDENCE - words.len()));
    }
    if heard.is_empty() {
        words.push("its console says nothing".to_owned());
    }
    words.extend(heard.into_iter().map(str::to_owned));
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::time::Duration;

    fn check(verdict: Verdict, detail: Value, log: &[&str]) -> Check {
        let record = |text: &&str| Record {
            at: Duration::ZERO,
            severity: 4,
            text: (*text).to_owned(),
        };
        Check {
            name: "lying-disk".to_owned(),
            arguments: Vec::new(),
            verdict,
            detail,
            log: log.iter().map(record).collect(),
            took: Duration::ZERO,
        }
    }

    fn life(checks: Vec<Check>, ending: Ending) -> Life {
        Life {
            release: Some("6.12".to_owned()),
            checks,
            answers: Vec::new(),
            state: None,
            log: Vec::new(),
            ending,
            console: "[ 1.0] Kernel panic - not syncing\n".to_owned(),
            boot: None,
            took: Duration::ZERO,
        }
    }

    fn judged(life: &Life, place: usize, acted: u32) -> Option<Outcome> {
        let trial = Trial::judge(life, place, ("R1", "R1"), IommuMode::Strict, acted);
        trial.map(|trial| trial.outcome)
    }

    #[test]
    fn worst_of_the_guests_words_counts() {
        let errors = json!({ "errors": 2, "mismatches": 0 });
        let wrong = json!({ "errors": 2, "mismatches": 1 });
        let lives = |check| life(vec![check], Ending::Finished);
        let passed =
            |detail, log: &[&str]| judged(&lives(check(Verdict::Passed, detail, log)), 0, 1);

        assert_eq!(passed(json!({}), &[]), Some(Outcome::Clean));
        assert_eq!(
            passed(json!({}), &["nvme nvme0: I/O 5 timeout"]),
            Some(Outcome::Reset)
        );
        assert_eq!(
            passed(json!({}), &["I/O error, dev nvme2n1, sector 0"]),
            Some(Outcome::Retried)
        );
        assert_eq!(passed(errors, &[]), Some(Outcome::IoError));
        assert_eq!(
            passed(wrong.clone(), &["I/O timeout"]),
            Some(Outcome::SilentCorruption)
        );
        assert_eq!(passed(wrong, &["Oops: 0000"]), Some(Outcome::Oops));
        let late = check(Verdict::Failed, json!({}), &[]);
        assert_eq!(judged(&lives(late), 0, 1), Some(Outcome::HungTask));
    }

    #[test]
    fn liar_that_did_not_lie_is_not_survived() {
        let life = life(
            vec![check(Verdict::Passed, json!({}), &[])],
            Ending::Finished,
        );

        assert_eq!(judged(&life, 0, 0), Some(Outcome::NotActivated));
    }

    #[test]
    fn guest_that_never_came_up_is_lost_and_it_is_said_whether_its_machine_stands_still() {
        let at_deadline = |state, console: &str| Life {
            release: None,
            state: Some(state),
            console: console.to_owned(),
            ..life(Vec::new(), Ending::Deadline)
        };
        let silent = at_deadline(Answer::Silent("timed out".to_owned()), "");
        let running = at_deadline(
            Answer::Done(json!({ "status": "running" })),
            "pci 0000:00:04.0: probing\n\n",
        );
        let trial = |life: &Life| Trial::judge(life, 0, ("C3", "C3"), IommuMode::Off, 1);

        let [silent, running] = [silent, running].map(|life| trial(&life).expect("a trial"));

        assert_eq!(silent.outcome, Outcome::SystemLost);
        assert_eq!(running.outcome, Outcome::SystemLost);
        assert!(silent.evidence[1].contains("QEMU itself stands still"));
        assert_eq!(silent.evidence[2], "its console says nothing");
        assert!(running.evidence[1].contains("running"));
        assert!(running.evidence[2].contains("probing"));
    }

    #[test]
    fn guest_that_ended_is_lost_by_the_liar_it_met_and_by_no_later_one() {
        let life = life(Vec::new(), Ending::Died("exit status: 1".to_owned()));

        let trial = Trial::judge(&life, 0, ("R1", "R1"), IommuMode::Off, 1).expect("a trial");

        assert_eq!(trial.outcome, Outcome::SystemLost);
        assert!(trial.evidence.iter().any(|text| text.contains("panic")));
        assert_eq!(judged(&life, 1, 1), None);
    }
}
