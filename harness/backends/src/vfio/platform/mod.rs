//! What the machine has: PCI functions, their groups, what holds them, and how to take one and give
//! it back.
//!
//! Everything is read from files under one root, so that tests run on a tree of their own. The
//! files are the kernel's; whatever cannot be read or understood is left out of a description, and
//! counts as in use where safety hangs on it.

mod address;
mod claim;
mod iommu_faults;
mod obstacles;

pub use address::{Address, BadAddress};
pub use claim::{Claim, ClaimError, Released, Taken};
pub use iommu_faults::{IommuFault, KernelLog};
pub use obstacles::{Obstacle, Override};

use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use thiserror::Error;

/// The base class of bridges, and that with the subclass of PCI-to-PCI bridges (PCI Code and ID
/// Assignment 1.11, 1.7).
const BRIDGE: u32 = 0x06;
const PCI_BRIDGE: u32 = 0x0604;

/// Why the platform cannot be described.
#[derive(Debug, Error)]
pub enum PlatformError {
    /// There is no such function.
    #[error("there is no PCI device {0}; `cofferdam vfio list` shows those there are")]
    NoDevice(Address),
    /// A file of the kernel's cannot be used.
    #[error("cannot read {path}: {error}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// How files of the kernel's are written.
type Write = dyn Fn(&Path, &str) -> io::Result<()>;

/// The machine, as its kernel shows it.
#[derive(Clone)]
pub struct Platform {
    root: PathBuf,
    write: Rc<Write>,
}

impl fmt::Debug for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Platform")
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}

/// A PCI function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Function {
    /// Where it is.
    pub address: Address,
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Base class, subclass, programming interface, from the highest byte down.
    pub class: u32,
    /// The driver that holds it.
    pub driver: Option<String>,
    /// The driver it is reserved for.
    pub driver_override: Option<String>,
    /// Its IOMMU group; without one VFIO cannot give it to anybody.
    pub group: Option<Group>,
    /// Its own node below `/dev/vfio/devices`, which kernels with iommufd make while `vfio-pci` has
    /// it.
    pub node: Option<String>,
    /// The ways its kernel can reset it alone, best first. Empty if there is none.
    pub resets: Vec<String>,
}

/// Functions that no IOMMU can tell apart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Group {
    /// Its number: `/dev/vfio/N`.
    pub number: u32,
    /// The kind of the kernel's own domain: `identity`, `DMA` (strict) or `DMA-FQ` (lazy).
    pub domain: Option<String>,
    /// All of them.
    pub members: Vec<Address>,
    /// Addresses that cannot be mapped.
    #[serde(skip)]
    pub reserved: Vec<Range<u64>>,
}

impl Group {
    /// The file that VFIO gives the group by.
    pub fn node(&self) -> PathBuf {
        PathBuf::from(format!("/dev/vfio/{}", self.number))
    }
}

impl Function {
    /// Whether it is a bridge, which no driver here can drive.
    pub const fn is_bridge(&self) -> bool {
        self.class >> 16 == BRIDGE
    }

    /// The files that VFIO gives it by.
    pub fn nodes(&self) -> BTreeSet<PathBuf> {
        let own = self.node.iter();
        let own = own.map(|name| Path::new("/dev/vfio/devices").join(name));
        own.chain(self.group.as_ref().map(Group::node)).collect()
    }

    /// Whether it is a bridge to another PCI bus. VFIO lets the kernel keep those of a group.
    pub const fn is_pci_bridge(&self) -> bool {
        self.class >> 8 == PCI_BRIDGE
    }
}

impl Platform {
    /// The machine this runs on.
    pub fn here() -> Self {
        Self::at("/")
    }

    /// A machine whose `/sys`, `/proc`, `/dev` and `/run` are under `root`.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            write: Rc::new(claim::write_in_time),
        }
    }

    /// Every PCI function, by address.
    ///
    /// # Errors
    ///
    /// If the machine shows no PCI bus.
    pub fn devices(&self) -> Result<Vec<Function>, PlatformError> {
        let path = self.path("sys/bus/pci/devices");
        let entries = fs::read_dir(&path).map_err(|error| PlatformError::Read { path, error })?;
        let mut addresses: Vec<Address> = entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .collect();
        addresses.sort_unstable();
        // One that went away meanwhile is not there.
        Ok(addresses
            .into_iter()
            .filter_map(|address| self.device(address).ok())
            .collect())
    }

    /// The function at that address.
    ///
    /// # Errors
    ///
    /// If there is none, or it does not say what it is.
    pub fn device(&self, address: Address) -> Result<Function, PlatformError> {
        let path = self.device_path(address);
        if !path.exists() {
            return Err(PlatformError::NoDevice(address));
        }
        let number = |name: &str| {
            let path = path.join(name);
            let text = text(&path).map_err(|error| PlatformError::Read {
                path: path.clone(),
                error,
            })?;
            hexadecimal(&text).ok_or_else(|| PlatformError::Read {
                path,
                error: io::Error::new(io::ErrorKind::InvalidData, format!("not a number: {text}")),
            })
        };
        let id = |name| number(name).map(|id| u16::try_from(id).unwrap_or(u16::MAX));
        let class = u32::try_from(number("class")?).unwrap_or(u32::MAX);
        let resets = text(&path.join("reset_method")).unwrap_or_default();
        Ok(Function {
            address,
            vendor: id("vendor")?,
            device: id("device")?,
            class,
            driver: link_name(&path.join("driver")),
            driver_override: text(&path.join("driver_override"))
                .ok()
                .filter(|name| !name.is_empty() && name != "(null)"),
            group: self.group(&path),
            node: self.own_node(&path),
            resets: resets.split_whitespace().map(str::to_owned).collect(),
        })
    }

    /// Where sysfs describes the function.
    pub fn device_path(&self, address: Address) -> PathBuf {
        self.path("sys/bus/pci/devices").join(address.to_string())
    }

    pub(super) fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    /// VFIO names it in sysfs on every kernel, but some make no node of that name. A device without an
    /// IOMMU has another name, `noiommu-vfioN`.
    fn own_node(&self, device: &Path) -> Option<String> {
        let entries = fs::read_dir(device.join("vfio-dev")).ok()?;
        let mut names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let exists = |name: &str| self.path("dev/vfio/devices").join(name).exists();
        names.find(|name| name.starts_with("vfio") && exists(name))
    }

    fn group(&self, device: &Path) -> Option<Group> {
        let number = link_name(&device.join("iommu_group"))?.parse().ok()?;
        let path = self
            .path("sys/kernel/iommu_groups")
            .join(format!("{number}"));
        let mut members: Vec<Address> = fs::read_dir(path.join("devices"))
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .collect();
        members.sort_unstable();
        let reserved = text(&path.join("reserved_regions")).unwrap_or_default();
        Some(Group {
            number,
            domain: text(&path.join("type")).ok(),
            members,
            reserved: reserved.lines().filter_map(reserved_region).collect(),
        })
    }
}

/// A line of `reserved_regions`: first byte, last byte, kind. Direct regions may be relaxable, but a
/// window has room without them.
fn reserved_region(line: &str) -> Option<Range<u64>> {
    let mut words = line.split_whitespace();
    let first = hexadecimal(words.next()?)?;
    let last = hexadecimal(words.next()?)?;
    Some(first..last.saturating_add(1))
}

fn hexadecimal(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16).ok()
}

/// A file's text without the white space around it.
fn text(path: &Path) -> io::Result<String> {
    let bytes = fs::read(path)?;
    Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
}

/// The last name of where a link leads.
fn link_name(path: &Path) -> Option<String> {
    let target = fs::read_link(path).ok()?;
    Some(target.file_name()?.to_str()?.to_owned())
}

#[cfg(test)]
mod tests;
