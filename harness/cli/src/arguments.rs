//! What may be asked for on the command line.

use crate::instrument::Instrument;
use crate::vfio::Vfio;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use cofferdam_experiment::catalogue::{
    CLOCKS, DRIVERS, FABRICS, FAULTS, IOMMU_MODES, PLACEMENTS, clock_named, driver_named,
    fabric_named, fault_named, iommu_named, placement_named,
};
use cofferdam_experiment::plan::{Filter, Settings};
use cofferdam_experiment::replay::Address;
use cofferdam_machine::config::{FabricKind, IommuMode};
use cofferdam_placement::trial::{ClockKind, DriverId, PlacementId};
use cofferdam_report::listing::List;
use std::path::PathBuf;

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
    /// Runs one trial of a finished run again, says whether it comes out as recorded, and tells what
    /// happens in it, event by event.
    Replay(Replay),
    /// Lists what can be compared.
    List {
        /// What to list.
        what: What,
        /// How to print it.
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// The same drivers and oracles on a real device, through Linux VFIO.
    #[command(subcommand)]
    Vfio(Vfio),
    /// Runs cargo with the drivers instrumented: a trapped register access costs nanoseconds, not
    /// microseconds, and a driver that polls memory takes steps.
    Instrument(Instrument),
}

/// Which trials of the plan.
#[derive(Args)]
struct Selection {
    /// Minutes instead of hours: 3 trials a cell, 12 requests a tenant, 1 s of device time
    /// (otherwise 30, 24 and 2 s).
    #[arg(long)]
    quick: bool,
    /// Only this placement; may be given again.
    #[arg(long = "placement", value_name = "P", value_parser = placements(), ignore_case = true)]
    placements: Vec<PlacementId>,
    /// Only this IOMMU mode; may be given again.
    #[arg(long = "iommu", value_name = "M", value_parser = modes(), ignore_case = true)]
    iommu: Vec<IommuMode>,
    /// Only this fabric; may be given again.
    #[arg(long = "fabric", value_name = "F", value_parser = fabrics(), ignore_case = true)]
    fabrics: Vec<FabricKind>,
    /// Only this driver; may be given again.
    #[arg(long = "driver", value_name = "D", value_parser = drivers(), ignore_case = true)]
    drivers: Vec<DriverId>,
    /// Only this fault, with its clean trials; may be given again.
    #[arg(long = "fault", value_name = "F", value_parser = faults(), ignore_case = true)]
    faults: Vec<String>,
    /// Trials a cell.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    trials: Option<u32>,
    /// The seed of the run: the same seed, the same trials.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
}

#[derive(Args)]
#[command(
    after_help = "Exit codes: 0 done; 1 a gate failed; 2 wrong usage; 3 the harness failed; \
                        130 interrupted, with a summary of what was finished."
)]
pub struct Compare {
    #[command(flatten)]
    selection: Selection,
    /// Then hold the model against a Linux guest behind QEMU's IOMMU, which is fetched if need be.
    #[arg(long)]
    pub reality: bool,
    /// The trials' clock.
    #[arg(long, value_name = "C", value_parser = clocks(), ignore_case = true, default_value = "leap")]
    clock: ClockKind,
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
    /// The run's directory and the trial's index in its records: `reports/run#17`.
    #[arg(value_name = "RUN_DIR#TRIAL")]
    pub trial: Address,
    /// Where the trace goes instead of standard output.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Also writes the trace for a timeline: a file that ui.perfetto.dev opens.
    #[arg(long, value_name = "FILE")]
    pub perfetto: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Text,
    Json,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum What {
    Placements,
    Faults,
    Drivers,
    Devices,
}

impl From<What> for List {
    fn from(what: What) -> Self {
        match what {
            What::Placements => Self::Placements,
            What::Faults => Self::Faults,
            What::Drivers => Self::Drivers,
            What::Devices => Self::Devices,
        }
    }
}

impl Selection {
    fn settings(&self, clock: ClockKind) -> Settings {
        let usual = if self.quick {
            Settings::QUICK
        } else {
            Settings::FULL
        };
        Settings {
            clock,
            trials: self.trials.unwrap_or(usual.trials),
            seed: self.seed,
            ..usual
        }
    }

    fn filter(&self) -> Filter {
        Filter {
            placements: self.placements.clone(),
            iommu: self.iommu.clone(),
            fabrics: self.fabrics.clone(),
            drivers: self.drivers.clone(),
            faults: self.faults.clone(),
        }
    }
}

impl Compare {
    pub fn settings(&self) -> Settings {
        self.selection.settings(self.clock)
    }

    pub fn filter(&self) -> Filter {
        self.selection.filter()
    }
}

impl Stability {
    pub fn settings(&self) -> Settings {
        self.selection.settings(ClockKind::Wall)
    }

    pub fn filter(&self) -> Filter {
        self.selection.filter()
    }
}

/// A parser of the ids of a list: a wrong one is answered with all of them and the nearest.
fn ids<T: Clone + Send + Sync + 'static>(
    items: impl Iterator<Item = (&'static str, &'static str)>,
    named: impl Fn(&str) -> Option<T> + Clone + Send + Sync + 'static,
) -> impl TypedValueParser<Value = T> {
    let values = items.map(|(id, line)| PossibleValue::new(id).help(line));
    PossibleValuesParser::new(values).try_map(move |id| named(&id).ok_or("not in the catalogue"))
}

fn placements() -> impl TypedValueParser<Value = PlacementId> {
    ids(
        PLACEMENTS.iter().map(|entry| (entry.id, entry.line)),
        placement_named,
    )
}

fn modes() -> impl TypedValueParser<Value = IommuMode> {
    ids(
        IOMMU_MODES.iter().map(|item| (item.id, item.line)),
        iommu_named,
    )
}

fn fabrics() -> impl TypedValueParser<Value = FabricKind> {
    ids(
        FABRICS.iter().map(|item| (item.id, item.line)),
        fabric_named,
    )
}

fn drivers() -> impl TypedValueParser<Value = DriverId> {
    ids(
        DRIVERS.iter().map(|entry| (entry.id, entry.line)),
        driver_named,
    )
}

fn faults() -> impl TypedValueParser<Value = String> {
    ids(FAULTS.iter().map(|fault| (fault.id, fault.line)), |id| {
        fault_named(id).map(|fault| fault.id.to_owned())
    })
}

fn clocks() -> impl TypedValueParser<Value = ClockKind> {
    ids(CLOCKS.iter().map(|item| (item.id, item.line)), clock_named)
}
