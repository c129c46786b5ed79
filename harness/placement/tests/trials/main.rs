//! Trials through real processes: the physics, the jail, deaths and restarts.

mod boots;
mod clean;
mod costs;
mod deaths;
mod guest;
mod jail;
mod passthrough;
mod physics;
mod physics_bus;
mod physics_dma;
mod physics_interrupts;
mod physics_memory;
mod replay;
mod rings;
mod storm;
mod tenants;
mod trace;

use cofferdam_placement::placement::{ALL, Placement};
use cofferdam_placement::trial::{DomainEnd, DomainReport, TrialReport, TrialSpec};
use cofferdam_placement::zygote::Zygote;
use std::path::Path;

/// A fresh zygote.
fn zygote() -> Zygote {
    Zygote::launch(Path::new(env!("CARGO_BIN_EXE_cofferdam-test-zygote"))).expect("zygote")
}

/// The placements that run on every host; those in a KVM guest have tests of their own.
fn processes() -> impl Iterator<Item = &'static Placement> {
    ALL.into_iter().filter(|placement| !placement.needs_kvm())
}

/// Runs a trial in a zygote of its own.
fn run(spec: &TrialSpec) -> TrialReport {
    zygote().run(spec).expect("trial")
}

/// A domain of a report.
fn domain<'a>(report: &'a TrialReport, name: &str) -> &'a DomainReport {
    report
        .domains
        .iter()
        .find(|domain| domain.name == name)
        .expect("domain")
}

/// Whether every tenant did all it meant to, with right answers, and lives.
fn all_is_well(report: &TrialReport) -> bool {
    report
        .io
        .iter()
        .all(|io| io.finished && io.corrupted == 0 && io.lost == 0 && io.duplicated == 0)
        && report
            .domains
            .iter()
            .all(|domain| domain.end == DomainEnd::Alive)
}
