//! Figures from the literature beside the machine's.

use cofferdam_experiment::catalogue::{Here, LITERATURE};
use cofferdam_experiment::summary::Summary;
use maud::{Markup, html};

pub(super) fn section(summary: &Summary) -> Markup {
    html! {
        section aria-labelledby="literature" {
            h2 #literature { "Figures from the literature" }
            div.scroll tabindex="0" { table {
                caption.hidden { "Published figures and this machine's" }
                thead { tr {
                    th scope="col" { "of" } th scope="col" { "literature" }
                    th scope="col" { "here" } th scope="col" { "source" }
                } }
                tbody {
                    @for constant in &LITERATURE {
                        tr {
                            th scope="row" { (constant.what) }
                            td { (constant.figure) }
                            td {
                                @match constant.here(summary) {
                                    Here::Parameter(value) => { (value) small { "a parameter" } }
                                    Here::Measured(value) => { (value) small { "measured in this run" } }
                                    Here::Nothing(why) => { "\u{2014}" small { (why) } }
                                }
                            }
                            td.soft { (constant.source) }
                        }
                    }
                }
            } }
        }
    }
}
