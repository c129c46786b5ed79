//! `cofferdam serve`, as somebody at a shell meets it.

use cofferdam_backends::vfio_user::VfioUserDevice;
use cofferdam_seam::{Bar, DriverHost, Mmio, Width};
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use tempfile::TempDir;

/// QEMU's edu, by its identification register.
const EDU: u64 = 0x0100_00ed;

fn command(arguments: &[&OsStr]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cofferdam"));
    command.arg("serve").args(arguments);
    command
}

/// What a server that does not begin to serve says, and its exit code.
fn refused(arguments: &[&str]) -> (Option<i32>, String) {
    let arguments: Vec<&OsStr> = arguments.iter().map(OsStr::new).collect();
    let output = command(&arguments).output().expect("it runs");
    let said = String::from_utf8(output.stderr).expect("text");
    (output.status.code(), said)
}

/// A server that listens; it is ended with this.
struct Serving {
    child: Child,
    said: BufReader<ChildStderr>,
}

impl Serving {
    fn begin(socket: &Path, more: &[&str]) -> Self {
        let mut arguments = vec![
            OsStr::new("edu"),
            OsStr::new("--socket"),
            socket.as_os_str(),
        ];
        arguments.extend(more.iter().map(OsStr::new));
        let mut child = command(&arguments)
            .stderr(Stdio::piped())
            .spawn()
            .expect("it runs");
        let mut said = BufReader::new(child.stderr.take().expect("a pipe"));
        let mut line = String::new();
        while !line.contains("listening at") {
            line.clear();
            assert_ne!(said.read_line(&mut line).expect("text"), 0, "it ended");
        }
        Self { child, said }
    }

    /// Waits until it has said that.
    fn says(&mut self, what: &str) {
        let mut line = String::new();
        while !line.contains(what) {
            line.clear();
            assert_ne!(
                self.said.read_line(&mut line).expect("text"),
                0,
                "it never said {what}"
            );
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it lives");
    }

    /// Waits for its end; how it ended, and what it still said.
    fn end(mut self) -> (ExitStatus, String) {
        let mut said = String::new();
        self.said.read_to_string(&mut said).expect("text");
        (self.child.wait().expect("it ended"), said)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn place() -> (TempDir, PathBuf) {
    let place = tempfile::tempdir().expect("a directory");
    let socket = place.path().join("edu.sock");
    (place, socket)
}

/// The identification register, as often as asked, of one connection.
fn identify(socket: &Path, times: usize) -> Vec<u64> {
    let device = VfioUserDevice::connect(socket).expect("a server");
    let bar = Bar::new(0).expect("BAR 0");
    let registers = device.host().map_bar(bar).expect("registers");
    (0..times).map(|_| registers.read(0, Width::Four)).collect()
}

#[test]
fn senseless_arguments_are_refused_with_what_to_do() {
    let (place, socket) = place();
    let socket = socket.to_str().expect("text");
    let file = place.path().join("file");
    std::fs::write(&file, "no program").expect("a file");
    let file = file.to_str().expect("text");
    let long = format!("{}/{}", place.path().display(), "x".repeat(200));
    let nowhere = format!("{}/none/edu.sock", place.path().display());
    let cases: [(&[&str], i32, &str); 10] = [
        (&["toaster", "--socket", socket], 2, "virtio-blk"),
        (&["edu"], 2, "--socket"),
        (
            &["edu", "--socket", socket, "--fault", "B11"],
            2,
            "did you mean",
        ),
        (&["edu", "--socket", socket, "--nth", "2"], 2, "--fault"),
        (&["nvme", "--socket", socket, "--mib", "0"], 2, "1..=256"),
        (
            &["edu", "--socket", socket, "--tamper", "none.prog"],
            2,
            "none.prog",
        ),
        (&["edu", "--socket", socket, "--tamper", file], 2, "line 1"),
        (&["edu", "--socket", file], 3, "is no socket"),
        (&["edu", "--socket", &long], 3, "cannot listen"),
        (&["edu", "--socket", &nowhere], 3, "cannot listen"),
    ];

    for (arguments, wanted, why) in cases {
        let (code, said) = refused(arguments);

        assert_eq!(code, Some(wanted), "{arguments:?}: {said}");
        assert!(said.contains(why), "{arguments:?}: {said}");
    }
    assert_eq!(
        std::fs::read(file).expect("it is there still"),
        b"no program"
    );
}

#[test]
fn second_server_at_a_socket_is_refused_and_the_first_goes_on() {
    let (_place, socket) = place();
    let _first = Serving::begin(&socket, &[]);

    let (code, said) = refused(&["nvme", "--socket", socket.to_str().expect("text")]);

    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("listens at"), "{said}");
    assert_eq!(identify(&socket, 1), [EDU]);
}

#[test]
fn client_may_come_back_and_socket_of_a_dead_server_is_taken_over() {
    let (_place, socket) = place();
    let mut first = Serving::begin(&socket, &[]);
    for _ in 0..2 {
        assert_eq!(identify(&socket, 1), [EDU]);
        first.says("a client has gone");
    }

    first.signal(Signal::KILL);
    let (status, _) = first.end();
    assert!(!status.success() && socket.exists());
    let _second = Serving::begin(&socket, &[]);

    assert_eq!(identify(&socket, 1), [EDU]);
}

#[test]
fn once_ends_with_the_first_client_and_leaves_no_socket() {
    let (_place, socket) = place();
    let serving = Serving::begin(&socket, &["--once", "--trace"]);

    assert_eq!(identify(&socket, 1), [EDU]);
    let (status, said) = serving.end();

    assert!(status.success(), "{said}");
    assert!(said.contains("read 0 0x0 4 = [ed, 00, 00, 01]"), "{said}");
    assert!(!socket.exists());
}

#[test]
fn interrupted_server_leaves_no_socket_even_with_a_client() {
    let (_place, socket) = place();
    let serving = Serving::begin(&socket, &[]);
    let client = VfioUserDevice::connect(&socket).expect("a server");

    serving.signal(Signal::INT);
    let (status, said) = serving.end();

    assert!(status.success(), "{said}");
    assert!(!socket.exists());
    drop(client);
}

#[test]
fn program_of_the_fuzzer_drives_the_served_device_for_each_client() {
    let (place, socket) = place();
    let program = place.path().join("program.prog");
    let text = "cofferdam program 1\ntarget edu\nmode model\ncall compute 5\n\
                reply 0:0x0 #2 = 0xdead\nremove poll #1\n";
    std::fs::write(&program, text).expect("a file");
    let program = program.to_str().expect("text");
    let mut serving = Serving::begin(&socket, &["--tamper", program]);

    let first = identify(&socket, 3);
    serving.says("a client has gone");
    let second = identify(&socket, 2);
    serving.says("a client has gone");
    serving.signal(Signal::INT);
    let (status, said) = serving.end();

    assert_eq!(first, [EDU, 0xdead, EDU]);
    assert_eq!(second, [EDU, 0xdead]);
    assert!(status.success() && said.contains("took place: 2"), "{said}");
}

#[test]
fn program_for_another_device_is_refused() {
    let (place, socket) = place();
    let program = place.path().join("program.prog");
    std::fs::write(&program, "cofferdam program 1\ntarget nvme\nmode model\n").expect("a file");
    let arguments = [
        "edu",
        "--socket",
        socket.to_str().expect("text"),
        "--tamper",
    ];
    let arguments = [&arguments[..], &[program.to_str().expect("text")]].concat();

    let (code, said) = refused(&arguments);

    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("a program for 'nvme'"), "{said}");
}
