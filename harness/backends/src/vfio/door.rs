//! The ways a kernel gives a device to a process, and which is taken.

use crate::vfio::platform::{Function, Platform};
use serde::Serialize;
use std::fmt;
use std::path::PathBuf;
use thiserror::Error;

/// Which way a device is to be opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Via {
    /// By its own node where the kernel has one that this process may open, else by its group.
    #[default]
    Automatic,
    /// By its group, in a container.
    Group,
    /// By its own node, in an address space of iommufd's.
    Cdev,
}

/// Which way a device was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Door {
    /// By its group, in a container.
    Group,
    /// By its own node, in an address space of iommufd's.
    Cdev,
}

impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Group => "its group and a container",
            Self::Cdev => "its own node and iommufd",
        })
    }
}

/// The nodes that a device is opened by alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cdev {
    /// The device's: `/dev/vfio/devices/vfioN`.
    pub node: PathBuf,
    /// iommufd's: `/dev/iommu`.
    pub iommufd: PathBuf,
}

/// Why a device cannot be opened by its own node.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NoCdev {
    /// The kernel has no iommufd.
    #[error(
        "there is no {}; it needs a kernel with CONFIG_IOMMUFD (if it is a module, \
         `modprobe iommufd`)", .0.display()
    )]
    NoIommufd(PathBuf),
    /// VFIO has made no node for the device.
    #[error(
        "it has no node in {}; it needs a kernel with CONFIG_VFIO_DEVICE_CDEV, and the driver \
         vfio-pci", .0.display()
    )]
    NoNode(PathBuf),
}

impl Platform {
    /// The nodes that a device is opened by alone.
    ///
    /// # Errors
    ///
    /// Says what the kernel lacks.
    pub fn cdev(&self, function: &Function) -> Result<Cdev, NoCdev> {
        let iommufd = self.path("dev/iommu");
        if !iommufd.exists() {
            return Err(NoCdev::NoIommufd(iommufd));
        }
        match &function.node {
            Some(name) => Ok(Cdev {
                node: self.path("dev/vfio/devices").join(name),
                iommufd,
            }),
            None => Err(NoCdev::NoNode(self.path("dev/vfio/devices"))),
        }
    }
}

impl Via {
    /// The nodes to open the device by; `None` stands for its group.
    pub(crate) fn choose(self, cdev: Result<Cdev, NoCdev>) -> Result<Option<Cdev>, NoCdev> {
        match self {
            Self::Automatic => Ok(cdev.ok()),
            Self::Group => Ok(None),
            Self::Cdev => cdev.map(Some),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes() -> Cdev {
        Cdev {
            node: "/dev/vfio/devices/vfio0".into(),
            iommufd: "/dev/iommu".into(),
        }
    }

    fn none() -> NoCdev {
        NoCdev::NoIommufd("/dev/iommu".into())
    }

    #[test]
    fn own_node_is_preferred_and_the_group_the_way_out() {
        assert_eq!(Via::default(), Via::Automatic);
        assert_eq!(Via::Automatic.choose(Ok(nodes())), Ok(Some(nodes())));
        assert_eq!(Via::Automatic.choose(Err(none())), Ok(None));
    }

    #[test]
    fn way_that_was_asked_for_is_taken_or_refused() {
        assert_eq!(Via::Group.choose(Ok(nodes())), Ok(None));
        assert_eq!(Via::Group.choose(Err(none())), Ok(None));
        assert_eq!(Via::Cdev.choose(Ok(nodes())), Ok(Some(nodes())));
        assert_eq!(Via::Cdev.choose(Err(none())), Err(none()));
    }
}
