//! The process that starts a campaign's workers, joins them, and outlives them.
//!
//! No driver runs here. A worker is a process with a socket; what one finds the others hear of, by messages
//! that are read as anybody's are. Shared memory, as LibAFL's LLMP has it, would be faster than anybody needs,
//! since only news are told, and writable by every driver that has lost its way.

use crate::arguments::Fuzz;
use crate::interrupt;
use crate::message::{self, Down, Progress, Up};
use crate::peer::{self, Peers};
use crate::status::Teller;
use crate::worker::CORPUS;
use crate::{FOUND, INFRASTRUCTURE, USAGE, crash, fail};
use cofferdam_fuzz::campaign::{FINDINGS, WAITS};
use cofferdam_fuzz::finding::{Finding, PROGRAM, read_report, tidy};
use cofferdam_fuzz::target::Target;
use std::collections::HashSet;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, BufReader, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// How often it looks at clocks and signals.
const TICK: Duration = Duration::from_millis(100);

/// How long workers have to end.
const GRACE: Duration = Duration::from_secs(20);

/// How much longer than an execution a worker may be silent.
const SILENCE: Duration = Duration::from_secs(30);

/// Messages that may wait for a worker or a peer that is busy; programs beyond that are not passed on.
pub const QUEUE: usize = 4096;

/// Lives in a row that may end before an execution was told of.
const STILLBORN: u32 = 20;

/// Something that happened.
pub enum Event {
    /// A worker said something.
    Heard {
        /// Which job.
        job: usize,
        /// What.
        message: Up,
    },
    /// A worker's socket was closed: it is gone, or as good as.
    Closed {
        /// Which job.
        job: usize,
    },
    /// Another machine.
    Peer(peer::Said),
    /// Somebody at the terminal wants it to end.
    Quit,
}

/// One of the workers, life after life.
pub struct Job {
    child: Child,
    to: Option<SyncSender<Arc<[u8]>>>,
    /// Lives before this one.
    pub life: u64,
    /// Executions of those.
    spent: u64,
    /// What this life told last.
    pub progress: Progress,
    /// Executions that its driver told of when it took the process down.
    died: Option<u64>,
    silent: Duration,
    stillborn: u32,
    /// Whether it goes on.
    pub running: bool,
}

impl Job {
    /// Executions of all its lives.
    pub fn executions(&self) -> u64 {
        self.spent + self.progress.executions
    }

    fn send(&self, line: &Arc<[u8]>) {
        if let Some(to) = &self.to {
            // One that is that far behind has enough to do.
            let _ = to.try_send(Arc::clone(line));
        }
    }
}

struct Supervisor<'a> {
    arguments: &'a Fuzz,
    out: PathBuf,
    me: PathBuf,
    events: SyncSender<Event>,
    jobs: Vec<Job>,
    peers: Peers,
    teller: Teller,
    /// What was found before this campaign, or announced in it.
    known: HashSet<String>,
    /// Programs that came from elsewhere, or went there.
    passed_on: HashSet<u64>,
}

/// Runs a campaign.
pub fn fuzz(target: &'static dyn Target, arguments: &Fuzz) -> ExitCode {
    let out = arguments.out();
    match supervise(target, arguments, &out) {
        Ok(before) => {
            let found = names(&out.join(FINDINGS)).len();
            let new = found.saturating_sub(before);
            eprintln!(
                "cofferdam: {found} findings in {} ({new} new)",
                out.join(FINDINGS).display()
            );
            if found > 0 {
                ExitCode::from(FOUND)
            } else {
                ExitCode::SUCCESS
            }
        }
        // A worker that failed has said why.
        Err((why, code)) if why.is_empty() => ExitCode::from(code),
        Err((why, code)) => fail(why, code),
    }
}

/// How many findings there were before.
fn supervise(
    target: &'static dyn Target,
    arguments: &Fuzz,
    out: &Path,
) -> Result<usize, (String, u8)> {
    let harness = |error: io::Error| (error.to_string(), INFRASTRUCTURE);
    let corpus = out.join(CORPUS);
    fs::create_dir_all(&corpus)
        .map_err(|error| (format!("{}: {error}", corpus.display()), INFRASTRUCTURE))?;
    clean(out, is_gone);
    let before = names(&out.join(FINDINGS));
    let mut known: HashSet<String> = before.iter().cloned().collect();
    known.extend(names(&out.join(WAITS)));
    interrupt::watch();
    let (events, happened) = sync_channel(QUEUE);
    let mut peers = Peers::new(target, out.to_owned(), events.clone());
    if let Some(place) = &arguments.listen {
        let bound = peers.listen(*place).map_err(|why| (why, USAGE))?;
        eprintln!("cofferdam: others join by --broker {bound}");
    }
    if let Some(place) = &arguments.broker {
        peers.join(place).map_err(|why| (why, USAGE))?;
    }
    let mut supervisor = Supervisor {
        arguments,
        out: out.to_owned(),
        me: std::env::current_exe().map_err(harness)?,
        events: events.clone(),
        jobs: Vec::new(),
        peers,
        teller: Teller::new(target, arguments, events),
        known,
        passed_on: HashSet::new(),
    };
    let ran = supervisor.run(&happened);
    supervisor.end();
    ran.map(|()| before.len())
}

impl Supervisor<'_> {
    fn run(&mut self, happened: &Receiver<Event>) -> Result<(), (String, u8)> {
        let began = Instant::now();
        for index in 0..self.arguments.jobs {
            let job = self.start(index, 0, self.share(index))?;
            self.jobs.push(job);
        }
        let mut looked = Instant::now();
        let mut ending: Option<Duration> = None;
        while self.jobs.iter().any(|job| job.running) {
            match happened.recv_timeout(TICK) {
                Ok(event) => {
                    let is_over = ending.is_some();
                    if self.handle(event, is_over)? && !is_over {
                        ending = Some(Duration::ZERO);
                        self.tell_the_end();
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            // Not more than the loop was awake: it may have been stopped for an hour.
            let passed = looked.elapsed().min(2 * TICK);
            looked = Instant::now();
            let late = self
                .arguments
                .time
                .is_some_and(|time| began.elapsed() >= time);
            if ending.is_none() && (late || interrupt::asked()) {
                ending = Some(Duration::ZERO);
                self.tell_the_end();
            }
            if let Some(ending) = &mut ending {
                *ending += passed;
                if *ending > GRACE {
                    self.kill_all();
                }
            }
            self.look_after(passed);
            self.teller.tell(&self.jobs, self.peers.count(), false);
        }
        self.teller.tell(&self.jobs, self.peers.count(), true);
        Ok(())
    }

    /// Nobody is left when this returns, and nothing unfinished.
    fn end(&mut self) {
        self.kill_all();
        let mut gone = HashSet::new();
        for job in &mut self.jobs {
            // It was killed, or has ended.
            let _ = job.child.wait();
            gone.insert(job.child.id());
        }
        clean(&self.out, |process| gone.contains(&process));
        self.announce_from_disk();
    }

    fn kill_all(&mut self) {
        for job in self.jobs.iter_mut().filter(|job| job.running) {
            // It may be gone already.
            let _ = job.child.kill();
        }
    }

    /// A worker with a driver that cannot be interrupted even by its own watchdog.
    fn look_after(&mut self, passed: Duration) {
        let limit = self.arguments.hang + SILENCE;
        for (index, job) in self.jobs.iter_mut().enumerate() {
            let before = job.silent;
            job.silent += passed;
            if job.running && before <= limit && job.silent > limit {
                eprintln!(
                    "cofferdam: job {index} has said nothing for {} s and is ended; what it ran is lost",
                    limit.as_secs()
                );
                let _ = job.child.kill();
            }
        }
    }

    fn tell_the_end(&mut self) {
        let line = message::line_of(&Down::End).unwrap_or_default();
        let line: Arc<[u8]> = line.into();
        for job in &mut self.jobs {
            job.send(&line);
            // What waits is sent, then the worker sees the end of it.
            job.to = None;
        }
    }

    /// Executions of a job, if they are counted.
    fn share(&self, index: usize) -> Option<u64> {
        let jobs = self.arguments.jobs as u64;
        let execs = self.arguments.execs?;
        Some(execs / jobs + u64::from((index as u64) < execs % jobs))
    }

    /// Whether that ends the campaign.
    fn handle(&mut self, event: Event, is_over: bool) -> Result<bool, (String, u8)> {
        match event {
            Event::Heard { job, message } => self.heard(job, message),
            Event::Closed { job } => self.closed(job, is_over)?,
            Event::Peer(said) => {
                if let Some(program) = self.peers.hear(said) {
                    self.pass_on(&program, None);
                }
            }
            Event::Quit => return Ok(true),
        }
        Ok(false)
    }

    fn heard(&mut self, index: usize, message: Up) {
        let Some(job) = self.jobs.get_mut(index) else {
            return;
        };
        job.silent = Duration::ZERO;
        match message {
            Up::Status(progress) => job.progress = progress,
            Up::Died { executions } => job.died = Some(executions),
            Up::Alive => {}
            Up::Kept { program } => self.pass_on(&program, Some(index)),
            Up::Found(finding) => self.announce(&finding, Some(index)),
        }
    }

    /// Tells of a finding, once, whoever found it.
    fn announce(&mut self, finding: &Finding, by: Option<usize>) {
        let kind = if finding.defect { FINDINGS } else { WAITS };
        let place = self.out.join(kind).join(&finding.signature);
        // A worker's word is not enough.
        if !place.is_dir() || !self.teller.announce(finding) {
            return;
        }
        self.known.insert(finding.signature.clone());
        let signature = finding.signature.clone();
        self.send_to_others(&Down::Known { signature }, by);
        if let Ok(program) = fs::read_to_string(place.join(PROGRAM)) {
            self.peers.send(&program);
        }
    }

    /// What a worker wrote and could not tell of any more.
    fn announce_from_disk(&mut self) {
        for kind in [FINDINGS, WAITS] {
            for name in names(&self.out.join(kind)) {
                let report = read_report(&self.out.join(kind).join(&name));
                if let (false, Ok(report)) = (self.known.contains(&name), report) {
                    self.announce(&report, None);
                }
            }
        }
    }

    fn pass_on(&mut self, program: &str, by: Option<usize>) {
        let mut hash = DefaultHasher::new();
        program.hash(&mut hash);
        if !self.passed_on.insert(hash.finish()) {
            return;
        }
        let text = program.to_owned();
        self.send_to_others(&Down::Program { program: text }, by);
        self.peers.send(program);
    }

    fn send_to_others(&self, message: &Down, by: Option<usize>) {
        let Ok(line) = message::line_of(message) else {
            return;
        };
        let line: Arc<[u8]> = line.into();
        for (index, job) in self.jobs.iter().enumerate() {
            if Some(index) != by {
                job.send(&line);
            }
        }
    }

    /// A worker ended: another life, if there is something left to do.
    fn closed(&mut self, index: usize, is_over: bool) -> Result<(), (String, u8)> {
        let Some(job) = self.jobs.get_mut(index) else {
            return Ok(());
        };
        let ended = wait(&mut job.child)
            .map_err(|error| (format!("a worker is lost: {error}"), INFRASTRUCTURE))?;
        let process = job.child.id();
        job.running = false;
        job.to = None;
        if ended.success() {
            return Ok(());
        }
        if let Some(code) = ended.code().filter(|code| *code != crash::DIED) {
            let code = u8::try_from(code).unwrap_or(INFRASTRUCTURE);
            return Err((String::new(), code));
        }
        let done = job.died.unwrap_or(0).max(job.progress.executions);
        job.stillborn = if done == 0 { job.stillborn + 1 } else { 0 };
        let (life, spent, stillborn) = (job.life + 1, job.spent + done, job.stillborn);
        job.spent = spent;
        job.progress.executions = 0;
        clean(&self.out, |writer| writer == process);
        self.announce_from_disk();
        if stillborn > STILLBORN {
            let why =
                format!("{STILLBORN} workers in a row did not live to run a program: {ended}");
            return Err((why, INFRASTRUCTURE));
        }
        let share = self.share(index);
        if is_over || share.is_some_and(|share| spent >= share) {
            return Ok(());
        }
        let mut next = self.start(index, life, share.map(|share| share - spent))?;
        next.spent = spent;
        next.stillborn = stillborn;
        self.jobs[index] = next;
        Ok(())
    }

    fn start(&self, index: usize, life: u64, left: Option<u64>) -> Result<Job, (String, u8)> {
        self.spawn(index, life, left).map_err(|error| {
            let why = format!("cannot start a worker: {error}");
            (why, INFRASTRUCTURE)
        })
    }

    fn spawn(&self, index: usize, life: u64, left: Option<u64>) -> io::Result<Job> {
        let (own, theirs) = UnixStream::pair()?;
        let mut command = self.command(index, life, left);
        let child = command.stdin(OwnedFd::from(theirs)).spawn()?;
        // The command holds the other end, too.
        drop(command);
        let mut reader = BufReader::new(own.try_clone()?);
        let events = self.events.clone();
        thread::spawn(move || {
            // What cannot be read is the end of it, too.
            while let Ok(Some(message)) = message::receive(&mut reader) {
                if events
                    .send(Event::Heard {
                        job: index,
                        message,
                    })
                    .is_err()
                {
                    return;
                }
            }
            let _ = events.send(Event::Closed { job: index });
        });
        let (to, lines) = sync_channel(QUEUE);
        thread::spawn(move || forward(own, &lines));
        Ok(Job {
            child,
            to: Some(to),
            life,
            spent: 0,
            progress: Progress::default(),
            died: None,
            silent: Duration::ZERO,
            stillborn: 0,
            running: true,
        })
    }

    fn command(&self, index: usize, life: u64, left: Option<u64>) -> Command {
        let arguments = self.arguments;
        let mut command = Command::new(&self.me);
        command.arg("worker").arg(&arguments.target);
        command.arg("--parent").arg(std::process::id().to_string());
        if let Some(left) = left {
            command.arg("--execs").arg(left.to_string());
        }
        let seed = arguments
            .seed
            .wrapping_add((index as u64).wrapping_mul(0xd1b5_4a32_d192_ed03))
            .wrapping_add(life.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        command.arg("--seed").arg(seed.to_string());
        for place in &arguments.corpus {
            command.arg("--corpus").arg(place);
        }
        if life > 0 {
            command.arg("--corpus").arg(self.out.join(CORPUS));
        }
        command.arg("--out").arg(&self.out);
        let hang = arguments.hang.as_secs().to_string();
        command.arg("--hang").arg(hang);
        if arguments.no_feedback {
            command.arg("--no-feedback");
        }
        if let Some(place) = arguments.place {
            command.args(["--in", place.name()]);
        }
        // Drivers may print: standard output is ours.
        command.stdout(io::stderr());
        command
    }
}

/// Sends lines until nobody sends any or nobody hears them.
fn forward(mut to: UnixStream, lines: &Receiver<Arc<[u8]>>) {
    for line in lines {
        if to.write_all(&line).is_err() {
            return;
        }
    }
    // The end, for one that was too busy to be told of it.
    let _ = to.shutdown(Shutdown::Write);
}

/// How a worker ended whose socket is closed. One that goes on without it does not go on.
fn wait(child: &mut Child) -> io::Result<ExitStatus> {
    for _ in 0..50 {
        if let Some(ended) = child.try_wait()? {
            return Ok(ended);
        }
        thread::sleep(Duration::from_millis(20));
    }
    child.kill()?;
    child.wait()
}

/// Removes what processes left half done.
fn clean(out: &Path, is_gone: impl Fn(u32) -> bool) {
    for kind in [FINDINGS, WAITS] {
        tidy(&out.join(kind), &is_gone);
    }
    for name in hidden(&out.join(CORPUS)) {
        if name[1..].parse().is_ok_and(&is_gone) {
            // Who cannot remove it finds it again in the next campaign.
            let _ = fs::remove_file(out.join(CORPUS).join(name));
        }
    }
}

/// Whether no process has that number.
fn is_gone(process: u32) -> bool {
    !Path::new("/proc").join(process.to_string()).exists()
}

fn entries(place: &Path) -> Vec<String> {
    let entries = fs::read_dir(place).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

fn hidden(place: &Path) -> Vec<String> {
    let mut names = entries(place);
    names.retain(|name| name.starts_with('.'));
    names
}

/// Finished findings, by their signatures.
fn names(place: &Path) -> Vec<String> {
    let mut names = entries(place);
    names.retain(|name| !name.starts_with('.'));
    names
}
