//! The model beside a real Linux guest: a table on the terminal and a section of the page.

use crate::quantity::time;
use cofferdam_reality::{Comparison, Seen, Stray};
use maud::{Markup, html};
use std::fmt::Write;

/// What was seen, in a few words.
fn words(fault: Stray, seen: &Seen) -> String {
    match (fault, seen.landed) {
        (Stray::I4, 0) => "not raised".into(),
        (Stray::I4, _) => "raised".into(),
        (_, 0) => "refused".into(),
        (Stray::D6, _) => match seen.window_ns() {
            Some(window) => format!("landed up to {} late", time(window)),
            None => "landed".into(),
        },
        (_, bytes) => format!("{bytes} bytes landed"),
    }
}

const fn verdict(comparison: &Comparison) -> &'static str {
    match (comparison.agrees, &comparison.explained) {
        (true, _) => "agrees",
        (false, Some(_)) => "explained",
        (false, None) => "DISAGREES",
    }
}

/// The table for a terminal, empty without a guest.
pub fn table(comparisons: &[Comparison]) -> String {
    let Some(first) = comparisons.first() else {
        return String::new();
    };
    let mut out = format!("\nModel against a Linux guest ({})\n", first.kernel);
    for comparison in comparisons {
        let of = comparison.of.fault;
        let _ = writeln!(
            out,
            "{:<26}{:<26}{:<26}{}",
            comparison.cell,
            words(of, &comparison.reality),
            words(of, &comparison.model),
            verdict(comparison),
        );
    }
    let hold = comparisons.iter().filter(|one| one.holds()).count();
    let _ = writeln!(
        out,
        "(cell, the guest, the model)  {hold} of {} agree or are explained",
        comparisons.len()
    );
    out
}

/// The page's section, empty without a guest.
pub fn section(comparisons: &[Comparison]) -> Markup {
    html! {
        @if let Some(first) = comparisons.first() {
            h2 { "The model against a Linux guest" }
            p {
                "The same stray accesses by the same device: QEMU's edu under Linux " (first.kernel)
                " behind an emulated VT-d, and our edu on our machine. Software emulated both; no "
                "time here is a native one."
            }
            div.scroll {
                table {
                    thead { tr { th { "cell" } th { "guest" } th { "model" } th { "" } } }
                    tbody {
                        @for one in comparisons {
                            tr {
                                th { (one.cell) }
                                td {
                                    (words(one.of.fault, &one.reality))
                                    @for line in &one.evidence { small { (line) } }
                                }
                                td { (words(one.of.fault, &one.model)) }
                                td {
                                    (verdict(one))
                                    @if let Some(why) = &one.explained { small { (why) } }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cofferdam_machine::config::IommuMode;
    use cofferdam_reality::{Cell, Way, compare, guest::Observation};

    fn comparison(landed: u64) -> Comparison {
        compare(&Observation {
            cell: Cell {
                fault: Stray::D1,
                iommu: IommuMode::Strict,
                intremap: false,
                way: Way::Kernel,
            },
            seen: Seen {
                landed,
                tries: Vec::new(),
            },
            evidence: vec!["DMAR: <b>".into()],
            kernel: "6.12".into(),
        })
    }

    #[test]
    fn disagreement_is_not_to_be_overlooked() {
        let text = table(&[comparison(0), comparison(64)]);
        assert!(text.contains("D1/strict") && text.contains("agrees"));
        assert!(text.contains("DISAGREES") && text.contains("1 of 2"));
        assert!(text.lines().all(|line| line.len() <= 100));
    }

    #[test]
    fn guests_words_are_escaped() {
        let page = section(&[comparison(0)]).into_string();
        assert!(page.contains("DMAR: &lt;b&gt;"));
    }

    #[test]
    fn without_a_guest_nothing_is_said() {
        assert!(table(&[]).is_empty() && section(&[]).into_string().is_empty());
    }
}
