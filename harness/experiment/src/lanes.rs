//! Lanes: trials side by side, handed over in the order of the plan.
//!
//! Each lane is a thread with an engine of its own, on a core of its own if there are several. A
//! boot that is done early waits in a window of bounded size, so memory does not grow with the run.

use crate::engine::{Engine, EngineError};
use crate::environment::{Fact, Unavailable};
use crate::plan::Trial;
use cofferdam_placement::trial::{TrialReport, TrialSpec};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

/// How often a boot is tried before its first trial counts as an infrastructure failure.
const ATTEMPTS: u32 = 3;

/// Boots a lane that may be done or running ahead of the oldest unfinished one.
const AHEAD: u64 = 32;

/// A trial that was run, or could not be.
#[derive(Debug)]
pub struct Ran {
    /// The trial.
    pub trial: Trial,
    /// The index of the first trial of its boot.
    pub boot: u64,
    /// What was seen, or why nothing was, the last time.
    pub result: Result<TrialReport, EngineError>,
    /// When it started, us since 1970.
    pub started_us: u64,
    /// When it had finished, us since 1970.
    pub finished_us: u64,
}

/// What an engine says about its host.
#[derive(Debug)]
pub struct Host {
    /// [`Engine::facts`].
    pub facts: Vec<Fact>,
    /// [`Engine::unavailable`].
    pub unavailable: Vec<Unavailable>,
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Go on.
    Continue,
    /// Start no further trial. Those that run are finished and handed over.
    Stop,
}

/// Who takes the results.
pub trait Take {
    /// Why it cannot.
    type Error: From<EngineError>;

    /// The first engine has started; no trial has yet.
    fn ready(&mut self, host: Host) -> Result<(), Self::Error>;

    /// The next trial in the order of the plan is done.
    fn take(&mut self, ran: Ran) -> Result<Next, Self::Error>;

    /// Whether to start no further trial, though there is one.
    fn stop(&mut self) -> bool;
}

/// What a lane says.
enum Word {
    /// Its engine has started, or cannot. Only the first lane says so.
    Ready(Result<Host, EngineError>),
    /// The trial it was at ended.
    Done {
        lane: usize,
        result: Result<Vec<TrialReport>, EngineError>,
        started_us: u64,
        finished_us: u64,
    },
    /// Its thread panics, and nothing more will come from it.
    Panicked,
}

/// Trials that a lane is at, which are to share a boot.
struct Open {
    place: u64,
    attempt: u32,
    /// Those that have not been run, in order.
    trials: Vec<Trial>,
    started_us: Option<u64>,
    /// Those that have.
    ran: Vec<Ran>,
}

impl Open {
    /// Takes what became of the boot: the first trials have reports, or the first has failed. The
    /// others need another boot.
    fn enter(&mut self, result: Result<Vec<TrialReport>, EngineError>, finished_us: u64) {
        let started_us = self.started_us.take().unwrap_or(finished_us);
        self.attempt = 1;
        let results: Vec<_> = match result {
            Ok(reports) => reports.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error)],
        };
        let count = results.len().min(self.trials.len());
        let boot = self.trials.first().map_or(0, |first| first.index);
        let trials = self.trials.drain(..count).zip(results);
        self.ran.extend(trials.map(|(trial, result)| Ran {
            trial,
            boot,
            result,
            started_us,
            finished_us,
        }));
    }
}

/// Runs trials on so many lanes, those together that are to share a boot. `start` makes an engine; a lane that failed gets a fresh one. Every
/// trial is handed over, in order, until the taker stops it or fails.
pub fn drive<E: Engine, T: Take>(
    lanes: NonZeroUsize,
    start: &(impl Fn() -> Result<E, EngineError> + Sync),
    mut boots: impl Iterator<Item = Vec<Trial>>,
    taker: &mut T,
) -> Result<(), T::Error> {
    let cores = cores();
    thread::scope(|scope| {
        let (say, hear) = channel();
        let tell: Vec<Sender<Vec<TrialSpec>>> = (0..lanes.get())
            .map(|number| {
                let (tell, told) = channel();
                let lane = Lane {
                    number,
                    core: (lanes.get() > 1)
                        .then(|| cores.get(number % cores.len().max(1)).copied())
                        .flatten(),
                    say: say.clone(),
                };
                scope.spawn(move || lane.live(&told, start));
                tell
            })
            .collect();
        drop(say);

        let mut idle: Vec<usize> = (0..lanes.get()).rev().collect();
        let mut open: Vec<Option<Open>> = (0..lanes.get()).map(|_| None).collect();
        let mut waiting: BTreeMap<u64, Vec<Ran>> = BTreeMap::new();
        let (mut begun, mut taken) = (0, 0);
        let (mut more, mut stopped) = (true, false);
        let window = AHEAD.saturating_mul(lanes.get() as u64);
        loop {
            match hear.recv() {
                Ok(Word::Ready(host)) => taker.ready(host?)?,
                // The scope hands a panic on.
                Ok(Word::Panicked) | Err(_) => break,
                Ok(Word::Done {
                    lane,
                    result,
                    started_us,
                    finished_us,
                }) => {
                    let Some(mut at) = open.get_mut(lane).and_then(Option::take) else {
                        continue;
                    };
                    at.started_us.get_or_insert(started_us);
                    let again = matches!(result, Err(EngineError::Infrastructure(_)))
                        && at.attempt < ATTEMPTS
                        && !taker.stop();
                    if again {
                        at.attempt += 1;
                        hand(&tell, &mut open, lane, at);
                        continue;
                    }
                    // An engine that reports nothing would be asked for ever.
                    let none = EngineError::Infrastructure("no trial was reported".to_owned());
                    let result = result.and_then(|reports| match reports.is_empty() {
                        true => Err(none),
                        false => Ok(reports),
                    });
                    at.enter(result, finished_us);
                    if !at.trials.is_empty() && !stopped && !taker.stop() {
                        hand(&tell, &mut open, lane, at);
                        continue;
                    }
                    waiting.insert(at.place, at.ran);
                    idle.push(lane);
                }
            }
            while let Some(boot) = waiting.remove(&taken) {
                taken += 1;
                for ran in boot {
                    stopped |= taker.take(ran)? == Next::Stop;
                }
            }
            more &= !stopped;
            while more && begun - taken < window && !idle.is_empty() {
                // A run that was stopped at its very end is complete.
                let trials = boots.next().filter(|_| !taker.stop());
                let Some((trials, lane)) = trials.zip(idle.pop()) else {
                    more = false;
                    break;
                };
                let at = Open {
                    place: begun,
                    attempt: 1,
                    trials,
                    started_us: None,
                    ran: Vec::new(),
                };
                hand(&tell, &mut open, lane, at);
                begun += 1;
            }
            if open.iter().all(Option::is_none) {
                break;
            }
        }
        Ok(())
    })
}

/// Sets a lane to a trial. A lane that is gone has said so, or will.
fn hand(tell: &[Sender<Vec<TrialSpec>>], open: &mut [Option<Open>], lane: usize, at: Open) {
    if let (Some(tell), Some(open)) = (tell.get(lane), open.get_mut(lane)) {
        let specs = at.trials.iter().map(|trial| trial.spec.clone());
        let _ = tell.send(specs.collect());
        *open = Some(at);
    }
}

/// The cores this process may use.
fn cores() -> Vec<usize> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap_or_default();
    (0..CpuSet::count())
        .filter(|core| allowed.is_set(*core).unwrap_or(false))
        .collect()
}

struct Lane {
    number: usize,
    core: Option<usize>,
    say: Sender<Word>,
}

impl Lane {
    fn live<E: Engine>(
        &self,
        told: &Receiver<Vec<TrialSpec>>,
        start: &impl Fn() -> Result<E, EngineError>,
    ) {
        if let Some(core) = self.core {
            // The engine's processes inherit it. Where it is refused, lanes are only slower.
            let mut set = CpuSet::new();
            let _ = set
                .set(core)
                .and_then(|()| sched_setaffinity(Pid::from_raw(0), &set));
        }
        let mut engine = None;
        if self.number == 0 {
            let ready = start().map(|started| {
                let engine = engine.insert(started);
                Host {
                    facts: engine.facts(),
                    unavailable: engine.unavailable(),
                }
            });
            let _ = self.say.send(Word::Ready(ready));
        }
        for specs in told {
            let started_us = now_us();
            let result = once(&mut engine, &specs, start);
            if result.is_err() {
                // A failed engine is not used again, whatever it says next.
                engine = None;
            }
            let done = Word::Done {
                lane: self.number,
                result,
                started_us,
                finished_us: now_us(),
            };
            // Nobody hears it after the taker failed.
            let _ = self.say.send(done);
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        if thread::panicking() {
            let _ = self.say.send(Word::Panicked);
        }
    }
}

fn once<E: Engine>(
    engine: &mut Option<E>,
    specs: &[TrialSpec],
    start: &impl Fn() -> Result<E, EngineError>,
) -> Result<Vec<TrialReport>, EngineError> {
    let engine = match engine {
        Some(engine) => engine,
        none => none.insert(start()?),
    };
    engine.run_boot(specs)
}

fn now_us() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
        })
}
