//! What may be asked for on the command line.

use crate::vfio::Vfio;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use cofferdam_experiment::catalogue::{
    CLOCKS, DRIVERS, FABRICS, FAULTS, IOMMU_MODES, PLACEMENTS, clock_named, driver_named,
    fabric_named, fault_named, iommu_named, placement_named,
};
use cofferdam_experiment::plan::{Filter, Settings};
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
}

#[derive(Args)]
#[command(
    after_help = "Exit codes: 0 done; 1 a gate failed; 2 wrong usage; 3 the harness failed; \
                        130 interrupted, with a summary of what was finished."
)]
pub struct Compare {
    /// Minutes instead of hours: 3 trials a cell, 12 requests a tenant, 1 s of device time
    /// (otherwise 30, 24 and 2 s).
    #[arg(long)]
    quick: bool,
    /// Then hold the model against a Linux guest behind QEMU's IOMMU, which is fetched if need be.
    #[arg(long)]
    pub reality: bool,
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
    /// Only cases with interrupt remapping, or only those without.
    #[arg(long, value_enum, value_name = "S", ignore_case = true)]
    intremap: Option<Switch>,
    /// Only cases with Access Control Services, or only those without.
    #[arg(long, value_enum, value_name = "S", ignore_case = true)]
    acs: Option<Switch>,
    /// Only this fault, with its clean trials; may be given again.
    #[arg(long = "fault", value_name = "F", value_parser = faults(), ignore_case = true)]
    faults: Vec<String>,
    /// The trials' clock.
    #[arg(long, value_name = "C", value_parser = clocks(), ignore_case = true, default_value = "leap")]
    clock: ClockKind,
    /// Trials a cell.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    trials: Option<u32>,
    /// The seed of the run: the same seed, the same trials.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
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

impl Compare {
    pub fn settings(&self) -> Settings {
        let usual = if self.quick {
            Settings::QUICK
        } else {
            Settings::FULL
        };
        Settings {
            clock: self.clock,
            trials: self.trials.unwrap_or(usual.trials),
            seed: self.seed,
            ..usual
        }
    }

    pub fn filter(&self) -> Filter {
        Filter {
            placements: self.placements.clone(),
            iommu: self.iommu.clone(),
            fabrics: self.fabrics.clone(),
            drivers: self.drivers.clone(),
            intremap: self.intremap.map(|switch| switch == Switch::On),
            acs: self.acs.map(|switch| switch == Switch::On),
            faults: self.faults.clone(),
        }
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
