//! Paired comparisons: two placements, the same seeds, one question with yes or no.

use super::beta::regularised;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Answers to one question in pairs of trials.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Table {
    /// Yes in both trials.
    pub both: u32,
    /// Yes in the first trial only.
    pub only_first: u32,
    /// Yes in the second trial only.
    pub only_second: u32,
    /// Yes in neither.
    pub neither: u32,
}

impl Table {
    /// Both tables together.
    #[must_use]
    pub const fn and(&self, other: &Self) -> Self {
        Self {
            both: self.both.saturating_add(other.both),
            only_first: self.only_first.saturating_add(other.only_first),
            only_second: self.only_second.saturating_add(other.only_second),
            neither: self.neither.saturating_add(other.neither),
        }
    }

    /// Pairs that answered differently.
    pub const fn discordant(&self) -> u32 {
        self.only_first.saturating_add(self.only_second)
    }

    /// Pairs.
    pub const fn pairs(&self) -> u32 {
        self.discordant()
            .saturating_add(self.both)
            .saturating_add(self.neither)
    }

    /// The two-sided p-value of McNemar's exact test (McNemar, Psychometrika 12, 1947; Agresti,
    /// Categorical Data Analysis, 2nd ed., 10.1.4): discordant pairs fall to either side like a
    /// fair coin, and the smaller tail is doubled. 1 without discordant pairs.
    pub fn mcnemar(&self) -> f64 {
        let fewer = self.only_first.min(self.only_second);
        let of = f64::from(self.discordant());
        let fewer = f64::from(fewer);
        if of == 0.0 {
            return 1.0;
        }
        // The binomial tail as a beta distribution's (DLMF 8.17.5).
        (2.0 * regularised(of - fewer, fewer + 1.0, 0.5)).min(1.0)
    }
}

/// Adjusts the p-values of a family of comparisons by Holm's step-down method (Holm, Scandinavian
/// Journal of Statistics 6, 1979): with all that stay below 5 %, the chance that any of them is
/// false is below 5 %. The order is kept.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&one, &other| p[one].total_cmp(&p[other]));
    let mut adjusted = vec![1.0; p.len()];
    let mut largest = 0.0_f64;
    let mut left = u32::try_from(p.len()).unwrap_or(u32::MAX);
    for at in order {
        largest = largest.max(f64::from(left) * p[at]).min(1.0);
        adjusted[at] = largest;
        left -= 1;
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn discordant(only_first: u32, only_second: u32) -> Table {
        Table {
            only_first,
            only_second,
            ..Table::default()
        }
    }

    #[test]
    fn approval_of_the_prime_minister_changed() {
        // Agresti, Categorical Data Analysis, 2nd ed., table 10.1: 794 approve twice, 150 no
        // longer, 86 newly, 570 never; z squared is 17.36 there, and the exact test gives
        // P = 3.716e-5 (Fay, The R Journal 2, 2010, on the package exact2x2).
        let ratings = Table {
            both: 794,
            only_first: 150,
            only_second: 86,
            neither: 570,
        };
        assert_eq!(ratings.pairs(), 1600);
        assert!((ratings.mcnemar() - 3.716e-5).abs() < 0.5e-8);
    }

    #[test]
    fn few_discordant_pairs_are_tails_of_a_fair_coin() {
        // By hand: 2 / 2^5; 2 (1 + 10) / 2^10.
        assert!((discordant(0, 5).mcnemar() - 2.0 / 32.0).abs() < 1e-12);
        assert!((discordant(9, 1).mcnemar() - 22.0 / 1024.0).abs() < 1e-12);
    }

    #[test]
    fn p_is_never_above_one() {
        assert!((discordant(4, 4).mcnemar() - 1.0).abs() < f64::EPSILON);
        assert!((Table::default().mcnemar() - 1.0).abs() < f64::EPSILON);
    }

    #[test]
    fn holm_rejects_what_it_does_in_the_published_example() {
        // Benjamini and Hochberg, JRSS B 57 (1995), section 3.2: 15 comparisons of a study by
        // Neuhaus et al. Bonferroni's bound and Hochberg's step-up both reject the first three
        // at 5 %, and Holm lies between the two.
        let p = [
            0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262,
            0.5719, 0.6528, 0.7590, 1.000,
        ];
        let adjusted = holm(&p);
        assert!((adjusted[2] - 13.0 * 0.0019).abs() < 1e-12);
        assert!((adjusted[3] - 12.0 * 0.0095).abs() < 1e-12);
        assert_eq!(adjusted.iter().filter(|p| **p < 0.05).count(), 3);
    }

    #[test]
    fn holm_keeps_the_order_and_never_falls() {
        // By hand: 0.005 x 4, 0.01 x 3, 0.03 x 2, and 0.04 is raised to the one before.
        let adjusted = holm(&[0.01, 0.04, 0.03, 0.005]);
        for (found, expected) in adjusted.iter().zip([0.03, 0.06, 0.06, 0.02]) {
            assert!((found - expected).abs() < 1e-12, "{adjusted:?}");
        }
        assert!(holm(&[]).is_empty());
    }
}
