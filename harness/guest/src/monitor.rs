//! QEMU's monitor (QEMU Machine Protocol, QEMU's docs/interop/qmp-spec.rst): what a machine is told while
//! its guest lives.

use serde_json::{Value, json};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long the machine may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long it may take when it has passed its deadline already.
const LAST_PATIENCE: Duration = Duration::from_secs(3);
/// The longest line that is read.
const LINE: u64 = 1 << 20;

/// What the machine is told when its guest has come so far.
#[derive(Debug, Clone, PartialEq)]
pub struct Order {
    /// After how many checks.
    pub after: usize,
    /// A command of the monitor.
    pub command: Value,
    /// The event that tells that it has been carried out, if the answer does not.
    pub until: Option<&'static str>,
}

impl Order {
    /// A command with its arguments, told after so many checks.
    #[must_use]
    pub fn new(after: usize, command: &str, arguments: Value) -> Self {
        Self {
            after,
            command: json!({ "execute": command, "arguments": arguments }),
            until: None,
        }
    }

    /// Plugs a device in; `device` is as QEMU's `-device` takes it, in JSON.
    #[must_use]
    pub fn plug(after: usize, device: Value) -> Self {
        Self::new(after, "device_add", device)
    }

    /// Asks the guest to let a device go; answered when it has, and the device is gone.
    #[must_use]
    pub fn unplug(after: usize, id: &str) -> Self {
        Self {
            until: Some("DEVICE_DELETED"),
            ..Self::new(after, "device_del", json!({ "id": id }))
        }
    }
}

/// What the machine said to an [`Order`].
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// It did it, or will.
    Done(Value),
    /// It did not, and why.
    Refused(String),
    /// It did not answer, and why.
    Silent(String),
}

/// The machine's side of its monitor, which QEMU opens.
struct Monitor {
    lines: BufReader<UnixStream>,
    patience: Duration,
}

impl Monitor {
    /// Connects to a machine that runs.
    fn connect(path: &Path, patience: Duration) -> io::Result<Self> {
        let socket = UnixStream::connect(path)?;
        let mut monitor = Self {
            lines: BufReader::new(socket),
            patience,
        };
        let greeting = monitor.line(Instant::now() + patience)?;
        if greeting.get("QMP").is_none() {
            return Err(io::Error::new(ErrorKind::InvalidData, "it is no monitor"));
        }
        match monitor.tell(&json!({ "execute": "qmp_capabilities" }), None) {
            Answer::Done(_) => Ok(monitor),
            Answer::Refused(why) | Answer::Silent(why) => Err(io::Error::other(why)),
        }
    }

    /// Has one command carried out, to its event if it has one. What else happens meanwhile is told to
    /// nobody.
    fn tell(&mut self, command: &Value, event: Option<&str>) -> Answer {
        self.exchange(command, event)
            .unwrap_or_else(|error| Answer::Silent(error.to_string()))
    }

    fn exchange(&mut self, command: &Value, event: Option<&str>) -> io::Result<Answer> {
        let until = Instant::now() + self.patience;
        let mut text = command.to_string();
        text.push('\n');
        self.lines.get_mut().write_all(text.as_bytes())?;
        let (mut done, mut happened) = (None, event.is_none());
        loop {
            let mut line = self.line(until)?;
            happened |= event.is_some() && line["event"].as_str() == event;
            if let Some(value) = line.get_mut("return") {
                done = Some(value.take());
            }
            if happened && let Some(value) = done.take() {
                return Ok(Answer::Done(value));
            }
            if let Some(error) = line.get("error") {
                let why = error["desc"].as_str().map(str::to_owned);
                return Ok(Answer::Refused(why.unwrap_or_else(|| error.to_string())));
            }
        }
    }

    fn line(&mut self, until: Instant) -> io::Result<Value> {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        self.lines.get_ref().set_read_timeout(Some(left))?;
        let mut line = Vec::new();
        let read = self.lines.by_ref().take(LINE).read_until(b'\n', &mut line);
        read.map_err(|error| match error.kind() {
            // What the kernel calls the end of a socket's patience.
            ErrorKind::WouldBlock => ErrorKind::TimedOut.into(),
            _ => error,
        })?;
        if line.is_empty() {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(serde_json::from_slice(&line)?)
    }
}

/// Orders, and what became of them.
pub(crate) struct Orders<'a> {
    left: &'a [Order],
    at: &'a Path,
    monitor: Option<Monitor>,
    answers: Vec<Answer>,
}

impl<'a> Orders<'a> {
    /// Those for a machine whose monitor is there; in the order in which they are given.
    pub(crate) fn new(orders: &'a [Order], at: &'a Path) -> Self {
        Self {
            left: orders,
            at,
            monitor: None,
            answers: Vec::new(),
        }
    }

    /// Tells the machine what is due after so many checks.
    pub(crate) fn tell(&mut self, checks: usize) {
        while let [order, rest @ ..] = self.left
            && order.after <= checks
        {
            self.left = rest;
            let answer = self.ask(&order.command, order.until, PATIENCE);
            self.answers.push(answer);
        }
    }

    /// Asks a machine that has passed its deadline whether it runs.
    pub(crate) fn ask_state(&mut self) -> Answer {
        self.ask(&json!({ "execute": "query-status" }), None, LAST_PATIENCE)
    }

    /// What was answered.
    pub(crate) fn answers(self) -> Vec<Answer> {
        self.answers
    }

    fn ask(&mut self, command: &Value, event: Option<&str>, patience: Duration) -> Answer {
        let known = self.monitor.take().map_or_else(
            || Monitor::connect(self.at, patience),
            |known| Ok(Monitor { patience, ..known }),
        );
        match known {
            Ok(known) => self.monitor.insert(known).tell(command, event),
            Err(error) => Answer::Silent(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;
    use std::thread;

    /// A machine that says these lines, one to the connection and one to each command.
    fn machine(said: &'static [&'static str]) -> (tempfile::TempDir, thread::JoinHandle<()>) {
        let place = tempfile::tempdir().expect("a directory");
        let listener = UnixListener::bind(place.path().join("monitor")).expect("a socket");
        let speak = move || {
            let (mut socket, _) = listener.accept().expect("a client");
            let mut heard = BufReader::new(socket.try_clone().expect("the same socket"));
            for text in said {
                if writeln!(socket, "{text}").is_err() {
                    return;
                }
                // It has gone, or waits for the next line.
                let _ = heard.read_line(&mut String::new());
            }
        };
        (place, thread::spawn(speak))
    }

    fn told(said: &'static [&'static str], orders: &[Order]) -> Vec<Answer> {
        let (place, machine) = machine(said);
        let at = place.path().join("monitor");
        let mut running = Orders::new(orders, &at);
        running.tell(0);
        running.tell(9);
        let answers = running.answers();
        machine.join().expect("no panic");
        answers
    }

    #[test]
    fn orders_are_told_when_they_are_due_and_events_are_passed_over() {
        let said = [
            r#"{"QMP": {"version": {}}}"#,
            r#"{"return": {}}"#,
            "{\"return\": {\"a\": 1}}\n{\"event\": \"RESUME\"}\n{\"event\": \"DEVICE_DELETED\"}",
            r#"{"error": {"class": "GenericError", "desc": "no such device"}}"#,
        ];
        let orders = [
            Order::unplug(0, "one"),
            Order::plug(1, json!({ "driver": "edu" })),
        ];

        let answers = told(Box::leak(Box::new(said)), &orders);

        let refused = Answer::Refused("no such device".to_owned());
        assert_eq!(answers, [Answer::Done(json!({ "a": 1 })), refused]);
    }

    #[test]
    fn machine_that_ends_or_is_none_leaves_orders_unanswered() {
        let orders = [Order::unplug(0, "one"), Order::unplug(2, "two")];

        let ended = told(&[r#"{"QMP": {}}"#, r#"{"return": {}}"#], &orders);
        let none = {
            let mut running = Orders::new(&orders, Path::new("/no/such/monitor"));
            running.tell(1);
            running.answers()
        };
        let silent = |answers: &[Answer]| {
            let mut answers = answers.iter();
            answers.all(|answer| matches!(answer, Answer::Silent(_)))
        };

        assert_eq!((ended.len(), none.len()), (2, 1));
        assert!(silent(&ended) && silent(&none), "{ended:?} {none:?}");
    }
}
