//! Quantities as people read them.

/// A time in ns with three significant digits: `850 ns`, `12.3 us`, `50.0 ms`, `1.00 s`.
#[expect(
    clippy::cast_precision_loss,
    reason = "three digits are shown, sixteen are kept"
)]
pub fn time(ns: u64) -> String {
    let (value, unit) = match ns {
        0 => return "0".into(),
        1..1_000 => return format!("{ns} ns"),
        1_000..1_000_000 => (ns as f64 / 1e3, "us"),
        1_000_000..1_000_000_000 => (ns as f64 / 1e6, "ms"),
        _ => (ns as f64 / 1e9, "s"),
    };
    let digits = match value {
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.digits$} {unit}")
}

/// A time in ns that somebody waits for: `6.00 s`, `1 min 30 s`, `2 h 5 min`.
pub fn duration(ns: u64) -> String {
    let seconds = ns / 1_000_000_000;
    match seconds {
        0..60 => time(ns),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// A count per request, with at most two digits after the point.
#[expect(
    clippy::cast_precision_loss,
    reason = "two digits are shown, sixteen are kept"
)]
pub fn per(count: u64, requests: u64) -> String {
    if requests == 0 {
        return "-".into();
    }
    let text = format!("{:.2}", count as f64 / requests as f64);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A share in per cent.
pub fn percent(share: f64) -> String {
    let per_cent = share * 100.0;
    let digits = usize::from(per_cent < 9.95);
    format!("{per_cent:.digits$} %")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits_and_a_unit() {
        assert_eq!(time(0), "0");
        assert_eq!(time(850), "850 ns");
        assert_eq!(time(12_340), "12.3 us");
        assert_eq!(time(50_000_000), "50.0 ms");
        assert_eq!(time(999_999_999), "1000 ms");
        assert_eq!(time(1_000_000_000), "1.00 s");
        assert_eq!(time(u64::MAX), "18446744074 s");
    }

    #[test]
    fn counts_per_request_are_short() {
        assert_eq!(per(24, 12), "2");
        assert_eq!(per(25, 12), "2.08");
        assert_eq!(per(1, 0), "-");
    }

    #[test]
    fn small_shares_keep_a_digit() {
        assert_eq!(percent(0.0313), "3.1 %");
        assert_eq!(percent(1.0), "100 %");
    }
}
