//! Statistics of a cell: proportions, and how times spread.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use statrs::distribution::{Beta, ContinuousCDF};

/// Fewer activated trials than this show counts and no rate.
pub const ENOUGH: u32 = 30;

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
    let (k, n) = (f64::from(events), f64::from(of));
    let quantile = |a: f64, b: f64, p: f64| Beta::new(a, b).ok().map(|beta| beta.inverse_cdf(p));
    let low = if events == 0 {
        0.0
    } else {
        quantile(k, n - k + 1.0, 0.025)?
    };
    let high = if events == of {
        1.0
    } else {
        quantile(k + 1.0, n - k, 0.975)?
    };
    Some(Interval { low, high })
}

/// The one-sided 95 % upper bound of a proportion of which no event was seen in `of` trials.
pub fn zero_event_bound(of: u32) -> Option<f64> {
    (of > 0).then(|| 1.0 - 0.05_f64.powf(1.0 / f64::from(of)))
}

/// Events among trials, with what may be said about their rate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Proportion {
    /// Events.
    pub events: u32,
    /// Trials.
    pub of: u32,
    /// The 95 % interval of the rate, with [`ENOUGH`] trials.
    pub interval: Option<Interval>,
    /// The 95 % upper bound, with enough trials and no event.
    pub upper_bound: Option<f64>,
}

impl Proportion {
    /// The proportion of `events` in `of` trials.
    pub fn new(events: u32, of: u32) -> Self {
        let enough = of >= ENOUGH;
        Self {
            events,
            of,
            interval: clopper_pearson(events, of).filter(|_| enough),
            upper_bound: zero_event_bound(of).filter(|_| enough && events == 0),
        }
    }
}

/// How times spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Spread {
    /// Values.
    pub n: u32,
    /// Median by nearest rank (the lower of two middle values), ns.
    pub median_ns: u64,
    /// Largest, ns.
    pub max_ns: u64,
}

impl Spread {
    /// The spread of values, if there are any.
    pub fn of(values: &[u64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_unstable();
        Some(Self {
            n: u32::try_from(sorted.len()).unwrap_or(u32::MAX),
            median_ns: *sorted.get(sorted.len().checked_sub(1)? / 2)?,
            max_ns: *sorted.last()?,
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
    fn median_is_a_value_that_was_seen() {
        let spread = Spread::of(&[40, 10, 30, 20]).expect("there are values");
        assert_eq!((spread.n, spread.median_ns, spread.max_ns), (4, 20, 40));
        assert_eq!(Spread::of(&[]), None);
    }
}
