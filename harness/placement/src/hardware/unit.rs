//! One process the hardware lets run: a domain, or the supervisor.

use super::repetition::Repetition;
use crate::call::{Answer, Call};
use crate::port::PortPage;
use cofferdam_machine::Ending;
use cofferdam_seam::{Time, VectorSet};

/// What a domain is doing, as far as the hardware knows.
#[derive(Clone, Copy, Debug)]
pub(super) enum State {
    /// It holds the grant, or is being started.
    Running,
    /// It waits for an interrupt, a doorbell, or a time.
    Waiting {
        vectors: VectorSet,
        bells: u64,
        until: Time,
        /// When it shows next that it is alive, if it does.
        beats: Option<Time>,
    },
    /// Its call is answered; it may be granted.
    Ready(Answer),
    /// It waits for a completion, or to make an access again; its CPU stands still.
    Frozen { then: Ending, access: Call },
    /// It waits for the end of a reset.
    Resetting,
    /// It died.
    Dead,
    /// The layer below it stopped.
    Halted,
}

/// A process with a port.
pub(super) struct Unit {
    pub name: &'static str,
    pub cpu: Option<usize>,
    pub page: &'static PortPage,
    pub state: State,
    pub pid: i32,
    /// Peers that rang and were not yet heard.
    pub bells: u64,
    /// Its wait is over, in which it showed that it was alive: it does so again when it gets on.
    pub revives: bool,
    pub last_beat: Time,
    pub longest_gap: u64,
    /// The driver has served since the domain was started.
    pub serving: bool,
    pub finished: bool,
    pub deaths: Vec<String>,
    pub restarts: u32,
    /// What it does over and over.
    pub repetition: Repetition,
    /// Why the hardware is killing it.
    pub sentence: Option<String>,
    /// The kernel confirmed that it is stopped (wall clock).
    pub stopped: bool,
    /// What the zygote found of the machine's memory in it, when it was last asked.
    pub weighed: Option<Option<u64>>,
}

impl Unit {
    pub fn new(name: &'static str, cpu: Option<u8>, page: &'static PortPage) -> Self {
        Self {
            name,
            cpu: cpu.map(usize::from),
            page,
            state: State::Running,
            pid: 0,
            bells: 0,
            revives: false,
            last_beat: Time::ZERO,
            longest_gap: 0,
            serving: false,
            finished: false,
            deaths: Vec::new(),
            restarts: 0,
            repetition: Repetition::new(),
            sentence: None,
            stopped: false,
            weighed: None,
        }
    }

    pub fn beat(&mut self, now: Time) {
        let gap = u64::try_from(now.since(self.last_beat).as_nanos()).unwrap_or(u64::MAX);
        self.longest_gap = self.longest_gap.max(gap);
        self.last_beat = now;
    }
}
