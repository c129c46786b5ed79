//! Events among trials, and what may be said about their rate.

use super::ENOUGH;
use super::beta::{quantile, student};
use super::cluster::Cluster;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A 95 % confidence interval of a proportion.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// The Clopper-Pearson 95 % interval of `events` in `of` trials (Clopper and Pearson, Biometrika
/// 26, 1934): exact, never too narrow. `None` without trials or with more events than trials.
pub fn clopper_pearson(events: u32, of: u32) -> Option<Interval> {
    if of == 0 || events > of {
        return None;
    }
    Some(beta_interval(f64::from(events), f64::from(of)))
}

/// The interval by the quantiles of two beta distributions, which need no whole numbers.
fn beta_interval(events: f64, of: f64) -> Interval {
    let low = if events <= 0.0 {
        0.0
    } else {
        quantile(events, of - events + 1.0, 0.025)
    };
    let high = if events >= of {
        1.0
    } else {
        quantile(events + 1.0, of - events, 0.975)
    };
    Interval { low, high }
}

/// The one-sided 95 % upper bound of a proportion of which no event was seen in `of` trials.
pub fn zero_event_bound(of: u32) -> Option<f64> {
    zero_bound(f64::from(of))
}

fn zero_bound(of: f64) -> Option<f64> {
    (of > 0.0).then(|| 1.0 - 0.05_f64.powf(1.0 / of))
}

/// What shared boots do to a proportion.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Design {
    /// Boots.
    pub boots: u32,
    /// By how much the trials of a boot are alike, from 0 to 1.
    pub correlation: f64,
    /// How many independent trials they are worth.
    pub effective: f64,
}

/// Events among trials, with what may be said about their rate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Proportion {
    /// Events.
    pub events: u32,
    /// Trials.
    pub of: u32,
    /// What shared boots do to it, where boots are shared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub design: Option<Design>,
    /// The 95 % interval of the rate, with [`ENOUGH`] trials.
    pub interval: Option<Interval>,
    /// The 95 % upper bound, with enough trials and no event.
    pub upper_bound: Option<f64>,
}

impl Proportion {
    /// The proportion of `events` in `of` trials, each in a boot of its own.
    pub fn new(events: u32, of: u32) -> Self {
        Self::with(events, of, None)
    }

    fn with(events: u32, of: u32, design: Option<Design>) -> Self {
        let n = design.map_or(f64::from(of), |design| design.effective);
        let enough = n >= f64::from(ENOUGH);
        let rate = f64::from(events) / f64::from(of);
        let interval = match design {
            None => clopper_pearson(events, of),
            Some(_) if events == of => Some(beta_interval(n, n)),
            Some(_) => Some(beta_interval(rate * n, n)),
        };
        Self {
            events,
            of,
            design,
            interval: interval.filter(|_| enough),
            upper_bound: zero_bound(n).filter(|_| enough && events == 0),
        }
    }

    /// Whether there are too few independent trials for a rate.
    pub fn is_few(&self) -> bool {
        let n = self
            .design
            .map_or(f64::from(self.of), |design| design.effective);
        n < f64::from(ENOUGH)
    }
}

/// Counts events among trials that may share boots. The trials of a boot come one after the other,
/// so it keeps the counts of the last boot and sums of the others.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    own: Counts,
    shared: Sums,
    last: Option<(u64, Counts)>,
}

/// What the boots that are shared come to.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    all: Counts,
    boots: u32,
    /// Boots of one trial.
    alone: u32,
    /// Of the squares of their sizes.
    squares: f64,
    /// Of events squared by size.
    between: f64,
}

impl Sums {
    fn with(mut self, boot: Option<(u64, Counts)>) -> Self {
        let Some((_, boot)) = boot else {
            return self;
        };
        let (size, events) = (f64::from(boot.trials), f64::from(boot.events));
        self.all.events += boot.events;
        self.all.trials += boot.trials;
        self.boots += 1;
        self.alone += u32::from(boot.trials == 1);
        self.squares += size * size;
        self.between += events * events / size;
        self
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    events: u32,
    trials: u32,
}

impl Counts {
    fn add(&mut self, event: bool) {
        self.events += u32::from(event);
        self.trials += 1;
    }
}

impl Tally {
    /// Adds a trial in that boot, and whether the event came.
    pub fn add(&mut self, event: bool, boot: Cluster) {
        let Cluster::Shared(boot) = boot else {
            return self.own.add(event);
        };
        if self.last.is_none_or(|(last, _)| last != boot) {
            self.shared = self.shared.with(self.last.take());
        }
        let (_, counts) = self.last.get_or_insert((boot, Counts::default()));
        counts.add(event);
    }

    /// The proportion.
    pub fn close(&self) -> Proportion {
        let shared = self.shared.with(self.last);
        let all = Counts {
            events: self.own.events + shared.all.events,
            trials: self.own.trials + shared.all.trials,
        };
        Proportion::with(all.events, all.trials, self.design(all, &shared))
    }

    /// How many independent trials these are worth (Korn and Graubard, Survey Methodology 24,
    /// 1998): as many as the design effect 1 + (m - 1) r leaves, less what few boots cost by
    /// Student's t. Here m is the mean size of a boot weighted by size (Kish, Survey Sampling,
    /// 1965, 5.4, for boots of unequal size), and r the correlation of its trials by analysis of
    /// variance (Ridout, Demetrio and Firth, Biometrics 55, 1999), not below 0. Where all trials
    /// agree nothing can be said of r, and a boot counts as one trial. `None` where no boot is
    /// shared.
    fn design(&self, all: Counts, shared: &Sums) -> Option<Design> {
        if shared.boots == shared.alone {
            return None;
        }
        let boots = self.own.trials.saturating_add(shared.boots);
        let (k, n, x) = (
            f64::from(boots),
            f64::from(all.trials),
            f64::from(all.events),
        );
        let squares = f64::from(self.own.trials) + shared.squares;
        let between = f64::from(self.own.events) + shared.between;
        let correlation = if boots == 1 || all.events == 0 || all.events == all.trials {
            1.0
        } else {
            let among = (between - x * x / n) / (k - 1.0);
            let within = (x - between) / (n - k);
            let size = (n - squares / n) / (k - 1.0);
            let r = (among - within) / (among + (size - 1.0) * within);
            if r.is_nan() { 1.0 } else { r.clamp(0.0, 1.0) }
        };
        let effect = 1.0 + (squares / n - 1.0) * correlation;
        let few = if boots == 1 {
            0.0
        } else {
            (student(n - 1.0) / student(k - 1.0)).powi(2)
        };
        Some(Design {
            boots,
            correlation,
            effective: n / effect * few,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: f64, published: f64, places: i32) -> bool {
        (found - published).abs() < 0.5 * 10_f64.powi(-places) + 1e-12
    }

    #[test]
    fn interval_equals_published_values() {
        // Newcombe, Statistics in Medicine 17 (1998), table I, method 5 (Clopper-Pearson).
        for (events, of, low, high) in [
            (81, 263, 0.2527, 0.3676),
            (15, 148, 0.0578, 0.1617),
            (0, 20, 0.0000, 0.1684),
            (1, 29, 0.0009, 0.1776),
        ] {
            let interval = clopper_pearson(events, of).expect("trials were made");
            assert!(close(interval.low, low, 4), "{events}/{of}: {interval:?}");
            assert!(close(interval.high, high, 4), "{events}/{of}: {interval:?}");
        }
    }

    #[test]
    fn interval_of_all_events_mirrors_that_of_none() {
        let none = clopper_pearson(0, 40).expect("trials were made");
        let all = clopper_pearson(40, 40).expect("trials were made");
        assert!((none.high - (1.0 - all.low)).abs() < 1e-9);
        assert!((all.high - 1.0).abs() < f64::EPSILON);
    }

    #[test]
    fn interval_of_many_trials_ends_and_is_the_normal_one() {
        // With so many trials the exact interval and that of the normal distribution are one, but
        // for the skewness, which is worth some trials.
        for of in [100_000, 10_000_000, u32::MAX] {
            for events in [of / 1000, of / 2, of - of / 100] {
                let interval = clopper_pearson(events, of).expect("trials were made");
                let (n, p) = (f64::from(of), f64::from(events) / f64::from(of));
                let half = 1.959_964 * (p * (1.0 - p) / n).sqrt();
                let room = half / 20.0 + 3.0 / n;
                assert!((interval.low - (p - half)).abs() < room, "{events}/{of}");
                assert!((interval.high - (p + half)).abs() < room, "{events}/{of}");
            }
        }
    }

    #[test]
    fn interval_at_the_ends_of_many_trials_has_its_closed_form() {
        for of in [1, 1_000_000, u32::MAX] {
            let n = f64::from(of);
            let none = clopper_pearson(0, of).expect("trials were made");
            let all = clopper_pearson(of, of).expect("trials were made");
            // 1 - 0.025^(1/n), without the loss of a difference of numbers near 1.
            let bound = -(0.025_f64.ln() / n).exp_m1();
            assert!((none.high / bound - 1.0).abs() < 1e-5, "{none:?}");
            assert!(
                ((1.0 - all.low) - bound).abs() < 1e-5 * bound + 1e-15,
                "{all:?}"
            );
        }
    }

    #[test]
    fn interval_of_one_event_in_ten_equals_the_table() {
        // Clopper-Pearson, 1 of 10: 0.0025 to 0.4450 in any table of the binomial distribution.
        let interval = clopper_pearson(1, 10).expect("trials were made");
        assert!(close(interval.low, 0.0025, 4), "{interval:?}");
        assert!(close(interval.high, 0.4450, 4), "{interval:?}");
    }

    #[test]
    fn interval_needs_trials() {
        assert_eq!(clopper_pearson(0, 0), None);
        assert_eq!(clopper_pearson(3, 2), None);
    }

    #[test]
    fn bound_of_zero_events_equals_published_values() {
        // Hanley and Lippman-Hand, JAMA 249 (1983): "if nothing goes wrong, is everything all
        // right?" give 26 % for 10 trials, and 3/n as an approximation.
        assert!(close(zero_event_bound(10).expect("trials"), 0.26, 2));
        assert!(close(zero_event_bound(30).expect("trials"), 0.095, 3));
        assert!(close(zero_event_bound(100).expect("trials"), 0.0295, 4));
        assert_eq!(zero_event_bound(0), None);
    }

    #[test]
    fn few_trials_have_counts_and_no_rate() {
        let few = Proportion::new(0, ENOUGH - 1);
        assert_eq!((few.interval, few.upper_bound), (None, None));

        let enough = Proportion::new(0, ENOUGH);
        assert!(enough.interval.is_some() && enough.upper_bound.is_some());
        assert_eq!(Proportion::new(1, ENOUGH).upper_bound, None);
    }

    #[test]
    fn interval_of_the_vegetarians_equals_the_book() {
        // Agresti, Categorical Data Analysis, 2nd ed., 1.4.3 and 1.4.4: 0 of 25 students.
        let interval = clopper_pearson(0, 25).expect("trials were made");
        assert!(close(interval.high, 0.137, 3), "{interval:?}");
    }

    /// Boots of so many trials each, of which so many have the event.
    fn shared(boots: &[(u32, u32)]) -> Tally {
        let mut tally = Tally::default();
        for (boot, &(events, trials)) in (0..).zip(boots) {
            for trial in 0..trials {
                tally.add(trial < events, Cluster::Shared(boot));
            }
        }
        tally
    }

    #[test]
    fn boots_of_one_trial_have_the_plain_interval() {
        let plain = Proportion::new(7, 40);
        let boots: Vec<(u32, u32)> = (0..40).map(|boot| (u32::from(boot < 7), 1)).collect();
        assert_eq!(shared(&boots).close(), plain);

        let mut own = Tally::default();
        for trial in 0..40 {
            own.add(trial < 7, Cluster::Own(trial));
        }
        assert_eq!(own.close(), plain);
    }

    #[test]
    fn correlation_is_that_of_the_analysis_of_variance() {
        // By hand: four boots of two, (2, 2, 0, 1) events. Among 11/24, within 1/8, size 2, so
        // r = (11/24 - 1/8) / (11/24 + 1/8) = 4/7.
        let found = shared(&[(2, 2), (2, 2), (0, 2), (1, 2)]).close();
        let design = found.design.expect("boots are shared");
        assert_eq!((design.boots, found.events, found.of), (4, 5, 8));
        assert!((design.correlation - 4.0 / 7.0).abs() < 1e-12, "{design:?}");
        // Student's t, 97.5 %, for 7 and 3 degrees: 2.3646 and 3.1824 in any table.
        let effective = 8.0 / (11.0 / 7.0) * (2.3646_f64 / 3.1824).powi(2);
        assert!((design.effective - effective).abs() < 1e-3, "{design:?}");
    }

    #[test]
    fn alike_trials_of_a_boot_count_as_one() {
        // Arrange: 60 boots of 10 trials; in 20 of them every trial has the event.
        let boots: Vec<(u32, u32)> = (0..60)
            .map(|boot| (if boot < 20 { 10 } else { 0 }, 10))
            .collect();

        // Act
        let found = shared(&boots).close();

        // Assert: no narrower than 20 of 60, and far wider than 200 of 600.
        let width = |of: &Proportion| of.interval.map(|interval| interval.high - interval.low);
        assert!(width(&found) >= width(&Proportion::new(20, 60)));
        assert!(width(&found) > width(&Proportion::new(200, 600)).map(|plain| 2.0 * plain));
        assert!((found.design.expect("boots are shared").correlation - 1.0).abs() < 1e-9);
    }

    #[test]
    fn no_event_in_shared_boots_is_bounded_by_boots_and_not_by_trials() {
        let found = shared(&[(0, 10); 40]).close();
        let bound = found.upper_bound.expect("40 boots are enough");
        assert!(bound >= zero_event_bound(40).expect("trials"));

        let few = shared(&[(0, 10); 20]).close();
        assert!(few.is_few());
        assert_eq!((few.interval, few.upper_bound), (None, None));
        assert!(
            shared(&[(0, 1000)]).close().is_few(),
            "one boot is one trial"
        );
    }

    #[test]
    fn unlike_trials_of_a_boot_are_worth_no_more_than_apart() {
        // Each boot has one event in two trials: the correlation is negative, and counts as none.
        let found = shared(&[(1, 2); 50]).close();
        let design = found.design.expect("boots are shared");
        assert!(design.correlation.abs() < f64::EPSILON);
        assert!(design.effective <= 100.0);
    }
}
