//! The claims of an old argument (should drivers live below the operating system?, 2007), and what
//! the cells of a run say to each.
//!
//! A claim is data: its words, which cells bear on it, and how these are judged. A judgement counts
//! what the summary counted and nothing else. With fewer than [`ENOUGH`] trials on a side it says
//! so: that is a direction, not a rate. What no cell can show is undecided, with the reason.

mod evidence;
mod judge;

pub use evidence::Evidence;

use crate::statistics::ENOUGH;
use crate::summary::Summary;

/// One claim.
#[derive(Debug)]
pub struct Claim {
    /// A short name, for links.
    pub id: &'static str,
    /// The claim, in its own words.
    pub words: &'static str,
    /// Which cells bear on it.
    pub cells: &'static str,
    judge: fn(&Summary) -> Judgement,
}

/// What became of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holding {
    /// It holds.
    Holds,
    /// It does not hold.
    DoesNotHold,
    /// It holds under this condition only.
    OnlyIf(String),
    /// These cells cannot tell.
    Undecided,
}

impl Holding {
    /// The verdict, in words.
    pub fn words(&self) -> String {
        match self {
            Self::Holds => "holds".into(),
            Self::DoesNotHold => "does not hold".into(),
            Self::OnlyIf(condition) => format!("holds only {condition}"),
            Self::Undecided => "cannot be decided here".into(),
        }
    }
}

/// A claim judged.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// What became of it.
    pub holding: Holding,
    /// Why.
    pub because: String,
    /// The counts it rests on.
    pub evidence: Vec<Evidence>,
}

impl Judgement {
    fn undecided(because: impl Into<String>, evidence: Vec<Evidence>) -> Self {
        Self {
            holding: Holding::Undecided,
            because: because.into(),
            evidence,
        }
    }

    /// Whether a side of it has too few trials for a rate.
    pub fn is_few(&self) -> bool {
        let few = |each: &Evidence| each.share.of < ENOUGH;
        !self.evidence.is_empty() && self.evidence.iter().any(few)
    }
}

impl Claim {
    /// What a run says to it.
    pub fn judge(&self, summary: &Summary) -> Judgement {
        (self.judge)(summary)
    }
}

/// The claims, in the order of the argument.
pub static CLAIMS: [Claim; 7] = [
    Claim {
        id: "last-place",
        words: "A hypervisor is the last place you want a driver: drivers are buggier than generic \
                code.",
        cells: "faults the driver commits itself, which every placement has: lost tenants, lost \
                systems and corrupted memory, with the driver inside the privileged layer and \
                outside it",
        judge: judge::last_place,
    },
    Claim {
        id: "layer-costs",
        words: "The added layer is a performance problem.",
        cells: "clean cells: crossings and copied bytes for each completed request",
        judge: judge::layer_costs,
    },
    Claim {
        id: "wild-dma",
        words: "One runaway driver does a DMA to the wrong physical memory, and it is game over \
                whatever the layer.",
        cells: "D1 aimed at a frame of somebody else: trials that corrupted it",
        judge: judge::wild_dma,
    },
    Claim {
        id: "locked-bus",
        words: "Or it lets a device lock the PCI bus and never release it, and it is game over \
                whatever the layer.",
        cells: "B1, B3, B4, B5 and B6, by fabric: trials that ended with a lost tenant or system",
        judge: judge::locked_bus,
    },
    Claim {
        id: "root-locks-all",
        words: "With drivers in a root operating system a misbehaving driver locks every virtual \
                machine; with drivers in the hypervisor it cannot.",
        cells: "the same faults in root-partition and hypervisor: trials that lost every tenant or \
                the system",
        judge: judge::root_locks_all,
    },
    Claim {
        id: "no-stability",
        words: "Adding layers adds no stability.",
        cells: "measured cells that exist with the driver inside the privileged layer and outside \
                it: trials that stayed contained",
        judge: judge::no_stability,
    },
    Claim {
        id: "halved-memory",
        words: "Chopping memory in half for two images of an operating system is no improvement.",
        cells: "resident bytes of the domains of each placement",
        judge: judge::halved_memory,
    },
];

#[cfg(test)]
mod tests;
