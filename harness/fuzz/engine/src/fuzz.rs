//! A campaign by LibAFL.

use crate::worker::Link;
use cofferdam_fuzz::campaign::{Campaign, CampaignError};
use cofferdam_fuzz::finding::read_program;
use cofferdam_fuzz::program::Program;
use libafl::corpus::{Corpus, HasCurrentCorpusId, InMemoryCorpus};
use libafl::events::{EventFirer, SimpleEventManager};
use libafl::executors::{Executor, ExitKind, HasObservers};
use libafl::feedbacks::{ConstFeedback, Feedback, StateInitializer};
use libafl::fuzzer::{Evaluator, Fuzzer};
use libafl::inputs::Input;
use libafl::monitors::NopMonitor;
use libafl::schedulers::QueueScheduler;
use libafl::stages::{Restartable, Stage};
use libafl::state::{HasCorpus, HasCurrentTestcase, HasExecutions, HasRand, StdState};
use libafl::{Error, StdFuzzer};
use libafl_bolts::Named;
use libafl_bolts::rands::{Rand, StdRand};
use libafl_bolts::tuples::{RefIndexable, tuple_list};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::fs;
use std::path::PathBuf;
use std::rc::Rc;

/// Children of a program before the next is its turn.
const CHILDREN: u32 = 256;

/// Programs made out of nothing, to begin with.
pub const FIRST: usize = 32;

/// A program, as LibAFL keeps it.
#[derive(Clone, Debug, Hash, Serialize, Deserialize)]
pub struct Kept(pub Program);

impl Input for Kept {}

/// A campaign, and whether the last program did anything new.
pub struct Shared {
    campaign: RefCell<Campaign>,
    news: Cell<bool>,
    /// What was kept and nobody was told of.
    kept: RefCell<Vec<Program>>,
    failed: RefCell<Option<CampaignError>>,
    /// Executions at which it ends.
    limit: u64,
}

impl Shared {
    fn fail(&self, error: CampaignError) -> Error {
        let told = Error::illegal_state(error.to_string());
        self.failed.replace(Some(error));
        told
    }
}

/// Runs programs for LibAFL: those it gets from elsewhere, and those that did something new.
struct Runs {
    shared: Rc<Shared>,
    observers: (),
}

impl<EM, S: HasExecutions, Z> Executor<EM, Kept, S, Z> for Runs {
    fn run_target(
        &mut self,
        _: &mut Z,
        state: &mut S,
        _: &mut EM,
        input: &Kept,
    ) -> Result<ExitKind, Error> {
        *state.executions_mut() += 1;
        let mut campaign = self.shared.campaign.borrow_mut();
        let news = campaign.run(&input.0);
        self.shared
            .news
            .set(news.map_err(|error| self.shared.fail(error))?);
        Ok(ExitKind::Ok)
    }
}

impl HasObservers for Runs {
    type Observers = ();

    fn observers(&self) -> RefIndexable<&(), ()> {
        RefIndexable::from(&self.observers)
    }

    fn observers_mut(&mut self) -> RefIndexable<&mut (), ()> {
        RefIndexable::from(&mut self.observers)
    }
}

/// What did something new is worth keeping.
struct News(Rc<Shared>);

impl Named for News {
    fn name(&self) -> &Cow<'static, str> {
        static NAME: Cow<'static, str> = Cow::Borrowed("news");
        &NAME
    }
}

impl<S> StateInitializer<S> for News {}

impl<EM, OT, S> Feedback<EM, Kept, OT, S> for News {
    fn is_interesting(
        &mut self,
        _: &mut S,
        _: &mut EM,
        _: &Kept,
        _: &OT,
        _: &ExitKind,
    ) -> Result<bool, Error> {
        Ok(self.0.news.get())
    }
}

/// Runs children of the program that LibAFL chose.
struct Children {
    shared: Rc<Shared>,
}

impl<E, EM, S, Z> Stage<E, EM, S, Z> for Children
where
    EM: EventFirer<Kept, S>,
    S: HasCorpus<Kept> + HasCurrentCorpusId + HasRand + HasExecutions,
    Z: Evaluator<E, EM, Kept, S>,
{
    fn perform(
        &mut self,
        fuzzer: &mut Z,
        executor: &mut E,
        state: &mut S,
        manager: &mut EM,
    ) -> Result<(), Error> {
        let parent = state.current_input_cloned()?;
        let mut news = Vec::new();
        {
            let other = other(state)?;
            let shared = &self.shared;
            let mut campaign = shared.campaign.borrow_mut();
            let left = shared.limit.saturating_sub(campaign.executions());
            let children = CHILDREN.min(u32::try_from(left).unwrap_or(u32::MAX));
            let ran = campaign.batch(&parent.0, other.as_ref().map(|it| &it.0), children, |it| {
                news.push(it.clone());
            });
            ran.map_err(|error| shared.fail(error))?;
            *state.executions_mut() += u64::from(children);
        }
        for program in news {
            self.shared.kept.borrow_mut().push(program.clone());
            fuzzer.add_input(state, executor, manager, Kept(program))?;
        }
        Ok(())
    }
}

impl<S> Restartable<S> for Children {
    fn should_restart(&mut self, _: &mut S) -> Result<bool, Error> {
        Ok(true)
    }

    fn clear_progress(&mut self, _: &mut S) -> Result<(), Error> {
        Ok(())
    }
}

/// Another program of the corpus, to take pieces of.
fn other<S: HasCorpus<Kept> + HasRand>(state: &mut S) -> Result<Option<Kept>, Error> {
    let count = state.corpus().count();
    if count < 2 {
        return Ok(None);
    }
    let index = usize::try_from(state.rand_mut().next() % count as u64).unwrap_or(0);
    let id = state.corpus().nth(index);
    let testcase = state.corpus().get(id)?.borrow();
    Ok(testcase.input().clone())
}

/// How long a campaign goes on.
pub struct Until<'a> {
    /// Who is told of it, and tells of others, if there is anybody.
    pub link: Option<&'a mut Link>,
    pub execs: Option<u64>,
    /// Whether it has shown enough; asked every now and then.
    pub enough: &'a dyn Fn(&Campaign) -> bool,
}

/// Runs a campaign with LibAFL in this process.
pub fn campaign(
    campaign: Campaign,
    first: Vec<Program>,
    seed: u64,
    until: Until<'_>,
) -> Result<Campaign, String> {
    let shared = Rc::new(Shared {
        campaign: RefCell::new(campaign),
        news: Cell::new(false),
        kept: RefCell::new(Vec::new()),
        failed: RefCell::new(None),
        limit: until.execs.unwrap_or(u64::MAX),
    });
    let ran = run(&shared, first, seed, until);
    if let Some(error) = shared.failed.take() {
        return Err(error.to_string());
    }
    ran.map_err(|error| error.to_string())?;
    let shared = Rc::into_inner(shared).ok_or("the campaign is still being used")?;
    Ok(shared.campaign.into_inner())
}

fn run(
    shared: &Rc<Shared>,
    first: Vec<Program>,
    seed: u64,
    mut until: Until<'_>,
) -> Result<(), Error> {
    let mut feedback = News(Rc::clone(shared));
    let mut objective = ConstFeedback::new(false);
    let mut state = StdState::new(
        StdRand::with_seed(seed),
        InMemoryCorpus::<Kept>::new(),
        InMemoryCorpus::<Kept>::new(),
        &mut feedback,
        &mut objective,
    )?;
    let mut manager = SimpleEventManager::new(NopMonitor::new());
    let mut fuzzer = StdFuzzer::new(QueueScheduler::new(), feedback, objective);
    let mut executor = Runs {
        shared: Rc::clone(shared),
        observers: (),
    };
    for program in first {
        if shared.campaign.borrow().executions() >= shared.limit {
            break;
        }
        fuzzer.add_input(&mut state, &mut executor, &mut manager, Kept(program))?;
    }
    let mut stages = tuple_list!(Children {
        shared: Rc::clone(shared),
    });
    loop {
        let mut campaign = shared.campaign.borrow_mut();
        let mut enough = campaign.executions() >= shared.limit || (until.enough)(&campaign);
        let mut foreign = Vec::new();
        let kept = shared.kept.take();
        if let Some(link) = &mut until.link {
            for program in &kept {
                link.keep(program);
            }
            link.tell(&campaign, state.corpus().count(), enough);
            foreign = link.receive(&mut campaign);
            if link.is_over() && !enough {
                link.tell(&campaign, state.corpus().count(), true);
                enough = true;
            }
        }
        drop(campaign);
        if enough {
            return Ok(());
        }
        for program in foreign {
            let kept = Kept(program.clone());
            let (_, is_new) =
                fuzzer.evaluate_input(&mut state, &mut executor, &mut manager, &kept)?;
            if let (Some(_), Some(link)) = (is_new, &mut until.link) {
                link.keep_foreign(&program);
            }
        }
        fuzzer.fuzz_one(&mut stages, &mut executor, &mut state, &mut manager)?;
    }
}

/// The programs in directories, in the order of their names.
pub fn read_corpus(campaign: &mut Campaign, places: &[PathBuf]) -> Result<Vec<Program>, String> {
    let mut programs = Vec::new();
    for place in places {
        let entries = fs::read_dir(place)
            .map_err(|error| format!("cannot read the corpus {}: {error}", place.display()))?;
        let mut paths: Vec<_> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .collect();
        paths.sort();
        paths.retain(|path| path.extension().is_some_and(|it| it == "prog"));
        for path in paths {
            let program = read_program(campaign.executor(), &path);
            programs.push(program.map_err(|error| error.to_string())?);
        }
    }
    Ok(programs)
}
