//! The inner loop of a campaign, without an engine: mutate, run, look for news.
//!
//! An engine decides which program is the parent of the next ones and hears of those that did
//! something new. Everything that happens a hundred thousand times a second happens here.

use crate::executor::Executor;
use crate::finding::{FindingError, Found, explain, look};
use crate::mutate::Mutator;
use crate::program::Program;
use crate::random::Random;
use crate::target::Target;
use crate::world::Detail;
use cofferdam_instrument::constants;
use cofferdam_instrument::coverage::{Counters, History};
use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use thiserror::Error;

/// Executions between two looks at what mutators could learn.
const LEARN: u64 = 4096;

/// Where defects go, below the directory of a campaign.
pub const FINDINGS: &str = "findings";

/// Where goes what is noticed and no defect of that driver, below the directory of a campaign.
pub const WAITS: &str = "waits";

/// Executions of this process's campaign so far, for a handler of a fatal signal.
pub fn executed() -> u64 {
    EXECUTED.load(Ordering::Relaxed)
}

static EXECUTED: AtomicU64 = AtomicU64::new(0);

/// Why a campaign cannot go on. Never a finding.
#[derive(Debug, Error)]
pub enum CampaignError {
    /// The system refused.
    #[error("the system has no memory left: {0}")]
    System(#[from] io::Error),
    /// A finding could not be written.
    #[error(transparent)]
    Finding(#[from] FindingError),
}

/// One process's part of a campaign.
pub struct Campaign {
    executor: Executor,
    counters: Counters,
    history: History,
    mutator: Mutator,
    random: Random,
    out: Option<PathBuf>,
    /// Whether news decide what is kept.
    feedback: bool,
    executions: u64,
    /// What was seen, and how often.
    keys: HashMap<u64, u32>,
    signatures: HashSet<String>,
    /// What was found, in order.
    found: Vec<Found>,
    /// Executions after which each of them was.
    found_after: Vec<u64>,
    unconfirmed: u64,
    abandoned: u64,
    scratch: Program,
}

impl Campaign {
    /// A campaign against `target`, whose findings go below `out`, if that is given.
    ///
    /// # Errors
    ///
    /// The system has no memory left.
    ///
    /// # Safety
    ///
    /// There is one at a time, and instrumented code runs on this thread only.
    #[expect(unsafe_code, reason = "the counters are the whole program's")]
    pub unsafe fn new(
        target: &'static dyn Target,
        seed: u64,
        feedback: bool,
        out: Option<&Path>,
    ) -> io::Result<Self> {
        // SAFETY: the caller's promise.
        let mut counters = unsafe { Counters::take() };
        counters.clear();
        constants::forget();
        constants::note(feedback && target.isolation().is_none());
        Ok(Self {
            executor: Executor::new(target)?,
            counters,
            history: History::new(),
            mutator: Mutator::new(target),
            random: Random::new(seed),
            out: out.map(Path::to_owned),
            feedback,
            executions: 0,
            keys: HashMap::new(),
            signatures: HashSet::new(),
            found: Vec::new(),
            found_after: Vec::new(),
            unconfirmed: 0,
            abandoned: 0,
            scratch: Program::default(),
        })
    }

    /// The executor.
    pub fn executor(&mut self) -> &mut Executor {
        &mut self.executor
    }

    /// The counters, as the last execution left them if [`Self::run`] was told to keep them.
    pub fn counters(&mut self) -> &mut Counters {
        &mut self.counters
    }

    /// Executions so far, those that looked closely apart.
    pub fn executions(&self) -> u64 {
        self.executions
    }

    /// Edges that were taken, and all there are.
    pub fn edges(&self) -> (usize, usize) {
        (self.history.edges(), self.history.len())
    }

    /// What was found.
    pub fn found(&self) -> &[Found] {
        &self.found
    }

    /// How many executions it took to find each of [`Self::found`].
    pub fn found_after(&self) -> &[u64] {
        &self.found_after
    }

    /// Executions whose driver did not come back.
    pub fn abandoned(&self) -> u64 {
        self.abandoned
    }

    /// Sightings that a close look did not confirm.
    pub fn unconfirmed(&self) -> u64 {
        self.unconfirmed
    }

    /// Somebody else found that: it is not looked at again.
    pub fn know(&mut self, signature: &str) {
        if !self.signatures.contains(signature) {
            self.signatures.insert(signature.to_owned());
        }
    }

    /// A program out of nothing.
    pub fn generate(&mut self) -> Program {
        self.mutator.generate(&mut self.random)
    }

    /// Runs a program; whether it did anything new. What it shows is looked at.
    ///
    /// # Errors
    ///
    /// See [`CampaignError`].
    pub fn run(&mut self, program: &Program) -> Result<bool, CampaignError> {
        EXECUTED.store(self.executions + 1, Ordering::Relaxed);
        let outcome = self.executor.run(program, Detail::Fast)?;
        self.executions += 1;
        self.abandoned += u64::from(outcome.abandoned);
        let news = if outcome.sightings.is_empty() {
            self.history.note(&mut self.counters) && self.feedback
        } else {
            // What fails is no ground to build on, and must not hide what does not.
            self.counters.clear();
            let mut new = false;
            for sighting in &outcome.sightings {
                // One key may stand for more than one place: it is looked at again, ever more rarely.
                let seen = self.keys.entry(sighting.key).or_default();
                *seen = seen.saturating_add(1);
                new |= seen.is_power_of_two();
            }
            if new {
                self.examine(program, outcome.abandoned)?;
            }
            false
        };
        self.executor.recycle(outcome);
        if self.executions.is_multiple_of(LEARN) || self.executions == 64 {
            self.learn();
        }
        Ok(news)
    }

    fn learn(&mut self) {
        self.mutator.learn(self.executor.sketch());
        // What is compared here is not the driver's doing, if that runs elsewhere.
        if self.feedback && self.executor.target().isolation().is_none() {
            self.mutator.try_values(constants::seen());
            // Most are seen soon, and to note them costs.
            constants::note(self.executions < LEARN * 4);
        }
    }

    /// Runs `executions` children of a program, and tells of those that did something new.
    ///
    /// # Errors
    ///
    /// See [`CampaignError`].
    pub fn batch(
        &mut self,
        parent: &Program,
        other: Option<&Program>,
        executions: u32,
        mut news: impl FnMut(&Program),
    ) -> Result<(), CampaignError> {
        let mut program = std::mem::take(&mut self.scratch);
        for _ in 0..executions {
            program.mode = parent.mode;
            program.actions.clone_from(&parent.actions);
            self.mutator.mutate(&mut program, other, &mut self.random);
            if self.run(&program)? {
                news(&program);
            }
        }
        self.scratch = program;
        Ok(())
    }

    /// Looks closely at what a program shows.
    fn examine(&mut self, program: &Program, abandoned: bool) -> Result<(), CampaignError> {
        let shown = look(&mut self.executor, program)?;
        if shown.is_empty() {
            self.unconfirmed += 1;
            if abandoned && self.executor.be_patient() {
                // What was cut short may have more to show.
                self.keys.clear();
            }
        }
        for finding in shown {
            if !self.signatures.insert(finding.signature.clone()) {
                continue;
            }
            let signature = finding.signature;
            let found = explain(&mut self.executor, program, |it| it.signature == signature)?;
            let Some(found) = found else {
                self.unconfirmed += 1;
                continue;
            };
            if let Some(out) = &self.out {
                let kind = if found.finding.defect {
                    FINDINGS
                } else {
                    WAITS
                };
                found.write(self.executor.target(), &out.join(kind))?;
            }
            self.found.push(found);
            self.found_after.push(self.executions);
        }
        self.counters.clear();
        Ok(())
    }
}
