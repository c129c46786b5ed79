//! Programs that end their process, or do not give it back: each run in a process of its own.

use crate::FOUND;
use crate::arguments::Place;
use cofferdam_fuzz::minimize;
use cofferdam_fuzz::program::{Program, text};
use cofferdam_fuzz::target::Target;
use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Whether a program, or a finding, ends its process with that signature.
pub fn shows(
    path: &Path,
    signature: &str,
    hang: Duration,
    place: Option<Place>,
) -> io::Result<bool> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("replay").arg(path);
    command.args(["--expect", signature]);
    command.arg("--hang").arg(hang.as_secs().max(1).to_string());
    if let Some(place) = place {
        command.args(["--in", place.name()]);
    }
    // The driver may say anything; what counts is the end.
    command.stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    Ok(command.status()?.code() == Some(i32::from(FOUND)))
}

/// The smallest program found that ends its process with that signature; none if this one does not.
pub fn smaller(
    target: &dyn Target,
    program: &Program,
    signature: &str,
    hang: Duration,
    place: Option<Place>,
) -> io::Result<Option<Program>> {
    let name = format!("cofferdam-minimize-{}.prog", std::process::id());
    let path = std::env::temp_dir().join(name);
    let mut failed = None;
    let mut shown = |candidate: &Program| {
        let text = text::print(candidate, target.name(), target.calls());
        let shown = fs::write(&path, text).and_then(|()| shows(&path, signature, hang, place));
        shown.unwrap_or_else(|error| {
            failed = Some(error);
            false
        })
    };
    let smaller = shown(program).then(|| minimize::minimize(program, &mut shown).0);
    // It is a copy.
    let _ = fs::remove_file(&path);
    match failed {
        Some(error) => Err(error),
        None => Ok(smaller),
    }
}
