//! Puts the shards of a plan together: what comes of it is what one run of the whole would have
//! written, whoever ran which part, and in whatever order, or twice, they are named.

use crate::assemble::{AssembleError, Assembly};
use crate::environment::Environment;
use crate::header::{HEADER, Header, HeaderError};
use crate::out::{Directory, OutError, TRIALS};
use crate::plan::{Plan, PlanError};
use crate::run::{Close, Finished, RunError, write_all};
use crate::shard::Shard;
use crate::summary::{Collector, State};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why runs cannot be put together.
#[derive(Debug, Error)]
pub enum MergeError {
    /// No directory was named.
    #[error("there is nothing to merge: name the directories of the shards")]
    Nothing,
    /// One of them is not of the same plan.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// Their records.
    #[error(transparent)]
    Assemble(#[from] AssembleError),
    /// Trials without a record.
    #[error(
        "{missing} of {planned} trials are missing, {by_shard}; the first is trial {first} \
         ({cell}): run or continue what is missing, or merge what there is with --partial"
    )]
    Missing {
        /// How many.
        missing: u64,
        /// How many there should be.
        planned: u64,
        /// How many of which shard.
        by_shard: String,
        /// The first.
        first: u64,
        /// Its cell.
        cell: String,
    },
    /// The result cannot be written.
    #[error(transparent)]
    Run(#[from] RunError),
}

impl From<PlanError> for MergeError {
    fn from(error: PlanError) -> Self {
        HeaderError::from(error).into()
    }
}

impl From<OutError> for MergeError {
    fn from(error: OutError) -> Self {
        RunError::from(error).into()
    }
}

/// Merges runs of one plan into a new directory. Unless `partial`, every trial must be there.
pub fn merge(from: &[PathBuf], out: &Path, partial: bool) -> Result<Finished, MergeError> {
    let (first, others) = from.split_first().ok_or(MergeError::Nothing)?;
    let header = Header::read(first)?;
    let mut shards = vec![header.shard];
    let mut places: BTreeMap<String, Environment> = BTreeMap::new();
    let mut place = |header: &Header| {
        for environment in header.environments() {
            places.insert(environment.id(), environment.clone());
        }
    };
    place(&header);
    for path in others {
        let other = Header::read(path)?;
        header.same_plan(&other, path)?;
        place(&other);
        shards.push(other.shard);
    }

    // Proves that this program makes the plan the digest is of; no list was made before, to which a
    // header might have added.
    header.plan(first)?;
    let plan = Plan::new(header.settings.clone(), header.filter.clone())?;
    let mut assembly = Assembly::new(&plan);
    for path in from {
        assembly.add(&path.join(TRIALS))?;
    }
    assembly.sort_guest();
    let missing = plan.len() - assembly.len();
    if missing > 0 && !partial {
        return Err(what_is_missing(&plan, &assembly, &shards));
    }

    // The environment of the first trial leads, whichever directory was named first.
    let mut environments: Vec<Environment> = assembly
        .environments()
        .into_iter()
        .filter_map(|name| places.get(name).cloned())
        .collect();
    if environments.is_empty() {
        environments.extend(places.into_values().take(1));
    }
    let mut environments = environments.into_iter();
    let leading = environments.next().unwrap_or(header.environment);
    let header = Header {
        elsewhere: environments.collect(),
        ..Header::new(&plan, leading)
    };

    let mut directory = Directory::create(out)?;
    let text = serde_json::to_vec_pretty(&header).map_err(RunError::from)?;
    directory.replace(HEADER, &text)?;
    directory.rewrite(|write| write_all(&assembly, write))?;
    let mut collector = Collector::default();
    assembly.each(|record| -> Result<(), MergeError> {
        collector.add(&record);
        Ok(())
    })?;
    let close = Close {
        plan: &plan,
        header,
        state: if missing == 0 {
            State::Complete
        } else {
            State::Interrupted
        },
        directory,
        guest: assembly.guest().to_vec(),
    };
    Ok(close.with(collector)?)
}

/// Counts what is missing by shard, if all are shards of one division.
fn what_is_missing(plan: &Plan, assembly: &Assembly<'_>, shards: &[Option<Shard>]) -> MergeError {
    let of = shards.iter().map(|shard| shard.map(Shard::of));
    let division = of.reduce(|one, other| one.filter(|of| other == Some(*of)));
    let mut counts: BTreeMap<u32, u64> = BTreeMap::new();
    let mut missing = 0;
    let mut first = None;
    for trial in assembly.missing() {
        missing += 1;
        let group = match division.flatten() {
            Some(of) => trial.number % of + 1,
            None => trial.number,
        };
        *counts.entry(group).or_default() += 1;
        first.get_or_insert((trial.index, trial.cell.id()));
    }
    // A list of all would be no answer.
    let shown = 8;
    let mut by_shard: Vec<String> = counts
        .iter()
        .take(shown)
        .map(|(group, count)| match division.flatten() {
            Some(of) => format!("{count} of shard {group}/{of}"),
            None => format!("{count} of those with number {group}"),
        })
        .collect();
    if counts.len() > shown {
        by_shard.push("and more".to_owned());
    }
    let (first, cell) = first.unwrap_or_default();
    MergeError::Missing {
        missing,
        planned: plan.len(),
        by_shard: by_shard.join(", "),
        first,
        cell,
    }
}
