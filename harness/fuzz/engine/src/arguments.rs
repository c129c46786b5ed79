//! What a runner can be asked.

use clap::{Args, Parser, Subcommand, ValueEnum};
use cofferdam_fuzz::oracle::Oracle;
use std::path::PathBuf;
use std::time::Duration;

/// A runner: drivers under test, and what to do with them.
#[derive(Parser)]
#[command(version, about)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Lists the targets.
    Targets,
    /// Runs a campaign.
    Fuzz(Fuzz),
    /// One process of a campaign; started by `fuzz`.
    #[command(hide = true)]
    Worker(Fuzz),
    /// Runs a program or a finding again, and tells what happens.
    Replay(Replay),
    /// Makes a program smaller that shows a finding.
    Minimize(Minimize),
    /// Measures executions a second, with the engine and without.
    Bench(Bench),
    /// Keeps as few programs of a corpus as do all that all of them do.
    Cover(Cover),
    /// Runs workloads against the honest device. There must be no finding.
    Honest(Honest),
    /// Runs programs with registers trapped in both ways, which must see the same accesses.
    Agree(Agree),
    /// Measures how long known bugs take to be found.
    TimeToBug(TimeToBug),
    /// The campaigns of one driver; started by `time-to-bug`.
    #[command(hide = true)]
    Chase(Chase),
}

/// How a campaign is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// JSON, an object a line.
    Json,
}

/// Where a driver can run, if not in the runner's own process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Place {
    /// In a KVM guest of its own.
    Vm,
}

#[derive(Args, Clone)]
#[command(
    after_help = "Exit codes: 0 no findings; 1 findings; 2 wrong usage; 3 the harness failed."
)]
pub struct Fuzz {
    /// Which driver.
    pub target: String,
    /// Ends after that time: 30, 30s, 5m, 2h. Without this and --execs: until interrupted.
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub time: Option<Duration>,
    /// Ends after so many executions.
    #[arg(long, value_name = "N")]
    pub execs: Option<u64>,
    /// Where random numbers start. With --execs the same seed does the same.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Programs to start from.
    #[arg(long, value_name = "DIR")]
    pub corpus: Vec<PathBuf>,
    /// Where findings and new programs go.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// How progress is told; JSON if standard output is no terminal.
    #[arg(long)]
    pub format: Option<Format>,
    /// Does not look at coverage: for comparisons.
    #[arg(long)]
    pub no_feedback: bool,
    /// Where the driver runs; without it, in this process. In a VM there is no coverage.
    #[arg(long = "in", value_name = "PLACE")]
    pub place: Option<Place>,
}

#[derive(Args)]
pub struct Replay {
    /// The directory of a finding, or a program.
    pub path: PathBuf,
    /// How often.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub times: u32,
    /// Prints a test that reproduces it instead.
    #[arg(long)]
    pub emit_test: bool,
    /// Where the driver runs; without it, in this process.
    #[arg(long = "in", value_name = "PLACE")]
    pub place: Option<Place>,
}

#[derive(Args)]
pub struct Minimize {
    /// The directory of a finding, or a program.
    pub path: PathBuf,
    /// Where the driver runs; without it, in this process.
    #[arg(long = "in", value_name = "PLACE")]
    pub place: Option<Place>,
}

#[derive(Args)]
pub struct Bench {
    /// Which driver.
    pub target: String,
    /// Executions of each kind.
    #[arg(long, default_value_t = 500_000)]
    pub execs: u64,
    /// Programs to start from.
    #[arg(long, value_name = "DIR")]
    pub corpus: Vec<PathBuf>,
    /// Only the loop without the engine, for profilers.
    #[arg(long)]
    pub bare: bool,
}

#[derive(Args)]
pub struct Cover {
    /// Which driver.
    pub target: String,
    /// The programs.
    pub from: PathBuf,
    /// Where those go that are kept.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

#[derive(Args)]
pub struct Agree {
    /// Which driver: one that reaches registers through pointers.
    pub target: String,
    /// Programs.
    #[arg(long, default_value_t = 300)]
    pub execs: u64,
    /// Where random numbers start.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
}

#[derive(Args)]
pub struct Honest {
    /// Which driver.
    pub target: String,
    /// Executions.
    #[arg(long, default_value_t = 1_000_000)]
    pub execs: u64,
    /// Where random numbers start.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
}

#[derive(Args)]
#[command(
    after_help = "Exit codes: 0 all bugs found in all campaigns with feedback, by the right oracle, and nothing in their fixed twins; 1 not so; 2 wrong usage; 3 the harness failed."
)]
pub struct TimeToBug {
    /// Only this bug; may be given again.
    pub only: Vec<String>,
    /// Campaigns of each bug.
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub seeds: u32,
    /// A campaign that has not found the bug by then ends, in time of one core.
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "10s")]
    pub limit: Duration,
    /// How long each fixed twin is searched, in time of one core.
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "10s")]
    pub twins: Duration,
    /// Without the campaigns that do not look at coverage, which the others are compared with.
    #[arg(long)]
    pub feedback_only: bool,
    /// Where the table goes instead of standard output.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

#[derive(Args)]
pub struct Chase {
    /// Which driver.
    pub target: String,
    /// What ends a campaign; without any, the limit.
    #[arg(long = "oracle", value_name = "ORACLE", value_parser = oracle)]
    pub oracles: Vec<Oracle>,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    pub seed: u32,
    /// The last seed.
    #[arg(long, default_value_t = 0)]
    pub last: u32,
    /// When a campaign ends, in milliseconds of processor time.
    #[arg(long)]
    pub limit: u64,
    /// Does not look at coverage.
    #[arg(long)]
    pub no_feedback: bool,
    /// Where a crash is written down.
    #[arg(long)]
    pub out: PathBuf,
}

fn oracle(name: &str) -> Result<Oracle, String> {
    Oracle::named(name).ok_or_else(|| "`cofferdam list oracles` lists the oracles".to_owned())
}

fn time(text: &str) -> Result<Duration, String> {
    let (number, factor) = match text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic())
    {
        number if number.len() == text.len() => (number, 1),
        number => match &text[number.len()..] {
            "s" => (number, 1),
            "m" => (number, 60),
            "h" => (number, 3600),
            _ => return Err("a time is a number and s, m or h: 30s".to_owned()),
        },
    };
    let number: u64 = number
        .parse()
        .map_err(|_| "a time is a number and s, m or h: 30s".to_owned())?;
    Ok(Duration::from_secs(number.saturating_mul(factor)))
}
