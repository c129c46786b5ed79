//! `run.json`: what a run is, written before its first trial, so that the records of a run that was
//! killed can be read, repeated and completed, and those of its shards be put together.

use crate::crossings::Crossings;
use crate::environment::Environment;
use crate::plan::{Filter, Plan, PlanError, Settings};
use crate::record::SCHEMA;
use crate::shard::Shard;
use crate::split_locks::SplitLocks;
use cofferdam_placement::own::{self, OwnError, Source};
use cofferdam_placement::trial::ClockKind;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// The file's name.
pub const HEADER: &str = "run.json";

/// What a difference in trials that share a boot is called.
const PER_BOOT: &str = "--injections-per-boot";

/// What a difference in users' files is called.
const FILES: &str = "what --placement-file and --platform-file give";

/// Trials that share a boot where so many faults are asked for, unless told.
pub const PER_BOOT_OF_CAMPAIGN: u32 = 8;

/// What `run.json` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Version of the records' schema.
    pub schema: u32,
    /// Trials planned.
    pub planned: u64,
    /// [`Plan::digest`].
    pub plan: String,
    /// What is the same for all trials.
    pub settings: Settings,
    /// The subset of the plan.
    pub filter: Filter,
    /// The part of that subset, if it is not all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<Shard>,
    /// The name of the environment.
    pub environment_id: String,
    /// Where it takes place.
    pub environment: Environment,
    /// Where some of its trials took place instead.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub elsewhere: Vec<Environment>,
    /// What a crossing took on its host, if that was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crossings: Option<Crossings>,
    /// What split locks cost a bystander on its host, if that was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split_locks: Option<SplitLocks>,
    /// The users' files it ran with, so that it can be read and continued without them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub own: Vec<Source>,
}

/// What somebody asked for; what was left out is as usual, or as in the run that is continued.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// [`Settings::QUICK`] instead of [`Settings::FULL`].
    pub quick: bool,
    /// The clock.
    pub clock: Option<ClockKind>,
    /// Trials a cell.
    pub trials: Option<u32>,
    /// Instead of them, faults that should act over all cells.
    pub injections: Option<u64>,
    /// Trials that may share a boot.
    pub injections_per_boot: Option<u32>,
    /// The run's seed.
    pub seed: Option<u64>,
    /// The subset.
    pub filter: Filter,
    /// The part of it.
    pub shard: Option<Shard>,
}

/// Why the run in a directory is not the one to continue or to put together.
#[derive(Debug, Error)]
pub enum HeaderError {
    /// There is no readable header.
    #[error("cannot read {path}: {why}; name the directory of a run of this version")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// A value is another.
    #[error("{what} is {there} in {path} and {here} here: results are never mixed; {remedy}")]
    Differs {
        /// Which.
        what: &'static str,
        /// In the directory.
        there: String,
        /// In this program, on the command line or in the first directory.
        here: String,
        /// The directory.
        path: PathBuf,
        /// What to do.
        remedy: &'static str,
    },
    /// A file of a user's that it ran with is none here.
    #[error(transparent)]
    Own(#[from] OwnError),
    /// Its plan cannot be made.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

impl Wanted {
    fn settings(&self) -> Settings {
        let usual = if self.quick {
            Settings::QUICK
        } else {
            Settings::FULL
        };
        Settings {
            clock: self.clock.unwrap_or(usual.clock),
            trials: self.trials.unwrap_or(usual.trials),
            seed: self.seed.unwrap_or(usual.seed),
            injections_per_boot: self.per_boot(),
            ..usual
        }
    }

    /// Who asks for so many faults wants them soon; else every trial has a boot of its own.
    fn per_boot(&self) -> u32 {
        let by_wall = self.clock == Some(ClockKind::Wall);
        let usual = match self.injections {
            Some(_) if !by_wall => PER_BOOT_OF_CAMPAIGN,
            _ => 1,
        };
        self.injections_per_boot.unwrap_or(usual)
    }

    /// The plan of a new run.
    pub fn plan(&self) -> Result<Plan, PlanError> {
        let (settings, filter) = (self.settings(), self.filter.clone());
        let plan = match self.injections {
            Some(wanted) => Plan::of_injections(settings, filter, wanted)?,
            None => Plan::new(settings, filter)?,
        };
        match self.shard {
            Some(shard) => plan.shard(shard),
            None => Ok(plan),
        }
    }
}

/// Two values of one name, compared.
struct Comparison<'a> {
    path: &'a Path,
    remedy: &'static str,
}

impl Comparison<'_> {
    fn same<T: PartialEq + Serialize>(
        &self,
        what: &'static str,
        there: &T,
        here: &T,
    ) -> Result<(), HeaderError> {
        if there == here {
            return Ok(());
        }
        Err(HeaderError::Differs {
            what,
            there: words(there),
            here: words(here),
            path: self.path.to_owned(),
            remedy: self.remedy,
        })
    }

    /// Lists of a filter mean sets, and an empty one means all.
    fn same_list<T: Serialize>(
        &self,
        what: &'static str,
        there: &[T],
        here: &[T],
    ) -> Result<(), HeaderError> {
        let set = |list: &[T]| -> BTreeSet<String> { list.iter().map(words).collect() };
        let name = |set: BTreeSet<String>| match set.len() {
            0 => "all".to_owned(),
            _ => set.into_iter().collect::<Vec<_>>().join(", "),
        };
        self.same(what, &name(set(there)), &name(set(here)))
    }

    /// What was not asked for is not compared.
    fn asked<T: Serialize>(
        &self,
        what: &'static str,
        there: &[T],
        asked: &[T],
    ) -> Result<(), HeaderError> {
        if asked.is_empty() {
            return Ok(());
        }
        self.same_list(what, there, asked)
    }

    fn same_filter(&self, there: &Filter, here: &Filter) -> Result<(), HeaderError> {
        self.same_list("--placement", &there.placements, &here.placements)?;
        self.same_list("--platform", &there.platforms, &here.platforms)?;
        self.same_list("--iommu", &there.iommu, &here.iommu)?;
        self.same_list("--fabric", &there.fabrics, &here.fabrics)?;
        self.same_list("--driver", &there.drivers, &here.drivers)?;
        self.same_list("--fault", &there.faults, &here.faults)
    }
}

/// What names the files of users.
fn names(own: &[Source]) -> Vec<String> {
    let name = |source: &Source| format!("{:?} {}", source.kind, source.digest()).to_lowercase();
    own.iter().map(name).collect()
}

/// Makes the users' files known that the run in a directory ran with, if it says so. Its records name
/// them.
pub fn know_own(directory: &Path) -> Result<(), OwnError> {
    // Whoever needs the header reads it, and says what is wrong with it.
    fs::read(directory.join(HEADER)).map_or(Ok(()), |bytes| know(&bytes))
}

fn know(header: &[u8]) -> Result<(), OwnError> {
    #[derive(Deserialize)]
    struct Files {
        #[serde(default)]
        own: Vec<Source>,
    }
    let Ok(files) = serde_json::from_slice::<Files>(header) else {
        return Ok(());
    };
    for source in &files.own {
        own::register(source)?;
    }
    Ok(())
}

fn words(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(text)) => text,
        Ok(serde_json::Value::Null) => "none".to_owned(),
        Ok(value) => value.to_string(),
        Err(error) => error.to_string(),
    }
}

impl Header {
    /// The header of a run of that plan, in that environment.
    pub fn new(plan: &Plan, environment: Environment) -> Self {
        Self {
            schema: SCHEMA,
            planned: plan.len(),
            plan: plan.digest(),
            settings: plan.settings().clone(),
            filter: plan.filter().clone(),
            shard: plan.part(),
            environment_id: environment.id(),
            environment,
            elsewhere: Vec::new(),
            crossings: None,
            split_locks: None,
            own: own::sources(),
        }
    }

    /// Reads the header of the run in a directory, which must be one of this very version.
    pub fn read(directory: &Path) -> Result<Self, HeaderError> {
        let path = directory.join(HEADER);
        let unreadable = |why: String| HeaderError::Unreadable {
            path: path.clone(),
            why,
        };
        let bytes = fs::read(&path).map_err(|error| unreadable(error.to_string()))?;
        know(&bytes)?;
        let header: Self =
            serde_json::from_slice(&bytes).map_err(|error| unreadable(error.to_string()))?;
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let with = Comparison {
            path: directory,
            remedy: "use the program that made it",
        };
        with.same("the version", &header.environment.cofferdam, &version)?;
        with.same("the schema", &header.schema, &SCHEMA)?;
        Ok(header)
    }

    /// The plan of the run in `directory`, of which this is the header, if this program would make
    /// the same.
    pub fn plan(&self, directory: &Path) -> Result<Plan, HeaderError> {
        let whole = Plan::new(self.settings.clone(), self.filter.clone())?;
        let plan = match self.shard {
            Some(shard) => whole.shard(shard)?,
            None => whole,
        };
        let with = Comparison {
            path: directory,
            remedy: "use the program that made it",
        };
        with.same("the plan's digest", &self.plan, &plan.digest())?;
        Ok(plan)
    }

    /// The plan to continue with: whatever was asked for must be what the run is.
    pub fn plan_as_wanted(&self, directory: &Path, wanted: &Wanted) -> Result<Plan, HeaderError> {
        let with = Comparison {
            path: directory,
            remedy: "leave the option out to continue, or start anew in another directory",
        };
        with.same_list(FILES, &names(&self.own), &names(&own::sources()))?;
        let (there, usual) = (&self.settings, wanted.settings());
        if let Some(clock) = wanted.clock {
            with.same("--clock", &there.clock, &clock)?;
        }
        if wanted.quick {
            with.same(
                "requests a tenant (--quick)",
                &there.requests,
                &usual.requests,
            )?;
            with.same(
                "the horizon in ns (--quick)",
                &there.horizon_ns,
                &usual.horizon_ns,
            )?;
        }
        if wanted.trials.is_some() {
            with.same("--trials", &there.trials, &usual.trials)?;
        }
        if wanted.injections.is_some() {
            with.same("--injections", &there.injections, &wanted.injections)?;
        }
        if wanted.injections_per_boot.is_some() {
            let (there, here) = (there.injections_per_boot, usual.injections_per_boot);
            with.same(PER_BOOT, &there, &here)?;
        }
        if let Some(seed) = wanted.seed {
            with.same("--seed", &there.seed, &seed)?;
        }
        if wanted.shard.is_some() {
            with.same("--shard", &self.shard, &wanted.shard)?;
        }
        let (there, wanted) = (&self.filter, &wanted.filter);
        with.asked("--placement", &there.placements, &wanted.placements)?;
        with.asked("--platform", &there.platforms, &wanted.platforms)?;
        with.asked("--iommu", &there.iommu, &wanted.iommu)?;
        with.asked("--fabric", &there.fabrics, &wanted.fabrics)?;
        with.asked("--driver", &there.drivers, &wanted.drivers)?;
        with.asked("--fault", &there.faults, &wanted.faults)?;
        self.plan(directory)
    }

    /// Whether the run in `directory`, whose header `other` is, is of the same plan.
    pub fn same_plan(&self, other: &Self, directory: &Path) -> Result<(), HeaderError> {
        let with = Comparison {
            path: directory,
            remedy: "merge runs of one plan only",
        };
        let (there, here) = (&other.settings, &self.settings);
        with.same("--seed", &there.seed, &here.seed)?;
        with.same("--clock", &there.clock, &here.clock)?;
        with.same("--trials", &there.trials, &here.trials)?;
        let per_boot = (there.injections_per_boot, here.injections_per_boot);
        with.same(PER_BOOT, &per_boot.0, &per_boot.1)?;
        with.same("requests a tenant", &there.requests, &here.requests)?;
        with.same("the horizon in ns", &there.horizon_ns, &here.horizon_ns)?;
        with.same_list(FILES, &names(&other.own), &names(&self.own))?;
        with.same_filter(&other.filter, &self.filter)?;
        with.same("the plan's digest", &other.plan, &self.plan)?;
        for environment in other.environments() {
            self.admit(environment, directory)?;
        }
        Ok(())
    }

    /// Whether trials of that environment may be among this run's. By the leaping clock they are
    /// the same everywhere; figures by the wall clock are those of one host.
    pub fn admit(&self, other: &Environment, directory: &Path) -> Result<(), HeaderError> {
        let with = Comparison {
            path: directory,
            remedy: "wall-clock figures of one host only belong together",
        };
        match self.settings.clock {
            ClockKind::Leap => Ok(()),
            ClockKind::Wall => with.same("the environment", &self.environment, other),
        }
    }

    /// Every environment its trials took place in.
    pub fn environments(&self) -> impl Iterator<Item = &Environment> {
        std::iter::once(&self.environment).chain(&self.elsewhere)
    }
}
