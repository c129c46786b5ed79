//! How long bugs take to be found that are known, and whether their fixed twins stay silent.
//!
//! Times are of one core, so they are the same on a busy machine. The campaigns of a driver run one
//! after the other in a process of its own, which a bug may end.

use crate::arguments::{Chase, TimeToBug};
use crate::fuzz::{FIRST, Until, campaign};
use crate::{FOUND, INFRASTRUCTURE, USAGE, crash, fail, table};
use cofferdam_fuzz::campaign::Campaign;
use cofferdam_fuzz::oracle::Oracle;
use cofferdam_fuzz::target::Target;
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

/// A driver with a bug, and the same driver without it.
pub struct Known {
    /// The driver with the bug.
    pub bug: &'static dyn Target,
    /// Its twin.
    pub twin: &'static dyn Target,
    /// What should notice the bug.
    pub oracle: Oracle,
    /// What may notice it as well.
    pub also: Vec<Oracle>,
}

/// What came of a campaign.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Chased {
    /// What ended it, if it was not the limit.
    pub found: Option<Oracle>,
    /// Until then, of one core.
    pub seconds: f64,
    /// Until then; not known of a process that died.
    pub executions: Option<u64>,
    /// What it found before.
    pub others: Vec<Oracle>,
}

/// What is known of a bug in the end.
pub struct Row<'a> {
    pub known: &'a Known,
    pub with: Vec<Chased>,
    /// Empty if that was not asked for.
    pub without: Vec<Chased>,
    pub twin: Vec<Chased>,
}

impl Row<'_> {
    /// Whether each campaign with feedback found the bug, and none anything in the twin.
    pub fn is_right(&self) -> bool {
        self.with.iter().all(|run| run.found.is_some())
            && self.twin.iter().all(|run| run.found.is_none())
    }
}

/// Processor time of this process, or of its children that ended.
#[expect(unsafe_code, reason = "the system's interface")]
fn processor_time(who: libc::c_int) -> Duration {
    // SAFETY: the kernel fills in plain numbers.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(who, &raw mut usage);
        usage
    };
    [usage.ru_utime, usage.ru_stime]
        .into_iter()
        .map(|time| {
            let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
            Duration::from_secs(seconds)
                + Duration::from_micros(u64::try_from(time.tv_usec).unwrap_or(0))
        })
        .sum()
}

/// The campaigns of one driver, a line of JSON each.
pub fn chase(target: &'static dyn Target, arguments: &Chase) -> ExitCode {
    crash::install(target, crash::Then::WriteTo(arguments.out.clone()));
    for seed in arguments.seed..=arguments.last {
        match chased(target, arguments, seed.into()) {
            Ok(chased) => println!("{}", serde_json::to_string(&chased).unwrap_or_default()),
            Err(why) => return fail(why, INFRASTRUCTURE),
        }
    }
    ExitCode::SUCCESS
}

fn chased(target: &'static dyn Target, arguments: &Chase, seed: u64) -> Result<Chased, String> {
    let limit = Duration::from_millis(arguments.limit);
    let began = processor_time(libc::RUSAGE_SELF);
    let elapsed = || processor_time(libc::RUSAGE_SELF).saturating_sub(began);
    // SAFETY: one after the other, on this thread.
    #[expect(unsafe_code, reason = "the counters are the whole program's")]
    let new = unsafe { Campaign::new(target, seed, !arguments.no_feedback, None) };
    let mut new = new.map_err(|error| error.to_string())?;
    let wanted =
        |oracle: &Oracle| arguments.oracles.is_empty() || arguments.oracles.contains(oracle);
    let place = |campaign: &Campaign| {
        let mut found = campaign.found().iter();
        found.position(|found| wanted(&found.finding.oracle))
    };
    let first = (0..FIRST).map(|_| new.generate()).collect();
    let until = Until {
        link: None,
        execs: None,
        enough: &|campaign| elapsed() >= limit || place(campaign).is_some(),
    };
    let done = campaign(new, first, seed, until)?;
    let place = place(&done);
    let oracles = done.found().iter().map(|found| found.finding.oracle);
    let mut others: Vec<Oracle> = oracles.take(place.unwrap_or(usize::MAX)).collect();
    others.sort_unstable();
    others.dedup();
    let after = place.and_then(|place| done.found_after().get(place).copied());
    Ok(Chased {
        found: place.map(|place| done.found()[place].finding.oracle),
        seconds: elapsed().as_secs_f64(),
        executions: Some(after.unwrap_or_else(|| done.executions())),
        others,
    })
}

/// Measures all bugs, or some.
pub fn time_to_bug(bugs: &[Known], arguments: &TimeToBug) -> ExitCode {
    if let Some(unknown) = arguments
        .only
        .iter()
        .find(|only| bugs.iter().all(|known| known.bug.name() != *only))
    {
        let known: Vec<_> = bugs.iter().map(|known| known.bug.name()).collect();
        let why = format!("no known bug `{unknown}`; there are {}", known.join(", "));
        return fail(why, USAGE);
    }
    let wanted = |known: &&Known| {
        let named = |only: &String| only == known.bug.name();
        arguments.only.is_empty() || arguments.only.iter().any(named)
    };
    let mut rows = Vec::new();
    for known in bugs.iter().filter(wanted) {
        match measure(known, arguments) {
            Ok(row) => {
                eprintln!("{}", table::line(&row, arguments));
                rows.push(row);
            }
            Err(why) => return fail(why, INFRASTRUCTURE),
        }
    }
    let spent = processor_time(libc::RUSAGE_CHILDREN);
    let text = table::text(&rows, arguments, spent);
    match &arguments.out {
        Some(path) => {
            if let Err(error) = std::fs::write(path, text) {
                return fail(format!("{}: {error}", path.display()), USAGE);
            }
        }
        None => print!("{text}"),
    }
    eprintln!("cofferdam: {:.0} s of one core", spent.as_secs_f64());
    if rows.iter().all(Row::is_right) {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(FOUND)
    }
}

fn measure<'a>(known: &'a Known, arguments: &TimeToBug) -> Result<Row<'a>, String> {
    let mut oracles = vec![known.oracle];
    oracles.extend(&known.also);
    let bug = |feedback| Order {
        target: known.bug,
        oracles: &oracles,
        limit: arguments.limit,
        seeds: arguments.seeds,
        feedback,
    };
    let twin = Order {
        target: known.twin,
        oracles: &[],
        limit: arguments.twins,
        seeds: 1,
        feedback: true,
    };
    Ok(Row {
        known,
        with: run(&bug(true))?,
        without: if arguments.feedback_only {
            Vec::new()
        } else {
            run(&bug(false))?
        },
        twin: run(&twin)?,
    })
}

/// What a process is to do.
struct Order<'a> {
    target: &'static dyn Target,
    oracles: &'a [Oracle],
    limit: Duration,
    seeds: u32,
    feedback: bool,
}

/// Runs the campaigns, in as many processes as it takes.
fn run(order: &Order<'_>) -> Result<Vec<Chased>, String> {
    let mut done = Vec::new();
    let failed = |error: std::io::Error| format!("cannot run campaigns: {error}");
    let me = std::env::current_exe().map_err(failed)?;
    let out = std::env::temp_dir().join(format!("cofferdam-chase-{}", std::process::id()));
    loop {
        let next = u32::try_from(done.len()).unwrap_or(u32::MAX);
        if next >= order.seeds {
            break;
        }
        let before = processor_time(libc::RUSAGE_CHILDREN);
        let mut command = Command::new(&me);
        command
            .args(["chase", order.target.name()])
            .args(["--seed", &next.to_string()])
            .args(["--last", &(order.seeds - 1).to_string()])
            .args(["--limit", &order.limit.as_millis().to_string()])
            .arg("--out")
            .arg(&out)
            // Of those that die nobody wants to read all of it.
            .env("RUST_BACKTRACE", "0")
            .stdout(Stdio::piped());
        for oracle in order.oracles {
            command.args(["--oracle", oracle.name()]);
        }
        if !order.feedback {
            command.arg("--no-feedback");
        }
        let mut child = command.spawn().map_err(failed)?;
        let mut told = 0.0;
        if let Some(output) = child.stdout.take() {
            for line in BufReader::new(output).lines() {
                let line = line.map_err(failed)?;
                let chased: Chased = serde_json::from_str(&line)
                    .map_err(|error| format!("{}: {error}: {line}", order.target.name()))?;
                told += chased.seconds;
                done.push(chased);
            }
        }
        let ended = child.wait().map_err(failed)?;
        let spent = processor_time(libc::RUSAGE_CHILDREN).saturating_sub(before);
        match ended.code() {
            Some(0) => {}
            // It died in the campaign that follows those it told of.
            Some(crash::DIED) | None => {
                let wanted = order.oracles.is_empty() || order.oracles.contains(&Oracle::Crash);
                done.push(Chased {
                    found: wanted.then_some(Oracle::Crash),
                    seconds: (spent.as_secs_f64() - told).max(0.0),
                    executions: None,
                    others: if wanted {
                        Vec::new()
                    } else {
                        vec![Oracle::Crash]
                    },
                });
            }
            Some(_) => return Err(format!("{}: {ended}", order.target.name())),
        }
    }
    // Nothing may have died.
    let _ = std::fs::remove_dir_all(&out);
    Ok(done)
}
