//! Progress of a run, as text.

use crate::quantity::duration;
use std::time::{Duration, Instant};

/// How often a line on a terminal changes at most.
const REDRAW: Duration = Duration::from_millis(100);
/// How often a plain line is written at most.
const PLAIN: Duration = Duration::from_secs(10);

/// Follows a run.
#[derive(Debug)]
pub struct Progress {
    is_terminal: bool,
    started: Instant,
    said: Option<Instant>,
    /// Trials that were done before this run of the program.
    before: Option<u64>,
}

impl Progress {
    /// Starts at `now`. On a terminal one line is overwritten, elsewhere lines are appended.
    pub const fn new(is_terminal: bool, now: Instant) -> Self {
        Self {
            is_terminal,
            started: now,
            said: None,
            before: None,
        }
    }

    /// What to write now that `done` of `total` trials are done, if it is time to say something.
    /// Those before the first call were done by an earlier run and say nothing about the rate.
    pub fn advance(&mut self, done: u64, total: u64, cell: &str, now: Instant) -> Option<String> {
        let before = *self.before.get_or_insert(done.saturating_sub(1));
        let pause = if self.is_terminal { REDRAW } else { PLAIN };
        let due = match self.said {
            None => self.is_terminal,
            Some(said) => now.duration_since(said) >= pause,
        };
        if self.said.is_none() {
            self.said = Some(now);
        }
        if !due && done != total {
            return None;
        }
        self.said = Some(now);
        let percent = (done * 100).checked_div(total).unwrap_or(100);
        let head = format!(
            "{done} of {total} trials, {percent} %{}",
            self.pace(done - before.min(done), total.saturating_sub(done), now)
        );
        Some(if self.is_terminal {
            let line: String = format!("{head}  {cell}").chars().take(79).collect();
            format!("\r\x1b[K{line}")
        } else {
            format!("{head}\n")
        })
    }

    /// The rate, and how long what is left will take at that rate.
    fn pace(&self, ran: u64, left: u64, now: Instant) -> String {
        let spent = now.duration_since(self.started).as_nanos();
        let Some(rate) = (u128::from(ran) * 10_000_000_000).checked_div(spent) else {
            return String::new();
        };
        let mut pace = format!(", {}.{} a second", rate / 10, rate % 10);
        match (u128::from(left) * spent).checked_div(u128::from(ran)) {
            None | Some(0) => {}
            Some(ns) => {
                let ns = u64::try_from(ns).unwrap_or(u64::MAX);
                pace.push_str(&format!(", {} left", duration(ns)));
            }
        }
        pace
    }

    /// What to write when the run is over: on a terminal the line is wiped.
    pub const fn finish(&self) -> &'static str {
        if self.is_terminal { "\r\x1b[K" } else { "" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_line_fits_and_says_how_long() {
        let start = Instant::now();
        let mut progress = Progress::new(true, start);
        let later = start + Duration::from_secs(2);
        assert!(progress.advance(1, 2000, "", start).is_some());
        let line = progress
            .advance(500, 2000, &"x".repeat(200), later)
            .expect("a terminal is told at once");
        assert!(line.contains("500 of 2000 trials, 25 %, 250.0 a second, 6.00 s left"));
        assert!(line.trim_start_matches("\r\x1b[K").len() < 80);
        assert_eq!(progress.advance(501, 2000, "", later), None);
    }

    #[test]
    fn trials_of_an_earlier_run_do_not_count_for_the_rate() {
        let start = Instant::now();
        let mut progress = Progress::new(true, start);
        progress.advance(1001, 2000, "", start + Duration::from_secs(1));
        let line = progress
            .advance(1100, 2000, "", start + Duration::from_secs(10))
            .expect("ten seconds are long enough");
        assert!(
            line.contains("55 %, 10.0 a second, 1 min 30 s left"),
            "{line}"
        );
    }

    #[test]
    fn plain_lines_are_few_and_end() {
        let start = Instant::now();
        let mut progress = Progress::new(false, start);
        let lines: Vec<String> = (1..=1000)
            .filter_map(|done| {
                let now = start + Duration::from_millis(50 * done);
                progress.advance(done, 1000, "cell", now)
            })
            .collect();
        assert!(lines.len() <= 6, "{}", lines.len());
        assert!(
            lines
                .last()
                .is_some_and(|line| line.starts_with("1000 of 1000"))
        );
        assert!(lines.iter().all(|line| line.ends_with('\n')));
    }
}
