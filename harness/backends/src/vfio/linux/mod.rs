//! The calls themselves: a device's descriptor, and what it is mapped memory by.
//!
//! There are two doors to a device. Its group and a container are what every kernel with VFIO has
//! had; its own node and iommufd are newer, and some kernels have only one of the two. Behind
//! either, the device's descriptor is the same.

#![expect(unsafe_code, reason = "system calls on descriptors that are ours")]

mod descriptor;
mod group;
mod iommufd;

pub(crate) use group::Container;
pub use iommufd::CdevError;
pub(crate) use iommufd::Iommufd;

use crate::vfio::door::Door;
use crate::vfio::kernel::{Area, Kernel, Region};
use crate::vfio::mapped::Mapped;
use cofferdam_seam::{Bar, Direction, InterruptKind, Iova};
use descriptor::Descriptor;
use std::io;
use std::ops::Range;
use std::rc::Rc;
use vmm_sys_util::eventfd::EventFd;

/// What a device's addresses are mapped by.
pub(crate) trait AddressSpace {
    /// How it was come by.
    const DOOR: Door;

    /// Lets the device reach `len` bytes at `memory`, at `at`, that way only.
    fn map(&self, at: Iova, memory: u64, len: u64, way: Direction) -> io::Result<()>;

    /// Takes down what lies there; how many bytes that was.
    fn unmap(&self, at: Iova, len: u64) -> io::Result<u64>;
}

/// A device in an address space of its own. Its descriptor is closed first.
pub(crate) struct Linux<S> {
    device: Descriptor,
    space: S,
}

impl<S: AddressSpace> Kernel for Linux<S> {
    fn door(&self) -> Door {
        S::DOOR
    }

    fn size(&self, region: Region) -> u64 {
        self.device.size(region)
    }

    fn read(&self, region: Region, at: u64, into: &mut [u8]) -> io::Result<()> {
        self.device.read(region, at, into)
    }

    fn write(&self, region: Region, at: u64, from: &[u8]) -> io::Result<()> {
        self.device.write(region, at, from)
    }

    fn map_bar(&self, bar: Bar) -> io::Result<Vec<Area>> {
        self.device.map_bar(bar)
    }

    fn vectors(&self, kind: InterruptKind) -> u16 {
        self.device.vectors(kind)
    }

    fn enable(&self, kind: InterruptKind, events: &[EventFd]) -> io::Result<()> {
        self.device.enable(kind, events)
    }

    fn disable(&self, kind: InterruptKind) -> io::Result<()> {
        self.device.disable(kind)
    }

    fn unmask_intx(&self) -> io::Result<()> {
        self.device.unmask_intx()
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
        let start = memory.pointer().as_ptr().addr() + pages.start;
        self.space.map(at, start as u64, pages.len() as u64, way)
    }

    fn unmap_dma(&self, at: Iova, len: usize) -> io::Result<()> {
        let done = self.space.unmap(at, len as u64)?;
        whole(usize::try_from(done).unwrap_or(usize::MAX), len)
    }

    fn reset(&self) -> io::Result<bool> {
        self.device.reset()
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "requests have a few thousand bytes at most"
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
