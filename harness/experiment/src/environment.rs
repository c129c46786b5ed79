//! Where a run took place: everything about the host that its figures depend on.

use crate::seed::digest;
use cofferdam_microvm::{Kvm, Nature};
use cofferdam_placement::trial::{ClockKind, PlacementId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fs;
use std::sync::LazyLock;

/// How domains are kept apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Mechanism {
    /// Processes with their own mappings.
    Process,
    /// The driver, or the tenants, in KVM guests, which the processor runs.
    KvmNative,
    /// The driver, or the tenants, in KVM guests, whose exits software makes: counts hold on any host, times on none.
    KvmEmulated,
}

impl Mechanism {
    /// What keeps the domains of that placement apart, where guests are so.
    pub fn of(placement: PlacementId, guests: Option<Self>) -> Self {
        match guests {
            Some(guests) if placement.placement().needs_kvm() => guests,
            _ => Self::Process,
        }
    }

    /// Its name for readers.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::KvmNative => "KVM",
            Self::KvmEmulated => "emulated KVM",
        }
    }

    /// Whether times measured under it may stand beside others.
    pub const fn times_compare(self) -> bool {
        !matches!(self, Self::KvmEmulated)
    }
}

/// What guests run by on this host, or why there are none and what to do about it.
pub fn guests() -> Result<Mechanism, cofferdam_microvm::Unavailable> {
    static GUESTS: LazyLock<Result<Mechanism, cofferdam_microvm::Unavailable>> =
        LazyLock::new(|| {
            Ok(match Kvm::open()?.nature()? {
                Nature::Native => Mechanism::KvmNative,
                Nature::Emulated => Mechanism::KvmEmulated,
            })
        });
    GUESTS.clone()
}

/// A named fact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Fact {
    /// What.
    pub name: String,
    /// Its state.
    pub value: String,
}

/// Something that could not be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Unavailable {
    /// What.
    pub what: String,
    /// Why, and what that means for the result.
    pub why: String,
}

/// The environment of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Environment {
    /// Version of this program.
    pub cofferdam: String,
    /// Kernel name and release.
    pub kernel: String,
    /// CPU model.
    pub cpu: String,
    /// CPUs this process may use.
    pub cores: u64,
    /// The trials' clock.
    pub clock: ClockKind,
    /// The kernel's clock source.
    pub clock_source: String,
    /// How domains are kept apart.
    pub mechanism: Mechanism,
    /// How those in a guest are kept apart; none where there is no KVM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guests: Option<Mechanism>,
    /// What that mechanism leaves out.
    pub caveat: String,
    /// The jail, as the engine reports it.
    pub jail: Vec<Fact>,
    /// What could not be used.
    pub unavailable: Vec<Unavailable>,
}

fn first_line(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().next().map(|line| line.trim().to_owned())
}

fn cpu_model() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

impl Environment {
    /// Looks at this host. `jail` and `unavailable` are the engine's.
    pub fn probe(clock: ClockKind, jail: Vec<Fact>, mut unavailable: Vec<Unavailable>) -> Self {
        let unknown = || "unknown".to_owned();
        let mut missing = |what: &str, why: &str| {
            if !unavailable.iter().any(|entry| entry.what == what) {
                unavailable.push(Unavailable {
                    what: what.to_owned(),
                    why: why.to_owned(),
                });
            }
        };
        let guests = guests();
        match &guests {
            Ok(_) => missing(
                "KVM for hypervisors",
                "not used: the privileged layer is a process everywhere; drivers and tenants are in \
                 guests where the placement says so, and elsewhere no trap and no nested paging is part \
                 of their figures",
            ),
            Err(why) => missing(
                "KVM",
                &format!(
                    "{}; {}. Placements with the driver or tenants in a guest are left out",
                    why.reason, why.remedy
                ),
            ),
        }
        missing(
            "VFIO",
            "not used by compare: devices are models, none is real",
        );
        Self {
            cofferdam: env!("CARGO_PKG_VERSION").to_owned(),
            kernel: first_line("/proc/sys/kernel/osrelease")
                .map_or_else(unknown, |release| format!("Linux {release}")),
            cpu: cpu_model().unwrap_or_else(unknown),
            cores: std::thread::available_parallelism().map_or(0, |cores| cores.get() as u64),
            clock,
            clock_source: first_line(
                "/sys/devices/system/clocksource/clocksource0/current_clocksource",
            )
            .unwrap_or_else(unknown),
            mechanism: Mechanism::Process,
            guests: guests.ok(),
            caveat: "privileged layer, as a process; no trap or nested-paging cost".to_owned(),
            jail,
            unavailable,
        }
    }

    /// A name for this environment, by which records refer to it.
    pub fn id(&self) -> String {
        let text = serde_json::to_vec(self).unwrap_or_default();
        format!("{:016x}", digest([&text[..]]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_host_has_the_same_name_and_another_jail_another() {
        let plain = Environment::probe(ClockKind::Leap, Vec::new(), Vec::new());
        let again = Environment::probe(ClockKind::Leap, Vec::new(), Vec::new());
        let jailed = Environment::probe(
            ClockKind::Leap,
            vec![Fact {
                name: "seccomp".into(),
                value: "on".into(),
            }],
            Vec::new(),
        );
        assert_eq!(plain.id(), again.id());
        assert_ne!(plain.id(), jailed.id());
    }

    #[test]
    fn engines_own_words_about_what_is_missing_win() {
        let environment = Environment::probe(
            ClockKind::Leap,
            Vec::new(),
            vec![Unavailable {
                what: "KVM".into(),
                why: "no /dev/kvm".into(),
            }],
        );
        let kvm: Vec<_> = environment
            .unavailable
            .iter()
            .filter(|entry| entry.what == "KVM")
            .collect();
        assert_eq!(kvm.len(), 1);
        assert_eq!(kvm[0].why, "no /dev/kvm");
    }
}
