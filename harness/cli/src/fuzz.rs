//! `cofferdam fuzz` and what belongs to it: builds the runner with this program as its rustc wrapper,
//! then the runner does the work.

use crate::compare::{INFRASTRUCTURE, USAGE, fail};
use clap::{Args, Subcommand};
use cofferdam_instrument::wrapper;
use serde_json::Value;
use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

/// The runner of this repository's targets.
const RUNNER: &str = "harness/fuzz/engine/Cargo.toml";

/// Its package.
const PACKAGE: &str = "cofferdam-fuzz-runner";

/// The crates of its targets: drivers, and adapters, where generic drivers are compiled. Loads and
/// stores are reported of those only that reach registers through pointers.
const CRATES: [&str; 13] = [
    "cofferdam_fuzz_planted-",
    "cofferdam_fuzz_targets-",
    "cofferdam_fuzz_targets_pci",
    "driver_edu-",
    "driver_eth_intel",
    "driver_nvme-",
    "driver_nvme_crate-",
    "driver_planted-",
    "driver_virtio-",
    "eth_intel",
    "nvme_driver",
    "safe_mmio",
    "virtio_drivers",
];

/// Which runner, and how it is built.
#[derive(Args)]
pub struct Build {
    /// The manifest of a runner of your own, instead of that of this repository.
    #[arg(long, value_name = "FILE")]
    manifest_path: Option<PathBuf>,
    /// With --manifest-path: a crate to instrument, by its name in code; may be given again. The
    /// runner's own crate always is.
    #[arg(long = "instrument", value_name = "CRATE", requires = "manifest_path")]
    crates: Vec<String>,
}

#[derive(Args)]
#[command(
    after_help = "Exit codes: 0 no findings; 1 findings; 2 wrong usage; 3 the harness failed."
)]
pub struct Fuzz {
    #[command(flatten)]
    build: Build,
    /// Which driver; without it, lists them.
    driver: Option<String>,
    /// Ends after that time: 30s, 5m, 2h. Without this and --execs: goes on until interrupted.
    #[arg(long, value_name = "TIME")]
    time: Option<String>,
    /// Ends after so many executions.
    #[arg(long, value_name = "N")]
    execs: Option<u64>,
    /// Where random numbers start. With --execs the same seed does the same.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Programs to start from; may be given again.
    #[arg(long, value_name = "DIR")]
    corpus: Vec<PathBuf>,
    /// Where findings and new programs go [default: reports/fuzz/DRIVER].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// How progress is told: text or json; json if standard output is no terminal.
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Does not look at coverage: for comparisons.
    #[arg(long)]
    no_feedback: bool,
    /// Where the driver runs: vm, a KVM guest of its own; without it, in the runner's process. In a VM there is
    /// no coverage.
    #[arg(long = "in", value_name = "PLACE", value_parser = ["vm"])]
    place: Option<String>,
}

#[derive(Args)]
pub struct Minimize {
    #[command(flatten)]
    build: Build,
    /// The directory of a finding, or a program.
    path: PathBuf,
    /// Where the driver runs: vm; without it, in the runner's process.
    #[arg(long = "in", value_name = "PLACE", value_parser = ["vm"])]
    place: Option<String>,
}

#[derive(Args)]
pub struct Bench {
    #[command(flatten)]
    build: Build,
    /// Which driver.
    driver: String,
    /// Executions of each kind.
    #[arg(long, default_value_t = 500_000)]
    execs: u64,
}

#[derive(Args)]
#[command(
    after_help = "Exit codes: 0 all bugs found by all campaigns with feedback, and nothing in their fixed twins; 1 not so; 2 wrong usage; 3 the harness failed."
)]
pub struct TimeToBug {
    /// Only this bug; may be given again.
    only: Vec<String>,
    /// Campaigns of each bug.
    #[arg(long, value_name = "N", default_value_t = 10)]
    seeds: u32,
    /// A campaign ends that has not found the bug by then, in time of one core.
    #[arg(long, value_name = "TIME", default_value = "10s")]
    limit: String,
    /// How long each fixed twin is searched, in time of one core.
    #[arg(long, value_name = "TIME", default_value = "10s")]
    twins: String,
    /// Without the campaigns that do not look at coverage, which the others are compared with.
    #[arg(long)]
    feedback_only: bool,
    /// Where the table goes, in Markdown, instead of standard output.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Subcommand)]
pub enum Corpus {
    /// Keeps as few programs as do all that all of them do.
    Minimize {
        #[command(flatten)]
        build: Build,
        /// Which driver.
        driver: String,
        /// The programs.
        from: PathBuf,
        /// Where those go that are kept.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Runs programs with the registers of a driver that dereferences pointers trapped in both ways, by
    /// callbacks and by faults, which must see the same accesses.
    Agree {
        #[command(flatten)]
        build: Build,
        /// Which driver.
        driver: String,
        /// Programs.
        #[arg(long, default_value_t = 300)]
        execs: u64,
    },
    /// Runs workloads against the honest device. There must be no finding.
    Honest {
        #[command(flatten)]
        build: Build,
        /// Which driver.
        driver: String,
        /// Executions.
        #[arg(long, default_value_t = 10_000_000)]
        execs: u64,
    },
}

/// Runs a campaign.
pub fn fuzz(arguments: &Fuzz) -> ExitCode {
    let Some(driver) = &arguments.driver else {
        return run(&arguments.build, ["targets".into()]);
    };
    let mut told: Vec<OsString> = vec!["fuzz".into(), driver.into()];
    let mut option = |name: &str, value: OsString| told.extend([name.into(), value]);
    if let Some(time) = &arguments.time {
        option("--time", time.into());
    }
    if let Some(execs) = arguments.execs {
        option("--execs", execs.to_string().into());
    }
    option("--seed", arguments.seed.to_string().into());
    for place in &arguments.corpus {
        option("--corpus", place.into());
    }
    if let Some(out) = &arguments.out {
        option("--out", out.into());
    }
    if let Some(format) = &arguments.format {
        option("--format", format.into());
    }
    if arguments.no_feedback {
        told.push("--no-feedback".into());
    }
    if let Some(place) = &arguments.place {
        told.extend(["--in".into(), place.into()]);
    }
    run(&arguments.build, told)
}

/// Makes the program of a finding smaller.
pub fn minimize(arguments: &Minimize) -> ExitCode {
    let mut told: Vec<OsString> = vec!["minimize".into(), arguments.path.clone().into()];
    if let Some(place) = &arguments.place {
        told.extend(["--in".into(), place.into()]);
    }
    run(&arguments.build, told)
}

/// Measures a target.
pub fn bench(arguments: &Bench) -> ExitCode {
    let execs = arguments.execs.to_string();
    let told = ["bench", &arguments.driver, "--execs", &execs];
    run(&arguments.build, told.map(OsString::from))
}

/// Measures how long the planted bugs take to be found.
pub fn time_to_bug(arguments: &TimeToBug) -> ExitCode {
    let mut told: Vec<OsString> = vec!["time-to-bug".into()];
    told.extend(arguments.only.iter().map(OsString::from));
    told.extend(["--seeds".into(), arguments.seeds.to_string().into()]);
    told.extend(["--limit".into(), arguments.limit.clone().into()]);
    told.extend(["--twins".into(), arguments.twins.clone().into()]);
    if arguments.feedback_only {
        told.push("--feedback-only".into());
    }
    if let Some(out) = &arguments.out {
        told.extend(["--out".into(), out.into()]);
    }
    let build = Build {
        manifest_path: None,
        crates: Vec::new(),
    };
    run(&build, told)
}

/// What there is to do with programs that are no findings.
pub fn corpus(arguments: &Corpus) -> ExitCode {
    match arguments {
        Corpus::Minimize {
            build,
            driver,
            from,
            out,
        } => {
            let (from, out) = (from.clone().into(), out.clone().into());
            run(
                build,
                ["cover".into(), driver.into(), from, "--out".into(), out],
            )
        }
        Corpus::Agree {
            build,
            driver,
            execs,
        } => run_so_often(build, "agree", driver, *execs),
        Corpus::Honest {
            build,
            driver,
            execs,
        } => run_so_often(build, "honest", driver, *execs),
    }
}

/// Runs a finding or a program again.
pub fn replay(
    build: &Build,
    path: &Path,
    times: u32,
    emit_test: bool,
    place: Option<&str>,
) -> ExitCode {
    let mut told: Vec<OsString> = vec!["replay".into(), path.into()];
    told.extend(["--times".into(), times.to_string().into()]);
    if emit_test {
        told.push("--emit-test".into());
    }
    if let Some(place) = place {
        told.extend(["--in".into(), place.into()]);
    }
    run(build, told)
}

/// Has the runner do so many executions of something for a driver.
fn run_so_often(build: &Build, what: &str, driver: &str, execs: u64) -> ExitCode {
    let execs = execs.to_string();
    run(build, [what, driver, "--execs", &execs].map(OsString::from))
}

/// Builds the runner, and ends as it ends.
fn run(build: &Build, told: impl IntoIterator<Item = OsString>) -> ExitCode {
    let runner = match built(build) {
        Ok(runner) => runner,
        Err((why, code)) => return fail(&why, code),
    };
    match Command::new(&runner).args(told).status() {
        Ok(status) => match status.code().and_then(|code| u8::try_from(code).ok()) {
            Some(code) => ExitCode::from(code),
            None => fail(&format!("{}: {status}", runner.display()), INFRASTRUCTURE),
        },
        Err(error) => fail(
            &format!("cannot run {}: {error}", runner.display()),
            INFRASTRUCTURE,
        ),
    }
}

/// The runner's path, once it is built.
fn built(build: &Build) -> Result<PathBuf, (String, u8)> {
    let manifest = match &build.manifest_path {
        Some(manifest) => manifest.clone(),
        None => of_repository()?,
    };
    let failed = |why: String| (why, INFRASTRUCTURE);
    let wrapper = env::current_exe().map_err(|error| failed(error.to_string()))?;
    let mut crates: Vec<String> = if build.manifest_path.is_some() {
        build
            .crates
            .iter()
            .map(|name| name.replace('-', "_"))
            .collect()
    } else {
        CRATES.map(str::to_owned).to_vec()
    };
    if build.manifest_path.is_some() {
        let name = package(&manifest).ok_or_else(|| {
            let why = format!(
                "no package's name in {}; name its manifest",
                manifest.display()
            );
            (why, USAGE)
        })?;
        crates.push(format!("{}{}", name.replace('-', "_"), wrapper::UNTRAPPED));
    }
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(
        || manifest.parent().unwrap_or(Path::new(".")).join("target"),
        PathBuf::from,
    );
    let target =
        std::path::absolute(target.join("fuzz")).map_err(|error| failed(error.to_string()))?;
    let mut cargo = wrapper::cargo_in(&wrapper, &target, &crates);
    cargo
        .env(wrapper::MANNER, wrapper::CHECKED)
        .env("COFFERDAM_TOOLCHAIN", toolchain())
        .args([
            "build",
            "--release",
            "--message-format",
            "json-render-diagnostics",
        ])
        .arg("--manifest-path")
        .arg(&manifest)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    if build.manifest_path.is_none() {
        cargo.args(["--package", PACKAGE]);
    }
    eprintln!("cofferdam: building the runner in {}", target.display());
    let ran = cargo.output().map_err(|error| {
        failed(format!(
            "cannot run cargo: {error}; is it installed and in PATH?"
        ))
    })?;
    if !ran.status.success() {
        return Err(failed("the runner could not be built".to_owned()));
    }
    let text = String::from_utf8_lossy(&ran.stdout);
    let program = |line: &str| {
        let message: Value = serde_json::from_str(line).ok()?;
        Some(PathBuf::from(message.get("executable")?.as_str()?))
    };
    let found = text.lines().filter_map(program).next_back();
    found.ok_or_else(|| failed(format!("{} builds no program", manifest.display())))
}

/// The repository's runner: in the working directory or above it.
fn of_repository() -> Result<PathBuf, (String, u8)> {
    let here = env::current_dir().map_err(|error| (error.to_string(), INFRASTRUCTURE))?;
    let found = here
        .ancestors()
        .map(|place| place.join(RUNNER))
        .find(|path| path.exists());
    found.ok_or_else(|| {
        let why = format!(
            "no {RUNNER} here or above; run it in Cofferdam's repository, or name the manifest of a runner of your own with --manifest-path"
        );
        (why, USAGE)
    })
}

/// The name of a manifest's package.
fn package(manifest: &Path) -> Option<String> {
    let text = std::fs::read_to_string(manifest).ok()?;
    let line = text
        .lines()
        .find(|line| line.trim_start().starts_with("name"))?;
    let (_, name) = line.split_once('=')?;
    Some(name.trim().trim_matches('"').to_owned())
}

/// What the compiler says it is.
fn toolchain() -> String {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let said = Command::new(rustc).arg("--version").output();
    let said = said.map(|said| String::from_utf8_lossy(&said.stdout).trim().to_owned());
    said.unwrap_or_default()
}
