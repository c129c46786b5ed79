//! A device by its group, in a container (linux/vfio.h).
//!
//! The crate `vfio-ioctls` opens it. The rest is done here: the crate reports failed accesses to a
//! log only, maps every page for both directions, and does not say how a reset went.

use super::descriptor::Descriptor;
use super::{AddressSpace, Linux, checked, size};
use crate::vfio::door::Door;
use cofferdam_seam::{Direction, Iova};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;
use vfio_bindings::bindings::vfio;
use vfio_ioctls::{VfioContainer, VfioDevice, VfioError, VfioOps};
use vmm_sys_util::ioctl::{ioctl_with_mut_ref, ioctl_with_ref};
use vmm_sys_util::ioctl_io_nr;

// linux/vfio.h, "VFIO_IOMMU_MAP_DMA", "VFIO_IOMMU_UNMAP_DMA".
ioctl_io_nr!(
    VFIO_IOMMU_MAP_DMA,
    vfio::VFIO_TYPE.into(),
    vfio::VFIO_BASE + 13
);
ioctl_io_nr!(
    VFIO_IOMMU_UNMAP_DMA,
    vfio::VFIO_TYPE.into(),
    vfio::VFIO_BASE + 14
);

/// A container with one device in it.
pub(crate) struct Container {
    /// Takes the group out of the container when it is dropped.
    _device: VfioDevice,
    container: Arc<VfioContainer>,
}

impl Linux<Container> {
    /// Opens the device at that path in sysfs, which the driver `vfio-pci` must hold.
    pub(crate) fn by_group(sysfs: &Path) -> Result<Self, VfioError> {
        let container = Arc::new(VfioContainer::new(None)?);
        let device = VfioDevice::new(sysfs, Arc::clone(&container) as Arc<dyn VfioOps>, false)?;
        // SAFETY: the descriptor is the device's, which lives until this function ends.
        let fd = unsafe { BorrowedFd::borrow_raw(device.as_raw_fd()) };
        let file = fd
            .try_clone_to_owned()
            .map_err(|_| VfioError::VfioDeviceDupFd)?;
        let descriptor =
            Descriptor::new(file.into()).map_err(|_| VfioError::VfioDeviceGetInfoPCI)?;
        Ok(Self {
            device: descriptor,
            space: Container {
                _device: device,
                container,
            },
        })
    }
}

impl AddressSpace for Container {
    const DOOR: Door = Door::Group;

    fn map(&self, at: Iova, memory: u64, len: u64, way: Direction) -> io::Result<()> {
        let mut flags = 0;
        if way.device_reads() {
            flags |= vfio::VFIO_DMA_MAP_FLAG_READ;
        }
        if way.device_writes() {
            flags |= vfio::VFIO_DMA_MAP_FLAG_WRITE;
        }
        let request = vfio::vfio_iommu_type1_dma_map {
            argsz: size::<vfio::vfio_iommu_type1_dma_map>(),
            flags,
            vaddr: memory,
            iova: at.0,
            size: len,
        };
        // SAFETY: the request is what this call reads. The pages are ours and are only reached by
        // volatile access, and the kernel pins them.
        checked(unsafe { ioctl_with_ref(&*self.container, VFIO_IOMMU_MAP_DMA(), &request) })
    }

    fn unmap(&self, at: Iova, len: u64) -> io::Result<u64> {
        let mut request = vfio::vfio_iommu_type1_dma_unmap {
            argsz: size::<vfio::vfio_iommu_type1_dma_unmap>(),
            iova: at.0,
            size: len,
            ..Default::default()
        };
        // SAFETY: the request is what this call reads and writes.
        let done =
            unsafe { ioctl_with_mut_ref(&*self.container, VFIO_IOMMU_UNMAP_DMA(), &mut request) };
        checked(done)?;
        Ok(request.size)
    }
}
