//! What a driver inside a domain may ask of the world: the seam over the port page.
//!
//! Registers, configuration space, mappings and interrupts are calls to the hardware; DMA memory
//! is the domain's own frames.

use crate::call::Call;
use crate::link::Link;
use crate::loan::Loan;
use crate::port;
use crate::trial::Packing;
use cofferdam_backends::pool::{DmaPool, Lease};
use cofferdam_seam::{
    Bar, Deadline, Direction, DmaRegion, DriverHost, HostError, InterruptKind, Interrupts, Iova,
    Mapping, Mmio, RawDma, Time, Vector, VectorSet, Wake, Width,
};
use std::cell::RefCell;
use std::ops::Range;
use std::ptr::NonNull;
use std::rc::Rc;

/// The driver's DMA memory and what is mapped of it.
struct Dma {
    link: Rc<Link>,
    pool: DmaPool,
    /// Live mappings: the hardware's name, and the physical address.
    live: RefCell<Vec<(u64, u64)>>,
}

/// A driver's host inside a domain.
pub struct PortHost {
    link: Rc<Link>,
    dma: Rc<Dma>,
    loan: Rc<Loan>,
    /// What lent buffers have to be apart.
    alignment: usize,
}

/// A host on which a driver may choose the addresses its device uses, as VFIO lets it.
pub trait ChoosesAddresses: DriverHost {
    /// Lets the device reach `bytes` of `region` at `iova`.
    fn map_at(
        &mut self,
        region: &Self::Dma,
        bytes: Range<usize>,
        way: Direction,
        iova: Iova,
    ) -> Result<Mapping, HostError>;
}

impl ChoosesAddresses for PortHost {
    fn map_at(
        &mut self,
        region: &PortDma,
        bytes: Range<usize>,
        way: Direction,
        iova: Iova,
    ) -> Result<Mapping, HostError> {
        let (phys, len) = region.part(&bytes)?;
        self.enter(
            Call::MapAt {
                iova: iova.0,
                phys,
                len: len as u64,
                way,
            },
            phys,
            len,
        )
    }
}

impl PortHost {
    /// A host with DMA memory of its own. A driver that is probed again gets a new one: whatever its
    /// predecessor leaked is free again, unless the pool keeps off it. What is on `loan` backs the
    /// buffer of the request it is lent for.
    pub fn new(link: Rc<Link>, pool: DmaPool, loan: Rc<Loan>, packing: Packing) -> Self {
        let dma = Dma {
            link: Rc::clone(&link),
            pool,
            live: RefCell::default(),
        };
        Self {
            link,
            dma: Rc::new(dma),
            loan,
            alignment: match packing {
                Packing::Packed => 1,
                Packing::OneAPage => port::PAGE,
            },
        }
    }

    /// Makes a call that maps, and remembers what it mapped.
    fn enter(&mut self, call: Call, phys: u64, len: usize) -> Result<Mapping, HostError> {
        let answer = self.link.call(call);
        if !answer.ok {
            return Err(HostError::Refused);
        }
        let [iova, id] = answer.values;
        self.dma.live.borrow_mut().push((id, phys));
        Ok(Mapping {
            iova: Iova(iova),
            len,
            id,
        })
    }
}

/// A BAR behind the port page.
pub struct PortMmio {
    link: Rc<Link>,
    bar: Bar,
    len: u64,
}

impl Mmio for PortMmio {
    fn read(&self, offset: u32, width: Width) -> u64 {
        let bar = bar_code(self.bar);
        let answer = self.link.call(Call::MmioRead { bar, offset, width });
        if answer.ok {
            answer.values[0] & width.all_ones()
        } else {
            width.all_ones()
        }
    }

    fn write(&self, offset: u32, width: Width, value: u64) {
        let bar = bar_code(self.bar);
        self.link.call(Call::MmioWrite {
            bar,
            offset,
            width,
            value: value & width.all_ones(),
        });
    }

    fn len(&self) -> u64 {
        self.len
    }
}

fn bar_code(bar: Bar) -> u8 {
    u8::try_from(bar.index()).unwrap_or(u8::MAX)
}

/// DMA memory in the domain's own frames.
pub struct PortDma {
    dma: Rc<Dma>,
    /// The frames; free again after the mappings are gone.
    lease: Lease,
    len: usize,
}

impl PortDma {
    fn byte(&self, at: usize) -> NonNull<u8> {
        self.dma
            .link
            .window()
            .pointer(self.lease.at().0 + at as u64)
    }

    /// The physical address and the length of a part.
    fn part(&self, bytes: &Range<usize>) -> Result<(u64, usize), HostError> {
        let &Range { start, end } = bytes;
        if start >= end || end > self.len {
            let len = self.len;
            return Err(HostError::OutOfRegion { start, end, len });
        }
        Ok((self.lease.at().0 + start as u64, end - start))
    }

    fn span(&self, at: usize, len: usize) -> usize {
        self.len.saturating_sub(at).min(len)
    }
}

impl DmaRegion for PortDma {
    fn len(&self) -> usize {
        self.len
    }

    fn read_at(&self, at: usize, into: &mut [u8]) {
        let within = self.span(at, into.len());
        for (i, byte) in into[..within].iter_mut().enumerate() {
            // SAFETY: within the region, whose frames this domain maps; volatile because the
            // device may write at any time.
            *byte = unsafe { self.byte(at + i).read_volatile() };
        }
        into[within..].fill(0);
    }

    fn write_at(&self, at: usize, from: &[u8]) {
        for (i, byte) in from[..self.span(at, from.len())].iter().enumerate() {
            // SAFETY: as in `read_at`.
            unsafe { self.byte(at + i).write_volatile(*byte) };
        }
    }
}

impl Drop for PortDma {
    fn drop(&mut self) {
        let start = self.lease.at().0;
        let mine = start..start + self.lease.capacity();
        self.dma.live.borrow_mut().retain(|(id, phys)| {
            let inside = mine.contains(phys);
            if inside {
                self.dma.link.call(Call::Unmap { id: *id });
            }
            !inside
        });
    }
}

impl DriverHost for PortHost {
    type Mmio = PortMmio;
    type Dma = PortDma;

    fn map_bar(&mut self, bar: Bar) -> Result<PortMmio, HostError> {
        let answer = self.link.call(Call::BarSize { bar: bar_code(bar) });
        if !answer.ok {
            return Err(HostError::NoSuchBar(bar.index()));
        }
        Ok(PortMmio {
            link: Rc::clone(&self.link),
            bar,
            len: answer.values[0],
        })
    }

    fn config_read(&mut self, offset: u16, width: Width) -> Result<u32, HostError> {
        let answer = self.link.call(Call::ConfigRead { offset, width });
        if !answer.ok {
            return Err(HostError::Refused);
        }
        u32::try_from(answer.values[0]).map_err(|_| HostError::Refused)
    }

    fn config_write(&mut self, offset: u16, width: Width, value: u32) -> Result<(), HostError> {
        match self
            .link
            .call(Call::ConfigWrite {
                offset,
                width,
                value,
            })
            .ok
        {
            true => Ok(()),
            false => Err(HostError::Refused),
        }
    }

    fn set_bus_master(&mut self, on: bool) -> Result<(), HostError> {
        const COMMAND: u16 = 0x04;
        const BUS_MASTER: u32 = 1 << 2;
        let command = self.config_read(COMMAND, Width::Two)?;
        let command = if on {
            command | BUS_MASTER
        } else {
            command & !BUS_MASTER
        };
        self.config_write(COMMAND, Width::Two, command)
    }

    fn enable_interrupts(&mut self, wanted: u16) -> Result<Interrupts, HostError> {
        let answer = self.link.call(Call::EnableInterrupts { wanted });
        let kind = match (answer.ok, answer.values[0]) {
            (true, 0) => InterruptKind::Msix,
            (true, 1) => InterruptKind::Msi,
            (true, 2) => InterruptKind::Intx,
            _ => return Err(HostError::NoVectors(wanted)),
        };
        let count = u16::try_from(answer.values[1]).map_err(|_| HostError::NoVectors(wanted))?;
        Ok(Interrupts { kind, count })
    }

    fn alloc_dma(&mut self, len: usize) -> Result<PortDma, HostError> {
        let lease = self
            .dma
            .pool
            .lease(len)
            .ok_or(HostError::OutOfMemory(len))?;
        let whole = usize::try_from(lease.capacity()).map_err(|_| HostError::OutOfMemory(len))?;
        let region = PortDma {
            dma: Rc::clone(&self.dma),
            lease,
            len,
        };
        for at in 0..whole {
            // SAFETY: the pool hands out whole frames of this domain, and nobody uses them yet.
            unsafe { region.byte(at).write_volatile(0) };
        }
        Ok(region)
    }

    fn map(
        &mut self,
        region: &PortDma,
        bytes: Range<usize>,
        way: Direction,
    ) -> Result<Mapping, HostError> {
        let (phys, len) = region.part(&bytes)?;
        let lent = self.loan.back(len, way);
        let call = Call::Map {
            phys: lent.unwrap_or(phys),
            len: len as u64,
            way,
            // A region has pages of its own: all of it is coherent memory.
            coherent: lent.is_none() && bytes == (0..region.len),
        };
        // It goes with the region, whatever backs it.
        self.enter(call, phys, len)
    }

    fn dma_alignment(&self) -> usize {
        self.alignment
    }

    fn unmap(&mut self, mapping: Mapping) {
        self.dma
            .live
            .borrow_mut()
            .retain(|(id, _)| *id != mapping.id);
        self.link.call(Call::Unmap { id: mapping.id });
    }

    fn wait_any(&mut self, vectors: &[Vector], until: Deadline) -> Result<Wake, HostError> {
        let mut wanted = VectorSet::EMPTY;
        for vector in vectors {
            wanted.insert(VectorSet::of(*vector));
        }
        let (raised, _) = self.link.wait(wanted, 0, until);
        Ok(if raised.is_empty() {
            Wake::TimedOut
        } else {
            Wake::Interrupt(raised)
        })
    }

    fn relax(&mut self) -> Result<(), HostError> {
        self.link.call(Call::Relax);
        Ok(())
    }

    fn now(&self) -> Time {
        self.link.now()
    }
}

impl RawDma for PortHost {
    fn pointer(&self, region: &PortDma) -> NonNull<u8> {
        region.byte(0)
    }
}
