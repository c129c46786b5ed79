//! The report of a comparison: one self-contained page, for a screen of any size, light or dark.
//!
//! It leads with what is not settled by construction: predictions that were contradicted, then how
//! drivers and systems react, then what follows from owners, mappings and IOMMU mode.

use crate::matrix::{Block, Matrix, Row, Square, Tally, depends_on_iommu};
use crate::quantity::{per, percent};
use crate::reality;
use cofferdam_experiment::catalogue::{
    DRIVERS, FAULTS, IOMMU_MODES, PLACEMENTS, Standing, clock_name, driver, fabric_name,
    iommu_name, placement,
};
use cofferdam_experiment::gates::GateResult;
use cofferdam_experiment::predict::Label;
use cofferdam_experiment::statistics::{Proportion, Spread};
use cofferdam_experiment::summary::{CellSummary, State, Summary};
use cofferdam_experiment::verdict::Outcome;
use cofferdam_machine::config::IommuMode;
use cofferdam_placement::trial::PlacementId;
use cofferdam_reality::Comparison;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use std::collections::BTreeMap;

const STYLE: &str = include_str!("style.css");

/// A time whose unit stays on its line.
fn time(ns: u64) -> String {
    crate::quantity::time(ns).replace(' ', "\u{a0}")
}

/// The page of a run.
pub fn page(summary: &Summary, guest: &[Comparison]) -> String {
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
                main {
                    (heading(summary))
                    (disagreements(summary))
                    (glance(summary))
                    (measured(&matrix))
                    (by_construction(&matrix))
                    (reality::section(guest))
                    (costs(summary))
                    (details(summary))
                    (environment(summary))
                    (reading())
                }
            }
        }
    }
    .into_string()
}

const fn says(outcome: Outcome) -> &'static str {
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

const fn means(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Clean => "nothing was injected",
        Outcome::NotActivated => "the faulty access never happened; counts for nothing",
        Outcome::Masked => "nobody's state or time differed",
        Outcome::Contained => "only the driver's own domain differed",
        Outcome::Disturbed => {
            "a bystander was more than 5 ms late, had to try again or got a forged interrupt; \
             nothing was lost"
        }
        Outcome::TenantLost => "a tenant died, stands still or could not finish",
        Outcome::SilentCorruption => {
            "somebody else's memory changed, or a tenant was given wrong data as good"
        }
        Outcome::SystemLost => "the privileged layer stopped or stands still",
    }
}

fn heading(summary: &Summary) -> Markup {
    let settings = &summary.settings;
    let activated: u32 = summary.cells.iter().map(|cell| cell.activated).sum();
    html! {
        h1 { "Where should a driver live?" }
        p {
            "The same drivers, the same devices and the same seeds, in "
            (count_placements(summary)) ". " (summary.finished) " of " (summary.planned)
            " trials finished, " (settings.trials) " planned for each cell; in " (activated)
            " of them a fault acted. Seed " (settings.seed) ", " (clock_name(settings.clock))
            " clock, " (settings.requests) " verified requests a tenant, "
            (time(settings.horizon_ns)) " of device time at most."
        }
        @match summary.state {
            State::Complete => {}
            State::Interrupted => p.notice {
                b { "Partial. " } "The run was interrupted; what is here is true, but not all."
            }
            State::Aborted => p.notice {
                b { "Partial. " } "The harness failed too often to go on."
            }
        }
        @if !summary.infrastructure_failures.is_empty() {
            p.notice {
                b { (summary.infrastructure_failures.len()) " trials could not be run. " }
                "They are infrastructure failures and count as nothing else. The last words of \
                 the first: "
                code {
                    (summary.infrastructure_failures.first().map_or("", |first| &first.what))
                }
            }
        }
        ul.chips {
            @for gate in &summary.gates {
                @let (class, result) = match gate.result {
                    GateResult::Passed => ("passed", "held"),
                    GateResult::Failed => ("failed", "failed"),
                    GateResult::NotRun => ("", "not part of this run"),
                    GateResult::Reported => ("", "differs, as the wall clock may"),
                };
                li class={ "gate " (class) } {
                    b { (gate.name) } (result)
                    @if gate.checked > 0 {
                        span.soft { " (" (gate.checked - gate.failed) " of " (gate.checked) ")" }
                    }
                    br;
                    span.soft { (gate.asks) }
                    @for example in &gate.examples {
                        br; code { (example) }
                    }
                }
            }
        }
    }
}

fn count_placements(summary: &Summary) -> String {
    let names: Vec<&str> = PLACEMENTS
        .iter()
        .filter(|entry| {
            summary
                .cells
                .iter()
                .any(|cell| cell.placement == entry.placement)
        })
        .map(|entry| entry.id)
        .collect();
    match names.len() {
        1 => format!("one placement ({})", names.concat()),
        n => format!("{n} placements ({})", names.join(", ")),
    }
}

fn disagreements(summary: &Summary) -> Markup {
    let activated: u32 = summary.cells.iter().map(|cell| cell.activated).sum();
    html! {
        h2 { "What contradicts the prediction" }
        @if summary.disagreements.is_empty() {
            p {
                "Nothing: in " (activated) " activated trials no prediction from owners, mappings \
                 and IOMMU mode was contradicted."
            }
        } @else {
            div.scroll { table {
                thead { tr {
                    th { "cell" } th { "predicted" } th { "found" } th { "trials" } th { "first" }
                } }
                tbody {
                    @for each in &summary.disagreements {
                        tr {
                            th { code { (each.cell) } }
                            td { (each.expected) small { (label(each.label)) } }
                            td { (each.found) }
                            td.num { (each.trials) }
                            td.num { (each.first) }
                        }
                    }
                }
            } }
        }
    }
}

const fn label(label: Label) -> &'static str {
    match label {
        Label::ByConstruction => "by construction",
        Label::Measured => "measured",
    }
}

/// Shares of outcomes, a bar for each placement.
fn glance(summary: &Summary) -> Markup {
    let dma = |cell: &CellSummary| depends_on_iommu(&cell.fault) && !cell.is_clean();
    html! {
        h2 { "At a glance" }
        p.soft {
            "Shares of the activated trials of this plan. They compare placements; they are no \
             failure rates, for no plan has the mix of faults of the field."
        }
        ul.chips {
            @for outcome in Outcome::ALL.into_iter().filter(|outcome| *outcome >= Outcome::Masked) {
                li { span class={ "chip " (outcome.name()) } { (says(outcome)) } }
            }
        }
        div.grid {
            (bars(summary, "Crashes, hangs, lies, wild stores (strict)", |cell| {
                !dma(cell) && !cell.is_clean()
            }))
            @for mode in &IOMMU_MODES {
                (bars(
                    summary,
                    &format!("Stray DMA and interrupts, IOMMU {}", mode.id),
                    |cell| dma(cell) && cell.iommu == mode.value,
                ))
            }
        }
    }
}

fn bars(summary: &Summary, title: &str, keep: impl Fn(&CellSummary) -> bool) -> Markup {
    let mut placements: BTreeMap<PlacementId, BTreeMap<Outcome, u32>> = BTreeMap::new();
    for cell in summary.cells.iter().filter(|cell| keep(cell)) {
        let outcomes = placements.entry(cell.placement).or_default();
        for (outcome, times) in &cell.outcomes {
            if *outcome >= Outcome::Masked {
                *outcomes.entry(*outcome).or_default() += times;
            }
        }
    }
    html! {
        @if !placements.is_empty() {
            div {
                h3 { (title) }
                div.bars {
                    @for (id, outcomes) in &placements {
                        @let total: u32 = outcomes.values().sum();
                        span { (placement(*id).id) }
                        div.bar {
                            @for (outcome, times) in outcomes {
                                span class=(outcome.name()) style={ "flex:" (times) }
                                    title={ (says(*outcome)) ": " (times) " of " (total) } {}
                            }
                        }
                        span.num.soft { "n = " (total) }
                    }
                }
            }
        }
    }
}

fn measured(matrix: &Matrix<'_>) -> Markup {
    html! {
        h2 { "Measured: how drivers and systems react" }
        p {
            "What does not follow from the topology. Each square shows the worst outcome and in \
             how many of the activated trials it came, driver by driver where they differ; then \
             the medians of the slower driver: how late a bystander was beyond its clean pair, \
             who noticed first, and when service was back. Where all placements show the same, \
             one square stands for all, with the counts of each."
        }
        // The strictest mode has the faults that depend on no mode: it comes first.
        @for blocks in matrix.alike().rev() {
            (table(matrix, blocks, Label::Measured))
        }
    }
}

fn by_construction(matrix: &Matrix<'_>) -> Markup {
    html! {
        h2 { "By construction: what follows from owners, mappings and IOMMU mode" }
        p {
            "These outcomes can be read off a table; the trials show that the machine obeys it. \
             A wild DMA is decided by the IOMMU mode, wherever the driver lives; a wild store by \
             what the driver's domain maps."
        }
        @for blocks in matrix.alike().rev() {
            (table(matrix, blocks, Label::ByConstruction))
        }
    }
}

/// The table of some modes that look alike.
fn table(matrix: &Matrix<'_>, blocks: &[Block<'_>], label: Label) -> Markup {
    let settled = label == Label::ByConstruction;
    let all = blocks.first().map_or(&[][..], |block| &block.rows);
    let mut rows: Vec<&Row<'_>> = all
        .iter()
        .filter(|row| row.by_construction() == settled)
        .collect();
    // What depends on the placement comes before what the IOMMU decides.
    rows.sort_by_key(|row| depends_on_iommu(row.fault));
    let names: Vec<&str> = blocks.iter().map(|block| block.name).collect();
    html! {
        @if !rows.is_empty() {
            h3 { "IOMMU " (names.join(" and ")) }
            div.scroll { table.matrix {
                thead { tr {
                    th { "fault" }
                    @for &id in &matrix.placements {
                        th {
                            (placement(id).id)
                            @for block in blocks { small { (standing(id, block.iommu)) } }
                        }
                    }
                } }
                tbody {
                    @for (at, row) in rows.iter().enumerate() {
                        @let new = at.checked_sub(1).is_none_or(|before| rows[before].fault != row.fault);
                        tr {
                            th { (row.name) @if new { small { (fault_line(row)) } } }
                            @if let Some(one) = row.uniform() {
                                (square(&one, row.squares.len()))
                            } @else {
                                @for each in &row.squares {
                                    @match each {
                                        None => td.none { "not applicable" },
                                        Some(each) => (square(each, 1)),
                                    }
                                }
                            }
                        }
                    }
                }
            } }
        }
    }
}

fn standing(id: PlacementId, iommu: IommuMode) -> String {
    match placement(id).standing(iommu) {
        Standing::Deployed(system) => system.to_owned(),
        Standing::Synthetic(why) => format!("synthetic: {why}"),
    }
}

fn fault_line(row: &Row<'_>) -> &'static str {
    FAULTS
        .iter()
        .find(|fault| fault.id == row.fault)
        .map_or("", |fault| fault.line)
}

/// A square, or one that stands for so many that show the same.
fn square(square: &Square<'_>, placements: usize) -> Markup {
    let all = square.tally();
    let drivers = square.by_driver();
    let same = drivers.values().all(|own| own.worst == all.worst);
    html! {
        td class={ (all.worst.name()) (if placements > 1 { " wide" } else { "" }) } colspan=(placements) {
            @if same {
                div { (tally(&all, square, placements)) }
            } @else {
                @for (id, own) in &drivers {
                    div { (driver(*id).id) ": " (tally(own, square, placements)) }
                }
            }
            @if all.activated > 0 {
                (remarks(square, all.worst))
            }
        }
    }
}

fn tally(tally: &Tally, square: &Square<'_>, placements: usize) -> Markup {
    let each = u32::try_from(placements.max(1)).unwrap_or(u32::MAX);
    let injected: u32 = square.cells.iter().map(|cell| cell.injected).sum();
    html! {
        b { (says(tally.worst)) } " "
        span.num {
            @if tally.worst == Outcome::NotActivated {
                "0/" (injected / each)
            } @else {
                (tally.times / each) "/" (tally.activated / each)
            }
        }
        @if each > 1 { " in each" }
    }
}

/// Who was hurt, how long it took, who noticed, when it was over.
fn remarks(square: &Square<'_>, worst: Outcome) -> Markup {
    let mut whose: BTreeMap<&str, u32> = BTreeMap::new();
    let mut by: BTreeMap<&str, u32> = BTreeMap::new();
    for cell in &square.cells {
        let names = if worst == Outcome::SilentCorruption {
            &cell.corrupted
        } else {
            &cell.hurt
        };
        for (name, times) in names {
            *whose.entry(name).or_default() += times;
        }
        for (name, times) in &cell.noticed.by {
            *by.entry(name).or_default() += times;
        }
    }
    let whose: Vec<&str> = whose.into_keys().collect();
    let first = by
        .iter()
        .max_by_key(|(_, times)| **times)
        .map(|(name, _)| *name);
    let noticed = square.median(|cell| cell.noticed.after.map(|spread| spread.median_ns));
    let back = square.recovery();
    let stall = square
        .stall()
        .filter(|stall| *stall > 0 && !square.censored());
    html! {
        @if !whose.is_empty() && worst >= Outcome::Disturbed {
            small {
                (if worst == Outcome::SilentCorruption { "corrupted: " } else { "hurt: " })
                (whose.join(", "))
            }
        }
        @if let Some(stall) = stall {
            small { "stall " (time(stall)) }
        }
        @if square.censored() {
            small { "stall: to the end of the trial" }
        }
        @if let (Some(first), Some(noticed)) = (first, noticed) {
            small { "noticed by " (first) " " (delay(noticed)) }
        }
        @if let Some(back) = back {
            small { "served again after " (time(back)) }
        }
    }
}

fn delay(ns: u64) -> String {
    match ns {
        0 => "at once".into(),
        ns => format!("after {}", time(ns)),
    }
}

/// Rows of the clean cells; placements that cost the same share one.
fn cost_rows(summary: &Summary) -> Vec<(Vec<&'static str>, Vec<String>)> {
    let mut rows: Vec<(Vec<&'static str>, Vec<String>)> = Vec::new();
    for cell in summary.cells.iter().filter(|cell| cell.is_clean()) {
        let Some(costs) = &cell.costs else { continue };
        let each = |count| per(count, cell.requests.completed);
        let figures = vec![
            driver(cell.driver).id.to_owned(),
            iommu_name(cell.iommu).to_owned(),
            fabric_name(cell.fabric).to_owned(),
            cell.injected.to_string(),
            each(costs.crossings),
            each(costs.copied_bytes),
            each(costs.wakeups),
            each(costs.doorbells),
            each(costs.mmio_reads),
            each(costs.mmio_writes),
            each(costs.maps),
            each(costs.invalidations),
            each(costs.interrupts),
            each(costs.dma_requests),
            median(cell.stall),
            median(cell.io_stall),
        ];
        let name = placement(cell.placement).id;
        match rows.last_mut() {
            Some((names, same)) if *same == figures => names.push(name),
            _ => rows.push((vec![name], figures)),
        }
    }
    rows
}

fn costs(summary: &Summary) -> Markup {
    let rows = cost_rows(summary);
    html! {
        @if !rows.is_empty() {
            h2 { "Without faults: what a request costs" }
            p {
                "Events for each completed request of a tenant, from the clean trials; true on any \
                 host. Longest heartbeat gap and longest request as medians of device time. n is \
                 for each placement."
            }
            div.scroll { table {
                thead { tr {
                    th { "placement" } th { "driver" } th { "IOMMU" } th { "fabric" } th { "n" }
                    th { "crossings" } th { "bytes copied" } th { "wake-ups" }
                    th { "doorbells" } th { "register reads" } th { "register writes" }
                    th { "maps" } th { "invalidations" } th { "interrupts" } th { "DMA requests" }
                    th { "gap" } th { "request" }
                } }
                tbody {
                    @for (names, figures) in &rows {
                        tr {
                            th { (names.join(", ")) }
                            @for figure in figures { td.num { (figure) } }
                        }
                    }
                }
            } }
        }
    }
}

fn median(spread: Option<Spread>) -> String {
    spread.map_or("-".into(), |spread| time(spread.median_ns))
}

fn spread(of: Option<Spread>) -> String {
    of.map_or("-".into(), |spread| {
        if spread.median_ns == spread.max_ns {
            time(spread.max_ns)
        } else {
            format!("{}, max {}", time(spread.median_ns), time(spread.max_ns))
        }
    })
}

fn rate(of: &Proportion) -> String {
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

fn names(of: &BTreeMap<String, u32>) -> String {
    let each: Vec<String> = of
        .iter()
        .map(|(name, times)| format!("{name} {times}"))
        .collect();
    each.join(", ")
}

fn details(summary: &Summary) -> Markup {
    html! {
        h2 { "Every cell" }
        p {
            "Escaped: something outside the driver's own domain differed. A rate with its 95 % \
             interval (Clopper-Pearson) is given from 30 activated trials on, else counts. Stall, \
             request, detection and recovery: median and maximum."
        }
        @for fault in FAULTS.iter().filter(|fault| fault.id != "none") {
            @let cells: Vec<_> = summary.cells.iter().filter(|cell| cell.fault == fault.id).collect();
            @if !cells.is_empty() {
                details {
                    summary { (fault.id) ": " (fault.line) " (" (cells.len()) " cells)" }
                    div.scroll { table.cells {
                        thead { tr {
                            th { "cell" } th { "prediction" } th { "activated" } th { "outcomes" }
                            th { "escaped" } th { "hurt" } th { "stall" } th { "request" }
                            th { "detection" } th { "recovery" } th { "stray DMA" }
                        } }
                        tbody { @for cell in cells { (cell_row(cell)) } }
                    } }
                }
            }
        }
    }
}

fn cell_row(cell: &CellSummary) -> Markup {
    let worst = cell
        .worst()
        .map_or(Outcome::NotActivated, |(worst, _)| worst);
    let hurt: Vec<String> = [&cell.corrupted, &cell.hurt]
        .into_iter()
        .filter(|names| !names.is_empty())
        .map(names)
        .collect();
    html! {
        tr {
            th {
                code { (cell.id) }
                small { (if cell.deployed { "deployed" } else { "synthetic" }) }
            }
            td { (cell.prediction) small { (label(cell.label)) ": " (cell.because) } }
            td.num { (cell.activated) "/" (cell.injected) }
            td {
                span class={ "chip " (worst.name()) } { (says(worst)) }
                @for (outcome, times) in &cell.outcomes {
                    small { (says(*outcome)) " " (times) }
                }
            }
            td { (rate(&cell.escaped)) small { "landed in " (cell.landed) } }
            td {
                (hurt.join("; "))
                @if cell.blast_bytes > 0 { small { (cell.blast_bytes) " bytes at most" } }
            }
            td.num {
                (spread(cell.stall))
                @if cell.censored > 0 { small { "at least, in " (cell.censored) } }
                @if cell.frozen_ns > 0 { small { "CPU frozen " (time(cell.frozen_ns)) } }
            }
            td.num {
                (spread(cell.io_stall))
                @let io = &cell.requests;
                @if io.errors + io.corrupted + io.lost + io.duplicated > 0 {
                    small {
                        (io.errors) " errors, " (io.corrupted) " corrupted, " (io.lost) " lost, "
                        (io.duplicated) " twice"
                    }
                }
            }
            td { (spread(cell.noticed.after)) small { (names(&cell.noticed.by)) } }
            td {
                (spread(cell.recovery.after))
                @if cell.recovery.needed > 0 {
                    small { (cell.recovery.recovered) " of " (cell.recovery.needed) }
                }
            }
            td.num {
                (cell.stray.landed) " landed"
                small { (cell.stray.blocked) " refused" }
                @if let Some(window) = cell.stray.stale_window_ns {
                    small { "stale for " (time(window)) }
                }
            }
        }
    }
}

fn environment(summary: &Summary) -> Markup {
    let environment = &summary.environment;
    html! {
        h2 { "Environment" }
        dl {
            dt { "kernel" } dd { (environment.kernel) }
            dt { "CPU" } dd { (environment.cpu) ", " (environment.cores) " usable" }
            dt { "clock" }
            dd { (clock_name(environment.clock)) " (clock source " (environment.clock_source) ")" }
            dt { "mechanism" } dd { "process: " (environment.caveat) }
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
            h3 { "What does not exist" }
            dl {
                @for each in &summary.not_applicable {
                    dt { (each.case) " with " (each.place) } dd { (each.reason) }
                }
            }
        }
    }
}

fn reading() -> Markup {
    html! {
        h2 { "How to read this" }
        div.scroll { table {
            thead { tr { th { "outcome" } th { "means" } } }
            tbody {
                @for outcome in Outcome::ALL.into_iter().filter(|each| *each != Outcome::Clean) {
                    tr {
                        th { span class={ "chip " (outcome.name()) } { (says(outcome)) } }
                        td { (means(outcome)) }
                    }
                }
            }
        } }
        h3 { "Faults" }
        dl {
            @for fault in FAULTS.iter().filter(|fault| fault.id != "none") {
                dt { (fault.id) }
                dd { (fault.line) span.soft { ". " (fault.parameters) ". " (fault.trigger) } }
            }
        }
        h3 { "Placements" }
        dl {
            @for entry in &PLACEMENTS {
                dt { (entry.id) }
                dd {
                    (entry.line) span.soft { ". Stands for " (entry.stands_for) ". A tenant's way: "
                    (entry.crossing) }
                }
            }
        }
        h3 { "Drivers" }
        dl {
            @for entry in &DRIVERS { dt { (entry.id) } dd { (entry.line) } }
        }
        h3 { "Limits" }
        p {
            "Walls are processes with their own mappings; devices, IOMMU and fabric are models. \
             So who is hurt is measured on real walls, how long it lasts is device time of the \
             model, and no figure includes the cost of traps or nested paging."
        }
    }
}
