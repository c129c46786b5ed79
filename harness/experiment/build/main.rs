//! Counts the lines of the code that is inside the walls, from the very sources that are built.
//!
//! Crates of this workspace are beside this one; sources of others are where Cargo unpacked them, in
//! the version that `Cargo.lock` names. What is not there is written down as not counted: a build
//! from a copy without sources is no error.

mod count;

use std::env;
use std::error::Error;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// What is counted: its name, and the files or folders below the workspace's root.
const OURS: [(&str, &[&str]); 8] = [
    ("driver-edu", &["drivers-under-test/edu/src"]),
    ("driver-virtio", &["drivers-under-test/virtio/src"]),
    ("driver-nvme", &["drivers-under-test/nvme/src"]),
    ("driver-nvme-crate", &["drivers-under-test/nvme-crate/src"]),
    ("cofferdam-instrument", &["harness/instrument/src"]),
    ("cofferdam-seam", &["harness/seam/src"]),
    (
        "server",
        &[
            "harness/placement/src/call.rs",
            "harness/placement/src/domain.rs",
            "harness/placement/src/futex.rs",
            "harness/placement/src/host.rs",
            "harness/placement/src/jail.rs",
            "harness/placement/src/link.rs",
            "harness/placement/src/loan.rs",
            "harness/placement/src/port.rs",
            "harness/placement/src/ring.rs",
            "harness/tenant/src/ring.rs",
            "harness/placement/src/server.rs",
            "harness/placement/src/shared.rs",
        ],
    ),
    ("carrier", &["harness/placement/src/carrier.rs"]),
];

/// Crates of others in the driver's domain.
const THEIRS: [&str; 8] = [
    "virtio-drivers",
    "safe-mmio",
    "nvme-driver",
    "dma-api",
    "mmio-api",
    "rdif-base",
    "rdif-block",
    "rdif-def",
];

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../..");
    let mut table = String::from("[\n");
    for (name, paths) in OURS {
        let mut lines = 0;
        for path in paths {
            let path = root.join(path);
            println!("cargo::rerun-if-changed={}", path.display());
            lines += below(&path)?;
        }
        writeln!(table, "    (\"{name}\", \"\", Some({lines})),")?;
    }
    let lock = root.join("Cargo.lock");
    println!("cargo::rerun-if-changed={}", lock.display());
    println!("cargo::rerun-if-changed=build");
    let lock = fs::read_to_string(lock)?;
    for name in THEIRS {
        let version = version(&lock, name).unwrap_or_default();
        let lines = unpacked(name, version).and_then(|path| below(&path).ok());
        writeln!(table, "    (\"{name}\", \"{version}\", {lines:?}),")?;
    }
    table.push(']');
    let out = PathBuf::from(env::var("OUT_DIR")?).join("lines.rs");
    Ok(fs::write(out, table)?)
}

/// The version of a package in the lock file.
fn version<'a>(lock: &'a str, name: &str) -> Option<&'a str> {
    let head = format!("name = \"{name}\"\nversion = \"");
    let (_, rest) = lock.split_once(&head)?;
    let (version, _) = rest.split_once('"')?;
    // It becomes part of a path and of a program.
    let plain = |c: char| c.is_ascii_alphanumeric() || ".-+".contains(c);
    version.chars().all(plain).then_some(version)
}

/// Where Cargo unpacked the sources of a package.
fn unpacked(name: &str, version: &str) -> Option<PathBuf> {
    let home = env::var_os("CARGO_HOME").map_or_else(
        || env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")),
        |home| Some(PathBuf::from(home)),
    )?;
    let registries = fs::read_dir(home.join("registry/src")).ok()?;
    registries
        .flatten()
        .map(|registry| registry.path().join(format!("{name}-{version}/src")))
        .find(|path| path.is_dir())
}

/// Lines of a file, or of all Rust files in a folder that are no tests.
fn below(path: &Path) -> std::io::Result<u32> {
    if path.is_file() {
        return Ok(count::lines(&fs::read_to_string(path)?));
    }
    let mut sum = 0;
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        let stem = path.file_stem().unwrap_or_default();
        let is_rust = path.extension().is_some_and(|ending| ending == "rs");
        if stem != "tests" && (is_rust || path.is_dir()) {
            sum += below(&path)?;
        }
    }
    Ok(sum)
}
