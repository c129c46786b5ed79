//! What a driver in the guest may ask of the world: registers by trapped accesses, memory through a
//! window onto its frames, interrupts by halting, all else by hypercalls.

use crate::{lent, page};
use cofferdam_microvm_abi::page::CLOCK;
use cofferdam_microvm_abi::{BAR_WINDOW, BARS, Service};
use cofferdam_seam::{
    Bar, Deadline, Direction, DmaRegion, DriverHost, HostError, InterruptKind, Interrupts, Iova,
    Mapping, Mmio, RawDma, Time, Vector, VectorSet, Wake, Width,
};
use core::ops::Range;
use core::ptr::NonNull;

/// The host of the guest's only driver.
pub struct GuestHost;

/// A BAR in the guest's address space: every access leaves the guest.
pub struct GuestMmio {
    base: u64,
    len: u64,
}

impl GuestMmio {
    /// A BAR that was mapped, as far as there is address space for it; the VMM knows how long it is.
    pub fn whole(bar: Bar) -> Self {
        Self {
            base: BARS + bar.index() as u64 * BAR_WINDOW,
            len: BAR_WINDOW,
        }
    }

    fn inside(&self, offset: u32, width: Width) -> bool {
        let bytes = u64::from(width.bytes());
        u64::from(offset) + bytes <= self.len && u64::from(offset) % bytes == 0
    }
}

impl Mmio for GuestMmio {
    fn read(&self, offset: u32, width: Width) -> u64 {
        if !self.inside(offset, width) {
            return width.all_ones();
        }
        let at = self.base + u64::from(offset);
        // SAFETY: inside the BAR's window, aligned; the VMM answers.
        unsafe {
            match width {
                Width::One => (at as *const u8).read_volatile().into(),
                Width::Two => (at as *const u16).read_volatile().into(),
                Width::Four => (at as *const u32).read_volatile().into(),
                Width::Eight => (at as *const u64).read_volatile(),
            }
        }
    }

    fn write(&self, offset: u32, width: Width, value: u64) {
        if !self.inside(offset, width) {
            return;
        }
        let at = self.base + u64::from(offset);
        // SAFETY: as in `read`.
        unsafe {
            match width {
                Width::One => (at as *mut u8).write_volatile(value as u8),
                Width::Two => (at as *mut u16).write_volatile(value as u16),
                Width::Four => (at as *mut u32).write_volatile(value as u32),
                Width::Eight => (at as *mut u64).write_volatile(value),
            }
        }
    }

    fn len(&self) -> u64 {
        self.len
    }
}

/// DMA memory: frames of the machine that this guest was given.
pub struct GuestDma {
    name: u64,
    at: NonNull<u8>,
    len: usize,
}

impl DmaRegion for GuestDma {
    fn len(&self) -> usize {
        self.len
    }

    fn read_at(&self, at: usize, into: &mut [u8]) {
        let within = self.len.saturating_sub(at).min(into.len());
        for (i, byte) in into[..within].iter_mut().enumerate() {
            // SAFETY: within the region; volatile, because the device may write at any time.
            *byte = unsafe { self.at.add(at + i).read_volatile() };
        }
        into[within..].fill(0);
    }

    fn write_at(&self, at: usize, from: &[u8]) {
        let within = self.len.saturating_sub(at).min(from.len());
        for (i, byte) in from[..within].iter().enumerate() {
            // SAFETY: as in `read_at`.
            unsafe { self.at.add(at + i).write_volatile(*byte) };
        }
    }
}

impl Drop for GuestDma {
    fn drop(&mut self) {
        // A name the VMM does not know is its own affair.
        let _ = page::ask::<0>(Service::FreeDma, &[self.name]);
    }
}

impl DriverHost for GuestHost {
    type Mmio = GuestMmio;
    type Dma = GuestDma;

    fn map_bar(&mut self, bar: Bar) -> Result<GuestMmio, HostError> {
        let index = bar.index() as u64;
        let [len] = page::ask(Service::MapBar, &[index])?;
        Ok(GuestMmio {
            base: BARS + index * BAR_WINDOW,
            len: len.min(BAR_WINDOW),
        })
    }

    fn config_read(&mut self, offset: u16, width: Width) -> Result<u32, HostError> {
        let [value] = page::ask(Service::ConfigRead, &[offset.into(), width.bytes().into()])?;
        Ok(value as u32)
    }

    fn config_write(&mut self, offset: u16, width: Width, value: u32) -> Result<(), HostError> {
        let arguments = [offset.into(), width.bytes().into(), value.into()];
        page::ask(Service::ConfigWrite, &arguments).map(|[]| ())
    }

    fn set_bus_master(&mut self, on: bool) -> Result<(), HostError> {
        page::ask(Service::BusMaster, &[on.into()]).map(|[]| ())
    }

    fn enable_interrupts(&mut self, wanted: u16) -> Result<Interrupts, HostError> {
        let [kind, count] = page::ask(Service::EnableInterrupts, &[wanted.into()])?;
        let kind = match kind {
            0 => InterruptKind::Msix,
            1 => InterruptKind::Msi,
            _ => InterruptKind::Intx,
        };
        Ok(Interrupts {
            kind,
            count: count as u16,
        })
    }

    fn alloc_dma(&mut self, len: usize) -> Result<GuestDma, HostError> {
        let [name, at] = page::ask(Service::AllocDma, &[len as u64])?;
        let at = NonNull::new(at as *mut u8).ok_or(HostError::Refused)?;
        Ok(GuestDma { name, at, len })
    }

    fn map(
        &mut self,
        region: &GuestDma,
        bytes: Range<usize>,
        way: Direction,
    ) -> Result<Mapping, HostError> {
        let way = lent::code(way);
        let arguments = [region.name, bytes.start as u64, bytes.end as u64, way];
        let [iova, id] = page::ask(Service::Map, &arguments)?;
        Ok(Mapping {
            iova: Iova(iova),
            len: bytes.len(),
            id,
        })
    }

    fn unmap(&mut self, mapping: Mapping) {
        // The seam's unmap has no error.
        let _ = page::ask::<0>(Service::Unmap, &[mapping.id]);
    }

    fn wait_any(&mut self, vectors: &[Vector], until: Deadline) -> Result<Wake, HostError> {
        let mut wanted = VectorSet::EMPTY;
        for vector in vectors {
            wanted.insert(VectorSet::of(*vector));
        }
        let [raised] = page::ask(Service::Wait, &[wanted.0, until.0.nanos()])?;
        let raised = VectorSet(raised);
        Ok(if raised.is_empty() {
            Wake::TimedOut
        } else {
            Wake::Interrupt(raised)
        })
    }

    fn relax(&mut self) -> Result<(), HostError> {
        page::ask(Service::Relax, &[]).map(|[]| ())
    }

    fn now(&self) -> Time {
        let told = page::word(CLOCK);
        if told != 0 {
            return Time(told);
        }
        // Without an answer no deadline is in the future.
        page::ask(Service::Now, &[]).map_or(Time::NEVER, |[now]| Time(now))
    }
}

impl RawDma for GuestHost {
    fn pointer(&self, region: &GuestDma) -> NonNull<u8> {
        region.at
    }
}
