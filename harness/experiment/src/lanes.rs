//! Lanes: trials side by side, handed over in the order of the plan.
//!
//! Each lane is a thread with an engine of its own, on a core of its own if there are several. A
//! trial that is done early waits in a window of bounded size, so memory does not grow with the run.

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

/// How often a trial is tried before it counts as an infrastructure failure.
const ATTEMPTS: u32 = 3;

/// Trials a lane that may be done or running ahead of the oldest unfinished one.
const AHEAD: u64 = 32;

/// A trial that was run, or could not be.
#[derive(Debug)]
pub struct Ran {
    /// The trial.
    pub trial: Trial,
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
        result: Result<Box<TrialReport>, EngineError>,
        started_us: u64,
        finished_us: u64,
    },
    /// Its thread panics, and nothing more will come from it.
    Panicked,
}

/// A trial that a lane is at.
struct Open {
    place: u64,
    attempt: u32,
    trial: Trial,
    started_us: Option<u64>,
}

/// Runs trials on so many lanes. `start` makes an engine; a lane that failed gets a fresh one. Every
/// trial is handed over, in order, until the taker stops it or fails.
pub fn drive<E: Engine, T: Take>(
    lanes: NonZeroUsize,
    start: &(impl Fn() -> Result<E, EngineError> + Sync),
    mut trials: impl Iterator<Item = Trial>,
    taker: &mut T,
) -> Result<(), T::Error> {
    let cores = cores();
    thread::scope(|scope| {
        let (say, hear) = channel();
        let tell: Vec<Sender<TrialSpec>> = (0..lanes.get())
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
        let mut waiting: BTreeMap<u64, Ran> = BTreeMap::new();
        let (mut begun, mut taken) = (0, 0);
        let mut more = true;
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
                    let started_us = *at.started_us.get_or_insert(started_us);
                    let again = matches!(result, Err(EngineError::Infrastructure(_)))
                        && at.attempt < ATTEMPTS
                        && !taker.stop();
                    if again {
                        at.attempt += 1;
                        hand(&tell, &mut open, lane, at);
                        continue;
                    }
                    let ran = Ran {
                        trial: at.trial,
                        result: result.map(|report| *report),
                        started_us,
                        finished_us,
                    };
                    waiting.insert(at.place, ran);
                    idle.push(lane);
                }
            }
            while let Some(ran) = waiting.remove(&taken) {
                taken += 1;
                more &= taker.take(ran)? == Next::Continue;
            }
            while more && begun - taken < window && !idle.is_empty() {
                // A run that was stopped at its very end is complete.
                let trial = trials.next().filter(|_| !taker.stop());
                let Some((trial, lane)) = trial.zip(idle.pop()) else {
                    more = false;
                    break;
                };
                let at = Open {
                    place: begun,
                    attempt: 1,
                    trial,
                    started_us: None,
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
fn hand(tell: &[Sender<TrialSpec>], open: &mut [Option<Open>], lane: usize, at: Open) {
    if let (Some(tell), Some(open)) = (tell.get(lane), open.get_mut(lane)) {
        let _ = tell.send(at.trial.spec.clone());
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
        told: &Receiver<TrialSpec>,
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
        for spec in told {
            let started_us = now_us();
            let result = once(&mut engine, &spec, start).map(Box::new);
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
    spec: &TrialSpec,
    start: &impl Fn() -> Result<E, EngineError>,
) -> Result<TrialReport, EngineError> {
    let engine = match engine {
        Some(engine) => engine,
        none => none.insert(start()?),
    };
    engine.run(spec)
}

fn now_us() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
        })
}
