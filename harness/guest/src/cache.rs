//! What was fetched, kept outside the repository.
//!
//! A set of files is put together in a directory of its own, listed with sizes, and renamed into
//! place as the last step; one that has no list, or does not agree with it, counts as absent. A lock
//! file makes parallel tests fetch once.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// Raised whenever what is fetched changes its shape.
const FORMAT: u32 = 1;

const LIST: &str = "contents.json";

/// What a complete set says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Contents {
    format: u32,
    /// Where each thing is, relative to the set's directory.
    pub paths: BTreeMap<String, PathBuf>,
    /// Its packages, with versions.
    pub packages: Vec<String>,
    /// Sizes of the files whose loss would be felt, by relative path.
    sizes: BTreeMap<PathBuf, u64>,
}

/// A directory of sets.
#[derive(Debug)]
pub(crate) struct Cache {
    root: PathBuf,
}

/// A complete set.
#[derive(Debug)]
pub(crate) struct Set {
    /// Its directory.
    pub at: PathBuf,
    /// What is in it.
    pub contents: Contents,
}

impl Set {
    /// One of its things.
    pub(crate) fn path(&self, thing: &str) -> Option<PathBuf> {
        self.contents
            .paths
            .get(thing)
            .map(|path| self.at.join(path))
    }
}

impl Contents {
    /// Describes the set in a directory. Every path of `paths` must be there; the sizes of those
    /// that are files are recorded.
    pub(crate) fn describe(
        directory: &Path,
        paths: BTreeMap<String, PathBuf>,
        packages: Vec<String>,
    ) -> io::Result<Self> {
        let mut sizes = BTreeMap::new();
        for path in paths.values() {
            let found = fs::metadata(directory.join(path))
                .map_err(|error| io::Error::other(format!("{}: {error}", path.display())))?;
            if found.is_file() {
                sizes.insert(path.clone(), found.len());
            }
        }
        Ok(Self {
            format: FORMAT,
            paths,
            packages,
            sizes,
        })
    }
}

impl Cache {
    /// The cache in a directory, which is made when something is put into it.
    pub(crate) fn at(root: PathBuf) -> Self {
        Self { root }
    }

    /// The set of a name; if there is none, `make` puts one together in the directory it is given.
    ///
    /// Waits for another process that is making one. That wait is bounded by the deadlines of what
    /// the other does; the lock falls with its process.
    pub(crate) fn get<E: From<io::Error>>(
        &self,
        name: &str,
        make: impl FnOnce(&Path) -> Result<Contents, E>,
    ) -> Result<Set, E> {
        if let Some(set) = self.find(name) {
            return Ok(set);
        }
        fs::create_dir_all(&self.root).map_err(|error| at(&self.root, &error))?;
        let lock = File::create(self.root.join("lock")).map_err(|error| at(&self.root, &error))?;
        lock.lock()?;
        if let Some(set) = self.find(name) {
            return Ok(set);
        }
        let partial = self.root.join(format!("{name}.partial"));
        let whole = self.root.join(name);
        for stale in [&partial, &whole] {
            if stale.symlink_metadata().is_ok() {
                fs::remove_dir_all(stale).map_err(|error| at(stale, &error))?;
            }
        }
        fs::create_dir(&partial).map_err(|error| at(&partial, &error))?;
        let contents = make(&partial)?;
        let list = serde_json::to_vec_pretty(&contents).map_err(io::Error::from)?;
        fs::write(partial.join(LIST), list)?;
        // The name must not reach the disk before what it names.
        rustix::fs::syncfs(File::open(&partial)?).map_err(io::Error::from)?;
        fs::rename(&partial, &whole)?;
        Ok(Set {
            at: whole,
            contents,
        })
    }

    /// The set of a name, if it is whole.
    fn find(&self, name: &str) -> Option<Set> {
        let directory = self.root.join(name);
        let list = fs::read(directory.join(LIST)).ok()?;
        let contents: Contents = serde_json::from_slice(&list).ok()?;
        let whole = contents.format == FORMAT
            && contents
                .paths
                .values()
                .all(|path| directory.join(path).exists())
            && contents.sizes.iter().all(|(path, size)| {
                fs::metadata(directory.join(path)).is_ok_and(|found| found.len() == *size)
            });
        whole.then_some(Set {
            at: directory,
            contents,
        })
    }
}

/// An error with the place it happened at.
fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_file(directory: &Path) -> io::Result<Contents> {
        fs::write(directory.join("kernel"), b"a kernel")?;
        let paths = BTreeMap::from([("kernel".to_owned(), PathBuf::from("kernel"))]);
        Contents::describe(directory, paths, vec!["linux 6.12".to_owned()])
    }

    fn cache() -> (tempfile::TempDir, Cache) {
        let root = tempfile::tempdir().expect("directory");
        let cache = Cache::at(root.path().join("cofferdam"));
        (root, cache)
    }

    #[test]
    fn whole_set_is_made_once() {
        let (_root, cache) = cache();
        let made = cache.get("set", one_file).expect("set");

        let found = cache
            .get("set", |_| {
                Err::<Contents, _>(io::Error::other("made again"))
            })
            .expect("set");

        assert_eq!(found.contents, made.contents);
        let kernel = found.path("kernel").expect("kernel");
        assert_eq!(fs::read(kernel).expect("file"), b"a kernel");
    }

    #[test]
    fn failed_attempt_leaves_no_set_and_does_not_disturb_the_next() {
        let (_root, cache) = cache();
        let failed = cache.get("set", |directory| {
            one_file(directory)?;
            Err(io::Error::other("the network is gone"))
        });

        assert!(failed.is_err());
        assert!(cache.find("set").is_none());
        assert!(cache.get("set", one_file).is_ok());
    }

    #[test]
    fn truncated_file_makes_the_set_absent() {
        let (_root, cache) = cache();
        let set = cache.get("set", one_file).expect("set");
        fs::write(set.path("kernel").expect("kernel"), b"a ker").expect("truncated");

        assert!(cache.find("set").is_none());
        let mended = cache.get("set", one_file).expect("set");
        assert_eq!(
            fs::read(mended.path("kernel").expect("kernel")).expect("file"),
            b"a kernel"
        );
    }

    #[test]
    fn set_without_a_list_or_of_another_format_is_absent() {
        let (_root, cache) = cache();
        let set = cache.get("set", one_file).expect("set");
        let list = set.at.join(LIST);

        let other = Contents {
            format: FORMAT + 1,
            ..set.contents
        };
        fs::write(&list, serde_json::to_vec(&other).expect("list")).expect("list");
        assert!(cache.find("set").is_none());
        fs::remove_file(&list).expect("removed");
        assert!(cache.find("set").is_none());
    }

    #[test]
    fn parallel_seekers_make_one_set() {
        let (_root, cache) = cache();
        let made = std::sync::atomic::AtomicU32::new(0);

        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    cache
                        .get("set", |directory| {
                            made.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                            one_file(directory)
                        })
                        .expect("set");
                });
            }
        });

        assert_eq!(made.into_inner(), 1);
    }
}
