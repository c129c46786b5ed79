//! How a campaign is doing: a screen on a terminal, lines of text if asked for, JSON elsewhere.

use crate::arguments::{Format, Fuzz};
use crate::screen::Screen;
use crate::supervisor::{Event, Job};
use cofferdam_fuzz::finding::Finding;
use cofferdam_fuzz::target::Target;
use serde::Serialize;
use std::collections::HashSet;
use std::io::{self, IsTerminal, Write};
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

/// Time between two lines.
const LINE: Duration = Duration::from_secs(1);

/// Time between two pictures on a screen.
const PICTURE: Duration = Duration::from_millis(250);

/// Findings that are shown again.
const RECENT: usize = 64;

/// What is told.
#[derive(Clone, Default, Serialize)]
pub struct Status {
    pub target: &'static str,
    pub seconds: f64,
    pub executions: u64,
    pub executions_per_second: f64,
    /// The most that one job reached: each runs what the others find.
    pub edges: usize,
    pub edges_of: usize,
    /// The most that one job keeps.
    pub corpus: usize,
    pub findings: usize,
    pub waits: usize,
    pub seconds_since_new_edge: f64,
    pub jobs: usize,
    /// Campaigns on other machines.
    pub peers: usize,
    pub per_job: Vec<OfJob>,
}

/// What is told of a job.
#[derive(Clone, Default, Serialize)]
pub struct OfJob {
    pub executions: u64,
    pub executions_per_second: f64,
    pub edges: usize,
    pub corpus: usize,
    /// Programs of others that did something new here.
    pub imported: u64,
    pub seconds_since_new_edge: f64,
    /// Processes that its driver took down.
    pub deaths: u64,
    pub running: bool,
}

/// What is remembered of a job, or of all of them.
#[derive(Clone)]
struct Seen {
    executions: u64,
    edges: usize,
    new_edge: Instant,
}

impl Seen {
    fn new(now: Instant) -> Self {
        Self {
            executions: 0,
            edges: 0,
            new_edge: now,
        }
    }

    fn note_edges(&mut self, edges: usize, now: Instant) {
        if edges > self.edges {
            self.edges = edges;
            self.new_edge = now;
        }
    }

    /// Executions a second since it was last asked.
    #[expect(clippy::cast_precision_loss, reason = "shown to some digits")]
    fn rate(&mut self, executions: u64, since: Duration) -> f64 {
        let new = executions.saturating_sub(self.executions);
        self.executions = executions;
        new as f64 / since.as_secs_f64().max(1e-9)
    }
}

enum Form {
    Json,
    Text,
    Screen(Box<Screen>),
}

/// Tells of a campaign.
pub struct Teller {
    target: &'static str,
    form: Form,
    began: Instant,
    told: Instant,
    all: Seen,
    each: Vec<Seen>,
    announced: HashSet<String>,
    defects: usize,
    recent: Vec<String>,
}

impl Teller {
    pub fn new(target: &'static dyn Target, arguments: &Fuzz, events: SyncSender<Event>) -> Self {
        let now = Instant::now();
        let form = match arguments.format {
            Some(Format::Json) => Form::Json,
            Some(Format::Text) => Form::Text,
            None if !io::stdout().is_terminal() => Form::Json,
            None => match Screen::open(arguments, events) {
                Ok(screen) => Form::Screen(Box::new(screen)),
                Err(error) => {
                    eprintln!("cofferdam: no screen on this terminal ({error}), so lines");
                    Form::Text
                }
            },
        };
        Self {
            target: target.name(),
            form,
            began: now,
            told: now,
            all: Seen::new(now),
            each: vec![Seen::new(now); arguments.jobs],
            announced: HashSet::new(),
            defects: 0,
            recent: Vec::new(),
        }
    }

    /// Announces a finding, which is on disk. Whether it is new in this campaign.
    pub fn announce(&mut self, finding: &Finding) -> bool {
        if !self.announced.insert(finding.signature.clone()) {
            return false;
        }
        self.defects += usize::from(finding.defect);
        let kind = if finding.defect { "finding" } else { "wait" };
        let line = format!(
            "{kind} {}: {} in {} ({} actions)",
            finding.signature, finding.message, finding.location.function, finding.actions
        );
        match self.form {
            Form::Json => say(&serde_json::to_string(finding).unwrap_or_default()),
            Form::Text => say(&line),
            Form::Screen(_) => {
                self.recent.truncate(RECENT - 1);
                self.recent.insert(0, line);
            }
        }
        true
    }

    /// Tells how it is going, if it is time for that.
    pub fn tell(&mut self, jobs: &[Job], peers: usize, last: bool) {
        let now = Instant::now();
        let since = now.duration_since(self.told);
        let pause = match self.form {
            Form::Screen(_) => PICTURE,
            _ => LINE,
        };
        if since < pause && !last {
            return;
        }
        let status = self.status(jobs, peers, now, last);
        self.told = now;
        match &mut self.form {
            Form::Json => say(&serde_json::to_string(&status).unwrap_or_default()),
            Form::Text => say(&in_words(&status)),
            Form::Screen(screen) if last => {
                screen.close();
                for line in self.recent.iter().rev() {
                    say(line);
                }
                say(&in_words(&status));
            }
            Form::Screen(screen) => screen.draw(&status, &self.recent),
        }
    }

    fn status(&mut self, jobs: &[Job], peers: usize, now: Instant, last: bool) -> Status {
        // Over all of the time in the end.
        let since = if last {
            self.all.executions = 0;
            self.each.iter_mut().for_each(|seen| seen.executions = 0);
            self.began.elapsed()
        } else {
            now.duration_since(self.told)
        };
        let per_job: Vec<OfJob> = jobs
            .iter()
            .zip(&mut self.each)
            .map(|(job, seen)| {
                seen.note_edges(job.progress.edges, now);
                OfJob {
                    executions: job.executions(),
                    executions_per_second: seen.rate(job.executions(), since),
                    edges: seen.edges,
                    corpus: job.progress.corpus,
                    imported: job.progress.imported,
                    seconds_since_new_edge: now.duration_since(seen.new_edge).as_secs_f64(),
                    deaths: job.life,
                    running: job.running,
                }
            })
            .collect();
        let edges = per_job.iter().map(|job| job.edges).max();
        self.all.note_edges(edges.unwrap_or(0), now);
        let executions = per_job.iter().map(|job| job.executions).sum();
        Status {
            target: self.target,
            seconds: self.began.elapsed().as_secs_f64(),
            executions,
            executions_per_second: self.all.rate(executions, since),
            edges: self.all.edges,
            edges_of: jobs
                .iter()
                .map(|job| job.progress.edges_of)
                .max()
                .unwrap_or(0),
            corpus: per_job.iter().map(|job| job.corpus).max().unwrap_or(0),
            findings: self.defects,
            waits: self.announced.len() - self.defects,
            seconds_since_new_edge: now.duration_since(self.all.new_edge).as_secs_f64(),
            jobs: jobs.len(),
            peers,
            per_job,
        }
    }
}

fn in_words(status: &Status) -> String {
    let jobs = match status.jobs {
        1 => String::new(),
        jobs => format!(", {jobs} jobs"),
    };
    let coverage = match status.edges_of {
        0 => "no coverage".to_owned(),
        edges_of => format!(
            "{} of {edges_of} edges (last new {:.0} s ago)",
            status.edges, status.seconds_since_new_edge
        ),
    };
    format!(
        "{} {:.0} s: {} executions, {:.0}/s, {coverage}, {} programs, {} findings, {} waits{jobs}",
        status.target,
        status.seconds,
        status.executions,
        status.executions_per_second,
        status.corpus,
        status.findings,
        status.waits,
    )
}

/// A line on standard output. A reader that went away wants no more, which is no error.
fn say(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}
