//! The hardware process: the machine, its device, and the modelled CPUs the domains run on.
//!
//! It is the only process that maps all port pages, and the only one that lets a domain run. What
//! a domain may ask for is decided here, from the placement's data. How time passes is in
//! [`leap`] and [`wall`].

mod leap;
mod unit;
mod wall;

use crate::call::{Answer, COMPLAINTS, Call, status};
use crate::jail::Confinement;
use crate::placement::{Placement, Restart, Role};
use crate::port::{self, PortPage};
use crate::ring;
use crate::sabotage::{Mix, aim};
use crate::supervisor::DEATH_BELL;
use crate::trial::{
    By, ClockKind, Corruption, Counts, Detection, DomainEnd, DomainReport, DriverId, End, Fault,
    StrayDma, Target, TrialReport, TrialSpec,
};
use crate::wire::Channel;
use cofferdam_machine::config::Config;
use cofferdam_machine::frames::{Owner, Use, owner_at, run_of};
use cofferdam_machine::{Ending, Machine, Memory, PhysAddr, Read};
use cofferdam_seam::{
    Bar, Device, InterruptKind, Iova, RequesterId, Time, Vector, VectorSet, Width,
};
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use unit::{State, Unit};
use vdevice_edu::{Edu, EduTiming};
use vdevice_tamper::{Aim, Lie, Tally, Tamper};
use vdevice_virtio::{BlkConfig, VirtioBlk};

/// What the hardware asks of the zygote.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToZygote {
    /// Fork that domain.
    Spawn {
        /// Which.
        index: usize,
        /// How often it was started before.
        generation: u32,
    },
    /// Kill it.
    Kill(usize),
    /// Stop it (SIGSTOP).
    Stop(usize),
    /// Continue it.
    Continue(usize),
    /// The trial is over; how confined the least confined domain was.
    Report(Box<TrialReport>, Option<Confinement>),
    /// The trial could not be carried out.
    Failed(String),
}

/// What the zygote tells the hardware.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromZygote {
    /// The domain was forked.
    Spawned {
        /// Which.
        index: usize,
        /// Its process.
        pid: i32,
    },
    /// The domain died.
    Died {
        /// Which.
        index: usize,
        /// How, in words.
        how: String,
        /// Whether by a signal nobody here sends.
        foreign: bool,
    },
    /// The domain is stopped.
    Stopped(usize),
}

/// The harness failed: never a finding.
#[derive(Debug, Error)]
pub enum Infrastructure {
    /// A system call failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A domain was killed by somebody else.
    #[error("{domain} was ended from outside the trial ({how})")]
    KilledFromOutside {
        /// Which domain.
        domain: String,
        /// How.
        how: String,
    },
    /// A domain could not start.
    #[error("{domain} did not start: {why}")]
    NotStarted {
        /// Which domain.
        domain: String,
        /// Why.
        why: String,
    },
    /// A domain or the zygote did not answer.
    #[error("{who} did not answer within {} s", within.as_secs())]
    Silent {
        /// Who.
        who: String,
        /// The deadline.
        within: Duration,
    },
}

/// Device time one call takes.
const QUANTUM: Duration = Duration::from_nanos(200);
/// Device time a turn of a poll loop takes.
const RELAX: Duration = Duration::from_micros(20);
/// Wall time within which a process must react.
const REACT: Duration = Duration::from_secs(10);
/// Device time a finished trial waits for a fault that has not struck yet.
const LINGER: Duration = Duration::from_millis(40);
/// Device time a finished trial goes on after its fault, for what it may still do.
const AFTERMATH: Duration = Duration::from_millis(5);
/// The second device, in the second root port, where a trial has one.
const BYSTANDER: RequesterId = RequesterId::new(2, 0, 0);
/// Stray DMAs reported one by one.
const STRAYS: usize = 16;

/// A frozen CPU.
#[derive(Clone, Copy, Debug, Default)]
struct Cpu {
    /// Frozen until then; `Time::NEVER` is to the horizon.
    until: Option<Time>,
    since: Time,
    frozen: Duration,
}

/// The hardware of one trial.
pub struct Hardware {
    spec: TrialSpec,
    placement: &'static Placement,
    machine: Machine,
    device: RequesterId,
    tally: Option<Arc<Tally>>,
    units: Vec<Unit>,
    cpus: [Cpu; 2],
    zygote: Channel,
    confinement: Option<Confinement>,
    marked: u32,
    activated_at: Option<Time>,
    stray: Vec<StrayDma>,
    detection: Option<Detection>,
    resets: u32,
    /// Set by a reset or a death, cleared by the first answer after it.
    recovering: bool,
    recovered_at: Option<Time>,
    doorbells: u64,
    machine_check: bool,
    system_lost: bool,
    finished_at: Option<Time>,
    epoch: u64,
}

/// Runs a trial and reports it to the zygote. `memory` and `ports` are the files; `epoch` is device time zero on
/// the monotonic clock.
pub fn run(
    spec: &TrialSpec,
    memory: BorrowedFd<'_>,
    ports: BorrowedFd<'_>,
    zygote: Channel,
    epoch: u64,
) -> Result<(), (Channel, Infrastructure)> {
    let mut hardware = Hardware::new(spec, memory, ports, zygote, epoch)?;
    let ended = match spec.clock {
        ClockKind::Leap => leap::run(&mut hardware),
        ClockKind::Wall => wall::run(&mut hardware),
    };
    match ended {
        Ok(end) => {
            let report = ToZygote::Report(Box::new(hardware.report(end)), hardware.confinement);
            match hardware.zygote.send(&report) {
                // Closing the channel with messages unread would take the report back: the zygote
                // ends this process when it has it.
                Ok(()) => {
                    while let Ok(Some(_)) = hardware.zygote.receive::<FromZygote>(REACT) {}
                    Ok(())
                }
                Err(error) => Err((hardware.zygote, error.into())),
            }
        }
        Err(failure) => Err((hardware.zygote, failure)),
    }
}

/// The device of a driver, honest.
fn device(driver: DriverId, seed: u64) -> Box<dyn Device> {
    match driver {
        DriverId::Edu => Box::new(Edu::new(EduTiming::default())),
        DriverId::VirtioBlk => Box::new(VirtioBlk::new(BlkConfig {
            sectors: 2 * crate::tenant::SECTORS,
            seed,
            ..BlkConfig::default()
        })),
    }
}

/// What the device does wrong in this trial. `forgery` is the interrupt message of another device.
fn lie(spec: &TrialSpec, forgery: (Iova, u32)) -> Option<Lie> {
    match spec.fault {
        Fault::D1 {
            by: By::Device,
            target,
            len,
            nth,
        } => Some(Lie::WildWrite {
            nth,
            aim: match target {
                Target::Neighbour => Aim::BesideLast { gap: 0 },
                _ => Aim::Address(Iova(aim(target, len.into(), spec.seed)?)),
            },
            bytes: Mix(spec.seed).bytes(len as usize),
        }),
        Fault::D6 {
            by: By::Device,
            delay_us,
            nth,
        } => Some(Lie::StaleWrite {
            nth,
            after: Duration::from_micros(delay_us.into()),
            bytes_seed: spec.seed,
        }),
        Fault::D4 {
            by: By::Device,
            extra,
            nth,
        } => Some(Lie::Overrun {
            nth,
            extra: Mix(spec.seed).bytes(extra as usize),
        }),
        Fault::D8 { nth } => Some(Lie::WriteBack {
            nth,
            bytes_seed: spec.seed,
        }),
        Fault::I4 { nth } => {
            let (at, data) = forgery;
            let bytes = data.to_le_bytes().to_vec();
            Some(Lie::WildWrite {
                nth,
                aim: Aim::Address(at),
                bytes,
            })
        }
        Fault::B1 { nth } => Some(Lie::NeverCompletes { nth }),
        Fault::B9 { nth, window_us } => Some(Lie::AllOnes {
            nth,
            window: Duration::from_micros(window_us.into()),
        }),
        // The 4-byte id of a used-ring element (virtio 1.2, 2.7.8).
        Fault::R1 { nth, value } => Some(Lie::CompletionField {
            nth,
            offset: 0,
            len: 4,
            value: value.into(),
        }),
        _ => None,
    }
}

impl Hardware {
    fn new(
        spec: &TrialSpec,
        memory: BorrowedFd<'_>,
        ports: BorrowedFd<'_>,
        zygote: Channel,
        epoch: u64,
    ) -> Result<Self, (Channel, Infrastructure)> {
        let placement = spec.placement.placement();
        let open = || -> io::Result<(Memory, Vec<&'static PortPage>)> {
            let memory = Memory::shared(memory)?;
            memory.fill_pattern();
            let pages = (0..=placement.domains.len()).map(|index| port::open(ports, index));
            Ok((memory, pages.collect::<io::Result<_>>()?))
        };
        let (memory, pages) = match open() {
            Ok(opened) => opened,
            Err(error) => return Err((zygote, error.into())),
        };
        let mut machine = Machine::new(
            Config {
                iommu: spec.iommu,
                interrupt_remapping: spec.intremap,
                fabric: spec.fabric,
                timeout_ends: spec.timeout_ends,
                ..Config::default()
            },
            memory,
        );
        let honest = device(spec.driver, spec.seed);
        let forgery = machine.message(BYSTANDER, Vector(0));
        let (device, tally) = match lie(spec, forgery) {
            Some(lie) => {
                let (tamper, tally) = Tamper::new(honest, vec![lie]);
                (machine.plug(Box::new(tamper)), Some(tally))
            }
            None => (machine.plug(honest), None),
        };
        if matches!(spec.fault, Fault::I4 { .. }) {
            // A device of somebody else, whose interrupt is there to be forged.
            let bystander = machine.plug(Box::new(Edu::new(EduTiming::default())));
            debug_assert_eq!(bystander, BYSTANDER);
            if let Err(error) = machine.enable_interrupts(bystander, 1) {
                return Err((zygote, io::Error::other(error).into()));
            }
        }
        let units = placement
            .domains
            .iter()
            .map(|domain| (domain.name, Some(domain.cpu)))
            .chain([("supervisor", None)])
            .zip(pages)
            .map(|((name, cpu), page)| Unit::new(name, cpu, page))
            .collect();
        Ok(Self {
            spec: spec.clone(),
            placement,
            machine,
            device,
            tally,
            units,
            cpus: [Cpu::default(); 2],
            zygote,
            confinement: None,
            marked: 0,
            activated_at: None,
            stray: Vec::new(),
            detection: None,
            resets: 0,
            recovering: false,
            recovered_at: None,
            doorbells: 0,
            machine_check: false,
            system_lost: false,
            finished_at: None,
            epoch,
        })
    }

    fn now(&self) -> Time {
        self.machine.now()
    }

    fn horizon(&self) -> Time {
        Time(self.spec.horizon_ns)
    }

    fn supervisor(&self) -> usize {
        self.units.len() - 1
    }

    /// Waits until every domain has said hello; from then on the zygote is told of every death.
    fn assemble(&mut self) -> Result<(), Infrastructure> {
        for index in 0..self.units.len() {
            self.await_hello(index)?;
        }
        Ok(())
    }

    fn await_hello(&mut self, index: usize) -> Result<(), Infrastructure> {
        let started = std::time::Instant::now();
        while !self.units[index]
            .page
            .await_call(port::Spin(0), Duration::from_millis(20))
        {
            self.attend_zygote(Duration::ZERO)?;
            if let State::Dead = self.units[index].state {
                let unit = &self.units[index];
                let why = unit.deaths.last().cloned().unwrap_or_default();
                return Err(Infrastructure::NotStarted {
                    domain: unit.name.into(),
                    why,
                });
            }
            if started.elapsed() > REACT {
                let who = self.units[index].name.into();
                return Err(Infrastructure::Silent { who, within: REACT });
            }
        }
        match self.units[index].page.posted_call() {
            Some(Call::Hello { confinement }) => {
                let confinement = Confinement::unpack(confinement);
                self.confinement = Some(
                    self.confinement
                        .map_or(confinement, |other| other.min(confinement)),
                );
            }
            other => {
                let domain = self.units[index].name.into();
                let why = format!("its first call was {other:?}");
                return Err(Infrastructure::NotStarted { domain, why });
            }
        }
        let now = self.now();
        let unit = &mut self.units[index];
        unit.last_beat = now;
        unit.state = State::Ready(Answer::DONE);
        Ok(())
    }

    /// Takes note of what the zygote has to say, waiting at most `limit` for the first message.
    fn attend_zygote(&mut self, limit: Duration) -> Result<(), Infrastructure> {
        let mut limit = limit;
        while let Some(message) = self.zygote.receive(limit)? {
            limit = Duration::ZERO;
            match message {
                FromZygote::Spawned { index, pid } => self.units[index].pid = pid,
                FromZygote::Died {
                    index,
                    how,
                    foreign,
                } => self.bury(index, how, foreign)?,
                FromZygote::Stopped(index) => self.units[index].stopped = true,
            }
        }
        Ok(())
    }

    /// A domain is dead.
    fn bury(&mut self, index: usize, how: String, foreign: bool) -> Result<(), Infrastructure> {
        let supervisor = self.supervisor();
        let unit = &mut self.units[index];
        let domain = unit.name.to_owned();
        if foreign {
            return Err(Infrastructure::KilledFromOutside { domain, how });
        }
        let how = unit
            .sentence
            .take()
            .or_else(|| unit.page.text())
            .unwrap_or(how);
        if how.starts_with(crate::domain::CANNOT_START) || index == supervisor {
            return Err(Infrastructure::NotStarted { domain, why: how });
        }
        unit.deaths.push(how);
        unit.state = State::Dead;
        unit.serving = false;
        if index == self.placement.server() {
            self.recovering = true;
        }
        if self.placement.domains[index].privileged {
            self.lose_system();
        }
        self.units[supervisor].bells |= DEATH_BELL;
        Ok(())
    }

    /// The privileged layer stopped: so does everything on it.
    fn lose_system(&mut self) {
        self.system_lost = true;
        for unit in &mut self.units {
            if !matches!(unit.state, State::Dead) {
                unit.state = State::Halted;
            }
        }
    }

    /// Kills a domain and waits until it is buried as having died of `sentence`.
    fn kill(&mut self, index: usize, sentence: &str) -> Result<(), Infrastructure> {
        if matches!(self.units[index].state, State::Dead) {
            return Ok(());
        }
        self.units[index].sentence = Some(sentence.to_owned());
        self.zygote.send(&ToZygote::Kill(index))?;
        self.until(index, |unit| {
            matches!(unit.state, State::Dead | State::Halted)
        })
    }

    /// Attends to the zygote until `done` holds for a domain.
    fn until(&mut self, index: usize, done: impl Fn(&Unit) -> bool) -> Result<(), Infrastructure> {
        let started = std::time::Instant::now();
        while !done(&self.units[index]) {
            self.attend_zygote(Duration::from_millis(100))?;
            if started.elapsed() > REACT {
                let who = format!("the zygote, about {}", self.units[index].name);
                return Err(Infrastructure::Silent { who, within: REACT });
            }
        }
        Ok(())
    }

    /// Starts a dead domain again.
    fn restart(&mut self, index: usize) -> Result<(), Infrastructure> {
        let unit = &mut self.units[index];
        unit.page.clear();
        unit.restarts += 1;
        unit.bells = 0;
        unit.serving = false;
        unit.state = State::Running;
        let generation = unit.restarts;
        self.zygote.send(&ToZygote::Spawn { index, generation })?;
        self.await_hello(index)
    }

    /// Carries out a posted call and decides what becomes of the caller.
    fn serve(&mut self, index: usize) -> Result<(), Infrastructure> {
        let call = self.units[index].page.posted_call();
        let state = match call {
            Some(call) => self.carry_out(index, call)?,
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
            Call::Restart if supervises && self.placement.restart != Restart::Never => {
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
            Call::Map { phys, len, way } => {
                let Ok(bytes) = usize::try_from(len) else {
                    return State::Ready(Answer::REFUSED);
                };
                // The layer that programs the IOMMU lets a domain lend only what it may touch.
                if !self.placement.domains[index].may_touch(phys, len) {
                    return State::Ready(Answer::REFUSED);
                }
                match self.machine.map(id, PhysAddr(phys), bytes, way) {
                    Ok(mapping) => Answer::with(mapping.iova.0, mapping.id),
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

    /// A read does not complete: the CPU of the domain that made it stands still.
    fn freeze(&mut self, index: usize, until: Option<Time>) {
        if let Some(cpu) = self.units[index].cpu {
            let now = self.now();
            self.cpus[cpu] = Cpu {
                until: Some(until.unwrap_or(Time::NEVER)),
                since: now,
                ..self.cpus[cpu]
            };
        }
    }

    /// CPUs whose wait is over go on; the read that froze them ends as the platform says.
    fn thaw(&mut self) {
        let now = self.now();
        for number in 0..self.cpus.len() {
            let Some(until) = self.cpus[number].until.filter(|until| *until <= now) else {
                continue;
            };
            self.cpus[number].frozen += until.since(self.cpus[number].since);
            self.cpus[number].until = None;
            for index in 0..self.units.len() {
                let State::Frozen { then, width } = self.units[index].state else {
                    continue;
                };
                if self.units[index].cpu != Some(number) {
                    continue;
                }
                self.detected("fabric".into(), "a completion timeout".into(), until);
                match then {
                    Ending::AllOnes => {
                        self.units[index].state = State::Ready(Answer::with(width.all_ones(), 0));
                    }
                    Ending::MachineCheck => {
                        self.machine_check = true;
                        self.lose_system();
                    }
                }
            }
        }
    }

    fn is_frozen(&self, unit: &Unit) -> bool {
        unit.cpu.is_some_and(|cpu| self.cpus[cpu].until.is_some())
    }

    /// A doorbell, from one domain to others that share memory with it.
    fn ring(&mut self, from: usize, peers: u64) {
        let server = self.placement.server();
        for to in 0..self.placement.domains.len() {
            // Only the server and tenants have business with each other.
            if peers >> to & 1 == 1 && (from == server || to == server) {
                self.units[to].bells |= 1 << from;
                self.doorbells += 1;
            }
        }
        if from == server {
            self.served();
        }
    }

    /// The server answered a request.
    fn served(&mut self) {
        if self.recovering
            && self.activated_at.is_some()
            && self.units[self.placement.server()].serving
        {
            self.recovering = false;
            self.recovered_at.get_or_insert(self.machine.now());
        }
    }

    fn detected(&mut self, by: String, what: String, at: Time) {
        let Some(activated) = self.activated_at.filter(|activated| *activated <= at) else {
            return;
        };
        let after_ns = at.0 - activated.0;
        if self
            .detection
            .as_ref()
            .is_none_or(|earlier| after_ns < earlier.after_ns)
        {
            self.detection = Some(Detection { by, what, after_ns });
        }
    }

    /// Domains whose awaited event has come become ready.
    fn wake(&mut self) {
        let now = self.now();
        for unit in &mut self.units {
            let State::Waiting {
                vectors,
                bells,
                until,
            } = unit.state
            else {
                continue;
            };
            let rang = unit.bells & bells;
            let raised = if vectors.is_empty() {
                VectorSet::EMPTY
            } else {
                self.machine.take_interrupts(self.device, vectors)
            };
            if rang != 0 || !raised.is_empty() || until <= now {
                unit.bells &= !rang;
                unit.state = State::Ready(Answer::with(raised.0, rang));
            }
        }
    }

    /// Reads the machine's log: what happened on the bus since the last look.
    fn observe(&mut self) {
        if let Some(at) = self.tally.as_ref().and_then(|tally| tally.first_at()) {
            self.activated_at.get_or_insert(at);
        }
        let by_driver = matches!(
            self.spec.fault,
            Fault::D1 { by: By::Driver, .. }
                | Fault::D4 { by: By::Driver, .. }
                | Fault::D6 { by: By::Driver, .. }
        );
        for event in self.machine.drain_events() {
            if event.verdict.is_sanctioned() {
                continue;
            }
            if by_driver {
                self.marked += 1;
                self.activated_at.get_or_insert(event.at);
            }
            if self.stray.len() < STRAYS {
                self.stray.push(StrayDma {
                    at_ns: event.at.0,
                    iova: event.iova.0,
                    len: event.len as u64,
                    write: event.write,
                    verdict: event.verdict.to_string(),
                    landed: event.landed(),
                    owner: event.reached.and_then(|at| owner_at(at.0)),
                });
            }
        }
        if self
            .detection
            .as_ref()
            .is_none_or(|earlier| earlier.by != "iommu")
            && let Some(activated) = self.activated_at
        {
            let (faults, _) = self.machine.iommu_faults();
            if let Some(fault) = faults.iter().find(|fault| fault.at >= activated) {
                let (what, at) = (fault.to_string(), fault.at);
                self.detected("iommu".into(), what, at);
            }
        }
    }

    /// Whether the trial is over, and how.
    fn ended(&mut self) -> Option<End> {
        if self.system_lost {
            return Some(End::SystemLost);
        }
        let now = self.now();
        if now >= self.horizon() {
            return Some(End::Horizon);
        }
        let tenants = self.placement.domains.iter().zip(&self.units);
        let all = tenants
            .filter(|(domain, _)| matches!(domain.role, Role::Tenant(_)))
            .all(|(_, unit)| unit.finished);
        if !all {
            return None;
        }
        let finished = *self.finished_at.get_or_insert(now);
        let settled = match (self.spec.fault, self.activated_at) {
            (Fault::None, _) => finished,
            (_, Some(activated)) => finished.max(activated + AFTERMATH),
            (_, None) => finished + LINGER,
        };
        (now >= settled).then_some(End::Finished)
    }

    /// The earliest time at which anything happens by itself.
    fn next_event(&self) -> Time {
        let waits = self.units.iter().filter_map(|unit| match unit.state {
            State::Waiting { until, .. } if !self.is_frozen(unit) => Some(until),
            _ => None,
        });
        let thaws = self.cpus.iter().filter_map(|cpu| cpu.until);
        waits
            .chain(thaws)
            .chain(self.machine.next_event())
            .min()
            .unwrap_or(Time::NEVER)
    }

    fn last_beat(&self, index: usize) -> Time {
        match self.spec.clock {
            ClockKind::Leap => self.units[index].last_beat,
            ClockKind::Wall => {
                let (beat, _) = self.units[index].page.beats();
                Time(beat).max(self.units[index].last_beat)
            }
        }
    }

    fn report(&mut self, end: End) -> TrialReport {
        self.observe();
        let now = self.now();
        let ended = match end {
            End::Horizon => self.horizon(),
            End::Finished | End::SystemLost => now,
        };
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let frozen: Vec<Duration> = self
            .cpus
            .iter()
            .map(|cpu| cpu.frozen + cpu.until.map_or(Duration::ZERO, |_| ended.since(cpu.since)))
            .collect();
        let mut domains = Vec::new();
        let mut io = Vec::new();
        for (index, domain) in self.placement.domains.iter().enumerate() {
            let unit = &self.units[index];
            let (_, stored_gap) = unit.page.beats();
            let to_the_end = nanos(ended.since(self.last_beat(index)));
            domains.push(DomainReport {
                name: domain.name.into(),
                privileged: domain.privileged,
                holds_driver: domain.role == Role::Serves,
                tenant: match domain.role {
                    Role::Tenant(tenant) => Some(tenant),
                    Role::Serves | Role::Idles => None,
                },
                cpu: domain.cpu,
                end: match unit.state {
                    State::Dead => DomainEnd::Dead,
                    State::Halted => DomainEnd::Halted,
                    _ if self.is_frozen(unit) => DomainEnd::Frozen,
                    _ => DomainEnd::Alive,
                },
                deaths: unit.deaths.clone(),
                restarts: unit.restarts,
                longest_gap_ns: unit.longest_gap.max(stored_gap).max(to_the_end),
                frozen_ns: nanos(frozen[usize::from(domain.cpu)]),
            });
            if let Role::Tenant(tenant) = domain.role {
                io.push(unit.page.io(tenant));
            }
        }
        let counts = self.machine.counts();
        let after = |at: Option<Time>| Some(at?.0.saturating_sub(self.activated_at?.0));
        TrialReport {
            activated: self.tally.as_ref().map_or(0, |tally| tally.acted()) + self.marked,
            activated_at_ns: self.activated_at.map(Time::nanos),
            domains,
            io,
            corruption: self
                .machine
                .memory()
                .corruption()
                .into_iter()
                .map(|(owner, bytes)| Corruption { owner, bytes })
                .collect(),
            stray: std::mem::take(&mut self.stray),
            stray_landed: counts.stray_landed,
            stray_blocked: counts.stray_blocked,
            forged_interrupts: counts.forged_interrupts,
            refused_interrupts: counts.refused_interrupts,
            stale_window_ns: counts.last_after_unmap.map(nanos),
            detection: self.detection.clone(),
            recovered_after_ns: after(self.recovered_at),
            resets: self.resets,
            machine_check: self.machine_check,
            counts: Counts {
                mmio_reads: counts.mmio_reads,
                mmio_writes: counts.mmio_writes,
                maps: counts.maps,
                unmaps: counts.unmaps,
                invalidations: counts.invalidations,
                doorbells: self.doorbells,
                interrupts: counts.interrupts,
                dma_requests: counts.dma_requests,
            },
            end,
            ended_at_ns: ended.nanos(),
        }
    }

    /// Requests of all tenants answered so far (wall clock, where answers make no call).
    fn answered(&self) -> u64 {
        let tenants = self
            .placement
            .domains
            .iter()
            .filter_map(|domain| match domain.role {
                Role::Tenant(tenant) => Some(tenant),
                Role::Serves | Role::Idles => None,
            });
        tenants
            .map(|tenant| {
                let ring = PhysAddr(ring::ring_start(tenant));
                // SAFETY: as in `events_of_server`.
                u64::from(unsafe { ring::answered(self.machine.memory().pointer(ring)) })
            })
            .sum()
    }

    /// The event words of a domain, in this process's mapping (wall clock).
    fn events_of_server(&self) -> &ring::EventWords {
        let frame = run_of(Owner::Driver, Use::Events).map_or(0, |run| run.bytes().start);
        let pointer = self.machine.memory().pointer(PhysAddr(frame));
        // SAFETY: the machine's memory maps every frame for as long as the machine lives, which
        // the borrow of self bounds.
        unsafe { ring::words(pointer) }
    }
}
