//! Process 1 of the guest: it brings the guest up, runs the job and powers the machine off.

use crate::CHECK;
use crate::kmsg::KernelLog;
use cofferdam_guest::message::{
    Check, DETAIL_LIMIT, JOB, Job, LoadModule, Message, PORT, RECORDS_LIMIT, Record, Task, Verdict,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::mount::{MountFlags, mount};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use rustix::system::{RebootCommand, finit_module, reboot};
use serde_json::{Value, json};
use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Instant;
use std::{fs, io};
use thiserror::Error;

/// Where the kernel started this program from.
const SELF: &str = "/init";

#[derive(Debug, Error)]
enum InitError {
    #[error("cannot mount {0}: {1}")]
    Mount(&'static str, io::Error),
    #[error("cannot open {0}: {1}")]
    Port(&'static str, io::Error),
    #[error("cannot read the job at {JOB}: {0}")]
    Job(io::Error),
    #[error("cannot load the kernel module {0}: {1}")]
    Module(String, io::Error),
    #[error("cannot read the kernel's log: {0}")]
    Log(io::Error),
    #[error("cannot run the check {0}: {1}")]
    Check(String, io::Error),
    #[error("cannot write to the host: {0}")]
    Write(io::Error),
}

/// Does the job and powers off. It returns only if the machine cannot be powered off; the kernel
/// then panics, which ends the guest too.
pub fn run() -> ExitCode {
    if let Err(error) = bring_up_and_work() {
        eprintln!("cofferdam: {error}");
    }
    if let Err(error) = reboot(RebootCommand::PowerOff) {
        eprintln!("cofferdam: cannot power off: {error}");
    }
    ExitCode::FAILURE
}

fn bring_up_and_work() -> Result<(), InitError> {
    for (kind, at) in [
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("devtmpfs", "/dev"),
        ("tmpfs", "/run"),
    ] {
        mount(kind, at, kind, MountFlags::empty(), None::<&std::ffi::CStr>)
            .map_err(|error| InitError::Mount(at, error.into()))?;
    }
    let mut host = Host::open()?;
    let worked = work(&mut host);
    match &worked {
        Ok(()) => host.say(&Message::Finished)?,
        Err(error) => host.say(&Message::Broken(error.to_string()))?,
    }
    host.drain()?;
    worked
}

fn work(host: &mut Host) -> Result<(), InitError> {
    let release = rustix::system::uname();
    host.say(&Message::Started {
        release: release.release().to_string_lossy().into_owned(),
    })?;
    let job: Job = serde_json::from_slice(&fs::read(JOB).map_err(InitError::Job)?)
        .map_err(|error| InitError::Job(error.into()))?;
    let mut log = KernelLog::open().map_err(InitError::Log)?;
    for module in &job.modules {
        if let Err(error) = load(module) {
            host.say_log(&log.take().map_err(InitError::Log)?)?;
            return Err(error);
        }
    }
    host.say_log(&log.take().map_err(InitError::Log)?)?;
    for task in &job.tasks {
        let started = Instant::now();
        let (verdict, detail) = run_task(task)?;
        let took = started.elapsed();
        let mut records = log.take().map_err(InitError::Log)?;
        let last = records.split_off(records.len().saturating_sub(RECORDS_LIMIT));
        host.say_log(&records)?;
        let check = Check {
            name: task.name.clone(),
            arguments: task.arguments.clone(),
            verdict,
            detail,
            log: last,
            took,
        };
        host.say(&Message::Check(check))?;
    }
    Ok(())
}

fn load(module: &LoadModule) -> Result<(), InitError> {
    let failed = |error| InitError::Module(module.file.clone(), error);
    let file = File::open(&module.file).map_err(failed)?;
    let parameters = CString::new(module.parameters.as_str())
        .map_err(|error| failed(io::Error::new(ErrorKind::InvalidInput, error)))?;
    match finit_module(&file, &parameters, 0) {
        // Built in, or loaded as another's dependency.
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(error) => Err(failed(error.into())),
    }
}

/// Runs one check as a process of its own until it ends or its deadline passes.
fn run_task(task: &Task) -> Result<(Verdict, Value), InitError> {
    let failed = |error| InitError::Check(task.name.clone(), error);
    let mut child = Command::new(SELF)
        .process_group(0)
        .arg(CHECK)
        .arg(&task.name)
        .args(&task.arguments)
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let ended = watch(&mut child, task).map_err(failed);
    // Whatever happened, nothing of the check is left running when the next one starts; that there
    // may be no process left in its group is no error.
    let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
    let status = child.wait().map_err(failed)?;
    let Watched { output, in_time } = ended?;
    let failure = |why: String| (Verdict::Failed, json!({ "error": why }));
    if !in_time {
        return Ok(failure(format!(
            "did not end within its deadline of {:?}",
            task.deadline
        )));
    }
    Ok(parse(&output).unwrap_or_else(|| failure(format!("ended without a verdict: {status}"))))
}

struct Watched {
    output: Vec<u8>,
    in_time: bool,
}

/// Reads what the check prints until it has ended, or for as long as it may take.
fn watch(child: &mut Child, task: &Task) -> io::Result<Watched> {
    let deadline = Instant::now() + task.deadline;
    let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let mut pipe = child
        .stdout
        .take()
        .ok_or_else(|| io::Error::other("the check has no standard output"))?;
    fcntl_setfl(&pipe, fcntl_getfl(&pipe)? | OFlags::NONBLOCK)?;
    let mut output = Vec::new();
    let mut open = true;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        let mut fds = vec![PollFd::new(&pidfd, PollFlags::IN)];
        if open {
            fds.push(PollFd::new(&pipe, PollFlags::IN));
        }
        let ready = poll(&mut fds, Some(&timeout))?;
        let gone = !fds[0].revents().is_empty();
        open = open && drain(&mut pipe, &mut output)?;
        if gone || ready == 0 {
            return Ok(Watched {
                output,
                in_time: gone,
            });
        }
    }
}

/// Takes what is there, and keeps the end of it; returns whether more may come.
fn drain(pipe: &mut impl Read, output: &mut Vec<u8>) -> io::Result<bool> {
    let mut buffer = [0; 4096];
    // A bounded number of reads: a check that prints without end must not outlive its deadline.
    for _ in 0..64 {
        match pipe.read(&mut buffer) {
            Ok(0) => return Ok(false),
            Ok(len) => output.extend_from_slice(&buffer[..len]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if output.len() > DETAIL_LIMIT {
            output.drain(..output.len() - DETAIL_LIMIT);
        }
    }
    Ok(true)
}

/// The verdict is the last line of a check's output; the check may have printed others.
fn parse(output: &[u8]) -> Option<(Verdict, Value)> {
    let line = output
        .trim_ascii_end()
        .rsplit(|&byte| byte == b'\n')
        .next()?;
    let mut value: Value = serde_json::from_slice(line).ok()?;
    let verdict = serde_json::from_value(value.get_mut("verdict")?.take()).ok()?;
    Some((verdict, value.get_mut("detail")?.take()))
}

/// The way out of the guest.
struct Host {
    port: File,
}

impl Host {
    fn open() -> Result<Self, InitError> {
        let port = OpenOptions::new()
            .write(true)
            .custom_flags(OFlags::NOCTTY.bits().cast_signed())
            .open(PORT)
            .map_err(|error| InitError::Port(PORT, error))?;
        Ok(Self { port })
    }

    fn say(&mut self, message: &Message) -> Result<(), InitError> {
        let mut line =
            serde_json::to_vec(message).map_err(|error| InitError::Write(error.into()))?;
        line.push(b'\n');
        self.port.write_all(&line).map_err(InitError::Write)
    }

    fn say_log(&mut self, records: &[Record]) -> Result<(), InitError> {
        for some in records.chunks(RECORDS_LIMIT) {
            self.say(&Message::Log(some.to_vec()))?;
        }
        Ok(())
    }

    /// Waits until the last byte has left the port: power-off does not.
    fn drain(&self) -> Result<(), InitError> {
        rustix::termios::tcdrain(&self.port).map_err(|error| InitError::Write(error.into()))
    }
}
