//! What a driver asks the world through while it is fuzzed.
//!
//! [`FuzzHost`] is a [`DriverHost`] and, for drivers that want pointers, a [`RawDma`]. It has no state:
//! every handle means the world of the execution that runs on this thread, so it can be used from the
//! static functions of a third-party HAL too.
//!
//! Nothing here is inlined into adapters: those are instrumented, and what the host does is no step of
//! a driver.

mod firmware;

pub use firmware::FuzzAddresses;

use crate::coroutine;
use crate::memory::PAGE;
use crate::oracle::Oracle;
use crate::world::{State, World, with};
use cofferdam_seam::{
    Access, Bar, Capability, Deadline, Direction, DmaRegion, DriverHost, HostError, InterruptKind,
    Interrupts, Iova, Mapping, Mmio, MsixLocation, RawDma, Time, Vector, VectorSet, Wake, Width,
};
use std::ops::Range;
use std::ptr::NonNull;
use vdevice_pci::{PciFunction, spec};

/// Heap buffers start at multiples of this.
const ALIGN: usize = 16;

/// The host of the running execution.
#[derive(Clone, Copy, Debug, Default)]
pub struct FuzzHost {
    _private: (),
}

/// A mapped BAR of the device.
#[derive(Clone, Copy, Debug)]
pub struct FuzzMmio {
    bar: Bar,
    size: u64,
}

/// DMA memory.
#[derive(Debug)]
pub struct FuzzDma {
    number: usize,
    start: usize,
    len: usize,
}

/// Memory of the driver's own that was shared with the device: a copy, until it is taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shared {
    /// What the device calls it.
    pub iova: Iova,
    id: u64,
}

impl FuzzHost {
    pub(crate) const fn new() -> Self {
        Self { _private: () }
    }

    /// The host of the execution that runs on this thread, for HALs that are static functions.
    /// Outside an execution each of its methods panics.
    pub const fn current() -> Self {
        Self::new()
    }

    /// Reads a register, without mapping its BAR first.
    #[inline(never)]
    pub fn read(&self, bar: Bar, offset: u32, width: Width) -> u64 {
        let (value, exhausted) = with(|world| {
            let value = world.read(bar, offset, width);
            (value, world.is_exhausted())
        });
        leave_if(exhausted);
        value
    }

    /// Writes a register, without mapping its BAR first.
    #[inline(never)]
    pub fn write(&self, bar: Bar, offset: u32, width: Width, value: u64) {
        with(|world| world.write(bar, offset, width, value));
    }

    /// Bytes in a BAR.
    #[inline(never)]
    pub fn bar_size(&self, bar: Bar) -> Option<u64> {
        with(|world| world.bar_size(bar))
    }

    /// Enables memory decoding.
    #[inline(never)]
    pub fn enable_memory(&self) {
        with(|world| set_command(world, spec::command::MEMORY, true));
    }

    /// Shares memory of the driver's own: copies it to where the device can reach it. The copy stands
    /// for `bytes`: from now on it is an error that they are freed, or that the stack frame they lie
    /// on ends, before they are [taken back](Self::unshare).
    ///
    /// # Errors
    ///
    /// There is no memory left.
    #[inline(never)]
    pub fn share(&self, bytes: &[u8], way: Direction) -> Result<Shared, HostError> {
        self.share_from(bytes.as_ptr() as usize, bytes, way)
    }

    /// The same for a driver that runs elsewhere, at whose address `at` those bytes are.
    ///
    /// # Errors
    ///
    /// As there.
    #[inline(never)]
    pub fn share_from(&self, at: usize, bytes: &[u8], way: Direction) -> Result<Shared, HostError> {
        with(|world| {
            let state = &mut world.state;
            let start = state.memory.allocate(bytes.len(), ALIGN);
            let start = start.ok_or(HostError::OutOfMemory(bytes.len()))?;
            state.memory.write(start, bytes);
            let stands_for = Some(at);
            let id = state.map(start..start + bytes.len(), way, stands_for, None);
            Ok(Shared {
                iova: state.iova(start),
                id,
            })
        })
    }

    /// Takes back what was shared at an address, and copies to `back` what the device may have
    /// written. Whether anything was shared there; if not, that is a finding.
    #[inline(never)]
    pub fn unshare(&self, iova: Iova, len: usize, back: Option<&mut [u8]>) -> bool {
        with(|world| {
            let state = &mut world.state;
            let found = state.mapping_at(iova);
            let map = found.and_then(|id| state.maps.get(usize::try_from(id).ok()?));
            let (Some(id), Some(map)) = (found, map) else {
                if state.memory.is_exhausted() {
                    return false;
                }
                state.sight(Oracle::BadUnmap, "unshare", || {
                    format!("nothing is shared at {iova}")
                });
                return false;
            };
            let (start, held) = (map.start, map.len);
            if held != len {
                state.sight(Oracle::BadUnmap, "unshare length", || {
                    format!("{held} bytes are shared at {iova}, {len} are taken back")
                });
            }
            if let Some(back) = back {
                let len = back.len().min(held);
                state.memory.read(start, &mut back[..len]);
            }
            state.unmap(id)
        })
    }

    /// Whether the device can reach memory of the driver's own that lies there.
    #[inline(never)]
    pub fn is_lent(&self, bytes: &[u8]) -> bool {
        let range = bytes.as_ptr_range();
        let range = range.start as usize..range.end as usize;
        with(|world| world.state.stands_for(&range).is_some())
    }

    /// Zeroed pages, mapped for as long as they live: their address and first byte.
    ///
    /// # Errors
    ///
    /// There is no memory left.
    #[inline(never)]
    pub fn allocate_pages(
        &self,
        pages: usize,
        way: Direction,
    ) -> Result<(Iova, NonNull<u8>), HostError> {
        with(|world| {
            let state = &mut world.state;
            let len = pages.saturating_mul(PAGE);
            let start = state.memory.allocate(len, PAGE);
            let start = start.ok_or(HostError::OutOfMemory(len))?;
            state.map(start..start + len, way, None, None);
            Ok((state.iova(start), state.memory.pointer(start)))
        })
    }

    /// Gives pages back. Whether they were held; if not, that is a finding.
    #[inline(never)]
    pub fn free_pages(&self, iova: Iova) -> bool {
        with(|world| match world.state.mapping_at(iova) {
            Some(id) => world.state.unmap_and_close(id),
            None => {
                world.state.sight(Oracle::BadUnmap, "free pages", || {
                    format!("no pages are held at {iova}")
                });
                false
            }
        })
    }
}

/// Abandons a driver that had its turns. No borrow of the world is on the stack.
fn leave_if(exhausted: bool) {
    if exhausted {
        coroutine::abandon();
    }
}

fn set_command(world: &mut World, bit: u16, on: bool) {
    // The host's own business: the program has no say in it.
    let Some((function, state)) = world.function() else {
        return;
    };
    let command = function.config_read(spec::COMMAND, Width::Two);
    let bit = u32::from(bit);
    let command = if on { command | bit } else { command & !bit };
    if !state.is_removed() {
        function.config_write(spec::COMMAND, Width::Two, command, state);
    }
}

impl DriverHost for FuzzHost {
    type Mmio = FuzzMmio;
    type Dma = FuzzDma;

    #[inline(never)]
    fn map_bar(&mut self, bar: Bar) -> Result<FuzzMmio, HostError> {
        let size = self.bar_size(bar);
        let size = size.ok_or(HostError::NoSuchBar(bar.index()))?;
        self.enable_memory();
        Ok(FuzzMmio { bar, size })
    }

    #[inline(never)]
    fn config_read(&mut self, offset: u16, width: Width) -> Result<u32, HostError> {
        let (value, exhausted) = with(|world| {
            let value = world.config_read(offset, width);
            (value, world.is_exhausted())
        });
        leave_if(exhausted);
        Ok(value)
    }

    #[inline(never)]
    fn config_write(&mut self, offset: u16, width: Width, value: u32) -> Result<(), HostError> {
        with(|world| world.config_write(offset, width, value));
        Ok(())
    }

    #[inline(never)]
    fn set_bus_master(&mut self, on: bool) -> Result<(), HostError> {
        with(|world| set_command(world, spec::command::BUS_MASTER, on));
        Ok(())
    }

    #[inline(never)]
    fn enable_interrupts(&mut self, wanted: u16) -> Result<Interrupts, HostError> {
        with(|world| {
            let (function, state) = world.function().ok_or(HostError::NoVectors(wanted))?;
            let wanted = state.vectors(wanted);
            let given = interrupts(function, state, wanted);
            let given = given.ok_or(HostError::NoVectors(wanted))?;
            state.enable_interrupts(given);
            Ok(given)
        })
    }

    #[inline(never)]
    fn alloc_dma(&mut self, len: usize) -> Result<FuzzDma, HostError> {
        with(|world| {
            let state = &mut world.state;
            let start = state.memory.allocate(len, PAGE);
            let start = start.ok_or(HostError::OutOfMemory(len))?;
            let number = state.region(len);
            Ok(FuzzDma { number, start, len })
        })
    }

    #[inline(never)]
    fn map(
        &mut self,
        region: &FuzzDma,
        bytes: Range<usize>,
        way: Direction,
    ) -> Result<Mapping, HostError> {
        HostError::unless_within(&bytes, region.len)?;
        with(|world| {
            let state = &mut world.state;
            let start = region.start + bytes.start;
            let id = state.map(
                start..region.start + bytes.end,
                way,
                None,
                Some(region.number),
            );
            Ok(Mapping {
                iova: state.iova(start),
                len: bytes.len(),
                id,
            })
        })
    }

    #[inline(never)]
    fn unmap(&mut self, mapping: Mapping) {
        with(|world| world.state.unmap(mapping.id));
    }

    #[inline(never)]
    fn wait_any(&mut self, vectors: &[Vector], until: Deadline) -> Result<Wake, HostError> {
        let mut wanted = VectorSet::EMPTY;
        for &vector in vectors {
            wanted.insert(VectorSet::of(vector));
        }
        with(|world| {
            world.state.awaits(wanted);
            world.relax();
        });
        loop {
            let (woken, exhausted) =
                with(|world| (wait(world, wanted, until), world.is_exhausted()));
            leave_if(exhausted);
            if let Some(wake) = woken {
                return Ok(wake);
            }
        }
    }

    #[inline(never)]
    fn relax(&mut self) -> Result<(), HostError> {
        let exhausted = with(|world| {
            world.relax();
            world.is_exhausted()
        });
        leave_if(exhausted);
        Ok(())
    }

    #[inline(never)]
    fn now(&self) -> Time {
        with(|world| world.state.now())
    }
}

/// Looks whether the wait ends, and else lets time pass up to the next event.
fn wait(world: &mut World, wanted: VectorSet, until: Deadline) -> Option<Wake> {
    let raised = world.state.take_interrupts(wanted);
    if !raised.is_empty() {
        return Some(Wake::Interrupt(raised));
    }
    if until.passed(world.state.now()) {
        return Some(Wake::TimedOut);
    }
    match world.next_event() {
        Some(next) if next < until.0 => world.advance(next),
        _ if until.0 == Time::NEVER => world.relax(),
        _ => world.advance(until.0),
    }
    None
}

/// Programs the function's messages, or lets it have its pin.
fn interrupts(function: &mut PciFunction, state: &mut State, wanted: u16) -> Option<Interrupts> {
    let wanted = wanted.clamp(1, 64);
    let identity = function.identity();
    let pin = identity.intx;
    let table = identity.capabilities.iter().find_map(|it| match *it {
        Capability::Msix { vectors, table, .. } => Some((vectors, table)),
        _ => None,
    });
    let messages = identity.capabilities.iter().find_map(|it| match *it {
        Capability::Msi { log2_vectors } => Some(log2_vectors),
        _ => None,
    });
    if let Some((vectors, table)) = table {
        let count = wanted.min(vectors);
        program_msix(function, state, table, count)?;
        return Some(Interrupts {
            kind: InterruptKind::Msix,
            count,
        });
    }
    if let Some(log2) = messages {
        let at = capability(function, spec::capability::MSI)?;
        let enable = spec::msi::ENABLE;
        let command: [(u16, Width, u32); 4] = [
            (spec::msi::ADDRESS, Width::Four, 0xfee0_0000),
            (spec::msi::ADDRESS_HIGH, Width::Four, 0),
            (spec::msi::DATA, Width::Two, 0),
            (spec::msi::CONTROL, Width::Two, enable.into()),
        ];
        for (register, width, value) in command {
            function.config_write(at + register, width, value, state);
        }
        // One vector is what every driver can do with.
        let _ = log2;
        return Some(Interrupts {
            kind: InterruptKind::Msi,
            count: 1,
        });
    }
    pin.then_some(Interrupts {
        kind: InterruptKind::Intx,
        count: 1,
    })
}

fn program_msix(
    function: &mut PciFunction,
    state: &mut State,
    table: MsixLocation,
    count: u16,
) -> Option<()> {
    let size = function.bar_size(table.bar)?;
    let at = capability(function, spec::capability::MSIX)?;
    let command = function.config_read(spec::COMMAND, Width::Two);
    let memory = u32::from(spec::command::MEMORY);
    function.config_write(spec::COMMAND, Width::Two, command | memory, state);
    for vector in 0..count {
        let first = table.offset + u32::from(vector) * spec::msix::ENTRY;
        let entry = [0xfee0_0000, 0, u64::from(vector), 0];
        for (at, value) in (first..).step_by(4).zip(entry) {
            if let Some(at) = Access::new(table.bar, at, Width::Four, size) {
                function.write(at, value, state);
            }
        }
    }
    let enable = spec::msix::ENABLE.into();
    function.config_write(at + spec::msix::CONTROL, Width::Two, enable, state);
    Some(())
}

/// Where the function's honest capability list has that one.
fn capability(function: &mut PciFunction, wanted: u8) -> Option<u16> {
    let mut at = function.config_read(spec::CAPABILITIES, Width::One);
    for _ in 0..48 {
        let here = u16::try_from(at)
            .ok()
            .filter(|at| *at >= spec::FIRST_CAPABILITY)?;
        let [id, next, ..] = function.config_read(here, Width::Two).to_le_bytes();
        if id == wanted {
            return Some(here);
        }
        at = next.into();
    }
    None
}

impl RawDma for FuzzHost {
    #[inline(never)]
    fn pointer(&self, region: &FuzzDma) -> NonNull<u8> {
        with(|world| world.state.memory.pointer(region.start))
    }
}

impl Mmio for FuzzMmio {
    #[inline(never)]
    fn read(&self, offset: u32, width: Width) -> u64 {
        FuzzHost::new().read(self.bar, offset, width)
    }

    #[inline(never)]
    fn write(&self, offset: u32, width: Width, value: u64) {
        FuzzHost::new().write(self.bar, offset, width, value);
    }

    fn len(&self) -> u64 {
        self.size
    }
}

impl DmaRegion for FuzzDma {
    fn len(&self) -> usize {
        self.len
    }

    #[inline(never)]
    fn read_at(&self, at: usize, into: &mut [u8]) {
        let (inside, beyond) = into.split_at_mut(self.len.saturating_sub(at).min(into.len()));
        if !beyond.is_empty() {
            beyond.fill(0);
        }
        with(|world| {
            let place = self.start.saturating_add(at);
            world.state.touched(place);
            world.state.memory.read(place, inside);
        });
    }

    #[inline(never)]
    fn write_at(&self, at: usize, from: &[u8]) {
        let inside = &from[..self.len.saturating_sub(at).min(from.len())];
        with(|world| {
            let start = self.start.saturating_add(at);
            world.state.memory.write(start, inside);
        });
    }
}

impl Drop for FuzzDma {
    /// The region's mappings go with it.
    #[inline(never)]
    fn drop(&mut self) {
        with(|world| {
            let reachable = world.is_bus_master();
            world.state.end_region(self.number, reachable);
            world
                .state
                .memory
                .close(&(self.start..self.start + self.len));
        });
    }
}
