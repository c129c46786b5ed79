//! A campaign by LibAFL.

use crate::arguments::Fuzz;
use crate::status::Teller;
use crate::{FOUND, INFRASTRUCTURE, crash, fail};
use cofferdam_fuzz::campaign::{Campaign, CampaignError, FINDINGS};
use cofferdam_fuzz::finding::{name_of, read_program};
use cofferdam_fuzz::program::{Program, text};
use cofferdam_fuzz::target::Target;
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
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::rc::Rc;
use std::time::{Duration, Instant};

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
    keep: Option<PathBuf>,
    target: &'static dyn Target,
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
            if let Some(place) = &self.keep {
                // The corpus on disk is a convenience: a campaign goes on without it.
                let text = text::print(&program, self.target.name(), self.target.calls());
                let _ = fs::write(place.join(format!("{}.prog", name_of(&program))), text);
            }
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
    /// Who tells of it, if anybody does.
    pub teller: Option<&'a mut Teller>,
    pub time: Option<Duration>,
    pub execs: Option<u64>,
    /// Whether it has shown enough; asked every now and then.
    pub enough: &'a dyn Fn(&Campaign) -> bool,
}

/// Runs a campaign with LibAFL in this process.
pub fn campaign(
    campaign: Campaign,
    target: &'static dyn Target,
    first: Vec<Program>,
    keep: Option<&Path>,
    seed: u64,
    until: Until<'_>,
) -> Result<Campaign, String> {
    let shared = Rc::new(Shared {
        campaign: RefCell::new(campaign),
        news: Cell::new(false),
        failed: RefCell::new(None),
        limit: until.execs.unwrap_or(u64::MAX),
    });
    let ran = run(&shared, target, first, keep, seed, until);
    if let Some(error) = shared.failed.take() {
        return Err(error.to_string());
    }
    ran.map_err(|error| error.to_string())?;
    let shared = Rc::into_inner(shared).ok_or("the campaign is still being used")?;
    Ok(shared.campaign.into_inner())
}

fn run(
    shared: &Rc<Shared>,
    target: &'static dyn Target,
    first: Vec<Program>,
    keep: Option<&Path>,
    seed: u64,
    mut until: Until<'_>,
) -> Result<(), Error> {
    let began = Instant::now();
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
        fuzzer.add_input(&mut state, &mut executor, &mut manager, Kept(program))?;
    }
    let mut stages = tuple_list!(Children {
        shared: Rc::clone(shared),
        keep: keep.map(Path::to_owned),
        target,
    });
    loop {
        let campaign = shared.campaign.borrow();
        let enough = until.time.is_some_and(|time| began.elapsed() >= time)
            || campaign.executions() >= shared.limit
            || (until.enough)(&campaign);
        if let Some(teller) = &mut until.teller {
            teller.tell(&campaign, state.corpus().count(), enough);
        }
        if enough {
            return Ok(());
        }
        drop(campaign);
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

/// One process of a campaign.
pub fn worker(target: &'static dyn Target, arguments: &Fuzz) -> ExitCode {
    let out = out_of(arguments);
    crash::install(target, &out);
    // SAFETY: the process has this one campaign, on this thread.
    #[expect(unsafe_code, reason = "the counters are the whole program's")]
    let new = unsafe { Campaign::new(target, arguments.seed, !arguments.no_feedback, Some(&out)) };
    let mut new = match new {
        Ok(new) => new,
        Err(error) => return fail(error, INFRASTRUCTURE),
    };
    if new.edges().1 == 0 && target.isolation().is_none() {
        return fail(
            "the driver is not instrumented; build this program by `cofferdam fuzz`",
            INFRASTRUCTURE,
        );
    }
    let mut first = match read_corpus(&mut new, &arguments.corpus) {
        Ok(first) => first,
        Err(why) => return fail(why, crate::USAGE),
    };
    let missing = FIRST.saturating_sub(first.len());
    first.extend((0..missing).map(|_| new.generate()));
    let keep = out.join("corpus");
    if let Err(error) = fs::create_dir_all(&keep) {
        return fail(format!("{}: {error}", keep.display()), INFRASTRUCTURE);
    }
    let mut teller = Teller::new(target.name(), arguments.format);
    let until = Until {
        teller: Some(&mut teller),
        time: arguments.time,
        execs: arguments.execs,
        enough: &|_| false,
    };
    match campaign(new, target, first, Some(&keep), arguments.seed, until) {
        Ok(_) => ExitCode::SUCCESS,
        Err(why) => fail(why, INFRASTRUCTURE),
    }
}

fn out_of(arguments: &Fuzz) -> PathBuf {
    let usual = || PathBuf::from("reports/fuzz").join(&arguments.target);
    arguments.out.clone().unwrap_or_else(usual)
}

/// Runs a campaign: a process that may die, and this one, which starts another then.
pub fn fuzz(target: &'static dyn Target, arguments: &Fuzz) -> ExitCode {
    let out = out_of(arguments);
    let began = Instant::now();
    let before = findings(&out);
    let mut life = 0;
    loop {
        let left = arguments
            .time
            .map(|time| time.saturating_sub(began.elapsed()));
        if life > 0 && left.is_some_and(|left| left.is_zero()) {
            break;
        }
        let ended = std::env::current_exe()
            .and_then(|me| worker_command(&me, arguments, &out, left, life).status());
        match ended {
            Ok(ended) if ended.success() => break,
            Ok(ended) => match ended.code() {
                Some(crash::DIED) | None => life += 1,
                Some(code) => return ExitCode::from(u8::try_from(code).unwrap_or(INFRASTRUCTURE)),
            },
            Err(error) => return fail(format!("cannot start a worker: {error}"), INFRASTRUCTURE),
        }
    }
    let _ = target;
    let found = findings(&out);
    let new = found.saturating_sub(before);
    eprintln!(
        "cofferdam: {found} findings in {} ({new} new)",
        out.join(FINDINGS).display()
    );
    if found > 0 {
        ExitCode::from(FOUND)
    } else {
        ExitCode::SUCCESS
    }
}

fn findings(out: &Path) -> usize {
    let Ok(entries) = fs::read_dir(out.join(FINDINGS)) else {
        return 0;
    };
    let named = |name: &str| !name.starts_with('.');
    entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| named(name))
        .count()
}

fn worker_command(
    me: &Path,
    arguments: &Fuzz,
    out: &Path,
    left: Option<Duration>,
    life: u64,
) -> Command {
    let mut command = Command::new(me);
    command.arg("worker").arg(&arguments.target);
    if let Some(left) = left {
        command.arg("--time").arg(left.as_secs().max(1).to_string());
    }
    if let Some(execs) = arguments.execs {
        command.arg("--execs").arg(execs.to_string());
    }
    let seed = arguments
        .seed
        .wrapping_add(life.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    command.arg("--seed").arg(seed.to_string());
    for place in &arguments.corpus {
        command.arg("--corpus").arg(place);
    }
    if life > 0 {
        command.arg("--corpus").arg(out.join("corpus"));
    }
    command.arg("--out").arg(out);
    match arguments.format {
        Some(crate::arguments::Format::Json) => {
            command.args(["--format", "json"]);
        }
        Some(crate::arguments::Format::Text) => {
            command.args(["--format", "text"]);
        }
        None => {}
    }
    if arguments.no_feedback {
        command.arg("--no-feedback");
    }
    if let Some(crate::arguments::Place::Vm) = arguments.place {
        command.args(["--in", "vm"]);
    }
    command
}
