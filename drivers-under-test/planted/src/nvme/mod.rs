//! Drivers of an NVMe disk: what they share, which is without a known defect.

use self::queue::{Command, Completion, ENTRIES, Queue};
use self::spec::PAGE;
use cofferdam_seam::service::{DriverError, SECTOR};
use cofferdam_seam::{
    Bar, Deadline, Direction, DmaRegion, DriverHost, Iova, Mapping, Mmio, Vector, Wake, Width,
};
use core::time::Duration;

pub(crate) mod completion_id;
mod disk;
pub(crate) mod double_completion;
pub(crate) mod failed_probe;
pub(crate) mod lba_size;
mod queue;
pub(crate) mod queue_count;
pub(crate) mod reset_ignored;
mod spec;
pub(crate) mod transfer_limit;

/// Vectors of the admin queue and of the I/O queue, if there are two.
const VECTORS: u16 = 2;
/// How long the controller may take to become ready, or to come to rest.
const READY_LIMIT: Duration = Duration::from_millis(5);
/// How long an admin command may take.
const ADMIN_LIMIT: Duration = Duration::from_millis(5);
/// Our namespace.
const NAMESPACE: u32 = 1;

/// The controller, its two queue pairs, and the host they came from.
pub(crate) struct Nvme<H: DriverHost> {
    regs: H::Mmio,
    admin: Queue<H::Dma>,
    io: Queue<H::Dma>,
    /// Where Identify puts its data.
    page: H::Dma,
    /// Where it does so at the moment.
    page_at: Option<Mapping>,
    next_cid: u16,
    io_vector: Vector,
    host: H,
}

impl<H: DriverHost> Nvme<H> {
    /// The controller at rest: disabled and without the bus.
    fn open(mut host: H) -> Result<Self, DriverError> {
        if host.config_read(spec::PCI_CLASS, Width::Four)? >> 8 != spec::CLASS {
            return Err(DriverError::Unsupported("not an NVMe controller"));
        }
        host.set_bus_master(false)?;
        let regs = host.map_bar(Bar::ZERO)?;
        if regs.len() < u64::from(spec::DOORBELLS) + 16 {
            return Err(DriverError::Unsupported("BAR 0 is too small"));
        }
        disable(&mut host, &regs)?;
        let given = host.enable_interrupts(VECTORS)?;
        let admin = Queue::new(&mut host, 0)?;
        let io = Queue::new(&mut host, 1)?;
        let page = host.alloc_dma(PAGE)?;
        Ok(Self {
            regs,
            admin,
            io,
            page,
            page_at: None,
            next_cid: 0,
            io_vector: Vector(u16::from(given.count > 1)),
            host,
        })
    }

    /// Gives the controller the bus and enables it.
    fn enable(&mut self) -> Result<(), DriverError> {
        let last = u32::from(ENTRIES - 1);
        self.regs.write32(spec::AQA, last << 16 | last);
        let [commands, completions] = self.admin.areas();
        self.regs.write64(spec::ASQ, commands.0);
        self.regs.write64(spec::ACQ, completions.0);
        self.host.set_bus_master(true)?;
        self.regs.write32(spec::CC, spec::ENABLED);
        let until = Deadline::after(self.host.now(), READY_LIMIT);
        while self.regs.read32(spec::CSTS) & spec::READY == 0 {
            if until.passed(self.host.now()) {
                return Err(DriverError::TimedOut("CSTS.RDY to be set"));
            }
            self.host.relax()?;
        }
        Ok(())
    }

    /// Creates the I/O queue pair.
    fn create_queues(&mut self) -> Result<(), DriverError> {
        let [commands, completions] = self.io.areas();
        let size = u32::from(ENTRIES - 1) << 16 | 1;
        let vector = u32::from(self.io_vector.0) << 16 | 0b11;
        for (opcode, at, dword11) in [
            (spec::CREATE_COMPLETION_QUEUE, completions, vector),
            (spec::CREATE_SUBMISSION_QUEUE, commands, 1 << 16 | 0b1),
        ] {
            self.administer(Command {
                opcode,
                data: Some(at),
                dwords: [size, dword11, 0],
                ..Command::default()
            })?;
        }
        Ok(())
    }

    /// What the controller or our namespace is.
    fn identify(&mut self, what: u32) -> Result<[u8; PAGE], DriverError> {
        let mut data = [0; PAGE];
        self.page.write_at(0, &data);
        let mapping = self.host.map(&self.page, 0..PAGE, Direction::FromDevice)?;
        let at = mapping.iova;
        // After an error the controller may still write there.
        self.page_at = Some(mapping);
        self.administer(Command {
            opcode: spec::IDENTIFY,
            namespace: if what == spec::NAMESPACE {
                NAMESPACE
            } else {
                0
            },
            data: Some(at),
            dwords: [what, 0, 0],
        })?;
        if let Some(mapping) = self.page_at.take() {
            self.host.unmap(mapping);
        }
        self.page.read_at(0, &mut data);
        Ok(data)
    }

    /// Runs one admin command and returns its result.
    fn administer(&mut self, command: Command) -> Result<u32, DriverError> {
        let until = Deadline::after(self.host.now(), ADMIN_LIMIT);
        let cid = self.next_cid;
        self.next_cid = (cid + 1) % 1024;
        self.admin.submit(&self.regs, cid, command);
        loop {
            if let Some(completion) = self.admin.take(&self.regs) {
                if completion.cid != cid {
                    return Err(DriverError::Protocol("a completion of no command of ours"));
                }
                return match completion.status {
                    0 => Ok(completion.result),
                    _ => Err(DriverError::Protocol("an admin command failed")),
                };
            }
            if until.passed(self.host.now()) {
                return Err(DriverError::TimedOut("an admin command"));
            }
            self.host.relax()?;
        }
    }

    /// Sends a command that moves whole sectors to or from one page at `at`.
    fn send(&mut self, cid: u16, opcode: u8, sector: u64, at: Iova, len: usize) {
        let [a, b, c, d, e, f, g, h] = sector.to_le_bytes();
        let blocks = u32::try_from(len / SECTOR).unwrap_or(1);
        let command = Command {
            opcode,
            namespace: NAMESPACE,
            data: Some(at),
            dwords: [
                u32::from_le_bytes([a, b, c, d]),
                u32::from_le_bytes([e, f, g, h]),
                blocks.saturating_sub(1),
            ],
        };
        self.io.submit(&self.regs, cid, command);
    }

    /// Waits for the next completion of the I/O queue.
    fn completion(&mut self, until: Deadline) -> Result<Completion, DriverError> {
        loop {
            if let Some(completion) = self.io.take(&self.regs) {
                return Ok(completion);
            }
            if until.passed(self.host.now()) {
                return Err(DriverError::TimedOut("an I/O command"));
            }
            if self.host.wait_any(&[self.io_vector], until)? == Wake::TimedOut {
                let late = self.io.take(&self.regs);
                return late.ok_or(DriverError::TimedOut("an I/O command"));
            }
        }
    }

    /// Takes the bus away, then disables the controller.
    fn stop(&mut self) {
        // A host that cannot do this has stopped, and its device with it.
        let _ = self.host.set_bus_master(false);
        self.regs.write32(spec::CC, 0);
    }
}

/// Disables the controller and waits until it has come to rest.
fn disable<H: DriverHost>(host: &mut H, regs: &H::Mmio) -> Result<(), DriverError> {
    regs.write32(spec::CC, 0);
    let until = Deadline::after(host.now(), READY_LIMIT);
    while regs.read32(spec::CSTS) & spec::READY != 0 {
        if until.passed(host.now()) {
            return Err(DriverError::TimedOut("CSTS.RDY to be cleared"));
        }
        host.relax()?;
    }
    Ok(())
}
