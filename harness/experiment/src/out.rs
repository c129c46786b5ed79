//! The directory a run writes: records as they come, everything else whole or not at all.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use thiserror::Error;

/// Where a run goes that was not told: `reports/compare-20260102T030405Z`.
pub fn default_path(now: SystemTime) -> PathBuf {
    let seconds = now
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let (year, month, day) = civil(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    PathBuf::from(format!(
        "reports/compare-{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z"
    ))
}

/// The date, so many days after 1970-01-01, in the Gregorian calendar: years that start in March
/// have their leap day last, and 400 of them always have 146,097 days.
const fn civil(days: u64) -> (u64, u64, u64) {
    let since = days + 719_468;
    let (era, day) = (since / 146_097, since % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let from_march = (5 * day + 2) / 153;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = year + era * 400 + (month <= 2) as u64;
    (year, month, day - (153 * from_march + 2) / 5 + 1)
}

/// The records' file name.
pub const TRIALS: &str = "trials.jsonl";

/// Why a directory cannot be written.
#[derive(Debug, Error)]
pub enum OutError {
    /// It holds something already.
    #[error("{0} is not empty: results are never mixed; name another directory or remove it")]
    NotEmpty(PathBuf),
    /// Another run writes it.
    #[error("another run is writing {0}: wait for it, or stop it first")]
    Busy(PathBuf),
    /// Its records cannot be read.
    #[error("cannot read {path}: {source}; name the directory of a run")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A record could not be appended. What was there is whole, and nothing follows it.
    #[error(
        "cannot write {path}: {source}; every finished trial is there: remove the cause, then \
         continue with --resume"
    )]
    Append {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It cannot be made or written.
    #[error("cannot write {path}: {source}; name a directory that can be written with --out")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// An output directory.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    trials: File,
    /// Bytes of the records that are there for good.
    length: u64,
    made: bool,
}

/// A run writes its directory alone. Where the file system knows no locks, that is up to the user.
fn lock(trials: &File, path: &Path) -> Result<(), OutError> {
    match trials.try_lock() {
        Err(TryLockError::WouldBlock) => Err(OutError::Busy(path.to_owned())),
        _ => Ok(()),
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> OutError + '_ {
    move |source| OutError::Io {
        path: path.to_owned(),
        source,
    }
}

impl Directory {
    /// Makes the directory, which may exist if it is empty, and an empty file of records.
    pub fn create(path: &Path) -> Result<Self, OutError> {
        let made = vacant(path)?;
        let file = path.join(TRIALS);
        let trials = OpenOptions::new()
            .append(true)
            .create_new(true)
            .open(&file)
            .map_err(at(&file))?;
        lock(&trials, path)?;
        Ok(Self {
            path: path.to_owned(),
            trials,
            length: 0,
            made,
        })
    }

    /// Opens the directory of a run to continue it.
    pub fn open(path: &Path) -> Result<Self, OutError> {
        let file = path.join(TRIALS);
        let trials = OpenOptions::new()
            .append(true)
            .open(&file)
            .map_err(|source| OutError::Read {
                path: file.clone(),
                source,
            })?;
        lock(&trials, path)?;
        let length = trials.metadata().map_err(at(&file))?.len();
        Ok(Self {
            path: path.to_owned(),
            trials,
            length,
            made: false,
        })
    }

    /// Takes away what follows the first `length` bytes of the records: the torn end.
    pub fn cut(&mut self, length: u64) -> Result<(), OutError> {
        self.length = length;
        self.trials
            .set_len(length)
            .map_err(at(&self.path.join(TRIALS)))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends a line in one write, so that a kill leaves whole lines and at most one torn end. If
    /// that fails, as on a full disk, the torn end is taken away.
    pub fn append(&mut self, mut line: Vec<u8>) -> Result<(), OutError> {
        line.push(b'\n');
        let written = self.trials.write_all(&line);
        written.map_err(|source| {
            // Shortening needs no room. Were it refused all the same, the end is recognised as torn.
            let _ = self.trials.set_len(self.length);
            OutError::Append {
                path: self.path.join(TRIALS),
                source,
            }
        })?;
        self.length += line.len() as u64;
        Ok(())
    }

    /// Has the records written through to the disk: a file system may find only then that it is
    /// full.
    pub fn sync(&self) -> Result<(), OutError> {
        self.trials.sync_all().map_err(|source| OutError::Append {
            path: self.path.join(TRIALS),
            source,
        })
    }

    /// Removes a file that no longer says what is true; it may not be there.
    pub fn remove(&self, name: &str) -> Result<(), OutError> {
        let path = self.path.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(&path)(error)),
            _ => Ok(()),
        }
    }

    /// Replaces the records by those that `write` writes, whole or not at all.
    pub fn rewrite<E: From<OutError>>(
        &mut self,
        write: impl FnOnce(&mut dyn FnMut(&[u8]) -> Result<(), OutError>) -> Result<(), E>,
    ) -> Result<(), E> {
        let target = self.path.join(TRIALS);
        let temporary = self.path.join(format!(".{TRIALS}.new"));
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(&temporary)
            .and_then(|file| file.set_len(0).map(|()| file))
            .map_err(at(&target))?;
        lock(&file, &self.path)?;
        let mut length = 0;
        let mut out = BufWriter::new(&file);
        let written = write(&mut |line| {
            length += line.len() as u64;
            out.write_all(line).map_err(at(&target))
        })
        .and_then(|()| {
            let whole = out.flush().and_then(|()| file.sync_all());
            let renamed = whole.and_then(|()| fs::rename(&temporary, &target));
            Ok(renamed.map_err(at(&target))?)
        });
        // A writer that is dropped writes what it still has; that must not come after the removal.
        let _ = out.into_parts();
        if let Err(error) = written {
            // What is left of the attempt is nobody's; the first error is the one to tell.
            let _ = fs::remove_file(&temporary);
            return Err(error);
        }
        self.trials = file;
        self.length = length;
        Ok(())
    }

    /// Writes a file through a temporary one, so that it is there whole or not at all.
    pub fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), OutError> {
        replace(&self.path, name, bytes)
    }

    /// Takes back a directory to which nothing was written.
    pub fn abandon(self) {
        let empty = self.trials.metadata().is_ok_and(|file| file.len() == 0);
        if empty {
            // Best effort: an empty directory that stays misleads nobody.
            let _ = fs::remove_file(self.path.join(TRIALS));
            if self.made {
                let _ = fs::remove_dir(&self.path);
            }
        }
    }
}

/// Writes a file of a directory through a temporary one.
pub(crate) fn replace(directory: &Path, name: &str, bytes: &[u8]) -> Result<(), OutError> {
    let target = directory.join(name);
    let temporary = directory.join(format!(".{name}.new"));
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, &target)
    };
    write().map_err(|source| {
        // What is left of the attempt is nobody's; the first error is the one to tell.
        let _ = fs::remove_file(&temporary);
        at(&target)(source)
    })
}

/// Makes a directory, or takes one that is empty. Whether it was made.
pub(crate) fn vacant(path: &Path) -> Result<bool, OutError> {
    let made = !path.exists();
    fs::create_dir_all(path).map_err(at(path))?;
    if fs::read_dir(path).map_err(at(path))?.next().is_some() {
        return Err(OutError::NotEmpty(path.to_owned()));
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_path_has_the_time_in_utc() {
        // date -u -d @SECONDS +%Y%m%dT%H%M%SZ
        for (seconds, time) in [
            (0, "19700101T000000Z"),
            (951_782_399, "20000228T235959Z"),
            (951_782_400, "20000229T000000Z"),
            (1_767_323_045, "20260102T030405Z"),
            (4_107_542_400, "21000301T000000Z"),
        ] {
            let now = UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            let expected = format!("reports/compare-{time}");
            assert_eq!(default_path(now), Path::new(&expected));
        }
    }

    #[test]
    fn directory_that_holds_something_is_refused_and_left_alone() {
        let parent = tempfile::tempdir().expect("a temporary directory");
        fs::write(parent.path().join("keep"), "me").expect("a file");

        let refused = Directory::create(parent.path()).expect_err("it is not empty");

        assert!(matches!(refused, OutError::NotEmpty(_)));
        let left = fs::read_dir(parent.path()).expect("it exists").count();
        assert_eq!(left, 1);
    }

    #[test]
    fn path_through_a_file_is_an_error_with_the_path() {
        let parent = tempfile::tempdir().expect("a temporary directory");
        let file = parent.path().join("file");
        fs::write(&file, "").expect("a file");

        let error = Directory::create(&file.join("out")).expect_err("a file holds no directory");

        assert!(error.to_string().contains("file/out"));
    }

    #[test]
    fn abandoned_directory_is_gone_unless_records_were_written() {
        let parent = tempfile::tempdir().expect("a temporary directory");
        let unused = parent.path().join("unused");
        Directory::create(&unused).expect("a directory").abandon();
        assert!(!unused.exists());

        let used = parent.path().join("used");
        let mut directory = Directory::create(&used).expect("a directory");
        directory.append(b"{}".to_vec()).expect("a line");
        directory.abandon();
        assert!(used.join(TRIALS).exists());
    }

    #[test]
    fn directory_that_is_being_written_cannot_be_opened_for_more() {
        let parent = tempfile::tempdir().expect("a temporary directory");
        let path = parent.path().join("out");
        let writer = Directory::create(&path).expect("a directory");

        let refused = Directory::open(&path).expect_err("it is being written");
        drop(writer);

        assert!(matches!(refused, OutError::Busy(_)));
        assert!(Directory::open(&path).is_ok());
    }

    #[test]
    fn rewritten_records_are_appended_to_and_a_failed_rewriting_changes_nothing() {
        // Arrange
        let parent = tempfile::tempdir().expect("a temporary directory");
        let path = parent.path().join("out");
        let mut directory = Directory::create(&path).expect("a directory");
        directory.append(b"1".to_vec()).expect("a line");

        // Act
        let failed: Result<(), OutError> = directory.rewrite(|line| {
            line(b"lost\n")?;
            Err(OutError::Busy(PathBuf::new()))
        });
        let kept = fs::read(path.join(TRIALS)).expect("records");
        let done: Result<(), OutError> = directory.rewrite(|line| line(b"0\n1\n"));
        directory.append(b"2".to_vec()).expect("a line");

        // Assert
        assert!(failed.is_err());
        assert_eq!(kept, b"1\n");
        assert!(done.is_ok());
        assert_eq!(fs::read(path.join(TRIALS)).expect("records"), b"0\n1\n2\n");
        assert_eq!(fs::read_dir(&path).expect("it exists").count(), 1);
    }

    #[test]
    fn replaced_file_leaves_no_temporary_behind() {
        let parent = tempfile::tempdir().expect("a temporary directory");
        let directory = Directory::create(&parent.path().join("out")).expect("a directory");
        directory.replace("summary.json", b"1").expect("written");
        directory.replace("summary.json", b"22").expect("written");

        let mut names: Vec<_> = fs::read_dir(directory.path())
            .expect("it exists")
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["summary.json", TRIALS]);
    }
}
