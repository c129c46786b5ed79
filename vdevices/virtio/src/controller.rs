//! The device: registers, queue and disk joined behind the seam.

use crate::disk::Disk;
use crate::identity::{COMMON, CONFIG, IDENTITY, ISR, NOTIFY, PAGE, STRUCTURES};
use crate::queue::{Broken, Chain, Queue};
use crate::regs::{Effect, Registers, field};
use crate::spec::{INDIRECT_DESC, NO_VECTOR, isr};
use cofferdam_seam::{
    Access, Budget, BusPort, Completion, Device, PciIdentity, Progress, Reset, Time, Vector, Width,
};
use core::time::Duration;

/// What disk to build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlkConfig {
    /// Sectors of 512 bytes; more than [`MAX_SECTORS`](crate::MAX_SECTORS) are cut off.
    pub sectors: u64,
    /// How long one request takes. Requests are served one after the other.
    pub latency: Duration,
    /// Goes into the disk's identifier, so that two disks can be told apart.
    pub seed: u64,
    /// Whether indirect descriptors are offered.
    pub indirect: bool,
}

impl Default for BlkConfig {
    /// 256 KiB, 20 us a request, indirect descriptors offered.
    fn default() -> Self {
        Self {
            sectors: 512,
            latency: Duration::from_micros(20),
            seed: 0,
            indirect: true,
        }
    }
}

/// A virtio block device.
pub struct VirtioBlk {
    registers: Registers,
    queue: Queue,
    isr: u8,
    /// When the request being served is done; none while idle. Nothing of a request has happened
    /// before then: its chain is taken, its data moved and the medium changed all at once.
    due: Option<Time>,
    latency: Duration,
    disk: Disk,
    /// Reused from request to request.
    chain: Chain,
}

impl VirtioBlk {
    /// A device with a zeroed disk.
    pub fn new(config: BlkConfig) -> Self {
        Self {
            registers: Registers::new(u64::from(config.indirect) * INDIRECT_DESC),
            queue: Queue::new(),
            isr: 0,
            due: None,
            latency: config.latency,
            disk: Disk::new(config.sectors, config.seed),
            chain: Chain::default(),
        }
    }

    fn reset_registers(&mut self) {
        self.registers.reset();
        self.queue = Queue::new();
        self.isr = 0;
        self.due = None;
    }

    /// Reads and clears the interrupt status, which releases the pin (4.1.4.5.1).
    fn read_isr(&mut self, bus: &mut BusPort<'_>) -> u8 {
        bus.set_intx(false);
        core::mem::take(&mut self.isr)
    }

    /// The block configuration: the capacity, then fields of features that are not offered (5.2.4).
    fn read_config(&self, offset: u32, width: Width) -> u64 {
        match offset {
            0..8 => (self.disk.sectors() >> (8 * offset)) & width.all_ones(),
            _ => 0,
        }
    }

    fn write_common(&mut self, offset: u32, width: Width, value: u32, bus: &mut BusPort<'_>) {
        let Some(field) = field(offset, width) else {
            return;
        };
        match self.registers.write(field, value, &mut self.queue) {
            Effect::None => {}
            Effect::Reset => {
                self.reset_registers();
                bus.set_intx(false);
            }
            Effect::QueueEnabled => {
                let checked = self.queue.check();
                self.stop_if_broken(checked, bus);
            }
        }
    }

    /// The driver says that the queue has news. Before it is ready, nothing happens (3.1.1).
    fn notified(&mut self, bus: &mut BusPort<'_>) {
        if self.registers.running() && self.queue.enabled && self.due.is_none() {
            let available = self.queue.has_available(bus);
            self.continue_or_stop(available, bus);
        }
    }

    /// Starts the clock of the next request if there is one.
    fn continue_or_stop(&mut self, available: Result<bool, Broken>, bus: &mut BusPort<'_>) {
        self.due = match available {
            Ok(true) => Some(bus.now() + self.latency),
            Ok(false) => None,
            broken => {
                self.stop_if_broken(broken.map(|_| ()), bus);
                None
            }
        };
        if let Some(due) = self.due {
            bus.wake_at(due);
        }
    }

    /// Serves one request from taking its chain to the interrupt, and tells whether another waits.
    fn serve(&mut self, bus: &mut BusPort<'_>) -> Result<bool, Broken> {
        let indirect = self.registers.negotiated(INDIRECT_DESC);
        let Some(head) = self.queue.take(indirect, &mut self.chain, bus)? else {
            return Ok(false);
        };
        let written = self.disk.serve(&self.chain, bus)?;
        self.queue.give_back(head, written, bus)?;
        if self.queue.wants_interrupt(bus)? {
            self.interrupt(self.registers.queue_vector, isr::QUEUE, bus);
        }
        self.queue.has_available(bus)
    }

    /// Asks for a reset, with a configuration-change notification if the driver is up (2.1.2).
    fn stop_if_broken(&mut self, outcome: Result<(), Broken>, bus: &mut BusPort<'_>) {
        if outcome.is_err() {
            self.registers.status.set_needs_reset(true);
            if self.registers.status.driver_ok() {
                self.interrupt(self.registers.config_vector, isr::CONFIG, bus);
            }
        }
    }

    /// Announces something by message and by pin; the PCI layer lets one of them through.
    fn interrupt(&mut self, vector: u16, reason: u8, bus: &mut BusPort<'_>) {
        self.isr |= reason;
        bus.set_intx(true);
        if vector != NO_VECTOR {
            bus.raise(Vector(vector));
        }
    }
}

impl Device for VirtioBlk {
    fn describe(&self) -> &PciIdentity {
        &IDENTITY
    }

    fn read(&mut self, at: Access, bus: &mut BusPort<'_>) -> Completion {
        if at.bar() != STRUCTURES {
            return Completion::Data(0);
        }
        let offset = at.offset() % PAGE;
        Completion::Data(match at.offset() - offset {
            COMMON => {
                let read = |at, width| {
                    field(at, width).map_or(0, |field| self.registers.read(field, &self.queue))
                };
                match at.width() {
                    Width::Eight => {
                        let low = u64::from(read(offset, Width::Four));
                        low | u64::from(read(offset + 4, Width::Four)) << 32
                    }
                    width => read(offset, width).into(),
                }
            }
            ISR if offset == 0 => self.read_isr(bus).into(),
            CONFIG => self.read_config(offset, at.width()),
            _ => 0,
        })
    }

    fn write(&mut self, at: Access, value: u64, bus: &mut BusPort<'_>) {
        if at.bar() != STRUCTURES {
            return;
        }
        let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
        let low = u32::from_le_bytes([a, b, c, d]);
        let offset = at.offset() % PAGE;
        match at.offset() - offset {
            COMMON if at.width() == Width::Eight => {
                self.write_common(offset, Width::Four, low, bus);
                let high = u32::from_le_bytes([e, f, g, h]);
                self.write_common(offset + 4, Width::Four, high, bus);
            }
            COMMON => self.write_common(offset, at.width(), low, bus),
            // The queue's index, at the queue's address (4.1.5.2).
            NOTIFY if offset == 0 && value == 0 => self.notified(bus),
            _ => {}
        }
    }

    /// A unit of work is a request.
    fn step(&mut self, budget: Budget, bus: &mut BusPort<'_>) -> Progress {
        for _ in 0..budget.0 {
            match self.due {
                Some(due) if due <= bus.now() && self.registers.running() => {
                    let available = self.serve(bus);
                    self.continue_or_stop(available, bus);
                }
                _ => break,
            }
        }
        match self.due {
            Some(_) if !self.registers.running() => {
                self.due = None;
                Progress::Idle
            }
            Some(due) if due <= bus.now() => Progress::More,
            Some(due) => {
                bus.wake_at(due);
                Progress::Idle
            }
            None => Progress::Idle,
        }
    }

    fn reset(&mut self, _kind: Reset) {
        self.reset_registers();
    }
}
