//! How long software waited for resets of the device.

use cofferdam_seam::Time;
use std::time::Duration;

/// Waits that are kept. A driver that resets for ever waits 100 ms each time; what it waits after
/// this many counts as its own time.
const KEPT: usize = 1024;

/// The waits of a trial, in order; they do not overlap.
#[derive(Debug, Default)]
pub(super) struct Waits {
    over: Vec<(Time, Time)>,
    since: Option<Time>,
}

impl Waits {
    /// A reset begins. One that is under way goes on: there is one device.
    pub fn begin(&mut self, now: Time) {
        self.since.get_or_insert(now);
    }

    /// Nobody waits any longer.
    pub fn end(&mut self, now: Time) {
        if let Some(since) = self.since.take()
            && self.over.len() < KEPT
        {
            self.over.push((since, now));
        }
    }

    /// The time waited between two points.
    pub fn within(&self, from: Time, to: Time) -> Duration {
        let open = self.since.map(|since| (since, to));
        let parts = self.over.iter().copied().chain(open);
        parts
            .map(|(since, until)| until.min(to).since(since.max(from)))
            .sum()
    }

    /// The longest one that is over.
    pub fn longest(&self) -> Duration {
        let each = self.over.iter().map(|(since, until)| until.since(*since));
        each.max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(count: u64) -> Time {
        Time(count * 1_000_000)
    }

    #[test]
    fn only_what_lies_between_counts() {
        let mut waits = Waits::default();
        waits.begin(ms(10));
        waits.end(ms(110));
        waits.begin(ms(200));
        waits.end(ms(300));

        assert_eq!(waits.within(ms(60), ms(250)), Duration::from_millis(100));
        assert_eq!(waits.within(ms(120), ms(180)), Duration::ZERO);
        assert_eq!(waits.longest(), Duration::from_millis(100));
    }

    #[test]
    fn second_reset_under_way_is_not_counted_twice() {
        let mut waits = Waits::default();
        waits.begin(ms(0));
        waits.begin(ms(50));
        waits.end(ms(150));
        assert_eq!(waits.within(ms(0), ms(500)), Duration::from_millis(150));
    }

    #[test]
    fn reset_without_an_end_lasts_to_the_trials() {
        let mut waits = Waits::default();
        waits.begin(ms(40));
        assert_eq!(waits.within(ms(0), ms(100)), Duration::from_millis(60));
        assert_eq!(waits.longest(), Duration::ZERO);
    }
}
