//! How a campaign is doing, once a second.

use crate::arguments::Format;
use cofferdam_fuzz::campaign::Campaign;
use serde::Serialize;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// What is told.
#[derive(Serialize)]
struct Status<'a> {
    target: &'a str,
    seconds: f64,
    executions: u64,
    executions_per_second: f64,
    edges: usize,
    edges_of: usize,
    corpus: usize,
    findings: usize,
    waits: usize,
    seconds_since_new_edge: f64,
}

/// Tells of a campaign.
pub struct Teller {
    target: &'static str,
    format: Format,
    terminal: bool,
    began: Instant,
    told: Instant,
    told_executions: u64,
    edges: usize,
    new_edge: Instant,
    announced: usize,
}

impl Teller {
    pub fn new(target: &'static str, format: Option<Format>) -> Self {
        let terminal = io::stdout().is_terminal();
        let usual = if terminal { Format::Text } else { Format::Json };
        let now = Instant::now();
        Self {
            target,
            format: format.unwrap_or(usual),
            terminal,
            began: now,
            told: now,
            told_executions: 0,
            edges: 0,
            new_edge: now,
            announced: 0,
        }
    }

    /// Tells what is new, and once a second how it is going.
    pub fn tell(&mut self, campaign: &Campaign, corpus: usize, last: bool) {
        let now = Instant::now();
        let (edges, edges_of) = campaign.edges();
        if edges > self.edges {
            self.edges = edges;
            self.new_edge = now;
        }
        for found in campaign.found().iter().skip(self.announced) {
            self.announced += 1;
            let finding = &found.finding;
            match self.format {
                Format::Json => say(&serde_json::to_string(finding).unwrap_or_default()),
                Format::Text => {
                    let kind = if finding.defect { "finding" } else { "wait" };
                    let clear = if self.terminal { "\r\x1b[K" } else { "" };
                    say(&format!(
                        "{clear}{kind} {}: {} in {} ({} actions)",
                        finding.signature,
                        finding.message,
                        finding.location.function,
                        finding.actions
                    ));
                }
            }
        }
        let since = now.duration_since(self.told);
        if since < Duration::from_secs(1) && !last {
            return;
        }
        let executions = campaign.executions();
        let defects = campaign
            .found()
            .iter()
            .filter(|found| found.finding.defect)
            .count();
        let seconds = self.began.elapsed().as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "shown to some digits")]
        let rate = if last {
            executions as f64 / seconds.max(1e-9)
        } else {
            (executions - self.told_executions) as f64 / since.as_secs_f64()
        };
        let status = Status {
            target: self.target,
            seconds,
            executions,
            executions_per_second: rate,
            edges,
            edges_of,
            corpus,
            findings: defects,
            waits: campaign.found().len() - defects,
            seconds_since_new_edge: now.duration_since(self.new_edge).as_secs_f64(),
        };
        self.told = now;
        self.told_executions = executions;
        match self.format {
            Format::Json => say(&serde_json::to_string(&status).unwrap_or_default()),
            Format::Text => {
                let coverage = match edges_of {
                    0 => "no coverage".to_owned(),
                    _ => format!(
                        "{edges} of {edges_of} edges (last new {:.0} s ago)",
                        status.seconds_since_new_edge
                    ),
                };
                let line = format!(
                    "{} {:.0} s: {executions} executions, {rate:.0}/s, {coverage}, {corpus} programs, {defects} findings, {} waits",
                    self.target, status.seconds, status.waits
                );
                if self.terminal && !last {
                    print!("\r\x1b[K{line}");
                    let _ = io::stdout().flush();
                } else if self.terminal {
                    println!("\r\x1b[K{line}");
                } else {
                    say(&line);
                }
            }
        }
    }
}

/// A line on standard output. A reader that went away wants no more, which is no error.
fn say(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}
