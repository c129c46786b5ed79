//! The bootstrap interval of a quantile, over boots.
//!
//! The percentile method (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, 13.3).
//! Where every boot gave one value, no number is drawn: how resampled quantiles fall is known
//! exactly (Efron, Annals of Statistics 7, 1979, section 3). Where boots gave several, whole boots
//! are drawn (Davison and Hinkley, Bootstrap Methods and their Application, 1997, 3.8), from a
//! seed, so that the same records have the same interval.

use super::ENOUGH;
use super::distribution::{Permille, rank};
use crate::seed::Draw;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use statrs::distribution::{Binomial, DiscreteCDF};

/// How often boots are drawn.
const DRAWS: usize = 2000;
/// The tail left out on either side.
const TAIL: f64 = 0.025;

/// A 95 % interval of a time, ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Range {
    /// Lower end.
    pub low_ns: u64,
    /// Upper end.
    pub high_ns: u64,
}

/// The 95 % interval of a quantile of values, each with the number of its boot. `None` with fewer
/// than [`ENOUGH`] boots.
pub fn interval(values: &[(u64, u64)], quantile: Permille, seed: u64) -> Option<Range> {
    let mut by_boot = values.to_vec();
    by_boot.sort_unstable();
    let boots: Vec<&[(u64, u64)]> = by_boot.chunk_by(|one, next| one.0 == next.0).collect();
    if boots.len() < ENOUGH as usize {
        return None;
    }
    if boots.len() == values.len() {
        let mut sorted: Vec<u64> = values.iter().map(|&(_, ns)| ns).collect();
        sorted.sort_unstable();
        exact(&sorted, quantile)
    } else {
        drawn(&boots, quantile, &mut Draw::new(seed))
    }
}

/// Chance that the quantile of a resample of `n` values is at most the `nth` smallest of them: that
/// at least `rank` of `n` draws are.
fn reached(n: usize, rank: usize, nth: usize) -> f64 {
    // The quotient of two counts below 2^53 is a probability, and both counts are exact.
    let share = nth as f64 / n as f64;
    Binomial::new(share, n as u64).map_or(0.0, |draws| draws.sf(rank as u64 - 1))
}

fn exact(sorted: &[u64], quantile: Permille) -> Option<Range> {
    let n = sorted.len();
    let rank = rank(n, quantile)?;
    let places: Vec<usize> = (1..=n).collect();
    let end = |share: f64| {
        let at = places.partition_point(|&nth| reached(n, rank, nth) < share);
        sorted.get(at.min(n - 1)).copied()
    };
    Some(Range {
        low_ns: end(TAIL)?,
        high_ns: end(1.0 - TAIL)?,
    })
}

fn drawn(boots: &[&[(u64, u64)]], quantile: Permille, draw: &mut Draw) -> Option<Range> {
    let last = u32::try_from(boots.len()).unwrap_or(u32::MAX) - 1;
    let mut quantiles = Vec::with_capacity(DRAWS);
    let mut resample: Vec<u64> = Vec::new();
    for _ in 0..DRAWS {
        resample.clear();
        for _ in boots {
            let boot = boots[draw.between(0, last) as usize];
            resample.extend(boot.iter().map(|&(_, ns)| ns));
        }
        let rank = rank(resample.len(), quantile)?;
        quantiles.push(*resample.select_nth_unstable(rank - 1).1);
    }
    quantiles.sort_unstable();
    Some(Range {
        low_ns: *quantiles.get(rank(DRAWS, 25)? - 1)?,
        high_ns: *quantiles.get(rank(DRAWS, 975)? - 1)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEDIAN: Permille = 500;

    fn own_boots(values: impl IntoIterator<Item = u64>) -> Vec<(u64, u64)> {
        (0..).zip(values).collect()
    }

    #[test]
    fn resampled_medians_fall_as_published() {
        // Efron, Annals of Statistics 7 (1979), section 3, the median of n = 13: chances that it
        // is the 2nd, 3rd, ... 7th value. He rounds to four places, some of them up.
        let published = [0.0015, 0.0142, 0.0550, 0.1242, 0.1936, 0.2230];
        for (nth, published) in (2..).zip(published) {
            let found = reached(13, 7, nth) - reached(13, 7, nth - 1);
            assert!((found - published).abs() < 0.000_15, "{nth}: {found}");
        }
    }

    #[test]
    fn drawing_agrees_with_the_exact_distribution() {
        // Arrange: 201 values, of which neighbours lie 10 ns apart.
        let values = own_boots((0..201).map(|nth| 1000 + nth * 10));
        let boots: Vec<&[(u64, u64)]> = values.chunks(1).collect();

        // Act
        let exact = interval(&values, MEDIAN, 1).expect("there are enough boots");
        let drawn = drawn(&boots, MEDIAN, &mut Draw::new(1)).expect("there are values");

        // Assert: two places are two standard errors of an end over 2000 draws.
        assert!(
            exact.low_ns.abs_diff(drawn.low_ns) <= 20,
            "{exact:?} {drawn:?}"
        );
        assert!(
            exact.high_ns.abs_diff(drawn.high_ns) <= 20,
            "{exact:?} {drawn:?}"
        );
    }

    #[test]
    fn median_interval_covers_about_as_often_as_it_says() {
        // Samples of 41 from the uniform distribution on 0..=1000, whose median is 500.
        let mut draw = Draw::new(3);
        let covered = (0..1000)
            .filter(|_| {
                let sample = own_boots((0..41).map(|_| u64::from(draw.between(0, 1000))));
                let range = interval(&sample, MEDIAN, 1).expect("there are enough boots");
                (range.low_ns..=range.high_ns).contains(&500)
            })
            .count();
        assert!((920..=980).contains(&covered), "{covered} of 1000");
    }

    #[test]
    fn shared_boots_widen_the_interval_and_one_seed_repeats_it() {
        // Arrange: 40 boots of ten equal values, or 400 boots of one.
        let together: Vec<(u64, u64)> = (0..400).map(|nth| (nth / 10, nth / 10 * 7)).collect();
        let apart = own_boots(together.iter().map(|&(_, ns)| ns));

        // Act
        let clustered = interval(&together, MEDIAN, 5).expect("there are enough boots");
        let plain = interval(&apart, MEDIAN, 5).expect("there are enough boots");

        // Assert
        let width = |range: Range| range.high_ns - range.low_ns;
        assert!(
            width(clustered) > 2 * width(plain),
            "{clustered:?} {plain:?}"
        );
        assert_eq!(interval(&together, MEDIAN, 5), Some(clustered));
    }

    #[test]
    fn few_boots_have_no_interval() {
        let few = own_boots(0..29);
        assert_eq!(interval(&few, MEDIAN, 1), None);
        let shared: Vec<(u64, u64)> = (0..290).map(|nth| (nth % 29, nth)).collect();
        assert_eq!(interval(&shared, MEDIAN, 1), None);
        assert_eq!(interval(&[], MEDIAN, 1), None);
    }
}
