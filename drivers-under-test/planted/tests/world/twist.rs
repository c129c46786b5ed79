//! An honest device whose every answer can be bent on its way out.
//!
//! It does no DMA of its own but what a plan writes where the driver let the device write: what
//! goes astray goes where the driver sent it.

use cofferdam_seam::{
    Access, Budget, Bus, BusPort, Completion, Device, DmaFault, Iova, PciIdentity, Progress,
    Purpose, RequesterId, Reset, Time, Vector, Width,
};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What a plan may do besides changing a value.
pub struct Hand<'a> {
    bus: &'a mut dyn Bus,
    by: RequesterId,
    acted: u32,
}

impl Hand<'_> {
    /// Notes that the plan changed something.
    pub fn act(&mut self) {
        self.acted += 1;
    }

    /// Writes memory that the driver lets the device write.
    pub fn write(&mut self, at: Iova, bytes: &[u8]) {
        self.act();
        let landed = self.bus.dma_write(self.by, at, bytes, Purpose::Descriptor);
        assert_eq!(landed, Ok(()), "the device may write there");
    }
}

type OnRead = Box<dyn FnMut(Access, u64, &mut Hand<'_>) -> u64 + Send>;
type OnWrite = Box<dyn FnMut(Access, u64, &mut Hand<'_>) -> bool + Send>;
type OnDma = Box<dyn FnMut(Iova, Purpose, &mut Vec<u8>) -> Bend + Send>;
type OnConfig = Box<dyn FnMut(u16, Width, &[u8]) -> Option<u32> + Send>;

/// What becomes of a DMA write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bend {
    /// It goes out as it is.
    Not,
    /// It was changed.
    Changed,
    /// It does not go out, and the device does not know.
    Dropped,
}

/// How a device is bent; by default not at all.
#[derive(Default)]
pub struct Plan {
    /// Sees each register read with its honest value, and answers it.
    pub read: Option<OnRead>,
    /// Sees each register write; the model sees it only if this says so.
    pub write: Option<OnWrite>,
    /// Sees each DMA write of the model.
    pub dma: Option<OnDma>,
    /// Answers configuration reads.
    pub config: Option<OnConfig>,
    /// From the first write of that register on the model is not stepped for so long.
    pub sleep: Option<(u32, Duration)>,
    /// One interrupt of vector 0 without a cause, so long after a write of that register.
    pub spurious: Option<(u32, Duration)>,
}

/// What went over the bus in the course of a call.
#[derive(Debug, Default)]
pub struct Seen {
    /// Payload the device wrote.
    pub sent: Vec<u8>,
    /// Payload the device read.
    pub received: Vec<u8>,
    /// How often the plan changed something.
    pub acted: u32,
}

impl Seen {
    pub fn forget(&mut self) {
        self.sent.clear();
        self.received.clear();
    }
}

pub struct Twist {
    inner: Box<dyn Device>,
    plan: Plan,
    /// When the interrupt without a cause is due.
    spurious_at: Option<Time>,
    asleep_until: Time,
    seen: Arc<Mutex<Seen>>,
}

impl Twist {
    pub fn new(inner: Box<dyn Device>, plan: Plan, seen: Arc<Mutex<Seen>>) -> Self {
        Self {
            inner,
            plan,
            spurious_at: None,
            asleep_until: Time::ZERO,
            seen,
        }
    }

    fn note(&self, acted: u32) {
        self.seen.lock().expect("no test panics with it").acted += acted;
    }

    /// Calls the model over a bus that bends what it writes.
    fn lend<R>(
        &mut self,
        port: &mut BusPort<'_>,
        call: impl FnOnce(&mut dyn Device, &mut BusPort<'_>) -> R,
    ) -> R {
        let (bus, by, pending) = port.parts();
        let mut bent = BentBus {
            bus,
            dma: self.plan.dma.as_mut(),
            seen: &self.seen,
        };
        let mut port = BusPort::new(&mut bent, by, pending);
        call(&mut *self.inner, &mut port)
    }
}

struct BentBus<'a> {
    bus: &'a mut dyn Bus,
    dma: Option<&'a mut OnDma>,
    seen: &'a Mutex<Seen>,
}

impl Bus for BentBus<'_> {
    fn dma_read(
        &mut self,
        by: RequesterId,
        at: Iova,
        into: &mut [u8],
        why: Purpose,
    ) -> Result<(), DmaFault> {
        self.bus.dma_read(by, at, into, why)?;
        if why == Purpose::Payload {
            let mut seen = self.seen.lock().expect("no test panics with it");
            seen.received.extend_from_slice(into);
        }
        Ok(())
    }

    fn dma_write(
        &mut self,
        by: RequesterId,
        at: Iova,
        from: &[u8],
        why: Purpose,
    ) -> Result<(), DmaFault> {
        let mut bytes = from.to_vec();
        let bend = self
            .dma
            .as_mut()
            .map_or(Bend::Not, |dma| dma(at, why, &mut bytes));
        let mut seen = self.seen.lock().expect("no test panics with it");
        seen.acted += u32::from(bend != Bend::Not);
        if bend == Bend::Dropped {
            return Ok(());
        }
        if why == Purpose::Payload {
            seen.sent.extend_from_slice(&bytes);
        }
        drop(seen);
        self.bus.dma_write(by, at, &bytes, why)
    }

    fn intx(&mut self, by: RequesterId, level: bool) {
        self.bus.intx(by, level);
    }

    fn now(&self) -> Time {
        self.bus.now()
    }

    fn wake_at(&mut self, by: RequesterId, at: Time) {
        self.bus.wake_at(by, at);
    }
}

impl Device for Twist {
    fn describe(&self) -> &PciIdentity {
        self.inner.describe()
    }

    fn answer_config(&mut self, at: u16, width: Width, space: &[u8], _: Time) -> Option<u32> {
        let answer = self.plan.config.as_mut()?(at, width, space)?;
        self.note(1);
        Some(answer)
    }

    fn read(&mut self, at: Access, bus: &mut BusPort<'_>) -> Completion {
        let honest = self.lend(bus, |device, port| device.read(at, port));
        let (Completion::Data(value), Some(read)) = (honest, self.plan.read.as_mut()) else {
            return honest;
        };
        let (fabric, by, _) = bus.parts();
        let mut hand = Hand {
            bus: fabric,
            by,
            acted: 0,
        };
        let value = value & at.width().all_ones();
        let answer = read(at, value, &mut hand);
        let acted = hand.acted + u32::from(answer != value);
        self.note(acted);
        Completion::Data(answer)
    }

    fn write(&mut self, at: Access, value: u64, bus: &mut BusPort<'_>) {
        if let Some(write) = self.plan.write.as_mut() {
            let (fabric, by, _) = bus.parts();
            let mut hand = Hand {
                bus: fabric,
                by,
                acted: 0,
            };
            let passes = write(at, value, &mut hand);
            let acted = hand.acted + u32::from(!passes);
            self.note(acted);
            if !passes {
                return;
            }
        }
        if let Some((offset, after)) = self.plan.spurious
            && offset == at.offset()
        {
            self.plan.spurious = None;
            let due = bus.now() + after;
            self.spurious_at = Some(due);
            bus.wake_at(due);
        }
        if let Some((offset, time)) = self.plan.sleep
            && offset == at.offset()
        {
            self.plan.sleep = None;
            self.asleep_until = bus.now() + time;
        }
        self.lend(bus, |device, port| device.write(at, value, port));
    }

    fn step(&mut self, budget: Budget, bus: &mut BusPort<'_>) -> Progress {
        if let Some(due) = self.spurious_at
            && due <= bus.now()
        {
            self.spurious_at = None;
            self.note(1);
            bus.raise(Vector(0));
        }
        if bus.now() < self.asleep_until {
            self.note(1);
            bus.wake_at(self.asleep_until);
            return Progress::Idle;
        }
        self.lend(bus, |device, port| device.step(budget, port))
    }

    fn reset(&mut self, kind: Reset) {
        self.inner.reset(kind);
    }
}
