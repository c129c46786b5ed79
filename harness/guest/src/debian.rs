//! QEMU, a kernel with its modules and headers, and two decompressors, out of Debian's archive.
//!
//! Nothing is installed and nothing needs root: apt gets a state of its own that believes in an
//! empty system, resolves all that QEMU needs down to the C library, verifies what it downloads by
//! the archive's signatures, and the packages are merely unpacked. Programs among them run under the
//! dynamic loader that came along.
//!
//! QEMU comes from Debian 13's backports. The kernel comes from Debian 12's, because its headers
//! bring programs that must run here, and those ask for the older C library.

use crate::cache::Contents;
use crate::image::{self, Compression};
use crate::process::{self, ProcessError};
use crate::tools::Unpacker;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use thiserror::Error;

/// The keys that sign the archive.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Where the archive is if the machine does not say.
const ARCHIVE: &str = "http://deb.debian.org/debian";

const SUITES: [&str; 4] = [
    "bookworm",
    "bookworm-backports",
    "trixie",
    "trixie-backports",
];
const QEMU_SUITE: &str = "trixie-backports";
const KERNEL_SUITE: &str = "bookworm-backports";

/// Resolved with all they need.
const PROGRAMS: [&str; 3] = ["qemu-system-x86", "xz-utils", "zstd"];
/// Depends on the kernel of the day; versioned names leave the archive.
const KERNEL: &str = "linux-image-cloud-amd64";

/// Not needed to run anything.
const LEFT_OUT: [&str; 3] = ["./usr/share/doc", "./usr/share/locale", "./usr/share/man"];

/// For what talks to a mirror, and for what does not.
const DOWNLOAD: Duration = Duration::from_secs(300);
const LOCAL: Duration = Duration::from_secs(120);

/// Settings of this machine's apt that the private one takes over: how to reach a mirror, and
/// whether it may be a frozen one.
const INHERITED: [&str; 5] = [
    "Acquire::http::",
    "Acquire::https::",
    "Acquire::Retries",
    "Acquire::Check-Valid-Until",
    "Acquire::Check-Date",
];

/// Why nothing was fetched.
#[derive(Debug, Error)]
pub enum FetchError {
    /// The packages are for another machine.
    #[error("the guest's packages are for x86-64 Linux; this is {0}")]
    Machine(&'static str),
    /// A program is missing.
    #[error("there is no `{0}` on the PATH; packages are fetched and unpacked with apt and dpkg")]
    NoProgram(&'static str),
    /// Debian's keys are not here.
    #[error("{KEYRING} is missing: install the package debian-archive-keyring")]
    NoKeyring,
    /// A step failed; mostly the network.
    #[error(transparent)]
    Step(#[from] ProcessError),
    /// The packages are not what they were.
    #[error("{0} is not among the fetched packages: the archive has changed its shape")]
    Missing(String),
    /// The disk, mostly.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Fetches and unpacks everything into an empty directory.
pub(crate) fn fetch(into: &Path) -> Result<Contents, FetchError> {
    if cfg!(not(all(target_os = "linux", target_arch = "x86_64"))) {
        return Err(FetchError::Machine(std::env::consts::ARCH));
    }
    for program in ["apt-get", "apt-cache", "apt-config", "dpkg-deb", "tar"] {
        if crate::tools::on_path(program).is_none() {
            return Err(FetchError::NoProgram(program));
        }
    }
    if !Path::new(KEYRING).exists() {
        return Err(FetchError::NoKeyring);
    }
    let apt = Apt::in_directory(&into.join("apt"))?;
    apt.get(
        &["update", "-o", "Acquire::Retries=1"],
        &apt.directory,
        DOWNLOAD,
    )?;
    let programs = apt.directory.join("cache/archives");
    apt.get(
        &[
            &["install", "--download-only", "-t", QEMU_SUITE],
            &PROGRAMS[..],
        ]
        .concat(),
        &apt.directory,
        DOWNLOAD,
    )?;
    let kernels = apt.directory.join("kernel");
    fs::create_dir(&kernels)?;
    let (release, names) = apt.kernel_packages()?;
    let mut download = vec!["download"];
    download.extend(names.iter().map(String::as_str));
    apt.get(&download, &kernels, DOWNLOAD)?;

    let mut packages = Vec::new();
    // Two at a time: unpacking is one thread's work for each.
    let (of_programs, of_kernel) = std::thread::scope(|scope| {
        let other = scope.spawn(|| unpack_all(&kernels, &into.join("kernel")));
        let one = unpack_all(&programs, &into.join("programs"));
        let other = other
            .join()
            .unwrap_or_else(|_| Err(FetchError::Missing("the kernel".to_owned())));
        (one, other)
    });
    packages.extend(of_programs?);
    packages.extend(of_kernel?);
    fs::remove_dir_all(&apt.directory)?;

    let paths = arrange(into, &release)?;
    Ok(Contents::describe(into, paths, packages)?)
}

/// apt with a state of its own.
#[derive(Debug)]
struct Apt {
    directory: PathBuf,
    settings: PathBuf,
}

impl Apt {
    fn in_directory(directory: &Path) -> Result<Self, FetchError> {
        for below in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(directory.join(below))?;
        }
        File::create(directory.join("status"))?;
        let mirror = mirror(Path::new("/etc/apt"));
        let mut sources = String::new();
        for suite in SUITES {
            sources += &format!("deb [signed-by={KEYRING} arch=amd64] {mirror} {suite} main\n");
        }
        fs::write(directory.join("sources.list"), sources)?;
        let dump = process::run(
            Command::new("apt-config").arg("dump").stdin(Stdio::null()),
            LOCAL,
        )?;
        let settings = directory.join("apt.conf");
        fs::write(
            &settings,
            configuration(directory, &String::from_utf8_lossy(&dump)),
        )?;
        Ok(Self {
            directory: directory.to_owned(),
            settings,
        })
    }

    fn command(&self, program: &str, arguments: &[&str], within: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .args(["-qq", "-y"])
            .args(arguments)
            .current_dir(within)
            .env("APT_CONFIG", &self.settings)
            .env("LC_ALL", "C")
            .stdin(Stdio::null());
        command
    }

    fn get(&self, arguments: &[&str], within: &Path, limit: Duration) -> Result<(), FetchError> {
        process::run(&mut self.command("apt-get", arguments, within), limit)?;
        Ok(())
    }

    /// The packages a package depends on.
    fn depends(&self, package: &str) -> Result<Vec<String>, FetchError> {
        let mut command = Command::new("apt-cache");
        command
            .args(["depends", "--no-recommends", "--no-suggests", package])
            .env("APT_CONFIG", &self.settings)
            .env("LC_ALL", "C")
            .stdin(Stdio::null());
        let said = process::run(&mut command, LOCAL)?;
        Ok(dependencies(&String::from_utf8_lossy(&said)))
    }

    /// The kernel's release, and the packages of its image, headers and build programs.
    fn kernel_packages(&self) -> Result<(String, Vec<String>), FetchError> {
        let image = self
            .depends(&format!("{KERNEL}/{KERNEL_SUITE}"))?
            .into_iter()
            .find(|name| name.starts_with("linux-image-"))
            .ok_or_else(|| FetchError::Missing(format!("what {KERNEL} depends on")))?;
        let release = image["linux-image-".len()..].to_owned();
        let headers = format!("linux-headers-{release}");
        let mut names = vec![image];
        // The compiler it asks for as well is this machine's own.
        names.extend(self.depends(&headers)?.into_iter().filter(|name| {
            name.starts_with("linux-headers-") || name.starts_with("linux-kbuild-")
        }));
        names.push(headers);
        Ok((release, names))
    }
}

/// The private apt's configuration file. This machine's own files are not read: they may name hooks
/// and preferences that are meant for its own packages.
fn configuration(directory: &Path, machine: &str) -> String {
    let at = directory.display();
    let inherited: String = machine
        .lines()
        .filter(|line| INHERITED.iter().any(|name| line.starts_with(name)))
        .map(|line| format!("{line}\n"))
        .collect();
    format!(
        r#"{inherited}Dir::Etc::parts "/dev/null";
Dir::Etc::main "/dev/null";
Dir::Etc::sourcelist "{at}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::State "{at}";
Dir::State::lists "{at}/lists";
Dir::State::status "{at}/status";
Dir::Cache "{at}/cache";
Dir::Cache::archives "{at}/cache/archives";
APT::Architecture "amd64";
APT::Architectures {{ "amd64"; }};
APT::Install-Recommends "false";
APT::Sandbox::User "";
APT::Get::AllowUnauthenticated "false";
Acquire::AllowInsecureRepositories "false";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::http::Timeout "30";
Debug::NoLocking "true";
"#
    )
}

/// The mirror this machine uses, so that a machine without the Internet but with a mirror works.
fn mirror(etc: &Path) -> String {
    let mut files = vec![etc.join("sources.list")];
    if let Ok(parts) = fs::read_dir(etc.join("sources.list.d")) {
        let mut parts: Vec<_> = parts.flatten().map(|entry| entry.path()).collect();
        parts.sort();
        files.extend(parts);
    }
    files
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok())
        .find_map(|text| mirror_in(&text))
        .unwrap_or_else(|| ARCHIVE.to_owned())
}

/// The first address of Debian's main archive in a list of sources, of either format.
fn mirror_in(text: &str) -> Option<String> {
    text.lines()
        .filter(|line| line.starts_with("URIs:") || line.starts_with("deb "))
        .flat_map(str::split_whitespace)
        .find(|word| {
            let address = word.trim_end_matches('/');
            (address.starts_with("http://") || address.starts_with("https://"))
                && address.ends_with("/debian")
        })
        .map(str::to_owned)
}

/// The `Depends:` lines of `apt-cache depends`; of alternatives (`|`) the last, which it marks with
/// nothing.
fn dependencies(said: &str) -> Vec<String> {
    said.lines()
        .filter_map(|line| line.trim_start().strip_prefix("Depends: "))
        .filter(|name| !name.starts_with('<'))
        .map(|name| name.trim_end().to_owned())
        .collect()
}

/// Unpacks every package of a directory and returns what they were.
fn unpack_all(archives: &Path, into: &Path) -> Result<Vec<String>, FetchError> {
    fs::create_dir(into)?;
    let mut packages = Vec::new();
    for entry in fs::read_dir(archives)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            unpack(&path, into)?;
            packages.extend(path.file_stem().map(|name| {
                let name = name.to_string_lossy();
                name.trim_end_matches("_amd64")
                    .trim_end_matches("_all")
                    .replace("%3a", ":")
                    .replacen('_', " ", 1)
            }));
        }
    }
    packages.sort();
    Ok(packages)
}

/// Unpacks one package. The owner of what comes out is whoever runs this.
fn unpack(package: &Path, into: &Path) -> Result<(), FetchError> {
    let mut contents = Command::new("dpkg-deb");
    contents
        .arg("--fsys-tarfile")
        .arg(package)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let start = |error| ProcessError::Start {
        program: "dpkg-deb".to_owned(),
        error,
    };
    let mut contents = process::die_with_us(&mut contents).spawn().map_err(start)?;
    let stream = contents.stdout.take();
    let mut tar = Command::new("tar");
    tar.args(["--extract", "--no-same-owner", "--directory"])
        .arg(into)
        .args(LEFT_OUT.map(|path| format!("--exclude={path}")))
        .stdin(stream.map_or_else(Stdio::null, Stdio::from))
        .stdout(Stdio::null());
    let unpacked = process::run_to(&mut tar, LOCAL);
    // With nobody left to read its pipe it ends, whatever it was doing.
    drop(tar);
    let status = contents.wait()?;
    unpacked?;
    if !status.success() {
        return Err(FetchError::Step(ProcessError::Failed {
            program: format!("dpkg-deb --fsys-tarfile {}", package.display()),
            status,
            said: "the package cannot be read".to_owned(),
        }));
    }
    Ok(())
}

/// Finds the things in what was unpacked, takes the kernel out of its image and makes the headers
/// usable where they are.
fn arrange(at: &Path, release: &str) -> Result<BTreeMap<String, PathBuf>, FetchError> {
    let mut paths = BTreeMap::new();
    let mut found = |thing: &str, candidates: &[String]| {
        let path = candidates
            .iter()
            .find(|path| at.join(path).exists())
            .ok_or_else(|| FetchError::Missing(candidates[0].clone()))?;
        paths.insert(thing.to_owned(), PathBuf::from(path));
        Ok::<_, FetchError>(at.join(path))
    };
    let below = |path: &str| format!("programs/usr/{path}");
    let loader = found(
        "loader",
        &[below("lib/x86_64-linux-gnu/ld-linux-x86-64.so.2")],
    )?;
    let libraries = found("libraries", &[below("lib/x86_64-linux-gnu")])?;
    found("qemu", &[below("bin/qemu-system-x86_64")])?;
    found("qemu-data", &[below("share/qemu")])?;
    found("firmware", &[below("share/seabios")])?;
    let bin = found("bin", &[below("bin")])?;
    found("xz", &[below("bin/xz")])?;
    found("zstd", &[below("bin/zstd")])?;
    let image = found("image", &[format!("kernel/boot/vmlinuz-{release}")])?;
    found(
        "modules",
        &[
            format!("kernel/usr/lib/modules/{release}"),
            format!("kernel/lib/modules/{release}"),
        ],
    )?;
    let headers = found(
        "headers",
        &[format!("kernel/usr/src/linux-headers-{release}")],
    )?;
    relocate(&headers)?;

    let unpacker = Unpacker::fetched(loader, libraries, bin);
    if extract_kernel(&image, &at.join("vmlinux"), &unpacker)? {
        paths.insert("kernel".to_owned(), PathBuf::from("vmlinux"));
    }
    Ok(paths)
}

/// Takes the kernel proper out of its image; returns whether there was one that QEMU can boot. The
/// image itself boots too, only later.
fn extract_kernel(image: &Path, to: &Path, unpacker: &Unpacker) -> Result<bool, FetchError> {
    let bytes = fs::read(image)?;
    let Ok(payload) = image::payload(&bytes) else {
        return Ok(false);
    };
    let content = &bytes[payload.bytes];
    if payload.compression == Compression::None {
        fs::write(to, content)?;
        return Ok(true);
    }
    let compressed = to.with_extension("compressed");
    File::create(&compressed)?.write_all(content)?;
    unpacker.unpack_to(&compressed, payload.compression, to)?;
    fs::remove_file(compressed)?;
    Ok(true)
}

/// The headers' first makefile includes another by its absolute path: make that a relative one.
fn relocate(headers: &Path) -> Result<(), FetchError> {
    let makefile = headers.join("Makefile");
    let text = fs::read_to_string(&makefile)?;
    fs::write(&makefile, relocated(&text))?;
    Ok(())
}

fn relocated(makefile: &str) -> String {
    makefile.replace(
        "include /usr/src/",
        "include $(dir $(lastword $(MAKEFILE_LIST)))../",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirror_is_read_from_either_format() {
        let deb822 = "Types: deb\n# http://snapshot.debian.org/archive\nURIs: http://mirror.example/debian\nSuites: bookworm\n";
        let one_line = "# deb http://no.example/debian sid main\ndeb [arch=amd64] https://a.example/debian/ trixie main\n";

        assert_eq!(
            mirror_in(deb822).as_deref(),
            Some("http://mirror.example/debian")
        );
        assert_eq!(
            mirror_in(one_line).as_deref(),
            Some("https://a.example/debian/")
        );
    }

    #[test]
    fn security_archive_and_other_distributions_are_no_mirror() {
        let security = "URIs: http://deb.debian.org/debian-security\n";
        let other = "deb http://archive.ubuntu.com/ubuntu noble main\n";

        assert_eq!(mirror_in(security), None);
        assert_eq!(mirror_in(other), None);
    }

    #[test]
    fn machine_without_lists_uses_the_archive_itself() {
        let etc = tempfile::tempdir().expect("directory");

        assert_eq!(mirror(etc.path()), ARCHIVE);
    }

    #[test]
    fn only_the_way_to_a_mirror_is_inherited() {
        let machine = "Acquire::http::Proxy \"http://proxy:3128\";\nAPT::Get::AllowUnauthenticated \"true\";\nAPT::Update::Post-Invoke:: \"rm -rf /\";\nAcquire::AllowInsecureRepositories \"1\";\n";

        let text = configuration(Path::new("/cache"), machine);

        assert!(text.contains("http://proxy:3128"));
        assert!(!text.contains("\"true\";\nAPT::Update"));
        assert!(!text.contains("rm -rf"));
        assert!(!text.contains("AllowInsecureRepositories \"1\""));
    }

    #[test]
    fn dependencies_leave_out_virtual_packages() {
        let said = "linux-headers\n  Depends: linux-base\n |Depends: linux-image-a\n  Depends: linux-image-b\n  Depends: <virtual>\n    other\n  Conflicts: x\n";

        assert_eq!(dependencies(said), ["linux-base", "linux-image-b"]);
    }

    #[test]
    fn makefile_includes_its_neighbour() {
        let text = relocated("include /usr/src/linux-headers-6.12-common/Makefile\n");

        assert_eq!(
            text,
            "include $(dir $(lastword $(MAKEFILE_LIST)))../linux-headers-6.12-common/Makefile\n"
        );
    }
}
