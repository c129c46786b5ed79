//! Programs again: what they show, and smaller ones.

use crate::arguments::{Minimize, Place, Replay};
use crate::{FOUND, INFRASTRUCTURE, Places, USAGE, apart, crash, fail, named, watchdog};
use cofferdam_fuzz::executor::Executor;
use cofferdam_fuzz::finding::{self, Finding, PROGRAM, explain, look, read_program, read_report};
use cofferdam_fuzz::oracle::Oracle;
use cofferdam_fuzz::program::{Program, text};
use cofferdam_fuzz::target::Target;
use cofferdam_fuzz::world::Detail;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// What is to be run, and what it is to show, if that is known.
struct Loaded {
    executor: Executor,
    program: Program,
    expected: Option<Finding>,
}

/// Loads it; `prepare` hears what, before a driver can run.
fn load(
    targets: &[&'static dyn Target],
    (places, place): (Places, Option<Place>),
    path: &Path,
    prepare: impl FnOnce(&'static dyn Target, Option<&Finding>) -> std::io::Result<()>,
) -> Result<Loaded, (String, u8)> {
    let (program, expected) = if path.is_dir() {
        let report = read_report(path).map_err(|error| (error.to_string(), USAGE))?;
        (path.join(PROGRAM), Some(report))
    } else {
        (path.to_owned(), None)
    };
    let text = fs::read_to_string(&program)
        .map_err(|error| (format!("{}: {error}", program.display()), USAGE))?;
    let target = text::target_of(&text)
        .map_err(|error| (format!("{}: {error}", program.display()), USAGE))?;
    let target = named(targets, &target).map_err(|why| (why, USAGE))?;
    let target = places.put(target, place)?;
    prepare(target, expected.as_ref()).map_err(|error| (error.to_string(), INFRASTRUCTURE))?;
    let executor = Executor::new(target).map_err(|error| (error.to_string(), INFRASTRUCTURE))?;
    let program = read_program(&executor, &program).map_err(|error| (error.to_string(), USAGE))?;
    Ok(Loaded {
        executor,
        program,
        expected,
    })
}

/// Runs a finding or a program again. 1 if it shows what it is to show, or anything; 0 if not.
pub fn replay(targets: &[&'static dyn Target], places: Places, arguments: &Replay) -> ExitCode {
    let mut signature = arguments.expect.clone();
    let prepare = |target, expected: Option<&Finding>| {
        signature = signature.take().or(expected.map(|it| it.signature.clone()));
        // Before the handlers of an executor, which pass on what they cannot use.
        crash::install(target, crash::Then::Tell(signature.clone()));
        watchdog::start(arguments.hang, || true)
    };
    let place = (places, arguments.place);
    let mut loaded = match load(targets, place, &arguments.path, prepare) {
        Ok(loaded) => loaded,
        Err((why, code)) => return fail(why, code),
    };
    if arguments.emit_test {
        print!("{}", test_of(&loaded));
        return ExitCode::SUCCESS;
    }
    if let Some(expected) = loaded.expected.as_ref().filter(|it| is_deadly(it))
        && arguments.times > 1
    {
        return one_by_one(arguments, &expected.signature);
    }
    let mut shown = 0;
    for _ in 0..arguments.times.max(1) {
        let findings = match look(&mut loaded.executor, &loaded.program) {
            Ok(findings) => findings,
            Err(error) => return fail(error, INFRASTRUCTURE),
        };
        let same = |finding: &Finding| match (&loaded.expected, &signature) {
            (Some(expected), _) => is_same(expected, finding),
            (None, Some(signature)) => *signature == finding.signature,
            (None, None) => true,
        };
        shown += u32::from(findings.iter().any(same));
    }
    match tell(&mut loaded) {
        Ok(told) => print!("{told}"),
        Err(error) => return fail(error, INFRASTRUCTURE),
    }
    println!("\nshown {shown} of {} times", arguments.times.max(1));
    if shown > 0 {
        ExitCode::from(FOUND)
    } else {
        ExitCode::SUCCESS
    }
}

/// The same for what ends the process.
fn one_by_one(arguments: &Replay, signature: &str) -> ExitCode {
    let mut shown = 0;
    for _ in 0..arguments.times {
        match apart::shows(&arguments.path, signature, arguments.hang, arguments.place) {
            Ok(again) => shown += u32::from(again),
            Err(error) => return fail(error, INFRASTRUCTURE),
        }
    }
    println!(
        "shown {shown} of {} times, in a process each",
        arguments.times
    );
    if shown > 0 {
        ExitCode::from(FOUND)
    } else {
        ExitCode::SUCCESS
    }
}

/// Whether it is what was found. Elsewhere the compiler may have inlined other functions, and a call that the
/// driver does not survive may end a step sooner: there it is what the same oracle notices in the same call.
fn is_same(expected: &Finding, shown: &Finding) -> bool {
    let elsewhere = expected.isolation.is_some() != shown.isolation.is_some();
    expected.signature == shown.signature
        || elsewhere && expected.oracle == shown.oracle && expected.during == shown.during
}

fn tell(loaded: &mut Loaded) -> std::io::Result<String> {
    let findings = look(&mut loaded.executor, &loaded.program)?;
    let outcome = loaded.executor.run(&loaded.program, Detail::Traced)?;
    let chosen = match &loaded.expected {
        Some(expected) => findings.iter().position(|it| is_same(expected, it)),
        None => (!findings.is_empty()).then_some(0),
    };
    Ok(
        match chosen.and_then(|at| Some((findings.get(at)?, outcome.sightings.get(at)?))) {
            Some((finding, sighting)) => {
                finding::tell(&loaded.executor, finding, sighting, &outcome)
            }
            None => {
                let mut decoder = loaded.executor.target().decoder();
                outcome.trace.text(&mut *decoder)
            }
        },
    )
}

/// A test that holds as soon as the driver is mended.
fn test_of(loaded: &Loaded) -> String {
    let target = loaded.executor.target();
    let program = text::print(&loaded.program, target.name(), target.calls());
    let name = loaded
        .expected
        .as_ref()
        .map_or("program", |it| &it.signature);
    let name: String = name
        .chars()
        .map(|letter| {
            if letter.is_ascii_alphanumeric() {
                letter
            } else {
                '_'
            }
        })
        .collect();
    let indented: String = program.lines().map(|line| format!("{line}\n")).collect();
    format!(
        "/// Replays a finding of `cofferdam fuzz`. TARGET is the `&'static dyn Target` of {}.\n#[test]\nfn {name}_is_gone() {{\n    use cofferdam_fuzz::{{executor::Executor, finding, program::text}};\n    const PROGRAM: &str = \"\\\n{indented}\";\n    let program = text::parse(PROGRAM, TARGET.calls()).expect(\"a program\").program;\n    let mut executor = Executor::new(TARGET).expect(\"memory\");\n\n    let shown = finding::look(&mut executor, &program).expect(\"memory\");\n\n    assert!(shown.is_empty(), \"{{shown:#?}}\");\n}}\n",
        target.name()
    )
}

/// Makes the program of a finding smaller, in place; of a lone program, prints the smaller one.
pub fn minimize(targets: &[&'static dyn Target], places: Places, arguments: &Minimize) -> ExitCode {
    let place = (places, arguments.place);
    let mut loaded = match load(targets, place, &arguments.path, |_, _| Ok(())) {
        Ok(loaded) => loaded,
        Err((why, code)) => return fail(why, code),
    };
    if let Some(expected) = loaded.expected.as_ref().filter(|it| is_deadly(it)) {
        return minimize_deadly(&loaded, expected, arguments.place);
    }
    let expected = loaded.expected.map(|expected| expected.signature);
    let found = explain(&mut loaded.executor, &loaded.program, |shown| {
        expected
            .as_ref()
            .is_none_or(|expected| *expected == shown.signature)
    });
    match found {
        Err(error) => fail(error, INFRASTRUCTURE),
        Ok(None) => fail("the program does not show it", 0),
        Ok(Some(found)) => {
            let target = loaded.executor.target();
            print!(
                "{}",
                text::print(&found.program, target.name(), target.calls())
            );
            ExitCode::from(FOUND)
        }
    }
}

/// Whether it ends the process.
fn is_deadly(finding: &Finding) -> bool {
    matches!(finding.oracle, Oracle::Crash | Oracle::Hang)
}

fn minimize_deadly(loaded: &Loaded, finding: &Finding, place: Option<Place>) -> ExitCode {
    let target = loaded.executor.target();
    // Candidates that hang are many.
    let patience = match finding.oracle {
        Oracle::Hang => Duration::from_secs(1),
        _ => Duration::from_secs(10),
    };
    match apart::smaller(target, &loaded.program, &finding.signature, patience, place) {
        Err(error) => fail(error, INFRASTRUCTURE),
        Ok(None) => fail("the program does not show it", 0),
        Ok(Some(program)) => {
            print!("{}", text::print(&program, target.name(), target.calls()));
            ExitCode::from(FOUND)
        }
    }
}
