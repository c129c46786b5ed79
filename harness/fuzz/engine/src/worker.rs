//! One process of a campaign: it runs the driver, and may die of it at any moment.
//!
//! Its standard input is the socket to the process that started it. It ends when that one does.

use crate::arguments::Worker;
use crate::fuzz::{FIRST, Until, campaign, read_corpus};
use crate::message::{self, Down, Progress, Up};
use crate::{INFRASTRUCTURE, USAGE, crash, fail, watchdog};
use cofferdam_fuzz::campaign::{Campaign, FINDINGS, executed};
use cofferdam_fuzz::finding::{name_of, read_report};
use cofferdam_fuzz::oracle::Oracle;
use cofferdam_fuzz::program::{Program, text};
use cofferdam_fuzz::target::Target;
use std::fs;
use std::io::{self, BufReader};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// How often it tells how it is doing.
const TOLD: Duration = Duration::from_millis(500);

/// Programs of others that it runs before it goes on with its own.
const IMPORTS: usize = 64;

/// Messages that may wait to be looked at; the rest waits with the sender.
const WAITING: usize = 1024;

/// Where kept programs go, below the directory of a campaign.
pub const CORPUS: &str = "corpus";

/// The way to the process that started this one.
pub struct Link {
    to: Arc<Mutex<UnixStream>>,
    from: Receiver<Down>,
    target: &'static dyn Target,
    keep: PathBuf,
    told: Option<Instant>,
    announced: usize,
    imported: u64,
    over: bool,
}

impl Link {
    fn open(target: &'static dyn Target, keep: PathBuf) -> io::Result<Self> {
        let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        DEATHS.store(libc::STDIN_FILENO, Ordering::Relaxed);
        let mut reader = BufReader::new(socket.try_clone()?);
        let (heard, from) = sync_channel(WAITING);
        thread::Builder::new()
            .name("link".to_owned())
            .spawn(move || {
                // What cannot be read is the end, too: the sender of `from` is gone then.
                while let Ok(Some(message)) = message::receive(&mut reader) {
                    if heard.send(message).is_err() {
                        break;
                    }
                }
            })?;
        Ok(Self {
            to: Arc::new(Mutex::new(socket)),
            from,
            target,
            keep,
            told: None,
            announced: 0,
            imported: 0,
            over: false,
        })
    }

    fn send(&mut self, message: &Up) {
        let Ok(mut to) = self.to.lock() else { return };
        if message::send(&mut *to, message).is_err() {
            // Nobody is there any more.
            drop(to);
            self.over = true;
        }
    }

    /// Whether the campaign is over for this worker.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Tells what was found, and every now and then how it is going.
    pub fn tell(&mut self, campaign: &Campaign, corpus: usize, last: bool) {
        for found in campaign.found().iter().skip(self.announced) {
            self.announced += 1;
            self.send(&Up::Found(Box::new(found.finding.clone())));
        }
        if !last && self.told.is_some_and(|told| told.elapsed() < TOLD) {
            return;
        }
        self.told = Some(Instant::now());
        let (edges, edges_of) = campaign.edges();
        self.send(&Up::Status(Progress {
            executions: campaign.executions(),
            edges,
            edges_of,
            corpus,
            imported: self.imported,
        }));
    }

    /// A program that is worth keeping: on disk, and for the others.
    pub fn keep(&mut self, program: &Program) {
        let text = self.write(program);
        self.send(&Up::Kept { program: text });
    }

    /// A program of somebody else's that is worth keeping here too.
    pub fn keep_foreign(&mut self, program: &Program) {
        self.imported += 1;
        self.write(program);
    }

    fn write(&self, program: &Program) -> String {
        let text = text::print(program, self.target.name(), self.target.calls());
        let name = name_of(program);
        let place = self.keep.join(format!("{name}.prog"));
        // Beside its place, then there: the next life reads all of it, or nothing.
        let beside = self.keep.join(format!(".{}", std::process::id()));
        // The corpus on disk is a convenience: a campaign goes on without it.
        let _ = fs::write(&beside, &text).and_then(|()| fs::rename(&beside, place));
        text
    }

    /// What others did that is new, and what they found, which `campaign` is told.
    pub fn receive(&mut self, campaign: &mut Campaign) -> Vec<Program> {
        let mut programs = Vec::new();
        while programs.len() < IMPORTS && !self.over {
            match self.from.try_recv() {
                // Who sent it may have another version of the target: what cannot be read is left out.
                Ok(Down::Program { program }) => {
                    let parsed = text::parse(&program, self.target.calls());
                    let own = parsed.ok().filter(|it| it.target == self.target.name());
                    programs.extend(own.map(|parsed| parsed.program));
                }
                Ok(Down::Known { signature }) => campaign.know(&signature),
                Ok(Down::End) | Err(TryRecvError::Disconnected) => self.over = true,
                Err(TryRecvError::Empty) => break,
            }
        }
        programs
    }
}

/// Runs it.
pub fn worker(target: &'static dyn Target, arguments: &Worker) -> ExitCode {
    if !die_with(arguments.parent) {
        return ExitCode::SUCCESS;
    }
    match work(target, arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err((why, code)) => fail(why, code),
    }
}

fn work(target: &'static dyn Target, arguments: &Worker) -> Result<(), (String, u8)> {
    let harness = |why: String| (why, INFRASTRUCTURE);
    let told = |error: io::Error| harness(error.to_string());
    let out = &arguments.out;
    let keep = out.join(CORPUS);
    fs::create_dir_all(&keep).map_err(|error| harness(format!("{}: {error}", keep.display())))?;
    let mut link = Link::open(target, keep).map_err(told)?;
    crash::install(target, crash::Then::WriteTo(out.clone()));
    let to = Arc::clone(&link.to);
    watchdog::start(arguments.hang, move || beat(&to)).map_err(told)?;
    // SAFETY: the process has this one campaign, on this thread.
    #[expect(unsafe_code, reason = "the counters are the whole program's")]
    let new = unsafe { Campaign::new(target, arguments.seed, !arguments.no_feedback, Some(out)) };
    let mut new = new.map_err(told)?;
    if new.edges().1 == 0 {
        let why = "the driver is not instrumented; build this program by `cofferdam fuzz`";
        return Err(harness(why.to_owned()));
    }
    let mut first = read_corpus(&mut new, &arguments.corpus).map_err(|why| (why, USAGE))?;
    let deadly = deadly(&mut new, out);
    first.retain(|program| !deadly.contains(program));
    let missing = FIRST.saturating_sub(first.len());
    first.extend((0..missing).map(|_| new.generate()));
    let until = Until {
        link: Some(&mut link),
        execs: arguments.execs,
        enough: &|_| false,
    };
    campaign(new, first, arguments.seed, until).map_err(harness)?;
    Ok(())
}

/// The programs that took a process down before, which would do so again.
fn deadly(campaign: &mut Campaign, out: &Path) -> Vec<Program> {
    let Ok(entries) = fs::read_dir(out.join(FINDINGS)) else {
        return Vec::new();
    };
    let mut programs = Vec::new();
    for entry in entries.flatten() {
        let report = read_report(&entry.path());
        let is_deadly = |oracle| matches!(oracle, Oracle::Crash | Oracle::Hang);
        if report.is_ok_and(|report| is_deadly(report.oracle)) {
            let place = [entry.path()];
            programs.extend(read_corpus(campaign, &place).unwrap_or_default());
        }
    }
    programs
}

/// Says that this process lives. Whether anybody heard.
fn beat(to: &Mutex<UnixStream>) -> bool {
    // Whoever holds it sends something itself.
    to.try_lock()
        .map_or(true, |mut to| message::send(&mut *to, &Up::Alive).is_ok())
}

/// Where the line goes that tells of a death; nowhere, below 0.
static DEATHS: AtomicI32 = AtomicI32::new(-1);

/// Tells how many executions there were, from a handler of a fatal signal: whoever sends a line then was
/// interrupted, and does not go on.
pub fn tell_of_death() {
    let executions = executed();
    let to = DEATHS.load(Ordering::Relaxed);
    if to < 0 {
        return;
    }
    if let Ok(line) = message::line_of(&Up::Died { executions }) {
        #[expect(unsafe_code, reason = "no lock may be taken here")]
        // SAFETY: the bytes are there for the call.
        unsafe {
            libc::write(to, line.as_ptr().cast(), line.len());
        }
    }
}

/// Has the system end this process with the one that started it, and leaves Ctrl-C to that one. Whether
/// that one still lives.
#[expect(unsafe_code, reason = "the system's interface")]
fn die_with(parent: u32) -> bool {
    // SAFETY: plain numbers.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::signal(libc::SIGINT, libc::SIG_IGN);
        u32::try_from(libc::getppid()) == Ok(parent)
    }
}
