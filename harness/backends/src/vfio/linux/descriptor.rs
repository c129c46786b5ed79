//! A device's descriptor: its regions, its interrupts and its reset (linux/vfio.h). It is the same,
//! however it was come by.

use super::{checked, size, whole};
use crate::vfio::kernel::{Area, Region};
use crate::vfio::mapped::Mapped;
use cofferdam_seam::{Bar, InterruptKind};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;
use vfio_bindings::bindings::vfio;
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::ioctl::{ioctl, ioctl_with_mut_ref, ioctl_with_ptr};
use vmm_sys_util::ioctl_io_nr;

// linux/vfio.h, "VFIO_DEVICE_GET_REGION_INFO" to "VFIO_DEVICE_RESET".
ioctl_io_nr!(
    VFIO_DEVICE_GET_REGION_INFO,
    vfio::VFIO_TYPE.into(),
    vfio::VFIO_BASE + 8
);
ioctl_io_nr!(
    VFIO_DEVICE_GET_IRQ_INFO,
    vfio::VFIO_TYPE.into(),
    vfio::VFIO_BASE + 9
);
ioctl_io_nr!(
    VFIO_DEVICE_SET_IRQS,
    vfio::VFIO_TYPE.into(),
    vfio::VFIO_BASE + 10
);
ioctl_io_nr!(
    VFIO_DEVICE_RESET,
    vfio::VFIO_TYPE.into(),
    vfio::VFIO_BASE + 11
);

/// The least a function's configuration space has (PCI 3.0, 6.1).
const CONFIG: u64 = 256;

/// Room for what the kernel says of a region beyond its size and place, in bytes; about 250 areas.
const ROOM: usize = 4064;

/// Capabilities of one region that are looked at.
const CAPABILITY_LIMIT: usize = 16;

/// The request that describes a region, with room for its capabilities.
#[repr(C)]
struct RegionRequest {
    info: vfio::vfio_region_info,
    capabilities: [u8; ROOM],
}

const _: () = {
    assert!(size::<vfio::vfio_region_info>() == 32);
    assert!(size_of::<RegionRequest>() == 32 + ROOM);
    assert!(size::<vfio::vfio_irq_info>() == 16);
    // The events follow it: five words.
    assert!(size::<vfio::vfio_irq_set>() == 20);
};

/// Where a region is in the descriptor.
#[derive(Debug, Default)]
struct Extent {
    size: u64,
    offset: u64,
    /// Offset in the region and bytes of what can be mapped.
    mappable: Vec<(u64, u64)>,
}

/// An open device.
pub(super) struct Descriptor {
    file: File,
    regions: BTreeMap<Region, Extent>,
}

impl Descriptor {
    /// Asks a device what regions it has.
    pub(super) fn new(file: File) -> io::Result<Self> {
        let mut regions = BTreeMap::new();
        let bars = (0..6).filter_map(Bar::new).map(Region::Bar);
        for region in bars.chain([Region::Config]) {
            regions.insert(region, extent(&file, index(region))?);
        }
        let device = Self { file, regions };
        if device.size(Region::Config) < CONFIG {
            return Err(io::Error::other("its configuration space is too small"));
        }
        Ok(device)
    }

    pub(super) fn size(&self, region: Region) -> u64 {
        self.regions.get(&region).map_or(0, |extent| extent.size)
    }

    pub(super) fn read(&self, region: Region, at: u64, into: &mut [u8]) -> io::Result<()> {
        let place = self.place(region, at, into.len())?;
        whole(self.file.read_at(into, place)?, into.len())
    }

    pub(super) fn write(&self, region: Region, at: u64, from: &[u8]) -> io::Result<()> {
        let place = self.place(region, at, from.len())?;
        whole(self.file.write_at(from, place)?, from.len())
    }

    pub(super) fn map_bar(&self, bar: Bar) -> io::Result<Vec<Area>> {
        let Some(extent) = self.regions.get(&Region::Bar(bar)) else {
            return Ok(Vec::new());
        };
        let areas = extent.mappable.iter().map(|&(offset, size)| {
            let size = usize::try_from(size).map_err(io::Error::other)?;
            let place = extent.offset.checked_add(offset);
            let place = place.ok_or(io::ErrorKind::InvalidData)?;
            Ok(Area {
                offset,
                bytes: Mapped::file(self.file.as_fd(), place, size)?,
            })
        });
        areas.collect()
    }

    pub(super) fn vectors(&self, kind: InterruptKind) -> u16 {
        let mut info = vfio::vfio_irq_info {
            argsz: size::<vfio::vfio_irq_info>(),
            flags: 0,
            index: interrupt(kind),
            count: 0,
        };
        // SAFETY: the request is what this call reads and writes.
        let done = unsafe { ioctl_with_mut_ref(&self.file, VFIO_DEVICE_GET_IRQ_INFO(), &mut info) };
        match checked(done) {
            Ok(()) => u16::try_from(info.count).unwrap_or(u16::MAX),
            Err(_) => 0,
        }
    }

    pub(super) fn enable(&self, kind: InterruptKind, events: &[EventFd]) -> io::Result<()> {
        let flags = vfio::VFIO_IRQ_SET_DATA_EVENTFD | vfio::VFIO_IRQ_SET_ACTION_TRIGGER;
        let count = u32::try_from(events.len()).map_err(io::Error::other)?;
        self.set_interrupts(kind, flags, count, events)
    }

    pub(super) fn disable(&self, kind: InterruptKind) -> io::Result<()> {
        let flags = vfio::VFIO_IRQ_SET_DATA_NONE | vfio::VFIO_IRQ_SET_ACTION_TRIGGER;
        self.set_interrupts(kind, flags, 0, &[])
    }

    pub(super) fn unmask_intx(&self) -> io::Result<()> {
        let flags = vfio::VFIO_IRQ_SET_DATA_NONE | vfio::VFIO_IRQ_SET_ACTION_UNMASK;
        self.set_interrupts(InterruptKind::Intx, flags, 1, &[])
    }

    pub(super) fn reset(&self) -> io::Result<bool> {
        // SAFETY: the call has no argument.
        let done = unsafe { ioctl(&self.file, VFIO_DEVICE_RESET()) };
        match checked(done) {
            Err(error) if error.raw_os_error() == Some(nix::libc::ENOTTY) => Ok(false),
            Err(error) if error.raw_os_error() == Some(nix::libc::EINVAL) => Ok(false),
            done => done.map(|()| true),
        }
    }

    /// Where a region's bytes are in the descriptor.
    fn place(&self, region: Region, at: u64, len: usize) -> io::Result<u64> {
        let extent = self.regions.get(&region).ok_or(io::ErrorKind::NotFound)?;
        let end = u64::try_from(len).ok().and_then(|len| at.checked_add(len));
        if end.is_none_or(|end| end > extent.size) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(extent.offset + at)
    }

    fn set_interrupts(
        &self,
        kind: InterruptKind,
        flags: u32,
        count: u32,
        events: &[EventFd],
    ) -> io::Result<()> {
        let words = 5 + events.len();
        let argsz = u32::try_from(words * 4).map_err(io::Error::other)?;
        let mut request = vec![argsz, flags, interrupt(kind), 0, count];
        let events = events.iter().map(|event| event.as_raw_fd().cast_unsigned());
        request.extend(events);
        // SAFETY: the request is as long as its first word says, and this call only reads it.
        let done = unsafe { ioctl_with_ptr(&self.file, VFIO_DEVICE_SET_IRQS(), request.as_ptr()) };
        checked(done)?;
        // Anything else is how many vectors could have been enabled.
        if done > 0 {
            return Err(io::Error::other(format!("there are {done} vectors")));
        }
        Ok(())
    }
}

/// Asks the kernel where a region is and what of it can be mapped.
fn extent(file: &File, index: u32) -> io::Result<Extent> {
    let mut request = RegionRequest {
        info: vfio::vfio_region_info {
            argsz: size::<RegionRequest>(),
            index,
            ..Default::default()
        },
        capabilities: [0; ROOM],
    };
    // SAFETY: the request has the size it names, and is what this call reads and writes.
    let done = unsafe { ioctl_with_mut_ref(file, VFIO_DEVICE_GET_REGION_INFO(), &mut request) };
    checked(done)?;
    let info = &request.info;
    let mut mappable = Vec::new();
    if info.flags & vfio::VFIO_REGION_INFO_FLAG_MMAP != 0 {
        if info.flags & vfio::VFIO_REGION_INFO_FLAG_CAPS == 0 {
            mappable.push((0, info.size));
        } else if info.argsz <= size::<RegionRequest>() {
            match sparse(&request.capabilities, info.cap_offset) {
                Some(areas) => mappable = areas,
                None => mappable.push((0, info.size)),
            }
        }
        // What did not fit is not mapped: system calls reach all of it.
    }
    Ok(Extent {
        size: info.size,
        offset: info.offset,
        mappable,
    })
}

/// The areas that can be mapped, if only some can. Offsets count from the start of the request.
fn sparse(capabilities: &[u8], first: u32) -> Option<Vec<(u64, u64)>> {
    let mut at = first;
    for _ in 0..CAPABILITY_LIMIT {
        let start = at.checked_sub(size::<vfio::vfio_region_info>())?;
        let capability = capabilities.get(usize::try_from(start).ok()?..)?;
        // `vfio_info_cap_header`: ID, version, next; `vfio_region_info_cap_sparse_mmap`: how many
        // areas, a reserved word, then offset and size of each.
        let id = u16::from_ne_bytes(*capability.first_chunk()?);
        if u32::from(id) == vfio::VFIO_REGION_INFO_CAP_SPARSE_MMAP {
            let count = u32::from_ne_bytes(*capability.get(8..)?.first_chunk()?);
            let (areas, _) = capability.get(16..)?.as_chunks::<8>();
            let (areas, _) = areas.as_chunks::<2>();
            let areas = areas.get(..usize::try_from(count).ok()?)?;
            let number = |bytes: &[u8; 8]| u64::from_ne_bytes(*bytes);
            return Some(
                areas
                    .iter()
                    .map(|[offset, size]| (number(offset), number(size)))
                    .collect(),
            );
        }
        at = u32::from_ne_bytes(*capability.get(4..)?.first_chunk()?);
    }
    None
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

#[cfg(test)]
mod tests {
    use super::*;

    fn capability(id: u16, next: u32, rest: &[u8]) -> Vec<u8> {
        let mut bytes = id.to_ne_bytes().to_vec();
        bytes.extend(1_u16.to_ne_bytes());
        bytes.extend(next.to_ne_bytes());
        bytes.extend(rest);
        bytes
    }

    fn areas(areas: &[(u64, u64)]) -> Vec<u8> {
        let mut bytes = u32::try_from(areas.len()).unwrap().to_ne_bytes().to_vec();
        bytes.extend([0; 4]);
        for (offset, size) in areas {
            bytes.extend(offset.to_ne_bytes());
            bytes.extend(size.to_ne_bytes());
        }
        bytes
    }

    #[test]
    fn areas_are_found_behind_other_capabilities() {
        let wanted = [(0, 0x1000), (0x3000, 0x2000)];
        let mut bytes = capability(3, 40, &[]);
        bytes.extend(capability(1, 0, &areas(&wanted)));
        assert_eq!(sparse(&bytes, 32).as_deref(), Some(&wanted[..]));
    }

    #[test]
    fn region_without_areas_is_not_sparse() {
        assert_eq!(sparse(&capability(3, 0, &[]), 32), None);
        assert_eq!(sparse(&[0; ROOM], 0), None);
    }

    #[test]
    fn lists_that_go_round_or_out_of_bounds_end() {
        assert_eq!(sparse(&capability(3, 32, &[]), 32), None);
        assert_eq!(sparse(&capability(3, u32::MAX, &[]), 32), None);
        let mut cut = capability(1, 0, &areas(&[(0, 0x1000)]));
        cut.pop();
        assert_eq!(sparse(&cut, 32), None);
    }

    #[test]
    fn what_is_no_device_is_refused() {
        assert!(Descriptor::new(tempfile::tempfile().unwrap()).is_err());
    }
}
