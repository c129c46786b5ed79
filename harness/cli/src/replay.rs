//! `cofferdam replay`: runs a trial of a finished run again, and tells it.

use crate::arguments::{Again, Replay};
use crate::compare::{INFRASTRUCTURE, USAGE, fail};
use crate::{fuzz, print};
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
        Again::Trial(address) => replay_trial(address, arguments),
        Again::Program(path) => {
            fuzz::replay(&arguments.build, path, arguments.times, arguments.emit_test)
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

fn open(path: &Path) -> Result<File, String> {
    let because = |error: io::Error| {
        let path = path.display();
        format!("cannot write {path}: {error}; name a file in a directory that can be written")
    };
    File::create(path).map_err(because)
}
