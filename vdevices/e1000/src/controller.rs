//! The device: registers, rings and wire joined behind the seam.

use crate::eeprom::Eeprom;
use crate::filter::Filter;
use crate::identity::IDENTITY;
use crate::peer::Peer;
use crate::phy::Phy;
use crate::receive::{Arrival, Receiver};
use crate::regs::{self, HELD, Register, STATISTICS, Statistic};
use crate::spec::{cause, control, eeprom_control, mdi, status};
use crate::transmit::Transmitter;
use cofferdam_seam::{
    Access, Budget, BusPort, Completion, Device, PciIdentity, Progress, Reset, Time, Vector, Width,
};
use core::time::Duration;
use std::collections::VecDeque;

/// The only vector.
const VECTOR: Vector = Vector(0);

/// How long a reset by CTRL.RST takes: a driver is to wait 1 us before it looks ([1] 13.4.1).
const RESET: Duration = Duration::from_micros(1);

/// CTRL after reset: full duplex, 1000 Mb/s.
const CONTROL: u32 = control::FULL_DUPLEX | 0b10 << 8;

/// What controller to build, and what it is connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct E1000Config {
    /// The station address in the EEPROM.
    pub address: [u8; 6],
    /// Who is at the other end of the cable.
    pub peer: Peer,
    /// How long a frame, or a part of one, is on its way: at most as long as the largest frame takes at
    /// 1 Gb/s.
    pub wire: Duration,
    /// How long after CTRL.SLU was set the link is up; none: there is no cable.
    pub negotiation: Option<Duration>,
}

impl Default for E1000Config {
    /// An echo, 12 us a frame, 100 us until the link is up.
    fn default() -> Self {
        Self {
            address: [0x52, 0x54, 0x00, 0x12, 0x34, 0x56],
            peer: Peer::default(),
            wire: Duration::from_micros(12),
            negotiation: Some(Duration::from_micros(100)),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Down,
    /// Up from then on.
    Negotiating(Time),
    Up,
}

/// An 82540EM.
pub struct E1000 {
    config: E1000Config,
    eeprom: Eeprom,
    phy: Phy,
    state: State,
    /// The level of the INTx pin.
    pin: bool,
    /// When the reset that CTRL.RST started is over.
    resetting: Option<Time>,
}

/// All that every reset clears; the PHY apart, that is the device.
struct State {
    control: u32,
    eeprom_read: u32,
    mdi: u32,
    causes: u32,
    mask: u32,
    receive_control: u32,
    transmit_control: u32,
    statistics: [u32; STATISTICS],
    held: [u32; HELD.len()],
    filter: Filter,
    transmitter: Transmitter,
    receiver: Receiver,
    link: Link,
    /// When the descriptor at the head of the transmit ring has gone out.
    sent: Option<Time>,
    /// Frames on their way here. One a descriptor sent, and they are not longer under way than it
    /// takes to send the next, so there are few.
    arriving: VecDeque<(Time, Vec<u8>)>,
}

impl State {
    fn new(eeprom: &Eeprom) -> Self {
        Self {
            control: CONTROL,
            eeprom_read: 0,
            mdi: mdi::READY,
            causes: 0,
            mask: 0,
            receive_control: 0,
            transmit_control: 0,
            statistics: [0; STATISTICS],
            held: HELD.map(|(.., value)| value),
            filter: Filter::new(eeprom.address()),
            transmitter: Transmitter::default(),
            receiver: Receiver::default(),
            link: Link::Down,
            sent: None,
            arriving: VecDeque::new(),
        }
    }

    fn count(&mut self, what: Statistic) {
        let count = &mut self.statistics[what as usize];
        *count = count.saturating_add(1);
    }

    fn transmits(&self) -> bool {
        // Without a link the controller does no DMA for the transmitter.
        self.link == Link::Up && self.transmitter.is_ready(self.transmit_control)
    }
}

impl E1000 {
    /// A controller after power-on.
    pub fn new(config: E1000Config) -> Self {
        let eeprom = Eeprom::new(config.address);
        Self {
            state: State::new(&eeprom),
            config,
            phy: Phy::new(),
            eeprom,
            pin: false,
            resetting: None,
        }
    }

    fn is_resetting(&mut self, now: Time) -> bool {
        self.resetting = self.resetting.filter(|until| now < *until);
        self.resetting.is_some()
    }

    fn read_register(&mut self, register: Register) -> u32 {
        let state = &mut self.state;
        let low = |value: u64| u32::try_from(value & 0xffff_ffff).unwrap_or(0);
        match register {
            Register::Control => state.control,
            Register::Status if state.link == Link::Up => {
                status::FULL_DUPLEX | status::LINK_UP | status::SPEED_1000
            }
            Register::Status => status::FULL_DUPLEX,
            Register::EepromControl => eeprom_control::PRESENT,
            Register::EepromRead => state.eeprom_read,
            Register::Mdi => state.mdi,
            Register::Causes => std::mem::take(&mut state.causes),
            Register::MaskSet => state.mask,
            Register::CauseSet | Register::MaskClear => 0,
            Register::ReceiveControl => state.receive_control,
            Register::TransmitControl => state.transmit_control,
            Register::ReceiveBaseLow => low(state.receiver.ring.base),
            Register::ReceiveBaseHigh => low(state.receiver.ring.base >> 32),
            Register::ReceiveLength => state.receiver.ring.bytes,
            Register::ReceiveHead => state.receiver.ring.head.into(),
            Register::ReceiveTail => state.receiver.ring.tail.into(),
            Register::TransmitBaseLow => low(state.transmitter.ring.base),
            Register::TransmitBaseHigh => low(state.transmitter.ring.base >> 32),
            Register::TransmitLength => state.transmitter.ring.bytes,
            Register::TransmitHead => state.transmitter.ring.head.into(),
            Register::TransmitTail => state.transmitter.ring.tail.into(),
            Register::Statistic(which) => std::mem::take(&mut state.statistics[which as usize]),
            Register::Address(index, word) => state.filter.addresses[index][word],
            Register::Multicast(word) => state.filter.multicast[word],
            Register::Held(index) => state.held[index],
        }
    }

    fn write_register(&mut self, register: Register, value: u32, bus: &mut BusPort<'_>) {
        let state = &mut self.state;
        let [a, b, ..] = value.to_le_bytes();
        let index = u16::from_le_bytes([a, b]);
        match register {
            Register::Control => self.set_control(value, bus),
            Register::EepromRead => state.eeprom_read = self.eeprom.read(value),
            Register::Mdi => {
                state.mdi = self.phy.operate(value, state.link == Link::Up);
                if value & mdi::INTERRUPT != 0 {
                    state.causes |= cause::MDI;
                }
            }
            Register::Causes => state.causes &= !value,
            Register::CauseSet => state.causes |= value,
            Register::MaskSet => state.mask |= value,
            Register::MaskClear => state.mask &= !value,
            Register::ReceiveControl => state.receive_control = value,
            Register::TransmitControl => state.transmit_control = value,
            Register::ReceiveBaseLow => set_low(&mut state.receiver.ring.base, value),
            Register::ReceiveBaseHigh => set_high(&mut state.receiver.ring.base, value),
            Register::ReceiveLength => state.receiver.ring.bytes = value,
            Register::ReceiveHead => state.receiver.ring.head = index,
            Register::ReceiveTail => state.receiver.ring.tail = index,
            Register::TransmitBaseLow => set_low(&mut state.transmitter.ring.base, value),
            Register::TransmitBaseHigh => set_high(&mut state.transmitter.ring.base, value),
            Register::TransmitLength => state.transmitter.ring.bytes = value,
            Register::TransmitHead => state.transmitter.ring.head = index,
            Register::TransmitTail => state.transmitter.ring.tail = index,
            Register::Address(at, word) => state.filter.addresses[at][word] = value,
            Register::Multicast(word) => state.filter.multicast[word] = value,
            Register::Held(at) => state.held[at] = value,
            Register::Status | Register::EepromControl | Register::Statistic(_) => {}
        }
    }

    fn set_control(&mut self, value: u32, bus: &mut BusPort<'_>) {
        if value & control::RESET != 0 {
            self.state = State::new(&self.eeprom);
            self.resetting = Some(bus.now() + RESET);
            return;
        }
        if value & control::PHY_RESET != 0 {
            self.phy = Phy::new();
            self.lose_link();
        }
        self.state.control = value & !(control::RESET | control::PHY_RESET);
        if value & control::SET_LINK_UP == 0 {
            self.lose_link();
        } else if self.state.link == Link::Down
            && let Some(negotiation) = self.config.negotiation
        {
            self.state.link = Link::Negotiating(bus.now() + negotiation);
        }
    }

    fn lose_link(&mut self) {
        if self.state.link == Link::Up {
            self.state.causes |= cause::LINK;
        }
        self.state.link = Link::Down;
        // What was on the wire is lost.
        self.state.arriving.clear();
    }

    /// Announces causes that are not masked, by message and by pin; the PCI layer lets one of them
    /// through.
    fn settle_pin(&mut self, bus: &mut BusPort<'_>) {
        let level = self.state.causes & self.state.mask != 0;
        if level != self.pin {
            self.pin = level;
            bus.set_intx(level);
            if level {
                bus.raise(VECTOR);
            }
        }
    }

    /// Sends the descriptor at the head, and what the partner answers.
    fn send(&mut self, bus: &mut BusPort<'_>) {
        let state = &mut self.state;
        state.sent = None;
        if !state.transmits() {
            return;
        }
        let done = state.transmitter.serve(state.transmit_control, bus);
        state.causes |= done.causes;
        if let Some(frame) = done.frame {
            state.count(Statistic::Transmitted);
            if let Some(answer) = self.config.peer.answer(&frame) {
                let arrives = bus.now() + self.config.wire;
                state.arriving.push_back((arrives, answer));
            }
        }
    }

    fn take_from_wire(&mut self) {
        let state = &mut self.state;
        let Some((_, frame)) = state.arriving.pop_front() else {
            return;
        };
        match state
            .receiver
            .arrive(frame, &state.filter, state.receive_control)
        {
            Arrival::Waits => state.count(Statistic::Received),
            Arrival::Missed => {
                state.count(Statistic::Missed);
                state.causes |= cause::OVERRUN;
            }
            Arrival::Ignored => {}
        }
    }

    /// Does one piece of work that is due, if any is.
    fn work(&mut self, bus: &mut BusPort<'_>) -> bool {
        let now = bus.now();
        let state = &mut self.state;
        if matches!(state.link, Link::Negotiating(up) if up <= now) {
            state.link = Link::Up;
            state.causes |= cause::LINK;
        } else if state.receiver.is_ready(state.receive_control) {
            state.causes |= state.receiver.serve(state.receive_control, bus);
        } else if state.arriving.front().is_some_and(|(at, _)| *at <= now) {
            self.take_from_wire();
        } else if state.sent.is_some_and(|at| at <= now) {
            self.send(bus);
        } else {
            return false;
        }
        true
    }

    /// When there is something to do.
    fn due(&mut self, now: Time) -> Option<Time> {
        let state = &mut self.state;
        if state.sent.is_none() && state.transmits() {
            state.sent = Some(now + self.config.wire);
        }
        let up = match state.link {
            Link::Negotiating(up) => Some(up),
            Link::Down | Link::Up => None,
        };
        let receives = state
            .receiver
            .is_ready(state.receive_control)
            .then_some(now);
        let arrives = state.arriving.front().map(|(at, _)| *at);
        [up, receives, arrives, state.sent]
            .into_iter()
            .flatten()
            .min()
    }

    fn after_access(&mut self, bus: &mut BusPort<'_>) {
        self.settle_pin(bus);
        if let Some(due) = self.due(bus.now()) {
            bus.wake_at(due);
        }
    }
}

fn set_low(address: &mut u64, to: u32) {
    *address = *address & !0xffff_ffff | u64::from(to);
}

fn set_high(address: &mut u64, to: u32) {
    *address = *address & 0xffff_ffff | u64::from(to) << 32;
}

impl Device for E1000 {
    fn describe(&self) -> &PciIdentity {
        &IDENTITY
    }

    /// Registers are read by 32 bits; what else is asked for reads as zero.
    fn read(&mut self, at: Access, bus: &mut BusPort<'_>) -> Completion {
        let found = regs::find(at.offset()).filter(|_| at.width() == Width::Four);
        let Some((register, _)) = found else {
            return Completion::Data(0);
        };
        if self.is_resetting(bus.now()) {
            // Nothing but CTRL answers with sense.
            let value = [0, CONTROL | control::RESET][usize::from(register == Register::Control)];
            return Completion::Data(value.into());
        }
        let value = self.read_register(register);
        if register == Register::Causes {
            self.settle_pin(bus);
        }
        Completion::Data(value.into())
    }

    /// Registers are written by 32 bits.
    fn write(&mut self, at: Access, value: u64, bus: &mut BusPort<'_>) {
        let found = regs::find(at.offset()).filter(|_| at.width() == Width::Four);
        let Some((register, writable)) = found else {
            return;
        };
        if self.is_resetting(bus.now()) {
            return;
        }
        let [a, b, c, d, ..] = value.to_le_bytes();
        let value = u32::from_le_bytes([a, b, c, d]) & writable;
        self.write_register(register, value, bus);
        self.after_access(bus);
    }

    /// A unit of work is a descriptor sent, a frame that arrives, a frame put into memory.
    fn step(&mut self, budget: Budget, bus: &mut BusPort<'_>) -> Progress {
        for _ in 0..budget.0 {
            // What was sent makes the next one due later, and a wire without length at once.
            self.due(bus.now());
            if !self.work(bus) {
                break;
            }
        }
        self.settle_pin(bus);
        match self.due(bus.now()) {
            Some(due) if due <= bus.now() => Progress::More,
            Some(due) => {
                bus.wake_at(due);
                Progress::Idle
            }
            None => Progress::Idle,
        }
    }

    fn reset(&mut self, _kind: Reset) {
        self.state = State::new(&self.eeprom);
        self.phy = Phy::new();
        self.pin = false;
        self.resetting = None;
    }
}
