//! How fast it is, and that an honest device shows nothing.

use crate::arguments::{Bench, Honest};
use crate::fuzz::{Until, campaign, read_corpus};
use crate::{FOUND, INFRASTRUCTURE, USAGE, fail};
use cofferdam_fuzz::campaign::{Campaign, CampaignError};
use cofferdam_fuzz::program::{Action, Mode, Program, text};
use cofferdam_fuzz::random::Random;
use cofferdam_fuzz::target::Target;
use std::process::ExitCode;
use std::time::Instant;

#[expect(unsafe_code, reason = "the counters are the whole program's")]
pub fn open(target: &'static dyn Target) -> std::io::Result<Campaign> {
    // SAFETY: one after the other, on this thread.
    unsafe { Campaign::new(target, 1, true, None) }
}

#[expect(clippy::cast_precision_loss, reason = "shown to some digits")]
fn rate(executions: u64, began: Instant) -> f64 {
    executions as f64 / began.elapsed().as_secs_f64().max(1e-9)
}

/// The same campaign without the engine and with it, in one run.
pub fn bench(target: &'static dyn Target, arguments: &Bench) -> ExitCode {
    let bare = match bare(target, arguments) {
        Ok(rate) => rate,
        Err(why) => return fail(why, INFRASTRUCTURE),
    };
    println!("bare loop: {bare:.0} executions/s");
    if arguments.bare {
        return ExitCode::SUCCESS;
    }
    let engine = match engine(target, arguments) {
        Ok(rate) => rate,
        Err(why) => return fail(why, USAGE),
    };
    println!(
        "with LibAFL: {engine:.0} executions/s, ratio {:.2}",
        engine / bare
    );
    ExitCode::SUCCESS
}

fn bare(target: &'static dyn Target, arguments: &Bench) -> Result<f64, String> {
    let mut campaign = open(target).map_err(|error| error.to_string())?;
    let mut corpus = read_corpus(&mut campaign, &arguments.corpus)?;
    corpus.extend((0..32).map(|_| campaign.generate()));
    let began = Instant::now();
    let mut random = Random::new(1);
    let mut at = 0;
    while campaign.executions() < arguments.execs {
        let parent = corpus[at % corpus.len()].clone();
        let other = random.pick(&corpus).cloned();
        at += 1;
        let mut news = Vec::new();
        campaign
            .batch(&parent, other.as_ref(), 256, |it| news.push(it.clone()))
            .map_err(|error| error.to_string())?;
        corpus.extend(news);
    }
    let rate = rate(campaign.executions(), began);
    let (edges, of) = campaign.edges();
    println!(
        "{edges} of {of} edges, {} programs, {} found, {} drivers abandoned",
        corpus.len(),
        campaign.found().len(),
        campaign.abandoned()
    );
    Ok(rate)
}

fn engine(target: &'static dyn Target, arguments: &Bench) -> Result<f64, String> {
    let mut new = open(target).map_err(|error| error.to_string())?;
    let mut first = read_corpus(&mut new, &arguments.corpus)?;
    first.extend((0..32).map(|_| new.generate()));
    let began = Instant::now();
    let until = Until {
        link: None,
        execs: Some(arguments.execs),
        enough: &|_| false,
    };
    let done = campaign(new, first, 1, until)?;
    Ok(rate(done.executions(), began))
}

/// Workloads against the honest device: nothing may be found.
pub fn honest(target: &'static dyn Target, arguments: &Honest) -> ExitCode {
    match run_honest(target, arguments) {
        Ok((executions, None)) => {
            println!("{executions} executions, nothing found");
            ExitCode::SUCCESS
        }
        Ok((executions, Some(told))) => {
            println!("{executions} executions\n{told}");
            ExitCode::from(FOUND)
        }
        Err(error) => fail(error, INFRASTRUCTURE),
    }
}

fn run_honest(
    target: &'static dyn Target,
    arguments: &Honest,
) -> Result<(u64, Option<String>), CampaignError> {
    let mut campaign = open(target)?;
    let calls = target.calls();
    let mut random = Random::new(arguments.seed);
    let mut program = Program {
        mode: Mode::Model,
        actions: Vec::new(),
    };
    while campaign.executions() < arguments.execs {
        program.actions.clear();
        for _ in 0..random.below(12) {
            let call = random.index(calls.len());
            let spec = calls[call].arguments;
            let arguments = spec.iter().map(|_| random.number() >> random.below(64));
            program.actions.push(Action::Call {
                call: u16::try_from(call).unwrap_or(u16::MAX),
                arguments: arguments.collect(),
            });
        }
        campaign.run(&program)?;
    }
    // All of them: a defect that needs no hostile device must not hide a false alarm.
    let told = campaign.found().iter().map(|found| {
        let program = text::print(&found.program, target.name(), calls);
        format!("{}\n{program}\n{}", found.finding.signature, found.trace)
    });
    let told: Vec<String> = told.collect();
    let told = (!told.is_empty()).then(|| told.join("\n"));
    Ok((campaign.executions(), told))
}
