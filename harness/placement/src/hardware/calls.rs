//! What a domain's call does, and who may make it.

use super::unit::State;
use super::{Hardware, Infrastructure, RELAX};
use crate::call::{Answer, COMPLAINTS, Call, status};
use crate::link::BEAT;
use crate::placement::Restart;
use cofferdam_machine::{Ending, PhysAddr, Read, Write};
use cofferdam_seam::{Bar, InterruptKind, Iova, Time, VectorSet, Width};

impl Hardware {
    /// Carries out a posted call and decides what becomes of the caller.
    pub(super) fn serve(&mut self, index: usize) -> Result<(), Infrastructure> {
        let call = self.units[index].page.posted_call();
        let state = match call {
            Some(call) => {
                let repetition = &mut self.units[index].repetition;
                repetition.call(call);
                if repetition.lost_in_config() {
                    return self.kill(
                        index,
                        "spun: it does nothing but access configuration space",
                    );
                }
                self.note_ahead(index, call);
                let state = self.carry_out(index, call)?;
                self.note_call(index, call, state);
                if let State::Ready(answer) = state {
                    self.units[index].repetition.answer(call, answer);
                }
                state
            }
            None => State::Ready(Answer::REFUSED),
        };
        // The call itself may have killed the caller, or stopped the system.
        if !matches!(self.units[index].state, State::Dead | State::Halted) {
            self.units[index].state = state;
        }
        Ok(())
    }

    fn carry_out(&mut self, index: usize, call: Call) -> Result<State, Infrastructure> {
        let server = self.placement.server();
        let holds_driver = index == server;
        let supervises = index == self.supervisor();
        let answer = match call {
            Call::Hello { .. } => Answer::REFUSED,
            Call::Now => Answer::DONE,
            Call::Relax => {
                let until = self.now() + RELAX;
                return Ok(State::Waiting {
                    vectors: VectorSet::EMPTY,
                    bells: 0,
                    until,
                    beats: None,
                });
            }
            Call::Wait {
                vectors,
                bells,
                until,
                alive,
            } => {
                let vectors = if holds_driver {
                    if vectors.is_empty() {
                        self.machine.rest_driver(self.device);
                    }
                    vectors
                } else {
                    VectorSet::EMPTY
                };
                let now = self.now();
                if alive {
                    self.units[index].beat(now);
                }
                return Ok(State::Waiting {
                    vectors,
                    bells,
                    until: Time(until),
                    beats: alive.then(|| now + BEAT),
                });
            }
            Call::Beat => {
                let now = self.now();
                self.units[index].beat(now);
                Answer::DONE
            }
            Call::Ring { peers } => {
                self.ring(index, peers);
                Answer::DONE
            }
            Call::Complain { what } => {
                if let Some(what) = usize::try_from(what)
                    .ok()
                    .and_then(|what| COMPLAINTS.get(what))
                {
                    let by = if holds_driver {
                        "driver"
                    } else {
                        self.units[index].name
                    };
                    self.detected(by.to_owned(), (*what).to_owned(), self.now());
                }
                Answer::DONE
            }
            Call::Finished => {
                self.units[index].finished = true;
                Answer::DONE
            }
            Call::Next if self.tenant_at(index).is_some() => {
                Answer::with(self.spec.seed, self.spec.requests.into())
            }
            Call::Mark if holds_driver => {
                self.marked += 1;
                self.activated_at.get_or_insert(self.machine.now());
                Answer::DONE
            }
            Call::Serving if holds_driver => {
                let now = self.now();
                self.units[index].serving = true;
                self.units[index].beat(now);
                self.arm();
                Answer::DONE
            }
            Call::Reset if holds_driver || supervises => {
                self.machine.reset(self.device);
                self.machine.unmap_all(self.device);
                self.resets += 1;
                self.reset_waits.begin(self.now());
                self.recovering = true;
                self.units[server].serving = false;
                self.try_again();
                return Ok(State::Resetting);
            }
            Call::SiblingRead { .. } | Call::SiblingWrite { .. }
                if self.placement.tenant(2) == Some(index) =>
            {
                return Ok(self.access(index, call));
            }
            Call::GiveBack { phys } => done(self.give_back(index, phys)?),
            Call::GivenBack => done(self.given_back(index)?),
            Call::Filled if index == self.newcomer() => {
                self.filled();
                Answer::DONE
            }
            Call::Status if supervises => {
                let unit = &self.units[server];
                let dead = u64::from(matches!(unit.state, State::Dead)) * status::DEAD;
                let serving = u64::from(unit.serving) * status::SERVING;
                let beat = self.last_beat(server);
                let silent = self.now().since(beat);
                Answer::with(
                    dead | serving,
                    u64::try_from(silent.as_nanos()).unwrap_or(u64::MAX),
                )
            }
            Call::Kill if supervises => {
                self.kill(server, "killed by the supervisor: no sign of life")?;
                Answer::DONE
            }
            Call::Restart if supervises && matches!(self.placement.restart, Restart::After(_)) => {
                match self.units[server].state {
                    State::Dead => self.restart(server)?,
                    _ => return Ok(State::Ready(Answer::REFUSED)),
                }
                Answer::DONE
            }
            Call::MmioRead { .. }
            | Call::MmioWrite { .. }
            | Call::ConfigRead { .. }
            | Call::ConfigWrite { .. }
                if holds_driver =>
            {
                let configures = matches!(call, Call::ConfigRead { .. } | Call::ConfigWrite { .. });
                self.asked += u64::from(configures);
                return Ok(self.access(index, call));
            }
            _ if holds_driver => return Ok(self.touch_device(index, call)),
            _ => Answer::REFUSED,
        };
        Ok(State::Ready(answer))
    }

    /// An access to a device, which the fabric may not be able to take now. It is then made again, as
    /// the CPU that stands still would.
    pub(super) fn access(&mut self, index: usize, call: Call) -> State {
        let (id, machine) = (self.device, &mut self.machine);
        let now_or_later = match call {
            Call::MmioRead { bar, offset, width } => {
                Bar::new(bar).map(|bar| machine.mmio_read(id, bar, offset, width))
            }
            Call::MmioWrite {
                bar,
                offset,
                width,
                value,
            } => {
                Bar::new(bar).map(|bar| written(machine.mmio_write(id, bar, offset, width, value)))
            }
            Call::ConfigRead { offset, width } if width != Width::Eight => {
                Some(match machine.config_waits(id) {
                    Some(until) => again(until),
                    None => Read::Done(machine.config_read(id, offset, width).into()),
                })
            }
            Call::ConfigWrite {
                offset,
                width,
                value,
            } if width != Width::Eight => Some(match machine.config_waits(id) {
                Some(until) => again(until),
                None => {
                    machine.config_write(id, offset, width, value);
                    Read::Done(0)
                }
            }),
            Call::SiblingRead { offset } => self
                .sibling
                .map(|id| machine.mmio_read(id, Bar::ZERO, offset, Width::Four)),
            Call::SiblingWrite { offset, value } => self.sibling.map(|id| {
                written(machine.mmio_write(id, Bar::ZERO, offset, Width::Four, value.into()))
            }),
            _ => None,
        };
        match now_or_later {
            None => State::Ready(Answer::REFUSED),
            Some(Read::Done(value)) => State::Ready(Answer::with(value, 0)),
            Some(Read::Waiting { until, then }) => {
                self.freeze(index, until, then);
                State::Frozen { then, access: call }
            }
        }
    }

    /// Whatever kept accesses waiting may be over.
    fn try_again(&mut self) {
        let now = self.now();
        // The domain may be dead: the access is its CPU's.
        for cpu in &mut self.cpus {
            if cpu.again && cpu.until.is_some() {
                cpu.until = Some(now);
            }
        }
    }

    /// Calls that concern the device's interrupts or its IOMMU domain: the driver's alone.
    fn touch_device(&mut self, index: usize, call: Call) -> State {
        let id = self.device;
        // Registers are the driver's own; everything else it must ask the privileged layer for.
        self.asked += 1;
        State::Ready(match call {
            Call::BarSize { bar } => match Bar::new(bar).and_then(|b| self.machine.bar_size(id, b))
            {
                Some(size) => Answer::with(size, 0),
                None => Answer::REFUSED,
            },
            Call::EnableInterrupts { wanted } => match self.machine.enable_interrupts(id, wanted) {
                Ok(given) => Answer::with(
                    match given.kind {
                        InterruptKind::Msix => 0,
                        InterruptKind::Msi => 1,
                        InterruptKind::Intx => 2,
                    },
                    given.count.into(),
                ),
                Err(_) => Answer::REFUSED,
            },
            Call::Map {
                phys,
                len,
                way,
                coherent,
            } => {
                let Ok(bytes) = usize::try_from(len) else {
                    return State::Ready(Answer::REFUSED);
                };
                // The layer that programs the IOMMU lets a domain lend only what it may touch.
                if !self.placement.domains[index].may_touch(phys, len) {
                    return State::Ready(Answer::REFUSED);
                }
                let at = PhysAddr(phys);
                let mapped = if coherent {
                    self.machine.map_coherent(id, at, bytes, way)
                } else {
                    self.machine.map(id, at, bytes, way)
                };
                match mapped {
                    Ok(mapping) => {
                        self.remember_lent(phys, mapping.iova);
                        Answer::with(mapping.iova.0, mapping.id)
                    }
                    Err(_) => Answer::REFUSED,
                }
            }
            Call::MapAt {
                iova,
                phys,
                len,
                way,
            } => {
                let Ok(bytes) = usize::try_from(len) else {
                    return State::Ready(Answer::REFUSED);
                };
                if !self.placement.domains[index].may_touch(phys, len) {
                    return State::Ready(Answer::REFUSED);
                }
                match self
                    .machine
                    .map_at(id, Iova(iova), PhysAddr(phys), bytes, way)
                {
                    Ok(mapping) => {
                        self.reused = Some(iova..iova.saturating_add(len));
                        Answer::with(mapping.iova.0, mapping.id)
                    }
                    Err(_) => Answer::REFUSED,
                }
            }
            Call::Unmap { id: mapping } => match self.machine.unmap(id, mapping) {
                Ok(()) => Answer::DONE,
                Err(_) => Answer::REFUSED,
            },
            _ => Answer::REFUSED,
        })
    }

    /// A doorbell, from one domain to others that share memory with it.
    fn ring(&mut self, from: usize, peers: u64) {
        let server = self.placement.server();
        for to in 0..self.placement.domains.len() {
            if peers >> to & 1 == 1 && self.placement.are_peers(from, to) {
                self.units[to].bells |= 1 << from;
            }
        }
        if from == server {
            self.served();
        }
    }

    /// The server answered a request.
    pub(super) fn served(&mut self) {
        if self.recovering
            && self.activated_at.is_some()
            && self.units[self.placement.server()].serving
        {
            self.recovering = false;
            self.recovered_at.get_or_insert(self.machine.now());
        }
    }
}

const fn done(was: bool) -> Answer {
    if was { Answer::DONE } else { Answer::REFUSED }
}

/// A write as a read of nothing.
fn written(write: Write) -> Read {
    match write {
        Write::Done => Read::Done(0),
        Write::Waiting { until } => again(until),
    }
}

const fn again(until: Option<Time>) -> Read {
    Read::Waiting {
        until,
        then: Ending::Again,
    }
}
