//! The zygote: a single-threaded process that maps no machine memory and forks all that do.
//!
//! It is started by executing the program anew, so a fork copies nothing of a coordinator that has
//! threads, files or secrets. Everything it forks dies with it; it dies with its coordinator; the
//! memory files have no name. So nothing is left behind whoever is killed.

use crate::crossing::{PingPong, Rounds, Waiting};
use crate::domain::{self, Duty};
use crate::guest;
use crate::hardware::{self, FromZygote, ToZygote};
use crate::jail::{self, Confinement};
use crate::link::monotonic;
use crate::own::{self, Source};
use crate::placement::{Placement, Wall};
use crate::port;
use crate::probe;
use crate::resident;
use crate::sabotage::BYSTANDER;
use crate::shared;
use crate::trace::{Event, Trace};
use crate::trial::{ClockKind, DataPath, DriverId, Fault, PlacementId, TrialReport, TrialSpec};
use crate::wire::Channel;
use cofferdam_machine::Memory;
use cofferdam_machine::frames::MEMORY;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::{ForkResult, Pid, fork, getpid, getppid};
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use thiserror::Error;

/// The hidden first argument by which a program becomes the zygote.
pub const ARGUMENT: &str = "__zygote";

/// The descriptor the coordinator is at, in a zygote.
const COORDINATOR: i32 = 0;

/// Wall time a trial may take beyond its horizon (wall clock), or altogether (leap).
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Debug, Serialize, Deserialize)]
enum Job {
    /// A user's file that later jobs may name.
    Know(Box<Source>),
    /// The trials of a boot, and whether to trace them.
    Boot(Vec<TrialSpec>, bool),
    ProbeJail(PlacementId),
    Crossing(PlacementId, Rounds),
    PingPong(Rounds),
}

#[derive(Debug, Serialize, Deserialize)]
enum Done {
    /// A trial of a boot that goes on.
    Next(Box<TrialReport>),
    /// The last.
    Trial(Box<TrialReport>, Option<Confinement>),
    /// Some of a trace: the rest, and then the trial, follow.
    Trace(Vec<Event>, u64),
    Probed(Vec<(String, String)>),
    Took(u64),
    Known,
    Failed(String),
}

/// Why a trial has no report. Never a finding.
#[derive(Debug, Error)]
pub enum ZygoteError {
    /// The zygote could not be started.
    #[error("cannot start the trial process: {0}")]
    Start(io::Error),
    /// It is gone, or did not answer in time: start another.
    #[error("the trial process {0}; it will have to be started again")]
    Gone(String),
    /// The trial could not be carried out here.
    #[error("the trial could not be carried out: {0}")]
    Failed(String),
}

/// The coordinator's handle on a zygote.
#[derive(Debug)]
pub struct Zygote {
    channel: Channel,
    child: Child,
    confinement: Option<Confinement>,
}

impl Zygote {
    /// Starts a zygote by executing `program` with [`ARGUMENT`]; the program must then call
    /// [`main`] before anything else.
    pub fn launch(program: &std::path::Path) -> Result<Self, ZygoteError> {
        Self::launch_with(program, &[])
    }

    /// The same, with these variables in its environment.
    pub fn launch_with(
        program: &std::path::Path,
        variables: &[(&str, &str)],
    ) -> Result<Self, ZygoteError> {
        let (ours, theirs) = Channel::pair().map_err(ZygoteError::Start)?;
        let child = Command::new(program)
            .arg(ARGUMENT)
            .arg(getpid().to_string())
            .envs(variables.iter().copied())
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            // A Ctrl-C at the terminal is the coordinator's to answer: the running trial finishes.
            .process_group(0)
            .spawn()
            .map_err(ZygoteError::Start)?;
        let mut zygote = Self {
            channel: ours,
            child,
            confinement: None,
        };
        for source in own::sources() {
            zygote.tell(source)?;
        }
        Ok(zygote)
    }

    /// Makes it know a user's file, which a trial may name.
    fn tell(&mut self, source: Source) -> Result<(), ZygoteError> {
        match self.ask(&Job::Know(Box::new(source)), PATIENCE)? {
            Done::Known => Ok(()),
            other => Err(ZygoteError::Gone(format!("answered {other:?}"))),
        }
    }

    /// Runs a trial.
    pub fn run(&mut self, spec: &TrialSpec) -> Result<TrialReport, ZygoteError> {
        Ok(self.boot(std::slice::from_ref(spec), false)?.last)
    }

    /// Runs trials in one boot: the first, and of the others as many, in their order, as find
    /// everything as the first did. Each must be one that
    /// [may follow](TrialSpec::may_be_followed_by) the one before it.
    pub fn run_boot(&mut self, specs: &[TrialSpec]) -> Result<Vec<TrialReport>, ZygoteError> {
        let booted = self.boot(specs, false)?;
        let mut reports = booted.before;
        reports.push(booted.last);
        Ok(reports)
    }

    /// Runs a trial and writes down what happens in it. Under leap the report is that of
    /// [`Zygote::run`].
    pub fn run_traced(&mut self, spec: &TrialSpec) -> Result<(TrialReport, Trace), ZygoteError> {
        let booted = self.boot(std::slice::from_ref(spec), true)?;
        Ok((booted.last, booted.trace))
    }

    /// Runs trials as [`Zygote::run_boot`] does and writes down what happens in the boot.
    pub fn run_boot_traced(
        &mut self,
        specs: &[TrialSpec],
    ) -> Result<(Vec<TrialReport>, Trace), ZygoteError> {
        let booted = self.boot(specs, true)?;
        let mut reports = booted.before;
        reports.push(booted.last);
        Ok((reports, booted.trace))
    }

    fn boot(&mut self, specs: &[TrialSpec], traced: bool) -> Result<Booted, ZygoteError> {
        let limit = specs.iter().map(patience).sum();
        let mut done = self.ask(&Job::Boot(specs.to_vec(), traced), limit)?;
        let mut before = Vec::new();
        let mut trace = Trace::default();
        loop {
            match done {
                Done::Next(report) => before.push(*report),
                Done::Trace(events, dropped) => {
                    trace.events.extend(events);
                    trace.dropped += dropped;
                }
                Done::Trial(last, confinement) => {
                    self.confinement = confinement;
                    return Ok(Booted {
                        before,
                        last: *last,
                        trace,
                    });
                }
                other => return Err(ZygoteError::Gone(format!("answered {other:?}"))),
            }
            done = self.hear(limit)?;
        }
    }

    /// Has every domain of a placement try to break out; tells attempt and outcome, domain by
    /// domain.
    pub fn probe_jail(
        &mut self,
        placement: PlacementId,
    ) -> Result<Vec<(String, String)>, ZygoteError> {
        match self.ask(&Job::ProbeJail(placement), PATIENCE)? {
            Done::Probed(attempts) => Ok(attempts),
            other => Err(ZygoteError::Gone(format!("answered {other:?}"))),
        }
    }

    /// Measures empty requests of a tenant through a placement's crossing: the time they took, ns.
    pub fn crossing(&mut self, placement: PlacementId, rounds: Rounds) -> Result<u64, ZygoteError> {
        self.took(&Job::Crossing(placement, rounds))
    }

    /// Measures a bare ping-pong between two processes: the time it took, ns.
    pub fn ping_pong(&mut self, rounds: Rounds) -> Result<u64, ZygoteError> {
        self.took(&Job::PingPong(rounds))
    }

    fn took(&mut self, job: &Job) -> Result<u64, ZygoteError> {
        match self.ask(job, PATIENCE)? {
            Done::Took(nanos) => Ok(nanos),
            other => Err(ZygoteError::Gone(format!("answered {other:?}"))),
        }
    }

    /// How confined the domains of the last trial were: the weakest of them.
    pub fn confinement(&self) -> Option<Confinement> {
        self.confinement
    }

    /// The zygote's process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn ask(&mut self, job: &Job, limit: Duration) -> Result<Done, ZygoteError> {
        let gone = |what: &str| ZygoteError::Gone(what.to_owned());
        self.channel
            .send(job)
            .map_err(|error| gone(&format!("is gone ({error})")))?;
        self.hear(limit)
    }

    fn hear(&mut self, limit: Duration) -> Result<Done, ZygoteError> {
        let gone = |what: &str| ZygoteError::Gone(what.to_owned());
        match self.channel.receive(limit) {
            Ok(Some(Done::Failed(why))) => Err(ZygoteError::Failed(why)),
            Ok(Some(done)) => Ok(done),
            Ok(None) => Err(gone(&format!(
                "did not answer within {} s",
                limit.as_secs()
            ))),
            Err(error) => Err(gone(&format!("is gone ({error})"))),
        }
    }
}

/// What came of a boot.
struct Booted {
    before: Vec<TrialReport>,
    last: TrialReport,
    trace: Trace,
}

/// How long a trial may take.
fn patience(spec: &TrialSpec) -> Duration {
    match spec.clock {
        ClockKind::Leap => PATIENCE,
        ClockKind::Wall => PATIENCE + Duration::from_nanos(spec.horizon_ns),
    }
}

impl Drop for Zygote {
    fn drop(&mut self) {
        // Everything it forked dies with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// This process's zygotes and what they forked, as far as it is still there. When no zygote is, that
/// is what was left behind, with the memory it shares: what is dying gets so long to be gone.
pub fn left_behind(within: Duration) -> io::Result<Vec<u32>> {
    let until = std::time::Instant::now() + within;
    loop {
        let left = of_trials()?;
        if left.is_empty() || std::time::Instant::now() >= until {
            return Ok(left);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A fork keeps the command line, which names the zygote's argument and this process.
fn of_trials() -> io::Result<Vec<u32>> {
    let me = getpid().to_string();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // A process that ended meanwhile has no command line.
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = line.split(|byte| *byte == 0).skip(1);
        if words.next() == Some(ARGUMENT.as_bytes()) && words.next() == Some(me.as_bytes()) {
            found.push(pid);
        }
    }
    Ok(found)
}

/// The zygote's life. Call it first thing when the first argument is [`ARGUMENT`]; it does not
/// return.
pub fn main() -> ! {
    let code = match live() {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("cofferdam: trial process: {error}");
            3
        }
    };
    std::process::exit(code)
}

fn live() -> io::Result<()> {
    let coordinator = std::env::args()
        .nth(2)
        .and_then(|pid| pid.parse().ok())
        .map(Pid::from_raw);
    jail::die_with(coordinator.unwrap_or_else(getppid)).map_err(io::Error::other)?;
    // SAFETY: the coordinator put one end of a socket pair there, and nobody else reads stdin.
    let channel = Channel::over(unsafe { OwnedFd::from_raw_fd(COORDINATOR) });
    let cores = Cores::here()?;
    Memory::prepare_pattern();
    loop {
        let job = match channel.receive::<Job>(Duration::from_secs(3600)) {
            Ok(Some(job)) => job,
            Ok(None) => continue,
            // The coordinator closed its end: done.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        };
        let done = match job {
            Job::Boot(specs, traced) => {
                let tell = Tell {
                    coordinator: &channel,
                    traced,
                };
                Trial::start(&specs, &cores, None, Some(tell)).and_then(Trial::attend)
            }
            Job::Know(source) => own::register(&source)
                .map(|_| Done::Known)
                .map_err(io::Error::other),
            Job::ProbeJail(id) => probe_jail(id.placement()),
            Job::Crossing(id, rounds) => crossing(id, rounds, &cores),
            Job::PingPong(rounds) => ping_pong(rounds, &cores),
        };
        channel.send(&done.unwrap_or_else(|error| Done::Failed(error.to_string())))?;
    }
}

/// Where processes run. Under leap one runs at a time, so all share a core and hand it over without
/// waking another; under the wall clock the hardware has one core, the domains the other.
struct Cores {
    leap: usize,
    hardware: usize,
    domains: usize,
    /// Of who stands between the two sides of a measurement.
    between: usize,
    count: usize,
}

impl Cores {
    fn here() -> io::Result<Self> {
        let allowed = sched_getaffinity(Pid::from_raw(0))?;
        let cores: Vec<usize> = (0..CpuSet::count())
            .filter(|cpu| allowed.is_set(*cpu).unwrap_or(false))
            .collect();
        let nth = |n: usize| cores.get(n % cores.len().max(1)).copied().unwrap_or(0);
        // Several zygotes at once spread over the cores.
        let leap = nth(usize::try_from(getpid().as_raw()).unwrap_or(0));
        Ok(Self {
            leap,
            hardware: nth(0),
            domains: nth(1),
            between: nth(2),
            count: cores.len(),
        })
    }

    fn pin(core: usize) -> io::Result<()> {
        let mut set = CpuSet::new();
        set.set(core)?;
        Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
    }
}

/// A process the zygote forked.
struct Forked {
    index: usize,
    pid: Pid,
    pidfd: OwnedFd,
    /// A SIGKILL was sent from here.
    sentenced: bool,
}

/// Index of the hardware among the forked.
const HARDWARE: usize = usize::MAX;

/// Who hears of a trial while it runs.
#[derive(Clone, Copy)]
struct Tell<'a> {
    coordinator: &'a Channel,
    /// Whether it wants a trace.
    traced: bool,
}

/// A running trial, and those that follow it in its boot, from the zygote's side.
struct Trial<'a> {
    spec: &'a TrialSpec,
    others: &'a [TrialSpec],
    placement: &'static Placement,
    cores: &'a Cores,
    crossing: Option<Rounds>,
    tell: Option<Tell<'a>>,
    memory: OwnedFd,
    ports: OwnedFd,
    epoch: u64,
    hardware: Channel,
    forked: Vec<Forked>,
}

impl<'a> Trial<'a> {
    fn start(
        specs: &'a [TrialSpec],
        cores: &'a Cores,
        crossing: Option<Rounds>,
        tell: Option<Tell<'a>>,
    ) -> io::Result<Self> {
        let Some((spec, others)) = specs.split_first() else {
            return Err(io::Error::other("there is no trial to run"));
        };
        let follows =
            |pair: &[TrialSpec]| matches!(pair, [one, next] if one.may_be_followed_by(next));
        if !specs.windows(2).all(follows) {
            return Err(io::Error::other(
                "these trials cannot share a boot: run each by itself",
            ));
        }
        let placement = spec.placement.placement();
        if spec.data == DataPath::ZeroCopy && !placement.lends_pages() {
            let id = placement.id;
            return Err(io::Error::other(format!(
                "{id} lends the driver no page of a tenant: choose another placement, or data by copy"
            )));
        }
        if placement.wall == Wall::Guest && guest::in_payload(spec.driver).is_none() {
            return Err(io::Error::other(format!(
                "{} is not among the drivers that run in a guest: choose another placement, or one of them",
                spec.driver.key()
            )));
        }
        if let Some(why) = spec.fault.by_wall() {
            if spec.clock == ClockKind::Leap {
                let id = spec.fault.id();
                return Err(io::Error::other(format!("{id} shows nothing: {why}")));
            }
            if placement.tenants == Wall::Guest {
                let id = placement.id;
                return Err(io::Error::other(format!(
                    "{id} has its bystander in a guest, where there is no clock to time memory with: choose another placement"
                )));
            }
            if cores.count < 2 {
                return Err(io::Error::other(
                    "the driver and the bystander need a core each; there is one",
                ));
            }
        }
        let memory = shared::file(c"cofferdam-memory", MEMORY)?;
        let pages = placement.domains.len() + 1;
        // One more for a newcomer.
        let ports = shared::file(c"cofferdam-ports", ((pages + 1) * port::PAGE) as u64)?;
        let (ours, theirs) = Channel::pair()?;
        let epoch = monotonic();
        let mut trial = Self {
            spec,
            others,
            placement,
            cores,
            crossing,
            tell,
            memory,
            ports,
            epoch,
            hardware: ours,
            forked: Vec::new(),
        };
        trial.fork_hardware(theirs)?;
        for index in 0..pages {
            trial.fork_domain(index, 0, None)?;
        }
        Ok(trial)
    }

    fn fork_hardware(&mut self, channel: Channel) -> io::Result<()> {
        let parent = getpid();
        // SAFETY: this process has one thread, so the child may do anything.
        match unsafe { fork() }? {
            ForkResult::Child => {
                let code = self.be_hardware(channel, parent);
                // SAFETY: ends the child without running the zygote's destructors.
                unsafe { libc::_exit(code) }
            }
            ForkResult::Parent { child } => self.adopt(HARDWARE, child),
        }
    }

    fn be_hardware(&self, channel: Channel, parent: Pid) -> i32 {
        let ready = jail::die_with(parent)
            .map_err(io::Error::other)
            .and_then(|()| {
                Cores::pin(match self.spec.clock {
                    ClockKind::Leap => self.cores.leap,
                    ClockKind::Wall => self.cores.hardware,
                })
            });
        let ran = match ready {
            Ok(()) => hardware::run(
                self.spec,
                self.others,
                self.memory.as_fd(),
                self.ports.as_fd(),
                channel,
                self.epoch,
                self.tell.is_some_and(|tell| tell.traced),
            ),
            Err(error) => Err((channel, error.into())),
        };
        match ran {
            Ok(_) => 0,
            Err((channel, failure)) => {
                let told = channel.send(&ToZygote::Failed(failure.to_string()));
                // As after a report: until the zygote has it.
                while let Ok(Some(_)) = channel.receive::<FromZygote>(Duration::from_secs(10)) {}
                i32::from(told.is_err()) + 3
            }
        }
    }

    fn fork_domain(
        &mut self,
        index: usize,
        generation: u32,
        newcomer: Option<u64>,
    ) -> io::Result<Pid> {
        let parent = getpid();
        let core = match self.spec.clock {
            ClockKind::Leap => self.cores.leap,
            ClockKind::Wall if index == self.placement.domains.len() => self.cores.hardware,
            ClockKind::Wall
                if self.crossing.is_some()
                    && index == self.placement.attendant(1)
                    && index != self.placement.server() =>
            {
                self.cores.between
            }
            // A measurement has its two sides on a core each.
            ClockKind::Wall if self.crossing.is_some() && index != self.placement.server() => {
                self.cores.hardware
            }
            // Who looks at what the driver's core does to it is on another.
            ClockKind::Wall if self.looks(index) => self.cores.hardware,
            ClockKind::Wall => self.cores.domains,
        };
        // SAFETY: this process has one thread, so the child may do anything.
        match unsafe { fork() }? {
            ForkResult::Child => {
                let _ = Cores::pin(core);
                let duty = Duty::Trial {
                    spec: self.spec,
                    generation,
                    epoch: self.epoch,
                    crossing: self.crossing,
                    newcomer,
                };
                let (memory, ports) = (self.memory.as_fd(), self.ports.as_fd());
                domain::run(self.placement, index, memory, ports, parent, &duty)
            }
            ForkResult::Parent { child } => {
                self.adopt(index, child)?;
                Ok(child)
            }
        }
    }

    /// Whether that domain is the bystander of a fault that shows in what it notices.
    fn looks(&self, index: usize) -> bool {
        self.spec.fault.by_wall().is_some() && self.placement.tenant(BYSTANDER) == Some(index)
    }

    fn adopt(&mut self, index: usize, pid: Pid) -> io::Result<()> {
        // SAFETY: asks for a new descriptor; `pid` is an unreaped child of this process.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
        let fd = i32::try_from(fd).map_err(io::Error::other)?;
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made and belongs to nobody else.
        let pidfd = unsafe { OwnedFd::from_raw_fd(fd) };
        self.forked.push(Forked {
            index,
            pid,
            pidfd,
            sentenced: false,
        });
        if index != HARDWARE {
            let pid = pid.as_raw();
            self.hardware.send(&FromZygote::Spawned { index, pid })?;
        }
        Ok(())
    }

    /// Does what the hardware asks until it reports.
    fn attend(mut self) -> io::Result<Done> {
        loop {
            let mut fds: Vec<PollFd<'_>> =
                vec![PollFd::new(self.hardware.as_fd(), PollFlags::POLLIN)];
            fds.extend(
                self.forked
                    .iter()
                    .map(|f| PollFd::new(f.pidfd.as_fd(), PollFlags::POLLIN)),
            );
            match poll(&mut fds, PollTimeout::from(1000_u16)) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            let asked = fds[0].any().unwrap_or(false);
            let dead: Vec<usize> = (1..fds.len())
                .filter(|at| fds[*at].any().unwrap_or(false))
                .map(|at| at - 1)
                .collect();
            drop(fds);
            if asked {
                match self.hardware.receive::<ToZygote>(Duration::ZERO) {
                    Ok(Some(ToZygote::Trace(events, dropped))) => {
                        self.tell(&Done::Trace(events, dropped))?;
                    }
                    Ok(Some(ToZygote::Next(report))) => self.tell(&Done::Next(report))?,
                    Ok(Some(ToZygote::Report(mut report, confinement))) => {
                        self.weigh(&mut report);
                        return Ok(Done::Trial(report, confinement));
                    }
                    Ok(Some(ToZygote::Failed(why))) => return Ok(Done::Failed(why)),
                    Ok(Some(asked)) => self.obey(asked)?,
                    Ok(None) => {}
                    Err(error) => {
                        return Ok(Done::Failed(format!(
                            "the hardware process is gone ({error})"
                        )));
                    }
                }
            }
            for at in dead.into_iter().rev() {
                let gone = self.forked.swap_remove(at);
                let status = waitpid(gone.pid, None)?;
                if gone.index == HARDWARE {
                    return Ok(Done::Failed(format!(
                        "the hardware process ended: {}",
                        in_words(status)
                    )));
                }
                let foreign = !gone.sentenced
                    && matches!(status, WaitStatus::Signaled(_, signal, _)
                    if !matches!(signal, Signal::SIGSEGV | Signal::SIGBUS | Signal::SIGILL
                        | Signal::SIGFPE | Signal::SIGABRT | Signal::SIGTRAP));
                let died = FromZygote::Died {
                    index: gone.index,
                    how: in_words(status),
                    foreign,
                };
                self.hardware.send(&died)?;
                port::rouse(self.ports.as_fd(), gone.index)?;
            }
        }
    }

    /// Notes how much memory each living domain has to itself.
    fn weigh(&self, report: &mut TrialReport) {
        // A newcomer's index comes after the supervisor's.
        let own = self.placement.domains.len();
        let indices = (0..own).chain(own + 1..);
        for (index, domain) in indices.zip(&mut report.domains) {
            let living = self.forked.iter().find(|forked| forked.index == index);
            domain.resident_bytes =
                living.and_then(|forked| resident::unique_set(forked.pid.as_raw()));
        }
    }

    fn obey(&mut self, asked: ToZygote) -> io::Result<()> {
        match asked {
            ToZygote::Spawn { index, generation } => {
                self.fork_domain(index, generation, None)?;
            }
            ToZygote::SpawnNewcomer { index, page } => {
                self.fork_domain(index, 0, Some(page))?;
            }
            ToZygote::Weigh(index) => {
                let living = self.forked.iter().find(|forked| forked.index == index);
                let bytes = living.and_then(|forked| resident::window(forked.pid.as_raw()));
                self.hardware.send(&FromZygote::Weighs { index, bytes })?;
            }
            ToZygote::Kill(index) => {
                if let Some(forked) = self.forked.iter_mut().find(|forked| forked.index == index) {
                    forked.sentenced = true;
                    kill(forked.pid, Signal::SIGKILL)?;
                }
            }
            ToZygote::Stop(index) => {
                if let Some(forked) = self.forked.iter().find(|forked| forked.index == index) {
                    kill(forked.pid, Signal::SIGSTOP)?;
                    let flags = WaitPidFlag::WSTOPPED | WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
                    waitid(Id::PIDFd(forked.pidfd.as_fd()), flags)?;
                    // Take the stop, if it was one, and leave a death to be found by its pidfd.
                    let flags = WaitPidFlag::WSTOPPED | WaitPidFlag::WNOHANG;
                    let _ = waitid(Id::PIDFd(forked.pidfd.as_fd()), flags);
                    self.hardware.send(&FromZygote::Stopped(index))?;
                }
            }
            ToZygote::Continue(index) => {
                if let Some(forked) = self.forked.iter().find(|forked| forked.index == index) {
                    kill(forked.pid, Signal::SIGCONT)?;
                }
            }
            ToZygote::Trace(..)
            | ToZygote::Next(_)
            | ToZygote::Report(..)
            | ToZygote::Failed(_) => {}
        }
        Ok(())
    }

    fn tell(&self, done: &Done) -> io::Result<()> {
        self.tell.map_or(Ok(()), |tell| tell.coordinator.send(done))
    }
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        for forked in &self.forked {
            let _ = kill(forked.pid, Signal::SIGKILL);
        }
        for forked in &self.forked {
            let _ = waitpid(forked.pid, None);
        }
    }
}

/// Measures a crossing: a wall-clock trial whose tenants do nothing else.
fn crossing(id: PlacementId, rounds: Rounds, cores: &Cores) -> io::Result<Done> {
    if id.placement().housing().is_some() {
        return Err(io::Error::other(
            "the driver is in the tenant that calls it: nothing is crossed",
        ));
    }
    if id.placement().tenants == Wall::Guest {
        return Err(io::Error::other(
            "its tenants are in guests, which do not measure: see the same placement with processes, and \
             count the exits of its trials",
        ));
    }
    let parties = id.placement().parties();
    if rounds.waiting == Waiting::Spin && cores.count < parties {
        return Err(io::Error::other(format!(
            "polling needs a core for each of {parties} domains; there are {}",
            cores.count
        )));
    }
    let clean = TrialSpec::new(id, DriverId::Edu, Fault::None);
    let spec = TrialSpec {
        clock: ClockKind::Wall,
        horizon_ns: 60_000_000_000,
        ..clean
    };
    Ok(
        match Trial::start(std::slice::from_ref(&spec), cores, Some(rounds), None)?.attend()? {
            Done::Trial(report, _) => match report.io.first() {
                Some(io) if io.finished => Done::Took(io.longest_ns),
                _ => Done::Failed("the requests did not end before the horizon".into()),
            },
            other => other,
        },
    )
}

/// Measures a bare ping-pong between two processes, a core each.
fn ping_pong(rounds: Rounds, cores: &Cores) -> io::Result<Done> {
    let page = shared::file(c"cofferdam-pingpong", size_of::<PingPong>() as u64)?;
    let play = |core, first| -> io::Result<Pid> {
        let parent = getpid();
        // SAFETY: this process has one thread, so the child may do anything.
        match unsafe { fork() }? {
            ForkResult::Child => {
                let played = jail::die_with(parent)
                    .map_err(io::Error::other)
                    .and_then(|()| Cores::pin(core))
                    .and_then(|()| PingPong::open(page.as_fd()))
                    .map(|words| words.play(first, rounds));
                // SAFETY: ends the child without running the zygote's destructors.
                unsafe { libc::_exit(i32::from(played.is_err())) }
            }
            ForkResult::Parent { child } => Ok(child),
        }
    };
    let children = [play(cores.domains, false)?, play(cores.hardware, true)?];
    for child in children {
        match waitpid(child, None)? {
            WaitStatus::Exited(_, 0) => {}
            status => {
                return Ok(Done::Failed(format!(
                    "a player ended: {}",
                    in_words(status)
                )));
            }
        }
    }
    Ok(Done::Took(PingPong::open(page.as_fd())?.took()))
}

fn in_words(status: WaitStatus) -> String {
    match status {
        WaitStatus::Exited(_, port::EXIT_ORPHANED) => "the hardware no longer answered".into(),
        WaitStatus::Exited(_, code) => format!("exit code {code}"),
        WaitStatus::Signaled(_, signal, _) => signal.as_str().into(),
        other => format!("{other:?}"),
    }
}

/// Has every domain of a placement, and the supervisor, try to break out.
fn probe_jail(placement: &'static Placement) -> io::Result<Done> {
    let memory = shared::file(c"cofferdam-memory", MEMORY)?;
    let count = placement.domains.len() + 1;
    let ports = shared::file(c"cofferdam-ports", (count * port::PAGE) as u64)?;
    let mut attempts = Vec::new();
    for index in 0..count {
        let name = placement
            .domains
            .get(index)
            .map_or("supervisor", |domain| domain.name);
        let parent = getpid();
        // SAFETY: this process has one thread, so the child may do anything.
        let child = match unsafe { fork() }? {
            ForkResult::Child => domain::run(
                placement,
                index,
                memory.as_fd(),
                ports.as_fd(),
                parent,
                &Duty::ProbeJail,
            ),
            ForkResult::Parent { child } => child,
        };
        let status = waitpid(child, None)?;
        let told = port::open(ports.as_fd(), index)?.text().unwrap_or_default();
        let read = probe::read_attempts(&told);
        if status != WaitStatus::Exited(child, 0) || read.len() != probe::COUNT {
            return Ok(Done::Failed(format!(
                "{name} could not be probed: {} {told}",
                in_words(status)
            )));
        }
        attempts.extend(
            read.into_iter()
                .map(|(what, outcome)| (format!("{name}: {what}"), outcome)),
        );
    }
    Ok(Done::Probed(attempts))
}
