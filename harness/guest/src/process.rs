//! Children: each dies with us and ends by its deadline.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, set_parent_process_death_signal};
use std::fmt::Write as _;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use thiserror::Error;

/// What is kept of a stream; of more, the end.
const KEPT: usize = 1 << 20;

/// Why a program did not do its work.
#[derive(Debug, Error)]
pub enum ProcessError {
    /// It could not be started or watched.
    #[error("cannot run {program}: {error}")]
    Start {
        /// The program.
        program: String,
        /// What the system said.
        error: io::Error,
    },
    /// It ended with an error.
    #[error("{program} ended with {status}: {said}")]
    Failed {
        /// The program and its arguments.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of its standard error.
        said: String,
    },
    /// It was killed at its deadline.
    #[error("{program} did not end within {deadline:?}")]
    Deadline {
        /// The program and its arguments.
        program: String,
        /// What it was given.
        deadline: Duration,
    },
}

/// Makes the kernel kill the child when the thread that starts it ends, whatever ends it.
pub(crate) fn die_with_us(command: &mut Command) -> &mut Command {
    let parent = rustix::process::getpid();
    let hook = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // We may have died before the signal was armed.
        if rustix::process::getppid() == Some(parent) {
            Ok(())
        } else {
            Err(ErrorKind::NotConnected.into())
        }
    };
    // SAFETY: between fork and exec the hook makes two system calls and builds an error without a
    // payload: it neither allocates nor takes a lock that another thread might have held.
    unsafe { command.pre_exec(hook) }
}

/// Runs a program to its end and returns the end of its standard output.
pub(crate) fn run(command: &mut Command, deadline: Duration) -> Result<Vec<u8>, ProcessError> {
    command.stdout(Stdio::piped());
    let finished = watch(command, deadline)?;
    Ok(finished.output)
}

/// Runs a program whose standard output the caller has directed elsewhere.
pub(crate) fn run_to(command: &mut Command, deadline: Duration) -> Result<(), ProcessError> {
    watch(command, deadline).map(drop)
}

struct Finished {
    output: Vec<u8>,
}

fn watch(command: &mut Command, deadline: Duration) -> Result<Finished, ProcessError> {
    let failed = |command: &Command, error| ProcessError::Start {
        program: command.get_program().to_string_lossy().into_owned(),
        error,
    };
    command.stderr(Stdio::piped());
    let mut child = die_with_us(command)
        .spawn()
        .map_err(|error| failed(command, error))?;
    let watched = collect(&mut child, deadline);
    // In time it is gone already; otherwise it ends here.
    let status = child
        .kill()
        .and_then(|()| child.wait())
        .map_err(|error| failed(command, error))?;
    let (output, said, in_time) = watched.map_err(|error| failed(command, error))?;
    if !in_time {
        return Err(ProcessError::Deadline {
            program: line_of(command),
            deadline,
        });
    }
    if !status.success() {
        return Err(ProcessError::Failed {
            program: line_of(command),
            status,
            said: tail(&said, 2000),
        });
    }
    Ok(Finished { output })
}

/// Both streams, and whether the child ended before its deadline.
fn collect(child: &mut Child, deadline: Duration) -> io::Result<(Vec<u8>, Vec<u8>, bool)> {
    let mut streams = Streams::default();
    let output = child.stdout.take().map(|pipe| streams.add(pipe.into()));
    let said = child.stderr.take().map(|pipe| streams.add(pipe.into()));
    let in_time = streams.follow(child, Instant::now() + deadline, |_, _| Ok(()))?;
    let mut take = |index: Option<usize>| index.map(|at| streams.take(at)).unwrap_or_default();
    Ok((take(output), take(said), in_time))
}

/// The streams of a child, read as they come; of each the end is kept.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    of: Vec<Stream>,
}

#[derive(Debug)]
struct Stream {
    fd: OwnedFd,
    open: bool,
    kept: Vec<u8>,
}

impl Streams {
    /// Adds a stream and returns its index.
    pub(crate) fn add(&mut self, fd: OwnedFd) -> usize {
        self.of.push(Stream {
            fd,
            open: true,
            kept: Vec::new(),
        });
        self.of.len() - 1
    }

    /// What was kept of a stream.
    pub(crate) fn take(&mut self, index: usize) -> Vec<u8> {
        std::mem::take(&mut self.of[index].kept)
    }

    /// Reads until the child has ended; `heard` gets each piece with its stream's index. Returns
    /// whether the child ended before the deadline.
    pub(crate) fn follow(
        &mut self,
        child: &Child,
        deadline: Instant,
        mut heard: impl FnMut(usize, &[u8]) -> io::Result<()>,
    ) -> io::Result<bool> {
        let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
        for stream in &self.of {
            fcntl_setfl(&stream.fd, fcntl_getfl(&stream.fd)? | OFlags::NONBLOCK)?;
        }
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let gone = wait(&pidfd, &self.of, left)?;
            for (index, stream) in self.of.iter_mut().enumerate() {
                stream.read(|piece| heard(index, piece))?;
            }
            if gone {
                return Ok(true);
            }
            if left.is_zero() {
                return Ok(false);
            }
        }
    }
}

/// Waits until a stream has something, the child is gone or the time is up; returns whether it is
/// gone.
fn wait(pidfd: &OwnedFd, streams: &[Stream], left: Duration) -> io::Result<bool> {
    let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
    let mut fds = vec![PollFd::new(pidfd, PollFlags::IN)];
    fds.extend(
        streams
            .iter()
            .filter(|stream| stream.open)
            .map(|stream| PollFd::from_borrowed_fd(stream.fd.as_fd(), PollFlags::IN)),
    );
    match poll(&mut fds, Some(&timeout)) {
        Ok(_) => Ok(!fds[0].revents().is_empty()),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

impl Stream {
    /// Takes what is there now, up to a bound: a child that writes without end must not keep its
    /// deadline from being looked at.
    fn read(&mut self, mut heard: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut buffer = [0; 16 * 1024];
        for _ in 0..64 {
            match rustix::io::read(&self.fd, &mut buffer) {
                Ok(0) => self.open = false,
                Ok(len) => {
                    heard(&buffer[..len])?;
                    self.keep(&buffer[..len]);
                    continue;
                }
                Err(rustix::io::Errno::INTR) => continue,
                Err(rustix::io::Errno::AGAIN) => {}
                // The other end of a socket went away with bytes unread: an end like any other.
                Err(rustix::io::Errno::CONNRESET) => self.open = false,
                Err(error) => return Err(error.into()),
            }
            break;
        }
        Ok(())
    }

    fn keep(&mut self, piece: &[u8]) {
        self.kept.extend_from_slice(piece);
        // Cut in large steps, so that each byte is moved once at most.
        if self.kept.len() > 2 * KEPT {
            self.kept.drain(..self.kept.len() - KEPT);
        }
    }
}

/// The program and its arguments, for a message.
fn line_of(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        // Writing to a string does not fail.
        let _ = write!(line, " {}", argument.to_string_lossy());
    }
    line
}

/// The last `limit` bytes of a text, about.
pub(crate) fn tail(bytes: &[u8], limit: usize) -> String {
    let end = &bytes[bytes.len().saturating_sub(limit)..];
    String::from_utf8_lossy(end).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_of_a_program_is_returned() {
        let output = run(Command::new("echo").arg("here"), Duration::from_secs(10));

        assert_eq!(output.expect("output"), b"here\n");
    }

    #[test]
    fn failure_carries_what_the_program_said() {
        let error = run(
            Command::new("sh").args(["-c", "echo no such luck >&2; exit 3"]),
            Duration::from_secs(10),
        )
        .expect_err("it fails");

        assert!(error.to_string().contains("no such luck"), "{error}");
        assert!(error.to_string().contains('3'), "{error}");
    }

    #[test]
    fn program_without_an_end_is_killed_at_its_deadline() {
        let started = Instant::now();

        let error = run(
            Command::new("sh").args(["-c", "while :; do echo y; done"]),
            Duration::from_millis(200),
        );

        assert!(matches!(error, Err(ProcessError::Deadline { .. })));
        assert!(started.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn child_dies_with_the_thread_that_started_it() {
        let started = std::thread::spawn(|| {
            die_with_us(Command::new("sleep").arg("60"))
                .spawn()
                .expect("child")
        });
        let mut child = started.join().expect("thread");

        let status = child.wait().expect("status");

        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&status),
            Some(9)
        );
    }

    #[test]
    fn endless_output_is_kept_at_its_end_only() {
        let mut stream = Stream {
            fd: std::fs::File::open("/dev/null").expect("null").into(),
            open: true,
            kept: Vec::new(),
        };

        for _ in 0..100 {
            stream.keep(&[7; 100_000]);
        }
        stream.keep(b"the end");

        assert!(stream.kept.len() <= 2 * KEPT + 7);
        assert!(stream.kept.ends_with(b"the end"));
    }
}
