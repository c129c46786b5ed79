//! What would run, as text.

use crate::quantity::duration;
use cofferdam_experiment::outline::{Estimate, Outline};
use std::collections::BTreeMap;
use std::fmt::Write;

fn counts(out: &mut String, name: &str, counts: &BTreeMap<&'static str, u64>) {
    let each: Vec<String> = counts
        .iter()
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    let _ = writeln!(out, "{name:<12}{}", each.join(", "));
}

/// What would run and for how long, with the basis of that.
pub fn text(outline: &Outline, estimate: &Estimate) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "{} trials in {} cells", outline.trials, outline.cells);
    counts(&mut out, "placement", &outline.placements);
    counts(&mut out, "iommu", &outline.iommu);
    counts(&mut out, "fabric", &outline.fabrics);
    counts(&mut out, "driver", &outline.drivers);
    counts(&mut out, "fault", &outline.faults);
    let left_out: u64 = outline.not_applicable.values().sum();
    let _ = writeln!(out, "Not applicable: {left_out} cells");
    for (reason, count) in &outline.not_applicable {
        let _ = writeln!(out, "{count:>6}  {reason}");
    }
    let _ = writeln!(
        out,
        "About {}: {} of these trials took {} here just now, {} at a time",
        duration(estimate.run_ns),
        estimate.sampled,
        duration(estimate.took_ns),
        estimate.jobs
    );
    out
}
