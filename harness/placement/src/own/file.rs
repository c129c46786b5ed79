//! Files of users: read as TOML, checked to the last value, and known by id and content.

use super::{Layout, OwnError, Platform};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use toml::Spanned;

/// Bytes in a file at most. It is part of every run's header, and of a message.
const LONGEST: usize = 32 * 1024;

/// What a file describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A placement.
    Placement,
    /// A platform.
    Platform,
}

/// A file, as it was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// What it describes.
    pub kind: Kind,
    /// Its name, for messages.
    pub file: String,
    /// All it says.
    pub text: String,
}

static SOURCES: Mutex<Vec<Source>> = Mutex::new(Vec::new());

/// Every file this process knows, in the order they came.
pub fn sources() -> Vec<Source> {
    SOURCES
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone()
}

/// Makes what a file describes known. The same file again changes nothing. Gives its id.
pub fn register(source: &Source) -> Result<String, OwnError> {
    if source.text.len() > LONGEST {
        return Err(OwnError::Invalid {
            file: source.file.clone(),
            line: None,
            what: format!("it has more than {LONGEST} bytes"),
            remedy: "shorten it".to_owned(),
        });
    }
    let id = match source.kind {
        Kind::Placement => Layout::register(source)?,
        Kind::Platform => Platform::register(source)?,
    };
    let mut sources = SOURCES.lock().unwrap_or_else(PoisonError::into_inner);
    if !sources.iter().any(|known| known.is(source)) {
        sources.push(source.clone());
    }
    Ok(id)
}

impl Source {
    /// Reads a file.
    pub fn read(kind: Kind, path: &Path) -> Result<Self, OwnError> {
        let unreadable = |why: String| OwnError::Unreadable {
            path: path.to_owned(),
            why,
        };
        let file = File::open(path).map_err(|error| unreadable(error.to_string()))?;
        let mut text = String::new();
        // One byte more than allowed is enough to be refused.
        file.take(LONGEST as u64 + 1)
            .read_to_string(&mut text)
            .map_err(|error| unreadable(error.to_string()))?;
        Ok(Self {
            kind,
            file: path.display().to_string(),
            text,
        })
    }

    /// Whether both say the same, wherever they were read.
    fn is(&self, other: &Self) -> bool {
        self.kind == other.kind && self.text == other.text
    }

    /// Names its content (FNV-1a, 64 bits).
    pub fn digest(&self) -> String {
        let step = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        let hash = self.text.bytes().fold(0xcbf2_9ce4_8422_2325, step);
        format!("{hash:016x}")
    }

    /// Its values, by a structure that knows them all.
    pub(super) fn values<'a, T: Deserialize<'a>>(&'a self) -> Result<T, OwnError> {
        toml::from_str(&self.text).map_err(|error| OwnError::Invalid {
            file: self.file.clone(),
            line: error.span().map(|span| self.line(span.start)),
            what: error.message().trim_end().replace('\n', ", "),
            remedy: match self.kind {
                Kind::Placement => "harness/cli/examples/placement.toml is a whole one",
                Kind::Platform => "harness/cli/examples/platform.toml is a whole one",
            }
            .to_owned(),
        })
    }

    fn line(&self, at: usize) -> usize {
        let before = self.text.get(..at).unwrap_or(&self.text);
        1 + before.bytes().filter(|byte| *byte == b'\n').count()
    }

    /// A value that cannot be.
    pub(super) fn wrong<T>(
        &self,
        value: &Spanned<T>,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) -> OwnError {
        OwnError::Invalid {
            file: self.file.clone(),
            line: Some(self.line(value.span().start)),
            what: what.into(),
            remedy: remedy.into(),
        }
    }

    /// A file that cannot be, though each of its values could.
    pub(super) fn wrong_as_a_whole(
        &self,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) -> OwnError {
        OwnError::Invalid {
            file: self.file.clone(),
            line: None,
            what: what.into(),
            remedy: remedy.into(),
        }
    }

    /// A line of text for a report.
    pub(super) fn words(
        &self,
        key: &str,
        value: &Spanned<String>,
    ) -> Result<&'static str, OwnError> {
        let text = value.get_ref().trim();
        if text.is_empty() || text.chars().count() > 200 || text.contains(char::is_control) {
            let what = format!("{key} is empty, or longer than 200 characters, or not one line");
            return Err(self.wrong(value, what, "say it in a line"));
        }
        Ok(kept(text))
    }

    /// A time with its unit, within bounds.
    pub(super) fn time(
        &self,
        key: &str,
        value: &Spanned<String>,
        least: Duration,
        most: Duration,
    ) -> Result<Duration, OwnError> {
        duration(value.get_ref())
            .filter(|time| (least..=most).contains(time))
            .ok_or_else(|| {
                let what = format!("{key} is \"{}\"", value.get_ref());
                let remedy = format!("write a time from {least:?} to {most:?}, such as \"50ms\"");
                self.wrong(value, what, remedy)
            })
    }
}

/// A time such as `50ms`: a whole number and ns, us, ms or s.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let nanos = match unit.trim_start() {
        "ns" => 1,
        "us" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        _ => return None,
    };
    Some(Duration::from_nanos(number.checked_mul(nanos)?))
}

/// A text to the end of the process.
pub(super) fn kept(text: &str) -> &'static str {
    Box::leak(text.to_owned().into_boxed_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        assert_eq!(duration("50ms"), Some(Duration::from_millis(50)));
        assert_eq!(duration("2 s"), Some(Duration::from_secs(2)));
        for bad in [
            "",
            "50",
            "ms",
            "-1ms",
            "1.5ms",
            "1m",
            "18446744073709551615s",
        ] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn digest_is_fnv_1a() {
        let source = Source {
            kind: Kind::Platform,
            file: "x".into(),
            text: "foobar".into(),
        };
        // The published vector.
        assert_eq!(source.digest(), "85944171f73967e8");
    }
}
