//! Kernel modules by name, with what they depend on.
//!
//! Distributions make `modules.dep` when they install a kernel; one that was only unpacked has
//! none. Each module names its dependencies itself, in its section `.modinfo` (Linux,
//! include/linux/module.h, `MODULE_INFO`).

use crate::image::Compression;
use crate::tools::Unpacker;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::{fs, io};
use thiserror::Error;

/// A kernel's directory of modules has fewer files than this.
const FILES: usize = 100_000;

/// And fewer levels.
const DEPTH: usize = 16;

/// Why a module cannot be loaded in the guest.
#[derive(Debug, Error)]
pub enum ModuleError {
    /// There is no directory of modules.
    #[error("the kernel came without modules; set COFFERDAM_MODULES to its directory of modules")]
    NoModules,
    /// The kernel has no such module.
    #[error("the kernel has no module `{name}` below {}", below.display())]
    Unknown {
        /// As it was asked for.
        name: String,
        /// Where it was looked for.
        below: PathBuf,
    },
    /// A file could not be read or unpacked.
    #[error("cannot read {}: {error}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// The modules of one kernel.
#[derive(Debug)]
pub(crate) struct Modules {
    root: PathBuf,
    /// By name with underscores.
    files: BTreeMap<String, PathBuf>,
    built_in: Vec<String>,
}

/// A step of the search for dependencies.
enum Visit {
    /// Look at the module of this name.
    Enter(String),
    /// All it depends on is on the list.
    Leave(Unpacked),
}

/// A module, ready for the guest.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unpacked {
    /// With underscores.
    pub name: String,
    /// The ELF file.
    pub content: Vec<u8>,
}

impl Modules {
    /// Looks through a directory like `/lib/modules/RELEASE`.
    pub(crate) fn open(root: &Path) -> Result<Self, ModuleError> {
        let mut files = BTreeMap::new();
        let mut seen = 0;
        walk(root, DEPTH, &mut seen, &mut files)?;
        // A kernel without the list simply has nothing to add to it.
        let built_in = fs::read_to_string(root.join("modules.builtin")).unwrap_or_default();
        Ok(Self {
            root: root.to_owned(),
            files,
            built_in: built_in
                .lines()
                .filter_map(|line| name_of(Path::new(line)))
                .collect(),
        })
    }

    /// Adds a module to the list, after all it depends on. What is built into the kernel or on the
    /// list already is not added.
    pub(crate) fn resolve(
        &self,
        name: &str,
        unpacker: &Unpacker,
        list: &mut Vec<Unpacked>,
    ) -> Result<(), ModuleError> {
        // Depth first. A module that is met again while its own dependencies are looked for is part
        // of a circle; it is not entered twice, and the kernel will say what it misses.
        let mut entered = BTreeSet::new();
        let mut open = vec![Visit::Enter(name.replace('-', "_"))];
        while let Some(visit) = open.pop() {
            match visit {
                Visit::Leave(module) => list.push(module),
                Visit::Enter(name) => {
                    if self.built_in.contains(&name)
                        || list.iter().any(|module| module.name == name)
                        || !entered.insert(name.clone())
                    {
                        continue;
                    }
                    let content = self.read(&name, unpacker)?;
                    let needed = dependencies(&content);
                    open.push(Visit::Leave(Unpacked { name, content }));
                    open.extend(needed.into_iter().map(Visit::Enter));
                }
            }
        }
        Ok(())
    }

    fn read(&self, name: &str, unpacker: &Unpacker) -> Result<Vec<u8>, ModuleError> {
        let path = self.files.get(name).ok_or_else(|| ModuleError::Unknown {
            name: name.to_owned(),
            below: self.root.clone(),
        })?;
        read(path, unpacker)
    }
}

/// The ELF file of a module.
pub(crate) fn read(path: &Path, unpacker: &Unpacker) -> Result<Vec<u8>, ModuleError> {
    let failed = |error| ModuleError::Read {
        path: path.to_owned(),
        error,
    };
    let content = fs::read(path).map_err(failed)?;
    match Compression::of(&content).program() {
        None => Ok(content),
        Some(_) => unpacker.unpack(path).map_err(failed),
    }
}

fn walk(
    directory: &Path,
    depth: usize,
    seen: &mut usize,
    files: &mut BTreeMap<String, PathBuf>,
) -> Result<(), ModuleError> {
    let failed = |error| ModuleError::Read {
        path: directory.to_owned(),
        error,
    };
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        *seen += 1;
        if *seen > FILES {
            return Err(failed(io::Error::other(format!(
                "has more than {FILES} files; give the directory of one kernel's modules"
            ))));
        }
        // Links are not followed: `build` and `source` lead out of the directory.
        if entry.file_type().map_err(failed)?.is_dir() {
            if depth > 0 {
                walk(&entry.path(), depth - 1, seen, files)?;
            }
        } else if let Some(name) = name_of(&entry.path()) {
            files.insert(name, entry.path());
        }
    }
    Ok(())
}

/// `vfio_pci` of `.../vfio-pci.ko.xz`.
fn name_of(path: &Path) -> Option<String> {
    let file = path.file_name()?.to_str()?;
    let (name, rest) = file.split_once(".ko")?;
    matches!(rest, "" | ".gz" | ".xz" | ".zst").then(|| name.replace('-', "_"))
}

/// What the module says it depends on. The section is a sequence of `key=value` with a zero byte
/// after each; the string that begins `depends=` occurs nowhere else at the start of a string.
fn dependencies(module: &[u8]) -> Vec<String> {
    module
        .split(|&byte| byte == 0)
        .find_map(|text| text.strip_prefix(b"depends="))
        .and_then(|list| std::str::from_utf8(list).ok())
        .map(|list| {
            list.split(',')
                .filter(|name| !name.is_empty())
                .map(|name| name.replace('-', "_"))
                .collect()
        })
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory of modules: name and dependencies.
    fn modules(of: &[(&str, &str)], built_in: &str) -> (tempfile::TempDir, Modules) {
        let root = tempfile::tempdir().expect("directory");
        let kernel = root.path().join("kernel/drivers");
        fs::create_dir_all(&kernel).expect("directory");
        for (name, depends) in of {
            let content = format!("\x7fELF\0license=GPL\0depends={depends}\0name={name}\0");
            fs::write(kernel.join(format!("{name}.ko")), content).expect("module");
        }
        fs::write(root.path().join("modules.builtin"), built_in).expect("list");
        let modules = Modules::open(root.path()).expect("modules");
        (root, modules)
    }

    fn resolve(modules: &Modules, name: &str) -> Result<Vec<String>, ModuleError> {
        let mut list = Vec::new();
        modules.resolve(name, &Unpacker::default(), &mut list)?;
        Ok(list.into_iter().map(|module| module.name).collect())
    }

    #[test]
    fn dependencies_come_first_and_once() {
        let (_root, modules) = modules(
            &[
                ("vfio-pci", "vfio-pci-core,vfio"),
                ("vfio-pci-core", "vfio,irqbypass"),
                ("vfio", ""),
                ("irqbypass", ""),
            ],
            "",
        );

        let order = resolve(&modules, "vfio-pci").expect("order");

        let place = |name: &str| order.iter().position(|found| found == name).expect(name);
        assert_eq!(order.len(), 4);
        assert!(place("vfio") < place("vfio_pci_core"));
        assert!(place("irqbypass") < place("vfio_pci_core"));
        assert_eq!(place("vfio_pci"), 3);
    }

    #[test]
    fn built_in_modules_are_not_loaded() {
        let (_root, modules) = modules(&[("a", "b")], "kernel/lib/b.ko\n");

        assert_eq!(resolve(&modules, "a").expect("order"), ["a"]);
        assert!(resolve(&modules, "b").expect("order").is_empty());
    }

    #[test]
    fn modules_that_need_each_other_end() {
        let (_root, modules) = modules(&[("a", "b"), ("b", "a")], "");

        let order = resolve(&modules, "a").expect("order");

        assert_eq!(order.len(), 2);
    }

    #[test]
    fn unknown_module_is_named() {
        let (_root, modules) = modules(&[("a", "missing")], "");

        let error = resolve(&modules, "a").expect_err("unknown");

        assert!(error.to_string().contains("`missing`"), "{error}");
    }

    #[test]
    fn dashes_and_compressions_do_not_change_a_name() {
        for path in ["x/vfio-pci.ko", "vfio_pci.ko.xz", "vfio-pci.ko.zst"] {
            assert_eq!(name_of(Path::new(path)).as_deref(), Some("vfio_pci"));
        }
        assert_eq!(name_of(Path::new("modules.dep")), None);
        assert_eq!(name_of(Path::new("vfio.ko.sig")), None);
    }
}
