//! The beta distribution, by a bounded number of steps for any counts.
//!
//! The usual inversions iterate until they are content, which for counts of millions they may never
//! be, and a continued fraction that is cut after some hundred terms is wrong there. Here the fraction
//! gets the terms it needs (of the order of the root of the larger parameter), and the inverse is
//! found by halving.

use statrs::function::gamma::ln_gamma;

/// Terms of the continued fraction at most: several times what counts of 2^32 need.
const TERMS: u32 = 1 << 20;
/// Halvings: after these two neighbouring numbers are left, wherever in (0, 1) they are.
const HALVINGS: u32 = 128;
/// A factor this near to 1 ends the fraction.
const NEAR: f64 = 1e-15;

/// The regularised incomplete beta function `I_x(a, b)` (NIST Digital Library of Mathematical
/// Functions, 8.17): the chance that a beta variable with these parameters is at most `x`. Both
/// parameters are above 0; `x` outside [0, 1] counts as its nearer end.
pub fn regularised(a: f64, b: f64, x: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if x >= 1.0 {
        return 1.0;
    }
    let scale = ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b) + a * x.ln() + b * (-x).ln_1p();
    // DLMF 8.17.4: on the other side of the mean the fraction would converge slowly.
    if x <= (a + 1.0) / (a + b + 2.0) {
        (scale.exp() / a * fraction(a, b, x)).min(1.0)
    } else {
        (1.0 - scale.exp() / b * fraction(b, a, 1.0 - x)).max(0.0)
    }
}

/// The continued fraction DLMF 8.17.22, from the front (Lentz, Applied Optics 15, 1976).
fn fraction(a: f64, b: f64, x: f64) -> f64 {
    // Never divides by nothing.
    let held = |value: f64| {
        if value.abs() < f64::MIN_POSITIVE {
            f64::MIN_POSITIVE
        } else {
            value
        }
    };
    let mut front = 1.0;
    let mut back = 1.0 / held(1.0 - (a + b) * x / (a + 1.0));
    let mut value = back;
    for term in 1..=TERMS {
        let m = f64::from(term);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let mut factor = 1.0;
        for part in [even, odd] {
            back = 1.0 / held(1.0 + part * back);
            front = held(1.0 + part / front);
            factor = front * back;
            value *= factor;
        }
        if (factor - 1.0).abs() <= NEAR {
            break;
        }
    }
    value
}

/// The quantile: where `I_x(a, b)` reaches `p`. Both parameters are above 0.
pub fn quantile(a: f64, b: f64, p: f64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(low, high);
        if middle <= low || middle >= high {
            break;
        }
        if regularised(a, b, middle) < p {
            low = middle;
        } else {
            high = middle;
        }
    }
    f64::midpoint(low, high)
}

/// The 97.5 % quantile of Student's t (Abramowitz and Stegun, 26.7.1): `t^2 / (t^2 + freedom)` has a
/// beta distribution.
pub fn student(freedom: f64) -> f64 {
    let share = quantile(0.5, freedom / 2.0, 0.95);
    (freedom * share / (1.0 - share)).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(found: f64, expected: f64, relative: f64) {
        let off = (found - expected).abs() / expected;
        assert!(off <= relative, "{found:e} instead of {expected:e}");
    }

    #[test]
    fn function_equals_its_closed_forms() {
        // I_x(a, 1) = x^a, I_x(1, b) = 1 - (1 - x)^b, and by symmetry a half at the middle.
        // The tolerance is what a difference of logarithms of 10^11 leaves.
        for a in [0.5, 1.0, 3.0, 40.0, 1e6, 4e9] {
            let x = 0.5_f64.powf(1.0 / a);
            near(regularised(a, 1.0, x), 0.5, 1e-4);
            near(regularised(1.0, a, 1.0 - x), 0.5, 1e-4);
            near(regularised(a, a, 0.5), 0.5, 1e-4);
        }
        assert_eq!(regularised(2.0, 3.0, -1.0), 0.0);
        assert_eq!(regularised(2.0, 3.0, 2.0), 1.0);
    }

    #[test]
    fn function_is_the_binomial_sum() {
        // P(X >= 3) of 10 tosses of a fair coin: 1 - (1 + 10 + 45) / 1024.
        near(regularised(3.0, 8.0, 0.5), 1.0 - 56.0 / 1024.0, 1e-13);
    }

    #[test]
    fn quantile_comes_back_to_its_probability() {
        for (a, b) in [
            (0.5, 2.0),
            (1.0, 30.0),
            (15.0, 15.0),
            (5e5, 5e5),
            (3.0, 1e6),
        ] {
            for p in [0.025, 0.5, 0.975] {
                near(regularised(a, b, quantile(a, b, p)), p, 1e-9);
            }
        }
    }

    #[test]
    fn student_equals_the_table() {
        // Abramowitz and Stegun, table 26.10, A(t|v) = 0.95.
        for (freedom, t) in [
            (1.0, 12.706),
            (3.0, 3.182),
            (7.0, 2.365),
            (30.0, 2.042),
            (120.0, 1.980),
            (1e9, 1.960),
        ] {
            near(student(freedom), t, 3e-4);
        }
    }
}
