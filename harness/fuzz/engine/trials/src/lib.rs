//! Tests of whole campaigns: the runner of `rough/`, instrumented, as processes that are killed, joined and
//! watched from outside. The tests are in `tests/`; this is what they share.
//!
//! They build the runner as a user does, by `cofferdam fuzz --manifest-path`, beside the repository's own, so
//! LibAFL is built once for both. COFFERDAM names a `cofferdam` that is built already.

use serde_json::Value;
use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

/// No campaign of these tests takes a tenth of it.
pub const LIMIT: Duration = Duration::from_secs(120);

/// The instrumented runner.
///
/// # Panics
///
/// It cannot be built.
pub fn runner() -> &'static Path {
    static RUNNER: OnceLock<PathBuf> = OnceLock::new();
    RUNNER.get_or_init(build)
}

fn build() -> PathBuf {
    let engine = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let root = engine.join("../../..");
    let shared = env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let program = env::var_os("COFFERDAM").map_or_else(
        || {
            let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
            cargo.current_dir(&root);
            succeed(cargo.args(["build", "--release", "--locked", "--bin", "cofferdam"]));
            let target = shared.clone().unwrap_or_else(|| root.join("target"));
            root.join(target).join("release/cofferdam")
        },
        PathBuf::from,
    );
    let target = shared.unwrap_or_else(|| engine.join("target"));
    let mut build = Command::new(program);
    build.env("CARGO_TARGET_DIR", &target);
    build.args(["fuzz", "--manifest-path"]);
    succeed(build.arg(engine.join("rough/Cargo.toml")));
    target.join("fuzz/release/rough-drivers")
}

fn succeed(command: &mut Command) {
    let ended = command.stdin(Stdio::null()).status();
    let ended = ended.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(ended.success(), "{command:?}: {ended}");
}

/// A campaign whose output is read.
pub struct Campaign {
    /// Its process.
    pub child: Child,
    lines: Receiver<String>,
    errors: Receiver<String>,
}

impl Campaign {
    /// Starts `fuzz TARGET` with findings below `out`.
    ///
    /// # Panics
    ///
    /// It cannot be started.
    pub fn start(target: &str, out: &Path, options: &[&str]) -> Self {
        let mut command = Command::new(runner());
        command.args(["fuzz", target, "--format", "json", "--out"]);
        command.arg(out).args(options);
        command.stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the runner");
        let lines = read(child.stdout.take().expect("piped"));
        let errors = read(child.stderr.take().expect("piped"));
        Self {
            child,
            lines,
            errors,
        }
    }

    /// The next line of JSON for which `wanted` holds.
    ///
    /// # Panics
    ///
    /// None comes.
    pub fn wait_for(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + LIMIT;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).expect("such a line");
            let value: Value = serde_json::from_str(&line).expect("JSON");
            if wanted(&value) {
                return value;
            }
        }
    }

    /// The next line of standard error that contains `text`.
    ///
    /// # Panics
    ///
    /// None comes.
    pub fn wait_for_error(&self, text: &str) -> String {
        let until = Instant::now() + LIMIT;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let line = self.errors.recv_timeout(left).expect("such a line");
            if line.contains(text) {
                return line;
            }
        }
    }

    /// Lines of JSON that came since the last look.
    pub fn heard(&self) -> Vec<Value> {
        let lines = self.lines.try_iter();
        lines
            .filter_map(|line| serde_json::from_str(&line).ok())
            .collect()
    }

    /// Its workers.
    pub fn workers(&self) -> Vec<u32> {
        children(self.child.id())
    }

    /// Sends the campaign's process a signal.
    pub fn signal(&self, signal: i32) {
        kill(self.child.id(), signal);
    }

    /// Waits for its end. Lines of JSON that nobody has read, and how it ended.
    ///
    /// # Panics
    ///
    /// It does not end.
    pub fn end(mut self) -> (Vec<Value>, ExitStatus) {
        let until = Instant::now() + LIMIT;
        let ended = loop {
            if let Some(ended) = self.child.try_wait().expect("its end") {
                break ended;
            }
            assert!(Instant::now() < until, "the campaign does not end");
            thread::sleep(Duration::from_millis(10));
        };
        let lines: Vec<String> = self.lines.iter().collect();
        let values = lines
            .iter()
            .filter_map(|line| serde_json::from_str(line).ok());
        (values.collect(), ended)
    }
}

impl Drop for Campaign {
    fn drop(&mut self) {
        // It has ended, unless the test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(from: impl Read + Send + 'static) -> Receiver<String> {
    let (to, lines) = channel();
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if to.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

/// Runs the runner to its end: its exit code and its standard output.
///
/// # Panics
///
/// It was killed.
pub fn run(arguments: &[&str]) -> (i32, String) {
    let output = Command::new(runner())
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the runner");
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    (output.status.code().expect("an exit code"), said)
}

/// Processes whose parent is `parent`.
pub fn children(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers
        .filter(|process: &u32| {
            let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
            // The name, which may contain anything, ends with the last parenthesis; state, parent.
            let after = stat.rsplit(')').next().unwrap_or_default();
            after.split_whitespace().nth(1) == Some(&parent.to_string())
        })
        .collect()
}

/// Sends a signal.
#[expect(unsafe_code, reason = "the system's interface")]
pub fn kill(process: u32, signal: i32) {
    let process = i32::try_from(process).expect("a process");
    // SAFETY: plain numbers.
    unsafe { libc::kill(process, signal) };
}

/// Whether all of these processes are gone, or become so within the limit.
pub fn go_away(processes: &[u32]) -> bool {
    let until = Instant::now() + LIMIT;
    let is_there = |process: &u32| {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        let after = stat.rsplit(')').next().unwrap_or_default();
        // A zombie has gone; whoever inherited it may not have noticed.
        !matches!(after.split_whitespace().next(), None | Some("Z" | "X"))
    };
    while processes.iter().any(is_there) {
        if Instant::now() > until {
            return false;
        }
        thread::sleep(Duration::from_millis(5));
    }
    true
}

/// Everything below a directory: paths, and what is in the files.
///
/// # Panics
///
/// Something cannot be read.
pub fn contents(place: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut open = vec![place.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else {
                let bytes = fs::read(&path).expect("a file");
                let name = path.strip_prefix(place).expect("below it").to_owned();
                found.push((name, bytes));
            }
        }
    }
    found.sort();
    found
}

/// The findings below `out`, by their signatures; each is complete.
///
/// # Panics
///
/// One is not complete.
pub fn findings(out: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(out.join("findings"))
        .into_iter()
        .flatten()
        .flatten()
    {
        let name = entry.file_name().into_string().expect("a name");
        if name.starts_with('.') {
            continue;
        }
        let report = fs::read(entry.path().join("finding.json")).expect("a report");
        let report: Value = serde_json::from_slice(&report).expect("JSON");
        assert_eq!(report["signature"], name.as_str());
        for file in ["program.prog", "trace.txt"] {
            let text = fs::read_to_string(entry.path().join(file)).expect("a file");
            assert!(!text.is_empty(), "{name}/{file}");
        }
        names.push(name);
    }
    names.sort();
    names
}

/// Segments of shared memory on this machine, of both kinds, that belong to processes of a campaign.
///
/// # Panics
///
/// The system does not tell.
pub fn segments() -> usize {
    let named = fs::read_dir("/dev/shm").into_iter().flatten().flatten();
    let named = named.filter(|entry| entry.file_name().to_string_lossy().contains("libafl"));
    let numbered = fs::read_to_string("/proc/sysvipc/shm").unwrap_or_default();
    named.count() + numbered.lines().skip(1).count()
}
