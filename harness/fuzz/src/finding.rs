//! Findings: what a driver's author gets.
//!
//! A finding is a directory named after its signature: `finding.json`, `program.prog`, `trace.txt`. It
//! is written beside its place and then renamed there, so whoever sees it sees all of it, and a
//! process that is killed takes none with it that was announced.

use crate::executor::{Executor, Outcome};
use crate::frames::{self, Location};
use crate::minimize::minimize;
use crate::oracle::{Oracle, Place, Sighting};
use crate::program::{Action, Mode, Program, text};
use crate::target::Target;
use crate::world::Detail;
use serde::{Deserialize, Serialize};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// The three files.
pub const REPORT: &str = "finding.json";
/// See [`REPORT`].
pub const PROGRAM: &str = "program.prog";
/// See [`REPORT`].
pub const TRACE: &str = "trace.txt";

/// A defect, and how to see it again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Oracle and place: the same for as long as the driver has that function and says that message.
    pub signature: String,
    /// Who noticed.
    pub oracle: Oracle,
    /// Whether it counts as a defect of this driver.
    pub defect: bool,
    /// Where in the driver.
    pub location: Location,
    /// During which call of the workload.
    pub during: String,
    /// In words.
    pub message: String,
    /// The target.
    pub target: String,
    /// The driver's crate.
    pub driver: String,
    /// Its version.
    pub driver_version: String,
    /// The compiler.
    pub toolchain: String,
    /// Lines of the program that are actions.
    pub actions: usize,
    /// Where the driver ran, if that was not the fuzzer's own process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolation: Option<String>,
}

/// Why a finding could not be written or read.
#[derive(Debug, Error)]
pub enum FindingError {
    /// The file system refused.
    #[error("{}: {error}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
    /// The report is none.
    #[error("{}: {error}; is it a finding's directory?", path.display())]
    Report {
        /// Where.
        path: PathBuf,
        /// What is wrong.
        error: serde_json::Error,
    },
    /// The program is none.
    #[error("{}: {error}", path.display())]
    Program {
        /// Where.
        path: PathBuf,
        /// What is wrong.
        error: text::ParseError,
    },
}

/// A finding with its program and its trace.
#[derive(Clone, Debug)]
pub struct Found {
    /// The report.
    pub finding: Finding,
    /// The program, minimised.
    pub program: Program,
    /// What happens when it runs.
    pub trace: String,
}

/// Looks closely at what a program shows, without making the program smaller.
///
/// # Errors
///
/// The system has no memory left.
pub fn look(executor: &mut Executor, program: &Program) -> io::Result<Vec<Finding>> {
    let outcome = executor.run(program, Detail::Close)?;
    let findings = outcome.sightings.iter();
    Ok(findings
        .map(|sighting| describe(executor, sighting, program))
        .collect())
}

/// Makes a finding of what `program` shows and `wanted` picks: minimises it and tells it.
///
/// None if a close look does not show it: a wait that only seemed to have no end, or a driver that
/// does not do the same each time.
///
/// # Errors
///
/// The system has no memory left.
pub fn explain(
    executor: &mut Executor,
    program: &Program,
    wanted: impl Fn(&Finding) -> bool,
) -> io::Result<Option<Found>> {
    let Some(finding) = look(executor, program)?.into_iter().find(|it| wanted(it)) else {
        return Ok(None);
    };
    let signature = finding.signature;
    let (program, _) = minimize(program, |candidate| {
        look(executor, candidate)
            .is_ok_and(|shown| shown.iter().any(|shown| shown.signature == signature))
    });
    let honest = match finding.oracle {
        Oracle::UnboundedWait => Some(ends_honestly(executor, &program, &signature)?),
        _ => None,
    };
    let outcome = executor.run(&program, Detail::Traced)?;
    let sighting = outcome.sightings.iter().find_map(|sighting| {
        let finding = describe(executor, sighting, &program);
        (finding.signature == signature).then_some((finding, sighting))
    });
    let Some((mut finding, sighting)) = sighting else {
        return Ok(None);
    };
    if let Some(ends) = honest {
        finding.message += if ends {
            "; an honest device ends the wait"
        } else {
            "; an honest device does not end the wait either"
        };
    }
    let trace = tell(executor, &finding, sighting, &outcome);
    Ok(Some(Found {
        finding,
        program,
        trace,
    }))
}

/// Whether the driver comes back from the same calls where the device does nothing but answer them.
fn ends_honestly(executor: &mut Executor, program: &Program, signature: &str) -> io::Result<bool> {
    let is_call = |action: &&Action| matches!(action, Action::Call { .. });
    let honest = Program {
        mode: Mode::Model,
        actions: program.actions.iter().filter(is_call).cloned().collect(),
    };
    let shown = look(executor, &honest)?;
    Ok(shown.iter().all(|shown| shown.signature != signature))
}

/// The trace of an execution that showed a finding.
pub fn tell(
    executor: &Executor,
    finding: &Finding,
    sighting: &Sighting,
    outcome: &Outcome,
) -> String {
    let mut decoder = executor.target().decoder();
    let location = &finding.location;
    let mut text = format!(
        "{}: {}\n  in {}\n",
        finding.oracle.name(),
        finding.message,
        location.function
    );
    for function in location.via.iter().filter(|it| **it != location.function) {
        text += &format!("  from {function}\n");
    }
    text += &format!(
        "  at {}:{}\n  during {}\n\n",
        location.file, location.line, finding.during
    );
    if let Place::Frames(addresses) = &sighting.place {
        text += "driver stack, innermost first:\n";
        let stack = frames::stack(addresses);
        let code = executor.target().driver().name;
        let inside = stack
            .iter()
            .take_while(|place| !place.function.starts_with("corosensei::"));
        for place in inside.filter(|place| is_worth(place, code)) {
            text += &format!("  {} ({}:{})\n", place.function, place.file, place.line);
        }
        text.push('\n');
    }
    text += &outcome.trace.text(&mut *decoder);
    text
}

fn is_worth(place: &Location, code: &str) -> bool {
    frames::of_driver(std::slice::from_ref(place), code).is_some()
}

fn describe(executor: &Executor, sighting: &Sighting, program: &Program) -> Finding {
    let target = executor.target();
    let driver = target.driver();
    let location = match &sighting.place {
        Place::Frames(addresses) => {
            let stack = frames::stack(addresses);
            frames::of_driver(&stack, driver.name).unwrap_or_default()
        }
        Place::Source { file, line } => Location {
            file: (*file).to_owned(),
            line: *line,
            ..Location::default()
        },
        Place::Call => Location::default(),
    };
    let signature = signature(sighting, &location);
    Finding {
        signature,
        oracle: sighting.oracle,
        defect: sighting.evident || sighting.oracle.is_defect(target.blocks()),
        location,
        during: sighting.during.to_owned(),
        message: sighting.words.clone(),
        target: target.name().to_owned(),
        driver: driver.name.to_owned(),
        driver_version: driver.version.to_owned(),
        toolchain: option_env!("COFFERDAM_TOOLCHAIN")
            .unwrap_or("unknown")
            .to_owned(),
        actions: program.actions.len(),
        isolation: target.isolation().map(str::to_owned),
    }
}

/// Which of the functions that led there belong to a signature. A panic has its message; another loop may
/// use what a file shares. Memory is lent by a function that all drivers of a crate share: there it matters
/// also on whose behalf.
fn telling(oracle: Oracle, location: &Location) -> &[String] {
    let many = match oracle {
        Oracle::Panic => 0,
        Oracle::FreedWhileMapped
        | Oracle::StackWhileMapped
        | Oracle::LeakedMapping
        | Oracle::LeakedMemory
        | Oracle::BadUnmap => 2,
        _ => 1,
    };
    &location.via[..location.via.len().min(many)]
}

/// Oracle, the functions that led there and, of a panic, its message without numbers. No line: an
/// unrelated edit moves it. Its name is the outermost function's: the inner ones are often shared.
fn signature(sighting: &Sighting, location: &Location) -> String {
    let mut hash = Fnv::default();
    sighting.oracle.name().hash(&mut hash);
    location.function.hash(&mut hash);
    let via = telling(sighting.oracle, location);
    via.hash(&mut hash);
    if location.function.is_empty() {
        location.file.hash(&mut hash);
        sighting.during.hash(&mut hash);
    }
    if sighting.evident {
        "evident".hash(&mut hash);
    }
    if sighting.oracle == Oracle::Panic {
        let mut digits = false;
        for letter in sighting.words.chars().take(200) {
            let digit = letter.is_ascii_digit();
            if !digit {
                letter.hash(&mut hash);
            } else if !digits {
                '#'.hash(&mut hash);
            }
            digits = digit;
        }
    }
    let named = via.last().unwrap_or(&location.function);
    let short: String = named
        .rsplit("::")
        .find(|part| !part.starts_with('{'))
        .unwrap_or_default()
        .chars()
        .filter(|letter| letter.is_ascii_alphanumeric() || *letter == '_')
        .take(32)
        .collect();
    let place = if short.is_empty() {
        sighting.during
    } else {
        &short
    };
    format!(
        "{}-{place}-{:08x}",
        sighting.oracle.name(),
        hash.finish() & 0xffff_ffff
    )
}

/// A hash that is the same in every version of every program (FNV-1a).
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

/// A hash of a program, to name a file after.
pub fn name_of(program: &Program) -> String {
    let mut hash = DefaultHasher::new();
    program.hash(&mut hash);
    format!("{:016x}", hash.finish())
}

impl Found {
    /// Writes the finding below `findings`; whether it was new there. Everything is on disk when this
    /// returns.
    ///
    /// # Errors
    ///
    /// The file system refuses.
    pub fn write(&self, target: &dyn Target, findings: &Path) -> Result<bool, FindingError> {
        let place = findings.join(&self.finding.signature);
        if place.exists() {
            return Ok(false);
        }
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |error| FindingError::Io { path, error }
        };
        fs::create_dir_all(findings).map_err(failed(findings))?;
        let beside = tempfile::Builder::new()
            .prefix(".new-")
            .tempdir_in(findings)
            .map_err(failed(findings))?;
        let program = text::print(&self.program, target.name(), target.calls());
        let mut report = serde_json::to_string_pretty(&self.finding).unwrap_or_default();
        report.push('\n');
        for (name, text) in [(REPORT, &report), (PROGRAM, &program), (TRACE, &self.trace)] {
            let path = beside.path().join(name);
            write_whole(&path, text).map_err(failed(&path))?;
        }
        let beside = beside.keep();
        match fs::rename(&beside, &place) {
            Ok(()) => {
                let synced = fs::File::open(findings).and_then(|dir| dir.sync_all());
                synced.map_err(failed(findings))?;
                Ok(true)
            }
            // Another process was first.
            Err(_) if place.exists() => {
                let _ = fs::remove_dir_all(&beside);
                Ok(false)
            }
            Err(error) => Err(failed(&place)(error)),
        }
    }
}

fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let mut file = fs::File::create(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Reads the report of a finding.
///
/// # Errors
///
/// It cannot be read, or is none.
pub fn read_report(directory: &Path) -> Result<Finding, FindingError> {
    let path = directory.join(REPORT);
    let text = fs::read(&path).map_err(|error| FindingError::Io {
        path: path.clone(),
        error,
    })?;
    serde_json::from_slice(&text).map_err(|error| FindingError::Report { path, error })
}

/// Reads a program for the executor's target, from a file or from a finding's directory.
///
/// # Errors
///
/// It cannot be read, or is none.
pub fn read_program(executor: &Executor, path: &Path) -> Result<Program, FindingError> {
    let path = if path.is_dir() {
        path.join(PROGRAM)
    } else {
        path.to_owned()
    };
    let text = fs::read_to_string(&path).map_err(|error| FindingError::Io {
        path: path.clone(),
        error,
    })?;
    let parsed = text::parse(&text, executor.target().calls());
    match parsed {
        Ok(parsed) => Ok(parsed.program),
        Err(error) => Err(FindingError::Program { path, error }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sighted(oracle: Oracle, location: &Location) -> String {
        let sighting = Sighting {
            oracle,
            place: Place::Call,
            key: 0,
            during: "read",
            words: String::new(),
            evident: false,
        };
        signature(&sighting, location)
    }

    fn shared_by(entry: &str, caller: &str) -> Location {
        Location {
            function: "d::queue::Descriptor::set_buf".to_owned(),
            file: "src/queue.rs".to_owned(),
            line: 7,
            via: vec![entry.to_owned(), caller.to_owned()],
        }
    }

    #[test]
    fn what_a_shared_function_was_used_for_tells_findings_apart() {
        let oracle = Oracle::LeakedMapping;
        let receive = sighted(oracle, &shared_by("d::queue::add", "d::net::receive"));
        let send = sighted(oracle, &shared_by("d::queue::add", "d::net::send"));
        let blocking = sighted(oracle, &shared_by("d::queue::add_and_wait", "d::net::send"));

        assert!(receive != send && send != blocking && receive != blocking);
        assert!(receive.starts_with("leaked-mapping-receive-"), "{receive}");
    }

    #[test]
    fn panic_is_the_same_whichever_way_it_was_reached() {
        let index = |entry| sighted(Oracle::Panic, &shared_by(entry, "d::net::receive"));
        assert_eq!(index("d::queue::pop"), index("d::queue::peek"));
    }

    #[test]
    fn edit_that_moves_lines_or_files_keeps_the_signature() {
        let before = shared_by("d::queue::add", "d::net::receive");
        let after = Location {
            file: "src/queue/mod.rs".to_owned(),
            line: 77,
            ..before.clone()
        };

        let oracle = Oracle::LeakedMapping;
        assert_eq!(sighted(oracle, &before), sighted(oracle, &after));
    }
}
