//! Where the run took place, what was unavailable there, and how to run it again.

use cofferdam_experiment::catalogue::{clock_name, driver, fabric_name, iommu_name, placement};
use cofferdam_experiment::plan::Settings;
use cofferdam_experiment::summary::Summary;
use maud::{Markup, html};

pub(super) fn section(summary: &Summary) -> Markup {
    let environment = &summary.environment;
    html! {
        h2 #environment { "Environment, and how to run it again" }
        p {
            "The whole run, trial by trial the same where the clock leaps: "
            code.block { (command(summary)) }
        }
        dl {
            dt { "kernel" } dd { (environment.kernel) }
            dt { "CPU" } dd { (environment.cpu) ", " (environment.cores) " usable" }
            dt { "clock" }
            dd { (clock_name(environment.clock)) " (clock source " (environment.clock_source) ")" }
            dt { "mechanism" } dd { "process: " (environment.caveat) }
            @if let Some(guests) = environment.guests {
                dt { "drivers in guests" } dd { (guests.words()) }
            }
            @for fact in &environment.jail {
                dt { (fact.name) } dd { (fact.value) }
            }
            dt { "cofferdam" } dd { (environment.cofferdam) }
            dt { "environment id" } dd { code { (summary.environment_id) } }
        }
        h3 { "What was unavailable" }
        dl {
            @for each in &environment.unavailable {
                dt { (each.what) } dd { (each.why) }
            }
        }
        @if !summary.not_applicable.is_empty() {
            details {
                summary { "What does not exist (" (summary.not_applicable.len()) ")" }
                dl.inside {
                    @for each in &summary.not_applicable {
                        dt { (each.case) " with " (each.place) } dd { (each.reason) }
                    }
                }
            }
        }
    }
}

/// The command that repeats the run.
fn command(summary: &Summary) -> String {
    let (settings, filter) = (&summary.settings, &summary.filter);
    let mut words = vec!["cofferdam compare".to_owned()];
    // The rest of the settings is that of one of the two sizes.
    if settings.horizon_ns == Settings::QUICK.horizon_ns {
        words.push("--quick".to_owned());
    }
    words.push(format!("--trials {}", settings.trials));
    words.push(format!("--seed {}", settings.seed));
    words.push(format!("--clock {}", clock_name(settings.clock)));
    let mut add = |option: &str, value: &str| words.push(format!("--{option} {value}"));
    for id in &filter.placements {
        add("placement", placement(*id).id);
    }
    for mode in &filter.iommu {
        add("iommu", iommu_name(*mode));
    }
    for fabric in &filter.fabrics {
        add("fabric", fabric_name(*fabric));
    }
    for id in &filter.drivers {
        add("driver", driver(*id).id);
    }
    for fault in &filter.faults {
        add("fault", fault);
    }
    words.join(" ")
}
