//! Resets: what was begun, how long software waits for it, and how it ends.
//!
//! A function-level reset first, if the function has one and can be told. Software then waits as the
//! standard says and looks: a function whose command register is not back at zero ignored it, one
//! that is not ready within the limit is taken for dead. Either way a reset of its secondary bus
//! follows, which takes along whoever is on that bus (Linux: `pcie_flr`, `pci_dev_wait`,
//! `pci_reset_secondary_bus`; Linux does not look at the registers, and refuses to reset a bus that
//! has other users).

use crate::config::{Config, FabricKind};
use cofferdam_seam::Time;
use std::time::Duration;

/// From the end of RST# to the first configuration access on a conventional bus: 2^25 clocks of
/// 33 MHz (PCI Local Bus 3.0, 4.3.2, Trhfa).
const BUS_RECOVERY: Duration = Duration::from_nanos((1 << 25) * 30);

/// How long software waits for a link to come up (Linux, `pcie_wait_for_link_delay`).
const LINK_LIMIT: Duration = Duration::from_secs(1);

/// How far the reset of a function is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetProgress {
    /// Software waits; it looks again then.
    Waiting {
        /// When.
        until: Time,
    },
    /// It is over, and the function is as it was plugged in.
    Done,
    /// There is no function any more that could be reset.
    Failed,
}

/// What a function makes of a function-level reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Obedience {
    /// It is done long before software looks.
    #[default]
    Prompt,
    /// Nothing.
    Deaf,
    /// It is done after so long.
    Slow(Duration),
}

/// What software will find when it looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    /// A function that was reset.
    Ready,
    /// A function that was not.
    Untouched,
    /// Nobody, by the end of its patience.
    NotReady,
    /// No link.
    Gone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Idle { failed: bool },
    Waiting { until: Time, finds: Finding },
}

#[derive(Clone, Copy, Debug)]
struct Function {
    obedience: Obedience,
    phase: Phase,
}

/// The resets of all functions, by slot.
#[derive(Debug)]
pub(crate) struct Resets {
    wait: Duration,
    limit: Duration,
    shared: bool,
    functions: Vec<Function>,
    /// Function-level resets that were not done when software looked.
    pub(crate) disobeyed: u64,
    /// Functions that lost their state by the reset of another.
    pub(crate) neighbours: u64,
}

impl Resets {
    /// Counts from zero.
    pub(crate) fn forget(&mut self) {
        self.disobeyed = 0;
        self.neighbours = 0;
    }

    pub(crate) fn new(config: &Config) -> Self {
        Self {
            wait: config.reset_wait,
            limit: config.reset_limit.max(config.reset_wait),
            shared: config.fabric == FabricKind::Pci,
            functions: Vec::new(),
            disobeyed: 0,
            neighbours: 0,
        }
    }

    pub(crate) fn attach(&mut self) {
        self.functions.push(Function {
            obedience: Obedience::Prompt,
            phase: Phase::Idle { failed: false },
        });
    }

    pub(crate) fn obey(&mut self, slot: usize, obedience: Obedience) {
        self.functions[slot].obedience = obedience;
    }

    /// A function-level reset begins; whether the function is reset by it.
    pub(crate) fn begin_function(&mut self, slot: usize, now: Time) -> bool {
        let (wait, limit) = (self.wait, self.limit);
        let (after, finds) = match self.functions[slot].obedience {
            Obedience::Prompt => (wait, Finding::Ready),
            Obedience::Deaf => (wait, Finding::Untouched),
            Obedience::Slow(takes) if takes <= limit => (takes.max(wait), Finding::Ready),
            Obedience::Slow(_) => (limit, Finding::NotReady),
        };
        if after > wait || finds != Finding::Ready {
            self.disobeyed += 1;
        }
        self.set(slot, now + after, finds);
        finds == Finding::Ready
    }

    /// A reset of its secondary bus begins; `up` is when its link comes up again, if it is down.
    pub(crate) fn begin_bus(&mut self, slot: usize, up: Option<Time>, now: Time) {
        let wait = if self.shared { BUS_RECOVERY } else { self.wait };
        match up.filter(|&up| up > now) {
            Some(up) if up > now + LINK_LIMIT => {
                self.set(slot, now + LINK_LIMIT, Finding::Gone);
            }
            up => self.set(slot, up.unwrap_or(now) + wait, Finding::Ready),
        }
    }

    fn set(&mut self, slot: usize, until: Time, finds: Finding) {
        self.functions[slot].phase = Phase::Waiting { until, finds };
    }

    /// When software looks next, if it waits.
    pub(crate) fn looks_at(&self, slot: usize) -> Option<Time> {
        match self.functions.get(slot)?.phase {
            Phase::Waiting { until, .. } => Some(until),
            Phase::Idle { .. } => None,
        }
    }

    /// What software finds now, if it has waited long enough.
    pub(crate) fn look(&mut self, slot: usize, now: Time) -> Option<Finding> {
        match self.functions[slot].phase {
            Phase::Waiting { until, finds } if until <= now => {
                let failed = finds == Finding::Gone;
                self.functions[slot].phase = Phase::Idle { failed };
                Some(finds)
            }
            _ => None,
        }
    }

    /// How far it is.
    pub(crate) fn progress(&self, slot: usize) -> ResetProgress {
        match self.functions[slot].phase {
            Phase::Waiting { until, .. } => ResetProgress::Waiting { until },
            Phase::Idle { failed: true } => ResetProgress::Failed,
            Phase::Idle { failed: false } => ResetProgress::Done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn resets(fabric: FabricKind) -> Resets {
        let mut resets = Resets::new(&Config {
            fabric,
            ..Config::default()
        });
        resets.attach();
        resets
    }

    #[test]
    fn prompt_reset_is_waited_for_as_the_standard_says() {
        let mut resets = resets(FabricKind::Pcie);
        assert!(resets.begin_function(0, Time(0)));
        let until = Time(100 * MS);
        assert_eq!(resets.progress(0), ResetProgress::Waiting { until });
        assert_eq!(resets.look(0, Time(until.0 - 1)), None);
        assert_eq!(resets.look(0, until), Some(Finding::Ready));
        assert_eq!(resets.progress(0), ResetProgress::Done);
        assert_eq!(resets.disobeyed, 0);
    }

    #[test]
    fn disobedient_function_is_found_out_when_software_looks() {
        let seconds = Duration::from_secs;
        for (obedience, at, finds) in [
            (Obedience::Deaf, 100, Finding::Untouched),
            (Obedience::Slow(seconds(2)), 2_000, Finding::Ready),
            (Obedience::Slow(seconds(61)), 60_000, Finding::NotReady),
        ] {
            let mut resets = resets(FabricKind::Pcie);
            resets.obey(0, obedience);
            let reset = resets.begin_function(0, Time(0));
            assert_eq!(reset, finds == Finding::Ready);
            assert_eq!(resets.looks_at(0), Some(Time(at * MS)), "{obedience:?}");
            assert_eq!(resets.look(0, Time(at * MS)), Some(finds));
            assert_eq!(resets.disobeyed, 1);
        }
    }

    #[test]
    fn bus_reset_waits_for_the_link_and_gives_up_on_one_that_is_gone() {
        for (fabric, up, at, failed) in [
            (FabricKind::Pcie, None, 100, false),
            (FabricKind::Pcie, Some(Time(30 * MS)), 130, false),
            (FabricKind::Pcie, Some(Time::NEVER), 1_000, true),
            (FabricKind::Pci, None, 1_006, false),
        ] {
            let mut resets = resets(fabric);
            resets.begin_bus(0, up, Time(0));
            let until = resets.looks_at(0).expect("software waits");
            assert_eq!(until.0 / MS, at);
            resets.look(0, until);
            let over = resets.progress(0) == ResetProgress::Failed;
            assert_eq!(over, failed, "{fabric:?} {up:?}");
        }
    }
}
