//! Which observations belong together: trials of one boot see the same leftovers of one another.

use crate::seed::Draw;

/// The cluster of an observation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cluster {
    /// The trial had a boot of its own; the number names the trial, within all that is summed up.
    Own(u64),
    /// It shared the boot of that number with other trials.
    Shared(u64),
}

impl Cluster {
    /// A number that no other cluster has, and that says nothing about the order of trials.
    pub(crate) const fn mixed(self) -> u64 {
        // A step of SplitMix64 maps no two numbers to one; the sign keeps the two kinds apart.
        match self {
            Self::Own(trial) => Draw::new(trial).next(),
            Self::Shared(boot) => Draw::new(!boot).next(),
        }
    }
}
