//! The screen of a campaign on a terminal of 80 by 24: it is drawn, and the terminal is as before afterwards.

use cofferdam_fuzz_trials::{LIMIT, findings, kill, runner};
use std::fs::File;
use std::io::{Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command};
use std::ptr;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::tempdir;

/// A terminal: what is on it, and what is typed.
struct Terminal {
    typed: File,
    shown: Receiver<Vec<u8>>,
    text: String,
    side: OwnedFd,
}

impl Terminal {
    #[expect(unsafe_code, reason = "the system's interface")]
    fn open() -> Self {
        let (mut ours, mut theirs) = (-1, -1);
        let size = libc::winsize {
            ws_row: 24,
            ws_col: 80,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        // SAFETY: both numbers are filled in, and are this process's own then.
        let (ours, side) = unsafe {
            let opened = libc::openpty(
                &raw mut ours,
                &raw mut theirs,
                ptr::null_mut(),
                ptr::null(),
                &raw const size,
            );
            assert_eq!(opened, 0, "a terminal");
            (OwnedFd::from_raw_fd(ours), OwnedFd::from_raw_fd(theirs))
        };
        let mut screen = File::from(ours.try_clone().expect("a file"));
        let (to, shown) = channel();
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count) = screen.read(&mut bytes) {
                if to.send(bytes[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self {
            typed: File::from(ours),
            shown,
            text: String::new(),
            side,
        }
    }

    fn run(&self, out: &Path) -> Child {
        let side = || self.side.try_clone().expect("a file");
        Command::new(runner())
            .args(["fuzz", "wanders", "--jobs", "2", "--time", "60s", "--out"])
            .arg(out)
            .env("TERM", "xterm-256color")
            .stdin(side())
            .stdout(side())
            .stderr(side())
            .spawn()
            .expect("the runner")
    }

    /// How the terminal treats lines and keys.
    #[expect(unsafe_code, reason = "the system's interface")]
    fn modes(&self) -> [libc::tcflag_t; 4] {
        let mut modes = MaybeUninit::<libc::termios>::uninit();
        // SAFETY: it is filled in where the call succeeds.
        let modes = unsafe {
            assert_eq!(
                libc::tcgetattr(self.side.as_raw_fd(), modes.as_mut_ptr()),
                0
            );
            modes.assume_init()
        };
        [modes.c_iflag, modes.c_oflag, modes.c_cflag, modes.c_lflag]
    }

    /// Waits until the screen was sent that text.
    fn wait_for(&mut self, text: &str) {
        let until = Instant::now() + LIMIT;
        while !self.text.contains(text) {
            let left = until.saturating_duration_since(Instant::now());
            let bytes = self.shown.recv_timeout(left);
            let bytes = bytes.unwrap_or_else(|_| panic!("no {text} in {:?}", self.text));
            self.text += &String::from_utf8_lossy(&bytes);
        }
    }
}

fn end(child: &mut Child) -> Option<i32> {
    let until = Instant::now() + LIMIT;
    loop {
        if let Some(ended) = child.try_wait().expect("its end") {
            return ended.code();
        }
        assert!(Instant::now() < until, "the campaign does not end");
        thread::sleep(Duration::from_millis(10));
    }
}

const ENTERED: &str = "\x1b[?1049h";
const LEFT: &str = "\x1b[?1049l";

fn is_drawn_and_goes_away(ask: impl FnOnce(&mut Terminal, &Child)) {
    let place = tempdir().expect("a directory");
    let mut terminal = Terminal::open();
    let before = terminal.modes();
    let mut child = terminal.run(place.path());
    terminal.wait_for(ENTERED);
    terminal.wait_for("cofferdam fuzz wanders");
    terminal.wait_for("imported");
    // A finding in its place, not as a line that scrolls the screen away.
    terminal.wait_for("panic-wander");
    assert!(!terminal.text.contains(LEFT));
    assert_ne!(terminal.modes(), before, "keys are read one by one");

    ask(&mut terminal, &child);

    let code = end(&mut child);
    // What is written after the screen is gone stays.
    terminal.wait_for(LEFT);
    terminal.wait_for("findings in");
    let after = terminal.text.rsplit(LEFT).next().unwrap_or_default();
    assert!(after.contains("2 jobs"), "{after}");
    assert_eq!(code, Some(1));
    assert_eq!(terminal.modes(), before, "the terminal is as before");
    assert!(!findings(place.path()).is_empty());
}

#[test]
fn screen_is_drawn_and_gone_after_q() {
    is_drawn_and_goes_away(|terminal, _| terminal.typed.write_all(b"q").expect("a key"));
}

#[test]
fn screen_is_drawn_and_gone_after_control_c() {
    is_drawn_and_goes_away(|terminal, _| terminal.typed.write_all(b"\x03").expect("a key"));
}

#[test]
fn screen_is_drawn_and_gone_after_sigterm() {
    is_drawn_and_goes_away(|_, child| kill(child.id(), libc::SIGTERM));
}
