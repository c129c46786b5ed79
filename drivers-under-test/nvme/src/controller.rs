//! The controller: reset, enabling, what it is, its queues, shutdown.

use crate::queue::{Line, QueuePair, present, status};
use crate::spec::{
    self, AdminQueues, CLASS, Capabilities, Cns, Command, Configuration, ControllerData,
    NVM_COMMAND_SET, NamespaceData, PAGE, PCI_CLASS, SHUTDOWN_COMPLETE, SHUTDOWN_NORMAL,
};
use cofferdam_seam::service::DriverError;
use cofferdam_seam::{
    Bar, Deadline, Direction, DmaRegion, DriverHost, InterruptKind, Interrupts, Mmio, Vector, Width,
};
use core::time::Duration;

/// The namespace we drive.
pub const NAMESPACE: u32 = 1;

/// How long all commands of the set-up may take together.
const SETUP_LIMIT: Duration = Duration::from_secs(1);
/// How long a shutdown may take.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(1);
/// The unit of `CAP.TO` [2].
const TIMEOUT_UNIT: Duration = Duration::from_millis(500);

/// Entries of each queue, if the controller has as many.
const ENTRIES: u16 = 16;
/// The numbers of our queue pairs.
const ADMIN: u16 = 0;
const IO: u16 = 1;
/// One vector for each pair.
const VECTORS: u16 = 2;

/// A controller, its two queue pairs, and the host they came from.
pub struct Controller<H: DriverHost> {
    pub regs: H::Mmio,
    admin: QueuePair<H::Dma>,
    pub io: QueuePair<H::Dma>,
    /// Where Identify puts its data.
    page: H::Dma,
    ready_limit: Duration,
    /// Dropped after the memory that came from it.
    pub host: H,
}

/// What the set-up found out.
#[derive(Clone, Copy, Debug)]
pub struct Disk {
    /// Sectors of 512 bytes.
    pub sectors: u64,
    /// Bytes one command may move.
    pub transfer_limit: usize,
}

impl<H: DriverHost> Controller<H> {
    /// The controller at rest: disabled, without the bus, its queues in memory but not yet known to
    /// it.
    pub fn new(mut host: H) -> Result<Self, DriverError> {
        if host.config_read(PCI_CLASS, Width::Four)? >> 8 != CLASS {
            return Err(DriverError::Unsupported(
                "the class code is not NVM Express",
            ));
        }
        // Whatever an earlier driver started ends as a refused DMA.
        host.set_bus_master(false)?;
        let regs = host.map_bar(Bar::ZERO)?;
        let cap = capabilities(&regs)?;
        // A limit of 0 would be none; the least that can be said is one unit.
        let ready_limit = TIMEOUT_UNIT * u32::from(cap.timeout().max(1));
        disable(&mut host, &regs, ready_limit)?;

        let interrupts = host.enable_interrupts(VECTORS)?;
        let stride = cap.stride();
        let entries = ENTRIES.min(cap.mqes().saturating_add(1));
        let admin = QueuePair::new(&mut host, ADMIN, ENTRIES, stride, line(interrupts, ADMIN))?;
        let io = QueuePair::new(&mut host, IO, entries, stride, line(interrupts, IO))?;
        Ok(Self {
            regs,
            admin,
            io,
            page: host.alloc_dma(PAGE)?,
            ready_limit,
            host,
        })
    }

    /// Gives the controller the bus, enables it, learns what it is, and creates the I/O queues
    /// [10].
    pub fn start(&mut self) -> Result<Disk, DriverError> {
        self.enable()?;
        let until = Deadline::after(self.host.now(), SETUP_LIMIT);
        let transfer_limit = self.identify_controller(until)?;
        let sectors = self.identify_namespace(until)?;
        self.create_io_queues(until)?;
        Ok(Disk {
            sectors,
            transfer_limit,
        })
    }

    fn enable(&mut self) -> Result<(), DriverError> {
        self.host.set_bus_master(true)?;
        let less_one = self.admin.entries() - 1;
        let queues = AdminQueues::new()
            .with_submission(less_one)
            .with_completion(less_one);
        self.regs.write32(spec::AQA, queues.into_bits());
        self.regs.write64(spec::ASQ, self.admin.commands_at().0);
        self.regs.write64(spec::ACQ, self.admin.completions_at().0);
        self.regs.write32(spec::CC, enabled().into_bits());

        let until = Deadline::after(self.host.now(), self.ready_limit);
        while !status(&self.regs)?.ready() {
            pause(&mut self.host, until, "CSTS.RDY to be set")?;
        }
        Ok(())
    }

    /// Bytes one command may move; `usize::MAX` for no limit.
    fn identify_controller(&mut self, until: Deadline) -> Result<usize, DriverError> {
        let data = ControllerData::parse(&self.identify(Cns::Controller, 0, until)?);
        let takes = |sizes: u8, ours| (sizes & 0x0f..=sizes >> 4).contains(&ours);
        if !takes(data.sqes, spec::COMMAND_SHIFT) || !takes(data.cqes, spec::COMPLETION_SHIFT) {
            return Err(DriverError::Unsupported(
                "SQES or CQES leaves out the sizes every controller takes",
            ));
        }
        if data.namespaces < NAMESPACE {
            return Err(DriverError::Unsupported("the controller has no namespace"));
        }
        Ok(match data.mdts {
            0 => usize::MAX,
            mdts => 1_usize
                .checked_shl(mdts.into())
                .and_then(|pages| pages.checked_mul(PAGE))
                .unwrap_or(usize::MAX),
        })
    }

    /// Sectors of our namespace.
    fn identify_namespace(&mut self, until: Deadline) -> Result<u64, DriverError> {
        let data = NamespaceData::parse(&self.identify(Cns::Namespace, NAMESPACE, until)?);
        if data.size == 0 {
            return Err(DriverError::Unsupported("namespace 1 has no blocks"));
        }
        match data.format {
            Some((0, 9)) => Ok(data.size),
            Some((0, _)) => Err(DriverError::Unsupported("blocks do not have 512 bytes")),
            Some(_) => Err(DriverError::Unsupported("blocks carry metadata")),
            None => Err(DriverError::Protocol("FLBAS names a format beyond NLBAF")),
        }
    }

    /// The device may reach the page while the command runs; after an error until the page goes.
    fn identify(
        &mut self,
        what: Cns,
        nsid: u32,
        until: Deadline,
    ) -> Result<[u8; PAGE], DriverError> {
        let mut data = [0; PAGE];
        // What the controller leaves out reads as zero, not as the data of an earlier command.
        self.page.write_at(0, &data);
        let mapping = self.host.map(&self.page, 0..PAGE, Direction::FromDevice)?;
        self.administer(Command::identify(what, nsid, mapping.iova), until)?;
        self.host.unmap(mapping);
        self.page.read_at(0, &mut data);
        Ok(data)
    }

    fn create_io_queues(&mut self, until: Deadline) -> Result<(), DriverError> {
        // Whatever number it grants, it is less one: a pair there is.
        self.administer(Command::want_one_queue_pair(), until)?;
        let (entries, vector) = (self.io.entries(), self.io.vector().0);
        let at = self.io.completions_at();
        let completions = Command::create_completion_queue(IO, entries, at, vector);
        self.administer(completions, until)?;
        let commands = Command::create_submission_queue(IO, entries, self.io.commands_at());
        self.administer(commands, until)
    }

    /// Runs one admin command.
    fn administer(&mut self, command: Command, until: Deadline) -> Result<(), DriverError> {
        let Self {
            admin, host, regs, ..
        } = self;
        let tag = admin
            .vacant()
            .ok_or(DriverError::Protocol("an admin command is still in flight"))?;
        admin.submit(regs, tag, command)?;
        let completion = admin.wait(host, regs, tag, until, "an admin command")?;
        if completion.status().is_success() {
            Ok(())
        } else {
            Err(DriverError::Protocol(
                "an admin command of the set-up failed",
            ))
        }
    }

    /// Takes the controller out of service, with a shutdown if it is in working order. From then on
    /// it reaches no memory.
    pub fn stop(&mut self, orderly: bool) {
        if orderly {
            // What is not shut down in time is reset all the same.
            let _ = self.shut_down();
        }
        self.regs
            .write32(spec::CC, enabled().with_enable(false).into_bits());
        // Nobody waits for the reset: without the bus it does not matter when it is done, and the
        // next probe does. A host that cannot do this has stopped, and its device with it.
        let _ = self.host.set_bus_master(false);
    }

    /// Tells the controller that its power may go [10].
    fn shut_down(&mut self) -> Result<(), DriverError> {
        let shutdown = enabled().with_shutdown(SHUTDOWN_NORMAL);
        self.regs.write32(spec::CC, shutdown.into_bits());
        let until = Deadline::after(self.host.now(), SHUTDOWN_LIMIT);
        while status(&self.regs)?.shutdown() != SHUTDOWN_COMPLETE {
            pause(&mut self.host, until, "the shutdown")?;
        }
        Ok(())
    }
}

/// The capabilities of a controller that we can drive.
fn capabilities(regs: &impl Mmio) -> Result<Capabilities, DriverError> {
    present(regs)?;
    let cap = Capabilities::from_bits(regs.read(spec::CAP, Width::Eight));
    if cap.mqes() == 0 {
        return Err(DriverError::Protocol(
            "CAP.MQES is 0: a queue has at least two entries",
        ));
    }
    if cap.mpsmin() > 0 {
        return Err(DriverError::Unsupported(
            "CAP.MPSMIN is above 0: memory pages of 4 KiB are too small",
        ));
    }
    if cap.command_sets() & NVM_COMMAND_SET == 0 {
        return Err(DriverError::Unsupported("no NVM command set in CAP.CSS"));
    }
    if u64::from(spec::cq_head_doorbell(IO, cap.stride())) + 4 > regs.len() {
        return Err(DriverError::Unsupported(
            "CAP.DSTRD puts doorbells beyond BAR 0",
        ));
    }
    Ok(cap)
}

/// Controller reset: EN to 0, until RDY says that it came to rest.
fn disable<H: DriverHost>(
    host: &mut H,
    regs: &H::Mmio,
    limit: Duration,
) -> Result<(), DriverError> {
    let cc = Configuration::from_bits(regs.read32(spec::CC));
    if cc.enable() {
        // EN must not fall before RDY has risen [2]. If it never does, this is the only way left.
        let until = Deadline::after(host.now(), limit);
        let waits = |status: spec::ControllerStatus| !status.ready() && !status.fatal();
        while waits(present(regs)?) && !until.passed(host.now()) {
            host.relax()?;
        }
        regs.write32(spec::CC, cc.with_enable(false).into_bits());
    }
    // CFS may still tell of the life before.
    let until = Deadline::after(host.now(), limit);
    while present(regs)?.ready() {
        pause(host, until, "CSTS.RDY to be cleared")?;
    }
    Ok(())
}

/// One turn of a poll loop: an error if the deadline has passed.
fn pause<H: DriverHost>(
    host: &mut H,
    until: Deadline,
    what: &'static str,
) -> Result<(), DriverError> {
    if until.passed(host.now()) {
        return Err(DriverError::TimedOut(what));
    }
    Ok(host.relax()?)
}

/// The configuration of a controller at work: NVM command set, pages of 4 KiB, round robin.
fn enabled() -> Configuration {
    Configuration::new()
        .with_enable(true)
        .with_iosqes(spec::COMMAND_SHIFT)
        .with_iocqes(spec::COMPLETION_SHIFT)
}

/// The line of that queue pair; they share one if the host gave no more.
fn line(given: Interrupts, queue: u16) -> Line {
    Line {
        vector: Vector(queue.min(given.count.saturating_sub(1))),
        maskable: given.kind != InterruptKind::Msix,
    }
}
