//! Platforms of users: a machine's parameters other than the usual ones.
//!
//! Left out is what faults vary themselves, case by case: how a completion timeout ends, interrupt
//! remapping, ATS, reserved regions and access control. A platform that fixed one would contradict the
//! names of the cases.

use super::file::kept;
use super::{Known, Own, OwnError, Source, Table, Unknown};
use cofferdam_machine::config::Config;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use toml::Spanned;

/// A platform from a file.
pub struct Platform {
    key: String,
    id: &'static str,
    /// What it is.
    pub line: &'static str,
    /// Its parameters; the axes of the comparison are a trial's own.
    pub config: Config,
}

static TABLE: Table<Platform> = Table::new();

impl Known for Platform {
    const NOUN: &'static str = "platform";
    const REMEDY: &'static str = "give its file by --platform-file";
    const IS_DATA: bool = true;

    fn key(&self) -> &str {
        &self.key
    }

    fn id(&self) -> &str {
        self.id
    }

    fn table() -> &'static Table<Self> {
        &TABLE
    }
}

/// The parameters of a trial's machine.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(try_from = "String", into = "String")]
pub enum PlatformId {
    /// [`Config::default`].
    #[default]
    Usual,
    /// A user's.
    Own(Own<Platform>),
}

impl PlatformId {
    /// The id of the usual one.
    pub const USUAL: &'static str = "usual";

    /// All of them; from now on no other can be added.
    pub fn list() -> Vec<Self> {
        let own = TABLE.list().into_iter().map(Self::Own);
        std::iter::once(Self::Usual).chain(own).collect()
    }

    /// The one of that id.
    pub fn named(id: &str) -> Option<Self> {
        if id.eq_ignore_ascii_case(Self::USUAL) {
            return Some(Self::Usual);
        }
        TABLE.named(id).map(Self::Own)
    }

    /// Its name on command lines and reports.
    pub fn id(self) -> &'static str {
        match self {
            Self::Usual => Self::USUAL,
            Self::Own(own) => own.get().id,
        }
    }

    /// What it is.
    pub fn line(self) -> &'static str {
        match self {
            Self::Usual => {
                "the figures of real platforms: 50 ms completion timeout, 64 IOTLB entries"
            }
            Self::Own(own) => own.get().line,
        }
    }

    /// Whether it is the usual one.
    pub fn is_usual(&self) -> bool {
        *self == Self::Usual
    }

    /// Its parameters; the axes of the comparison are a trial's own.
    pub fn config(self) -> Config {
        match self {
            Self::Usual => Config::default(),
            Self::Own(own) => own.get().config,
        }
    }
}

impl From<PlatformId> for String {
    fn from(id: PlatformId) -> Self {
        match id {
            PlatformId::Usual => PlatformId::USUAL.to_owned(),
            PlatformId::Own(own) => own.get().key.clone(),
        }
    }
}

impl TryFrom<String> for PlatformId {
    type Error = Unknown;

    fn try_from(key: String) -> Result<Self, Unknown> {
        if key == Self::USUAL {
            return Ok(Self::Usual);
        }
        Own::of_key(&key).map(Self::Own)
    }
}

/// The values of a file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Values {
    id: Spanned<String>,
    line: Spanned<String>,
    completion_timeout: Option<Spanned<String>>,
    lazy_delay: Option<Spanned<String>>,
    lazy_entries: Option<Spanned<i64>>,
    iotlb_entries: Option<Spanned<i64>>,
    fault_log: Option<Spanned<i64>>,
    error_log: Option<Spanned<i64>>,
}

impl Platform {
    pub(super) fn register(source: &Source) -> Result<String, OwnError> {
        let platform = Self::of(source)?;
        let id = platform.id.to_owned();
        TABLE.add(platform, |id| id == PlatformId::USUAL)?;
        Ok(id)
    }

    fn of(source: &Source) -> Result<Self, OwnError> {
        let values: Values = source.values()?;
        let usual = Config::default();
        let time = |key, value: &Option<_>, least, usual| match value {
            // Beyond half a second a quick trial would end first.
            Some(value) => source.time(key, value, least, Duration::from_millis(500)),
            None => Ok(usual),
        };
        let count = |key: &str, value: &Option<Spanned<i64>>, most: usize, usual| {
            let Some(value) = value else { return Ok(usual) };
            let number = usize::try_from(*value.get_ref()).ok();
            number
                .filter(|number| (1..=most).contains(number))
                .ok_or_else(|| {
                    let what = format!("{key} is {}", value.get_ref());
                    source.wrong(value, what, format!("write a number from 1 to {most}"))
                })
        };
        Ok(Self {
            key: format!("{}#{}", values.id.get_ref(), source.digest()),
            id: kept(values.id.get_ref()),
            line: source.words("line", &values.line)?,
            config: Config {
                // Device Control 2 offers 50 us and more (PCI Express Base 6.0, 7.5.3.16).
                completion_timeout: time(
                    "completion_timeout",
                    &values.completion_timeout,
                    Duration::from_micros(50),
                    usual.completion_timeout,
                )?,
                lazy_delay: time(
                    "lazy_delay",
                    &values.lazy_delay,
                    Duration::from_micros(1),
                    usual.lazy_delay,
                )?,
                lazy_entries: count(
                    "lazy_entries",
                    &values.lazy_entries,
                    65_536,
                    usual.lazy_entries,
                )?,
                iotlb_entries: count(
                    "iotlb_entries",
                    &values.iotlb_entries,
                    65_536,
                    usual.iotlb_entries,
                )?,
                fault_log: count("fault_log", &values.fault_log, 256, usual.fault_log)?,
                error_log: count("error_log", &values.error_log, 256, usual.error_log)?,
                ..usual
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Kind;
    use super::*;

    fn of(text: &str) -> Result<Platform, OwnError> {
        Platform::of(&Source {
            kind: Kind::Platform,
            file: "slow.toml".into(),
            text: format!("id = \"slow\"\nline = \"slow\"\n{text}"),
        })
    }

    #[test]
    fn what_is_left_out_is_as_usual() {
        let platform = of("completion_timeout = \"200ms\"\nfault_log = 1").expect("valid");
        assert_eq!(
            platform.config,
            Config {
                completion_timeout: Duration::from_millis(200),
                fault_log: 1,
                ..Config::default()
            }
        );
    }

    #[test]
    fn what_cannot_be_is_named_with_line_value_and_remedy() {
        for (text, says) in [
            (
                "completion_timeout = \"50\"",
                "slow.toml:3: completion_timeout is \"50\"; write a time from 50µs to 500ms",
            ),
            (
                "\niotlb_entries = 0",
                "slow.toml:4: iotlb_entries is 0; write a number from 1 to 65536",
            ),
            ("fault_log = -1", "fault_log is -1; write a number"),
            (
                "ats = true",
                "slow.toml:3: unknown field `ats`, expected one of",
            ),
            ("lazy_delay = 10", "slow.toml:3: invalid type"),
            ("line = \"again\"", "slow.toml:3: duplicate key"),
        ] {
            let error = of(text).err().expect(text).to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
