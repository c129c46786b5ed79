//! The hardware process: the machine, its device, and the modelled CPUs the domains run on.
//!
//! It is the only process that maps all port pages, and the only one that lets a domain run. What
//! a domain may ask for is in [`calls`], how time passes in [`leap`] and [`wall`], what was seen in
//! [`report`], how one trial follows another in [`boot`], what becomes of a page that is given back in
//! [`balloon`], what the device does wrong in [`devices`] and, as far as it concerns the bus, in [`bus_lies`].

mod balloon;
mod boot;
mod bus_lies;
mod calls;
mod devices;
mod leap;
mod recorder;
mod repetition;
mod report;
mod resets;
mod unit;
mod wall;

use crate::call::{Answer, Call};
use crate::jail::Confinement;
use crate::own::Strike;
use crate::placement::{Placement, Role};
use crate::port::{self, PortPage, Toll};
use crate::ring;
use crate::storm;
use crate::supervisor::DEATH_BELL;
use crate::trace::{Event, What};
use crate::trial::{
    Balloon, ClockKind, Detection, End, Fault, Route, StrayDma, TrialReport, TrialSpec,
};
use crate::wire::Channel;
pub use boot::NEXT_BELL;
use bus_lies::{Neighbour, bus_lie};
use cofferdam_machine::config::{Config, INTERRUPT_TIME};
use cofferdam_machine::frames::{MAP, Use};
use cofferdam_machine::{Ending, InterruptCost, Machine, Memory, PhysAddr, Place, ResetProgress};
use cofferdam_seam::{Bar, Device, RequesterId, Time, Vector, VectorSet};
pub use devices::lie_alone;
use devices::{device, lie};
use recorder::Recorder;
use repetition::Repetition;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use unit::{State, Unit};
use vdevice_edu::{Edu, EduTiming};
use vdevice_tamper::{Lie, Tally, Tamper};

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
    /// Fork the tenant that gets a page which another gave back.
    SpawnNewcomer {
        /// Its index.
        index: usize,
        /// The page's physical address.
        page: u64,
    },
    /// Tell how much of the machine's memory that domain has resident.
    Weigh(usize),
    /// Kill it.
    Kill(usize),
    /// Stop it (SIGSTOP).
    Stop(usize),
    /// Continue it.
    Continue(usize),
    /// Some of what was recorded, in order, and how much more there was no room for.
    Trace(Vec<Event>, u64),
    /// A trial is over, and the next of its boot begins.
    Next(Box<TrialReport>),
    /// The last trial is over; how confined the least confined domain was.
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
    /// Of the machine's memory the domain has so much resident.
    Weighs {
        /// Which.
        index: usize,
        /// Bytes, if the host lets us look.
        bytes: Option<u64>,
    },
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
/// The driver's device, in the first root port.
const DEVICE: RequesterId = RequesterId::new(1, 0, 0);
/// The second device, in the second root port, where a trial has one.
const BYSTANDER: RequesterId = RequesterId::new(2, 0, 0);
/// Stray DMAs reported one by one.
const STRAYS: usize = 16;

/// The lie of a trial's fault, if its device tells one.
fn told(machine: &Machine, spec: &TrialSpec, neighbour: &Neighbour) -> Option<Lie> {
    let [forgery, own] = [BYSTANDER, DEVICE].map(|id| machine.message(id, Vector(0)));
    let timeout = machine.config().completion_timeout;
    lie(spec, forgery, own).or_else(|| bus_lie(&spec.fault, neighbour, timeout))
}

/// A frozen CPU.
#[derive(Clone, Copy, Debug, Default)]
struct Cpu {
    /// Frozen until then; `Time::NEVER` is to the horizon.
    until: Option<Time>,
    since: Time,
    frozen: Duration,
    /// In interrupt handlers until then (wall clock).
    interrupted: Option<Time>,
    /// Interrupt time it has stood still for (wall clock).
    paid: Duration,
    /// It goes on as soon as the fabric takes its access.
    again: bool,
}

/// The hardware of one trial.
pub struct Hardware {
    spec: TrialSpec,
    placement: &'static Placement,
    machine: Machine,
    device: RequesterId,
    /// The second tenant's device, where a trial has one.
    sibling: Option<RequesterId>,
    tally: Option<Arc<Tally>>,
    units: Vec<Unit>,
    cpus: [Cpu; 2],
    zygote: Channel,
    confinement: Option<Confinement>,
    marked: u32,
    /// Addresses that the driver mapped again while its device uses them.
    reused: Option<Range<u64>>,
    activated_at: Option<Time>,
    stray: Vec<StrayDma>,
    detection: Option<Detection>,
    resets: u32,
    /// Set by a reset or a death, cleared by the first answer after it.
    recovering: bool,
    recovered_at: Option<Time>,
    reset_waits: resets::Waits,
    /// Calls of the driver that only a privileged layer can carry out.
    asked: u64,
    machine_check: bool,
    system_lost: bool,
    finished_at: Option<Time>,
    /// Where the device last found each data page of a tenant, by frame.
    lent: BTreeMap<u64, u64>,
    /// A page that a tenant gave back.
    balloon: Option<Balloon>,
    /// The port page of a tenant that is not there yet.
    spare_port: Option<&'static PortPage>,
    epoch: u64,
    /// When the trial began: a later one of its boot does not begin at zero.
    begun: Time,
    /// The tenants make the requests that come before the first trial.
    warming: bool,
    /// What a trial did that cannot be put back.
    spoilt: Option<String>,
    /// What domains had counted when the trial began.
    paid_before: [u64; Toll::COUNT],
    /// The mappings the device then had.
    mapped_before: usize,
    /// Whose registers its device may aim at.
    neighbour: Neighbour,
    /// Where somebody asked for a trace.
    recorder: Option<Recorder>,
}

/// Runs the trials of a boot and reports them to the zygote: the first, and of the others as many as find the machine as the first did. `memory` and `ports` are the files; `epoch` is device
/// time zero on the monotonic clock; `traced` asks for a trace, which goes before the last report.
pub fn run(
    spec: &TrialSpec,
    others: &[TrialSpec],
    memory: BorrowedFd<'_>,
    ports: BorrowedFd<'_>,
    zygote: Channel,
    epoch: u64,
    traced: bool,
) -> Result<(), (Channel, Infrastructure)> {
    let mut hardware = Hardware::new(spec, memory, ports, zygote, epoch)?;
    if traced {
        hardware.start_recording();
    }
    match hardware.boot(others) {
        Ok(report) => {
            hardware.share_all_memory();
            let report = ToZygote::Report(Box::new(report), hardware.confinement);
            let sent = hardware.send_trace();
            match sent.and_then(|()| hardware.zygote.send(&report)) {
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
            // The last is a newcomer's.
            let pages = (0..placement.domains.len() + 2).map(|index| port::open(ports, index));
            Ok((memory, pages.collect::<io::Result<_>>()?))
        };
        let (memory, mut pages) = match open() {
            Ok(opened) => opened,
            Err(error) => return Err((zygote, error.into())),
        };
        let platform = spec.platform.config();
        let mut machine = Machine::new(
            Config {
                iommu: spec.iommu,
                interrupt_remapping: spec.intremap,
                acs: spec.acs,
                errors_are_fatal: matches!(spec.fault, Fault::B10 { fatal: true, .. }),
                fabric: spec.fabric,
                timeout_ends: spec.timeout_ends,
                messages: !matches!(spec.fault, Fault::I3 { .. }),
                interrupt_handler: placement.interrupts,
                interrupt_time: INTERRUPT_TIME,
                ats: matches!(spec.fault, Fault::D10 { trusted: true, .. }),
                reserved: matches!(spec.fault, Fault::D11 { .. }).then(devices::reserved),
                source_validation: spec.acs,
                high_memory: matches!(spec.fault, Fault::D3 { .. }),
                ..platform
            },
            memory,
        );
        let honest = device(spec.driver, spec.seed);
        let others = Edu::new(EduTiming::default());
        let neighbour = Neighbour {
            id: BYSTANDER,
            bar: machine.bar_address_after(honest.describe(), others.describe()),
            // An MSI-X table of its own comes before the registers.
            own: honest
                .describe()
                .bars
                .last()
                .map_or(Bar::ZERO, |bar| bar.bar),
        };
        let place = |route| match route {
            Route::Near => Place::Switch,
            Route::Far => Place::RootPort,
        };
        let route = spec.fault.sibling();
        // Near means near each other; far, that each has a root port.
        let own = route.map_or(Place::RootPort, place);
        let lie = told(&machine, spec, &neighbour);
        let (device, tally) = match (spec.fault, lie) {
            (Fault::Own { case, nth }, _) => {
                let tally = Arc::new(Tally::new());
                let strike = Strike {
                    case: case.get().case,
                    seed: spec.seed,
                    nth,
                };
                let hostile = (case.get().deed)(honest, strike, Arc::clone(&tally));
                (machine.plug_at(hostile, own), Some(tally))
            }
            (_, Some(lie)) => {
                let (tamper, tally) = Tamper::new(honest, vec![lie]);
                (machine.plug_at(Box::new(tamper), own), Some(tally))
            }
            (_, None) => (machine.plug_at(honest, own), None),
        };
        debug_assert_eq!(device, DEVICE);
        if matches!(spec.fault, Fault::D13 { .. })
            && let Err(error) = devices::lend_to_bystander(&mut machine, spec)
        {
            return Err((zygote, error.into()));
        }
        let sibling = route.map(|route| machine.plug_at(Box::new(others), place(route)));
        if matches!(spec.fault, Fault::I4 { .. }) {
            // A device of somebody else, whose interrupt is there to be forged.
            let bystander = machine.plug(Box::new(Edu::new(EduTiming::default())));
            debug_assert_eq!(bystander, BYSTANDER);
            if let Err(error) = machine.enable_interrupts(bystander, 1) {
                return Err((zygote, io::Error::other(error).into()));
            }
        }
        let spare_port = pages.pop();
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
            sibling,
            tally,
            units,
            cpus: [Cpu::default(); 2],
            zygote,
            confinement: None,
            marked: 0,
            reused: None,
            activated_at: None,
            stray: Vec::new(),
            detection: None,
            resets: 0,
            recovering: false,
            recovered_at: None,
            reset_waits: resets::Waits::default(),
            asked: 0,
            machine_check: false,
            system_lost: false,
            finished_at: None,
            lent: BTreeMap::new(),
            balloon: None,
            spare_port,
            epoch,
            begun: Time::ZERO,
            warming: spec.warm,
            spoilt: None,
            paid_before: [0; Toll::COUNT],
            mapped_before: 0,
            neighbour,
            recorder: None,
        })
    }

    fn now(&self) -> Time {
        self.machine.now()
    }

    /// Touches every frame it has not filled with a pattern, so that none of the machine's memory
    /// counts as a domain's own.
    fn share_all_memory(&self) {
        let others = MAP.iter().filter(|run| run.purpose != Use::Pattern);
        for frame in others.flat_map(|run| run.bytes().step_by(port::PAGE)) {
            // A frame that memory does not answer for is nobody's.
            let _ = self.machine.memory().read(PhysAddr(frame), &mut [0]);
        }
    }

    fn horizon(&self) -> Time {
        self.begun + Duration::from_nanos(self.spec.horizon_ns)
    }

    const fn supervisor(&self) -> usize {
        self.placement.domains.len()
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
                let who = format!("{}, which was started,", self.units[index].name);
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
                FromZygote::Weighs { index, bytes } => self.units[index].weighed = Some(bytes),
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
        unit.deaths.push(how.clone());
        unit.state = State::Dead;
        unit.serving = false;
        self.note(|| What::Died { who: index, how });
        if index == self.placement.server() {
            self.recovering = true;
            // What a host or a guest's KVM ends for a locked bus did lock it.
            let ended =
                storm::is_end_of(self.units[index].deaths.last().map_or("", String::as_str));
            if matches!(self.spec.fault, Fault::B8 { .. }) && ended {
                self.marked += 1;
                self.activated_at.get_or_insert(self.now());
            }
        }
        // A newcomer is in no table.
        let domain = self.placement.domains.get(index);
        if domain.is_some_and(|domain| domain.privileged) {
            self.lose_system();
        }
        self.units[supervisor].bells |= DEATH_BELL;
        // A virtual machine lives in its VMM.
        if let Some(Role::Emulates(tenant)) = domain.map(|domain| domain.role)
            && let Some(guest) = self.placement.tenant(tenant)
        {
            self.kill(guest, "its VMM died")?;
        }
        Ok(())
    }

    /// The privileged layer stopped: so does everything on it.
    fn lose_system(&mut self) {
        self.system_lost = true;
        self.note(|| What::SystemLost);
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
        unit.repetition = Repetition::new();
        unit.bells = 0;
        unit.serving = false;
        unit.state = State::Running;
        let generation = unit.restarts;
        self.note(|| What::Restarted {
            who: index,
            times: generation,
        });
        self.zygote.send(&ToZygote::Spawn { index, generation })?;
        self.await_hello(index)
    }

    /// An access does not complete: the CPU of the domain that made it stands still.
    fn freeze(&mut self, index: usize, until: Option<Time>, then: Ending) {
        if let Some(cpu) = self.units[index].cpu {
            let now = self.now();
            self.cpus[cpu] = Cpu {
                until: Some(until.unwrap_or(Time::NEVER)),
                since: now,
                again: then == Ending::Again,
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
            self.note_at(until, || What::Thawed { cpu: number });
            for index in 0..self.units.len() {
                let State::Frozen { then, access } = self.units[index].state else {
                    continue;
                };
                if self.units[index].cpu != Some(number) {
                    continue;
                }
                match then {
                    Ending::AllOnes => {
                        // The domain cuts it to the width it asked for.
                        self.units[index].state = State::Ready(Answer::with(u64::MAX, 0));
                    }
                    Ending::Value(value) => {
                        self.units[index].state = State::Ready(Answer::with(value, 0));
                    }
                    Ending::Again => self.units[index].state = self.access(index, access),
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

    /// What interrupts cost a CPU: those of the driver's device are its CPU's, those of another
    /// device the other's.
    fn interrupts_of(&self, cpu: usize) -> InterruptCost {
        self.machine.interrupt_cost(self.interrupting(cpu))
    }

    fn interrupting(&self, cpu: usize) -> RequesterId {
        if self.units[self.placement.server()].cpu == Some(cpu) {
            self.device
        } else {
            BYSTANDER
        }
    }

    /// Whether no domain of the unit's CPU can run: it is frozen, or in an interrupt handler.
    fn stands_still(&self, unit: &Unit) -> bool {
        unit.cpu.is_some_and(|cpu| {
            let interrupted = match self.spec.clock {
                ClockKind::Leap => self.machine.interrupted_until(self.interrupting(cpu)),
                ClockKind::Wall => self.cpus[cpu].interrupted,
            };
            self.cpus[cpu].until.is_some() || interrupted.is_some()
        })
    }

    /// Domains whose awaited event has come become ready.
    fn wake(&mut self) {
        let now = self.now();
        let reset = self
            .units
            .iter()
            .any(|unit| matches!(unit.state, State::Resetting));
        let over = match reset.then(|| self.machine.reset_progress(self.device)) {
            None | Some(ResetProgress::Waiting { .. }) => None,
            Some(ResetProgress::Done) => Some(Answer::DONE),
            Some(ResetProgress::Failed) => Some(Answer::REFUSED),
        };
        if over.is_some() {
            self.reset_waits.end(now);
        }
        for (index, unit) in self.units.iter_mut().enumerate() {
            if let (State::Resetting, Some(answer)) = (unit.state, over) {
                unit.state = State::Ready(answer);
            }
            let State::Waiting {
                vectors,
                bells,
                until,
                beats,
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
                unit.revives = beats.is_some();
                unit.state = State::Ready(Answer::with(raised.0, rang));
                if let Some(recorder) = &mut self.recorder {
                    recorder.wakes(now, index, raised, rang);
                }
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
            .filter(|(domain, _)| domain.role.tenant().is_some())
            .all(|(_, unit)| unit.finished || matches!(unit.state, State::Dead));
        if !all {
            return None;
        }
        let finished = *self.finished_at.get_or_insert(now);
        let settled = match (self.spec.fault, self.activated_at) {
            (Fault::None, _) => finished,
            _ if self.warming => finished,
            (_, Some(activated)) => finished.max(activated + AFTERMATH),
            (_, None) => finished + LINGER,
        };
        (now >= settled).then_some(End::Finished)
    }

    /// The earliest time at which anything happens by itself.
    fn next_event(&self) -> Time {
        let waits = self.units.iter().filter_map(|unit| match unit.state {
            State::Waiting { until, .. } if !self.stands_still(unit) => Some(until),
            _ => None,
        });
        let thaws = self
            .cpus
            .iter()
            .flat_map(|cpu| [cpu.until, cpu.interrupted]);
        let thaws = thaws.flatten();
        let awaited = self
            .units
            .iter()
            .any(|unit| matches!(unit.state, State::Resetting));
        let reset = self.machine.reset_until(self.device).filter(|_| awaited);
        waits
            .chain(thaws)
            .chain(reset)
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

    /// Requests the server has answered so far (wall clock, where answers make no call).
    fn answered(&self) -> u64 {
        self.placement
            .served_rings()
            .map(|(ring, _)| {
                let ring = PhysAddr(ring::ring_start(ring));
                // SAFETY: as in `events_of_server`.
                let header = unsafe { ring::header(self.machine.memory().pointer(ring)) };
                u64::from(header.answered())
            })
            .sum()
    }

    /// The event words of the server, in this process's mapping (wall clock).
    fn events_of_server(&self) -> &ring::EventWords {
        let start = ring::events_start(Role::Serves, self.placement.server()).unwrap_or(0);
        let pointer = self.machine.memory().pointer(PhysAddr(start));
        // SAFETY: the machine's memory maps every frame for as long as the machine lives, which
        // the borrow of self bounds.
        unsafe { ring::words(pointer) }
    }
}
