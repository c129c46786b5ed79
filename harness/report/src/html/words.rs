//! Words, symbols and figures that several sections share.

use crate::quantity::percent;
use cofferdam_experiment::catalogue::placement;
use cofferdam_experiment::predict::Label;
use cofferdam_experiment::statistics::{Proportion, Spread};
use cofferdam_experiment::verdict::Outcome;
use cofferdam_placement::trial::PlacementId;

/// A time whose unit stays on its line.
pub(super) fn time(ns: u64) -> String {
    crate::quantity::time(ns).replace(' ', "\u{a0}")
}

pub(crate) const fn says(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Clean => "clean",
        Outcome::NotActivated => "not activated",
        Outcome::Masked => "masked",
        Outcome::Contained => "contained",
        Outcome::Disturbed => "disturbed",
        Outcome::TenantLost => "tenant lost",
        Outcome::SilentCorruption => "silent corruption",
        Outcome::SystemLost => "system lost",
    }
}

/// A sign for those who see no colours.
pub(super) const fn symbol(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Clean => "\u{b7}",
        Outcome::NotActivated => "\u{2205}",
        Outcome::Masked => "\u{25cb}",
        Outcome::Contained => "\u{2713}",
        Outcome::Disturbed => "\u{2248}",
        Outcome::TenantLost => "\u{25b2}",
        Outcome::SilentCorruption => "\u{2717}",
        Outcome::SystemLost => "\u{25a0}",
    }
}

pub(super) const fn means(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Clean => "nothing was injected",
        Outcome::NotActivated => "the faulty access never happened; counts for nothing",
        Outcome::Masked => "nobody's state or time differed",
        Outcome::Contained => "only the driver's own domain differed",
        Outcome::Disturbed => {
            "a bystander was more than 5 ms late, read its memory at half the speed, had to try again \
             or got a forged interrupt; nothing was lost"
        }
        Outcome::TenantLost => "a tenant died, stands still or could not finish",
        Outcome::SilentCorruption => {
            "somebody else's memory changed, or a tenant was given wrong data as good"
        }
        Outcome::SystemLost => "the privileged layer stopped or stands still",
    }
}

pub(super) const fn label(label: Label) -> &'static str {
    match label {
        Label::ByConstruction => "by construction",
        Label::Measured => "measured",
    }
}

/// `one`, `one and two`, `one, two and three`.
pub(super) fn list<S: AsRef<str>>(names: &[S]) -> String {
    match names {
        [] => String::new(),
        [one] => one.as_ref().to_owned(),
        [rest @ .., last] => {
            let rest: Vec<&str> = rest.iter().map(AsRef::as_ref).collect();
            format!("{} and {}", rest.join(", "), last.as_ref())
        }
    }
}

/// The names of placements, in a list.
pub(super) fn places(of: impl IntoIterator<Item = PlacementId>) -> String {
    let names: Vec<&str> = of.into_iter().map(|id| placement(id).id).collect();
    list(&names)
}

/// `1 case`, `2 cases`.
pub(super) fn many(count: usize, one: &str) -> String {
    if count == 1 {
        format!("1 {one}")
    } else {
        format!("{count} {one}s")
    }
}

/// One of its times; what is "at least" says so.
pub(super) fn says_time(of: &Spread, ns: u64) -> String {
    let sign = if of.is_at_least(ns) {
        "\u{2265}\u{a0}"
    } else {
        ""
    };
    format!("{sign}{}", time(ns))
}

/// Median and maximum.
pub(super) fn spread(of: Option<Spread>) -> String {
    of.map_or("-".into(), |spread| {
        let at = |ns| says_time(&spread, ns);
        if spread.median_ns == spread.max_ns {
            at(spread.max_ns)
        } else {
            format!("{}, max {}", at(spread.median_ns), at(spread.max_ns))
        }
    })
}

/// Counts, and what may be said about their rate.
pub(super) fn rate(of: &Proportion) -> String {
    match (of.interval, of.upper_bound) {
        (_, Some(bound)) => format!("0/{}, below {}", of.of, percent(bound)),
        (Some(interval), None) => format!(
            "{}/{}, {} to {}",
            of.events,
            of.of,
            percent(interval.low),
            percent(interval.high)
        ),
        (None, None) => format!("{}/{}", of.events, of.of),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_read_like_sentences() {
        assert_eq!(list::<&str>(&[]), "");
        assert_eq!(list(&["a"]), "a");
        assert_eq!(list(&["a", "b"]), "a and b");
        assert_eq!(list(&["a", "b", "c"]), "a, b and c");
    }

    #[test]
    fn every_outcome_has_a_symbol_of_its_own() {
        let symbols: std::collections::BTreeSet<_> = Outcome::ALL.into_iter().map(symbol).collect();
        assert_eq!(symbols.len(), Outcome::ALL.len());
    }
}
