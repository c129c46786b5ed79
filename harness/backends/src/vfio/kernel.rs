//! The few calls of VFIO the backend makes, so that tests can answer them.

use crate::vfio::door::Door;
use crate::vfio::mapped::Mapped;
use cofferdam_seam::{Bar, Direction, InterruptKind, Iova};
use std::io;
use std::ops::Range;
use std::rc::Rc;
use vmm_sys_util::eventfd::EventFd;

/// A part of a device that VFIO lets a process read and write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Region {
    /// A BAR.
    Bar(Bar),
    /// Configuration space, with the fields the kernel keeps for itself emulated.
    Config,
}

/// Part of a BAR, mapped into this process.
#[derive(Debug)]
pub struct Area {
    /// The first byte's offset in the BAR.
    pub offset: u64,
    /// The bytes.
    pub bytes: Mapped,
}

/// One device and the address space it was put in. Dropping it gives both back: the kernel switches
/// bus mastering off and takes every mapping down.
pub trait Kernel {
    /// Which way the device was opened.
    fn door(&self) -> Door;

    /// Bytes in a region; 0 if the device has none.
    fn size(&self, region: Region) -> u64;

    /// Reads all of `into`; anything shorter is an error.
    fn read(&self, region: Region, at: u64, into: &mut [u8]) -> io::Result<()>;

    /// Writes all of `from`; anything shorter is an error.
    fn write(&self, region: Region, at: u64, from: &[u8]) -> io::Result<()>;

    /// Maps what can be mapped of a BAR; the rest is reached by [`read`](Self::read) and
    /// [`write`](Self::write).
    fn map_bar(&self, bar: Bar) -> io::Result<Vec<Area>>;

    /// Vectors of that kind the device has.
    fn vectors(&self, kind: InterruptKind) -> u16;

    /// Enables as many vectors as there are events, each of which counts its own.
    fn enable(&self, kind: InterruptKind, events: &[EventFd]) -> io::Result<()>;

    /// Disables that kind.
    fn disable(&self, kind: InterruptKind) -> io::Result<()>;

    /// Lets INTx be heard again. The kernel masks it whenever it was raised.
    fn unmask_intx(&self) -> io::Result<()>;

    /// Lets the device reach `pages` of `memory` at `at`, that way only. Both are multiples of the
    /// page size. The kernel pins the pages until they are unmapped, even if `memory` goes first.
    fn map_dma(
        &self,
        at: Iova,
        memory: &Rc<Mapped>,
        pages: Range<usize>,
        way: Direction,
    ) -> io::Result<()>;

    /// Takes down what was mapped at `at`, and invalidates before it returns.
    fn unmap_dma(&self, at: Iova, len: usize) -> io::Result<()>;

    /// Resets the function; whether it can be reset.
    fn reset(&self) -> io::Result<bool>;
}
