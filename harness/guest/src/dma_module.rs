//! The guest's kernel module, built on demand: a driver that maps memory the ordinary way.
//!
//! The sources are in `module/`, which says what the module offers. It is built with the headers
//! that came with the kernel, and with this machine's compiler.

use crate::process::{self, ProcessError};
use crate::tools::{Tools, on_path};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use std::{fs, io};
use tempfile::TempDir;
use thiserror::Error;

const SOURCES: [(&str, &str); 2] = [
    ("Kbuild", include_str!("../module/Kbuild")),
    ("cofferdam-dma.c", include_str!("../module/cofferdam-dma.c")),
];

/// What comes out.
const BUILT: &str = "cofferdam-dma.ko";

/// The machine's programs, by the names the kernel's makefiles know them by. Debian's headers ask
/// for one version of the compiler, under a name with the target in front.
const PROGRAMS: [(&str, &str); 7] = [
    ("CC", "gcc"),
    ("LD", "ld"),
    ("AR", "ar"),
    ("NM", "nm"),
    ("OBJCOPY", "objcopy"),
    ("OBJDUMP", "objdump"),
    ("STRIP", "strip"),
];

const BUILD: Duration = Duration::from_secs(120);

/// Why there is no module.
#[derive(Debug, Error)]
pub enum DmaModuleError {
    /// The kernel came without headers.
    #[error(
        "the guest's kernel came without headers: set COFFERDAM_HEADERS to the directory it is \
         built against"
    )]
    NoHeaders,
    /// A program is missing.
    #[error("there is no `{0}` on the PATH; building a kernel module takes make, gcc and binutils")]
    NoProgram(&'static str),
    /// Makefiles split what they are given at spaces and colons.
    #[error("{} has a space or a colon in it, where no kernel module can be built", .0.display())]
    Path(PathBuf),
    /// The build failed.
    #[error("the guest's kernel module could not be built: {0}")]
    Build(#[from] ProcessError),
    /// The disk.
    #[error("the guest's kernel module could not be built: {0}")]
    Io(#[from] io::Error),
}

/// The built module; its file goes with it.
#[derive(Debug)]
pub struct DmaModule {
    directory: TempDir,
}

impl DmaModule {
    /// Builds the module for the kernel of `tools`; a few seconds.
    ///
    /// # Errors
    /// [`DmaModuleError`], with what to do about it.
    pub fn build(tools: &Tools) -> Result<Self, DmaModuleError> {
        let headers = tools.headers.as_ref().ok_or(DmaModuleError::NoHeaders)?;
        let programs = PROGRAMS.map(|(_, program)| program);
        for program in ["make"].into_iter().chain(programs) {
            if on_path(program).is_none() {
                return Err(DmaModuleError::NoProgram(program));
            }
        }
        let directory = tempfile::tempdir()?;
        for path in [headers.as_path(), directory.path()] {
            if path.to_string_lossy().contains([' ', ':']) {
                return Err(DmaModuleError::Path(path.to_owned()));
            }
        }
        for (name, text) in SOURCES {
            fs::write(directory.path().join(name), text)?;
        }
        process::run(&mut make(headers, directory.path()), BUILD)?;
        fs::metadata(directory.path().join(BUILT))?;
        Ok(Self { directory })
    }

    /// The file, for [`crate::Module::file`].
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.directory.path().join(BUILT)
    }
}

fn make(headers: &Path, directory: &Path) -> Command {
    let mut command = Command::new("make");
    command
        .arg("-C")
        .arg(headers)
        .arg(format!("M={}", directory.display()))
        .args(PROGRAMS.map(|(variable, program)| format!("{variable}={program}")))
        // Type information would be made from the whole kernel's, which headers do not have.
        .arg("CONFIG_DEBUG_INFO_BTF_MODULES=")
        .arg("modules")
        .stdin(Stdio::null());
    // A make around this one must not pass its own flags in.
    for variable in ["MAKEFLAGS", "MFLAGS", "MAKELEVEL", "CARGO_MAKEFLAGS"] {
        command.env_remove(variable);
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tools(headers: Option<PathBuf>) -> Tools {
        Tools {
            headers,
            ..Tools::of_nothing()
        }
    }

    #[test]
    fn kernel_without_headers_is_said() {
        let error = DmaModule::build(&tools(None)).expect_err("no headers");

        assert!(error.to_string().contains("COFFERDAM_HEADERS"), "{error}");
    }

    #[test]
    fn path_that_make_would_split_is_refused() {
        let error = DmaModule::build(&tools(Some("/with a/space".into()))).expect_err("refused");

        assert!(
            matches!(
                error,
                DmaModuleError::Path(_) | DmaModuleError::NoProgram(_)
            ),
            "{error}"
        );
    }
}
