//! What may be asked for on the command line.

use crate::fuzz::{self, Fuzz};
use crate::instrument::Instrument;
use crate::own::{self, Files};
use crate::serve::Serve;
use crate::vfio::Vfio;
use clap::builder::{PossibleValue, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand, ValueEnum};
use cofferdam_backends::vfio::platform;
use cofferdam_experiment::catalogue::{
    CLOCKS, DRIVERS, FABRICS, FAULTS, IOMMU_MODES, clock_named, driver_named, fabric_named,
    fault_named, iommu_named, nearest,
};
use cofferdam_experiment::environment::guests;
use cofferdam_experiment::header::Wanted;
use cofferdam_experiment::plan::{Filter, MOST_OF_A_BOOT};
use cofferdam_experiment::replay::{Address, NoAddress};
use cofferdam_experiment::shard::Shard;
use cofferdam_machine::config::{FabricKind, IommuMode};
use cofferdam_placement::trial::{ClockKind, DriverId, PlacementId};
use cofferdam_report::listing::List;
use std::ffi::OsStr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

/// Runs device drivers behind a wall and attacks them from the device side.
#[derive(Parser)]
#[command(name = "cofferdam", version)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Where should a driver live? The same driver, device, faults and seeds in every placement.
    Compare(Compare),
    /// Does a cell end the same way every time? Runs some cells several times by the wall clock.
    Stability(Stability),
    /// What do a driver's split locks, each of which locks the bus, cost a tenant on another core? In
    /// pairs with a control, by the wall clock.
    SplitLock(SplitLock),
    /// Puts the shards of a comparison together: records, gates and report as of one run.
    Merge(Merge),
    /// Prints the JSON Schema of what a comparison writes.
    Schema {
        /// Of which file: a line of trials.jsonl, or summary.json.
        of: Written,
    },
    /// Runs one trial of a finished run again, or a finding or program of the fuzzer: says whether it
    /// comes out as recorded, and tells what happens in it, event by event.
    Replay(Replay),
    /// Is this driver safe? Fuzzes it from the device side.
    Fuzz(Fuzz),
    /// Makes the program of a finding smaller.
    Minimize(fuzz::Minimize),
    /// What there is to do with the fuzzer's programs.
    #[command(subcommand)]
    Corpus(fuzz::Corpus),
    /// Measures the fuzzer: executions a second, with its engine and without.
    FuzzBench(fuzz::Bench),
    /// Measures how long the fuzzer takes to find the planted bugs, and that it finds nothing in their
    /// fixed twins.
    TimeToBug(fuzz::TimeToBug),
    /// Lists what can be compared.
    List {
        /// What to list.
        what: What,
        /// How to print it.
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
        #[command(flatten)]
        files: Files,
    },
    /// The same drivers and oracles on a real device, through Linux VFIO.
    #[command(subcommand)]
    Vfio(Vfio),
    /// Serves a device, honest or not, to QEMU, Cloud Hypervisor and other clients of vfio-user.
    Serve(Serve),
    /// Runs cargo with the drivers instrumented: a trapped register access costs nanoseconds, not
    /// microseconds, and a driver that polls memory takes steps.
    Instrument(Instrument),
}

/// Which trials of the plan.
#[derive(Args)]
struct Selection {
    /// Minutes instead of half an hour: 3 trials a cell and 1 s of device time (otherwise 30 and 2 s).
    #[arg(long)]
    quick: bool,
    /// Only this placement; may be given again.
    #[arg(long = "placement", value_name = "P")]
    placements: Vec<String>,
    /// Only this platform, `usual` or one from a file; may be given again.
    #[arg(long = "platform", value_name = "P")]
    platforms: Vec<String>,
    #[command(flatten)]
    files: Files,
    /// Only this IOMMU mode; may be given again.
    #[arg(long = "iommu", value_name = "M", value_parser = modes(), ignore_case = true)]
    iommu: Vec<IommuMode>,
    /// Only this fabric; may be given again.
    #[arg(long = "fabric", value_name = "F", value_parser = fabrics(), ignore_case = true)]
    fabrics: Vec<FabricKind>,
    /// Only this driver; may be given again.
    #[arg(long = "driver", value_name = "D", value_parser = drivers(), ignore_case = true)]
    drivers: Vec<DriverId>,
    /// Only cases with interrupt remapping, or only those without.
    #[arg(long, value_enum, value_name = "S", ignore_case = true)]
    intremap: Option<Switch>,
    /// Only cases with Access Control Services, or only those without.
    #[arg(long, value_enum, value_name = "S", ignore_case = true)]
    acs: Option<Switch>,
    /// Only this fault, with its clean trials; may be given again.
    #[arg(long = "fault", value_name = "F", value_parser = faults(), ignore_case = true)]
    faults: Vec<String>,
    /// Trials a cell.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    trials: Option<u32>,
    /// Instead of --trials: as many trials a cell as it takes for N faults to act over all of them,
    /// accounted for at the end.
    #[arg(long, value_name = "N", conflicts_with = "trials", value_parser = clap::value_parser!(u64).range(1..))]
    injections: Option<u64>,
    /// Trials of a cell that share a boot, where their fault leaves everything as it was: 1 unless told,
    /// 8 with --injections. What it leaves is looked at after each.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_OF_A_BOOT)))]
    injections_per_boot: Option<u32>,
    /// The seed of the run, 1 unless told: the same seed, the same trials.
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
}

#[derive(Args)]
#[command(
    after_help = "Exit codes: 0 done; 1 a gate failed; 2 wrong usage; 3 the harness failed; \
                        130 interrupted, with a summary of what was finished."
)]
pub struct Compare {
    #[command(flatten)]
    selection: Selection,
    /// Then hold the model against a Linux guest behind QEMU's IOMMU, which is fetched if need be, and
    /// have its own driver meet controllers that lie: some, or all there are.
    #[arg(long, value_name = "SET", num_args = 0..=1, require_equals = true, default_missing_value = "quick")]
    pub reality: Option<Set>,
    /// The trials' clock: leap unless told.
    #[arg(long, value_name = "C", value_parser = clocks(), ignore_case = true)]
    clock: Option<ClockKind>,
    /// Only the I-th of N parts: every N-th trial of each cell. See `cofferdam merge`.
    #[arg(long, value_name = "I/N")]
    shard: Option<Shard>,
    /// Trials at a time; as many as there are cores by the leaping clock, 1 by the wall clock.
    #[arg(long, value_name = "N")]
    pub jobs: Option<NonZeroUsize>,
    /// Continues the run in DIR: runs what is missing. Options may be left out; those given must
    /// be the run's.
    #[arg(long, value_name = "DIR", conflicts_with = "out")]
    pub resume: Option<PathBuf>,
    /// Runs nothing for the record: prints what would run, and how long it should take.
    #[arg(long, conflicts_with_all = ["out", "resume", "reality"])]
    pub plan: bool,
    /// Where the results go.
    #[arg(
        long,
        value_name = "DIR",
        help = "A new or empty directory for the results [default: reports/compare-<UTC time>]"
    )]
    pub out: Option<PathBuf>,
    /// What to print at the end.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
    /// Print every case of a fault, not the fault as a whole.
    #[arg(long, short)]
    pub verbose: bool,
}

#[derive(Args)]
#[command(
    after_help = "Exit codes: 0 done; 1 a gate failed, or trials are missing; 2 wrong usage; \
                        3 the harness failed."
)]
pub struct Merge {
    /// Directories of runs of one plan, in any order.
    #[arg(value_name = "DIR", required = true)]
    pub from: Vec<PathBuf>,
    /// A new or empty directory for the result.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Merges what there is, though trials are missing.
    #[arg(long)]
    pub partial: bool,
    /// What to print at the end.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

#[derive(Args)]
#[command(
    after_help = "Exit codes: 0 done, whatever was found; 2 wrong usage; 3 the harness failed; \
                        130 interrupted, which says nothing of any cell."
)]
pub struct Stability {
    #[command(flatten)]
    selection: Selection,
    /// Faulty cells, spread evenly over what is selected; their clean cells are added.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=40), default_value_t = 40)]
    pub cells: u8,
    /// How often they are run.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=100), default_value_t = 5)]
    pub runs: u32,
    /// A new or empty directory for the results.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// What to print at the end.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

#[derive(Args)]
#[command(
    after_help = "Exit codes: 0 as recorded, or run by the wall clock; 1 not as recorded; 2 wrong \
                        usage; 3 the harness failed."
)]
pub struct Replay {
    /// The run's directory and the trial's index in its records, `reports/run#17`; or a finding's
    /// directory, or a program of the fuzzer.
    #[arg(value_name = "RUN_DIR#TRIAL | FINDING_DIR | PROGRAM", value_parser = again)]
    pub again: Again,
    /// Of a finding: how often.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub times: u32,
    /// Of a finding: prints a test that reproduces it.
    #[arg(long)]
    pub emit_test: bool,
    /// Of a finding: where the driver runs: vm, a KVM guest of its own; without it, in the runner's process.
    #[arg(long = "in", value_name = "PLACE", value_parser = ["vm"], conflicts_with_all = ["on", "emit_test"])]
    pub place: Option<String>,
    /// Of a finding or program: runs its driver on each of these, and tells the first access in which one
    /// differs from the first of them. Exit code 1 if one does, 3 if one is not available.
    #[arg(long, value_name = "BACKEND", value_delimiter = ',', conflicts_with_all = ["times", "emit_test", "out", "perfetto"])]
    pub on: Vec<On>,
    /// For `--on vfio`: the real device.
    #[arg(long, value_name = "ADDRESS", requires = "on")]
    pub device: Option<platform::Address>,
    #[command(flatten)]
    pub build: fuzz::Build,
    /// Where the trace goes instead of standard output.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Also writes the trace for a timeline: a file that ui.perfetto.dev opens.
    #[arg(long, value_name = "FILE")]
    pub perfetto: Option<PathBuf>,
}

/// Where a program's driver can run.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum On {
    /// The model in this process, by a virtual clock.
    Mock,
    /// The model, served over a socket.
    VfioUser,
    /// A real device.
    Vfio,
}

/// What can be run again.
#[derive(Clone)]
pub enum Again {
    Trial(Address),
    /// A finding's directory, or a program.
    Program(PathBuf),
}

/// A path that exists is a finding or a program; all others must be a trial's address.
fn again(text: &str) -> Result<Again, NoAddress> {
    if Path::new(text).exists() {
        return Ok(Again::Program(text.into()));
    }
    text.parse().map(Again::Trial)
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Text,
    Json,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    On,
    Off,
}

/// How many lying controllers Linux meets.
#[derive(Clone, Copy, ValueEnum)]
pub enum Set {
    /// Four, behind an IOMMU.
    Quick,
    /// One of each fault, without and behind an IOMMU: some minutes.
    All,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Written {
    Trials,
    Summary,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum What {
    Placements,
    Platforms,
    Faults,
    Drivers,
    Devices,
    Iommu,
    Fabrics,
    Clocks,
    Oracles,
}

impl What {
    /// What the report knows how to list; not the fuzzer's oracles.
    pub fn list(self) -> Option<List> {
        Some(match self {
            Self::Placements => List::Placements,
            Self::Platforms => List::Platforms,
            Self::Faults => List::Faults,
            Self::Drivers => List::Drivers,
            Self::Devices => List::Devices,
            Self::Iommu => List::IommuModes,
            Self::Fabrics => List::Fabrics,
            Self::Clocks => List::Clocks,
            Self::Oracles => return None,
        })
    }
}

impl Selection {
    /// What it asks for, by that clock.
    fn wanted(&self, clock: Option<ClockKind>, continued: Option<&Path>) -> Result<Wanted, String> {
        let known = self.files.register(continued);
        known.map_err(|error| error.to_string())?;
        let placements = self.placements.iter().map(|id| own::placement(id));
        let placements = placements.collect::<Result<Vec<PlacementId>, _>>()?;
        // A run that is continued has the plan it had.
        let guests = if continued.is_some() {
            None
        } else {
            guests().err()
        };
        let named = placements.iter().find(|id| id.placement().needs_kvm());
        if let (Some(why), Some(named)) = (&guests, named) {
            return Err(format!("{} needs KVM: {why}", named.placement().id));
        }
        let platforms = self.platforms.iter().map(|id| own::platform(id));
        Ok(Wanted {
            quick: self.quick,
            clock,
            trials: self.trials,
            injections: self.injections,
            injections_per_boot: self.injections_per_boot,
            seed: self.seed,
            filter: Filter {
                placements,
                platforms: platforms.collect::<Result<_, _>>()?,
                iommu: self.iommu.clone(),
                fabrics: self.fabrics.clone(),
                drivers: self.drivers.clone(),
                intremap: self.intremap.map(|switch| switch == Switch::On),
                acs: self.acs.map(|switch| switch == Switch::On),
                faults: self.faults.clone(),
                without_kvm: guests.is_some(),
            },
            shard: None,
        })
    }
}

#[derive(Args)]
pub struct SplitLock {
    /// Where the driver is; may be given again [user-process, and driver-vm where there is KVM].
    #[arg(long = "placement", value_name = "P")]
    pub placements: Vec<String>,
    /// Pairs of trials a placement; with 30 or more the medians have intervals.
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub pairs: u32,
    /// What the trials' contents are drawn from.
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,
    /// How to print it.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

impl Compare {
    pub fn wanted(&self) -> Result<Wanted, String> {
        Ok(Wanted {
            shard: self.shard,
            ..self.selection.wanted(self.clock, self.resume.as_deref())?
        })
    }
}

impl Stability {
    pub fn wanted(&self) -> Result<Wanted, String> {
        self.selection.wanted(Some(ClockKind::Wall), None)
    }
}

/// A parser of the ids of a list: a wrong one is answered with the nearest and where all are.
#[derive(Clone)]
struct Ids<F> {
    /// What one of them is called.
    noun: &'static str,
    /// The command that lists them.
    list: &'static str,
    items: Vec<(&'static str, &'static str)>,
    named: F,
}

impl<T, F> TypedValueParser for Ids<F>
where
    T: Clone + Send + Sync + 'static,
    F: Fn(&str) -> Option<T> + Clone + Send + Sync + 'static,
{
    type Value = T;

    fn parse_ref(
        &self,
        command: &clap::Command,
        _: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<T, clap::Error> {
        let text = value.to_string_lossy();
        let known = self
            .items
            .iter()
            .map(|item| item.0)
            .find(|id| id.eq_ignore_ascii_case(&text));
        known.and_then(&self.named).ok_or_else(|| {
            let ids = self.items.iter().map(|item| item.0);
            let meant = nearest(&text, ids).map(|id| format!("did you mean '{id}'? "));
            let meant = meant.unwrap_or_default();
            let (noun, list) = (self.noun, self.list);
            let answer = format!("no {noun} is called '{text}': {meant}`{list}` shows all\n");
            clap::Error::raw(ErrorKind::InvalidValue, answer).with_cmd(command)
        })
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let values = self.items.iter();
        Some(Box::new(
            values.map(|(id, line)| PossibleValue::new(*id).help(*line)),
        ))
    }
}

fn modes() -> impl TypedValueParser<Value = IommuMode> {
    Ids {
        noun: "IOMMU mode",
        list: "cofferdam list iommu",
        items: IOMMU_MODES
            .iter()
            .map(|item| (item.id, item.line))
            .collect(),
        named: iommu_named,
    }
}

fn fabrics() -> impl TypedValueParser<Value = FabricKind> {
    Ids {
        noun: "fabric",
        list: "cofferdam list fabrics",
        items: FABRICS.iter().map(|item| (item.id, item.line)).collect(),
        named: fabric_named,
    }
}

fn drivers() -> impl TypedValueParser<Value = DriverId> {
    Ids {
        noun: "driver",
        list: "cofferdam list drivers",
        items: DRIVERS.iter().map(|entry| (entry.id, entry.line)).collect(),
        named: driver_named,
    }
}

fn faults() -> impl TypedValueParser<Value = String> {
    Ids {
        noun: "fault",
        list: "cofferdam list faults",
        items: FAULTS.iter().map(|fault| (fault.id, fault.line)).collect(),
        named: |id: &str| fault_named(id).map(|fault| fault.id.to_owned()),
    }
}

fn clocks() -> impl TypedValueParser<Value = ClockKind> {
    Ids {
        noun: "clock",
        list: "cofferdam list clocks",
        items: CLOCKS.iter().map(|item| (item.id, item.line)).collect(),
        named: clock_named,
    }
}
