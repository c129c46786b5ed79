//! `cofferdam replay`: runs a trial of a finished run again, and tells it.

use crate::arguments::{Again, On, Replay};
use crate::compare::{INFRASTRUCTURE, USAGE, fail};
use crate::{fuzz, print};
use cofferdam_across::{Backend, NotRun, Trace, first_difference, run};
use cofferdam_experiment::engine::Processes;
use cofferdam_experiment::replay::{Address, Replayed, boot_of, compare, find};
use cofferdam_report::trace::text::conclusion;
use cofferdam_report::trace::{Story, perfetto, text};
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

const DIFFERS: u8 = 1;

pub fn replay(arguments: &Replay) -> ExitCode {
    match &arguments.again {
        Again::Trial(_) if !arguments.on.is_empty() => fail(
            &"--on takes a program or a finding of the fuzzer; a trial runs in its placement",
            USAGE,
        ),
        Again::Trial(_) if arguments.place.is_some() => fail(
            &"--in takes a program or a finding of the fuzzer; a trial runs in its placement",
            USAGE,
        ),
        Again::Trial(address) => replay_trial(address, arguments),
        Again::Program(path) if !arguments.on.is_empty() => across(path, arguments),
        Again::Program(path) => {
            let place = arguments.place.as_deref();
            let (times, emit_test) = (arguments.times, arguments.emit_test);
            fuzz::replay(&arguments.build, path, times, emit_test, place)
        }
    }
}

fn replay_trial(address: &Address, arguments: &Replay) -> ExitCode {
    let record = match find(address) {
        Ok(record) => record,
        Err(error) => return fail(&error, USAGE),
    };
    // A file that cannot be written is known before the trial.
    let files = [&arguments.out, &arguments.perfetto].map(|path| path.as_deref().map(open));
    let [out, timeline] = files.map(Option::transpose);
    let (mut out, mut timeline) = match (out, timeline) {
        (Ok(out), Ok(timeline)) => (out, timeline),
        (Err(why), _) | (_, Err(why)) => return fail(&why, USAGE),
    };
    let specs = match boot_of(address, &record) {
        Ok(specs) => specs,
        Err(error) => return fail(&error, USAGE),
    };
    let ran = Processes::start().and_then(|mut engine| engine.run_traced(&specs));
    let (mut reports, trace) = match ran {
        Ok(ran) => ran,
        Err(error) => return fail(&error, INFRASTRUCTURE),
    };
    // A boot that ends earlier than it did differs, too: in its last report.
    let Some(report) = reports.pop() else {
        return fail(&"the boot has no trial", INFRASTRUCTURE);
    };
    let replayed = compare(&record, &report);
    let story = Story {
        address,
        record: &record,
        report: &report,
        replayed: &replayed,
        trace: &trace,
    };
    let told = text::text(&story);
    let written = match &mut out {
        Some(file) => {
            print(&format!("{}\n", conclusion(&replayed)));
            file.write_all(told.as_bytes())
        }
        None => {
            print(&told);
            Ok(())
        }
    };
    let written = written.and_then(|()| match &mut timeline {
        Some(file) => writeln!(file, "{}", perfetto::document(&story)),
        None => Ok(()),
    });
    match (written, &replayed) {
        (Err(error), _) => fail(&error, INFRASTRUCTURE),
        (Ok(()), Replayed::Differs { .. }) => ExitCode::from(DIFFERS),
        (Ok(()), Replayed::Same | Replayed::NotRepeatable) => ExitCode::SUCCESS,
    }
}

/// Runs a program on several backends, and holds them against the first.
fn across(path: &Path, arguments: &Replay) -> ExitCode {
    let path = match path.is_dir() {
        true => &path.join("program.prog"),
        false => path,
    };
    let program = match std::fs::read_to_string(path) {
        Ok(program) => program,
        Err(error) => return fail(&format!("cannot read {}: {error}", path.display()), USAGE),
    };
    let mut first: Option<(&str, Trace)> = None;
    let (mut differs, mut missing) = (false, false);
    for on in &arguments.on {
        let (name, backend) = match on {
            On::Mock => ("mock", Backend::Mock),
            On::VfioUser => ("vfio-user", Backend::VfioUser),
            On::Vfio => ("vfio", Backend::Vfio(arguments.device)),
        };
        let trace = match run(&program, backend) {
            Ok(trace) => trace,
            Err(NotRun::Unavailable(why)) => {
                missing = true;
                print(&format!("{name:10} unavailable: {why}\n"));
                continue;
            }
            Err(why) => return fail(&format!("{}: {why}", path.display()), USAGE),
        };
        let seen = format!(
            "{} accesses, {} deeds of the program's device",
            trace.heard.len(),
            trace.acted
        );
        let Some((other, known)) = &first else {
            print(&format!("{name:10} {seen}\n"));
            first = Some((name, trace));
            continue;
        };
        match first_difference(&known.heard, &trace.heard) {
            None => print(&format!("{name:10} {seen}: the same as {other}\n")),
            Some(difference) => {
                differs = true;
                print(&format!("{name:10} differs from {other}: {difference}\n"));
            }
        }
    }
    match (differs, missing) {
        (true, _) => ExitCode::from(DIFFERS),
        (false, true) => ExitCode::from(INFRASTRUCTURE),
        (false, false) => ExitCode::SUCCESS,
    }
}

fn open(path: &Path) -> Result<File, String> {
    let because = |error: io::Error| {
        let path = path.display();
        format!("cannot write {path}: {error}; name a file in a directory that can be written")
    };
    File::create(path).map_err(because)
}
