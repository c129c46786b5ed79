//! The command with a driver more, and the device it drives: a disk with six registers, polled.
//!
//! ```text
//! cargo run --release --example my_driver -- compare --quick --driver six-registers
//! ```

use cofferdam_cli::seam::service::{Block, DriverError, SECTOR};
use cofferdam_cli::seam::{
    Access, Bar, BarSpec, Budget, BusPort, Capability, Completion, Deadline, Device, Direction,
    DmaRegion, DriverHost, Iova, Mmio, PciIdentity, Progress, Purpose, Reset, Time,
};
use cofferdam_cli::{Cofferdam, Driver, Probe, SECTORS};
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    Cofferdam::new().driver(SIX_REGISTERS).main()
}

const SIX_REGISTERS: Driver = Driver {
    id: "six-registers",
    line: "a polled driver of a disk with six registers, to be copied",
    device: "six-registers",
    origin: "an example of this project",
    model: |_| Box::new(Disk::new()),
    probe: Probe::Block(|host| Ok(Box::new(Polled::probe(host)?))),
};

/// The registers, all of four bytes.
mod register {
    /// Reads [`IS`].
    pub const IDENTITY: u32 = 0x00;
    pub const ADDRESS_LOW: u32 = 0x04;
    pub const ADDRESS_HIGH: u32 = 0x08;
    pub const SECTOR: u32 = 0x0c;
    /// Written: [`READ`] or [`WRITE`] starts a transfer of one sector.
    pub const COMMAND: u32 = 0x10;
    pub const STATUS: u32 = 0x14;

    pub const IS: u32 = 0x6b73_6964;
    pub const READ: u32 = 1;
    pub const WRITE: u32 = 2;
    pub const IDLE: u32 = 0;
    pub const BUSY: u32 = 1;
    pub const FAILED: u32 = 2;
}

const IDENTITY: PciIdentity = PciIdentity {
    vendor: 0x1234,
    device: 0x6000,
    revision: 0,
    class: [0x01, 0x80, 0x00],
    subsystem: [0; 2],
    intx: false,
    bars: &[BarSpec {
        bar: Bar::ZERO,
        size: 0x1000,
        wide: false,
        prefetchable: false,
    }],
    // The supervisor resets a device by its function-level reset.
    capabilities: &[Capability::PcieEndpoint { flr: true }],
};

/// How long a sector takes.
const TRANSFER: Duration = Duration::from_micros(10);

/// The device: correct, and it trusts nothing a driver writes.
struct Disk {
    media: Vec<u8>,
    address: u64,
    sector: u32,
    command: u32,
    status: u32,
    due: Option<Time>,
}

impl Disk {
    fn new() -> Self {
        let sectors = usize::try_from(SECTORS).unwrap_or(0);
        Self {
            media: vec![0; sectors * SECTOR],
            address: 0,
            sector: 0,
            command: 0,
            status: register::IDLE,
            due: None,
        }
    }

    /// The sector's bytes, if it and the command exist.
    fn part(&mut self) -> Option<&mut [u8]> {
        let sector = usize::try_from(self.sector).ok()?;
        self.media.chunks_exact_mut(SECTOR).nth(sector)
    }

    fn transfer(&mut self, bus: &mut BusPort<'_>) -> Option<()> {
        let (at, command) = (Iova(self.address), self.command);
        let part = self.part()?;
        match command {
            register::READ => bus.dma_write(at, part, Purpose::Payload).ok(),
            register::WRITE => {
                // A read that fails leaves all ones behind, which must not reach the media.
                let mut arriving = [0; SECTOR];
                bus.dma_read(at, &mut arriving, Purpose::Payload).ok()?;
                part.copy_from_slice(&arriving);
                Some(())
            }
            _ => None,
        }
    }
}

impl Device for Disk {
    fn describe(&self) -> &PciIdentity {
        &IDENTITY
    }

    fn read(&mut self, at: Access, _: &mut BusPort<'_>) -> Completion {
        let value = match at.offset() {
            register::IDENTITY => register::IS,
            register::STATUS => self.status,
            _ => 0,
        };
        Completion::Data(u64::from(value) & at.width().all_ones())
    }

    fn write(&mut self, at: Access, value: u64, bus: &mut BusPort<'_>) {
        // The registers are the device's while it is at work.
        if self.due.is_some() {
            return;
        }
        let value = u32::try_from(value).unwrap_or(u32::MAX);
        match at.offset() {
            register::ADDRESS_LOW => {
                self.address = self.address >> 32 << 32 | u64::from(value);
            }
            register::ADDRESS_HIGH => {
                self.address = self.address & 0xffff_ffff | u64::from(value) << 32;
            }
            register::SECTOR => self.sector = value,
            register::COMMAND => {
                let due = bus.now() + TRANSFER;
                self.command = value;
                self.status = register::BUSY;
                self.due = Some(due);
                bus.wake_at(due);
            }
            _ => {}
        }
    }

    fn step(&mut self, _: Budget, bus: &mut BusPort<'_>) -> Progress {
        if self.due.take_if(|due| *due <= bus.now()).is_some() {
            self.status = match self.transfer(bus) {
                Some(()) => register::IDLE,
                None => register::FAILED,
            };
        }
        Progress::Idle
    }

    fn reset(&mut self, _: Reset) {
        // The media outlives every reset.
        let media = std::mem::take(&mut self.media);
        *self = Self {
            media,
            ..Self::new()
        };
    }
}

/// The driver. Generic over its host, as every driver here: it runs wherever there is one.
struct Polled<H: DriverHost> {
    registers: H::Mmio,
    /// Dropped before the host it came from.
    buffer: H::Dma,
    host: H,
}

impl<H: DriverHost> Polled<H> {
    fn probe(mut host: H) -> Result<Self, DriverError> {
        let registers = host.map_bar(Bar::ZERO)?;
        if registers.read32(register::IDENTITY) != register::IS {
            return Err(DriverError::Unsupported(
                "it is not a disk of six registers",
            ));
        }
        let buffer = host.alloc_dma(SECTOR)?;
        host.set_bus_master(true)?;
        Ok(Self {
            registers,
            buffer,
            host,
        })
    }

    fn transfer(&mut self, sector: u64, command: u32, until: Deadline) -> Result<(), DriverError> {
        let sector =
            u32::try_from(sector).map_err(|_| DriverError::BadRequest("no such sector"))?;
        let way = match command {
            register::READ => Direction::FromDevice,
            _ => Direction::ToDevice,
        };
        let mapping = self.host.map(&self.buffer, 0..SECTOR, way)?;
        let at = mapping.iova.0;
        let low = u32::try_from(at & 0xffff_ffff).unwrap_or(0);
        let high = u32::try_from(at >> 32).unwrap_or(0);
        self.registers.write32(register::ADDRESS_LOW, low);
        self.registers.write32(register::ADDRESS_HIGH, high);
        self.registers.write32(register::SECTOR, sector);
        self.registers.write32(register::COMMAND, command);
        // On an error below the device may still be at it: the mapping stays until the buffer goes.
        loop {
            match self.registers.read32(register::STATUS) {
                register::BUSY if until.passed(self.host.now()) => {
                    return Err(DriverError::TimedOut("a sector"));
                }
                register::BUSY => self.host.relax()?,
                register::IDLE => break,
                register::FAILED => {
                    self.host.unmap(mapping);
                    return Err(DriverError::Io);
                }
                _ => return Err(DriverError::Protocol("the status is none")),
            }
        }
        self.host.unmap(mapping);
        Ok(())
    }
}

impl<H: DriverHost> Block for Polled<H> {
    fn capacity(&self) -> u64 {
        SECTORS
    }

    fn read(&mut self, sector: u64, into: &mut [u8], until: Deadline) -> Result<(), DriverError> {
        for (sector, part) in (sector..).zip(into.chunks_exact_mut(SECTOR)) {
            self.transfer(sector, register::READ, until)?;
            self.buffer.read_at(0, part);
        }
        Ok(())
    }

    fn write(&mut self, sector: u64, from: &[u8], until: Deadline) -> Result<(), DriverError> {
        for (sector, part) in (sector..).zip(from.chunks_exact(SECTOR)) {
            self.buffer.write_at(0, part);
            self.transfer(sector, register::WRITE, until)?;
        }
        Ok(())
    }
}
