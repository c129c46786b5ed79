//! The two ways in which registers behind a pointer are trapped, held against each other: callbacks of
//! the instrumented driver, and faults, by which the processor itself tells.

use crate::arguments::Agree;
use crate::{FOUND, INFRASTRUCTURE, USAGE, fail};
use cofferdam_fuzz::campaign::CampaignError;
use cofferdam_fuzz::executor::Executor;
use cofferdam_fuzz::oracle::Oracle;
use cofferdam_fuzz::program::{Program, text};
use cofferdam_fuzz::target::Target;
use cofferdam_fuzz::trace::Step;
use cofferdam_fuzz::world::Detail;
use cofferdam_instrument::trap;
use cofferdam_seam::Time;
use std::io;
use std::process::ExitCode;

/// What one way saw.
#[derive(PartialEq)]
struct Seen {
    accesses: Vec<(Time, Step)>,
    sightings: Vec<(Oracle, &'static str)>,
}

/// Runs programs both ways. 1 if they differ in an access, its time, or what oracles noticed.
pub fn agree(target: &'static dyn Target, arguments: &Agree) -> ExitCode {
    match compared(target, arguments) {
        Ok((programs, faults, None)) if faults > 0 => {
            println!("{programs} programs, {faults} accesses by faults, the same by callbacks");
            ExitCode::SUCCESS
        }
        Ok((.., None)) => fail("the driver accesses no register through a pointer", USAGE),
        Ok((.., Some(told))) => {
            println!("{told}");
            ExitCode::from(FOUND)
        }
        Err(error) => fail(error, INFRASTRUCTURE),
    }
}

fn compared(
    target: &'static dyn Target,
    arguments: &Agree,
) -> Result<(u64, u64, Option<String>), CampaignError> {
    // SAFETY: there is one at a time.
    #[expect(unsafe_code, reason = "the counters are the whole program's")]
    let mut campaign =
        unsafe { cofferdam_fuzz::campaign::Campaign::new(target, arguments.seed, true, None)? };
    let before = trap::faults();
    for done in 0..arguments.execs {
        // Programs as a campaign has them, which knows what there is to lie about.
        let program = campaign.generate();
        campaign.run(&program)?;
        let best = seen(campaign.executor(), &program)?;
        trap::by_reference(true);
        let reference = seen(campaign.executor(), &program);
        trap::by_reference(false);
        let reference = reference?;
        if best != reference {
            let told = differ(target, &program, &best, &reference);
            return Ok((done, trap::faults() - before, Some(told)));
        }
    }
    Ok((arguments.execs, trap::faults() - before, None))
}

fn seen(executor: &mut Executor, program: &Program) -> io::Result<Seen> {
    let outcome = executor.run(program, Detail::Traced)?;
    let sightings = outcome.sightings.iter();
    Ok(Seen {
        accesses: outcome.trace.accesses().cloned().collect(),
        sightings: sightings.map(|it| (it.oracle, it.during)).collect(),
    })
}

fn differ(target: &dyn Target, program: &Program, best: &Seen, reference: &Seen) -> String {
    let both = best.accesses.iter().zip(&reference.accesses);
    let same = both.take_while(|(one, other)| one == other).count();
    format!(
        "{}\nthe first {same} accesses agree; then\n  by callbacks {:?}\n  by faults    {:?}\noracles: {:?} and {:?}",
        text::print(program, target.name(), target.calls()),
        best.accesses.get(same),
        reference.accesses.get(same),
        best.sightings,
        reference.sightings,
    )
}
