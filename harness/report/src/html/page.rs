//! The page, section by section.

use super::{
    ablations, answer, claims, costs, distributions, environment, literature, matrix, pairs,
    reading, trials,
};
use crate::matrix::Matrix;
use crate::{linux, reality};
use cofferdam_experiment::summary::Summary;
use cofferdam_reality::Reality;
use maud::{DOCTYPE, Markup, PreEscaped, html};

const STYLE: &str = include_str!("../style.css");

/// The sections, for the list at the top: the id and the title of each.
const SECTIONS: [(&str, &str); 9] = [
    ("matrix", "Matrix"),
    ("times", "Times"),
    ("pairs", "Pairs"),
    ("ablations", "Ablations"),
    ("costs", "Costs"),
    ("claims", "The argument"),
    ("literature", "Literature"),
    ("faults", "Fault by fault"),
    ("environment", "Environment"),
];

/// The page of a run.
pub fn page(summary: &Summary, guest: &Reality) -> String {
    let matrix = Matrix::of(summary);
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "Cofferdam: where should a driver live?" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header { (answer::section(summary)) }
                (contents())
                main {
                    (matrix::section(&matrix))
                    (distributions::section(summary))
                    (pairs::section(summary))
                    (ablations::section(summary))
                    (costs::section(summary))
                    (claims::section(summary))
                    (literature::section(summary))
                    (reality::section(&guest.comparisons))
                    (linux::section(summary, &guest.trials))
                    (trials::section(&matrix, summary))
                    (environment::section(summary))
                    (reading::section())
                }
            }
        }
    }
    .into_string()
}

fn contents() -> Markup {
    html! {
        nav aria-label="Sections" {
            @for (id, title) in SECTIONS { a href={ "#" (id) } { (title) } }
        }
    }
}
