//! The device: registers, queues and a kind joined behind the seam.

use crate::chain::Chain;
use crate::identity::{COMMON, CONFIG, ISR, NOTIFY, PAGE, STRUCTURES};
use crate::kind::Kind;
use crate::queue::{Broken, Queue};
use crate::regs::{Effect, Registers, field};
use crate::spec::{INDIRECT_DESC, NO_VECTOR, isr};
use cofferdam_seam::{
    Access, Budget, BusPort, Completion, Device, PciIdentity, Progress, Reset, Time, Vector, Width,
};

/// A virtio device of one kind.
pub struct Virtio<K> {
    registers: Registers,
    queues: Vec<Queue>,
    isr: u8,
    kind: K,
    /// Reused from chain to chain.
    chain: Chain,
}

impl<K: Kind> Virtio<K> {
    /// A device that offers what its kind does and those `features` of the transport.
    pub(crate) fn of(kind: K, features: u64) -> Self {
        Self {
            registers: Registers::new(features | kind.features(), K::QUEUES + 1),
            queues: (0..K::QUEUES).map(|_| Queue::new()).collect(),
            isr: 0,
            kind,
            chain: Chain::default(),
        }
    }

    fn reset_registers(&mut self) {
        self.registers.reset();
        self.queues.fill_with(Queue::new);
        self.isr = 0;
        self.kind.reset();
    }

    /// Reads and clears the interrupt status, which releases the pin (4.1.4.5.1).
    fn read_isr(&mut self, bus: &mut BusPort<'_>) -> u8 {
        bus.set_intx(false);
        core::mem::take(&mut self.isr)
    }

    fn read_common(&self, offset: u32, width: Width) -> u32 {
        field(offset, width).map_or(0, |field| self.registers.read(field, &self.queues))
    }

    /// The device configuration, which has no rule about widths for the device (2.5).
    fn read_config(&self, offset: u32, width: Width) -> u64 {
        let bytes = (offset..offset + width.bytes()).rev();
        bytes.fold(0, |value, at| value << 8 | u64::from(self.kind.config(at)))
    }

    fn write_common(&mut self, offset: u32, width: Width, value: u32, bus: &mut BusPort<'_>) {
        let Some(field) = field(offset, width) else {
            return;
        };
        match self.registers.write(field, value, &mut self.queues) {
            Effect::None => {}
            Effect::Reset => {
                self.reset_registers();
                bus.set_intx(false);
            }
            Effect::DriverOk => self.watch(bus),
            Effect::QueueEnabled(queue) => {
                let checked = self.queues[usize::from(queue)].check();
                self.stop_if_broken(checked, bus);
            }
        }
    }

    /// Looks into the queues that need no doorbell.
    fn watch(&mut self, bus: &mut BusPort<'_>) {
        for queue in 0..K::QUEUES {
            if self.kind.watches(queue) {
                self.consider(queue, bus);
            }
        }
    }

    /// Starts the clock of a queue's next chain, if there is one and the kind has a use for it.
    /// Before the driver is ready, nothing happens (3.1.1).
    fn consider(&mut self, queue: u16, bus: &mut BusPort<'_>) {
        let running = self.registers.running();
        let Some(at) = self.queues.get_mut(usize::from(queue)) else {
            return;
        };
        if !running || !at.enabled || at.due.is_some() {
            return;
        }
        let Some(time) = self.kind.takes(queue) else {
            return;
        };
        match at.has_available(bus) {
            Ok(true) => {
                let due = bus.now() + time;
                at.due = Some(due);
                bus.wake_at(due);
            }
            Ok(false) => {}
            Err(broken) => self.stop_if_broken(Err(broken), bus),
        }
    }

    /// Serves one chain of a queue from taking it to the interrupt, if there is one.
    fn serve(&mut self, queue: u16, bus: &mut BusPort<'_>) -> Result<(), Broken> {
        let indirect = self.registers.negotiated(INDIRECT_DESC);
        let index = usize::from(queue);
        let Some(head) = self.queues[index].take(indirect, &mut self.chain, bus)? else {
            return Ok(());
        };
        let served = self.kind.serve(queue, &self.chain, bus)?;
        if let Some(other) = served.after.filter(|other| *other != queue) {
            self.drain(other, bus)?;
        }
        let at = &mut self.queues[index];
        at.give_back(head, served.written, bus)?;
        if at.wants_interrupt(bus)? {
            let vector = at.vector;
            self.interrupt(vector, isr::QUEUE, bus);
        }
        Ok(())
    }

    /// Serves all chains of a queue: at most as many as fit into it.
    fn drain(&mut self, queue: u16, bus: &mut BusPort<'_>) -> Result<(), Broken> {
        let index = usize::from(queue);
        if !self.queues.get(index).is_some_and(|queue| queue.enabled) {
            return Ok(());
        }
        self.queues[index].due = None;
        for _ in 0..self.queues[index].size {
            if !self.queues[index].has_available(bus)? {
                break;
            }
            self.serve(queue, bus)?;
        }
        Ok(())
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

    /// The queue whose chain is done first, and when.
    fn earliest(&self) -> Option<(u16, Time)> {
        let due = (0..).zip(&self.queues);
        due.filter_map(|(index, queue)| Some((index, queue.due?)))
            .min_by_key(|(_, due)| *due)
    }
}

impl<K: Kind> Device for Virtio<K> {
    fn describe(&self) -> &PciIdentity {
        K::IDENTITY
    }

    fn read(&mut self, at: Access, bus: &mut BusPort<'_>) -> Completion {
        if at.bar() != STRUCTURES {
            return Completion::Data(0);
        }
        let offset = at.offset() % PAGE;
        Completion::Data(match at.offset() - offset {
            COMMON => match at.width() {
                Width::Eight => {
                    let low = u64::from(self.read_common(offset, Width::Four));
                    low | u64::from(self.read_common(offset + 4, Width::Four)) << 32
                }
                width => self.read_common(offset, width).into(),
            },
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
            CONFIG => self.kind.configure(offset, at.width(), value),
            // The queue's index, at the queue's address (4.1.5.2).
            NOTIFY if value == u64::from(offset / 4) && offset.is_multiple_of(4) => {
                if let Ok(queue) = u16::try_from(value) {
                    self.consider(queue, bus);
                }
            }
            _ => {}
        }
    }

    /// A unit of work is a chain.
    fn step(&mut self, budget: Budget, bus: &mut BusPort<'_>) -> Progress {
        for _ in 0..budget.0 {
            match self.earliest() {
                Some((queue, due)) if due <= bus.now() && self.registers.running() => {
                    self.queues[usize::from(queue)].due = None;
                    let served = self.serve(queue, bus);
                    self.stop_if_broken(served, bus);
                    self.consider(queue, bus);
                    self.watch(bus);
                }
                _ => break,
            }
        }
        if !self.registers.running() {
            for queue in &mut self.queues {
                queue.due = None;
            }
        }
        match self.earliest() {
            Some((_, due)) if due <= bus.now() => Progress::More,
            Some((_, due)) => {
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
