//! A driver's way to the device.

use crate::vfio::addresses::PAGE;
use crate::vfio::device::{BUS_MASTER, MEMORY_SPACE, Open, Shared};
use crate::vfio::kernel::Region;
use crate::vfio::mapped::Mapped;
use cofferdam_seam::{
    Access, Bar, Deadline, Direction, DmaRegion, DriverHost, HostError, Interrupts, Mapping, Mmio,
    RawDma, Time, Vector, VectorSet, Wake, Width,
};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use std::fmt;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::rc::Rc;
use std::time::Duration;

/// One driver's host.
pub struct VfioHost {
    shared: Rc<Shared>,
}

impl VfioHost {
    pub(crate) fn new(shared: Rc<Shared>) -> Self {
        Self { shared }
    }
}

impl fmt::Debug for VfioHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VfioHost").finish_non_exhaustive()
    }
}

impl DriverHost for VfioHost {
    type Mmio = VfioMmio;
    type Dma = VfioDma;

    fn map_bar(&mut self, bar: Bar) -> Result<VfioMmio, HostError> {
        self.shared.with(|open, shared| {
            let size = open.kernel.size(Region::Bar(bar));
            if size == 0 {
                return Err(HostError::NoSuchBar(bar.index()));
            }
            shared.kernel_did("map a BAR", open.ensure_mapped(bar))?;
            let decoding = open.set_command(MEMORY_SPACE, true);
            shared.kernel_did("enable memory decoding", decoding)?;
            Ok(VfioMmio {
                shared: Rc::clone(&self.shared),
                bar,
                size,
            })
        })
    }

    fn config_read(&mut self, offset: u16, width: Width) -> Result<u32, HostError> {
        self.shared.with(|open, shared| {
            if !in_config(open, offset, width) {
                return Ok(all_ones(width));
            }
            let mut bytes = [0; 4];
            let (wanted, _) = bytes.split_at_mut(width.bytes() as usize);
            let read = open.kernel.read(Region::Config, offset.into(), wanted);
            shared.kernel_did("read configuration space", read)?;
            Ok(u32::from_le_bytes(bytes))
        })
    }

    fn config_write(&mut self, offset: u16, width: Width, value: u32) -> Result<(), HostError> {
        self.shared.with(|open, shared| {
            if !in_config(open, offset, width) {
                return Ok(());
            }
            let bytes = value.to_le_bytes();
            let (wanted, _) = bytes.split_at(width.bytes() as usize);
            let written = open.kernel.write(Region::Config, offset.into(), wanted);
            shared.kernel_did("write configuration space", written)?;
            shared.kernel_did("read the command register", open.look_at_decoding())
        })
    }

    fn set_bus_master(&mut self, on: bool) -> Result<(), HostError> {
        self.shared.with(|open, shared| {
            shared.kernel_did("set bus mastering", open.set_command(BUS_MASTER, on))
        })
    }

    fn enable_interrupts(&mut self, wanted: u16) -> Result<Interrupts, HostError> {
        self.shared.with(|open, shared| {
            let enabled = open.enable_interrupts(wanted);
            let enabled = shared.kernel_did("set up interrupts", enabled)?;
            enabled.ok_or(HostError::NoVectors(wanted))
        })
    }

    fn alloc_dma(&mut self, len: usize) -> Result<VfioDma, HostError> {
        self.shared.with(|_, shared| {
            let whole = len.max(1).checked_next_multiple_of(PAGE);
            let pages = whole.and_then(|whole| Mapped::anonymous(whole).ok());
            let pages = pages.ok_or(HostError::OutOfMemory(len))?;
            Ok(VfioDma {
                shared: Rc::clone(&self.shared),
                name: shared.name(),
                pages: Rc::new(pages),
                len,
            })
        })
    }

    fn map(
        &mut self,
        region: &VfioDma,
        bytes: Range<usize>,
        way: Direction,
    ) -> Result<Mapping, HostError> {
        HostError::unless_within(&bytes, region.len)?;
        if !Rc::ptr_eq(&region.shared, &self.shared) {
            return Err(HostError::Refused);
        }
        self.shared.map(region.name, &region.pages, bytes, way)
    }

    fn unmap(&mut self, mapping: Mapping) {
        self.shared.unmap(mapping.id);
    }

    fn wait_any(&mut self, vectors: &[Vector], until: Deadline) -> Result<Wake, HostError> {
        loop {
            let wake = self
                .shared
                .with(|open, shared| look_or_wait(open, shared, vectors, until))?;
            if let Some(wake) = wake {
                return Ok(wake);
            }
        }
    }

    fn relax(&mut self) -> Result<(), HostError> {
        std::thread::yield_now();
        self.shared.with(|_, _| Ok(()))
    }

    fn now(&self) -> Time {
        self.shared.now()
    }
}

impl RawDma for VfioHost {
    fn pointer(&self, region: &VfioDma) -> NonNull<u8> {
        region.pages.pointer()
    }
}

/// Takes what was raised; otherwise sleeps until something is or the deadline passes, to be called
/// again.
fn look_or_wait(
    open: &mut Open,
    shared: &Shared,
    vectors: &[Vector],
    until: Deadline,
) -> Result<Option<Wake>, HostError> {
    shared.kernel_did("unmask INTx", open.unmask())?;
    let given = open.events.len();
    let mut awaited: Vec<usize> = vectors.iter().map(|vector| vector.0.into()).collect();
    awaited.retain(|&vector| vector < given);
    awaited.sort_unstable();
    awaited.dedup();

    let mut raised = VectorSet::EMPTY;
    for &vector in &awaited {
        if open.take_event(vector) {
            raised.insert(VectorSet(1 << vector));
        }
    }
    if !raised.is_empty() {
        return Ok(Some(Wake::Interrupt(raised)));
    }
    let now = shared.now();
    if until.passed(now) {
        return Ok(Some(Wake::TimedOut));
    }
    let left = until.0.min(shared.horizon()).since(now);
    let fds: Vec<_> = awaited
        .iter()
        .map(|&vector| open.events[vector].as_raw_fd())
        .collect();
    let slept = sleep_on(&fds, left);
    shared.kernel_did("wait for an interrupt", slept.map_err(Into::into))?;
    Ok(None)
}

#[expect(
    unsafe_code,
    reason = "the crate's events do not lend their descriptors"
)]
fn sleep_on(fds: &[i32], left: Duration) -> Result<(), Errno> {
    let mut polled: Vec<_> = fds
        .iter()
        .map(|&fd| {
            // SAFETY: the descriptors are events of the open device, which the caller borrows.
            PollFd::new(unsafe { BorrowedFd::borrow_raw(fd) }, PollFlags::POLLIN)
        })
        .collect();
    match ppoll(&mut polled, Some(TimeSpec::from_duration(left)), None) {
        // Whoever asked looks again.
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(error),
    }
}

fn in_config(open: &Open, offset: u16, width: Width) -> bool {
    let end = u64::from(offset) + u64::from(width.bytes());
    let aligned = u32::from(offset).is_multiple_of(width.bytes());
    aligned && width <= Width::Four && end <= open.kernel.size(Region::Config)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "configuration accesses are four bytes at most"
)]
const fn all_ones(width: Width) -> u32 {
    width.all_ones() as u32
}

/// A BAR of the device. What the kernel lets us map is accessed directly, the rest by system calls;
/// wide accesses may then reach the device as two of four bytes.
pub struct VfioMmio {
    shared: Rc<Shared>,
    bar: Bar,
    size: u64,
}

impl Mmio for VfioMmio {
    fn read(&self, offset: u32, width: Width) -> u64 {
        let read = Access::new(self.bar, offset, width, self.size).and_then(|at| {
            self.shared.registers("read a register", |open| {
                open.load(at.bar(), at.offset(), width)
            })
        });
        read.unwrap_or(width.all_ones())
    }

    fn write(&self, offset: u32, width: Width, value: u64) {
        if let Some(at) = Access::new(self.bar, offset, width, self.size) {
            self.shared.registers("write a register", |open| {
                open.store(at.bar(), at.offset(), width, value)
            });
        }
    }

    fn len(&self) -> u64 {
        self.size
    }
}

impl fmt::Debug for VfioMmio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VfioMmio")
            .field("bar", &self.bar)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

/// DMA memory: pages of this process, which the kernel pins while they are mapped.
pub struct VfioDma {
    shared: Rc<Shared>,
    name: u64,
    pages: Rc<Mapped>,
    len: usize,
}

impl VfioDma {
    /// How many of `len` bytes from `at` on are in the region.
    fn within(&self, at: usize, len: usize) -> usize {
        self.len.saturating_sub(at).min(len)
    }
}

impl DmaRegion for VfioDma {
    fn len(&self) -> usize {
        self.len
    }

    fn read_at(&self, at: usize, into: &mut [u8]) {
        let (inside, beyond) = into.split_at_mut(self.within(at, into.len()));
        self.pages.read(at, inside);
        beyond.fill(0);
    }

    fn write_at(&self, at: usize, from: &[u8]) {
        self.pages.write(at, &from[..self.within(at, from.len())]);
    }
}

impl Drop for VfioDma {
    fn drop(&mut self) {
        self.shared.unmap_region(self.name);
    }
}

impl fmt::Debug for VfioDma {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VfioDma")
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}
