//! What a guest is made of: QEMU, a kernel, its modules and headers, and where they come from.
//!
//! Each can be named by an environment variable. QEMU is taken from the PATH if it is new enough;
//! what is missing then is fetched once (`debian`) and kept in the cache.
//!
//! | variable | names |
//! |---|---|
//! | `COFFERDAM_QEMU` | the program `qemu-system-x86_64` |
//! | `COFFERDAM_KERNEL` | a kernel: `vmlinux` or a bzImage |
//! | `COFFERDAM_MODULES` | its modules, a directory like `/lib/modules/RELEASE` |
//! | `COFFERDAM_HEADERS` | its headers, a directory like `/usr/src/linux-headers-RELEASE` |
//! | `COFFERDAM_CACHE` | where fetched files are kept; else `$XDG_CACHE_HOME/cofferdam` or `~/.cache/cofferdam` |

use crate::cache::{Cache, Set};
use crate::debian::{self, FetchError};
use crate::image::Compression;
use crate::process::{self, ProcessError};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use thiserror::Error;

/// The oldest QEMU whose behaviour the checks know.
const OLDEST_QEMU: (u32, u32) = (10, 1);

/// For programs that only say something, or unpack a file.
const SHORT: Duration = Duration::from_secs(60);

/// Why there can be no guest here, and what to do about it.
#[derive(Debug, Error)]
pub enum Unavailable {
    /// A variable names something that is not there.
    #[error("{variable} names {}, {why}", path.display())]
    Setting {
        /// The variable.
        variable: &'static str,
        /// Its value.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// There is no place for fetched files.
    #[error("there is no place to keep fetched files: set COFFERDAM_CACHE, XDG_CACHE_HOME or HOME")]
    NoCache,
    /// Fetching failed.
    #[error(
        "QEMU and a kernel could not be fetched: {0}; or name them by COFFERDAM_QEMU, \
         COFFERDAM_KERNEL, COFFERDAM_MODULES and COFFERDAM_HEADERS"
    )]
    Fetch(#[from] FetchError),
    /// The program for the inside of the guest could not be built.
    #[error(transparent)]
    Agent(#[from] crate::agent::AgentError),
}

impl From<io::Error> for Unavailable {
    fn from(error: io::Error) -> Self {
        Self::Fetch(error.into())
    }
}

/// Everything a guest is made of but the agent.
#[derive(Debug, Clone)]
pub struct Tools {
    /// The machine.
    pub qemu: Qemu,
    /// What QEMU boots.
    pub kernel: PathBuf,
    /// The kernel's modules, if there are any.
    pub modules: Option<PathBuf>,
    /// What modules for this kernel are built with, if there is any.
    pub headers: Option<PathBuf>,
    /// Undoes the compression of modules.
    pub(crate) unpacker: Unpacker,
    /// Where all this comes from: packages with versions, or paths.
    pub provenance: Vec<String>,
}

/// A QEMU and how to start it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Qemu {
    program: Program,
    /// Directories of firmware.
    data: Vec<PathBuf>,
}

/// A program, under a dynamic loader of its own if it was only unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Program {
    path: PathBuf,
    loader: Option<Loader>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Loader {
    path: PathBuf,
    libraries: PathBuf,
}

impl Program {
    fn command(&self) -> Command {
        let Some(loader) = &self.loader else {
            return Command::new(&self.path);
        };
        let mut command = Command::new(&loader.path);
        command
            .arg("--library-path")
            .arg(&loader.libraries)
            .arg(&self.path)
            // Cargo sets it for tests; it would win over the libraries of the packages.
            .env_remove("LD_LIBRARY_PATH");
        command
    }
}

impl Qemu {
    /// QEMU, with the firmware it came with.
    pub(crate) fn command(&self) -> Command {
        let mut command = self.program.command();
        for directory in &self.data {
            command.arg("-L").arg(directory);
        }
        command
    }
}

/// Undoes compression by programs of the machine or, for what it lacks, by fetched ones.
#[derive(Debug, Clone, Default)]
pub(crate) struct Unpacker {
    fetched: Option<(Loader, PathBuf)>,
}

impl Unpacker {
    pub(crate) fn fetched(loader: PathBuf, libraries: PathBuf, bin: PathBuf) -> Self {
        let loader = Loader {
            path: loader,
            libraries,
        };
        Self {
            fetched: Some((loader, bin)),
        }
    }

    /// The content of a compressed file of at most a mebibyte or so: a kernel module.
    pub(crate) fn unpack(&self, file: &Path) -> io::Result<Vec<u8>> {
        let to = tempfile::NamedTempFile::new()?;
        let mut head = [0; 6];
        io::Read::read_exact(&mut File::open(file)?, &mut head)?;
        self.unpack_to(file, Compression::of(&head), to.path())
            .map_err(io::Error::other)?;
        std::fs::read(to.path())
    }

    /// Unpacks one file into another.
    pub(crate) fn unpack_to(
        &self,
        file: &Path,
        compression: Compression,
        to: &Path,
    ) -> Result<(), ProcessError> {
        let name = compression.program().unwrap_or("cat");
        let failed = |error| ProcessError::Start {
            program: name.to_owned(),
            error,
        };
        let mut command = match (&self.fetched, on_path(name)) {
            (Some((loader, bin)), None) => Program {
                path: bin.join(name),
                loader: Some(loader.clone()),
            }
            .command(),
            (_, found) => Command::new(found.unwrap_or_else(|| name.into())),
        };
        if compression.program().is_some() {
            command.args(["-d", "-q", "-c"]);
        }
        command
            .stdin(File::open(file).map_err(failed)?)
            .stdout(File::create(to).map_err(failed)?);
        process::run_to(&mut command, SHORT)
    }
}

/// What the environment says.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    qemu: Option<PathBuf>,
    kernel: Option<PathBuf>,
    modules: Option<PathBuf>,
    headers: Option<PathBuf>,
    cache: Option<PathBuf>,
    path: OsString,
}

impl Settings {
    pub(crate) fn from_environment() -> Self {
        let path = |name: &str| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        Self {
            qemu: path("COFFERDAM_QEMU"),
            kernel: path("COFFERDAM_KERNEL"),
            modules: path("COFFERDAM_MODULES"),
            headers: path("COFFERDAM_HEADERS"),
            cache: path("COFFERDAM_CACHE")
                .or_else(|| Some(path("XDG_CACHE_HOME")?.join("cofferdam")))
                .or_else(|| Some(path("HOME")?.join(".cache/cofferdam"))),
            path: std::env::var_os("PATH").unwrap_or_default(),
        }
    }
}

impl Tools {
    /// Finds everything, and fetches what is missing.
    ///
    /// The first time on a machine this takes as long as downloading 90 MB and unpacking them.
    ///
    /// # Errors
    /// [`Unavailable`], with what to do about it.
    pub fn find() -> Result<Self, Unavailable> {
        Self::find_with(&Settings::from_environment())
    }

    fn find_with(settings: &Settings) -> Result<Self, Unavailable> {
        for (variable, path) in [
            ("COFFERDAM_QEMU", &settings.qemu),
            ("COFFERDAM_KERNEL", &settings.kernel),
            ("COFFERDAM_MODULES", &settings.modules),
            ("COFFERDAM_HEADERS", &settings.headers),
        ] {
            if let Some(path) = path
                && let Err(error) = path.metadata()
            {
                return Err(Unavailable::Setting {
                    variable,
                    path: path.clone(),
                    why: format!("which cannot be used: {error}"),
                });
            }
        }
        let mut provenance = Vec::new();
        let qemu = settings.qemu(&mut provenance)?;
        let set = if qemu.is_none() || settings.kernel.is_none() {
            Some(settings.fetched()?)
        } else {
            None
        };
        if let Some(set) = &set {
            provenance.extend(set.contents.packages.iter().cloned());
        }
        let thing = |name: &str| set.as_ref().and_then(|set| set.path(name));
        let missing = |name: &str| Unavailable::Fetch(FetchError::Missing(name.to_owned()));
        let fetched_loader = || {
            Some(Loader {
                path: thing("loader")?,
                libraries: thing("libraries")?,
            })
        };
        let qemu = match qemu {
            Some(qemu) => qemu,
            None => Qemu {
                program: Program {
                    path: thing("qemu").ok_or_else(|| missing("qemu"))?,
                    loader: fetched_loader(),
                },
                data: [thing("qemu-data"), thing("firmware")]
                    .into_iter()
                    .flatten()
                    .collect(),
            },
        };
        let unpacker = Unpacker {
            fetched: fetched_loader().zip(thing("bin")),
        };
        // Modules and headers belong to one kernel: those of the set never go with another.
        let (kernel, modules, headers) = match &settings.kernel {
            Some(kernel) => {
                provenance.push(format!("kernel {}", kernel.display()));
                (kernel.clone(), None, None)
            }
            None => (
                thing("kernel")
                    .or_else(|| thing("image"))
                    .ok_or_else(|| missing("kernel"))?,
                thing("modules"),
                thing("headers"),
            ),
        };
        Ok(Self {
            qemu,
            kernel,
            modules: settings.modules.clone().or(modules),
            headers: settings.headers.clone().or(headers),
            unpacker,
            provenance,
        })
    }
}

impl Settings {
    /// The QEMU that is named or on the PATH; none if one has to be fetched.
    fn qemu(&self, provenance: &mut Vec<String>) -> Result<Option<Qemu>, Unavailable> {
        let bare = |path: &Path| Program {
            path: path.to_owned(),
            loader: None,
        };
        let (path, said) = match &self.qemu {
            Some(path) => {
                let refused = |why: String| Unavailable::Setting {
                    variable: "COFFERDAM_QEMU",
                    path: path.clone(),
                    why,
                };
                let said = version_of(&bare(path))
                    .map_err(|error| refused(format!("which cannot be used: {error}")))?;
                if version(&said).is_none_or(|version| version < OLDEST_QEMU) {
                    let (major, minor) = OLDEST_QEMU;
                    return Err(refused(format!(
                        "which is not QEMU {major}.{minor} or later but `{said}`"
                    )));
                }
                (path.clone(), said)
            }
            None => {
                let Some(path) = find_in(&self.path, "qemu-system-x86_64".as_ref()) else {
                    return Ok(None);
                };
                match version_of(&bare(&path)) {
                    Ok(said) if version(&said).is_some_and(|found| found >= OLDEST_QEMU) => {
                        (path, said)
                    }
                    _ => return Ok(None),
                }
            }
        };
        provenance.push(format!("{said} at {}", path.display()));
        Ok(Some(Qemu {
            program: bare(&path),
            data: Vec::new(),
        }))
    }

    /// The fetched set.
    fn fetched(&self) -> Result<Set, Unavailable> {
        let root = self.cache.as_ref().ok_or(Unavailable::NoCache)?;
        Cache::at(root.join("guest")).get("debian", |directory| Ok(debian::fetch(directory)?))
    }
}

fn version_of(qemu: &Program) -> Result<String, ProcessError> {
    let said = process::run(qemu.command().arg("--version").stdin(Stdio::null()), SHORT)?;
    let said = String::from_utf8_lossy(&said).into_owned();
    Ok(said.lines().next().unwrap_or_default().to_owned())
}

/// Major and minor number in `QEMU emulator version 11.1.3 (...)`.
fn version(said: &str) -> Option<(u32, u32)> {
    let mut numbers = said
        .strip_prefix("QEMU emulator version ")?
        .split(['.', ' ']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// A program on the PATH.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    find_in(&std::env::var_os("PATH")?, program.as_ref())
}

fn find_in(path: &OsStr, program: &OsStr) -> Option<PathBuf> {
    std::env::split_paths(path)
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
}

#[cfg(test)]
impl Tools {
    /// Tools that name nothing.
    pub(crate) fn of_nothing() -> Self {
        Self {
            qemu: Qemu {
                program: Program {
                    path: PathBuf::new(),
                    loader: None,
                },
                data: Vec::new(),
            },
            kernel: PathBuf::new(),
            modules: None,
            headers: None,
            unpacker: Unpacker::default(),
            provenance: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program that says it is a QEMU of some version. It is written by a child: were it open for
    /// writing here, another test's child might inherit that and keep it from being run.
    fn qemu(directory: &Path, version: &str) -> PathBuf {
        let path = directory.join("qemu-system-x86_64");
        let script = format!("#!/bin/sh\necho 'QEMU emulator version {version} (Somebody)'\n");
        let mut write = Command::new("sh");
        write
            .args(["-c", "printf %s \"$1\" > \"$2\" && chmod +x \"$2\"", "sh"])
            .arg(script)
            .arg(&path);
        process::run(&mut write, SHORT).expect("program");
        path
    }

    #[test]
    fn version_is_read_from_what_qemu_says() {
        assert_eq!(
            version("QEMU emulator version 11.1.3 (Debian 1:11.1.3)"),
            Some((11, 1))
        );
        assert_eq!(version("QEMU emulator version 10.1"), Some((10, 1)));
        assert_eq!(version("something else"), None);
        assert_eq!(version("QEMU emulator version x.y"), None);
    }

    #[test]
    fn everything_named_needs_no_cache() {
        let directory = tempfile::tempdir().expect("directory");
        let kernel = directory.path().join("vmlinux");
        std::fs::write(&kernel, b"\x7fELF").expect("kernel");
        let settings = Settings {
            qemu: Some(qemu(directory.path(), "11.0.0")),
            kernel: Some(kernel.clone()),
            ..Settings::default()
        };

        let tools = Tools::find_with(&settings).expect("tools");

        assert_eq!(tools.kernel, kernel);
        assert_eq!(tools.modules, None);
        assert!(tools.provenance[0].contains("11.0.0"));
    }

    #[test]
    fn old_qemu_is_refused_when_named_and_passed_over_on_the_path() {
        let directory = tempfile::tempdir().expect("directory");
        let old = qemu(directory.path(), "7.2.0");
        let named = Settings {
            qemu: Some(old),
            ..Settings::default()
        };
        let on_path = Settings {
            path: directory.path().into(),
            ..Settings::default()
        };

        let refused = Tools::find_with(&named).expect_err("old");

        assert!(refused.to_string().contains("7.2.0"), "{refused}");
        assert!(matches!(on_path.qemu(&mut Vec::new()), Ok(None)));
    }

    #[test]
    fn variable_that_names_nothing_is_an_error_and_not_a_reason_to_fetch() {
        let settings = Settings {
            kernel: Some("/no/such/kernel".into()),
            ..Settings::default()
        };

        let error = Tools::find_with(&settings).expect_err("missing");

        assert!(error.to_string().contains("COFFERDAM_KERNEL"), "{error}");
        assert!(error.to_string().contains("/no/such/kernel"), "{error}");
    }

    #[test]
    fn no_place_for_a_cache_is_said() {
        let error = Tools::find_with(&Settings::default()).expect_err("nowhere");

        assert!(error.to_string().contains("COFFERDAM_CACHE"), "{error}");
    }
}
