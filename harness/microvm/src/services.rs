//! What a guest's driver may ask of the world, answered by any host.

use cofferdam_microvm_abi::Service;
use cofferdam_seam::{
    Bar, Deadline, Direction, DriverHost, HostError, InterruptKind, Mapping, Mmio, RawDma, Time,
    Vector, VectorSet, Wake, Width,
};
use std::collections::BTreeMap;
use std::ptr::NonNull;

/// Mappings a guest may have at a time; drivers here need some dozens.
const MAPPINGS: usize = 4096;

/// Where a guest finds a byte of its windows.
pub type Locate<'a> = &'a dyn Fn(NonNull<u8>) -> Option<u64>;

/// The world around a guest.
pub trait World {
    /// A register read.
    fn read(&mut self, bar: u8, offset: u32, width: Width) -> u64;
    /// A register write.
    fn write(&mut self, bar: u8, offset: u32, width: Width, value: u64);
    /// A hypercall; its arguments may be anything.
    fn serve(
        &mut self,
        service: Service,
        arguments: &[u64; 8],
        locate: Locate<'_>,
    ) -> Result<[u64; 2], HostError>;
    /// A wait; nothing raised if the deadline passed.
    fn wait(&mut self, vectors: VectorSet, until: Deadline) -> Result<VectorSet, HostError>;

    /// The device's time, for worlds in which it passes only while the guest is outside.
    fn clock(&self) -> Option<Time> {
        None
    }

    /// Whether the guest gets an interrupt where a wait ends with one, besides the wait's result.
    fn interrupts(&self) -> bool {
        true
    }

    /// The guest left; `stack` tells the innermost return addresses of its driver, up to that many,
    /// innermost first. Called before anything else is asked.
    fn left(&mut self, stack: &dyn Fn(usize) -> Vec<u64>) {
        let _ = stack;
    }

    /// The driver lends memory of its own, at a guest address: those bytes. What the device calls it.
    ///
    /// # Errors
    ///
    /// This world lends nothing.
    fn share(&mut self, at: u64, bytes: &[u8], way: u64) -> Result<u64, HostError> {
        let _ = (at, bytes, way);
        Err(HostError::Refused)
    }

    /// The driver takes it back, `len` bytes, and has `back` filled, if it is given. Whether it was lent.
    ///
    /// # Errors
    ///
    /// This world lends nothing.
    fn unshare(
        &mut self,
        iova: u64,
        len: usize,
        back: Option<&mut [u8]>,
    ) -> Result<bool, HostError> {
        let _ = (iova, len, back);
        Err(HostError::Refused)
    }

    /// The guest's time is up. What becomes of it; it gets the same time once more unless it ends.
    fn silent(&mut self) -> Silence {
        Silence::Ends
    }
}

/// What becomes of a guest whose time is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// It dies.
    Ends,
    /// It goes on.
    GoesOn,
    /// It goes on, and faults as soon as it touches the machine's memory, until its next reset.
    GoesOnBlind,
}

/// A host as a guest's world. It owns what the guest was given, so all goes back with it.
pub struct HostWorld<H: DriverHost> {
    bars: [Option<H::Mmio>; 6],
    mappings: BTreeMap<u64, Mapping>,
    regions: BTreeMap<u64, H::Dma>,
    names: u64,
    host: H,
}

impl<H: RawDma> HostWorld<H> {
    /// A world over that host.
    pub fn new(host: H) -> Self {
        Self {
            bars: [const { None }; 6],
            mappings: BTreeMap::new(),
            regions: BTreeMap::new(),
            names: 0,
            host,
        }
    }

    /// The host itself.
    pub fn host(&self) -> &H {
        &self.host
    }

    /// Answers a hypercall of a guest that was given all memory.
    ///
    /// # Errors
    ///
    /// The host refuses it.
    pub fn answer(
        &mut self,
        service: Service,
        arguments: &[u64; 8],
    ) -> Result<[u64; 2], HostError> {
        self.serve(service, arguments, &|at| Some(at.addr().get() as u64))
    }

    fn bar(&self, bar: u8) -> Option<&H::Mmio> {
        self.bars.get(usize::from(bar))?.as_ref()
    }

    fn map_bar(&mut self, index: u64) -> Result<u64, HostError> {
        let none = HostError::NoSuchBar(usize::try_from(index).unwrap_or(usize::MAX));
        let index = u8::try_from(index).map_err(|_| none)?;
        let bar = Bar::new(index).ok_or(none)?;
        let mmio = self.host.map_bar(bar)?;
        let len = mmio.len();
        self.bars[bar.index()] = Some(mmio);
        Ok(len)
    }

    fn allocate(&mut self, len: u64, locate: Locate<'_>) -> Result<[u64; 2], HostError> {
        let len = usize::try_from(len).map_err(|_| HostError::OutOfMemory(usize::MAX))?;
        let region = self.host.alloc_dma(len)?;
        // Memory that the guest was not given is not the host's to hand out.
        let at = locate(self.host.pointer(&region)).ok_or(HostError::Refused)?;
        self.names += 1;
        self.regions.insert(self.names, region);
        Ok([self.names, at])
    }

    fn map(&mut self, name: u64, start: u64, end: u64, way: u64) -> Result<[u64; 2], HostError> {
        let region = self.regions.get(&name).ok_or(HostError::Refused)?;
        let way = match way {
            1 => Direction::ToDevice,
            2 => Direction::FromDevice,
            3 => Direction::Both,
            _ => return Err(HostError::Refused),
        };
        if self.mappings.len() >= MAPPINGS {
            return Err(HostError::Refused);
        }
        let of = |at: u64| usize::try_from(at).map_err(|_| HostError::Refused);
        let mapping = self.host.map(region, of(start)?..of(end)?, way)?;
        let (iova, id) = (mapping.iova.0, mapping.id);
        self.mappings.insert(id, mapping);
        Ok([iova, id])
    }
}

/// A world without anything: for a guest that has nothing to ask yet.
pub struct Nowhere;

impl World for Nowhere {
    fn read(&mut self, _: u8, _: u32, _: Width) -> u64 {
        u64::MAX
    }

    fn write(&mut self, _: u8, _: u32, _: Width, _: u64) {}

    fn serve(&mut self, _: Service, _: &[u64; 8], _: Locate<'_>) -> Result<[u64; 2], HostError> {
        Err(HostError::Refused)
    }

    fn wait(&mut self, _: VectorSet, _: Deadline) -> Result<VectorSet, HostError> {
        Err(HostError::Refused)
    }
}

fn narrow<T: TryFrom<u64>>(value: u64) -> Result<T, HostError> {
    T::try_from(value).map_err(|_| HostError::Refused)
}

/// A configuration access as the seam allows it.
fn config_access(offset: u64, bytes: u64) -> Result<(u16, Width), HostError> {
    let width = Width::from_bytes(bytes).filter(|_| bytes <= 4 && offset.is_multiple_of(bytes));
    Ok((narrow(offset)?, width.ok_or(HostError::Refused)?))
}

impl<H: RawDma> World for HostWorld<H> {
    fn read(&mut self, bar: u8, offset: u32, width: Width) -> u64 {
        self.bar(bar)
            .map_or(u64::MAX, |bar| bar.read(offset, width))
    }

    fn write(&mut self, bar: u8, offset: u32, width: Width, value: u64) {
        if let Some(bar) = self.bar(bar) {
            bar.write(offset, width, value);
        }
    }

    fn serve(
        &mut self,
        service: Service,
        arguments: &[u64; 8],
        locate: Locate<'_>,
    ) -> Result<[u64; 2], HostError> {
        let [first, second, third, fourth, ..] = *arguments;
        match service {
            Service::MapBar => Ok([self.map_bar(first)?, 0]),
            Service::ConfigRead => {
                let (offset, width) = config_access(first, second)?;
                Ok([self.host.config_read(offset, width)?.into(), 0])
            }
            Service::ConfigWrite => {
                let (offset, width) = config_access(first, second)?;
                self.host.config_write(offset, width, narrow(third)?)?;
                Ok([0; 2])
            }
            Service::BusMaster => {
                self.host.set_bus_master(first != 0)?;
                Ok([0; 2])
            }
            Service::EnableInterrupts => {
                let given = self.host.enable_interrupts(narrow(first)?)?;
                let kind = match given.kind {
                    InterruptKind::Msix => 0,
                    InterruptKind::Msi => 1,
                    InterruptKind::Intx => 2,
                };
                Ok([kind, given.count.into()])
            }
            Service::AllocDma => self.allocate(first, locate),
            Service::FreeDma => {
                // The region takes its mappings with it; the host knows which.
                self.regions.remove(&first);
                Ok([0; 2])
            }
            Service::Map => self.map(first, second, third, fourth),
            Service::Unmap => {
                if let Some(mapping) = self.mappings.remove(&first) {
                    self.host.unmap(mapping);
                }
                Ok([0; 2])
            }
            Service::Relax => {
                self.host.relax()?;
                Ok([0; 2])
            }
            Service::Now => Ok([self.host.now().nanos(), 0]),
            // The guest's own affair, which does not come here.
            Service::Next
            | Service::Wait
            | Service::Panic
            | Service::Fault
            | Service::GiveUp
            | Service::Share
            | Service::Unshare => Err(HostError::Refused),
            // For worlds whose drivers are fuzzed.
            Service::AllocPages
            | Service::FreePages
            | Service::Registers
            | Service::Freed
            | Service::IsLent
            | Service::Turn => Err(HostError::Refused),
            // A tenant's.
            Service::Ring
            | Service::Await
            | Service::Publish
            | Service::Complain
            | Service::Finished
            | Service::NextTrial
            | Service::SiblingRead
            | Service::SiblingWrite
            | Service::GiveBack => Err(HostError::Refused),
        }
    }

    fn wait(&mut self, vectors: VectorSet, until: Deadline) -> Result<VectorSet, HostError> {
        let vectors: Vec<Vector> = vectors.iter().collect();
        Ok(match self.host.wait_any(&vectors, until)? {
            Wake::Interrupt(raised) => raised,
            Wake::TimedOut => VectorSet::EMPTY,
        })
    }
}
