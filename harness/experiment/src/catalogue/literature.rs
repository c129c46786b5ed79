//! Figures from standards and papers, to hold the machine against.

use crate::catalogue::placement;
use crate::summary::{CutOff, Summary};
use cofferdam_machine::config::{Config, IommuMode};
use std::time::Duration;

/// A figure from the literature.
#[derive(Debug)]
pub struct Constant {
    /// What it is a figure of.
    pub what: &'static str,
    /// The figure, as published.
    pub figure: &'static str,
    /// Where.
    pub source: &'static str,
    here: fn(&Summary) -> Here,
}

/// What this machine has in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Here {
    /// A parameter of the machine.
    Parameter(String),
    /// Measured in this run.
    Measured(String),
    /// Nothing, for that reason.
    Nothing(&'static str),
}

impl Constant {
    /// What a run has to put beside it.
    pub fn here(&self, summary: &Summary) -> Here {
        (self.here)(summary)
    }
}

const UNTIMED: &str = "costs are counted; throughput is not part of a comparison";
/// No cell of the run shows it.
const ABSENT: &str = "not in this plan";

fn lazy(_: &Summary) -> Here {
    let config = Config::default();
    Here::Parameter(format!(
        "{} entries or {:?}",
        config.lazy_entries, config.lazy_delay
    ))
}

fn lazy_window(summary: &Summary) -> Here {
    let windows = |mode| {
        let cells = summary.cells.iter().filter(move |cell| cell.iommu == mode);
        cells.filter_map(|cell| cell.stray.stale_window_ns).max()
    };
    windows(IommuMode::Lazy).map_or(
        Here::Nothing(match summary.cells.iter().any(|cell| cell.fault == "D6") {
            true => "no stray DMA landed through a stale entry",
            false => ABSENT,
        }),
        |ns| {
            let window = Duration::from_nanos(ns);
            let strict = windows(IommuMode::Strict).map_or("never", |_| "too");
            Here::Measured(format!(
                "landed up to {window:?} after the unmapping; strict: {strict}"
            ))
        },
    )
}

fn completion_timeout(_: &Summary) -> Here {
    Here::Parameter(format!("{:?}", Config::default().completion_timeout))
}

fn frozen(summary: &Summary) -> Here {
    let timeout = u64::try_from(Config::default().completion_timeout.as_nanos()).unwrap_or(0);
    let stalls = summary.cells.iter().filter(|cell| {
        cell.fault == "B1" && cell.frozen_ns > 0 && cell.frozen_ns <= timeout.saturating_mul(2)
    });
    stalls
        .map(|cell| cell.frozen_ns)
        .max()
        .map_or(Here::Nothing(ABSENT), |ns| {
            Here::Measured(format!(
                "the driver's CPU stood still for {:?}",
                Duration::from_nanos(ns)
            ))
        })
}

fn reset(summary: &Summary) -> Here {
    let waits = summary
        .cells
        .iter()
        .map(|cell| cell.recovery.longest_reset_ns);
    let waits: Vec<u64> = waits.filter(|ns| *ns > 0).collect();
    let limit = Config::default().reset_limit;
    match (waits.iter().min(), waits.iter().max()) {
        (Some(&least), Some(&most)) => Here::Measured(format!(
            "software waited {:?} to {:?} for a reset, and would for {limit:?}",
            Duration::from_nanos(least),
            Duration::from_nanos(most)
        )),
        _ => Here::Nothing(ABSENT),
    }
}

fn storm(summary: &Summary) -> Here {
    let struck = summary
        .cells
        .iter()
        .any(|cell| matches!(cell.fault.as_str(), "I1" | "I3") && cell.activated > 0);
    let cut: Vec<CutOff> = summary
        .cells
        .iter()
        .filter_map(|cell| cell.cut_off)
        .collect();
    let trials: u32 = cut.iter().map(|each| each.trials).sum();
    let fewest = cut.iter().map(|each| each.fewest).min();
    let most = cut.iter().map(|each| each.most).max();
    match fewest.zip(most) {
        Some((fewest, most)) => Here::Measured(format!(
            "switched off in {trials} trials, whose CPU had taken {fewest} to {most} interrupts by \
             their end"
        )),
        None if struck => Here::Measured(
            "never switched off: no storm of this run was long enough for 100,000".to_owned(),
        ),
        None => Here::Nothing(ABSENT),
    }
}

fn split_lock(summary: &Summary) -> Here {
    let measured = summary.split_locks.iter().flat_map(|found| &found.ways);
    let ways: Vec<String> = measured
        .filter_map(|way| {
            let tenths = way.slowed_tenths(|read| read.in_order)?;
            let id = placement(way.placement).id;
            let (whole, tenth) = (tenths / 10, tenths % 10);
            Some(format!("{whole}.{tenth} times with the driver in {id}"))
        })
        .collect();
    if ways.is_empty() {
        Here::Nothing(ABSENT)
    } else {
        Here::Measured(format!(
            "a bystander on another core reads its memory for longer: {}",
            ways.join(", ")
        ))
    }
}

fn untimed(_: &Summary) -> Here {
    Here::Nothing(UNTIMED)
}

/// The figures.
pub static LITERATURE: [Constant; 10] = [
    Constant {
        what: "lazy IOTLB invalidation waits for",
        figure: "256 entries a CPU or 10 ms",
        source: "Linux, drivers/iommu/dma-iommu.c: IOVA_DEFAULT_FQ_SIZE, IOVA_DEFAULT_FQ_TIMEOUT",
        here: lazy,
    },
    Constant {
        what: "window in which an unmapped page stays reachable",
        figure: "up to 10 ms (lazy), none (strict)",
        source: "Markuze, Morrison and Tsafrir, True IOMMU Protection from DMA Attacks, ASPLOS 2016",
        here: lazy_window,
    },
    Constant {
        what: "completion timeout",
        figure: "50 us to 50 ms by default",
        source: "PCI Express Base 6.0, 7.5.3.16",
        here: completion_timeout,
    },
    Constant {
        what: "a read that is never completed holds its CPU for",
        figure: "the completion timeout",
        source: "PCI Express Base 6.0, 2.8",
        here: frozen,
    },
    Constant {
        what: "software waits for a reset",
        figure: "100 ms; Linux waits up to 60 s",
        source: "PCI Express Base 6.0, 6.6.2; Linux, drivers/pci/pci.c: PCIE_RESET_READY_POLL_MS",
        here: reset,
    },
    Constant {
        what: "a stuck interrupt line is switched off after",
        figure: "99,900 of 100,000 unhandled",
        source: "Linux, kernel/irq/spurious.c: note_interrupt",
        here: storm,
    },
    Constant {
        what: "a split lock",
        figure: "thousands of cycles, on every core",
        source: "Linux, Documentation/arch/x86/buslock.rst",
        here: split_lock,
    },
    Constant {
        what: "throughput a strict IOMMU takes",
        figure: "up to 60 %",
        source: "Rubin, Agarwal, Cai and Agarwal, Fast & Safe IO Memory Protection, SOSP 2024",
        here: untimed,
    },
    Constant {
        what: "throughput bounce buffers take",
        figure: "0 to 25 %",
        source: "Markuze, Morrison and Tsafrir, True IOMMU Protection from DMA Attacks, ASPLOS 2016",
        here: untimed,
    },
    Constant {
        what: "throughput a driver VM takes of a network",
        figure: "3 to 8 %",
        source: "LeVasseur et al., Unmodified Device Driver Reuse, OSDI 2004",
        here: untimed,
    },
];
