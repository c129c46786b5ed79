//! As few programs as do all that all of them do.

use crate::arguments::Cover;
use crate::{INFRASTRUCTURE, USAGE, fail};
use cofferdam_fuzz::campaign::Campaign;
use cofferdam_fuzz::finding::name_of;
use cofferdam_fuzz::program::{Program, text};
use cofferdam_fuzz::target::Target;
use std::collections::HashSet;
use std::fs;
use std::process::ExitCode;

/// Copies a cover of a corpus: again and again the program that adds most, the shortest of several.
pub fn cover(target: &'static dyn Target, arguments: &Cover) -> ExitCode {
    let mut campaign = match crate::bench::open(target) {
        Ok(campaign) => campaign,
        Err(error) => return fail(error, INFRASTRUCTURE),
    };
    let from = std::slice::from_ref(&arguments.from);
    let programs = match crate::fuzz::read_corpus(&mut campaign, from) {
        Ok(programs) => programs,
        Err(why) => return fail(why, USAGE),
    };
    let mut left = Vec::new();
    for program in programs {
        match edges(&mut campaign, &program) {
            Ok(edges) => left.push((program, edges)),
            Err(why) => return fail(why, INFRASTRUCTURE),
        }
    }
    let all = left.len();
    let mut covered = HashSet::new();
    let mut kept = Vec::new();
    while let Some(best) = best(&left, &covered) {
        let (program, edges) = left.swap_remove(best);
        covered.extend(edges);
        kept.push(program);
    }
    if let Err(error) = fs::create_dir_all(&arguments.out) {
        return fail(
            format!("{}: {error}", arguments.out.display()),
            INFRASTRUCTURE,
        );
    }
    for program in &kept {
        let path = arguments.out.join(format!("{}.prog", name_of(program)));
        let text = text::print(program, target.name(), target.calls());
        if let Err(error) = fs::write(&path, text) {
            return fail(format!("{}: {error}", path.display()), INFRASTRUCTURE);
        }
    }
    println!(
        "{} of {all} programs kept, {} edges and counts",
        kept.len(),
        covered.len()
    );
    ExitCode::SUCCESS
}

fn edges(campaign: &mut Campaign, program: &Program) -> Result<HashSet<(usize, u8)>, String> {
    campaign
        .executor()
        .run(program, cofferdam_fuzz::world::Detail::Fast)
        .map_err(|error| error.to_string())?;
    let counters = campaign.counters();
    let counts = counters.units().flat_map(|unit| unit.iter().copied());
    let edges = counts
        .enumerate()
        .filter(|(_, count)| *count > 0)
        .map(|(edge, count)| (edge, count.ilog2().try_into().unwrap_or(7)))
        .collect();
    counters.clear();
    Ok(edges)
}

/// The program that adds most, if any adds anything.
fn best(left: &[(Program, HashSet<(usize, u8)>)], covered: &HashSet<(usize, u8)>) -> Option<usize> {
    let adds = |edges: &HashSet<(usize, u8)>| edges.difference(covered).count();
    let rated = left
        .iter()
        .enumerate()
        .map(|(at, (program, edges))| (adds(edges), std::cmp::Reverse(program.actions.len()), at));
    rated
        .max()
        .filter(|(adds, ..)| *adds > 0)
        .map(|(.., at)| at)
}
