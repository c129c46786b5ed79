//! What users add: placements and platforms as files, drivers and faults as code.
//!
//! A table for each kind holds what this process knows. It is filled before anything is listed or
//! run: code by the program that is its own zygote, files by whoever read them, and a zygote is told
//! of all files before its first trial. What is added stays to the end of the process, so names are
//! plain references. A record names a file's thing by id and digest, `net-vm#58c0..`, so that no
//! two files of one id are ever mixed up.
//!
//! It trusts code, which is linked in, and nothing in a file.

mod attack;
mod driver;
mod file;
mod layout;
mod platform;

pub use attack::{Attack, Deed, Strike};
pub use driver::{Driver, Host, Interrupting, Probe, SECTORS};
pub use file::{Kind, Source, register, sources};
pub use layout::Layout;
pub use platform::{Platform, PlatformId};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::path::PathBuf;
use std::sync::atomic::{self, AtomicBool};
use std::sync::{Mutex, MutexGuard, PoisonError};
use thiserror::Error;

/// Why something of a user's cannot be added.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OwnError {
    /// A file says something that cannot be.
    #[error("{file}{}: {what}; {remedy}", line.map(|line| format!(":{line}")).unwrap_or_default())]
    Invalid {
        /// The file.
        file: String,
        /// The line, from 1, if one is to blame.
        line: Option<usize>,
        /// What is wrong, with the value.
        what: String,
        /// What to do.
        remedy: String,
    },
    /// A file cannot be read.
    #[error("cannot read {}: {why}; name a TOML file of yours", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The id names something else.
    #[error("there is another {noun} called '{id}' already; give yours an id of its own")]
    Taken {
        /// What it is.
        noun: &'static str,
        /// The id.
        id: String,
    },
    /// Ids are part of names and of command lines.
    #[error(
        "'{id}' is no id of a {noun}: write up to 40 small letters, digits and single hyphens, \
         beginning with a letter, such as my-{noun}"
    )]
    BadId {
        /// What it is.
        noun: &'static str,
        /// The id.
        id: String,
    },
    /// The lists were made before it came.
    #[error("the {noun} '{id}' comes too late: add it before anything is listed or run")]
    Late {
        /// What it is.
        noun: &'static str,
        /// The id.
        id: String,
    },
}

/// Something a user can add.
pub trait Known: Sized + Sync + 'static {
    /// What one is called.
    const NOUN: &'static str;
    /// How a program comes to know one.
    const REMEDY: &'static str;
    /// Whether it is a file's data, which may be read again; code is linked in once.
    const IS_DATA: bool;
    /// The name in records.
    fn key(&self) -> &str;
    /// The name on command lines and reports.
    fn id(&self) -> &str;
    /// Whether its id is one.
    fn has_id(&self) -> bool {
        is_id(self.id())
    }
    /// Those this process knows.
    fn table() -> &'static Table<Self>;
}

/// Those of a kind that this process knows.
pub struct Table<T: 'static> {
    entries: Mutex<Vec<&'static T>>,
    /// Whether somebody has made a list of them.
    listed: AtomicBool,
}

impl<T: Known> Default for Table<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Known> Table<T> {
    /// An empty one.
    pub const fn new() -> Self {
        Self {
            entries: Mutex::new(Vec::new()),
            listed: AtomicBool::new(false),
        }
    }

    fn entries(&self) -> MutexGuard<'_, Vec<&'static T>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of them, for good: none can be added from now on.
    pub fn list(&self) -> Vec<Own<T>> {
        self.listed.store(true, atomic::Ordering::Release);
        self.entries().iter().copied().map(Own).collect()
    }

    /// Adds one, if it is not there; `taken` are ids of what is not a user's.
    pub fn add(&self, entry: T, taken: impl Fn(&str) -> bool) -> Result<Own<T>, OwnError> {
        let (noun, id) = (T::NOUN, entry.id().to_owned());
        if !entry.has_id() {
            return Err(OwnError::BadId { noun, id });
        }
        let mut entries = self.entries();
        if let Some(known) = entries.iter().find(|known| known.id() == id) {
            return if known.key() == entry.key() && T::IS_DATA {
                Ok(Own(known))
            } else {
                Err(OwnError::Taken { noun, id })
            };
        }
        if taken(&id) {
            return Err(OwnError::Taken { noun, id });
        }
        if self.listed.load(atomic::Ordering::Acquire) {
            return Err(OwnError::Late { noun, id });
        }
        let entry: &'static T = Box::leak(Box::new(entry));
        entries.push(entry);
        Ok(Own(entry))
    }

    /// The one of that key.
    pub fn find(&self, key: &str) -> Option<Own<T>> {
        let entries = self.entries();
        let known = entries.iter().find(|known| known.key() == key);
        known.copied().map(Own)
    }

    /// The one of that id.
    pub fn named(&self, id: &str) -> Option<Own<T>> {
        let entries = self.entries();
        let known = entries
            .iter()
            .find(|known| known.id().eq_ignore_ascii_case(id));
        known.copied().map(Own)
    }
}

/// A name for something a user added.
pub struct Own<T: 'static>(&'static T);

impl<T: Known> Own<T> {
    /// What it names.
    pub const fn get(self) -> &'static T {
        self.0
    }

    /// The one a record names.
    pub(crate) fn of_key(key: &str) -> Result<Self, Unknown> {
        T::table().find(key).ok_or_else(|| Unknown {
            noun: T::NOUN,
            key: key.to_owned(),
            remedy: T::REMEDY,
        })
    }
}

/// A record names what this program does not know.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("no {noun} is called '{key}' here; {remedy}")]
pub struct Unknown {
    noun: &'static str,
    key: String,
    remedy: &'static str,
}

impl<T> Clone for Own<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Own<T> {}

impl<T: Known> fmt::Debug for Own<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.key())
    }
}

impl<T: Known> PartialEq for Own<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0.key() == other.0.key()
    }
}

impl<T: Known> Eq for Own<T> {}

impl<T: Known> PartialOrd for Own<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T: Known> Ord for Own<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.key().cmp(other.0.key())
    }
}

impl<T: Known> Hash for Own<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.key().hash(state);
    }
}

impl<T: Known> Serialize for Own<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.key())
    }
}

impl<'de, T: Known> Deserialize<'de> for Own<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let key = String::deserialize(deserializer)?;
        Self::of_key(&key).map_err(de::Error::custom)
    }
}

impl<T: Known> JsonSchema for Own<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("own-{}", T::NOUN).into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "description": format!("A {} of a user's own.", T::NOUN) })
    }
}

/// Whether that can be an id: kebab-case, so that it can stand in a cell's name.
fn is_id(id: &str) -> bool {
    let small = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    id.len() <= 40
        && id.starts_with(|c: char| c.is_ascii_lowercase())
        && id
            .split('-')
            .all(|part| !part.is_empty() && part.chars().all(small))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_kebab_case() {
        for good in ["a", "driver-vm", "x2-apic"] {
            assert!(is_id(good), "{good}");
        }
        for bad in [
            "",
            "-a",
            "a-",
            "a--b",
            "A",
            "a/b",
            "2a",
            "a b",
            &"a".repeat(41),
        ] {
            assert!(!is_id(bad), "{bad}");
        }
    }
}
