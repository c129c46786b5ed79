//! The calls themselves: groups and containers, as every kernel with VFIO has them.
//!
//! The crate `vfio-ioctls` opens the device and sets up its interrupts. Registers, mappings and
//! resets are done here: the crate reports failed accesses to a log only, maps every page for both
//! directions, and does not say how a reset went.

#![expect(unsafe_code, reason = "system calls on descriptors that are ours")]

use crate::vfio::kernel::{Area, Kernel, Region};
use crate::vfio::mapped::Mapped;
use cofferdam_seam::{Bar, Direction, InterruptKind, Iova};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use vfio_bindings::bindings::vfio;
use vfio_ioctls::{VfioContainer, VfioDevice, VfioError, VfioOps, VfioRegionInfoCap};
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::ioctl::{ioctl, ioctl_with_mut_ref, ioctl_with_ref};
use vmm_sys_util::ioctl_io_nr;

// linux/vfio.h, "VFIO_DEVICE_RESET", "VFIO_IOMMU_MAP_DMA", "VFIO_IOMMU_UNMAP_DMA".
ioctl_io_nr!(
    VFIO_DEVICE_RESET,
    vfio::VFIO_TYPE.into(),
    vfio::VFIO_BASE + 11
);
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

/// The least a function's configuration space has (PCI 3.0, 6.1).
const CONFIG: u64 = 256;

/// A device in a container of its own.
pub(crate) struct Linux {
    /// The device's descriptor, to read and write at offsets; closed before the container.
    file: File,
    device: VfioDevice,
    container: Arc<VfioContainer>,
}

impl Linux {
    /// Opens the device at that path in sysfs, which the driver `vfio-pci` must hold.
    pub(crate) fn open(sysfs: &Path) -> Result<Self, VfioError> {
        let container = Arc::new(VfioContainer::new(None)?);
        let device = VfioDevice::new(sysfs, Arc::clone(&container) as Arc<dyn VfioOps>, false)?;
        // SAFETY: the descriptor is the device's, which lives until this function ends.
        let fd = unsafe { BorrowedFd::borrow_raw(device.as_raw_fd()) };
        let file = fd
            .try_clone_to_owned()
            .map_err(|_| VfioError::VfioDeviceDupFd)?;
        // The crate leaves out regions it cannot ask about, and those behind move up.
        if device.get_region_size(index(Region::Config)) < CONFIG {
            return Err(VfioError::VfioDeviceGetInfoPCI);
        }
        Ok(Self {
            file: file.into(),
            device,
            container,
        })
    }

    /// Where a region's bytes are in the device's descriptor.
    fn place(&self, region: Region, at: u64, len: usize) -> io::Result<u64> {
        let index = index(region);
        let end = u64::try_from(len).ok().and_then(|len| at.checked_add(len));
        if end.is_none_or(|end| end > self.device.get_region_size(index)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(self.device.get_region_offset(index) + at)
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a BAR's index is 5 at most"
)]
fn index(region: Region) -> u32 {
    match region {
        // Six BARs come first.
        Region::Bar(bar) => vfio::VFIO_PCI_BAR0_REGION_INDEX + bar.index() as u32,
        Region::Config => vfio::VFIO_PCI_CONFIG_REGION_INDEX,
    }
}

const fn interrupt(kind: InterruptKind) -> u32 {
    match kind {
        InterruptKind::Msix => vfio::VFIO_PCI_MSIX_IRQ_INDEX,
        InterruptKind::Msi => vfio::VFIO_PCI_MSI_IRQ_INDEX,
        InterruptKind::Intx => vfio::VFIO_PCI_INTX_IRQ_INDEX,
    }
}

/// The crate does not pass on why.
fn failed(error: VfioError) -> io::Error {
    io::Error::other(error)
}

impl Kernel for Linux {
    fn size(&self, region: Region) -> u64 {
        self.device.get_region_size(index(region))
    }

    fn read(&self, region: Region, at: u64, into: &mut [u8]) -> io::Result<()> {
        let place = self.place(region, at, into.len())?;
        whole(self.file.read_at(into, place)?, into.len())
    }

    fn write(&self, region: Region, at: u64, from: &[u8]) -> io::Result<()> {
        let place = self.place(region, at, from.len())?;
        whole(self.file.write_at(from, place)?, from.len())
    }

    fn map_bar(&self, bar: Bar) -> io::Result<Vec<Area>> {
        let index = index(Region::Bar(bar));
        let flags = self.device.get_region_flags(index);
        if flags & vfio::VFIO_REGION_INFO_FLAG_MMAP == 0 {
            return Ok(Vec::new());
        }
        let caps = self.device.get_region_caps(index);
        let sparse = caps.iter().find_map(|cap| match cap {
            VfioRegionInfoCap::SparseMmap(sparse) => Some(&sparse.areas),
            _ => None,
        });
        let parts = match sparse {
            Some(areas) => areas.iter().map(|area| (area.offset, area.size)).collect(),
            None => vec![(0, self.device.get_region_size(index))],
        };
        let region = self.device.get_region_offset(index);
        parts
            .into_iter()
            .map(|(offset, size)| {
                let size = usize::try_from(size).map_err(io::Error::other)?;
                Ok(Area {
                    offset,
                    bytes: Mapped::file(self.file.as_fd(), region + offset, size)?,
                })
            })
            .collect()
    }

    fn vectors(&self, kind: InterruptKind) -> u16 {
        let info = self.device.get_irq_info(interrupt(kind));
        info.map_or(0, |info| u16::try_from(info.count).unwrap_or(u16::MAX))
    }

    fn enable(&self, kind: InterruptKind, events: &[EventFd]) -> io::Result<()> {
        self.device
            .enable_irq(interrupt(kind), events.iter().collect())
            .map_err(failed)
    }

    fn disable(&self, kind: InterruptKind) -> io::Result<()> {
        self.device.disable_irq(interrupt(kind)).map_err(failed)
    }

    fn unmask_intx(&self) -> io::Result<()> {
        self.device
            .unmask_irq(vfio::VFIO_PCI_INTX_IRQ_INDEX)
            .map_err(failed)
    }

    fn map_dma(
        &self,
        at: Iova,
        memory: &Rc<Mapped>,
        pages: Range<usize>,
        way: Direction,
    ) -> io::Result<()> {
        if pages.start >= pages.end || pages.end > memory.len() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
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
            vaddr: (memory.pointer().as_ptr().addr() + pages.start) as u64,
            iova: at.0,
            size: pages.len() as u64,
        };
        // SAFETY: the request is what this call reads. The pages are ours and are only reached by
        // volatile access, and the kernel pins them.
        let done = unsafe { ioctl_with_ref(&*self.container, VFIO_IOMMU_MAP_DMA(), &request) };
        checked(done)
    }

    fn unmap_dma(&self, at: Iova, len: usize) -> io::Result<()> {
        let mut request = vfio::vfio_iommu_type1_dma_unmap {
            argsz: size::<vfio::vfio_iommu_type1_dma_unmap>(),
            iova: at.0,
            size: len as u64,
            ..Default::default()
        };
        // SAFETY: the request is what this call reads and writes.
        let done =
            unsafe { ioctl_with_mut_ref(&*self.container, VFIO_IOMMU_UNMAP_DMA(), &mut request) };
        checked(done)?;
        // It says how much it took down.
        whole(usize::try_from(request.size).unwrap_or(usize::MAX), len)
    }

    fn reset(&self) -> io::Result<bool> {
        // SAFETY: the call has no argument.
        let done = unsafe { ioctl(&self.file, VFIO_DEVICE_RESET()) };
        match checked(done) {
            Err(error) if error.raw_os_error() == Some(nix::libc::ENOTTY) => Ok(false),
            Err(error) if error.raw_os_error() == Some(nix::libc::EINVAL) => Ok(false),
            done => done.map(|()| true),
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "requests have a few dozen bytes"
)]
const fn size<T>() -> u32 {
    size_of::<T>() as u32
}

fn whole(done: usize, wanted: usize) -> io::Result<()> {
    if done == wanted {
        Ok(())
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

fn checked(done: i32) -> io::Result<()> {
    if done < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
