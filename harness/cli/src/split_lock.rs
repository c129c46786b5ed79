//! `cofferdam split-lock`: what a driver's split locks cost a bystander on another core.

use crate::arguments::{self, Format};
use crate::compare::{INFRASTRUCTURE, INTERRUPTED, USAGE, fail};
use crate::{interrupt, print};
use cofferdam_experiment::catalogue::placement_named;
use cofferdam_experiment::engine::{Engine, EngineError, Processes};
use cofferdam_experiment::environment::guests;
use cofferdam_experiment::split_locks::{measure, usual};
use cofferdam_report::split_locks;
use std::process::ExitCode;

pub fn split_lock(arguments: &arguments::SplitLock) -> ExitCode {
    let guests = guests().ok();
    let named: Result<Vec<_>, _> = arguments
        .placements
        .iter()
        .map(|name| placement_named(name).ok_or(name))
        .collect();
    let placements = match named {
        Ok(named) if named.is_empty() => usual(guests),
        Ok(named) => named,
        Err(name) => {
            let why =
                format!("no placement is called '{name}': `cofferdam list placements` shows all");
            return fail(&why, USAGE);
        }
    };
    interrupt::watch();
    let mut engine = match Processes::start() {
        Ok(engine) => engine,
        Err(error) => return fail(&error, INFRASTRUCTURE),
    };
    let found = measure(
        &placements,
        arguments.pairs,
        arguments.seed,
        guests,
        |spec| {
            if interrupt::asked() {
                return Err(EngineError::Infrastructure("interrupted".to_owned()));
            }
            engine.run(spec)
        },
    );
    match arguments.format {
        Format::Text => print(&split_locks::text(&found)),
        Format::Json => match serde_json::to_string_pretty(&found) {
            Ok(text) => print(&format!("{text}\n")),
            Err(error) => return fail(&error, INFRASTRUCTURE),
        },
    }
    if interrupt::asked() {
        ExitCode::from(INTERRUPTED)
    } else if found.ways.iter().any(|way| way.why_not.is_some()) {
        ExitCode::from(INFRASTRUCTURE)
    } else {
        ExitCode::SUCCESS
    }
}
