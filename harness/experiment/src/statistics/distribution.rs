//! How times spread, when some of them are known only as "at least".
//!
//! A time is right-censored if the trial ended before what it measures did. Such times are not
//! dropped, and no survival curve is fitted through them: a driver that never came back was not
//! stopped at random. They count with the time they had reached, and every quantile that could
//! hide a longer one is "at least".
//!
//! The first [`EXACT`] observations are kept as they are. Beyond that, quantiles come from a
//! histogram with two significant digits, and intervals from a sample of whole boots, which is
//! wider than all of them would be.

use super::bootstrap::{self, Range};
use super::cluster::Cluster;
use hdrhistogram::Histogram;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BinaryHeap;

/// Observations kept one by one.
pub const EXACT: usize = 512;
/// Points of a curve, at most.
const STEPS: usize = 32;

/// A quantile in thousandths: 500 is the median.
pub type Permille = u32;

/// The nearest rank of a quantile, from 1; of an even number of values the lower middle is the
/// median. `None` without values.
pub(crate) fn rank(n: usize, quantile: Permille) -> Option<usize> {
    let rank = n.saturating_mul(quantile as usize).div_ceil(1000);
    (n > 0).then(|| rank.clamp(1, n))
}

/// How times spread. A time of `censored_from_ns` or more is "at least".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Spread {
    /// Values.
    pub n: u32,
    /// Median by nearest rank (the lower of two middle values), ns.
    pub median_ns: u64,
    /// The 95 % interval of the median, with enough boots.
    #[serde(default)]
    pub median_interval: Option<Range>,
    /// 99th percentile, ns.
    #[serde(default)]
    pub p99_ns: u64,
    /// 99.9th percentile, ns.
    #[serde(default)]
    pub p999_ns: u64,
    /// Largest, ns.
    pub max_ns: u64,
    /// Values that are "at least".
    #[serde(default)]
    pub censored: u32,
    /// The smallest of them, ns.
    #[serde(default)]
    pub censored_from_ns: Option<u64>,
}

impl Spread {
    /// Whether one of its quantiles, or an end of its interval, is "at least".
    pub fn is_at_least(&self, ns: u64) -> bool {
        self.censored_from_ns.is_some_and(|from| ns >= from)
    }
}

/// A point of an empirical distribution function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Step {
    /// Time, ns.
    pub ns: u64,
    /// Values up to there.
    pub values: u32,
}

/// One observation; ordered by its boot's mixed number first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Observation {
    boot: u64,
    ns: u64,
    censored: bool,
}

/// Observations of the boots with the smallest mixed numbers: a sample of whole boots that does not
/// depend on the order in which they came (a bottom-k sample).
#[derive(Clone, Debug, Default)]
struct Sample {
    kept: BinaryHeap<Observation>,
    below: Option<u64>,
}

impl Sample {
    fn add(&mut self, observation: Observation) {
        if self.below.is_some_and(|below| observation.boot >= below) {
            return;
        }
        self.kept.push(observation);
        if self.kept.len() > EXACT {
            let out = self.kept.peek().map(|last| last.boot);
            while self.kept.peek().map(|last| last.boot) == out && self.kept.pop().is_some() {}
            self.below = out;
        }
    }
}

/// Times at the histogram's resolution.
#[derive(Clone, Debug)]
struct Coarse {
    ended: Histogram<u32>,
    censored: Histogram<u32>,
}

impl Coarse {
    fn new() -> Self {
        let empty = Histogram::new(2).expect("a histogram may have two digits");
        Self {
            ended: empty.clone(),
            censored: empty,
        }
    }

    fn add(&mut self, observation: Observation) {
        let part = if observation.censored {
            &mut self.censored
        } else {
            &mut self.ended
        };
        // It grows to any 64-bit value; where the address space is smaller, the largest it holds.
        if part.record(observation.ns).is_err() {
            part.saturating_record(observation.ns);
        }
    }
}

/// Sorted times.
enum Sorted {
    Exact(Vec<u64>),
    Coarse(Histogram<u32>),
}

impl Sorted {
    fn len(&self) -> usize {
        match self {
            Self::Exact(values) => values.len(),
            Self::Coarse(histogram) => usize::try_from(histogram.len()).unwrap_or(usize::MAX),
        }
    }

    /// The value of a rank from 1. Never too small: a bucket counts as its upper end.
    fn at(&self, rank: usize) -> u64 {
        match self {
            Self::Exact(values) => values.get(rank.saturating_sub(1)).copied().unwrap_or(0),
            // Half a rank less keeps the quotient from rounding up to the next rank.
            Self::Coarse(histogram) => {
                histogram.value_at_quantile((rank as f64 - 0.5) / self.len() as f64)
            }
        }
    }

    fn up_to(&self, ns: u64) -> u32 {
        let values = match self {
            Self::Exact(values) => values.partition_point(|&value| value <= ns) as u64,
            Self::Coarse(histogram) => histogram.count_between(0, ns),
        };
        u32::try_from(values).unwrap_or(u32::MAX)
    }
}

/// Collects times, in memory that does not grow with their number.
#[derive(Clone, Debug, Default)]
pub struct Distribution {
    ended: Part,
    censored: Part,
    sample: Sample,
    coarse: Option<Box<Coarse>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Part {
    n: u32,
    min: Option<u64>,
    max: u64,
}

impl Part {
    fn add(&mut self, ns: u64) {
        self.n = self.n.saturating_add(1);
        self.min = Some(self.min.map_or(ns, |min| min.min(ns)));
        self.max = self.max.max(ns);
    }
}

impl Distribution {
    /// Adds the time of a trial in that boot; `censored` if it is "at least".
    pub fn add(&mut self, ns: u64, censored: bool, boot: Cluster) {
        let observation = Observation {
            boot: boot.mixed(),
            ns,
            censored,
        };
        if self.coarse.is_none() && self.n() as usize == EXACT {
            let coarse = self.coarse.insert(Box::new(Coarse::new()));
            for &known in &self.sample.kept {
                coarse.add(known);
            }
        }
        if let Some(coarse) = &mut self.coarse {
            coarse.add(observation);
        }
        self.sample.add(observation);
        if censored {
            self.censored.add(ns);
        } else {
            self.ended.add(ns);
        }
    }

    /// Times added.
    pub fn n(&self) -> u32 {
        self.ended.n.saturating_add(self.censored.n)
    }

    /// Times added that are not "at least".
    pub fn ended(&self) -> u32 {
        self.ended.n
    }

    /// The spread of all times, if there are any. The seed is that of the interval.
    pub fn spread(&self, seed: u64) -> Option<Spread> {
        self.spread_of(true, seed)
    }

    /// The spread of those times that are not "at least": only of what did end.
    pub fn spread_of_ended(&self, seed: u64) -> Option<Spread> {
        self.spread_of(false, seed)
    }

    fn spread_of(&self, all: bool, seed: u64) -> Option<Spread> {
        let censored = if all { self.censored } else { Part::default() };
        let max_ns = self.ended.max.max(censored.max);
        let sorted = self.sorted(all);
        let quantile = |permille| {
            let rank = rank(sorted.len(), permille)?;
            Some(sorted.at(rank).min(max_ns))
        };
        let sample: Vec<(u64, u64)> = self
            .kept(all)
            .map(|observation| (observation.boot, observation.ns))
            .collect();
        Some(Spread {
            n: self.ended.n.saturating_add(censored.n),
            median_ns: quantile(500)?,
            median_interval: bootstrap::interval(&sample, 500, seed),
            p99_ns: quantile(990)?,
            p999_ns: quantile(999)?,
            max_ns,
            censored: censored.n,
            censored_from_ns: censored.min,
        })
    }

    /// The empirical distribution function in a few points. It ends before the first time that is
    /// "at least", as nobody knows how it goes on.
    pub fn curve(&self) -> Vec<Step> {
        let known = |ns: u64| self.censored.min.is_none_or(|from| ns < from);
        self.steps(true, known)
    }

    /// The same of those times only that are not "at least". Over all times together it is a lower
    /// bound: so many, or more, were over by then.
    pub fn curve_of_ended(&self) -> Vec<Step> {
        self.steps(false, |_| true)
    }

    fn steps(&self, all: bool, known: impl Fn(u64) -> bool) -> Vec<Step> {
        let sorted = self.sorted(all);
        let n = sorted.len();
        let mut steps: Vec<Step> = (1..=STEPS.min(n))
            .map(|nth| sorted.at((nth * n).div_ceil(STEPS.min(n))))
            .take_while(|&ns| known(ns))
            .map(|ns| Step {
                ns,
                values: sorted.up_to(ns),
            })
            .collect();
        steps.dedup();
        steps
    }

    fn kept(&self, all: bool) -> impl Iterator<Item = &Observation> {
        let kept = self.sample.kept.iter();
        kept.filter(move |observation| all || !observation.censored)
    }

    fn sorted(&self, all: bool) -> Sorted {
        match &self.coarse {
            None => {
                let mut values: Vec<u64> = self.kept(all).map(|seen| seen.ns).collect();
                values.sort_unstable();
                Sorted::Exact(values)
            }
            Some(coarse) => {
                let mut values = coarse.ended.clone();
                if all {
                    values += &coarse.censored;
                }
                Sorted::Coarse(values)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: impl IntoIterator<Item = (u64, bool)>) -> Distribution {
        let mut times = Distribution::default();
        for (trial, (ns, censored)) in (0..).zip(values) {
            times.add(ns, censored, Cluster::Own(trial));
        }
        times
    }

    fn ended(values: impl IntoIterator<Item = u64>) -> Distribution {
        of(values.into_iter().map(|ns| (ns, false)))
    }

    #[test]
    fn median_is_a_value_that_was_seen() {
        let spread = ended([40, 10, 30, 20]).spread(1).expect("there are values");
        assert_eq!((spread.n, spread.median_ns, spread.max_ns), (4, 20, 40));
        assert_eq!(spread.median_interval, None, "four values have none");
        assert_eq!(Distribution::default().spread(1), None);
    }

    #[test]
    fn quantiles_have_the_nearest_rank() {
        // Hyndman and Fan, The American Statistician 50 (1996), definition 1.
        let spread = ended(1..=500).spread(1).expect("there are values");
        assert_eq!((spread.median_ns, spread.p99_ns), (250, 495));
        assert_eq!((spread.p999_ns, spread.max_ns), (500, 500));
    }

    #[test]
    fn quantile_in_the_censored_part_is_at_least() {
        // Arrange: 60 of 100 times ended, the others were cut off at the horizon.
        let times = of((1..=100).map(|nth| {
            if nth <= 60 {
                (nth, false)
            } else {
                (1000, true)
            }
        }));

        // Act
        let spread = times.spread(1).expect("there are values");

        // Assert
        assert_eq!((spread.median_ns, spread.p99_ns), (50, 1000));
        assert!(!spread.is_at_least(spread.median_ns));
        assert!(spread.is_at_least(spread.p99_ns));
        let interval = spread.median_interval.expect("there are enough boots");
        assert!(!spread.is_at_least(interval.high_ns), "{interval:?}");
        let curve = times.curve();
        assert!(curve.iter().all(|step| step.ns <= 60), "{curve:?}");
    }

    #[test]
    fn early_censored_time_makes_every_longer_quantile_at_least() {
        let spread = of([(5, true), (10, false), (20, false)])
            .spread(1)
            .expect("there are values");
        assert_eq!((spread.median_ns, spread.censored), (10, 1));
        assert!(spread.is_at_least(spread.median_ns));
    }

    #[test]
    fn spread_of_what_ended_leaves_the_rest_out() {
        let times = of([(10, false), (20, false), (1000, true)]);
        let spread = times.spread_of_ended(1).expect("two ended");
        assert_eq!((spread.n, spread.max_ns, spread.censored), (2, 20, 0));
        assert_eq!(of([(1, true)]).spread_of_ended(1), None);
    }

    #[test]
    fn curve_of_ended_goes_on_behind_an_early_censored_time() {
        let times = of([(1, true), (10, false), (20, false)]);
        assert_eq!(times.curve(), []);
        let ended = [Step { ns: 10, values: 1 }, Step { ns: 20, values: 2 }];
        assert_eq!(times.curve_of_ended(), ended);
    }

    #[test]
    fn many_times_keep_two_digits_and_bounded_memory() {
        // Arrange: more than are kept one by one, in an order that is no order.
        let n = 50_000;
        let times = ended((0..n).map(|nth| 1 + (nth * 7919) % n));

        // Act
        let spread = times.spread(1).expect("there are values");

        // Assert
        for (found, true_value) in [
            (spread.median_ns, n / 2),
            (spread.p99_ns, n / 100 * 99),
            (spread.p999_ns, n / 1000 * 999),
        ] {
            assert!(found >= true_value, "{found} hides {true_value}");
            assert!(
                found - true_value <= true_value / 100,
                "{found} for {true_value}"
            );
        }
        assert_eq!((spread.n, spread.max_ns), (50_000, n));
        assert!(times.sample.kept.len() <= EXACT);
        let interval = spread.median_interval.expect("there are enough boots");
        assert!(interval.low_ns < n / 2 && n / 2 < interval.high_ns);
    }

    #[test]
    fn sample_has_whole_boots_whatever_their_order() {
        // Arrange: 1000 boots of four trials each.
        let boots: Vec<(u64, u64)> = (0..4000).map(|nth| (nth / 4, nth)).collect();
        let add = |values: &mut dyn Iterator<Item = &(u64, u64)>| {
            let mut times = Distribution::default();
            for &(boot, ns) in values {
                times.add(ns, false, Cluster::Shared(boot));
            }
            times
        };

        // Act
        let forth = add(&mut boots.iter());
        let back = add(&mut boots.iter().rev());

        // Assert
        let sorted = |times: &Distribution| times.sample.kept.clone().into_sorted_vec();
        assert_eq!(sorted(&forth), sorted(&back));
        let kept = sorted(&forth);
        assert!(kept.len() > EXACT - 4);
        for boot in kept.chunk_by(|one, next| one.boot == next.boot) {
            assert_eq!(boot.len(), 4);
        }
        assert_eq!(forth.spread(7), back.spread(7));
    }

    #[test]
    fn curve_rises_to_all_values_in_few_steps() {
        let curve = ended((0..500).map(|nth| nth % 100)).curve();
        assert!(curve.len() <= STEPS);
        assert!(curve.is_sorted_by(|one, next| one.ns < next.ns && one.values < next.values));
        assert_eq!(
            curve.last(),
            Some(&Step {
                ns: 99,
                values: 500
            })
        );
        assert_eq!(Distribution::default().curve(), []);
    }

    #[test]
    fn extreme_times_are_counted_like_any_other() {
        let times = ended((0..600).map(|nth| if nth % 2 == 0 { 0 } else { u64::MAX }));
        let spread = times.spread(1).expect("there are values");
        assert_eq!((spread.median_ns, spread.max_ns), (0, u64::MAX));
    }
}
