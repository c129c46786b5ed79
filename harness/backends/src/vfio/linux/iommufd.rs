//! A device by its own node, in an address space of iommufd's (linux/vfio.h, linux/iommufd.h).

use super::descriptor::Descriptor;
use super::{AddressSpace, Linux, checked, size};
use crate::vfio::door::{Cdev, Door};
use cofferdam_seam::{Direction, Iova};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use thiserror::Error;
use vfio_bindings::bindings::vfio;
use vmm_sys_util::ioctl::ioctl_with_mut_ref;
use vmm_sys_util::ioctl_io_nr;

// linux/vfio.h, "VFIO_DEVICE_BIND_IOMMUFD", "VFIO_DEVICE_ATTACH_IOMMUFD_PT".
ioctl_io_nr!(
    VFIO_DEVICE_BIND_IOMMUFD,
    vfio::VFIO_TYPE.into(),
    vfio::VFIO_BASE + 18
);
ioctl_io_nr!(
    VFIO_DEVICE_ATTACH_IOMMUFD_PT,
    vfio::VFIO_TYPE.into(),
    vfio::VFIO_BASE + 19
);

/// `IOMMUFD_TYPE` (linux/iommufd.h).
const IOMMUFD_TYPE: u32 = b';' as u32;
// linux/iommufd.h, `IOMMUFD_CMD_*`. There is no call for `IOMMU_DESTROY`: a descriptor that is closed
// takes all its objects down.
ioctl_io_nr!(IOMMU_IOAS_ALLOC, IOMMUFD_TYPE, 0x81);
ioctl_io_nr!(IOMMU_IOAS_MAP, IOMMUFD_TYPE, 0x85);
ioctl_io_nr!(IOMMU_IOAS_UNMAP, IOMMUFD_TYPE, 0x86);

/// `enum iommufd_ioas_map_flags`.
const FIXED_IOVA: u32 = 1 << 0;
const WRITEABLE: u32 = 1 << 1;
const READABLE: u32 = 1 << 2;

/// `struct iommu_ioas_alloc`.
#[repr(C)]
struct IoasAlloc {
    size: u32,
    flags: u32,
    out_ioas_id: u32,
}

/// `struct iommu_ioas_map`.
#[repr(C)]
struct IoasMap {
    size: u32,
    flags: u32,
    ioas_id: u32,
    reserved: u32,
    user_va: u64,
    length: u64,
    iova: u64,
}

/// `struct iommu_ioas_unmap`.
#[repr(C)]
struct IoasUnmap {
    size: u32,
    ioas_id: u32,
    iova: u64,
    length: u64,
}

const _: () = {
    assert!(size::<IoasAlloc>() == 12);
    assert!(size::<IoasMap>() == 40 && std::mem::offset_of!(IoasMap, user_va) == 16);
    assert!(size::<IoasUnmap>() == 24 && std::mem::offset_of!(IoasUnmap, iova) == 8);
    // What Linux 6.6 knew of these; later kernels added fields behind.
    assert!(size::<vfio::vfio_device_bind_iommufd>() >= 16);
    assert!(size::<vfio::vfio_device_attach_iommufd_pt>() >= 12);
};

/// Why a device cannot be opened by its own node.
#[derive(Debug, Error)]
pub enum CdevError {
    /// A node cannot be opened.
    #[error("cannot open {}: {error}", path.display())]
    Node {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The kernel refused.
    #[error("cannot {what}: {error}")]
    Refused {
        /// What was tried.
        what: &'static str,
        /// Why.
        error: io::Error,
    },
}

impl CdevError {
    /// Whether the nodes are somebody else's.
    pub(crate) fn is_denied(&self) -> bool {
        matches!(self, Self::Node { error, .. } if error.kind() == io::ErrorKind::PermissionDenied)
    }
}

/// An address space with one device in it.
pub(crate) struct Iommufd {
    file: File,
    /// The address space's name.
    ioas: u32,
}

impl Linux<Iommufd> {
    /// Opens a device by its node.
    pub(crate) fn by_cdev(cdev: &Cdev) -> Result<Self, CdevError> {
        let refused = |what| move |error| CdevError::Refused { what, error };
        let iommufd = open(&cdev.iommufd)?;
        let device = open(&cdev.node)?;

        let mut bind = vfio::vfio_device_bind_iommufd {
            argsz: size::<vfio::vfio_device_bind_iommufd>(),
            iommufd: iommufd.as_raw_fd(),
            ..Default::default()
        };
        // SAFETY: the request is what this call reads and writes, and its descriptor is open.
        let done = unsafe { ioctl_with_mut_ref(&device, VFIO_DEVICE_BIND_IOMMUFD(), &mut bind) };
        checked(done).map_err(refused("bind it to iommufd"))?;

        let mut space = IoasAlloc {
            size: size::<IoasAlloc>(),
            flags: 0,
            out_ioas_id: 0,
        };
        // SAFETY: the request is what this call reads and writes.
        let done = unsafe { ioctl_with_mut_ref(&iommufd, IOMMU_IOAS_ALLOC(), &mut space) };
        checked(done).map_err(refused("make an address space"))?;

        let mut attach = vfio::vfio_device_attach_iommufd_pt {
            argsz: size::<vfio::vfio_device_attach_iommufd_pt>(),
            pt_id: space.out_ioas_id,
            ..Default::default()
        };
        // SAFETY: the request is what this call reads and writes.
        let done =
            unsafe { ioctl_with_mut_ref(&device, VFIO_DEVICE_ATTACH_IOMMUFD_PT(), &mut attach) };
        checked(done).map_err(refused("put it into an address space"))?;

        Ok(Self {
            device: Descriptor::new(device).map_err(refused("ask what it has"))?,
            space: Iommufd {
                file: iommufd,
                ioas: space.out_ioas_id,
            },
        })
    }
}

fn open(path: &Path) -> Result<File, CdevError> {
    let file = File::options().read(true).write(true).open(path);
    file.map_err(|error| CdevError::Node {
        path: path.to_owned(),
        error,
    })
}

impl AddressSpace for Iommufd {
    const DOOR: Door = Door::Cdev;

    fn map(&self, at: Iova, memory: u64, len: u64, way: Direction) -> io::Result<()> {
        let mut flags = FIXED_IOVA;
        if way.device_reads() {
            flags |= READABLE;
        }
        if way.device_writes() {
            flags |= WRITEABLE;
        }
        let mut request = IoasMap {
            size: size::<IoasMap>(),
            flags,
            ioas_id: self.ioas,
            reserved: 0,
            user_va: memory,
            length: len,
            iova: at.0,
        };
        // SAFETY: the request is what this call reads and writes. The pages are ours and are only
        // reached by volatile access, and the kernel pins them.
        checked(unsafe { ioctl_with_mut_ref(&self.file, IOMMU_IOAS_MAP(), &mut request) })
    }

    fn unmap(&self, at: Iova, len: u64) -> io::Result<u64> {
        let mut request = IoasUnmap {
            size: size::<IoasUnmap>(),
            ioas_id: self.ioas,
            iova: at.0,
            length: len,
        };
        // SAFETY: the request is what this call reads and writes.
        checked(unsafe { ioctl_with_mut_ref(&self.file, IOMMU_IOAS_UNMAP(), &mut request) })?;
        Ok(request.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_that_cannot_be_opened_is_named() {
        let place = tempfile::tempdir().unwrap();
        let cdev = Cdev {
            iommufd: place.path().join("iommu"),
            node: place.path().join("vfio0"),
        };
        let error = Linux::by_cdev(&cdev).err().unwrap();
        assert!(!error.is_denied());
        assert!(error.to_string().contains("/iommu: "), "{error}");

        std::fs::write(&cdev.iommufd, "").unwrap();
        let error = Linux::by_cdev(&cdev).err().unwrap();
        assert!(error.to_string().contains("/vfio0: "), "{error}");
    }

    #[test]
    fn what_is_no_device_is_not_bound() {
        let place = tempfile::tempdir().unwrap();
        let cdev = Cdev {
            iommufd: place.path().join("iommu"),
            node: place.path().join("vfio0"),
        };
        std::fs::write(&cdev.iommufd, "").unwrap();
        std::fs::write(&cdev.node, "").unwrap();
        let error = Linux::by_cdev(&cdev).err().unwrap();
        assert!(!error.is_denied());
        assert!(error.to_string().starts_with("cannot bind it to iommufd"));
    }

    #[test]
    fn only_a_node_that_may_not_be_opened_is_denied() {
        let error = || io::Error::from_raw_os_error(nix::libc::EACCES);
        let path = PathBuf::from("/dev/iommu");
        let what = "bind it to iommufd";
        assert!(
            CdevError::Node {
                path,
                error: error()
            }
            .is_denied()
        );
        assert!(
            !CdevError::Refused {
                what,
                error: error()
            }
            .is_denied()
        );
    }
}
