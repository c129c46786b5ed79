//! What a domain's call does, and who may make it.

use super::unit::State;
use super::{Hardware, Infrastructure, RELAX};
use crate::call::{Answer, COMPLAINTS, Call, status};
use crate::placement::Restart;
use cofferdam_machine::{PhysAddr, Read};
use cofferdam_seam::{Bar, InterruptKind, Iova, Time, VectorSet, Width};

impl Hardware {
    /// Carries out a posted call and decides what becomes of the caller.
    pub(super) fn serve(&mut self, index: usize) -> Result<(), Infrastructure> {
        let call = self.units[index].page.posted_call();
        let state = match call {
            Some(call) => {
                self.note_ahead(index, call);
                let state = self.carry_out(index, call)?;
                self.note_call(index, call, state);
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
                });
            }
            Call::Wait {
                vectors,
                bells,
                until,
            } => {
                let vectors = if holds_driver {
                    if vectors.is_empty() {
                        self.machine.rest_driver(self.device);
                    }
                    vectors
                } else {
                    VectorSet::EMPTY
                };
                return Ok(State::Waiting {
                    vectors,
                    bells,
                    until: Time(until),
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
            Call::Mark if holds_driver => {
                self.marked += 1;
                self.activated_at.get_or_insert(self.machine.now());
                Answer::DONE
            }
            Call::Serving if holds_driver => {
                let now = self.now();
                self.units[index].serving = true;
                self.units[index].beat(now);
                if let Some(tally) = &self.tally {
                    tally.arm();
                }
                Answer::DONE
            }
            Call::Reset if holds_driver || supervises => {
                self.machine.reset(self.device);
                self.machine.unmap_all(self.device);
                self.resets += 1;
                self.recovering = true;
                self.units[server].serving = false;
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
            _ if holds_driver => return Ok(self.touch_device(index, call)),
            _ => Answer::REFUSED,
        };
        Ok(State::Ready(answer))
    }

    /// Calls that reach the device or its IOMMU domain: the driver's alone.
    fn touch_device(&mut self, index: usize, call: Call) -> State {
        let id = self.device;
        // Registers are the driver's own; everything else it must ask the privileged layer for.
        if !matches!(call, Call::MmioRead { .. } | Call::MmioWrite { .. }) {
            self.asked += 1;
        }
        State::Ready(match call {
            Call::MmioRead { bar, offset, width } => {
                let Some(bar) = Bar::new(bar) else {
                    return State::Ready(Answer::REFUSED);
                };
                match self.machine.mmio_read(id, bar, offset, width) {
                    Read::Done(value) => Answer::with(value, 0),
                    Read::Waiting { until, then } => {
                        self.freeze(index, until);
                        return State::Frozen { then, width };
                    }
                }
            }
            Call::MmioWrite {
                bar,
                offset,
                width,
                value,
            } => {
                let Some(bar) = Bar::new(bar) else {
                    return State::Ready(Answer::REFUSED);
                };
                self.machine.mmio_write(id, bar, offset, width, value);
                Answer::DONE
            }
            Call::ConfigRead { offset, width } if width != Width::Eight => {
                Answer::with(self.machine.config_read(id, offset, width).into(), 0)
            }
            Call::ConfigWrite {
                offset,
                width,
                value,
            } if width != Width::Eight => {
                self.machine.config_write(id, offset, width, value);
                Answer::DONE
            }
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
                    Ok(mapping) => Answer::with(mapping.iova.0, mapping.id),
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
