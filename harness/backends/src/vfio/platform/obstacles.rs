//! Why a device should not be taken from whoever has it.

use crate::vfio::platform::{Address, Function, Platform, link_name, text};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// Base classes whose use can be seen from outside: disks by mounts, interfaces by their flags.
const STORAGE: u32 = 0x01;
const NETWORK: u32 = 0x02;

/// `IFF_UP` (linux/if.h).
const INTERFACE_UP: u64 = 1;

/// Mount points without which a machine does not come back.
const SYSTEM: [&str; 5] = ["/", "/boot", "/boot/efi", "/efi", "/usr"];

/// How far below a function its disks and interfaces are looked for, and how many entries of sysfs
/// are looked at.
const DEPTH: usize = 12;
const ENTRIES: usize = 20_000;

/// What somebody who insists may override.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Override {
    /// A driver or process uses it.
    InUse,
    /// A file system on it is mounted.
    Mounted,
    /// The machine was started from it, or shows its console on it.
    Boot,
    /// Its network interface is up.
    InterfaceUp,
    /// It shares its group with others.
    Group,
}

impl Override {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::InUse,
        Self::Mounted,
        Self::Boot,
        Self::InterfaceUp,
        Self::Group,
    ];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::InUse => "in-use",
            Self::Mounted => "mounted",
            Self::Boot => "boot",
            Self::InterfaceUp => "interface-up",
            Self::Group => "group",
        }
    }
}

/// A reason to leave a device alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
pub enum Obstacle {
    /// No IOMMU stands between it and memory.
    NoGroup,
    /// It is a bridge.
    Bridge,
    /// Its driver may be using it, and there is no way to tell.
    Driver {
        /// The driver.
        driver: String,
    },
    /// A process has one of its files open.
    Open {
        /// The file.
        node: PathBuf,
        /// The process.
        pid: u32,
        /// Its command.
        command: String,
    },
    /// A disk of it is part of something else: a volume, a RAID.
    Part {
        /// The disk.
        disk: String,
        /// What it is part of.
        of: String,
    },
    /// A disk of it is swapped to.
    Swap {
        /// The disk.
        disk: String,
    },
    /// A disk of it is mounted.
    Mounted {
        /// The disk.
        disk: String,
        /// Where.
        at: PathBuf,
    },
    /// The system runs from a disk of it.
    System {
        /// The disk.
        disk: String,
        /// Where it is mounted.
        at: PathBuf,
    },
    /// The firmware's console is on it.
    Console,
    /// A network interface of it is up.
    InterfaceUp {
        /// The interface.
        interface: String,
    },
    /// It shares its group with a function that would come with it.
    Foreign {
        /// The other.
        address: Address,
        /// What holds that.
        driver: Option<String>,
    },
}

impl Obstacle {
    /// What has to be said to take the device all the same; `None` if nothing helps.
    pub const fn overridden_by(&self) -> Option<Override> {
        match self {
            Self::NoGroup | Self::Bridge => None,
            Self::Driver { .. } | Self::Open { .. } | Self::Part { .. } | Self::Swap { .. } => {
                Some(Override::InUse)
            }
            Self::Mounted { .. } => Some(Override::Mounted),
            Self::System { .. } | Self::Console => Some(Override::Boot),
            Self::InterfaceUp { .. } => Some(Override::InterfaceUp),
            Self::Foreign { .. } => Some(Override::Group),
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoGroup => f.write_str(
                "it has no IOMMU group: switch the IOMMU on in the firmware and the kernel \
                 (intel_iommu=on, amd_iommu=on)",
            ),
            Self::Bridge => f.write_str("it is a bridge, which VFIO does not give away"),
            Self::Driver { driver } => {
                write!(f, "the driver {driver} holds it and may be using it")
            }
            Self::Open { node, pid, command } => {
                write!(f, "process {pid} ({command}) has {} open", node.display())
            }
            Self::Part { disk, of } => write!(f, "its disk {disk} is part of {of}"),
            Self::Swap { disk } => write!(f, "its disk {disk} is swapped to"),
            Self::Mounted { disk, at } => {
                write!(f, "its disk {disk} is mounted at {}", at.display())
            }
            Self::System { disk, at } => {
                write!(f, "the system runs from its disk {disk} ({})", at.display())
            }
            Self::Console => f.write_str("the firmware's console is on it"),
            Self::InterfaceUp { interface } => write!(f, "its interface {interface} is up"),
            Self::Foreign { address, driver } => {
                let driver = driver.as_deref().unwrap_or("no driver");
                write!(f, "{address} ({driver}) shares its group")
            }
        }
    }
}

/// What the kernel made of a function: its disks, interfaces and files.
#[derive(Debug, Default)]
struct Children {
    /// Name and `major:minor`, partitions too.
    disks: Vec<(String, String, PathBuf)>,
    interfaces: Vec<(String, PathBuf)>,
    /// Under `/dev`.
    nodes: BTreeSet<PathBuf>,
}

impl Platform {
    /// Everything that speaks against taking the function, as far as it can be seen.
    pub fn obstacles(&self, function: &Function) -> Vec<Obstacle> {
        let mut found = Vec::new();
        if function.is_bridge() {
            found.push(Obstacle::Bridge);
        }
        if function.group.is_none() {
            found.push(Obstacle::NoGroup);
        }
        let path = self.device_path(function.address);
        let mut children = Children::default();
        let mut left = ENTRIES;
        collect(&path, DEPTH, &mut left, &mut children);
        if text(&path.join("boot_vga")).is_ok_and(|text| text == "1") {
            found.push(Obstacle::Console);
        }
        self.look_at_disks(&children, &mut found);
        for (interface, path) in &children.interfaces {
            let flags = text(&path.join("flags")).ok();
            let flags = flags.as_deref().and_then(super::hexadecimal);
            // An interface that does not tell counts as up.
            if flags.is_none_or(|flags| flags & INTERFACE_UP != 0) {
                let interface = interface.clone();
                found.push(Obstacle::InterfaceUp { interface });
            }
        }
        let mut nodes = children.nodes;
        nodes.extend(function.nodes());
        found.extend(self.openers(&nodes));
        let visible = matches!(function.class >> 16, STORAGE | NETWORK);
        if let Some(driver) = &function.driver
            && driver != "vfio-pci"
            && (!visible || left == 0)
        {
            let driver = driver.clone();
            found.push(Obstacle::Driver { driver });
        }
        let members = function.group.as_ref().map(|group| &group.members[..]);
        for &address in members.unwrap_or_default() {
            if address == function.address {
                continue;
            }
            let other = self.device(address).ok();
            if other.as_ref().is_none_or(|other| !other.is_pci_bridge()) {
                let driver = other.and_then(|other| other.driver);
                found.push(Obstacle::Foreign { address, driver });
            }
        }
        found
    }

    fn look_at_disks(&self, children: &Children, found: &mut Vec<Obstacle>) {
        if children.disks.is_empty() {
            return;
        }
        let mounts = text(&self.path("proc/self/mountinfo")).unwrap_or_default();
        let swaps = text(&self.path("proc/swaps")).unwrap_or_default();
        for (disk, number, path) in &children.disks {
            let node = format!("/dev/{disk}");
            for mount in mounts.lines().filter_map(Mount::parse) {
                if mount.number != number && mount.source != node {
                    continue;
                }
                let (disk, at) = (disk.clone(), PathBuf::from(&mount.at));
                found.push(if SYSTEM.contains(&mount.at.as_str()) {
                    Obstacle::System { disk, at }
                } else {
                    Obstacle::Mounted { disk, at }
                });
            }
            let swapped = swaps.lines().any(|line| {
                let used = line.split_whitespace().next();
                used == Some(node.as_str())
            });
            if swapped {
                found.push(Obstacle::Swap { disk: disk.clone() });
            }
            for holder in fs::read_dir(path.join("holders")).into_iter().flatten() {
                let Ok(holder) = holder else { continue };
                found.push(Obstacle::Part {
                    disk: disk.clone(),
                    of: holder.file_name().to_string_lossy().into_owned(),
                });
            }
        }
    }

    /// Processes that have one of those files open, as far as this process may look.
    pub(super) fn openers(&self, nodes: &BTreeSet<PathBuf>) -> Vec<Obstacle> {
        let mut found = Vec::new();
        for process in fs::read_dir(self.path("proc")).into_iter().flatten() {
            let Ok(process) = process else { continue };
            let pid = process
                .file_name()
                .to_str()
                .and_then(|pid| pid.parse().ok());
            let Some(pid) = pid else { continue };
            let files = fs::read_dir(process.path().join("fd"));
            let open: BTreeSet<PathBuf> = files
                .into_iter()
                .flatten()
                .filter_map(|file| fs::read_link(file.ok()?.path()).ok())
                .filter(|target| nodes.contains(target))
                .collect();
            for node in open {
                let command = text(&process.path().join("comm")).unwrap_or_default();
                found.push(Obstacle::Open { node, pid, command });
            }
        }
        found
    }
}

/// One line of `mountinfo` (proc_pid_mountinfo(5)).
struct Mount<'a> {
    number: &'a str,
    at: String,
    source: String,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut words = line.split(' ');
        let number = words.nth(2)?;
        let at = unescape(words.nth(1)?);
        // Optional fields end with a hyphen; then type and source.
        words.find(|word| *word == "-")?;
        let source = unescape(words.nth(1)?);
        Some(Self { number, at, source })
    }
}

/// Blanks and backslashes are written as `\` and three octal digits.
fn unescape(text: &str) -> String {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after
            .get(..3)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(escaped) if byte == b'\\' => {
                plain.push(escaped);
                rest = &after[3..];
            }
            _ => {
                plain.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}

/// Walks what the kernel hung below a function. `left` is 0 afterwards if that was too much.
fn collect(path: &Path, depth: usize, left: &mut usize, into: &mut Children) {
    for entry in fs::read_dir(path).into_iter().flatten() {
        let Ok(entry) = entry else { continue };
        if *left == 0 || depth == 0 {
            *left = 0;
            return;
        }
        *left -= 1;
        // Links lead elsewhere: to drivers, groups, neighbours.
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        match link_name(&path.join("subsystem")).as_deref() {
            Some("block") => {
                let number = text(&path.join("dev")).unwrap_or_default();
                into.disks.push((name, number, path.clone()));
            }
            Some("net") => into.interfaces.push((name, path.clone())),
            _ => {}
        }
        let uevent = text(&path.join("uevent")).unwrap_or_default();
        let node = uevent
            .lines()
            .find_map(|line| line.strip_prefix("DEVNAME="));
        if let Some(node) = node {
            into.nodes.insert(Path::new("/dev").join(node));
        }
        collect(&path, depth - 1, left, into);
    }
}
