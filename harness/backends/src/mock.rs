//! A machine in this process, driven by a virtual clock.
//!
//! Everything the driver does costs a fixed time (the constants here, in the order of magnitude of
//! real hardware), and the device runs only inside the driver's calls. So a run is the same every
//! time, and a timeout of 50 ms costs no time at all.
//!
//! Left out: a second CPU, and the time the driver's own instructions take: a driver that spins
//! without calling its host hangs here, as it does on a machine of its own.

use crate::pool::{DmaPool, Lease};
use cofferdam_machine::{Ending, Machine, MachineError, PhysAddr, Read, Write};
use cofferdam_seam::{
    Bar, Deadline, Direction, DmaRegion, DriverHost, HostError, Interrupts, Mapping, Mmio, RawDma,
    RequesterId, Time, Vector, VectorSet, Wake, Width,
};
use std::cell::{RefCell, RefMut};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::ptr::NonNull;
use std::rc::Rc;
use std::time::Duration;

/// A register read: it waits for its completion.
pub const READ: Duration = Duration::from_nanos(800);
/// A register write: posted.
pub const WRITE: Duration = Duration::from_nanos(100);
/// A configuration access.
pub const CONFIG: Duration = Duration::from_micros(1);
/// One turn of a poll loop.
pub const RELAX: Duration = Duration::from_micros(1);
/// Making or taking back a mapping, and setting up interrupts.
pub const MAP: Duration = Duration::from_nanos(500);

/// The command register, and the bits of it a host sets (PCI 3.0, 6.2.2).
const COMMAND: u16 = 0x04;
const MEMORY_SPACE: u32 = 1 << 1;
const BUS_MASTER: u32 = 1 << 2;

/// A machine with one CPU, on which every driver runs that gets a host from it.
///
/// Clones are the same machine. When a read never completes or a machine check strikes, that CPU
/// is gone: from then on every host answers [`HostError::Stopped`].
#[derive(Clone)]
pub struct MockMachine {
    shared: Rc<RefCell<Shared>>,
    pool: DmaPool,
}

struct Shared {
    machine: Machine,
    horizon: Time,
    /// The last instant at which the CPU runs: the horizon, or power-on once it stopped.
    limit: Time,
    /// Live mappings, by name: whose, and of which region.
    mappings: BTreeMap<u64, (RequesterId, u64)>,
    /// Regions are never given the same number twice.
    regions: u64,
}

impl MockMachine {
    /// A machine that runs as long as its drivers do.
    pub fn new(machine: Machine) -> Self {
        Self::with_horizon(machine, Time::NEVER)
    }

    /// A machine that stops at `horizon`: what ends a driver that polls for ever.
    pub fn with_horizon(machine: Machine, horizon: Time) -> Self {
        let shared = Shared {
            machine,
            horizon,
            limit: horizon,
            mappings: BTreeMap::new(),
            regions: 0,
        };
        Self {
            shared: Rc::new(RefCell::new(shared)),
            pool: DmaPool::of_driver(),
        }
    }

    /// What a driver of `device` asks the world through. A driver that is started again gets
    /// another.
    pub fn host(&self, device: RequesterId) -> MockHost {
        MockHost {
            machine: self.clone(),
            device,
        }
    }

    /// The machine itself, for whoever plays the privileged layer. Give it back before a driver
    /// runs.
    pub fn machine(&self) -> RefMut<'_, Machine> {
        RefMut::map(self.shared.borrow_mut(), |shared| &mut shared.machine)
    }

    /// Device time.
    pub fn now(&self) -> Time {
        self.shared.borrow().machine.now()
    }

    /// Whether the CPU is gone or the horizon was reached.
    pub fn stopped(&self) -> bool {
        self.shared.borrow().stopped()
    }

    /// The machine for a configuration access, when the fabric can take it.
    fn configuring(&self, device: RequesterId) -> Result<RefMut<'_, Shared>, HostError> {
        let mut shared = self.running(CONFIG)?;
        while let Some(until) = shared.machine.config_waits(device) {
            if !shared.wait_for(until) {
                return Err(HostError::Stopped);
            }
        }
        Ok(shared)
    }

    fn running(&self, cost: Duration) -> Result<RefMut<'_, Shared>, HostError> {
        let mut shared = self.shared.borrow_mut();
        if shared.spend(cost) {
            Ok(shared)
        } else {
            Err(HostError::Stopped)
        }
    }
}

impl fmt::Debug for MockMachine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MockMachine").finish_non_exhaustive()
    }
}

impl Shared {
    /// Lets the CPU work for that long. Whether it still runs after it.
    #[inline]
    fn spend(&mut self, cost: Duration) -> bool {
        self.pass(self.machine.now() + cost)
    }

    /// Lets time pass. Whether the CPU still runs then.
    #[inline]
    fn pass(&mut self, to: Time) -> bool {
        if to > self.limit {
            return self.stop(to);
        }
        self.machine.advance(to);
        true
    }

    /// Ends the CPU's life at `at`, or at the horizon.
    #[cold]
    fn stop(&mut self, at: Time) -> bool {
        let at = at.min(self.horizon);
        if !self.stopped() && at != Time::NEVER {
            self.machine.advance(at);
        }
        self.limit = Time::ZERO;
        false
    }

    /// A host's first call already takes time, so nothing is in order at power-on.
    fn stopped(&self) -> bool {
        self.limit == Time::ZERO
    }

    /// Lets the CPU stand still until then, for ever if none. Whether it still runs then.
    #[cold]
    fn wait_for(&mut self, until: Option<Time>) -> bool {
        match until {
            Some(until) => self.pass(until),
            None => self.stop(Time::NEVER),
        }
    }

    /// A read that was not answered at once: its value, or none if it is to be made again.
    #[cold]
    fn hang(&mut self, until: Option<Time>, then: Ending) -> Option<u64> {
        if then == Ending::MachineCheck {
            self.stop(until.unwrap_or(Time::NEVER));
        } else if self.wait_for(until) {
            match then {
                Ending::Value(value) => return Some(value),
                Ending::Again => return None,
                Ending::AllOnes | Ending::MachineCheck => {}
            }
        }
        Some(u64::MAX)
    }

    fn set_command(&mut self, device: RequesterId, bit: u32, on: bool) {
        let machine = &mut self.machine;
        let command = machine.config_read(device, COMMAND, Width::Two);
        let command = if on { command | bit } else { command & !bit };
        machine.config_write(device, COMMAND, Width::Two, command);
    }
}

/// One driver's host.
#[derive(Debug)]
pub struct MockHost {
    machine: MockMachine,
    device: RequesterId,
}

impl DriverHost for MockHost {
    type Mmio = MockMmio;
    type Dma = MockDma;

    fn map_bar(&mut self, bar: Bar) -> Result<MockMmio, HostError> {
        let mut shared = self.machine.running(CONFIG)?;
        let size = shared.machine.bar_size(self.device, bar);
        let size = size.ok_or(HostError::NoSuchBar(bar.index()))?;
        shared.set_command(self.device, MEMORY_SPACE, true);
        Ok(MockMmio {
            shared: Rc::clone(&self.machine.shared),
            device: self.device,
            bar,
            size,
        })
    }

    fn config_read(&mut self, offset: u16, width: Width) -> Result<u32, HostError> {
        let mut shared = self.machine.configuring(self.device)?;
        Ok(shared.machine.config_read(self.device, offset, width))
    }

    fn config_write(&mut self, offset: u16, width: Width, value: u32) -> Result<(), HostError> {
        let mut shared = self.machine.configuring(self.device)?;
        shared
            .machine
            .config_write(self.device, offset, width, value);
        Ok(())
    }

    fn set_bus_master(&mut self, on: bool) -> Result<(), HostError> {
        let mut shared = self.machine.configuring(self.device)?;
        shared.set_command(self.device, BUS_MASTER, on);
        Ok(())
    }

    fn enable_interrupts(&mut self, wanted: u16) -> Result<Interrupts, HostError> {
        let mut shared = self.machine.running(MAP)?;
        shared
            .machine
            .enable_interrupts(self.device, wanted)
            .map_err(|_| HostError::NoVectors(wanted))
    }

    fn alloc_dma(&mut self, len: usize) -> Result<MockDma, HostError> {
        let mut shared = self.machine.running(MAP)?;
        let lease = self.machine.pool.lease(len);
        let lease = lease.ok_or(HostError::OutOfMemory(len))?;
        let zeroes = vec![0; len];
        shared
            .machine
            .memory()
            .write(lease.at(), &zeroes)
            .map_err(|_| HostError::OutOfMemory(len))?;
        shared.regions += 1;
        Ok(MockDma {
            shared: Rc::clone(&self.machine.shared),
            number: shared.regions,
            lease,
            len,
        })
    }

    fn map(
        &mut self,
        region: &MockDma,
        bytes: Range<usize>,
        way: Direction,
    ) -> Result<Mapping, HostError> {
        HostError::unless_within(&bytes, region.len)?;
        if !Rc::ptr_eq(&region.shared, &self.machine.shared) {
            return Err(HostError::Refused);
        }
        let mut shared = self.machine.running(MAP)?;
        let at = region.address(bytes.start);
        let machine = &mut shared.machine;
        // A region has pages of its own: all of it is coherent memory.
        let mapping = if bytes == (0..region.len) {
            machine.map_coherent(self.device, at, bytes.len(), way)
        } else {
            machine.map(self.device, at, bytes.len(), way)
        };
        let mapping = mapping.map_err(refused)?;
        let owner = (self.device, region.number);
        shared.mappings.insert(mapping.id, owner);
        Ok(mapping)
    }

    fn unmap(&mut self, mapping: Mapping) {
        let Ok(mut shared) = self.machine.running(MAP) else {
            return;
        };
        // A mapping of another host, or one that went with its region, is left alone.
        if let Some(&(device, _)) = shared.mappings.get(&mapping.id)
            && device == self.device
        {
            shared.mappings.remove(&mapping.id);
            let _ = shared.machine.unmap(device, mapping.id);
        }
    }

    fn wait_any(&mut self, vectors: &[Vector], until: Deadline) -> Result<Wake, HostError> {
        let mut wanted = VectorSet::EMPTY;
        for &vector in vectors {
            wanted.insert(VectorSet::of(vector));
        }
        let mut shared = self.machine.running(RELAX)?;
        loop {
            let raised = shared.machine.take_interrupts(self.device, wanted);
            if !raised.is_empty() {
                return Ok(Wake::Interrupt(raised));
            }
            if until.passed(shared.machine.now()) {
                return Ok(Wake::TimedOut);
            }
            let next = shared.machine.next_event().unwrap_or(Time::NEVER);
            let next = next.min(until.0);
            // Without a deadline and without anything to come, this is the end.
            if next == Time::NEVER && shared.horizon == Time::NEVER {
                shared.stop(Time::NEVER);
            }
            if !shared.pass(next) {
                return Err(HostError::Stopped);
            }
        }
    }

    fn relax(&mut self) -> Result<(), HostError> {
        self.machine.running(RELAX).map(drop)
    }

    fn now(&self) -> Time {
        self.machine.now()
    }
}

impl RawDma for MockHost {
    fn pointer(&self, region: &MockDma) -> NonNull<u8> {
        let shared = region.shared.borrow();
        shared.machine.memory().pointer(region.lease.at())
    }
}

/// A mapped BAR of a mock machine's device.
pub struct MockMmio {
    shared: Rc<RefCell<Shared>>,
    device: RequesterId,
    bar: Bar,
    size: u64,
}

impl Mmio for MockMmio {
    #[inline]
    fn read(&self, offset: u32, width: Width) -> u64 {
        let mut shared = self.shared.borrow_mut();
        if !shared.spend(READ) {
            return width.all_ones();
        }
        loop {
            let machine = &mut shared.machine;
            match machine.mmio_read(self.device, self.bar, offset, width) {
                Read::Done(value) => return value,
                Read::Waiting { until, then } => {
                    if let Some(value) = shared.hang(until, then) {
                        return value & width.all_ones();
                    }
                }
            }
        }
    }

    #[inline]
    fn write(&self, offset: u32, width: Width, value: u64) {
        let mut shared = self.shared.borrow_mut();
        let mut runs = shared.spend(WRITE);
        while runs {
            let machine = &mut shared.machine;
            match machine.mmio_write(self.device, self.bar, offset, width, value) {
                Write::Done => return,
                Write::Waiting { until } => runs = shared.wait_for(until),
            }
        }
    }

    fn len(&self) -> u64 {
        self.size
    }
}

impl fmt::Debug for MockMmio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MockMmio")
            .field("device", &self.device)
            .field("bar", &self.bar)
            .finish_non_exhaustive()
    }
}

/// DMA memory of a mock machine.
pub struct MockDma {
    shared: Rc<RefCell<Shared>>,
    number: u64,
    lease: Lease,
    len: usize,
}

impl MockDma {
    fn address(&self, offset: usize) -> PhysAddr {
        PhysAddr(self.lease.at().0 + offset as u64)
    }

    /// How many of `len` bytes from `at` on are in the region.
    fn within(&self, at: usize, len: usize) -> usize {
        self.len.saturating_sub(at).min(len)
    }
}

impl DmaRegion for MockDma {
    fn len(&self) -> usize {
        self.len
    }

    fn read_at(&self, at: usize, into: &mut [u8]) {
        let (inside, beyond) = into.split_at_mut(self.within(at, into.len()));
        beyond.fill(0);
        if !inside.is_empty() {
            let shared = self.shared.borrow();
            let memory = shared.machine.memory();
            let read = memory.read(self.address(at), inside);
            debug_assert_eq!(read, Ok(()), "leased frames are memory");
        }
    }

    fn write_at(&self, at: usize, from: &[u8]) {
        let inside = &from[..self.within(at, from.len())];
        if !inside.is_empty() {
            let shared = self.shared.borrow();
            let memory = shared.machine.memory();
            let written = memory.write(self.address(at), inside);
            debug_assert_eq!(written, Ok(()), "leased frames are memory");
        }
    }
}

impl Drop for MockDma {
    fn drop(&mut self) {
        let mut shared = self.shared.borrow_mut();
        if shared.stopped() {
            // Nobody is left to take the mappings back.
            return;
        }
        let Shared {
            machine, mappings, ..
        } = &mut *shared;
        mappings.retain(|&id, &mut (device, region)| {
            let mine = region == self.number;
            if mine {
                let _ = machine.unmap(device, id);
            }
            !mine
        });
    }
}

impl fmt::Debug for MockDma {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MockDma")
            .field("at", &self.lease.at())
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

/// To a driver, every reason of the layer that owns the IOMMU is the same.
fn refused(_: MachineError) -> HostError {
    HostError::Refused
}

#[cfg(test)]
mod tests;
