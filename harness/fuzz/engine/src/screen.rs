//! The screen of a campaign on a terminal: drawn in place, and gone when the campaign is.
//!
//! What anything writes to standard error meanwhile would spoil it, so that goes through a pipe, is shown at
//! the bottom, and comes out where it belongs when the screen is closed.

use crate::arguments::Fuzz;
use crate::status::{OfJob, Status};
use crate::supervisor::Event as Happened;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::Line;
use ratatui::widgets::{Block, Borders, Paragraph, Row, Table};
use ratatui::{DefaultTerminal, Frame};
use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, PipeReader, Read};
use std::os::fd::AsRawFd;
use std::panic;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex};
use std::thread;

/// Lines of standard error that are kept.
const SAID: usize = 200;

/// Bytes of such a line.
const WIDTH: u64 = 500;

/// Where standard error went before; none while it goes there.
static ERRORS: AtomicI32 = AtomicI32::new(-1);

type Said = Arc<Mutex<VecDeque<String>>>;

/// The screen.
pub struct Screen {
    terminal: DefaultTerminal,
    said: Said,
    limits: String,
    open: bool,
}

impl Screen {
    /// Takes the terminal. `events` hears when somebody presses `q` or Ctrl-C.
    pub fn open(arguments: &Fuzz, events: SyncSender<Happened>) -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        let said = Said::default();
        let terminal = ratatui::try_init()?;
        // The hook before restores the terminal; what it says should be read.
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            give_errors_back();
            before(info);
        }));
        take_errors(writer.as_raw_fd())?;
        drop(writer);
        let heard = Arc::clone(&said);
        thread::spawn(move || listen(reader, &heard));
        thread::spawn(move || keys(&events));
        let time = arguments
            .time
            .map(|time| format!(" of {}", clock(time.as_secs())));
        let execs = arguments
            .execs
            .map(|execs| format!(", ends at {execs} executions"));
        Ok(Self {
            terminal,
            said,
            limits: time.unwrap_or_default() + &execs.unwrap_or_default(),
            open: true,
        })
    }

    /// Draws a picture. One that cannot be drawn is left out: the next may.
    pub fn draw(&mut self, status: &Status, findings: &[String]) {
        let said: Vec<String> = self
            .said
            .lock()
            .map(|said| said.iter().cloned().collect())
            .unwrap_or_default();
        let limits = &self.limits;
        let _ = self
            .terminal
            .draw(|frame| paint(frame, status, limits, findings, &said));
    }

    /// Gives the terminal back.
    pub fn close(&mut self) {
        if !self.open {
            return;
        }
        self.open = false;
        ratatui::restore();
        give_errors_back();
        if let Ok(said) = self.said.lock() {
            for line in said.iter() {
                eprintln!("{line}");
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.close();
    }
}

#[expect(unsafe_code, reason = "standard error has no other interface")]
fn take_errors(to: libc::c_int) -> io::Result<()> {
    // SAFETY: files of this process.
    unsafe {
        let before = libc::fcntl(libc::STDERR_FILENO, libc::F_DUPFD_CLOEXEC, 3);
        if before < 0 || libc::dup2(to, libc::STDERR_FILENO) < 0 {
            return Err(io::Error::last_os_error());
        }
        ERRORS.store(before, Ordering::SeqCst);
    }
    Ok(())
}

#[expect(unsafe_code, reason = "standard error has no other interface")]
fn give_errors_back() {
    let before = ERRORS.swap(-1, Ordering::SeqCst);
    if before >= 0 {
        // SAFETY: the file was kept for that, and is given back once.
        unsafe {
            libc::dup2(before, libc::STDERR_FILENO);
            libc::close(before);
        }
    }
}

fn listen(reader: PipeReader, said: &Said) {
    let mut reader = BufReader::new(reader);
    loop {
        let mut line = Vec::new();
        match reader.by_ref().take(WIDTH).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let line = String::from_utf8_lossy(&line);
        let shown: String = line
            .trim_end()
            .chars()
            .filter(|it| !it.is_control())
            .collect();
        if let Ok(mut said) = said.lock() {
            if said.len() == SAID {
                said.pop_front();
            }
            said.push_back(shown);
        }
    }
}

/// Waits for somebody who wants it to end. Twice is at once.
fn keys(events: &SyncSender<Happened>) {
    let mut asked = false;
    // A terminal that cannot be read has no keys.
    while let Ok(event) = event::read() {
        let Event::Key(key) = event else { continue };
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        if key.code == KeyCode::Char('q') || (control && key.code == KeyCode::Char('c')) {
            if asked {
                ratatui::restore();
                give_errors_back();
                std::process::exit(130);
            }
            asked = true;
            if events.send(Happened::Quit).is_err() {
                return;
            }
        }
    }
}

fn paint(
    frame: &mut Frame<'_>,
    status: &Status,
    limits: &str,
    findings: &[String],
    said: &[String],
) {
    let rows = u16::try_from(status.per_job.len()).unwrap_or(u16::MAX);
    let talk = u16::try_from(said.len().min(3)).unwrap_or(0);
    let areas = Layout::vertical([
        Constraint::Length(4),
        // Jobs leave room for findings.
        Constraint::Max(rows.saturating_add(3).min(frame.area().height / 2)),
        Constraint::Min(4),
        Constraint::Length(talk),
    ]);
    let [head, jobs, found, errors] = areas.areas(frame.area());
    frame.render_widget(Paragraph::new(summary(status, limits)), head);
    frame.render_widget(table(status), jobs);
    let title = format!(" findings: {}, waits: {} ", status.findings, status.waits);
    let block = Block::default().borders(Borders::TOP).title(title);
    let lines: Vec<Line<'_>> = findings
        .iter()
        .map(|line| Line::raw(line.as_str()))
        .collect();
    frame.render_widget(Paragraph::new(lines).block(block), found);
    let last = said.iter().skip(said.len().saturating_sub(3));
    let lines: Vec<Line<'_>> = last.map(|line| Line::raw(line.as_str()).dim()).collect();
    frame.render_widget(Paragraph::new(lines), errors);
}

fn summary<'a>(status: &Status, limits: &str) -> Vec<Line<'a>> {
    let peers = match status.peers {
        0 => String::new(),
        peers => format!(", {peers} other machines"),
    };
    vec![
        Line::from(format!(
            "cofferdam fuzz {}   {}{limits}   q ends it",
            status.target,
            clock(whole(status.seconds))
        ))
        .bold(),
        Line::from(format!(
            "{} executions, {:.0}/s{peers}",
            status.executions, status.executions_per_second
        )),
        Line::from(format!(
            "{} of {} edges, the last new one {} ago; {} programs",
            status.edges,
            status.edges_of,
            clock(whole(status.seconds_since_new_edge)),
            status.corpus
        )),
    ]
}

fn table(status: &Status) -> Table<'static> {
    let widths = [5, 14, 10, 8, 12, 10, 10, 7].map(Constraint::Length);
    let head = [
        "job",
        "executions",
        "/s",
        "edges",
        "new edge",
        "programs",
        "imported",
        "deaths",
    ];
    let jobs = status.per_job.iter().enumerate();
    Table::new(jobs.map(|(index, job)| row(index, job)), widths)
        .header(Row::new(head).style(Style::new().fg(Color::Cyan)))
        .block(Block::default().borders(Borders::TOP))
}

fn row(index: usize, job: &OfJob) -> Row<'static> {
    let row = Row::new([
        index.to_string(),
        job.executions.to_string(),
        format!("{:.0}", job.executions_per_second),
        job.edges.to_string(),
        clock(whole(job.seconds_since_new_edge)),
        job.corpus.to_string(),
        job.imported.to_string(),
        job.deaths.to_string(),
    ]);
    if job.running { row } else { row.dim() }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a time since a start"
)]
fn whole(seconds: f64) -> u64 {
    seconds as u64
}

fn clock(seconds: u64) -> String {
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    format!("{hours}:{minutes:02}:{:02}", seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn painted(jobs: usize, width: u16, height: u16) -> String {
        let job = OfJob {
            executions: 123_456,
            executions_per_second: 98_765.0,
            edges: 421,
            running: true,
            ..OfJob::default()
        };
        let status = Status {
            target: "virtio-blk",
            seconds: 83.0,
            executions: 246_912,
            edges: 431,
            edges_of: 1200,
            findings: 1,
            jobs,
            per_job: vec![job; jobs],
            ..Status::default()
        };
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
        let findings = ["finding panic-x-1: index".to_owned()];
        let said = ["127.0.0.1:1 joined".to_owned()];
        terminal
            .draw(|frame| paint(frame, &status, " of 0:05:00", &findings, &said))
            .expect("a picture");
        terminal.backend().to_string()
    }

    #[test]
    fn eighty_by_twenty_four_shows_all_of_two_jobs() {
        let picture = painted(2, 80, 24);
        for shown in [
            "cofferdam fuzz virtio-blk   0:01:23 of 0:05:00",
            "246912 executions",
            "431 of 1200 edges, the last new one 0:00:00 ago",
            "98765",
            "findings: 1, waits: 0",
            "finding panic-x-1",
            "127.0.0.1:1 joined",
        ] {
            assert!(picture.contains(shown), "{shown}\n{picture}");
        }
    }

    #[test]
    fn findings_are_seen_beside_many_jobs() {
        assert!(painted(200, 80, 24).contains("finding panic-x-1"));
    }

    #[test]
    fn terminal_of_no_size_is_no_failure() {
        painted(1, 1, 1);
        painted(3, 0, 0);
    }
}
